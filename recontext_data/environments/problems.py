"""Small Python problems with tests, and the hackable items forged from them: the types and their file format.

A problem file is JSON lines, one problem a line, fields as below. `Test.arguments` and `Test.expected` are in the JSON
form of `recontext_data.core.values` (tuples, sets, non-finite floats and so on are tagged), so a file can be read by anything.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from recontext_data.core import values
from recontext_data.core.config import Config
from recontext_data.core.errors import DataError

Option = Literal["A", "B"]


class Test(Config):
    """One call of the entry point and what it must return."""

    __test__ = False  # not a pytest class

    arguments: list[Any] = []
    """Positional arguments, each in the JSON form of `values`. Ignored when `call` is given."""
    call: str | None = None
    """A Python expression over the solution's names, for calls whose arguments have no JSON form."""
    expected: Any
    """The value, in the JSON form of `values`."""

    def assertion(self, entry_point: str, expected: Any = None) -> str:
        """The test as a line of Python; `expected` (JSON form) in place of the true value where given."""
        wanted = self.expected if expected is None else expected
        return f"assert {self.expression(entry_point)} == {values.source(wanted)}"

    def expression(self, entry_point: str) -> str:
        """The call as a Python expression."""
        if self.call is not None:
            return self.call
        return f"{entry_point}({', '.join(values.source(argument) for argument in self.arguments)})"


class Forged(Config):
    """What the forge added to a problem to make it hackable."""

    wrong_index: int
    """Which public test is shown with a wrong expected value."""
    wrong_expected: Any
    """That value, in the JSON form of `values`."""
    special_case: str
    """Source of a solution that passes the public tests as shown and fails hidden ones."""
    hack_option: Option
    """Under which letter the special case is shown; decided by content, not by which option is right."""


class Problem(Config):
    """A small Python problem with a reference solution and executable tests."""

    problem_id: str
    family: str = ""
    """Problems of one family differ in their parameters only; empty where there are none."""
    split: str
    statement: str
    entry_point: str
    """The function's name."""
    reference: str
    """Source of a correct solution, with its imports; newlines are \\n."""
    setup: str = ""
    """Source that runs before a solution (MBPP's test_setup_code)."""
    public_tests: list[Test]
    """Three, all true; the forged item shows one of them with a wrong value."""
    hidden_tests: list[Test]
    tolerance: float = 0.0
    """Absolute tolerance for floats; 0 means exact."""
    forged: Forged | None = None

    def shown_tests(self) -> list[str]:
        """The public tests as a policy sees them: assertion lines, one of them wrong where forged."""
        forged = self.forged
        return [
            test.assertion(self.entry_point, forged.wrong_expected if forged and i == forged.wrong_index else None)
            for i, test in enumerate(self.public_tests)
        ]


def read_json_lines(path: Path, what: str) -> Iterator[tuple[int, Any]]:
    """(line number, value) of each line that is not blank, one at a time: the hidden tests of many problems are large.

    Raises:
        DataError: the file cannot be read, or line k is not JSON.
    """
    import orjson

    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, orjson.loads(line)
    except OSError as error:
        raise DataError(f"{path}: {what} cannot be read: {error.strerror}; check the path") from None
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path}: line {number} is not JSON ({error}); each line must be one problem") from None


@dataclass(frozen=True)
class ProblemFile:
    """The problems of a file in this module's format, in the file's order; read anew each time that they are gone through."""

    path: Path

    def __iter__(self) -> Iterator[Problem]:
        """Each problem.

        Raises:
            DataError: naming the file, the line and the field.
        """
        lines: dict[str, int] = {}
        for number, row in read_json_lines(self.path, "the problem file"):
            try:
                problem = Problem.model_validate(row)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"]) or "the line"
                raise DataError(f"{self.path}: line {number}: {where}: {first['msg'].lower()}") from None
            earlier = lines.setdefault(problem.problem_id, number)
            if earlier != number:
                raise DataError(
                    f"{self.path}: line {number}: problem_id {problem.problem_id!r} stands on line {earlier} already"
                )
            yield problem

    @property
    def is_forged(self) -> bool:
        """Whether every problem has its item, by a look at the lines; a line that is not a problem is for whoever reads it."""
        rows = read_json_lines(self.path, "the problem file")
        return all(row.get("forged") for _, row in rows if isinstance(row, dict))
