"""MBPP and MBPP+ as problems: every shape of assert, every file that is wrong in its own way."""

import json
from pathlib import Path
from typing import Any

import pytest

from recontext_data.core import values
from recontext_data.core.errors import DataError, SandboxMissing
from recontext_data.environments import asserts, mbpp
from recontext_data.environments.mbpp_plus import shaped
from recontext_data.environments.problems import Problem
from recontext_data.sandbox import open_sandbox


@pytest.fixture(scope="module")
def needs_sandbox() -> None:
    try:
        open_sandbox(num_workers=1).close()
    except SandboxMissing as error:
        pytest.skip(f"needs bubblewrap: {error}")


def row(
    task_id: Any = 601, code: str = "def f(n):\n    return n + 1", tests: tuple[str, ...] = (), **more: Any
) -> dict[str, Any]:
    return {
        "text": "Add one.",
        "code": code,
        "task_id": task_id,
        "test_setup_code": "",
        "test_list": list(tests or ("assert f(1) == 2", "assert f(2) == 3", "assert f(5) == 6")),
        "challenge_test_list": [],
        **more,
    }


def write(path: Path, *rows: Any) -> str:
    path.write_text("\n".join(json.dumps(item) for item in rows))
    return str(path)


def load_one(tmp_path: Path, **fields: Any) -> Problem:
    [problem] = mbpp.load(write(tmp_path / "one.jsonl", row(**fields)))
    return problem


def test_plain_problems_need_no_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    code = "def f(n):\r\n\treturn n + 1\r\n"
    problem = load_one(
        tmp_path, code=code, tests=("assert f(1) == 2", "assert (f(2)) == 3", "assert 6 == f(5)", "assert f(6) == 7")
    )
    assert problem.problem_id == "mbpp/601" and problem.entry_point == "f" and problem.split == "train"
    assert problem.reference == "def f(n):\n\treturn n + 1\n"
    assert [test.arguments for test in problem.public_tests] == [[1], [2], [5]]
    assert [test.expected for test in problem.hidden_tests] == [2, 3, 6, 7]
    assert problem.shown_tests() == ["assert f(1) == 2", "assert f(2) == 3", "assert f(5) == 6"]


def test_challenge_tests_are_hidden_tests(tmp_path: Path) -> None:
    problem = load_one(tmp_path, challenge_test_list=["assert f(-1) == 0"])
    assert len(problem.public_tests) == 3 and problem.hidden_tests[3].arguments == [-1]


@pytest.mark.parametrize(
    ("task_id", "split"), [(1, "prompt"), (10, "prompt"), (11, "test"), (510, "test"), (511, "validation"), (600, "validation"),
                           (601, "train"), (974, "train"), (5000, "train"), ("Mbpp/20", "test"), ("mine", "train")]
)  # fmt: skip
def test_official_splits(tmp_path: Path, task_id: Any, split: str) -> None:
    assert load_one(tmp_path, task_id=task_id).split == split


def test_every_shape_of_assert(tmp_path: Path, needs_sandbox: None) -> None:
    code = "import math\ndef f(*xs):\n    return xs[0] if len(xs) == 1 else list(xs)"
    shapes = {
        "assert f((1, 2)) == (1, 2)": "assert f((1, 2)) == (1, 2)",
        "assert set(f(1, 2)) == set([2, 1])": "assert set(f(1, 2)) == {1, 2}",
        "assert f(True)": "assert f(True) == True",
        "assert not f(False)": "assert f(False) == False",
        "assert f('x')": "assert bool(f('x')) == True",
        "assert not f('')": "assert bool(f('')) == False",
        "assert f(None) is None": "assert f(None) == None",
        "assert f(1.0/4) == 1/4": "assert f(0.25) == 0.25",
        "assert f(int) == int('3')*0+len('') or True": "assert (f(int) == int('3') * 0 + len('') or True) == True",
        "assert f(1, int)[0] == 1": "assert f(1, int)[0] == 1",
        "assert f([1]) != [2]": "assert (f([1]) != [2]) == True",
        "import sys\nassert f(3) == len('abc')": "assert f(3) == 3",
        "assert f(-2) == -2, 'message'": "assert f(-2) == -2",
    }
    problem = load_one(tmp_path, code=code, tests=tuple(shapes))
    assert [test.assertion("f") for test in problem.hidden_tests] == list(shapes.values())
    assert problem.setup == "import sys"


def test_isclose_becomes_a_tolerance(tmp_path: Path) -> None:
    tests = ("import math\nassert math.isclose(f(1), 2.0, rel_tol=0.001)", "assert math.isclose(f(3), 4, abs_tol=0.01)")
    problem = load_one(tmp_path, tests=tests)
    assert problem.shown_tests() == ["assert f(1) == 2.0", "assert f(3) == 4"]
    assert problem.tolerance == 0.01


