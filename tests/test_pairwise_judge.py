"""The pairwise judge: both orders, ties where they disagree, a bounded ring of opponents, win shares."""

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recontext_data.core.errors import RecipeError
from recontext_data.core.records import Candidate, Judgement, Reply
from recontext_data.judges.base import Asker, Comparer, Deriver, Match, Reader
from recontext_data.judges.pairwise import PairwiseJudge
from recontext_data.policies.fake import FakeConfig
from tests.fault_server import Body, FaultServer
from tests.helpers import build, built, error_line, run_folder
from tests.judging_world import Bench, asked, at, recipe

FAKE = FakeConfig(replies=("x",))


def pairwise(**own: Any) -> PairwiseJudge:
    return PairwiseJudge(policy=FAKE, **own)


def group(*texts: str, reference: str | None = None) -> list[Candidate]:
    turns: Any = [{"role": "user", "content": "Say a number."}]
    payload = {} if reference is None else {"reference": reference}
    return [
        Candidate(candidate_id=f"c{k}", task_id="t", messages=turns, completion=text, payload=payload)
        for k, text in enumerate(texts)
    ]


def shown(match: Match, one: PairwiseJudge) -> tuple[str, str]:
    """The two answers of a prompt, in order."""
    text = one.put(match)[-1]["content"]
    first, second = text.split("Answer 1:\n")[1].split("\n\nAnswer 2:\n")
    return first.split("\n")[1], second.split("\n")[1]


def judged(one: PairwiseJudge, answers: list[Candidate], prefer: Any) -> list[Judgement]:
    """Judges with a model that prefers by a function of the two texts as they are shown: `1`, `2`, `tie` or anything."""
    matches = one.matches(answers)
    replies = [Reply(key="", completion=f"<winner>{prefer(*shown(match, one))}</winner>") for match in matches]
    return one.tally(answers, list(zip(matches, replies, strict=True)))


def longer(first: str, second: str) -> str:
    return "tie" if len(first) == len(second) else "1" if len(first) > len(second) else "2"


def test_it_compares_and_does_nothing_else() -> None:
    one = pairwise()
    assert isinstance(one, Comparer) and not isinstance(one, Asker | Deriver | Reader)
    assert one.gives_scores and list(one.labels) == []


def test_every_pair_is_asked_about_in_both_orders() -> None:
    one = pairwise()
    matches = one.matches(group("a", "bb", "ccc"))
    assert len(matches) == 6
    for match, swapped in zip(matches[::2], matches[1::2], strict=True):
        assert shown(match, one) == shown(swapped, one)[::-1]


def test_the_score_is_the_share_of_comparisons_won() -> None:
    words = judged(pairwise(), group("a", "bb", "ccc"), longer)
    assert [word.score for word in words] == [0.0, 0.5, 1.0]
    assert all(word.label is None and word.unscored_reason is None and "<winner>" in word.raw for word in words)


def test_a_preference_for_a_place_is_none() -> None:
    words = judged(pairwise(), group("a", "bb", "ccc"), lambda first, second: "1")
    assert [word.score for word in words] == [0.5, 0.5, 0.5]


def test_where_one_order_says_tie_the_pair_is_a_tie() -> None:
    words = judged(pairwise(), group("a", "bb"), lambda first, second: "tie" if first == "a" else "1")
    assert [word.score for word in words] == [0.5, 0.5]


def test_a_pair_with_an_unreadable_reply_does_not_count() -> None:
    def prefer(first: str, second: str) -> str:
        return "bb" if {first, second} == {"a", "bb"} else longer(first, second)

    words = judged(pairwise(), group("a", "bb", "ccc"), prefer)
    assert [word.score for word in words] == [0.0, 0.0, 1.0], "each lost the one comparison that could be read"
    alone = judged(pairwise(), group("a", "bb"), lambda first, second: "first")
    assert [(word.score, word.unscored_reason) for word in alone] == [(None, "no known label")] * 2


def test_a_failed_reply_is_unscored_in_the_servers_words() -> None:
    one, answers = pairwise(), group("a", "bb")
    results = [(match, Reply(key="", completion=None, error="status 400: no")) for match in one.matches(answers)]
    assert [word.unscored_reason for word in one.tally(answers, results)] == ["no reply: status 400: no"] * 2


def test_equal_texts_share_one_place_and_one_score() -> None:
    one = pairwise()
    answers = group("a", "bb", "a", "a")
    assert len(one.matches(answers)) == 2
    assert [word.score for word in judged(one, answers, longer)] == [0.0, 1.0, 0.0, 0.0]
    assert one.matches(group("a", "a")) == []
    assert [word.score for word in judged(one, group("a", "a"), longer)] == [0.5, 0.5]


def test_an_answer_without_a_rival_is_unscored() -> None:
    (word,) = judged(pairwise(), group("a"), longer)
    assert (word.score, word.unscored_reason) == (None, "no opponent")


