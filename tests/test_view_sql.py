"""The SQL box: answers a SELECT over the run's tables, and can do nothing else, for no longer than its limit."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from recontext_data.core.errors import InputError
from recontext_data.viewer.sql_box import CELL, ask
from tests.view_world import judged, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [(0, "choice", "hack", 1.0), (1, "choice", "general", None), (2, "choice", None, None)]
    folder = tmp_path_factory.mktemp("out") / "runs" / "made" / "it's a run"
    return write_run(folder, ["first", "se\x00cond", "third", "x" * 5000], judgements=judged(rows))


@pytest.fixture
def tables(run: Path) -> dict[str, list[Path]]:
    return {table: [run / f"{table}.parquet"] for table in ("candidates", "judgements")}


def test_a_select_is_answered(tables: dict[str, list[Path]]) -> None:
    answer = ask("SELECT label, count(*) AS n FROM judgements GROUP BY label ORDER BY label", tables)
    assert answer == {"columns": ["label", "n"], "rows": [["general", 1], ["hack", 1], [None, 1]], "more": False}
    joined = ask(
        "WITH j AS (SELECT * FROM judgements) SELECT score FROM candidates JOIN j USING (candidate_id) ORDER BY k, 1", tables
    )
    assert [row[0] for row in joined["rows"]] == [1.0, None, None]


def test_what_json_has_no_word_for_comes_as_text(tables: dict[str, list[Path]]) -> None:
    answer = ask("SELECT 'nan'::DOUBLE, 'inf'::DOUBLE, 2::HUGEINT ** 70, DATE '2026-01-02', [1, 2], '\u202e', NULL", tables)
    assert answer["rows"][0][0] == "nan" and answer["rows"][0][1] == "inf"
    assert answer["rows"][0][3:] == ["2026-01-02", "[1, 2]", "\u202e", None]


def test_rows_and_values_are_limited(tables: dict[str, list[Path]]) -> None:
    answer = ask("SELECT * FROM range(5000)", tables, rows=10)
    assert len(answer["rows"]) == 10 and answer["more"]
    long = ask("SELECT completion FROM candidates WHERE k = 1 AND length(completion) > 1000", tables)
    assert long["rows"] == [["x" * CELL]]


REFUSED = {
    "two statements": "SELECT 1; SELECT 2",
    "none": "",
    "only a comment": "-- nothing",
    "copy out": "COPY (SELECT 1) TO '{out}/x.csv'",
    "copy over a table": "COPY (SELECT 1 AS a) TO '{run}/candidates.parquet'",
    "copy from": "COPY candidates FROM '/etc/passwd'",
    "export": "EXPORT DATABASE '{out}/x'",
    "attach": "ATTACH '{out}/x.db'",
    "detach": "DETACH memory",
    "install": "INSTALL httpfs",
    "load": "LOAD httpfs",
    "set": "SET memory_limit = '10GB'",
    "set access": "SET enable_external_access = true",
    "set variable": "SET VARIABLE x = 1",
    "reset": "RESET memory_limit",
    "pragma": "PRAGMA database_list",
    "pragma that sets": "PRAGMA memory_limit = '10GB'",
    "call": "CALL pragma_version()",
    "create": "CREATE TABLE x AS SELECT 1",
    "create a secret": "CREATE SECRET (TYPE s3)",
    "macro": "CREATE MACRO f() AS 1",
    "insert": "INSERT INTO candidates SELECT * FROM candidates",
    "delete": "DELETE FROM candidates",
    "drop": "DROP VIEW candidates",
    "prepare": "PREPARE p AS SELECT 1",
    "use": "USE memory",
    "checkpoint": "CHECKPOINT",
    "transaction": "BEGIN",
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_statements_are_refused(name: str, tables: dict[str, list[Path]], run: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(InputError, match=r"one SELECT|Parser Error|Catalog Error|Binder Error"):
        ask(REFUSED[name].format(out=tmp_path, run=run), tables)
    assert list(tmp_path.iterdir()) == []
    assert {path: path.read_bytes() for path in run.iterdir()} == before


READING = [
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM '{secret}'",
    "SELECT * FROM read_text('{secret}')",
    "SELECT * FROM read_blob('/proc/self/environ')",
    "SELECT * FROM read_json('{secret}')",
    "SELECT * FROM sniff_csv('{secret}')",
    "SELECT * FROM glob('{out}/*')",
    "SELECT * FROM glob('*')",
    "SELECT * FROM read_parquet('{out}/*.parquet')",
    "SELECT * FROM read_parquet('{run}/../../../secret.parquet')",
    "SELECT * FROM read_parquet('{run}/../{name}/../../../secret.parquet')",
    "SELECT * FROM parquet_metadata('{out}/secret.parquet')",
    "SELECT * FROM read_parquet('http://127.0.0.1:9/x.parquet')",
    "SELECT getenv('HOME')",
    "SELECT * FROM query('COPY (SELECT 1) TO ''{out}/x''')",
    "SELECT * FROM query_table('{out}/secret.parquet')",
    "SELECT * FROM read_duckdb('{out}/x.db')",
]


@pytest.mark.parametrize("sql", READING)
def test_no_other_file_is_read(sql: str, tables: dict[str, list[Path]], run: Path) -> None:
    out = run.parents[2]
    (out / "secret.txt").write_text("secret,words\n1,2\n")
    import polars as pl

    pl.DataFrame({"secret": ["words"]}).write_parquet(out / "secret.parquet")
    quoted = {"run": str(run).replace("'", "''"), "out": out, "secret": out / "secret.txt", "name": run.name.replace("'", "''")}
    with pytest.raises(InputError) as error:
        ask(sql.format(**quoted), tables)
    assert "words" not in str(error.value) and "root:" not in str(error.value)
    assert any(words in str(error.value) for words in ("Permission Error", "Catalog Error", "Parser Error", "Binder Error"))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM range(1000000000000)",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r",
        "SELECT repeat('x', 1000000000), repeat('y', 2000000000), repeat('z', 2000000000)",
        "SELECT list(range) FROM range(1000000000)",
    ],
)
def test_nothing_runs_longer_than_its_limit_or_takes_the_machine(sql: str, tables: dict[str, list[Path]]) -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match=r"took longer|ran out of memory|Out of Memory"):
        ask(sql, tables, seconds=1.5)
    assert time.monotonic() - start < 60  # left alone they take hours


def test_the_process_has_nothing_of_ours(tables: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    rows = ask("SELECT * FROM duckdb_settings()", tables)["rows"]
    assert "sk-secret" not in str(rows)
    settings = {row[0]: row[1] for row in rows}
    assert settings["enable_external_access"] == "false" and settings["lock_configuration"] == "true"
    assert settings["autoload_known_extensions"] == "false" and settings["autoinstall_known_extensions"] == "false"


def test_no_process_is_left(tables: dict[str, list[Path]]) -> None:
    before = children()  # other tests of this worker may keep one to fork from
    with pytest.raises(InputError):
        ask("SELECT count(*) FROM range(1000000000000)", tables, seconds=1)
    assert children() <= before


def children() -> set[str]:
    """The processes that this one has started and not yet seen the end of."""
    with subprocess.Popen(["ps", "-e", "-o", "pid=,ppid="], stdout=subprocess.PIPE, text=True) as ps:
        said, _ = ps.communicate()
    pairs = [line.split() for line in said.splitlines()]
    return {pid for pid, parent in pairs if parent == str(os.getpid()) and pid != str(ps.pid)}
