"""Selection: all, random, best; reasons for every candidate; nothing depends on order."""

import itertools
import random
from collections import Counter
from typing import Any

import polars as pl
import pytest

from recontext_data.config.selection import Select
from recontext_data.core.row_ledger import LedgerEntry, entry
from recontext_data.pipeline.select import select


def pool(scores: dict[str, list[float | None]], *, finish: str = "stop") -> pl.DataFrame:
    rows = [
        {"candidate_id": f"{task}/{k}", "task_id": task, "k": k, "finish_reason": finish, "score": score}
        for task, values in scores.items()
        for k, score in enumerate(values)
    ]
    types = {"candidate_id": pl.String, "task_id": pl.String, "k": pl.Int64, "finish_reason": pl.String, "score": pl.Float64}
    return pl.DataFrame(rows, schema=types)


def kept(frame: pl.DataFrame, **config: Any) -> set[str]:
    table, _ = select(frame, config=Select(**config), arm="arm")
    return set(table.filter("kept")["candidate_id"])


TIES: dict[str, list[float | None]] = {f"t{i}": [1.0, 1.0, 1.0, 0.5] for i in range(40)}


def test_all_keeps_all() -> None:
    table, made = select(pool({"t": [None, 1.0]}), config=Select(), arm="a")
    assert table.to_dicts() == [
        {"arm": "a", "candidate_id": f"t/{k}", "kept": True, "reason": "all are kept"} for k in range(2)
    ]
    assert made == LedgerEntry("select", "a", 2, 2, {})


def test_best_takes_the_highest_scores_of_each_task() -> None:
    frame = pool({"t": [0.1, 0.9, 0.5], "u": [-1.0, -2.0, 0.0]})
    assert kept(frame, keep="best") == {"t/1", "u/2"}
    assert kept(frame, keep="best", per_task=2) == {"t/1", "t/2", "u/2", "u/0"}
    assert kept(frame, keep="best", per_task=9) == set(frame["candidate_id"])


def test_a_score_of_zero_is_a_score_and_none_is_not() -> None:
    table, made = select(pool({"t": [None, 0.0], "u": [None, None]}), config=Select(keep="best"), arm="a")
    assert dict(table.select("candidate_id", "reason").iter_rows()) == {
        "t/0": "no score",
        "t/1": "best 1 of 1",
        "u/0": "no score",
        "u/1": "no score",
    }
    assert made == LedgerEntry("select", "a", 4, 1, {"no score": 3})


@pytest.mark.parametrize("keep", ["random", "best"])
def test_ties_go_by_hash_and_not_by_order(keep: str) -> None:
    frame = pool(TIES)
    chosen = kept(frame, keep=keep)
    order = list(range(len(frame)))
    random.Random(0).shuffle(order)
    assert kept(frame[order], keep=keep) == chosen
    places = Counter(candidate.split("/")[1] for candidate in chosen)
    assert len(places) == (4 if keep == "random" else 3)  # not the first of each task
    assert kept(frame, keep=keep, seed=1) != chosen


def test_the_rows_come_in_the_order_of_the_pool() -> None:
    frame = pool(TIES).reverse()
    table, _ = select(frame, config=Select(keep="random"), arm="a")
    assert table["candidate_id"].to_list() == frame["candidate_id"].to_list()


@pytest.mark.parametrize("keep", ["random", "best"])
def test_more_per_task_keeps_what_was_kept(keep: str) -> None:
    sets = [kept(pool(TIES), keep=keep, per_task=count) for count in (1, 2, 3, 4)]
    assert [len(one) for one in sets] == [40, 80, 120, 160]
    assert all(small < large for small, large in itertools.pairwise(sets))


def test_a_smaller_n_is_a_prefix_of_a_larger() -> None:
    """What `random` draws for a rank does not change when more ranks come: the winner of four stays or a new one wins."""
    four = pool({f"t{i}": [None] * 4 for i in range(60)})
    six = pool({f"t{i}": [None] * 6 for i in range(60)})
    before, after = kept(four, keep="random"), kept(six, keep="random")
    assert {one for one in after if int(one[-1]) < 4} <= before
    assert before & after


def test_truncated_completions_go_only_when_asked() -> None:
    frame = pool({"t": [1.0, 2.0]}, finish="length")
    assert kept(frame) == {"t/0", "t/1"}
    table, made = select(frame, config=Select(drop_truncated=True), arm="a")
    assert made == LedgerEntry("select", "a", 2, 0, {"truncated": 2})
    assert set(table["reason"]) == {"truncated"}


def test_an_empty_pool_is_no_error() -> None:
    table, made = select(pool({}), config=Select(keep="best"), arm="a")
    assert (len(table), made.rows_in, made.kept) == (0, 0, 0)


