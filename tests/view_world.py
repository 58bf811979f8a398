"""What the tests of the review page share: runs, hostile and unfinished ones too, the verb as a process, a browser."""

import http.client
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import polars as pl
import pytest

from tests.helpers import build_process, environment, run_folder, write_recipe

CHROMIUM = "/usr/bin/chromium"
CHROMIUM_WORDS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

HOSTILE = {
    "script": "<script>window.hurt = 1; document.title = 'hurt'</script>",
    "event handler": "<img src=x onerror=\"window.hurt = 1\"><body onload='window.hurt = 1'>",
    "css": "<style>main { display: none } @import url(http://evil.invalid/a.css);</style><p style='position:fixed'>",
    "svg": "<svg onload=window.hurt=1><use href='http://evil.invalid/a.svg#b'/></svg>",
    "javascript link": "<a href='javascript:window.hurt=1'>press me</a> [a](javascript:window.hurt=1)",
    "ansi": "\x1b[31mred\x1b[2J\x1b]0;title\x07",
    "bidi": "safe \u202etxt.exe\u202c \u2066a\u2069 \u200f",
    "null": "a\x00b\x00",
    "markdown image": "![a](http://evil.invalid/pixel.png) <img src='http://evil.invalid/pixel.png'>",
    "htmx": "<div hx-get='/reviewer' hx-trigger='load' hx-on:load='window.hurt=1' data-hx-get='http://evil.invalid/'></div>",
    "closing": "</div></main></body></html><!-- <iframe src='http://evil.invalid'></iframe> {{ 7 * 7 }} {% raw %}",
    "quotes": "\"' onfocus=window.hurt=1 autofocus x=\"'`>",
}


def small_run(folder: Path, *words: str) -> Path:
    """A whole small run, built with a scripted policy: 8 tasks at n=4 under `default`, and two measured contexts."""
    recipe = write_recipe(folder / "in")
    # A process: a build runs an event loop, and Playwright already runs one in the thread of the test.
    done = build_process(f"recipe={recipe}", f"output={folder / 'out'}", "measure.contexts=[control, hack]", *words)
    assert done.returncode == 0, done.stderr
    return run_folder(folder / "out")


def write_run(path: Path, completions: list[str], **tables: Any) -> Path:
    """A run's folder with these completions, two to a task, and nothing else but `tables`; without a manifest."""
    path.mkdir(parents=True, exist_ok=True)
    count = len(completions)
    candidates = pl.DataFrame(
        {
            "candidate_id": [f"{index:024x}" for index in range(count)],
            "task_id": [f"made/{index // 2}" for index in range(count)],
            "generation_context": ["default"] * count,
            "role": ["arms"] * count,
            "k": [index % 2 for index in range(count)],
            "seed": list(range(count)),
            "reply_key": [f"{index:064x}" for index in range(count)],
            "completion": completions,
            "reasoning": pl.Series([None] * count, dtype=pl.String),
            "finish_reason": ["stop"] * count,
            "model": ["scripted"] * count,
            "prompt_tokens": pl.Series([None] * count, dtype=pl.Int64),
            "completion_tokens": list(range(count)),
            "details": pl.Series([None] * count, dtype=pl.String),
        }
    )
    candidates.write_parquet(path / "candidates.parquet")
    for name, frame in tables.items():
        frame.write_parquet(path / f"{name}.parquet")
    return path


def judged(rows: Sequence[tuple[int, str, str | None, float | None]]) -> pl.DataFrame:
    """A table of judgements: (candidate's number, judge, label, score); neither label nor score is unscored."""
    return pl.DataFrame(
        {
            "candidate_id": [f"{index:024x}" for index, *_ in rows],
            "judge": [judge for _, judge, *_ in rows],
            "label": pl.Series([label for *_, label, _ in rows], dtype=pl.String),
            "score": pl.Series([score for *_, score in rows], dtype=pl.Float64),
            "unscored_reason": ["unreadable" if label is None and score is None else None for *_, label, score in rows],
            "raw": ["raw words"] * len(rows),
        }
    )


@dataclass
class Answer:
    """What the server said."""

    status: int
    headers: dict[str, str]
    text: str


@dataclass
class Served:
    """`recontext view` as a process, and requests to it with the cookie that its link gives."""

    link: str
    process: "subprocess.Popen[str]"
    cookies: dict[str, str] = field(default_factory=dict)

    @property
    def port(self) -> int:
        port = urlsplit(self.link).port
        assert port is not None
        return port

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, *, headers: dict[str, str] | None = None, body: bytes | None = None) -> Answer:
        """One request; `headers` replace what a browser would send."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            sent = {"Host": f"127.0.0.1:{self.port}", **({"Cookie": cookie} if cookie else {}), **(headers or {})}
            connection.request(method, path, body=body, headers=sent)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode())
        finally:
            connection.close()

    def enter(self) -> None:
        """Opens the link, as a browser does."""
        said = self.ask("GET", "/?" + urlsplit(self.link).query)
        assert said.status == 200, said.text
        name, _, rest = said.headers["set-cookie"].partition("=")
        self.cookies[name] = rest.partition(";")[0]

    def get(self, path: str, **parameters: Any) -> Answer:
        return self.ask("GET", path + ("?" + urlencode(parameters, doseq=True) if parameters else ""))

    def post(self, path: str, **form: str) -> Answer:
        headers = {"Origin": self.base, "Content-Type": "application/x-www-form-urlencoded"}
        return self.ask("POST", path, headers=headers, body=urlencode(form).encode())

    def run(self, *parts: str) -> str:
        """The path of a page of the only run."""
        said = self.ask("GET", "/")
        home = said.headers["location"] if said.status == 303 else ""
        return "/".join([home, *parts])


@contextmanager
def served(*words: str, before: str = "pass") -> Iterator[Served]:
    """The verb, started, entered, and ended. `before`: a statement that its process begins with, as to lower a limit."""
    start = f"{before}; import sys; from recontext_data.view import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", start, "port=0", "open=false", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        link = process.stdout.readline().strip()
        assert link.startswith("http://127.0.0.1:"), process.stderr.read()
        server = Served(link, process)
        server.enter()
        yield server
    finally:
        process.terminate()
        process.communicate(timeout=20)


def require_chromium() -> None:
    """Skips where there is no browser."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra dev has it)")
    if not os.access(CHROMIUM, os.X_OK):
        pytest.skip(f"no Chromium at {CHROMIUM}")


@contextmanager
def chromium() -> Iterator[Any]:
    """A real browser without a network of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_WORDS)
        try:
            yield browser
        finally:
            browser.close()
