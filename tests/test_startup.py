"""Light start: `--help` and the list of recipes import nothing heavy."""

import subprocess
import sys

import pytest

from tests.helpers import environment

HEAVY = (
    "torch",
    "transformers",
    "trl",
    "datasets",
    "ray",
    "polars",
    "pyarrow",
    "openai",
    "aiohttp",
    "duckdb",
    "numpy",
    "rich",
    "jinja2",
)

SCRIPT = """
import sys
from recontext_data.build import main
code = main(sys.argv[1:])
loaded = sorted({name.partition(".")[0] for name in sys.modules})
print(" ".join(loaded), file=sys.stderr)
sys.exit(code)
"""


def modules(*words: str) -> tuple[int, set[str]]:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words], env=environment(), capture_output=True, text=True, check=False
    )
    return result.returncode, set(result.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("words", [["--help"], ["recipe=code_mc", "--help"], [], ["recipe=code_mc", "sampler.n=0"]])
def test_nothing_heavy_is_imported(words: list[str]) -> None:
    code, loaded = modules(*words)
    assert code == (2 if "sampler.n=0" in words else 0)
    assert ("pydantic" in loaded) == (words != ["--help"]), "plain help is written beforehand"
    assert loaded & set(HEAVY) == set()


def test_importing_the_package_imports_nothing_else() -> None:
    script = "import sys, typing; before = set(sys.modules); import recontext_data; print(*sorted(set(sys.modules) - before))"
    result = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["recontext_data", "recontext_data.core", "recontext_data.core.version"]


@pytest.mark.parametrize("own", [None, "dirty_decay_ms:500"])
def test_freed_memory_goes_back_at_once_unless_the_user_says_otherwise(own: str | None) -> None:
    """Set by the verbs, before Polars' allocator reads it, and not by the library."""
    name = "_RJEM_MALLOC_CONF"
    script = f"import os, sys; import recontext_data.build; print(os.environ[{name!r}], 'polars' in sys.modules)"
    given = {key: value for key, value in environment().items() if key != name} | ({name: own} if own else {})
    result = subprocess.run([sys.executable, "-c", script], env=given, capture_output=True, text=True, check=True)
    assert result.stdout.split() == [own or "dirty_decay_ms:0,muzzy_decay_ms:0", "False"]
