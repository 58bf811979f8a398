"""Training on the datasets of a run: TRL's SFTTrainer behind a small config, with checks before the first step and after the last.

The only rooms that import trl and peft. `models.models_of` is what the evaluation reads.
"""
