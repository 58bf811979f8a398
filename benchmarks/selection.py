"""Best-of-16 over ten million candidates, beside the same done in plain SQL: `python benchmarks/selection.py [rows=10000000]`.

References: under 30 s and under 2 GB on two cores. The plain query knows no reasons, no ties by hash and no vetoes.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

N = 16
PLAIN = "SELECT candidate_id, row_number() OVER (PARTITION BY task_id ORDER BY score DESC) = 1 AS kept FROM {source}"


def make(path: Path, rows: int) -> None:
    """Candidates with a score of eleven values, so that ties are the rule, one in a hundred without."""
    import duckdb

    with duckdb.connect() as connection:
        connection.sql(
            f"COPY (SELECT md5(i::VARCHAR)[:24] AS candidate_id, 'task-' || (i // {N}) AS task_id, i % {N} AS k, "
            "CASE WHEN hash(i) % 50 = 0 THEN 'length' ELSE 'stop' END AS finish_reason, "
            "CASE WHEN hash(i, 1) % 100 = 0 THEN NULL ELSE (hash(i, 2) % 11)::DOUBLE END AS score, "
            "CASE WHEN hash(i, 3) % 20 = 0 THEN 'refused' ELSE 'fine' END AS \"refusal.label\" "
            f"FROM range({rows}) t(i)) TO '{path}' (FORMAT parquet)"
        )


def run(text: str, target: Path) -> None:
    """Runs a query into a Parquet file."""
    import duckdb

    from recontext_data.pipeline.select import limits

    with tempfile.TemporaryDirectory() as spill, duckdb.connect(config=limits(spill)) as connection:
        connection.sql("SET preserve_insertion_order = false")
        connection.sql(f"COPY ({text}) TO '{target}' (FORMAT parquet)")
        [(kept, total)] = connection.sql(f"SELECT count(*) FILTER (WHERE kept), count(*) FROM '{target}'").fetchall()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{kept:,} of {total:,} kept, peak {peak:,.0f} MB", end="")


def child(which: str, source: Path, target: Path) -> None:
    """One measurement, in a process of its own."""
    from recontext_data.config.selection import Select, query

    config = Select(keep="best", n=N, drop_truncated=True, veto={"refusal": ["refused"]})
    table = f"read_parquet('{source}')"
    run(query(config, source=table) if which == "ours" else PLAIN.format(source=table), target)


def main() -> None:
    """Prints seconds and memory of both."""
    rows = int(next((word.partition("=")[2] for word in sys.argv[1:] if word.startswith("rows=")), "10000000"))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "candidates.parquet"
        make(source, rows)
        for which, reference in (("plain", ""), ("ours", " (references 30 s, 2,000 MB)")):
            start = time.perf_counter()
            words = [sys.executable, __file__, which, str(source), str(Path(folder) / f"{which}.parquet")]
            said = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
            print(f"{which}: {time.perf_counter() - start:.1f} s, {said}{reference}")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        child(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
