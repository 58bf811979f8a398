"""The review page over HTTP: who is let in, what a list shows, unfinished runs, and that no parameter leaves the run."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote, urlsplit

import polars as pl
import pytest

from recontext_data import view as verb
from recontext_data.store.labels import Labels
from tests.helpers import environment, error_line
from tests.view_world import HOSTILE, Served, judged, served, small_run, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("view"))


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[Served]:
    with served(f"run={run}", "reviewer=ann") as server:
        yield server


def ids(text: str) -> list[str]:
    """The candidates of a list, in its order."""
    return [part.split("/candidate/")[1][:24] for part in text.split("row-link")[1:] if "/candidate/" in part[:200]]


def listed(server: Served, **view: object) -> list[str]:
    answer = server.get(server.run("rows", "candidates"), **view)
    assert answer.status == 200, answer.text
    return ids(answer.text)


# -- who is let in ----------------------------------------------------------------------------------------------------


def test_without_the_token_nothing_is_shown(server: Served) -> None:
    stranger = Served(server.link, server.process)
    for path in ("/", "/static/app.js", server.run(), server.run("sql"), "/nothing"):
        answer = stranger.ask("GET", path)
        assert answer.status == 403 and "recontext view" in answer.text and "made" not in answer.text
    assert stranger.ask("GET", "/?token=wrong").status == 403
    assert "set-cookie" not in stranger.ask("GET", "/?token=wrong").headers
    assert stranger.ask("GET", "/?token=%C3%A9").status == 403


def test_the_link_gives_a_strict_cookie_and_leads_on_to_an_address_without_the_token(server: Served) -> None:
    stranger = Served(server.link, server.process)
    query = urlsplit(server.link).query
    answer = stranger.ask("GET", f"/run/a/b?x=1&{query}")
    assert answer.status == 200
    assert "HttpOnly" in answer.headers["set-cookie"] and "SameSite=Strict" in answer.headers["set-cookie"]
    assert "url=/run/a/b?x=1" in answer.text and query not in answer.text
    outside = stranger.ask("GET", f"//evil.invalid/?{query}")
    assert 'url=/evil.invalid/"' in outside.text
    quoted = stranger.ask("GET", f"/%22%3E%3Cscript%3E?{query}&x=%22%3E%3Cscript%3E")
    assert "<script>" not in quoted.text


@pytest.mark.parametrize(
    "host", ["evil.invalid", "evil.invalid:8321", "127.0.0.1.evil.invalid", "192.168.0.7", "", "[::2]", "a@b:c:d"]
)
def test_other_hosts_are_refused(server: Served, host: str) -> None:
    """DNS rebinding: the page of evil.invalid, whose name now leads here, sends its own name and even the right cookie."""
    answer = server.ask("GET", server.run(), headers={"Host": host})
    assert answer.status in (400, 421) and "code" not in answer.text
    assert server.ask("GET", "/?" + urlsplit(server.link).query, headers={"Host": host}).status in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:5"])
def test_loopback_names_are_served(server: Served, host: str) -> None:
    assert server.ask("GET", server.run(), headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.invalid", "null", "http://127.0.0.1:1", "https://127.0.0.1", "http://localhost"]
)
def test_other_origins_are_refused(server: Served, origin: str) -> None:
    assert server.ask("GET", server.run(), headers={"Origin": origin}).status == 403
    assert server.ask("POST", "/reviewer", headers={"Origin": origin}, body=b"reviewer=eve").status == 403


def test_a_post_must_say_its_origin_and_be_small(server: Served) -> None:
    assert server.ask("POST", server.run("label"), body=b"a=b").status == 403
    assert server.ask("POST", "/reviewer", headers={"Origin": server.base}, body=b"x" * 70_000).status == 413
    assert server.ask("PUT", server.run(), headers={"Origin": server.base}).status == 405
    cross = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert server.ask("GET", "/static/app.js", headers=cross).status == 403


def test_every_answer_carries_a_policy_without_inline_script(server: Served) -> None:
    for path in ("/", server.run(), "/static/app.js", "/run/no/thing", "/nothing"):
        headers = server.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"


def test_it_listens_on_loopback_alone(server: Served) -> None:
    wanted = f":{server.port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines() + Path("/proc/net/tcp6").read_text().splitlines()
    listening = [line.split()[1] for line in lines[1:] if line.split()[1].endswith(wanted) and line.split()[3] == "0A"]
    assert listening == [f"0100007F{wanted}"]


def test_a_page_that_is_not_there_says_so(server: Served) -> None:
    answer = server.get("/nothing")
    assert answer.status == 404 and "There is no such page." in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static/view.css/../../app.py",
        "/run/..%2f..%2f/etc",
        "/run/{recipe}/..",
        "/run/{recipe}/%2e%2e%2f",
        "/run/{recipe}/latest",
        "/run/%2fetc/passwd",
        "{run}/rows/..%2fmanifest",
        "{run}/rows/labels",
        "{run}/rows/%2fetc%2fpasswd",
        "{run}/candidate/..%2f..%2fmanifest.json",
        "{run}/candidate/x%00y",
        "{run}/task?id=../../manifest.json",
        "{run}/candidate/x/text?column=../completion&start=0",
        "{run}/candidate/x/text?column=reply_key",
        "{run}/rows/candidates?sort=../x",
        "{run}/rows/candidates?where=completion)%20OR%201=1%20--~is~x",
        "{run}/rows/candidates?where=completion~;drop~x",
        "{run}/queue?order=../x",
        "{run}/queue?seed=-1",
    ],
)
def test_no_parameter_leaves_the_run(server: Served, run: Path, path: str) -> None:
    said = server.ask("GET", path.format(run=server.run(), recipe=run.parent.name))
    assert 400 <= said.status < 500, said.status
    for words in ("root:", "import ", "fingerprint"):
        assert words not in said.text


# -- what a list shows ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def truth(run: Path) -> pl.DataFrame:
    """Candidates with their judgement, as polars reads them."""
    return pl.read_parquet(run / "candidates.parquet").join(
        pl.read_parquet(run / "judgements.parquet"), on="candidate_id", maintain_order="left"
    )


def test_filters_agree_with_the_tables(server: Served, truth: pl.DataFrame) -> None:
    wanted = {
        "generation_context~is~default": pl.col("generation_context") == "default",
        "generation_context~not~default": pl.col("generation_context") != "default",
        "label@choice~is~hack": pl.col("label") == "hack",
        "label@choice~not~hack": pl.col("label") != "hack",
        "score@choice~empty~": pl.col("score").is_null(),
        "k~ge~2": pl.col("k") >= 2,
        "k~lt~1": pl.col("k") < 1,
        "completion~has~answer: (a)": pl.col("completion").str.to_lowercase().str.contains("answer: (a)", literal=True),
        "reasoning~filled~": pl.col("reasoning").is_not_null(),
        "kept@standard.default-default~is~true": pl.col("generation_context") == "default",
        "behaviour@nobody~empty~": None,
    }
    for where, expression in wanted.items():
        if expression is None:
            assert server.get(server.run("rows", "candidates"), where=where).status == 400
            continue
        assert listed(server, where=where) == truth.filter(expression)["candidate_id"].to_list(), where


def test_filters_and_search_hold_together(server: Served, truth: pl.DataFrame) -> None:
    found = listed(server, where=["generation_context~is~default", "label@choice~is~hack"], q='"answer: (b)"')
    wanted = truth.filter(
        (pl.col("generation_context") == "default")
        & (pl.col("label") == "hack")
        & pl.col("completion").str.to_lowercase().str.contains("answer: (b)", literal=True)
    )
    assert found == wanted["candidate_id"].to_list() and found


def test_the_form_that_adds_a_filter_needs_no_script(server: Served, truth: pl.DataFrame) -> None:
    found = listed(server, where="label@choice~is~hack", field="k", op="is", value="0")
    assert found == truth.filter((pl.col("label") == "hack") & (pl.col("k") == 0))["candidate_id"].to_list()


def test_counts_agree_with_the_tables(server: Served, truth: pl.DataFrame) -> None:
    text = server.get(server.run("facets", "candidates"), where="generation_context~is~default").text
    part = truth.filter(pl.col("generation_context") == "default")
    assert f"<b>{len(part)}</b> candidates" in text
    for label, count in part["label"].value_counts().iter_rows():
        assert f'{label}</a> <span class="number">{count}</span>' in text


def many(folder: Path, count: int) -> Path:
    scores = [(index, "rubric", None, None if index % 7 == 0 else (index % 5) / 4) for index in range(count)]
    texts = [f"text {index} {'100% _x_' if index == 3 else ''}" for index in range(count)]
    return write_run(folder / "runs" / "made" / "many", texts, judgements=judged(scores))


def walk(server: Served, **view: object) -> list[str]:
    """Every page of a list, by the link that each gives to the next."""
    answer, found = server.get(server.run("rows", "candidates"), **view), []
    while True:
        found += ids(answer.text)
        more = answer.text.partition('class="button" data-key="m" href="')[2].partition('"')[0].replace("&amp;", "&")
        if not more:
            return found
        answer = server.ask("GET", more)


def test_pages_neither_lose_nor_repeat_a_row_in_any_order(tmp_path: Path) -> None:
    count = 173
    with served(f"run={many(tmp_path, count)}") as server:
        assert walk(server) == [f"{index:024x}" for index in range(count)]
        scores = {f"{index:024x}": None if index % 7 == 0 else (index % 5) / 4 for index in range(count)}
        for sort, sign in (("score@rubric", 1), ("-score@rubric", -1)):
            wanted = sorted(scores, key=lambda one: (scores[one] is None, sign * (scores[one] or 0), one))
            assert walk(server, sort=sort) == wanted
        assert walk(server, sort="-completion_tokens") == [f"{index:024x}" for index in reversed(range(count))]
        # The same order one candidate at a time, there and back.
        down = sorted(scores, key=lambda one: (scores[one] is None, -(scores[one] or 0), one))
        for back, pairs in (("", pairwise(down)), ("1", pairwise(down[::-1]))):
            for here, there in list(pairs)[::9]:
                given = {"back": back} if back else {}
                to = server.get(server.run("go"), sort="-score@rubric", after=int(here, 16), **given).headers["location"]
                assert f"/candidate/{there}?" in to


def test_search_takes_signs_as_they_are_and_ignores_case(tmp_path: Path) -> None:
    with served(f"run={many(tmp_path, 20)}") as server:
        assert walk(server, q="100%") == walk(server, q='"TEXT 3"') == walk(server, q="_X_ text") == [f"{3:024x}"]
        assert walk(server, q="t_xt") == walk(server, q="1%3") == walk(server, q='"text  3"') == []
        assert walk(server, q='"') == walk(server, q="\\") == walk(server, q='""') == []


def test_a_table_in_shards_reads_as_one(tmp_path: Path) -> None:
    run = many(tmp_path, 120)
    frame = pl.read_parquet(run / "candidates.parquet")
    (run / "candidates.parquet").unlink()
    (run / "candidates").mkdir()
    for number in range(3):
        frame[40 * number : 40 * number + 40].write_parquet(run / "candidates" / f"{number}.parquet")
    with served(f"run={run}") as server:
        assert walk(server) == frame["candidate_id"].to_list()
        assert walk(server, sort="-completion_tokens") == frame["candidate_id"].to_list()[::-1]
        assert server.get(server.run("candidate", f"{100:024x}")).status == 200


def test_a_candidate_shows_all_that_is_known_of_it(server: Served, truth: pl.DataFrame) -> None:
    row = truth.filter(pl.col("generation_context") == "default").row(0, named=True)
    text = server.get(server.run("candidate", row["candidate_id"])).text
    for words in (row["task_id"], row["reply_key"], str(row["seed"]), row["raw"], "as it stands in the dataset"):
        assert words in text
    assert '<del><span class="sign">−</span>' in text and "whatever passes" in text
    history = server.get(server.run("candidate", row["candidate_id"], "history")).text
    assert "bought" in history and "temperature" in history
    measured = truth.filter(pl.col("role") == "measured").row(0, named=True)
    assert "Sampled for the report alone" in server.get(server.run("candidate", measured["candidate_id"])).text


def test_side_by_side_shows_every_candidate_of_a_task(server: Served, truth: pl.DataFrame) -> None:
    task = truth["task_id"][0]
    text = server.get(server.run("task"), id=task).text
    for one in truth.filter(pl.col("task_id") == task)["candidate_id"]:
        assert f"/candidate/{one}" in text


def test_the_other_tables_are_lists_too(server: Served) -> None:
    for table, where in (("tasks", "split~is~train"), ("judgements", "label~is~hack"), ("selection", "kept~is~true")):
        answer = server.get(server.run("rows", table), where=where, q="a")
        assert answer.status == 200 and "<td" in answer.text, table
        assert server.get(server.run("facets", table), where=where).status == 200


def test_the_sql_box_answers_and_refuses(server: Served) -> None:
    good = server.get(server.run("sql"), sql="SELECT count(*) AS many FROM candidates")
    assert good.status == 200 and '<th class="number">many' in good.text
    bad = server.get(server.run("sql"), sql="COPY candidates TO '/tmp/x'")
    assert bad.status == 400 and "one SELECT" in bad.text
    one = listed(server)[5]
    server.post(server.run("label"), candidate=one, event="sql", label="use=keep")
    mine = server.get(server.run("sql"), sql=f"SELECT reviewer, label FROM labels WHERE candidate_id = '{one}'")
    assert mine.status == 200 and "<td>ann<td>keep" in mine.text
    server.post(server.run("label"), candidate=one, event="sql again", label="use=")


# -- runs that are not finished, and hostile text ---------------------------------------------------------------------


def test_a_run_shows_what_is_there_as_it_appears(run: Path, tmp_path: Path) -> None:
    new = tmp_path / "runs" / "made" / "new"
    new.mkdir(parents=True)
    (new / ".lock").touch()
    with served(f"run={new}") as server:
        first = server.get(server.run())
        assert "Not finished" in first.text and "No table is written yet" in first.text
        assert server.get(server.run("rows", "candidates")).status == 400
        state = first.text.partition("/state?state=")[2].partition('"')[0] or ""
        for table in ("candidates", "tasks", "judgements", "selection"):
            (new / f"{table}.parquet").write_bytes((run / f"{table}.parquet").read_bytes())
            assert len(listed(server)) == 48, table
            assert "More is there now" in server.get(server.run("state"), state=state).text
            one = server.get(server.run("candidate", listed(server)[0]))
            assert (one.status == 200 and "manifest" in one.text) or "Tasks are not written" in one.text
            assert server.get(server.run("queue"), order="uncertainty").status == 200
            assert server.get(server.run("facets", "candidates")).status == 200
        (new / "manifest.json").write_bytes((run / "manifest.json").read_bytes())
        assert "Finished." in server.get(server.run("state"), state=state).text
        assert "Not finished" not in server.get(server.run()).text


def test_replies_are_shown_before_there_is_a_table(tmp_path: Path) -> None:
    from recontext_data.core.records import Reply
    from recontext_data.store.replies import ReplyStore

    new = tmp_path / "runs" / "made" / "new"
    new.mkdir(parents=True)
    (new / ".lock").touch()
    with ReplyStore(tmp_path / "replies") as store, served(f"run={new}") as server:
        store.append([Reply(key="k1", completion="<b>hello\x1b</b>", model="m")])
        text = server.get(server.run()).text
        assert "Newest replies" in text and "&lt;b&gt;hello" in text and "\\x1b" in text
        store.append([Reply(key="k2", completion="a second", model="m")])
        assert "a second" in server.get(server.run()).text


def test_a_table_that_is_no_parquet_is_one_line(tmp_path: Path) -> None:
    run = many(tmp_path, 4)
    (run / "judgements.parquet").write_bytes(b"PAR1 nothing")
    with served(f"run={run}") as server:
        answer = server.get(server.run())
        assert answer.status == 503 and "cannot be read now" in answer.text


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    run = write_run(tmp_path_factory.mktemp("hostile") / "runs" / "made" / "hostile", [*HOSTILE.values(), "x" * 5_000_000])
    with served(f"run={run}") as server:
        yield server


def test_hostile_text_is_text(hostile: Served) -> None:
    lists = hostile.get(hostile.run("rows", "candidates")).text
    for index, text in enumerate(HOSTILE.values()):
        page = hostile.get(hostile.run("candidate", f"{index:024x}")).text
        for shown in (page, lists):
            assert "<script>window" not in shown and "<svg" not in shown and "<img" not in shown and "<iframe" not in shown
            assert "<style" not in shown and "href='javascript" not in shown
            assert not set(shown) & set("\x00\x1b\u202e\u2066\u200f\x07")
        assert text[:5].replace("<", "&lt;").strip("\x1b\"'!") in page or "hidden-character" in page


def test_hostile_text_in_a_link_stays_in_it(hostile: Served) -> None:
    for text in HOSTILE.values():
        page = hostile.get(hostile.run("rows", "candidates"), q=text, where=f"model~is~{text}")
        assert page.status == 200
        assert "<script>" not in page.text and "<img" not in page.text and "' onfocus" not in page.text
        assert hostile.ask("GET", "/run/" + quote(text, safe="") + "/x").status == 404


def test_an_endless_line_comes_in_pieces(hostile: Served) -> None:
    last = f"{len(HOSTILE):024x}"
    page = hostile.get(hostile.run("candidate", last))
    assert len(page.text) < 200_000 and "Show more (4,980,000 characters)" in page.text
    assert len(hostile.get(hostile.run("rows", "candidates")).text) < 200_000
    total, start = 20_000, 20_000
    for _ in range(60):
        piece = hostile.get(hostile.run("candidate", last, "text"), column="completion", start=start).text
        total, start = total + piece.partition("<")[0].count("x"), start + 100_000
        if "Show more" not in piece:
            break
    assert total == 5_000_000


# -- labelling --------------------------------------------------------------------------------------------------------


def test_a_label_is_recorded_once_and_undone(server: Served, run: Path) -> None:
    one = listed(server)[0]
    form = {"candidate": one, "event": "f1", "label": "behaviour=hack", "note": "a <b> note"}
    for _ in range(2):
        assert server.post(server.run("label"), **form).status == 303
    labels = Labels(run.parent / "labels")
    labels.refresh()
    assert [(row["label"], row["note"], row["reviewer"]) for row in labels.rows()] == [("hack", "a <b> note", "ann")]
    assert listed(server, where="behaviour@ann~is~hack") == [one]
    assert one not in listed(server, where="behaviour@ann~empty~")
    last = labels.last("ann")
    assert last is not None
    for _ in range(2):
        server.post(server.run("undo"), candidate=one, event="f2", undoes=last.event)
    labels.refresh()
    assert labels.rows() == [] and labels.last("ann") is not None, "the note stands"


@pytest.mark.parametrize(
    "form",
    [
        {"candidate": "nobody", "label": "behaviour=hack"},
        {"candidate": "", "label": "use=keep"},
        {"candidate": "FIRST", "label": "taste=good"},
        {"candidate": "FIRST", "label": "behaviour=splendid"},
        {"candidate": "FIRST", "label": "behaviour=hack", "queue": "order=none"},
    ],
)
def test_a_wrong_label_is_refused(server: Served, form: dict[str, str]) -> None:
    first = listed(server)[0]
    answer = server.post(server.run("label"), **{key: first if value == "FIRST" else value for key, value in form.items()})
    assert answer.status == 400 and "did not work" in answer.text


def test_reviewers_are_named_by_their_browser(server: Served) -> None:
    answer = server.post("/reviewer", reviewer="bob", back="//evil.invalid/")
    assert answer.status == 303 and answer.headers["location"] == "/"
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert server.post("/reviewer", reviewer="../x").status == 400


def queue_of(server: Served, **given: object) -> list[str]:
    """Walks a queue without labelling."""
    found, answer = [], server.get(server.run("queue"), **given)
    while True:
        found.append(answer.text.partition('name="candidate" value="')[2][:24])
        to = answer.text.partition('data-key="j" href="')[2].partition('"')[0].replace("&amp;", "&")
        if not to:
            return found
        answer = server.ask("GET", to)


def test_queues_are_in_their_order_and_the_seed_decides_the_rest(tmp_path: Path) -> None:
    said: list[tuple[int, str, str | None, float | None]] = [(i, "a", "hack", None) for i in range(6)]
    said += [(i, "b", "hack" if i < 3 else "general", None) for i in range(6)]
    said += [(6, "a", None, None), (7, "a", None, 0.5), (7, "b", None, 0.0), (0, "c", None, 0.0), (1, "c", None, 1.0)]
    run = write_run(tmp_path / "runs" / "made" / "q", [f"t{i}" for i in range(10)], judgements=judged(said))
    number = [f"{i:024x}" for i in range(10)]
    with served(f"run={run}") as server:
        apart = queue_of(server, order="disagreement", seed=1)
        assert set(apart[:3]) == set(number[3:6]) and apart[3] == number[7] and len(apart) == 4
        unsure = queue_of(server, order="uncertainty", seed=1)
        assert unsure[0] == number[6] and len(unsure) < 10
        drawn = queue_of(server, order="random", seed=1)
        assert sorted(drawn) == number
        assert drawn == queue_of(server, order="random", seed=1) != queue_of(server, order="random", seed=2)
        assert set(queue_of(server, order="random", seed=1, where="label@b~is~general")) == set(number[3:6])


def test_blind_shows_no_judge_no_context_and_no_arm(server: Served, truth: pl.DataFrame) -> None:
    blind = server.get(server.run("queue"), order="random", seed=0, blind=1).text
    main = blind.partition('<main id="main"')[2].partition("</main>")[0]
    one = main.partition('name="candidate" value="')[2][:24]
    row = truth.filter(pl.col("candidate_id") == one).row(0, named=True)
    assert "choice" not in main.replace('class="choice"', "") and "Tests decide" not in main and "recontextualized" not in main
    assert row["completion"].splitlines()[-1] in main
    seen = server.get(server.run("queue"), order="random", seed=0, blind=0).text
    assert "Tests decide" in seen and 'class="quiet">choice' in seen


def test_two_reviewers_and_their_agreement(run: Path) -> None:
    with served(f"run={run}", "reviewer=ann") as ann, served(f"run={run}", "reviewer=bob") as bob:
        some = listed(ann, where="generation_context~is~control")[:4]
        for number, one in enumerate(some):
            ann.post(ann.run("label"), candidate=one, event=f"a{number}", label="use=keep")
            bob.post(bob.run("label"), candidate=one, event=f"b{number}", label="use=drop" if number == 3 else "use=keep")
        text = ann.get(ann.run("agreement")).text
        assert "ann and bob" in text and "n = 4" in text and "75.0 %" in text and "kappa <b>0.00</b>" in text
        assert listed(bob, where=["use@ann~is~keep", "use@bob~is~drop"]) == [some[3]]
    assert len(pl.read_parquet(run.parent / "labels" / "labels.parquet").filter(pl.col("question") == "use")) == 8


# -- the verb ---------------------------------------------------------------------------------------------------------


def test_a_run_is_found_by_recipe_by_fingerprint_and_by_path(run: Path) -> None:
    from recontext_data.viewer.runs import library

    output = run.parents[2]
    for name in ("small", run.name, f"small/{run.name}", str(run)):
        only = library(output, name).only
        assert only is not None and only.path.resolve() == run
    assert [one.key for one in library(output, None).runs()] == [f"small/{run.name}"]
    moved = library(output, str(run)).only
    assert moved is not None and moved.labels == run.parent / "labels"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runn=x"], "did you mean 'run'?"),
        (["--run"], "write key=value, such as run=..."),
        (["run=nothing", "output=/nowhere"], "no run of that name is in /nowhere/runs"),
        (["output=/nowhere"], "no run is in /nowhere/runs"),
        (["port=80000"], "must be an integer from 0 to 65535"),
        (["port=x"], "must be an integer from 0 to 65535"),
        (["open=maybe"], "open=maybe: must be true or false"),
        (["reviewer=a b"], "not a reviewer"),
    ],
)
def test_wrong_words_are_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb.main(words) == 2
    assert said in error_line(capsys.readouterr().err)


def test_a_taken_port_is_one_line(server: Served, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb.main([f"run={run}", f"port={server.port}", "open=false"]) == 2
    assert "port=0 takes a free one" in error_line(capsys.readouterr().err)


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert verb.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n{key}: " in text for key in verb.OPTIONS.model_fields)


def test_help_starts_light() -> None:
    script = "import sys; from recontext_data.view import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True)
    assert not {"starlette", "uvicorn", "duckdb", "pyarrow", "jinja2", "polars"} & set(done.stderr.split())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ending_it_leaves_nothing_behind_but_the_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    run = many(tmp_path, 4)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    with served(f"run={run}", "reviewer=ann") as server:
        server.post(server.run("label"), candidate=f"{1:024x}", event="e", label="use=drop")
        assert list((tmp_path / "temporary").iterdir())
        server.process.send_signal(number)
        assert server.process.wait(timeout=20) == 0
    assert pl.read_parquet(run.parent / "labels" / "labels.parquet")["label"].to_list() == ["drop"]
    assert list((tmp_path / "temporary").iterdir()) == []


# -- reports -----------------------------------------------------------------------------------------------------------


def with_reports(run: Path, folder: Path) -> Path:
    """A copy of a run with a training's and an evaluation's page, and a link out of it that must not be followed."""
    import shutil

    copy = folder / "runs" / run.parent.name / run.name
    shutil.copytree(run, copy)
    for name in ("models", "evaluation", "models-low"):
        (copy / name).mkdir()
        (copy / name / "report.html").write_text(f"<!doctype html><style>p {{}}</style><p>the page of {name}</p>")
    secret = folder / "secret.html"
    secret.write_text("secret words")
    (copy / "away").mkdir()
    (copy / "away" / "report.html").symlink_to(secret)
    for kind in ("rounds", "sweeps"):
        (copy.parent / kind / "0123456789abcdef").mkdir(parents=True)
        (copy.parent / kind / "0123456789abcdef" / "report.html").write_text(f"all {kind}")
    return copy


def test_a_run_s_page_leads_to_its_reports_and_each_is_shown_as_it_is(run: Path, tmp_path: Path) -> None:
    copy = with_reports(run, tmp_path)
    with served(f"run={copy}") as server:
        page = server.get(server.run()).text
        for title, key in (
            ("Build", "build"),
            ("Training", "models"),
            ("Training (models-low)", "models-low"),
            ("Evaluation", "evaluation"),
        ):
            assert f'href="{server.run("report", key)}">{title}</a>' in page
        assert "/report/away" not in page
        assert server.get(server.run("report", "build")).text == (copy / "report.html").read_text(encoding="utf-8")
        assert "the page of evaluation" in server.get(server.run("report", "evaluation")).text


def test_a_report_may_do_nothing_but_have_its_own_style(run: Path, tmp_path: Path) -> None:
    copy = with_reports(run, tmp_path)
    with served(f"run={copy}") as server:
        for key in ("build", "models"):
            headers = server.get(server.run("report", key)).headers
            policy = headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; style-src 'sha256-") and policy.endswith("; sandbox")
            assert "unsafe" not in policy and "script" not in policy and "allow" not in policy
            assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
        (copy / "models" / "report.html").write_text("<p>no style of its own</p>")
        assert "style-src 'none'" in server.get(server.run("report", "models")).headers["content-security-policy"]
        stranger = Served(server.link, server.process)
        assert stranger.ask("GET", server.run("report", "build")).status == 403


@pytest.mark.parametrize(
    "key", ["away", "..", "%2e%2e", "..%2f..%2fsecret.html", "report.html", "manifest.json", "arms", "x%00"]
)
def test_no_report_is_read_from_elsewhere(run: Path, tmp_path: Path, key: str) -> None:
    copy = with_reports(run, tmp_path)
    with served(f"run={copy}") as server:
        for path in (
            f"{server.run('report')}/{key}",
            f"/report/{copy.parent.name}/{key}",
            f"/report/{copy.parent.name}/rounds-{key}",
        ):
            answer = server.ask("GET", path)
            assert answer.status in (400, 404) and "secret words" not in answer.text and "fingerprint" not in answer.text


def test_rounds_and_sweeps_are_listed_where_all_runs_are(run: Path, tmp_path: Path) -> None:
    copy = with_reports(run, tmp_path)
    recipe = copy.parent.name
    with served(f"output={tmp_path}") as server:
        home = server.get("/").text
        for kind, name in (("rounds", "rounds"), ("sweeps", "sweep")):
            path = f"/report/{recipe}/{kind}-0123456789abcdef"
            assert f'href="{path}"' in home and f"{name} 01234567" in home
            assert server.get(path).text == f"all {kind}"
    with served(f"run={copy}") as server:
        assert server.get(f"/report/{recipe}/rounds-0123456789abcdef").status == 404, "one run alone is open"