def test_a_ledger_that_does_not_balance_cannot_be_made() -> None:
    assert entry("s", "x", rows_in=3, kept=1, drops=["b", "a"]).as_json() == {
        "stage": "s",
        "scope": "x",
        "in": 3,
        "kept": 1,
        "dropped": {"a": 1, "b": 1},
    }
    for rows_in, kept_rows in ((4, 1), (2, 1)):
        with pytest.raises(AssertionError, match="are unaccounted for"):
            entry("s", "x", rows_in=rows_in, kept=kept_rows, drops=["a", "b"])


def with_words(frame: pl.DataFrame, **labels: list[str | None]) -> pl.DataFrame:
    return frame.with_columns(pl.Series(f"{judge}.label", values, dtype=pl.String) for judge, values in labels.items())


def reasons(frame: pl.DataFrame, **config: Any) -> dict[str, str]:
    table, _ = select(frame, config=Select(**config), arm="arm")
    return dict(table.select("candidate_id", "reason").iter_rows())


def test_best_of_n_is_a_prefix_of_one_pool() -> None:
    frame = pool({"t": [0.1, 0.3, 0.9, 0.5], "u": [0.4, 0.2, 0.3, 0.9]})
    assert kept(frame, keep="best", n=1) == {"t/0", "u/0"}
    assert kept(frame, keep="best", n=2) == {"t/1", "u/0"}
    assert kept(frame, keep="best", n=4) == {"t/2", "u/3"} == kept(frame, keep="best")
    assert reasons(frame, keep="best", n=2)["t/3"] == "not among the first 2 ranks"


def test_the_least_score_is_kept_and_what_is_below_it_is_not() -> None:
    frame = pool({"t": [4.9, 5.0, 5.1, None]})
    assert kept(frame, min_score=5.0) == {"t/1", "t/2"}
    assert reasons(frame, min_score=5.0) == {
        "t/0": "score below 5",
        "t/1": "passes",
        "t/2": "passes",
        "t/3": "no score",
    }


def test_vetoes_and_requirements_name_the_judge_and_its_word() -> None:
    frame = with_words(
        pool({"t": [1.0, 1.0, 1.0, 1.0]}),
        refusal=["fine", "refused", "fine", None],
        tests=["correct", "correct", "hack", "correct"],
    )
    found = reasons(frame, keep="best", veto={"refusal": ["refused"]}, require={"tests": ["correct"]})
    assert found == {
        "t/0": "best 1 of 1",
        "t/1": "refusal says refused",
        "t/2": "tests says hack",
        "t/3": "refusal gave no label",  # what was not read does not pass
    }


def test_names_with_quotes_are_names() -> None:
    judge = """it's "odd" -- ; DROP TABLE pool"""
    frame = with_words(pool({"t": [1.0, 1.0]}), **{judge: list[str | None](["o'k", "no"])})
    assert kept(frame, require={judge: ["o'k"]}) == {"t/0"}


def test_ties_are_drawn_by_the_md5_of_what_is_drawn() -> None:
    """The rule written out once more: another machine, or another DuckDB, must draw the same."""
    import hashlib

    def draw(task: str, k: int) -> int:
        return int.from_bytes(hashlib.md5(f"select/7/{k}/{task}".encode()).digest()[8:], "little")

    expected = {f"{task}/{min((draw(task, k), k) for k in range(4))[1]}" for task in TIES}
    assert kept(pool(TIES), keep="random", seed=7) == expected


@pytest.mark.parametrize("seed", range(5))
def test_every_candidate_is_decided_on_whatever_the_rules(seed: int) -> None:
    rng = random.Random(seed)
    scores = {f"t{i}": [rng.choice([None, 0.0, 1.0, 2.0]) for _ in range(6)] for i in range(30)}
    labels = [rng.choice(["yes", "no", None]) for _ in range(180)]
    frame = with_words(pool(scores), j=labels)
    config = Select(
        keep=rng.choice(["all", "random", "best"]),
        per_task=rng.choice([1, 3]),
        n=rng.choice([None, 4]),
        min_score=rng.choice([None, 1.0]),
        require=rng.choice([{}, {"j": ["yes"]}]),
        veto=rng.choice([{}, {"j": ["no"]}]),
        seed=seed,
    )
    table, made = select(frame, config=config, arm="a")
    assert table["candidate_id"].to_list() == frame["candidate_id"].to_list()
    assert table.null_count().sum_horizontal().item() == 0
    assert made.rows_in == len(frame) == made.kept + sum(made.dropped.values())
    if config.needs_scores:
        unscored = set(frame.filter(pl.col("score").is_null())["candidate_id"])
        assert not unscored & set(table.filter("kept")["candidate_id"])
