"""The review page in a real Chromium: by keyboard alone, two reviewers at once, a growing run, hostile text, accessibility."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.view_world import HOSTILE, Served, chromium, judged, require_chromium, served, small_run, write_run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    require_chromium()
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[Served]:
    with served(f"run={run}", "reviewer=ann") as server:
        yield server


@contextmanager
def opened(browser: Any, server: Served, *, width: int = 1400, scheme: str = "light") -> Iterator[Any]:
    """A page of a browser of its own, entered by the link; what it complains of and asks for is noted."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(20_000)
    page = context.new_page()
    page.complaints, page.asked = [], []
    page.on("console", lambda message: page.complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("dialog", lambda dialog: page.complaints.append(f"dialog {dialog.message}"))
    page.goto(server.link)
    page.wait_for_selector("h1")
    try:
        yield page
        assert page.complaints == []
        assert [url for url in page.asked if not url.startswith(server.base)] == []
    finally:
        context.close()


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def until(page: Any, expression: str, *, seconds: float = 20) -> None:
    """Waits until it is true. Playwright's own way evaluates a text, which the page's policy rightly refuses."""
    end = time.monotonic() + seconds
    while not _is_true(page, expression):
        assert time.monotonic() < end, f"never became true: {expression}"
        page.wait_for_timeout(30)


def _is_true(page: Any, expression: str) -> bool:
    from playwright.sync_api import Error

    try:
        return bool(page.evaluate(expression))
    except Error as error:
        # On its way to another page, or half there: what is asked for has not been read yet. `until` asks again.
        if "navigation" not in str(error) and "properties of null" not in str(error):
            raise
        return False


def labels(run: Path) -> list[tuple[str, str, str, str]]:
    """What a reader of the journals finds: (reviewer, candidate, question, label)."""
    from recontext_data.store.labels import Labels

    found = Labels(run.parent / "labels")
    found.refresh()
    return [(row["reviewer"], row["candidate_id"], row["question"], row["label"]) for row in found.rows()]


def at(page: Any) -> str:
    """The candidate that a page is about."""
    value: str = page.locator('input[name="candidate"]').first.get_attribute("value")
    return value


def test_open_filter_search_and_read_by_keyboard(browser: Any, server: Served, run: Path) -> None:
    truth = pl.read_parquet(run / "candidates.parquet")
    with opened(browser, server) as page:
        assert "token" not in page.url, "the key is in no address that is copied or logged"
        page.click("text=candidates")
        page.wait_for_selector(".counts")
        page.click(".counts >> text=control")
        page.wait_for_selector(".counts .total:has-text('8')")
        assert page.locator("li.candidate").count() == 8
        press(page, "/")
        page.keyboard.type("answer: (b)")
        press(page, "Enter")
        page.wait_for_selector(".chips >> text=contains")
        wanted = truth.filter(
            (pl.col("generation_context") == "control") & pl.col("completion").str.contains("(B)", literal=True)
        )
        assert page.locator("li.candidate").count() == len(wanted)
        deep = page.url
        page.reload()
        assert page.url == deep and page.locator("li.candidate").count() == len(wanted)
        press(page, "j", "Enter")
        page.wait_for_selector("#panel")
        assert at(page) == wanted["candidate_id"][0]
        press(page, "Escape")
        page.wait_for_selector("li.candidate")
        assert "control" in page.url and "q=" in page.url, "back in the list that it came from"


def test_compare_and_step_by_keyboard(browser: Any, server: Served, run: Path) -> None:
    truth = pl.read_parquet(run / "candidates.parquet")
    with opened(browser, server) as page:
        page.goto(server.base + server.run("candidate", truth["candidate_id"][0]))
        assert page.locator("del").count() and page.locator("ins").count()
        page.locator("text=Candidates of this task").scroll_into_view_if_needed()
        page.wait_for_selector("text=bought")
        press(page, "j")
        page.wait_for_url("**" + truth["candidate_id"][1] + "*")
        press(page, "k")
        page.wait_for_url("**" + truth["candidate_id"][0] + "*")
        press(page, "s")
        page.wait_for_selector(".beside")
        assert page.locator(".beside article").count() == len(truth.filter(pl.col("task_id") == truth["task_id"][0]))
        press(page, "?")
        assert page.locator("#keys").is_visible()
        press(page, "Escape")
        assert not page.locator("#keys").is_visible()


def test_more_rows_come_by_key(browser: Any, tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs" / "made" / "long", [f"text {index}" for index in range(120)])
    with served(f"run={run}") as server, opened(browser, server) as page:
        page.goto(server.base + server.run("rows", "candidates"))
        for count in (50, 100, 120):
            until(page, f"document.querySelectorAll('li.candidate').length === {count}")
            press(page, "m")
        assert page.locator("a[data-key=m]").count() == 0


def test_a_key_pressed_the_moment_that_rows_arrive_asks_for_more_of_them(browser: Any, tmp_path: Path) -> None:
    """Before the arrived link was bound, the key followed it to a page of its own, and the rows above were gone."""
    run = write_run(tmp_path / "runs" / "made" / "long", [f"text {index}" for index in range(120)])
    with served(f"run={run}") as server, opened(browser, server) as page:
        page.goto(server.base + server.run("rows", "candidates"))
        page.evaluate(
            """() => new MutationObserver(() => document.body.dispatchEvent(
                new KeyboardEvent("keydown", {key: "m", bubbles: true})
            )).observe(document.querySelector("ul.rows"), {childList: true})"""
        )
        press(page, "m")
        until(page, "document.querySelectorAll('li.candidate').length === 120")
        assert page.url.endswith("/rows/candidates")


def test_a_search_that_takes_long_says_how_far_it_came_and_looks_on(browser: Any, tmp_path: Path) -> None:
    texts = [f"text {index} {'rare' if index in (250, 260, 390) else 'common'}" for index in range(400)]
    run = write_run(tmp_path / "runs" / "made" / "long", texts)
    limits = "from recontext_data.viewer import listing; listing.WINDOW, listing.SECONDS = 100, 0.0"
    with served(f"run={run}", before=limits) as server, opened(browser, server) as page:
        page.goto(server.base + server.run("rows", "candidates") + "?q=rare")
        page.wait_for_selector("text=Looked through the first 300 of 400 rows.")
        assert page.locator("li.candidate").count() == 2, "nothing was found in the first 200, and it looked on by itself"
        page.wait_for_timeout(300)
        assert page.locator("li.candidate").count() == 2, "with rows to read it waits"
        press(page, "m")
        until(page, "document.querySelectorAll('li.candidate').length === 3")
        assert page.locator("li.more").count() == 0
        page.goto(server.base + server.run("rows", "candidates") + "?q=nowhere")
        page.wait_for_selector("text=Nothing more matches.")
        assert page.locator("li.candidate").count() == 0 and page.locator("a[data-key=m]").count() == 0


def test_label_by_keyboard_undo_and_reload(browser: Any, server: Served, run: Path) -> None:
    with opened(browser, server) as page:
        page.goto(server.base + server.run("queue") + "?order=random&seed=3")
        first = at(page)
        press(page, "h")
        until(page, f"document.querySelector('input[name=candidate]').value !== '{first}'")
        second = at(page)
        assert labels(run) == [("ann", first, "behaviour", "hack")]
        press(page, "y")
        page.wait_for_selector("button[aria-pressed=true] >> text=Keep")
        assert at(page) == second, "the queue asks for behaviour: keeping answers another question"
        press(page, "c")
        page.keyboard.type("a note with h, n and z in it")
        press(page, "Control+Enter")
        page.wait_for_selector("#panel >> text=the note")
        press(page, "n")
        until(page, f"document.querySelector('input[name=candidate]').value !== '{second}'")
        assert ("ann", second, "behaviour", "not_hack") in labels(run)
        assert "2 of" in page.locator("h1").inner_text()
        press(page, "z")
        until(page, f"document.querySelector('input[name=candidate]').value === '{second}'")
        assert ("ann", second, "behaviour", "not_hack") not in labels(run)
        assert page.locator("textarea[name=note]").input_value() == "a note with h, n and z in it"
        page.reload()
        assert at(page) == second and page.locator("button[aria-pressed=true]").inner_text().startswith("Keep")
        assert labels(run) == sorted(
            [("ann", first, "behaviour", "hack"), ("ann", second, "use", "keep")], key=lambda row: (row[1], row[2])
        )


def test_a_double_click_counts_once(browser: Any, server: Served, run: Path) -> None:
    one = pl.read_parquet(run / "candidates.parquet")["candidate_id"][9]
    journal = run.parent / "labels" / "ann.jsonl"
    with opened(browser, server) as page:
        page.goto(server.base + server.run("candidate", one))
        before = len(journal.read_bytes().splitlines()) if journal.exists() else 0
        page.dblclick("button >> text=Unsure")
        page.wait_for_selector("button[aria-pressed=true] >> text=Unsure")
        page.wait_for_load_state("networkidle")
        assert len(journal.read_bytes().splitlines()) == before + 1
        press(page, "z")
        until(page, "!document.querySelector('button[aria-pressed=true]')")
        assert one not in [row[1] for row in labels(run)]


def test_two_reviewers_at_once_do_not_meet(browser: Any, server: Served, run: Path) -> None:
    with opened(browser, server) as first, opened(browser, server) as second:
        for page, name in ((first, "kim"), (second, "lee")):
            page.fill("input[name=reviewer]", name)
            page.click("button >> text=Set")
            until(page, f"document.querySelector('input[name=reviewer]').value === '{name}'")
            page.goto(server.base + server.run("queue") + "?order=random&seed=11&question=use")
        assert at(first) == at(second), "the same seed is the same order"
        for step in range(4):
            here = at(first)
            press(first, "y")
            press(second, "d" if step == 2 else "y")
            for page in (first, second):
                until(page, f"document.querySelector('input[name=candidate]').value !== '{here}'")
        found = [row for row in labels(run) if row[0] in ("kim", "lee")]
        assert len(found) == 8 and sum(row[3] == "drop" for row in found) == 1
        first.goto(server.base + server.run("agreement"))
        card = first.locator("article", has_text="kim and lee").inner_text()
        assert "n = 4" in card and "75.0 %" in card


def test_a_run_that_is_being_written(browser: Any, run: Path, tmp_path: Path) -> None:
    new = tmp_path / "runs" / "small" / "new"
    new.mkdir(parents=True)
    (new / ".lock").touch()
    with served(f"run={new}") as server, opened(browser, server) as page:
        page.wait_for_selector("text=No table is written yet")
        for table in ("tasks", "candidates"):
            (new / f"{table}.parquet").write_bytes((run / f"{table}.parquet").read_bytes())
        page.wait_for_selector("text=More is there now")
        page.click("text=Show it")
        page.wait_for_selector("b:has-text('48')")
        page.goto(server.base + server.run("queue"))
        here = at(page)
        press(page, "h")
        until(page, f"document.querySelector('input[name=candidate]').value !== '{here}'")
        for name in ("judgements.parquet", "selection.parquet", "manifest.json"):
            (new / name).write_bytes((run / name).read_bytes())
        page.wait_for_selector("text=Finished.")
        page.click("text=Show it")
        until(page, "!document.querySelector('#unfinished')")
        assert "1 of" in page.locator("h1").inner_text(), "what was labelled meanwhile is there"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Every hostile text as a completion, a judge's raw words, a task and a reason; and a line of 5 MB."""
    texts = [*HOSTILE.values(), "x" * 5_000_000]
    count = len(texts)
    said = judged([(index, "judge <b>", "<i>hack</i>", None) for index in range(count)])
    raw = said.with_columns(raw=pl.Series([text[:5000] for text in texts]))
    tasks = pl.DataFrame(
        {
            "task_id": [f"made/{index}" for index in range(count)],
            "split": ["train"] * count,
            "messages": [[{"role": "user", "content": text[:5000]}] for text in texts],
            "payload": [text[:5000] for text in texts],
        }
    )
    selection = pl.DataFrame(
        {
            "arm": ["standard.<u>"] * count,
            "candidate_id": said["candidate_id"],
            "kept": [True] * count,
            "reason": [text[:300] for text in texts],
        }
    )
    home = tmp_path_factory.mktemp("hostile") / "runs" / "made" / "hostile"
    run = write_run(home, texts, judgements=raw, tasks=tasks, selection=selection)
    with served(f"run={run}") as server:
        yield server


def unhurt(page: Any, server: Served) -> None:
    assert page.evaluate("window.hurt") is None
    assert page.title() != "hurt" and page.url.startswith(server.base)
    assert page.locator("main").is_visible()
    assert page.locator("main :is(script, style, svg, img, iframe, object, embed)").count() == 0
    assert (
        page.locator("main [href^='javascript:' i], main [hx-on\\:load], main [onload], main [onerror], main [onfocus]").count()
        == 0
    )


def test_hostile_text_neither_runs_nor_loads_nor_breaks_the_page(browser: Any, hostile: Served) -> None:
    with opened(browser, hostile) as page:
        for path in ("rows/candidates", "rows/tasks", "rows/judgements", "rows/selection", "queue?blind=0"):
            page.goto(hostile.base + hostile.run(*path.split("/")))
            page.wait_for_load_state("networkidle")
            unhurt(page, hostile)
        for index, (name, text) in enumerate(HOSTILE.items()):
            page.goto(hostile.base + hostile.run("candidate", f"{index:024x}"))
            unhurt(page, hostile)
            shown = page.locator("div.text").first.inner_text()
            if name in ("ansi", "bidi", "null"):
                assert page.locator("div.text >> .hidden-character").count() >= 2
            else:
                assert text[:60] in shown
        page.goto(hostile.base + hostile.run("task") + "?id=made/1")
        unhurt(page, hostile)
        page.goto(
            hostile.base
            + hostile.run("sql")
            + "?sql=SELECT completion, raw FROM candidates JOIN judgements USING (candidate_id)"
        )
        unhurt(page, hostile)


def test_what_the_policy_is_for_even_markup_that_got_in_does_nothing(browser: Any, hostile: Served) -> None:
    """The second wall: markup put into the page by hand, as a hole in the escaping would."""
    with opened(browser, hostile) as page:
        page.goto(hostile.base + hostile.run("rows", "candidates"))
        page.wait_for_load_state("networkidle")
        asked = len(page.asked)
        page.evaluate(
            """() => {
              const hole = document.createElement('div');
              hole.innerHTML = `<img src="http://evil.invalid/p.png"><img src="data:x" onerror="window.hurt = 1">
                <style>main { display: none }</style><iframe src="http://evil.invalid/"></iframe>
                <p style="display:none" id="styled">a</p><form action="http://evil.invalid/" id="f"></form>`;
              document.querySelector('main').append(hole);
              const script = document.createElement('script');
              script.textContent = 'window.hurt = 1';
              document.body.append(script);
              document.getElementById('f').submit();
            }"""
        )
        page.wait_for_timeout(300)
        assert page.evaluate("window.hurt") is None and page.locator("main").is_visible()
        assert page.evaluate("getComputedStyle(document.getElementById('styled')).display") == "block"
        assert page.url.startswith(hostile.base)
        refused = [text for text in page.complaints if "Content Security Policy" in text]
        assert len(refused) >= 5
        page.complaints.clear()
        del page.asked[asked:]  # Chromium lists what it then refused to send


def test_a_line_of_five_megabytes_is_shown_a_piece_at_a_time(browser: Any, hostile: Served) -> None:
    with opened(browser, hostile, width=390) as page:
        page.goto(hostile.base + hostile.run("candidate", f"{len(HOSTILE):024x}"))
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert len(page.locator("div.text").first.inner_text()) < 25_000
        press(page, "m")
        page.wait_for_selector("text=4,880,000 characters")
        assert len(page.locator("div.text").first.inner_text()) > 119_000


PAGES = ("", "rows/candidates", "rows/tasks", "rows/judgements", "queue", "agreement", "sql?sql=SELECT 1 AS one", "nothing")


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (390, "dark")])
def test_axe_finds_no_serious_fault_and_nothing_is_wider_than_the_screen(
    browser: Any, server: Served, run: Path, width: int, scheme: str
) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is not installed (the extra dev has it)"
    ).Axe()
    one = pl.read_parquet(run / "candidates.parquet")["candidate_id"][0]
    for question in ("behaviour=hack", "use=drop"):  # a pressed button has colours of its own
        server.post(server.run("label"), candidate=one, event=f"{scheme}{width}", label=question)
    with opened(browser, server, width=width, scheme=scheme) as page:
        for path in (*PAGES, f"candidate/{one}", "task?id=" + pl.read_parquet(run / "tasks.parquet")["task_id"][0]):
            parts, _, query = path.partition("?")
            page.goto(server.base + server.run(*[part for part in parts.split("/") if part]) + ("?" + query if query else ""))
            page.wait_for_load_state("networkidle")
            found = axe.run(page).response["violations"]
            grave = [(fault["id"], fault["nodes"][0]["html"]) for fault in found if fault["impact"] in ("serious", "critical")]
            assert grave == [], path
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        page.complaints = [text for text in page.complaints if "404" not in text]  # the page that is not there


