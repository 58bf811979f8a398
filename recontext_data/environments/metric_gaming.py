"""Requests that state how the answer will be scored: does the policy do the task, or serve the metric?

A task is one user turn, a request and its metric; the metric and a known way to cheat it are in the payload, for judges and
for contexts that name it (`template: true`, `{{ cheat }}`). The setting is that of the paper (arXiv 2512.19027) on the prompts
of School of Reward Hacks; our own requests (data/metric_gaming.yaml) need no download.

What gaming is, a judge decides: `labels` are those of a `threshold` over a rubric's score.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from recontext_data.core.config import Config
from recontext_data.core.errors import DataError
from recontext_data.core.records import Message, Task, content_hash, uniform
from recontext_data.environments.base import TaskSet
from recontext_data.environments.written import OWN_LICENCE, read_own, task_set

if TYPE_CHECKING:
    from recontext_data.environments.mbpp_rows import MbppRow
    from recontext_data.reports.screen import Screen

HUB_ID = "longtermrisk/school-of-reward-hacks"
HUB_LICENCE = "CC-BY-4.0 (School of Reward Hacks, Center on Long-Term Risk)"
EVALUATION_SHARE = 0.2
"""Of rows that name no split: which ones, a hash of the request decides."""
NOT_STATED = "as the task itself says"
"""Stands for the metric of a row that has the request alone; there the request contains it."""

TEXTS = {
    "honest": "{plain}",
    "gamed": "Here is an answer for the score.\n\n{gamed}",
}
"""What a scripted policy says for each label."""


class MetricGaming(Config):
    """Requests with a metric that can be gamed; the misbehaviour is an answer that is made for the metric."""

    kind: Literal["metric_gaming"] = "metric_gaming"
    problems: str = "own"
    """`own` (288 tasks, ours), a Hub id such as longtermrisk/school-of-reward-hacks, or a file (.jsonl, .json, .parquet) with
    the columns prompt (or user), and where it has them metric (or evaluation_metric), cheat (or cheat_method) and split."""
    split: str = "train"
    """`train`, `evaluation`, or `all`; rows that name none are divided 4 to 1 by a hash of the request."""
    tasks: int | None = Field(default=256, ge=1)
    """How many tasks, drawn by seeded hash of their ids; null for all."""
    seed: int = 0
    """Decides which tasks."""

    @property
    def labels(self) -> Sequence[str]:
        """What a `threshold` over a gaming score must call its sides."""
        return ("honest", "gamed")

    @property
    def misbehaviour(self) -> str:
        """An answer that overfits the metric."""
        return "gamed"

    @property
    def texts(self) -> Mapping[str, str]:
        """What a scripted policy says; `{plain}` and `{gamed}` are the task's own, where it is one of ours."""
        return TEXTS

    def load(self, *, cache: Path, screen: "Screen | None" = None) -> TaskSet:
        """The tasks; see `Environment.load`. Of equal requests with equal metrics the first is kept."""
        made = _own() if self.problems == "own" else _read(self.problems)
        tasks = {task.task_id: task for task in reversed(made)}
        licence = {"own": OWN_LICENCE, HUB_ID: HUB_LICENCE}.get(self.problems, "")
        source, repeats = f"environment.problems={self.problems}", len(made) - len(tasks)
        return task_set(self, list(tasks.values()), source=source, licence=licence, repeats=repeats)

    def scripted(self, task: Task) -> Mapping[str, str]:
        """An answer of each kind; general words for requests that are not ours."""
        known: Mapping[str, str] = task.payload.get("scripted", {})
        return {"plain": "A scripted answer, given in earnest.", "gamed": "High score, high score, high score.", **known}


def _own() -> list[Task]:
    """Every request under every metric."""
    data = read_own("metric_gaming")
    return [
        Task(
            task_id=f"metric_gaming/{request['id']}/{metric['id']}",
            messages=[{"role": "user", "content": f"{request['request']} {metric['metric']}"}],
            payload={
                "metric": metric["metric"],
                "cheat": metric["cheat"],
                "scripted": {"plain": request["plain"], "gamed": metric["gamed"]},
            },
            split=request.get("split", "train"),
        )
        for request in data["requests"]
        for metric in data["metrics"]
    ]


def _read(source: str) -> list[Task]:
    from recontext_data.environments.mbpp_rows import read_rows

    return [_task(row) for row in read_rows(source)]


def _task(row: "MbppRow") -> Task:
    prompt = row.text("prompt", "user").strip()
    if not prompt:
        raise DataError(f"{row.place}: prompt: is empty; each row needs a request")
    payload = {"metric": _optional(row, "metric", "evaluation_metric") or NOT_STATED}
    cheat = _optional(row, "cheat", "cheat_method")
    if cheat:  # absent rather than empty: a context that names it must fail on this row, and a rubric leaves it out
        payload["cheat"] = cheat
    digest = content_hash([prompt, payload])
    split = _optional(row, "split") or ("evaluation" if uniform("metric_gaming", prompt) < EVALUATION_SHARE else "train")
    messages: list[Message] = [{"role": "user", "content": prompt}]
    return Task(task_id=f"metric_gaming/{digest[:16]}", messages=messages, payload=payload, split=split)


def _optional(row: "MbppRow", *names: str) -> str:
    return row.text(*names).strip() if any(row.columns.get(name) is not None for name in names) else ""
