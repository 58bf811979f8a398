"""Training on the datasets of a run: TRL's SFTTrainer behind a small config, with checks before and after.

The only rooms that import trl and peft. `models.models_of` is what the evaluation reads.
"""