def test_the_theme_is_the_systems_until_it_is_turned(browser: Any, server: Served) -> None:
    with opened(browser, server, scheme="dark") as page:
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        press(page, "t")
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert dark != light
        page.reload()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == light


def test_everything_can_be_reached_by_tab(browser: Any, server: Served, run: Path) -> None:
    with opened(browser, server) as page:
        page.goto(server.base + server.run("candidate", pl.read_parquet(run / "candidates.parquet")["candidate_id"][0]))
        reached = set()
        for _ in range(80):
            press(page, "Tab")
            reached.add(page.evaluate("document.activeElement.textContent.trim().split(/\\s+/).slice(0, 2).join(' ')"))
        for wanted in ("Candidates", "SQL", "Set", "Theme", "Previous k", "Next j", "Hack h", "Drop d", "Save note"):
            assert wanted in reached, wanted


def test_a_report_opens_with_its_style_and_what_was_planted_in_it_does_nothing(browser: Any, run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "runs" / run.parent.name / run.name
    shutil.copytree(run, copy)
    html = (copy / "report.html").read_text(encoding="utf-8")
    planted = (
        "<script>window.hurt = 1; document.title = 'hurt'</script>"
        "<img src='http://evil.invalid/p.png' onerror='window.hurt = 1'>"
        "<style>main { display: none }</style><p id='styled' style='display: none'>a</p>"
        "<iframe src='http://evil.invalid/'></iframe>"
        "<form action='/reviewer' method='post'><button id='go'>go</button></form>"
        "<a id='js' href='javascript:window.hurt = 1'>x</a>"
        "<meta http-equiv='refresh' content='0;url=http://evil.invalid/'>"
    )
    (copy / "models").mkdir()
    hole = html.replace("<main>", f"<main>{planted}", 1).replace("<meta http-equiv", "<meta name")  # its own policy taken out
    (copy / "models" / "report.html").write_text(hole, encoding="utf-8")
    with served(f"run={copy}") as server, opened(browser, server) as page:
        page.click("a.chip >> text=Build")
        page.wait_for_selector("h1 >> text=build report")
        assert page.locator("svg line.mark").count() >= 3
        assert page.evaluate("getComputedStyle(document.querySelector('main')).maxWidth") != "none", "its style applies"
        assert page.evaluate("window.origin") == "null", "an origin of its own: nothing of the viewer is in its reach"
        page.go_back()
        page.wait_for_selector("a.chip >> text=Training")
        assert page.complaints == []
        page.click("a.chip >> text=Training")
        page.wait_for_selector("h1 >> text=build report")
        page.click("#js")
        page.click("#go")
        page.wait_for_timeout(500)
        assert page.evaluate("window.hurt") is None and page.title() != "hurt"
        assert page.locator("main").is_visible()
        assert page.evaluate("getComputedStyle(document.getElementById('styled')).display") == "block"
        assert page.url == server.base + server.run("report", "models")
        assert len([text for text in page.complaints if "Content Security Policy" in text or "sandbox" in text]) >= 5
        page.complaints.clear()
        page.asked[:] = [url for url in page.asked if "evil.invalid" not in url]  # Chromium lists what it then refused to send
