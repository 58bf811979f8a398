"""What a training shows while it runs: three rows as they are trained, and a line of progress."""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recontext_data.core.errors import PolicyError
from recontext_data.reports.arm_parts import pair
from recontext_data.reports.text import visible
from recontext_data.training.libraries import Tokenizer
from recontext_data.training.rows import TokenizedRow

if TYPE_CHECKING:
    from transformers import TrainerCallback, TrainerState

    from recontext_data.reports.progress import StageTracker
    from recontext_data.reports.screen import Screen

PREVIEWED = 3
TAIL = 160
"""Characters of a prompt's end, and of a completion, that the preview shows."""


def preview(tokenizer: Tokenizer, rows: Sequence[TokenizedRow], *, arm: str) -> None:
    """Shows on stderr which tokens of three rows loss falls on: decoded from the tokens, not from the text."""
    from rich.text import Text

    from recontext_data.reports.screen import Screen

    screen = Screen()
    screen.note(f"{arm}: three rows as they are trained (masked: no loss)")
    for row in rows[:: max(1, len(rows) // PREVIEWED)][:PREVIEWED]:
        screen.show(Text(f"  {row.row_id[:12]}  {len(row):,} tokens, {len(row.completion)} trained", style="dim"))
        screen.show(Text("  masked   ").append(_end(tokenizer.decode(row.prompt)), style="dim"))
        screen.show(Text("  trained  ").append(_start(tokenizer.decode(row.completion)), style="green"))


def _end(text: str) -> str:
    return _plain(text if len(text) <= TAIL else f"…{text[-TAIL:]}")


def _start(text: str) -> str:
    # The end token must be seen: a long completion is cut in its middle.
    return _plain(text if len(text) <= TAIL else f"{text[: TAIL - 40]} … {text[-40:]}")


def _plain(text: str) -> str:
    return (
        visible(text)
        .replace("\n", "⏎")
        .encode(sys.stderr.encoding or "utf-8", "backslashreplace")
        .decode(sys.stderr.encoding or "utf-8")
    )


def progress_callback(tracker: "StageTracker") -> "TrainerCallback":
    """A trainer's callback that counts steps and ends a training whose loss is not a number."""
    from transformers import TrainerCallback

    class Progress(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: object, state: "TrainerState", control: object, **kwargs: object) -> None:
            tracker.total = state.max_steps
            if state.global_step:
                tracker.advance(state.global_step)

        def on_step_end(self, args: object, state: "TrainerState", control: object, **kwargs: object) -> None:
            tracker.advance()

        def on_log(
            self, args: object, state: "TrainerState", control: object, logs: dict[str, float] | None = None, **kwargs: object
        ) -> None:
            loss = (logs or {}).get("loss")
            if loss is not None and not math.isfinite(loss):
                raise PolicyError(f"the loss is {loss} at step {state.global_step}; lower training.learning_rate")

    return Progress()


def closing_table(records: Sequence[Mapping[str, Any]], screen: "Screen") -> None:
    """One line per model, on stdout. An arm goes by its pair, which is shorter, where that is enough to tell it."""
    pairs = {one["arm"]: pair(one) for one in records}
    short = len(set(pairs.values())) == len(pairs)
    rows = []
    for record in records:
        losses, validation = record["losses"], record["validation_loss"]
        rows.append(
            [
                pairs[record["arm"]] if short else record["arm"],
                str(record["seed"]),
                f"{record['dataset']['rows']['train']:,}",
                f"{record['steps']:,}",
                f"{losses[0][1]:.2f} -> {losses[-1][1]:.2f}" if losses else "",
                f"{validation['before']:.2f} -> {validation['after']:.2f}" if validation else "",
                f"{sum(record['seconds'].values()):.0f}",
            ]
        )
    screen.table(["arm", "seed", "rows", "steps", "loss", "validation", "seconds"], rows)
