"""The review page over a million candidates: `python benchmarks/view.py [candidates [folder]]`. Each figure beside its limit.

    python benchmarks/view.py                                # a million, in a temporary folder
    python benchmarks/view.py 10000000 /tmp/ten_million      # 1.2 GB; made where it is not there yet, and left there

The run is made up: two judges, one arm, completions of about 470 characters, written as a build writes them. Figures are
those of whole requests to `recontext view` as a process, the first one after its start included; memory is the peak of that
process. On a machine that does other things the CPU time (of the second request) is the steadier figure; DuckDB uses two
threads. Counts beside a list come in a request of their own, after the page.
"""

import http.client
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

ROWS = 1_000_000
GROUP = 2**18
"""Rows of a row group, as Polars writes them and so as a build does."""
LIMIT_MB = 500.0

PAGE, FILTER, SEARCH = 1.0, 1.0, 3.0


def questions(total: int) -> list[tuple[str, float | None, str, list[tuple[str, str]]]]:
    """What is asked: name, limit in seconds, page and its parameters."""
    return [
        ("first page", PAGE, "rows/candidates", []),
        ("counts of all", None, "facets/candidates", []),
        ("a page in the middle", PAGE, "rows/candidates", [("after", str(7 * total // 10))]),
        ("filter: context", FILTER, "rows/candidates", [("where", "generation_context~is~control")]),
        ("filter: a rare label", FILTER, "rows/candidates", [("where", "label@rubric~is~invalid")]),
        ("filter: not a label", FILTER, "rows/candidates", [("where", "label@rubric~not~hack")]),
        ("filter: score", FILTER, "rows/candidates", [("where", "score@rubric~ge~0.99")]),
        ("filter: dropped by the arm", FILTER, "rows/candidates", [("where", "kept@arm~is~false")]),
        (
            "filter: tokens and finish",
            FILTER,
            "rows/candidates",
            [("where", "completion_tokens~gt~290"), ("where", "finish_reason~is~length")],
        ),
        (
            "filter: label and context",
            FILTER,
            "rows/candidates",
            [("where", "label@choice~is~hack"), ("where", "generation_context~is~default")],
        ),
        ("filter: one task", FILTER, "rows/candidates", [("where", f"task_id~is~made/{total // 10 - 1:06}")]),
        ("filter: nothing matches", FILTER, "rows/candidates", [("where", "label@choice~is~never")]),
        ("counts under a filter", None, "facets/candidates", [("where", "label@rubric~is~hack")]),
        ("sort by score", FILTER, "rows/candidates", [("sort", "-score@rubric")]),
        ("sort by tokens, next page", FILTER, "rows/candidates", [("sort", "completion_tokens"), ("after", "5000")]),
        ("search: a common word", SEARCH, "rows/candidates", [("q", "returning")]),
        ("search: one hit", SEARCH, "rows/candidates", [("q", f"candidate-{total - 1:07}")]),
        ("search: none", SEARCH, "rows/candidates", [("q", "zzzzqqqq")]),
        ("search: none, under a filter", SEARCH, "rows/candidates", [("q", "zzzzqqqq"), ("where", "label@choice~is~hack")]),
        ("counts under a search", None, "facets/candidates", [("q", "candidate-09")]),
        ("queue by disagreement", None, "queue", [("order", "disagreement")]),
        ("queue by uncertainty", None, "queue", [("order", "uncertainty")]),
        ("queue at random", None, "queue", [("order", "random")]),
        ("SQL: labels by judge", None, "sql", [("sql", "SELECT judge, label, count(*) FROM judgements GROUP BY ALL")]),
    ]


def fill(run: Path, total: int) -> None:
    """Writes the tables of a run of that many candidates, a row group at a time: ten million take 1 GB of memory."""
    import numpy as np
    import pyarrow.parquet as pq

    dice = np.random.default_rng(0)
    run.mkdir(parents=True)
    words = np.array(
        [a + b + c for a in ("ret", "out", "val", "list", "sum", "for") for b in ("urn", "er", "ix") for c in ("", "ing", "ed")]
    )
    texts = [" ".join(dice.choice(words, size=70)) for _ in range(20_000)]
    order = dice.permutation(total)
    writers: dict[str, pq.ParquetWriter] = {}
    for judge in ("choice", "rubric"):  # a build's judgements stand judge by judge
        for start in range(0, total, GROUP):
            ids = [f"{one:024x}" for one in order[start : start + GROUP]]
            parts = {"judgements": _judged(judge, ids, dice)}
            if judge == "choice":
                parts |= {"candidates": _candidates(start, ids, texts, dice), "selection": _selected(ids, dice)}
            for table, part in parts.items():
                rows = part.to_arrow()
                if table not in writers:
                    writers[table] = pq.ParquetWriter(run / f"{table}.parquet", rows.schema, compression="zstd")
                writers[table].write_table(rows, row_group_size=GROUP)
    for writer in writers.values():
        writer.close()


def _candidates(start: int, ids: list[str], texts: list[str], dice: "np.random.Generator") -> "pl.DataFrame":
    import numpy as np
    import polars as pl

    number = np.arange(start, start + len(ids))
    column = pl.Series(ids)
    return pl.DataFrame({"candidate_id": column, "task_id": [f"made/{one:06}" for one in number // 8]}).with_columns(
        generation_context=pl.Series(np.array(["default", "control"])[number // 4 % 2]),
        role=pl.lit("arms"),
        k=pl.Series(number % 4),
        seed=pl.Series(dice.integers(0, 2**62, len(ids))),
        reply_key=column + column + "0" * 16,
        completion=pl.Series([f"{texts[one % 20_000]} candidate-{one:07}\nAnswer: (A)" for one in number]),
        reasoning=pl.lit(None, dtype=pl.String),
        finish_reason=pl.Series(np.array(["stop", "length"])[(dice.random(len(ids)) < 0.03).astype(int)]),
        model=pl.lit("made up"),
        prompt_tokens=pl.lit(None, dtype=pl.Int64),
        completion_tokens=pl.Series(dice.integers(10, 300, len(ids))),
        details=pl.lit(None, dtype=pl.String),
    )


def _judged(judge: str, ids: list[str], dice: "np.random.Generator") -> "pl.DataFrame":
    import polars as pl

    return pl.DataFrame({"candidate_id": ids}).with_columns(
        judge=pl.lit(judge),
        label=pl.Series(dice.choice(["general", "hack", "invalid"], len(ids), p=[0.6, 0.38, 0.02])),
        score=pl.Series(dice.random(len(ids)).round(2)),
        unscored_reason=pl.lit(None, dtype=pl.String),
        raw=pl.lit("Answer: (A)"),
    )


def _selected(ids: list[str], dice: "np.random.Generator") -> "pl.DataFrame":
    import polars as pl

    kept = pl.Series(dice.random(len(ids)) < 0.9)
    return pl.DataFrame({"candidate_id": ids}).select(
        pl.lit("arm").alias("arm"), "candidate_id", kept=kept, reason=pl.lit("made up")
    )


class Client:
    """Requests with the cookie of the printed link."""

    def __init__(self, link: str) -> None:
        parts = urlsplit(link)
        assert parts.port is not None
        self.port, self.cookie = parts.port, ""
        _, headers = self._ask(f"/?{parts.query}")
        self.cookie = headers["Set-Cookie"].partition(";")[0]

    def seconds(self, path: str, parameters: list[tuple[str, str]]) -> tuple[float, int]:
        """How long a page took, all of it read, and its status: 503 is a question that was broken off."""
        start = time.perf_counter()
        status, _ = self._ask(path + (f"?{urlencode(parameters)}" if parameters else ""))
        assert status in (200, 503), (status, path)
        return time.perf_counter() - start, status

    def _ask(self, path: str) -> tuple[int, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request("GET", path, headers={"Cookie": self.cookie})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status, answer.headers


def cpu_seconds(process: int) -> float:
    """What a process has computed until now, in all its threads; the SQL box's own process aside."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb(process: int) -> float:
    """The most memory that a process has held."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found is not None
    return int(found[1]) / 1000


def main() -> None:
    """Makes the run, asks, and prints."""
    total = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    home = str(Path(__file__).resolve().parent.parent)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(sys.argv[2] if len(sys.argv) > 2 else folder).resolve() / "runs" / "made" / "up"
        if not run.is_dir():
            # In a process of its own: what it takes to make the run is not the server's.
            maker = f"from benchmarks.view import fill; from pathlib import Path; fill(Path({str(run)!r}), {total})"
            subprocess.run([sys.executable, "-c", maker], check=True, cwd=home)
        words = [sys.executable, "-m", "recontext_data.view", f"run={run}", "port=0", "open=false"]
        began = time.perf_counter()
        server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": home})
        try:
            assert server.stdout is not None
            client = Client(server.stdout.readline().strip())
            started = time.perf_counter() - began
            megabytes = sum(path.stat().st_size for path in run.iterdir()) / 1e6
            print(f"{total:,} candidates, 2 judges, {megabytes:,.0f} MB of Parquet; load {os.getloadavg()[0]:.1f}")
            print(f"{'start, until the link is printed':32} {started:6.2f} s")
            for name, limit, path, parameters in questions(total):
                first, status = client.seconds(f"/run/made/up/{path}", parameters)
                before = cpu_seconds(server.pid)
                again, _ = client.seconds(f"/run/made/up/{path}", parameters)
                cpu = cpu_seconds(server.pid) - before
                aim = f"limit {limit:g} s{'' if first < limit else '  MISSED'}" if limit else ""
                aim += "  BROKEN OFF" if status == 503 else ""
                print(f"{name:32} {first:6.2f} s, again {again:5.2f} s, CPU {cpu:5.2f} s   {aim}", flush=True)
            peak = peak_mb(server.pid)
            print(f"{'memory of the server':32} {peak:6.0f} MB   limit {LIMIT_MB:g} MB{'' if peak < LIMIT_MB else '  MISSED'}")
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
