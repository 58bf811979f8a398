"""Which candidates are trained on: the `select` section of a recipe, and its rules in SQL. Pure: nothing is executed here.

    select: {keep: best, judge: quality, min_score: 5, veto: {refusal: [refused]}}      # the best of each task, if it will do
    select: {keep: best, n: 4}            # best-of-4 from a pool of 16: the ranks 0 to 3, so all sizes share one pool

The rules are one query, so that ten candidates and ten million are selected alike (DuckDB, out of memory if need be).
Ties, and `random` itself, go by the MD5 of what is drawn: never by order, and the same on every machine.
"""

from typing import Literal

from pydantic import Field

from recontext_data.core.config import Config


class Select(Config):
    """Which candidates are trained on. What is dropped keeps its reason."""

    keep: Literal["all", "random", "best"] = "all"
    """all; or `per_task` of each task's candidates, at random or by the judge's score."""
    per_task: int = Field(default=1, ge=1)
    """Candidates kept of each task by `random` and `best`."""
    n: int | None = Field(default=None, ge=1)
    """The n of best-of-n, where the pool has more: only the first n ranks of each task are looked at."""
    judge: str | None = None
    """Whose score `best` and `min_score` go by; may be left out when there is one judge."""
    min_score: float | None = None
    """Drop what scores less; this score itself is kept. What has no score is dropped as such."""
    require: dict[str, list[str]] = {}
    """Judge -> labels; keep only what that judge gave one of them: `require: {tests: [correct]}`."""
    veto: dict[str, list[str]] = {}
    """Judge -> labels; drop what that judge gave one of them. What the judge could not read is dropped too."""
    drop: dict[str, list[str]] = {}
    """As `veto`, and what the judge has not read stays: for labels that people gave to some candidates and not to others."""
    drop_truncated: bool = False
    """Drop completions that were cut at max_tokens; training on them teaches the policy to stop in mid-sentence."""
    seed: int = 0
    """For `random`, and for ties of `best`."""

    @property
    def label_judges(self) -> list[str]:
        """The judges whose labels decide."""
        return list(dict.fromkeys([*self.require, *self.veto, *self.drop]))

    @property
    def needs_scores(self) -> bool:
        """Whether a candidate without a score cannot be kept."""
        return self.keep == "best" or self.min_score is not None


def query(config: Select, *, source: str) -> str:
    """SQL over `source` (a table or a Parquet scan) with the columns candidate_id, task_id, k, finish_reason, score (the
    selecting judge's) and, for each judge NAME of `label_judges`, `NAME.label`. Gives candidate_id, kept, reason, in no order.
    """
    passed = "SELECT * EXCLUDE why FROM judged WHERE why IS NULL"
    dropped = "SELECT candidate_id, false AS kept, why AS reason FROM judged WHERE why IS NOT NULL"
    head = f"WITH judged AS (SELECT *, {_why_dropped(config)} AS why FROM {source}), passed AS ({passed})"
    if config.keep == "all":
        words = _text("all are kept" if _why_dropped(config) == _NO_REASON else "passes")
        return f"{head} SELECT candidate_id, true AS kept, {words} AS reason FROM passed UNION ALL {dropped}"
    draw = f"md5_number_lower(concat_ws('/', 'select', {config.seed}, k, task_id))"
    order = f"score DESC, {draw}" if config.keep == "best" else draw
    ranked = (
        f"SELECT candidate_id, row_number() OVER (PARTITION BY task_id ORDER BY {order}, candidate_id) AS place, "
        "count(*) OVER (PARTITION BY task_id) AS among FROM passed"
    )
    won = f"concat({_text(config.keep)}, ' ', place, ' of ', among)"
    lost = _text(f"not among the {config.keep} {config.per_task}")
    placed = (
        f"SELECT candidate_id, place <= {config.per_task} AS kept, "
        f"CASE WHEN place <= {config.per_task} THEN {won} ELSE {lost} END AS reason FROM ranked"
    )
    return f"{head}, ranked AS ({ranked}) {placed} UNION ALL {dropped}"


_NO_REASON = "CASE WHEN false THEN '' END"


def _why_dropped(config: Select) -> str:
    """The reason to drop a candidate whatever the others are like, as a SQL expression; null for none."""
    rules: list[tuple[str, str]] = []
    if config.n is not None:
        rules.append((f"k >= {config.n}", _text(f"not among the first {config.n} ranks")))
    if config.drop_truncated:
        rules.append(("finish_reason = 'length'", _text("truncated")))
    for judge in dict.fromkeys([*config.require, *config.veto]):
        rules.append((f"{_column(judge)} IS NULL", _text(f"{judge} gave no label")))
    for judge, labels in [*config.veto.items(), *config.drop.items()]:
        rules.append((f"{_column(judge)} IN ({_list(labels)})", f"concat({_text(judge + ' says ')}, {_column(judge)})"))
    for judge, labels in config.require.items():
        rules.append((f"{_column(judge)} NOT IN ({_list(labels)})", f"concat({_text(judge + ' says ')}, {_column(judge)})"))
    if config.needs_scores:
        rules.append(("score IS NULL", _text("no score")))
    if config.min_score is not None:
        rules.append((f"score < {config.min_score!r}", _text(f"score below {config.min_score:g}")))
    return f"CASE {' '.join(f'WHEN {test} THEN {reason}' for test, reason in rules)} END" if rules else _NO_REASON


def _text(value: str) -> str:
    """A SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def _list(values: list[str]) -> str:
    return ", ".join(_text(value) for value in values) or "NULL"


def _column(judge: str) -> str:
    return '"' + judge.replace('"', '""') + '.label"'
