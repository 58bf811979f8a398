"""Judges that ask a model, before anything is spent: whether they can ask about every task, and what that costs at most."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recontext_data.core.prices import approximate_tokens
from recontext_data.core.records import Candidate, Messages, Task
from recontext_data.judges.base import Asker, Comparer
from recontext_data.pipeline.judge import BATCH, as_judged, groups
from recontext_data.pipeline.judge_client import JudgeClient
from recontext_data.pipeline.judge_models import asks
from recontext_data.pipeline.judge_questions import JudgeQuestion, put, question

if TYPE_CHECKING:
    import polars as pl


def require_askable(judges: Sequence[Any], tasks: Sequence[Task]) -> None:
    """Has every judge write its prompt about every task, with a stand-in for the answer.

    Raises:
        RecipeError: a task lacks something that a judge's prompt needs.
    """
    for one in judges:
        for task in tasks if asks(one) else ():
            for _ in _stand_ins(one, task, count=2):
                pass


def _stand_ins(one: Asker | Comparer, task: Task, *, count: int) -> Iterator[Messages]:
    """The prompts about so many answers to a task, empty but for a number that tells them apart."""
    answers = [
        Candidate(candidate_id=str(k), task_id=task.task_id, messages=task.messages, completion=str(k), payload=task.payload)
        for k in range(count)
    ]
    if isinstance(one, Asker):
        yield from (one.ask(answer) for answer in answers)
    else:
        yield from (one.put(match) for match in one.matches(answers))


def judge_forecast(
    judges: Sequence[Any],
    counsel: JudgeClient,
    *,
    candidates: "pl.DataFrame",
    wanted: "pl.DataFrame",
    tasks: Mapping[str, Task],
    max_tokens: int,
) -> list[dict[str, Any]]:
    """A row per judge that asks a model, with the columns of a pool's forecast.

    `candidates` are those that are sampled already, `wanted` all; `max_tokens` bounds those that are not there yet. The cost
    is that of asking as often as `retries` permits, with every reply at its limit.
    """
    return [
        _row(one, counsel, candidates=candidates, wanted=wanted, tasks=tasks, max_tokens=max_tokens)
        for one in judges
        if asks(one)
    ]


def _row(
    one: Any,
    counsel: JudgeClient,
    *,
    candidates: "pl.DataFrame",
    wanted: "pl.DataFrame",
    tasks: Mapping[str, Task],
    max_tokens: int,
) -> dict[str, Any]:
    unsampled = wanted.join(candidates, on="candidate_id", how="anti", maintain_order="left")
    if isinstance(one, Comparer):  # a group that is not whole may come to be compared in another way
        unsampled = wanted.join(unsampled, on=["generation_context", "task_id"], how="semi", maintain_order="left")
    whole = candidates.join(unsampled, on="candidate_id", how="anti", maintain_order="left")
    found, missing = 0, list[Messages]()
    for batch in _questions(one, whole, tasks):
        heard = counsel.ask(one, batch)
        found += sum(reply is not None for reply in heard)
        missing += [asked.messages for asked, reply in zip(batch, heard, strict=True) if reply is None]
    prompt_tokens, is_exact = _tokens(counsel, one, missing)
    unknown, unknown_tokens = _of_unsampled(one, counsel, unsampled, tasks, max_tokens=max_tokens)
    to_ask = len(missing) + unknown
    prompt_tokens += unknown_tokens
    most = to_ask * one.sampling.max_tokens
    rounds = 1 + one.retries
    return {
        "context": f"judge {one.name}",
        "role": "judge",
        "tasks": wanted["task_id"].n_unique(),
        "n": round(len(wanted) / max(1, wanted["task_id"].n_unique())),
        "wanted": found + to_ask,
        "found": found,
        "to_sample": to_ask,
        "requests": to_ask,
        "prompt_tokens": prompt_tokens,
        "is_exact": is_exact and not unknown,
        "max_completion_tokens": most * (1 + one.retries),
        "cost_usd": counsel.charge(one).usd(prompt=rounds * prompt_tokens, completion=rounds * most),
    }


def _questions(one: Any, candidates: "pl.DataFrame", tasks: Mapping[str, Task]) -> Iterator[list[JudgeQuestion]]:
    if isinstance(one, Asker):
        for part in candidates.iter_slices(BATCH):
            yield [question(one, candidate) for candidate in as_judged(part, tasks)]
    else:
        for batch in groups(candidates, tasks):
            yield [put(one, match) for group in batch for match in one.matches(group)]


def _tokens(counsel: JudgeClient, one: Any, prompts: Sequence[Messages]) -> tuple[int, bool]:
    counts = [counsel.policy(one).count_tokens(prompt) for prompt in prompts]
    known = [
        sum(approximate_tokens(turn["content"]) for turn in prompt) if count is None else count
        for count, prompt in zip(counts, prompts, strict=True)
    ]
    return sum(known), None not in counts


def _of_unsampled(
    one: Any, counsel: JudgeClient, unsampled: "pl.DataFrame", tasks: Mapping[str, Task], *, max_tokens: int
) -> tuple[int, int]:
    """(questions, prompt tokens at most) about answers that are not there yet."""
    questions = tokens = 0
    answers_shown = 1 if isinstance(one, Asker) else 2
    for (_, task_id), part in unsampled.group_by("generation_context", "task_id", maintain_order=True):
        prompts = list(_stand_ins(one, tasks[str(task_id)], count=len(part)))
        questions += len(prompts)
        tokens += _tokens(counsel, one, prompts[:1])[0] * len(prompts) + answers_shown * max_tokens * len(prompts)
    return questions, tokens


def stored_usd(judges: Sequence[Any], counsel: JudgeClient, *, candidates: "pl.DataFrame", tasks: Mapping[str, Task]) -> float:
    """What the judges' replies about these candidates cost that are in the store already; the counsel knows of them then."""
    for one in judges:
        if asks(one) and counsel.charge(one).price is not None:
            for batch in _questions(one, candidates, tasks):
                counsel.ask(one, batch)
    return counsel.spent_usd
