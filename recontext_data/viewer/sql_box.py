"""The SQL box: one SELECT over a run's tables, in a process of its own that can do nothing else.

    python -m recontext_data.viewer.sql_box < question.json

DuckDB is told to open no file but the run's tables and to take no other statement than one SELECT; its configuration is
locked. The system holds it to the rest whatever DuckDB does: no file can grow, memory is bounded, and the process is ended
when its time is up.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recontext_data.core.errors import InputError

SECONDS = 10.0
INTERRUPT = 0.8
"""Of the limit, after which DuckDB is interrupted; a function that does not listen is ended with its process at the limit."""
ROWS = 1000
CELL = 2000
"""Characters of one value that are shown."""
ADDRESS_SPACE_BYTES = 3 * 2**30
"""DuckDB reserves far more than it uses; its own limit, below, is what bounds use."""
MEMORY = "256MB"


def ask(sql: str, tables: Mapping[str, Sequence[Path]], *, seconds: float = SECONDS, rows: int = ROWS) -> dict[str, Any]:
    """`columns`, `rows` and `more` (whether rows were left out) of one SELECT.

    Raises:
        InputError: what is wrong with the statement, in DuckDB's words, or that it took too long.
    """
    question = {
        "sql": sql,
        "tables": {table: [str(path) for path in paths] for table, paths in tables.items()},
        "rows": rows,
        "seconds": seconds,
    }
    # -I: neither the working directory nor the environment says where Python's modules are, so the package's home is given.
    home = str(Path(__file__).resolve().parents[2])
    start = f"import sys; sys.path.insert(0, {home!r}); from recontext_data.viewer.sql_box import main; main()"
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", start],
            input=json.dumps(question).encode(),
            capture_output=True,
            timeout=seconds,
            env={"PATH": os.defpath},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"sql: took longer than {seconds:g} s and was ended; narrow it or add a LIMIT") from None
    if done.returncode:
        raise InputError("sql: ran out of memory or time and was ended; narrow it, or select fewer columns")
    answer: dict[str, Any] = json.loads(done.stdout)
    if "error" in answer:
        raise InputError(f"sql: {answer['error']}")
    return answer


def main() -> None:
    """Reads a question from stdin and writes its answer to stdout."""
    question = json.load(sys.stdin)
    _bound(question["seconds"])
    print(json.dumps(_answer(question)), flush=True)
    os._exit(0)  # DuckDB's threads may be at work still, and taking them down in order can fail


def _bound(seconds: float) -> None:
    try:
        import resource
    except ImportError:  # Windows: DuckDB's own limits and the parent's clock hold
        return
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    cpu = int(4 * seconds) + 4
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    import threading

    import duckdb

    connection = _locked(question["tables"])
    timer = threading.Timer(INTERRUPT * question["seconds"], connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        statements = connection.extract_statements(question["sql"])
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            return {"error": "write one SELECT statement; nothing else is done here"}
        result = connection.execute(statements[0])
        names = [column[0] for column in result.description or ()]
        found = result.fetchmany(question["rows"] + 1)
        return {
            "columns": names,
            "rows": [[_plain(value) for value in row] for row in found[: question["rows"]]],
            "more": len(found) > question["rows"],
        }
    except duckdb.InterruptException:
        return {"error": f"took longer than {question['seconds']:g} s and was broken off; narrow it or add a LIMIT"}
    except (duckdb.Error, UnicodeDecodeError, OverflowError) as error:
        return {"error": " ".join(str(error).split())[:CELL]}
    finally:
        timer.cancel()


def _locked(tables: Mapping[str, Sequence[str]]) -> Any:
    """A connection that has the tables as views and can reach nothing else, for good."""
    import duckdb

    connection = duckdb.connect(
        config={
            "memory_limit": MEMORY,
            "threads": 2,
            "temp_directory": "",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "allow_unsigned_extensions": False,
        }
    )
    for table, paths in tables.items():
        files = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
        connection.execute(f'CREATE VIEW "{table}" AS SELECT * FROM read_parquet([{files}])')
    allowed = ", ".join("'" + path.replace("'", "''") + "'" for paths in tables.values() for path in paths)
    connection.execute(f"SET allowed_paths = [{allowed}]")
    connection.execute("SET enable_progress_bar = false")  # it would stand in the answer
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _plain(value: Any) -> Any:
    """A value as JSON; what JSON has no word for, and what is long, as text."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and value - value == 0):
        return value
    return str(value)[:CELL]


if __name__ == "__main__":
    main()
