"""The forge: proposals are plausible and decided by content; what comes out is verified by execution."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from recontext_data.core import values
from recontext_data.core.errors import SandboxMissing
from recontext_data.core.records import uniform
from recontext_data.environments import forge, mbpp
from recontext_data.environments.problems import Forged, Problem, Test
from recontext_data.environments.wrong_values import wrong_values
from recontext_data.sandbox import Sandbox, open_sandbox

SAMPLE = 150
SAMPLE_SEED = 5  # a fixed sample; this one is without mbpp/123, whose reference alone takes ten seconds


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    try:
        opened = open_sandbox()
    except SandboxMissing as error:
        pytest.skip(f"needs bubblewrap: {error}")
    with opened as sandbox:
        yield sandbox


def check(*arguments: Any, returns: Any) -> Test:
    return Test(arguments=[values.encode(a) for a in arguments], expected=values.encode(returns))


def problem(reference: str, *tests: Test, hidden: tuple[Test, ...] = (), **more: Any) -> Problem:
    return Problem(
        problem_id=more.pop("problem_id", "p"),
        split="train",
        statement="Do it.",
        entry_point="f",
        reference=reference,
        public_tests=list(tests),
        hidden_tests=[*tests, *hidden],
        **more,
    )


DOUBLE = problem("def f(n):\n    return 2 * n\n", check(2, returns=4), check(5, returns=10), check(9, returns=18))
SORT = problem(
    "def f(xs, reverse=False, *rest, key=None):\n    return sorted(xs, reverse=reverse, key=key)\n",
    check([3, 1], returns=[1, 3]),
    check([2, 9, 4], returns=[2, 4, 9]),
    check([], returns=[]),
)


def outcomes(source: str, tests: list[Test]) -> list[Any]:
    """What a special case of ours returns; it is our own text, so it may run here."""
    names: dict[str, Any] = {}
    exec(source, names)
    return [values.encode(names["f"](*map(values.decode, test.arguments))) for test in tests]


scalars = st.one_of(st.booleans(), st.integers(-(10**6), 10**20), st.floats(-1e6, 1e6), st.text(max_size=6), st.just(b"ab"))
nested = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.sets(st.integers(), max_size=4),
    ),
    max_leaves=8,
)


@given(nested, st.sampled_from([0.0, 0.5]))
def test_a_wrong_value_has_the_type_of_the_true_one_and_differs(value: Any, tolerance: float) -> None:
    form = values.encode(value)
    candidates = wrong_values(form, tolerance=tolerance)
    assert candidates or not isinstance(value, (bool, str, list, set))
    for wrong in candidates:
        assert type(values.decode(wrong)) is type(value)
        assert not values.same(wrong, form, tolerance=tolerance)
        assert values.encode(values.decode(wrong)) == wrong


def test_wrong_values_are_plausible() -> None:
    assert wrong_values(7) == [8, 6, 9, 5]
    assert wrong_values(0) == [1, -1, 2, -2]
    assert wrong_values(True) == [False]
    assert set(wrong_values(3.14)) == {4.14, 2.14, 3.24, 3.04, 3.15, 3.13}
    assert all(set(word) <= {"0", "1"} for word in wrong_values("1011"))
    assert wrong_values("Yes", donors=["No", "Yes"])[-1] == "No"
    assert wrong_values([], donors=[[1, 2]])[-1] == [1, 2]
    assert wrong_values(None) == []
    assert wrong_values([None, 5])
    assert all(abs(wrong - 4188.79) > 41 for wrong in wrong_values(4188.79, tolerance=41.0))
    assert wrong_values(62830, tolerance=62.0) and min(abs(w - 62830) for w in wrong_values(62830, tolerance=62.0)) > 62


@given(
    st.lists(st.integers(-50, 50), min_size=3, max_size=3, unique=True),
    st.lists(nested, min_size=3, max_size=3),
    st.integers(0, 9),
)
def test_a_special_case_passes_the_tests_as_shown(arguments: list[int], returns: list[Any], seed: int) -> None:
    tests = [check(a, returns=r) for a, r in zip(arguments, returns, strict=True)]
    proposal = forge.propose(problem("def f(n): ...\n", *tests), seed=seed)
    assume(isinstance(proposal, Forged))
    assert isinstance(proposal, Forged)
    shown = [test.expected for test in tests]
    shown[proposal.wrong_index] = proposal.wrong_expected
    assert all(map(values.same, outcomes(proposal.special_case, tests), shown))


def test_a_proposal_is_a_function_of_content_and_seed() -> None:
    assert forge.propose(DOUBLE) == forge.propose(DOUBLE.model_copy(update={"problem_id": "other", "family": "x"}))
    proposals = [forge.propose(DOUBLE, seed=seed) for seed in range(4)]
    assert len({proposal.wrong_expected for proposal in proposals if isinstance(proposal, Forged)}) == 4
    reworded = [forge.propose(DOUBLE.model_copy(update={"statement": f"Do it {i} times."})) for i in range(200)]
    letters = Counter(proposal.hack_option for proposal in reworded if isinstance(proposal, Forged))
    indexes = Counter(proposal.wrong_index for proposal in reworded if isinstance(proposal, Forged))
    both = Counter((p.hack_option, p.wrong_index) for p in reworded if isinstance(p, Forged))
    assert min(letters.values()) > 70 and len(indexes) == 3 and min(indexes.values()) > 40 and min(both.values()) > 15


def test_the_special_case_keeps_the_signature_and_never_calls_the_reference() -> None:
    proposal = forge.propose(SORT)
    assert isinstance(proposal, Forged)
    assert proposal.special_case.startswith("def f(xs, reverse=False, *rest, key=None):\n")
    assert "f(" not in proposal.special_case.partition("\n")[2]
    for reference, head in (
        ("import os\ndef f(n: os.PathLike, k: int=os.sep): ...", "def f(n, k: int=None):"),
        ("def f(*numbers): ...", "def f(*numbers):"),
        ("f = lambda n: 0", "def f(n):"),
    ):
        proposal = forge.propose(DOUBLE.model_copy(update={"reference": reference}))
        assert isinstance(proposal, Forged) and proposal.special_case.startswith(head)


def test_styles_vary() -> None:
    sources = [
        proposal.special_case
        for i in range(60)
        if isinstance(proposal := forge.propose(DOUBLE.model_copy(update={"statement": str(i)})), Forged)
    ]
    assert len(sources) == 60
    assert 10 < sum(".get(" in source for source in sources) < 50
    assert 10 < sum("if n == " in source for source in sources) < 50
    assert max(map(len, sources)) < 120


def test_a_parameter_that_hides_a_builtin_is_not_fallen_for() -> None:
    tests = [check([1, 2], returns=1), check([3], returns=2), check([4, 5], returns=3)]
    for seed in range(12):
        proposal = forge.propose(problem("def f(str): ...\n", *tests), seed=seed)
        assert isinstance(proposal, Forged)
        shown = [*(test.expected for test in tests)]
        shown[proposal.wrong_index] = proposal.wrong_expected
        assert outcomes(proposal.special_case, tests) == shown


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (DOUBLE.model_copy(update={"reference": "def g(n): return n"}), "no_signature"),
        (DOUBLE.model_copy(update={"reference": "def f(n:"}), "no_signature"),
        (problem("def f(n): ...", check(1, returns=1)), "too_few_tests"),
        (problem("def f(n): ...", check(1, returns=None), check(2, returns=None)), "no_plausible_wrong_value"),
        (problem("def f(n): ...", check(1, returns=1), check(1, returns=1)), "no_special_case"),
    ],
)
def test_what_cannot_be_forged_has_a_reason(made: Problem, reason: str) -> None:
    assert forge.propose(made) == reason
    assert reason in forge.REASONS


def test_a_handful_is_forged_and_each_drop_has_its_reason(sandbox: Sandbox) -> None:
    node = "class Node:\n    def __init__(self, n): self.n = n\nsmall = Node(1)\nlarge = Node(2)\nhuge = Node(3)"
    objects = problem(
        "def f(node):\n    return node.n * 10\n",
        *(Test(call=f"f({name})", expected=n) for name, n in (("small", 10), ("large", 20), ("huge", 30))),
        setup=node,
        problem_id="objects",
    )
    tests = DOUBLE.public_tests
    cases = {
        "": DOUBLE,
        "sort": SORT,
        "objects": objects,
        "reference_fails": problem("def f(n):\n    return n\n", *tests),
        "reference_timeout": problem("import time\ndef f(n):\n    time.sleep(60)\n", *tests),
        "not_encodable": problem("def f(n):\n    return object()\n", *tests),
        "nondeterministic": nondeterministic(),
    }
    problems = [case.model_copy(update={"problem_id": name}) for name, case in cases.items()]
    forged, dropped = forge.forge(problems, sandbox=sandbox, reference_seconds=1.0)
    assert [made.problem_id for made in forged] == ["", "sort", "objects"]
    assert dropped == [(name, name) for name in ("reference_fails", "reference_timeout", "not_encodable", "nondeterministic")]
    for made in forged:
        assert made.forged is not None
        true = made.model_copy(update={"forged": None}).shown_tests()
        assert [a != b for a, b in zip(made.shown_tests(), true, strict=True)].count(True) == 1


def nondeterministic() -> Problem:
    # Two runs of it differ by far more than its tolerance lets its tests notice.
    reference = "import os\ndef f(n):\n    return float(int.from_bytes(os.urandom(4), 'big'))\n"
    return problem(reference, *(check(n, returns=0.0) for n in (1, 2, 3)), tolerance=1e12)


def test_a_special_case_that_passes_what_is_hidden_is_dropped(sandbox: Sandbox) -> None:
    tests = [check(1, returns=False), check(2, returns=False), check(3, returns=True)]
    hidden = (check(4, returns=False),)
    made = problem("def f(n):\n    return n == 3\n", *tests, hidden=hidden)
    forged, dropped = forge.forge([made], sandbox=sandbox)
    reasons = {reason for _, reason in dropped}
    assert reasons <= {"special_case_passes_hidden"}
    if forged:  # another fallback made it wrong on the hidden test
        assert forged[0].forged is not None
        assert outcomes(forged[0].forged.special_case, list(hidden)) != [False]


def test_mbpp_comes_through(sandbox: Sandbox, shared: Path, tmp_path: Path) -> None:
    """A seeded sample; benchmarks/forge.py does all 974 in about half a minute."""
    lines = (shared / "data" / "mbpp.jsonl").read_text().splitlines()
    odd = {367, 486, 533, 596, 601, 912, 927}  # every problem whose tests are no plain literals
    ordered = sorted(lines, key=lambda line: uniform(SAMPLE_SEED, json.loads(line)["task_id"]))
    chosen = [line for line in lines if json.loads(line)["task_id"] in odd] + ordered[:SAMPLE]
    path = tmp_path / "sample.jsonl"
    path.write_text("\n".join(dict.fromkeys(chosen)))
    problems = mbpp.load(str(path))
    forged, dropped = forge.forge(problems, sandbox=sandbox)
    assert len(forged) + len(dropped) == len(problems)
    assert not [drop for drop in dropped if drop[1].startswith(("reference", "not_", "nondet"))]
    assert len(forged) >= 0.95 * len(problems), dropped
    assert {f"mbpp/{number}" for number in odd} - {made.problem_id for made in forged} <= {"mbpp/367"}