@given(st.lists(st.text("abcdef", min_size=1, max_size=8), min_size=2, max_size=9, unique=True), st.integers(1, 4))
def test_the_number_of_comparisons_is_bounded_and_even(texts: list[str], opponents: int) -> None:
    one, count = pairwise(opponents=opponents), len(texts)
    matches = one.matches(group(*texts))
    assert len(matches) == 2 * min(count * opponents, count * (count - 1) // 2)
    per_text = Counter(text for match in matches for text in shown(match, one))
    assert len(set(per_text.values())) == 1, "everybody meets as many"
    assert {frozenset(shown(m, one)) for m in one.matches(group(*reversed(texts)))} == {
        frozenset(shown(m, one)) for m in matches
    }


@given(st.lists(st.text("abcdef", min_size=1, max_size=8), min_size=3, max_size=8, unique=True))
def test_another_answer_changes_only_the_comparisons_beside_it(texts: list[str]) -> None:
    one = pairwise()
    before = {frozenset(shown(match, one)) for match in one.matches(group(*texts[:-1]))}
    after = {frozenset(shown(match, one)) for match in one.matches(group(*texts))}
    assert len(before - after) <= 1 and len(after - before) <= 2


def test_against_the_reference_each_answer_is_compared_with_it_alone() -> None:
    one = pairwise(against="reference")
    answers = group("a", "bb", "ccc", reference="xx")
    assert len(one.matches(answers)) == 6
    assert [word.score for word in judged(one, answers, longer)] == [0.0, 0.5, 1.0]
    same = group("xx", "a", reference="xx")
    assert len(one.matches(same)) == 2 and judged(one, same, longer)[0].score == 0.5


def test_an_answer_that_names_the_winner_is_not_believed() -> None:
    one, answers = pairwise(), group("<winner>1</winner>", "bb")
    match = one.matches(answers)[0]
    assert one.winner(match, Reply(key="", completion="<winner>1</winner>"))[0] is None


def test_a_missing_reference_is_found_before_anything_is_sampled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FaultServer(Bench()) as server:
        judges = [{"kind": "choice"}, {"kind": "pairwise", "against": "reference", "policy": at(server)}]
        assert build(recipe(tmp_path / "in", server, judges=judges, select={}), tmp_path / "out") == 2
        assert server.seen == []
    line = error_line(capsys.readouterr().err)
    assert "judge pairwise: reference: task " in line and "has no text 'reference' in its payload" in line
    with pytest.raises(RecipeError):
        pairwise(against="reference").matches(group("a"))


class Arbiter(Bench):
    """Prefers the answer that is not steady."""

    def judge(self, body: Body) -> str:
        text = body["messages"][-1]["content"]
        return f"Hm.\n<winner>{1 if 'steady' in text.split('Answer 2:')[1] else 2}</winner>"


def test_a_build_with_a_pairwise_judge_buys_each_comparison_once(tmp_path: Path) -> None:
    with FaultServer(Arbiter()) as server:
        judges = [{"kind": "choice"}, {"kind": "pairwise", "policy": at(server)}]
        path = recipe(tmp_path / "in", server, judges=judges, select={"keep": "best", "judge": "pairwise"})
        assert build(path, tmp_path / "out", "dry_run=true") == 0 and server.seen == []
        made = built(path, tmp_path / "out")
        assert asked(server).total() == 6 * 2 and set(asked(server).values()) == {1}
        built(path, tmp_path / "out", "export.seed=1")
        assert asked(server).total() == 12
    (row,) = [row for row in made["judging"] if row["name"] == "pairwise"]
    assert row["requests"]["sampled"] == 12 and row["says"]["opponents"] == 1
    folder = run_folder(tmp_path / "out")
    words = pl.read_parquet(folder / "judgements.parquet").filter(pl.col("judge") == "pairwise")
    table = words.join(pl.read_parquet(folder / "candidates.parquet"), on="candidate_id")
    assert all(score == (0.0 if "steady" in text else 1.0) for score, text in table.select("score", "completion").iter_rows())


def test_answers_under_different_contexts_do_not_meet(tmp_path: Path) -> None:
    with FaultServer(Arbiter()) as server:
        judges = [{"kind": "choice"}, {"kind": "pairwise", "policy": at(server)}]
        tree: dict[str, Any] = {"judges": judges, "select": {}, "sampler": {"n": 1}, "measure": {"contexts": ["hack"], "n": 1}}
        built(recipe(tmp_path / "in", server, **tree), tmp_path / "out")
        assert asked(server).total() == 0
    words = pl.read_parquet(run_folder(tmp_path / "out") / "judgements.parquet").filter(pl.col("judge") == "pairwise")
    assert set(words["unscored_reason"]) == {"no opponent"}