NODE = "class Node:\r\n    def __init__(self, n):\r\n        self.n = n\r\n\r\ndef f(node):\r\n    return node.n + 1"


def test_what_builds_arguments_moves_from_the_reference_to_the_setup(tmp_path: Path, needs_sandbox: None) -> None:
    problem = load_one(tmp_path, code=NODE, test_setup_code="root = Node(1)\r\n", tests=("assert f(root) == 2",))
    assert problem.reference == "def f(node):\n    return node.n + 1\n"
    assert problem.setup.startswith("class Node:\n") and problem.setup.endswith("root = Node(1)")
    assert problem.public_tests[0].call == "f(root)"


def test_statements_before_asserts_keep_apart(tmp_path: Path, needs_sandbox: None) -> None:
    problem = load_one(
        tmp_path,
        code=NODE,
        tests=("root = Node(1)\nassert f(root) == 2", "root = Node(2)\nassert f(root) == 3", "assert f(Node(0)) == 1"),
    )
    names: dict[str, Any] = {}
    exec(problem.setup + "\n" + problem.reference, names)
    assert [eval(test.call or "", names) for test in problem.public_tests] == [2, 3, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "there is no row in it"),
        ('{"text": 1', r"line 1 is not JSON .*repair or download"),
        ('{"a": 1}\n\n{', r"line 3 is not JSON"),
        ("[1]", r"line 1: '\[1\]' is not an object"),
        (json.dumps({**row(), "task_id": None}), "line 1: task_id: None; a number such as 601"),
        (json.dumps({k: v for k, v in row().items() if k != "code"}), "line 1: no column 'code'; columns here: "),
        (json.dumps({k: v for k, v in row().items() if k != "text"}), "line 1: no column 'text' or 'prompt'"),
        (json.dumps(row(test_list=[])), "line 1: test_list: .* is not a list of texts"),
        (json.dumps(row(test_list="assert f(1)")), "line 1: test_list: .* is not a list of texts"),
        (json.dumps({**row(), "code": 5}), "line 1: code: '5' is not text"),
        (json.dumps(row(code="def f(:")), "line 1: code: does not parse"),
        (json.dumps(row(tests=("f(1) == 2",))), "line 1: test_list: .* does not end in an assert"),
        (json.dumps(row(tests=("assert g(1) == 2",))), "line 1: test_list: no assert calls a function"),
        (json.dumps(row(tests=("assert f(",))), "line 1: test_list: .* does not parse"),
        (f"{json.dumps(row())}\n{json.dumps(row(task_id='Mbpp/601'))}", "line 2: task_id '601' stands at .*line 1 already"),
    ],
)
def test_a_wrong_file_names_the_place_and_the_fix(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        mbpp.load(str(path))
    assert "bad.jsonl" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.jsonl: no such file"):
        mbpp.load(str(tmp_path / "gone.jsonl"))
    with pytest.raises(DataError, match=r"notes.txt: neither a Hub id .* nor a file"):
        mbpp.load(str(tmp_path / "notes.txt"))
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(DataError, match=r"bad.parquet: no Parquet file"):
        mbpp.load(str(tmp_path / "bad.parquet"))
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(DataError, match=r"bad.json: holds dict, not a list"):
        mbpp.load(str(tmp_path / "bad.json"))


def test_json_and_parquet_give_the_same_problems(tmp_path: Path) -> None:
    import polars

    rows = [row(), row(task_id=602, challenge_test_list=["assert f(7) == 8"])]
    lines = mbpp.load(write(tmp_path / "a.jsonl", *rows))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    polars.DataFrame(rows, schema_overrides={"challenge_test_list": polars.List(polars.String)}).write_parquet(
        tmp_path / "a.parquet"
    )
    assert mbpp.load(str(tmp_path / "a.json")) == lines
    assert mbpp.load(str(tmp_path / "a.parquet")) == lines


def test_offline_the_hub_gives_one_clear_line(tmp_path: Path) -> None:
    import os
    import subprocess
    import sys

    code = (
        "from recontext_data.environments import mbpp\nfrom recontext_data.core.errors import DataError\n"
        "try: mbpp.load('google-research-datasets/mbpp')\nexcept DataError as error: print(error)"
    )
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], env=offline, cwd=root, capture_output=True, text=True, check=True)
    [line] = done.stdout.splitlines()
    assert line.startswith("google-research-datasets/mbpp: not available from the Hub (")
    assert line.endswith("connect, unset HF_HUB_OFFLINE, or give the path of a local copy")


