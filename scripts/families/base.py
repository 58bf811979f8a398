"""What a family of problems is: a statement, a body and a draw of arguments, all with the same few parameters.

    family = Family("keep_big", "xs", "Return the items of xs above {k}.", "return [x for x in xs if x > {k}]",
                    {"k": range(36)}, lambda r, k: (ints(r, k - 9, k + 9),))
    family.problem((7,), split="train")            # the problem of the bank
    family.problem((7,), split="train", seed=1)    # the same function with fresh tests

Everything random is seeded by the family's name, the parameters and `seed`, so one family never changes another.
"""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from recontext_data.core.errors import DataError
from recontext_data.core.records import content_hash, derive_seed
from recontext_data.environments.problems import Problem, Test

Params = tuple[int | str, ...]
Arguments = tuple[Any, ...]

MAX_SETTINGS = 36
NUM_PUBLIC = 3
NUM_HIDDEN = 8
SHARES = {"pretrain": 20, "train": 9, "evaluation": 7}
"""Settings per split, of 36; a family that is held out gives all of them to `heldout_family`."""
TRIES = 500
"""Sets of tests drawn before a family is called badly declared; most need one or two."""


@dataclass(frozen=True)
class Family:
    """Problems that differ in their parameters only. `{name}` in `statement` and `body` stands for a parameter."""

    name: str
    """Also the entry point."""
    arguments: str
    """The function's parameters as source: `xs` or `a, b`."""
    statement: str
    body: str
    """One to four lines, not indented."""
    grid: Mapping[str, Sequence[int | str]]
    """Parameter names and the values of each; settings are their product."""
    draw: Callable[..., Arguments]
    """`draw(rng, **parameters)` gives one tuple of arguments."""
    keep: Callable[..., bool] | None = None
    """`keep(**parameters)` says which settings are problems of their own; None means all."""
    held_out: bool = False

    def settings(self) -> list[Params]:
        """The parameter settings in use, 36 at most, in the order of their hashes."""
        return _settings(self)

    def splits(self) -> dict[Params, str]:
        """The split of every setting, by hash order, so that it does not follow the size of a parameter."""
        settings = self.settings()
        if self.held_out:
            return dict.fromkeys(settings, "heldout_family")
        bounds = itertools.accumulate(len(settings) * share // MAX_SETTINGS for share in SHARES.values())
        edges = dict(zip(SHARES, bounds, strict=True))
        return {p: next((s for s, edge in edges.items() if i < edge), "evaluation") for i, p in enumerate(settings)}

    def named(self, params: Params) -> dict[str, int | str]:
        """The parameters by name."""
        return dict(zip(self.grid, params, strict=True))

    def problem_id(self, params: Params) -> str:
        """`bank/<family>/m=3,k=20`."""
        return f"bank/{self.name}/" + ",".join(f"{name}={value}" for name, value in self.named(params).items())

    def reference(self, params: Params) -> str:
        """Source of the correct solution with these parameters written out."""
        lines = self.body.format(**self.named(params)).split("\n")
        return f"def {self.name}({self.arguments}):\n" + "".join(f"    {line}\n" for line in lines)

    def run(self, params: Params, arguments: Arguments) -> Any:
        """What the correct solution returns."""
        return function(self.reference(params), self.name)(*arguments)

    def problem(self, params: Params, *, split: str, seed: int = 0) -> Problem:
        """The problem with these parameters, not forged; another seed draws other tests.

        Raises:
            DataError: no set of tests tells this function from its relatives within the tries allowed.
        """
        rng = random.Random(derive_seed("bank", self.name, *params, seed))
        for _ in range(TRIES):
            drawn = self._draw_distinct(rng, params)
            expected = [self.run(params, arguments) for arguments in drawn]
            if _varied(expected) and self._tells_apart(params, drawn, expected):
                break
        else:
            raise DataError(
                f"{self.problem_id(params)}: {TRIES} draws gave no telling tests: widen `draw` around the parameters"
            )
        tests = [Test(arguments=list(a), expected=e) for a, e in zip(drawn, expected, strict=True)]
        return Problem(
            problem_id=self.problem_id(params),
            family=self.name,
            split=split,
            statement=self.statement.format(**self.named(params)),
            entry_point=self.name,
            reference=self.reference(params),
            public_tests=tests[:NUM_PUBLIC],
            hidden_tests=tests[NUM_PUBLIC:],
        )

    def _draw_distinct(self, rng: random.Random, params: Params) -> list[Arguments]:
        found: dict[str, Arguments] = {}
        for _ in range(TRIES):
            arguments = self.draw(rng, **self.named(params))
            found.setdefault(repr(arguments), arguments)
            if len(found) == NUM_PUBLIC + NUM_HIDDEN:
                return list(found.values())
        raise DataError(f"{self.problem_id(params)}: `draw` has too few different arguments: widen it")

    def _tells_apart(self, params: Params, drawn: list[Arguments], expected: list[Any]) -> bool:
        """Whether the tests fail every other setting of the family, so that each parameter is exercised."""
        pairs = list(zip(drawn, expected, strict=True))
        return all(any(self.run(other, a) != e for a, e in pairs) for other in self.settings() if other != params)

    def __hash__(self) -> int:
        return hash(self.name)  # a family's other fields are functions and mappings; names are unique


@cache
def _settings(family: Family) -> list[Params]:
    product = itertools.product(*family.grid.values())
    kept = [p for p in product if family.keep is None or family.keep(**family.named(p))]
    return sorted(kept, key=lambda p: content_hash(["setting", family.name, *p]))[:MAX_SETTINGS]


@cache
def function(source: str, name: str) -> Callable[..., Any]:
    """The function `name` of our own, trusted source."""
    space: dict[str, Any] = {}
    exec(source, space)
    found: Callable[..., Any] = space[name]
    return found


def _varied(expected: list[Any]) -> bool:
    """Whether no constant answer gets far: the public outputs differ, and no hidden one fills the hidden tests."""
    public, hidden = [Counter(map(repr, part)) for part in (expected[:NUM_PUBLIC], expected[NUM_PUBLIC:])]
    if isinstance(expected[0], bool):
        return len(public) == 2 and min(hidden[str(value)] for value in (True, False)) >= 2
    return len(public) >= 2 and len(hidden) >= 3 and max(hidden.values()) <= 5


# -- draws that families share --------------------------------------------------------------------------------------

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = (
    "ant arm art axe bag bat bed bee box boy bread brick bus cake cat chair clay coat cow cup dark deer dog door "
    "drum duck ear egg farm field fig fire fish flag fog fox frog gate girl goat gold grass hat hen hill horse ice "
    "ink iron jam jar key kite lake lamp leaf lid lime lion map milk moon moss mud nail nest net nut oak oil owl "
    "pan pear pen pie pig plum pond queen rain rat ring road rock roof rope sand sea seed ship silk sky snow soap "
    "sun tea tent toad tree van vase wall wax west wind wolf wood yard zoo"
)


def ints(rng: random.Random, low: int, high: int, *, sizes: tuple[int, int] = (2, 4)) -> list[int]:
    """A list of whole numbers, both bounds included."""
    return [rng.randint(low, high) for _ in range(rng.randint(*sizes))]


def some(rng: random.Random, often: Sequence[Any], low: int, high: int) -> list[int]:
    """A list of 2 to 4 numbers, about half of them from `often` and the rest from low..high."""
    return [rng.choice(often) if rng.random() < 0.5 else rng.randint(low, high) for _ in range(rng.randint(2, 4))]


def multiple(rng: random.Random, m: int, high: int) -> int:
    """A number from 1 to `high`, a multiple of m about every other time."""
    return m * rng.randint(1, high // m) if rng.random() < 0.5 else rng.randint(1, high)


def word(rng: random.Random, letters: str = "") -> str:
    """A short word; about every other one has one to three letters replaced by some of `letters`."""
    chosen = list(rng.choice(WORDS.split()))
    if letters and rng.random() < 0.6:
        for _ in range(rng.randint(1, min(3, len(chosen)))):
            chosen[rng.randrange(len(chosen))] = rng.choice(letters)
    return "".join(chosen)


def sized(rng: random.Random, n: int, letters: str = "") -> str:
    """A made-up word of n - 1 to n + 2 letters, about as often short of n as beyond it."""
    return (word(rng, letters) + word(rng) + "e" * n)[: n + rng.choice((-1, 0, 0, 1, 2))]


def words(rng: random.Random, letters: str = "") -> list[str]:
    """Two to four short words."""
    return [word(rng, letters) for _ in range(rng.randint(2, 4))]
