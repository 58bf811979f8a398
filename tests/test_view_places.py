"""What was said of candidates is found by places where rows follow the candidates' order, and by ids where they do not."""

from itertools import product
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recontext_data.viewer import facets as facets_module
from recontext_data.viewer import listing, queues
from recontext_data.viewer.database import Database, TooSlow
from recontext_data.viewer.facets import facets
from recontext_data.viewer.fields import View, parse_where
from recontext_data.viewer.listing import ListingQuery, about, page
from recontext_data.viewer.look import RunSnapshot, SnapshotCache
from recontext_data.viewer.runs import RunTables
from tests.view_world import judged, small_run, write_run

COUNT = 120


def table(*, order: list[int] | None = None, drop: int | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Judgements of two judges, and an arm that chose among the second half; in another order, or without a row."""
    rows: list[tuple[int, str, str | None, float | None]]
    rows = [(i, "rule", ("hack", "general", None)[i % 3], None) for i in range(COUNT)]
    rows += [(i, "grade", None, float(i % 10)) for i in range(COUNT)]
    said = judged(rows)
    chosen = pl.DataFrame(
        {
            "arm": ["a"] * (COUNT // 2),
            "candidate_id": [f"{i:024x}" for i in range(COUNT // 2, COUNT)],
            "kept": [i % 4 > 0 for i in range(COUNT // 2)],
            "reason": ["made up"] * (COUNT // 2),
        }
    )
    if order is not None:
        said = pl.concat([said[:COUNT][order], said[COUNT:]])
        chosen = chosen[::-1]
    if drop is not None:
        said = said.with_row_index().filter(pl.col("index") != drop).drop("index")
    return said, chosen


def looked(folder: Path, said: pl.DataFrame, chosen: pl.DataFrame) -> tuple[Database, RunSnapshot]:
    texts = [f"text {i} {'rare' if i == 110 else 'common'}" for i in range(COUNT)]
    path = write_run(folder / "runs" / "made" / "up", texts, judgements=said, selection=chosen)
    database = Database()
    return database, SnapshotCache(database).of(RunTables("made", "up", path))


def ask(look: RunSnapshot, *where: str, search: str = "", sort: str = "", after: int | None = None) -> ListingQuery:
    view = View("candidates", tuple(parse_where(one) for one in where), search, sort, after)
    return ListingQuery(look, view, look.fields("candidates", reviewers=[]))


def rows(database: Database, question: ListingQuery, *, size: int = 500) -> list[int]:
    return [row["row"] for row in page(database, question, size=size).rows]


QUESTIONS: list[dict[str, Any]] = [
    {"where": [f"{key}~{operator}~{value}"], "sort": sort}
    for (key, value), operator, sort in product(
        [("label@rule", "hack"), ("score@grade", "7"), ("kept@a", "true")],
        ["is", "not", "empty", "filled"],
        ["", "-score@grade", "label@rule", "kept@a"],
    )
]
QUESTIONS += [{"where": ["score@grade~ge~8", "label@rule~not~hack"], "sort": ""}, {"where": [], "sort": "-kept@a"}]


def test_both_ways_answer_alike(tmp_path: Path) -> None:
    places, ids = tmp_path / "places", tmp_path / "ids"
    by_place, straight = looked(places, *table())
    by_id, mixed = looked(ids, *table(order=[*range(1, COUNT), 0]))
    assert set(straight.spans) == {("judgements", "rule"), ("judgements", "grade"), ("selection", "a")}
    assert set(mixed.spans) == {("judgements", "grade")}
    for one in QUESTIONS:
        first, second = (ask(look, *one["where"], sort=one["sort"]) for look in (straight, mixed))
        assert rows(by_place, first) == rows(by_id, second), one
        counts = [facets(database, question) for database, question in ((by_place, first), (by_id, second))]
        assert counts[0] == counts[1], one
    every = [{"candidate_id": f"{i:024x}", "row": i} for i in range(COUNT)]
    for name in ("judgements", "selection"):
        found = [about(by_place, straight, name, every), about(by_id, mixed, name, every)]
        plain = [
            {key: sorted((str({**row, "row": 0}) for row in of), key=str) for key, of in answer.items()} for answer in found
        ]
        assert plain[0] == plain[1]
        assert len(found[0]) == (COUNT if name == "judgements" else COUNT // 2)
    by_place.close()
    by_id.close()


@pytest.mark.parametrize(
    ("order", "drop", "why"),
    [
        ([1, 0, *range(2, COUNT)], None, "two rows have changed places"),
        ([0, 0, *range(2, COUNT)], None, "one candidate is judged twice and one not at all"),
        (None, 40, "a row is missing in the middle"),
    ],
)
def test_what_does_not_follow_the_order_is_not_taken_for_it(
    tmp_path: Path, order: list[int] | None, drop: int | None, why: str
) -> None:
    database, look = looked(tmp_path, *table(order=order, drop=drop))
    assert ("judgements", "rule") not in look.spans, why
    database.close()


def test_a_real_build_is_read_by_places(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    database = Database()
    look = SnapshotCache(database).of(RunTables(run.parent.name, run.name, run))
    assert {key for key in look.spans} == {("judgements", one) for one in look.judges} | {
        ("selection", one) for one in look.arms
    }
    truth = pl.read_parquet(run / "judgements.parquet").filter(pl.col("label") == "hack")["candidate_id"].to_list()
    found = page(database, ask(look, "label@choice~is~hack"), size=500).rows
    assert sorted(row["candidate_id"] for row in found) == sorted(truth)
    assert all(row["judgements"][0]["label"] == "hack" for row in found)
    database.close()


def test_rows_of_several_files_are_told_by_ids(tmp_path: Path) -> None:
    said, chosen = table()
    path = write_run(tmp_path / "runs" / "made" / "up", [f"text {i}" for i in range(COUNT)], selection=chosen)
    (path / "judgements").mkdir()
    said[:100].write_parquet(path / "judgements" / "0.parquet")
    said[100:].write_parquet(path / "judgements" / "1.parquet")
    database = Database()
    look = SnapshotCache(database).of(RunTables("made", "up", path))
    assert look.spans == {} and look.judges == ["grade", "rule"]
    assert len(rows(database, ask(look, "label@rule~is~hack"))) == COUNT // 3
    database.close()


# --- windows and deadlines


def test_pages_by_windows_leave_nothing_out_and_show_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database, look = looked(tmp_path, *table())
    whole = rows(database, ask(look, "label@rule~is~hack"))
    monkeypatch.setattr(listing, "WINDOW", 7)
    found: list[int] = []
    after = None
    while True:
        one = page(database, ask(look, "label@rule~is~hack", after=after), size=9)
        found += [row["row"] for row in one.rows]
        after = one.after
        assert one.searched is None
        if after is None:
            break
    assert found == whole == list(range(0, COUNT, 3))
    database.close()


def test_when_time_is_up_a_page_says_how_far_it_came_and_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, look = looked(tmp_path, *table())
    monkeypatch.setattr(listing, "WINDOW", 50)
    seen: list[int] = []
    after: int | None = None
    stops = []
    for _ in range(5):
        one = page(database, ask(look, search="rare", after=after), seconds=0)
        seen += [row["row"] for row in one.rows]
        stops.append(one.searched)
        after = one.after
        if after is None:
            break
    assert seen == [110] and stops == [50, 100, None]
    database.close()


def test_counts_of_a_large_table_are_of_its_first_rows_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database, look = looked(tmp_path, *table())
    assert facets(database, ask(look, search="common")).among is None
    monkeypatch.setattr(facets_module, "MOST", 60)
    found = facets(database, ask(look, search="common"))
    assert (found.among, found.total) == (60, 60)
    by_key = {facet.key: dict(facet.values) for facet in found.facets}
    assert by_key["label@rule"] == {"hack": 20, "general": 20, None: 20}
    assert "kept@a" not in by_key, "the arm chose among the others"
    assert facets(database, ask(look)).total == COUNT, "without a condition all are counted"
    database.close()


def test_a_queue_of_a_large_run_ranks_a_seeded_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database, look = looked(tmp_path, *table())
    question = ask(look)
    whole = queues.queue(database, question, order="uncertainty", seed=1)
    monkeypatch.setattr(queues, "RANKED", 30)
    assert queues.one_in(COUNT) == 4 and queues.one_in(30) == 1
    drawn = queues.queue(database, question, order="uncertainty", seed=1)
    assert 0 < len(drawn) < len(whole) and set(drawn) < set(whole)
    assert drawn == queues.queue(database, question, order="uncertainty", seed=1)
    assert drawn != queues.queue(database, question, order="uncertainty", seed=2)
    assert len(queues.queue(database, question, order="random", seed=1)) == COUNT
    database.close()


def test_a_question_that_is_broken_off_says_so(tmp_path: Path) -> None:
    database, _ = looked(tmp_path, *table())
    slow = "SELECT count(*) FROM range(100000000000) a WHERE hash(a.range) = 3"
    with pytest.raises(TooSlow, match=r"took longer than 0.2 s"):
        database.rows(slow, seconds=0.2)
    database.close()


def test_a_check_that_takes_too_long_leaves_the_way_by_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recontext_data.viewer import look as look_module

    def slow(*_: object) -> None:
        raise TooSlow("took longer")

    monkeypatch.setattr(look_module, "aligned", slow)
    database, look = looked(tmp_path, *table())
    assert look.spans == {} and len(rows(database, ask(look, "label@rule~is~hack"))) == COUNT // 3
    database.close()