PLUS = {
    "task_id": "Mbpp/601",
    "prompt": '"""\nAdd one to each.\n"""\n',
    "entry_point": "g",
    "canonical_solution": "\ndef g(xs, n):\n    return tuple(x + n for x in xs)\n",
    "base_input": [[[1, 2], 1]],
    "plus_input": [[[], 5], [[1, 2], 1], [[3], 2**70], [["a"], 1]],
    "assertion": "assert g((1, 2), 1) == (2, 3)\nassert g((4,), 1) == (5,)\n",
    "atol": 0.5,
}


def test_plus_replaces_the_wording_and_adds_what_its_solution_gives(tmp_path: Path, needs_sandbox: None) -> None:
    other = row(task_id=602)
    mbpp_path, plus_path = write(tmp_path / "m.jsonl", row(), other), write(tmp_path / "p.jsonl", PLUS)
    first, second = mbpp.load(mbpp_path, plus=plus_path)
    assert (first.statement, first.entry_point, first.tolerance) == ("Add one to each.", "g", 0.5)
    assert first.shown_tests() == ["assert g((1, 2), 1) == (2, 3)", "assert g((4,), 1) == (5,)"]
    # One input is there already, and one makes the solution raise.
    assert [test.assertion("g") for test in first.hidden_tests[2:]] == [
        "assert g((), 5) == ()",
        f"assert g((3,), {2**70}) == ({2**70 + 3},)",
    ]
    assert second == mbpp.load(write(tmp_path / "o.jsonl", other))[0]


def test_plus_keeps_what_stands_around_the_call(tmp_path: Path, needs_sandbox: None) -> None:
    plus = {**PLUS, "assertion": "assert set(g([1, 2], 1)) == set([3, 2])", "plus_input": [[[5, 5], 1]]}
    [problem] = mbpp.load(write(tmp_path / "m.jsonl", row()), plus=write(tmp_path / "p.jsonl", plus))
    assert [test.assertion("g") for test in problem.hidden_tests[1:]] == ["assert set(g([5, 5], 1)) == {6}"]


def test_the_hubs_copy_of_plus_has_its_inputs_as_source(tmp_path: Path, needs_sandbox: None) -> None:
    plus = {
        "task_id": 601,
        "prompt": "Add one to each.",
        "code": PLUS["canonical_solution"],
        "test_list": ["assert g((1, 2), 1) == (2, 3)"],
        "test": "import math\ninputs = [[(1, 2), 1], [(7,), 1], [(inf,), 1]]\nresults = [(2, 3)]\nfor i in inputs: pass",
    }
    [problem] = mbpp.load(write(tmp_path / "m.jsonl", row()), plus=write(tmp_path / "p.jsonl", plus))
    assert [test.assertion("g") for test in problem.hidden_tests] == [
        "assert g((1, 2), 1) == (2, 3)",
        "assert g((7,), 1) == (8,)",
    ]


@pytest.mark.parametrize(
    ("raw", "examples", "value"),
    [
        ([1, [2]], [(1, 2)], (1, (2,))),
        ([[1], [2]], [[(1,)], [(2, 3)]], [(1,), (2,)]),
        ([1, 1, 2], [{1}], {1, 2}),
        ([[], [3]], [[{1}, {}]], [{}, {3}]),
        ({"1": [2]}, [{1: (2,)}], {1: (2,)}),
        ({"a": [2]}, [{"b": [2]}], {"a": [2]}),
        ("(1+2j)", [3, 4j], 1 + 2j),
        ("1e-3", [3], 0.001),
        ("12", ["a"], "12"),
        ([1], [], [1]),
        (True, [1], True),
    ],
)
def test_inputs_get_the_types_back_that_json_lost(raw: Any, examples: list[Any], value: Any) -> None:
    assert values.decode(shaped(raw, [values.encode(example) for example in examples])) == value


def test_all_of_mbpp_loads_and_its_tests_read_as_python(shared: Path, needs_sandbox: None) -> None:
    problems = mbpp.load(str(shared / "data" / "mbpp.jsonl"))
    assert len(problems) == 974 and len({problem.problem_id for problem in problems}) == 974
    splits = [problem.split for problem in problems]
    assert [splits.count(name) for name in ("prompt", "test", "validation", "train")] == [10, 500, 90, 374]
    without_arguments = {problem.problem_id for problem in problems if any(test.call for test in problem.public_tests)}
    assert without_arguments == {"mbpp/367", "mbpp/533", "mbpp/601", "mbpp/912", "mbpp/927"}
    for problem in problems:
        assert "\r" not in problem.reference + problem.setup + problem.statement
        for line in problem.shown_tests():
            asserts.parse(line)
