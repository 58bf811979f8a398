"""Stage proof, before anything is sampled: every judge that asks no model reads answers whose labels are known.

The environment supplies the answers (`environments.base.gold`): a reference solution and a special-cased one in code_tests, the
two options in code_mc. A judge that gives the environment's labels must give exactly these; another one must read them
without an error. A build whose judge is wrong about them would be wrong about everything, so it stops here.
"""

import heapq
from collections.abc import Sequence
from typing import Any

from recontext_data.core.errors import ProofFailed
from recontext_data.core.records import Candidate, Judgement, Task, uniform
from recontext_data.environments.base import Environment, gold
from recontext_data.judges.base import AnyJudge, Reader

TASKS = 32
"""Tasks whose answers are read, drawn by a hash of their ids: what is wrong with a judge or a set of tests shows in few."""


def check_judges(judges: Sequence[AnyJudge], environment: Environment, tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """What each judge that was proved read and said, for the manifest: judge, tasks, answers and right, per label.

    Raises:
        ProofFailed: a judge gave another label than an answer deserves, or none.
    """
    drawn = heapq.nsmallest(TASKS, tasks, key=lambda task: (uniform("proof", task.task_id), task.task_id))
    answers = [(label, _candidate(task, label, text)) for task in drawn for label, text in gold(environment, task).items()]
    proofs = []
    for index, one in enumerate(judges):
        if not isinstance(one, Reader):
            continue
        words = one.judge([candidate for _, candidate in answers])
        if not set(environment.texts) <= set(one.labels):
            continue  # it is about something else than the environment's labels
        counts = {label: 0 for label in environment.texts}
        for (label, candidate), word in zip(answers, words, strict=True):
            if word.label != label:
                raise ProofFailed(_failure(index, one, candidate, label, word))
            counts[label] += 1
        proofs.append({"judge": one.name, "tasks": len(drawn), "answers": counts})
    return proofs


def _candidate(task: Task, label: str, text: str) -> Candidate:
    return Candidate(
        candidate_id=f"proof {task.task_id} {label}",
        task_id=task.task_id,
        messages=task.messages,
        completion=text,
        payload=task.payload,
    )


def _failure(index: int, one: AnyJudge, candidate: Candidate, label: str, word: Judgement) -> str:
    said = f"says {word.label!r}" if word.label is not None else f"gives no label ({word.unscored_reason})"
    slow = "; if the machine is busy or the solution slow, raise its timeout_seconds" if word.label == "timeout" else ""
    return (
        f"judges.{index} ({one.name}): fails its own proof, nothing was sampled: of an answer to {candidate.task_id!r} that is "
        f"{label!r} it {said}: {word.raw[:300]}{slow}"
    )
