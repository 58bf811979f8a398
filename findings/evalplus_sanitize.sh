#!/usr/bin/env bash
# Package:  evalplus 0.3.1
# Expected: evalplus.sanitize takes a completion down to the code that the entry point needs, and a right solution stays right.
# Actual:   it keeps imports, undecorated classes, undecorated functions with a `return` in them and the first assignment to one name. Anything
#           else at the top level goes, needed or not: an entry point under @lru_cache (nothing of it is left), a @dataclass, a table
#           filled by a loop, `A, B = 2, 0`, a helper that returns nothing. Of two definitions of the entry point the first is kept, so a
#           corrected one is lost. Of several code blocks the longest that parses wins, so a usage example longer than the solution replaces
#           it, although the entry point was named.
# Why met:  evalplus's own generation sanitises by default, and its README asks for it before evaluating; all of these are ordinary in answers
#           of chat models. They count as failures of the model.
# Seen on 2026-12-01, square(3) before and after:
#   cached entry point       9 -> KeyError: 'square'
#   dataclass                9 -> NameError: name 'P' is not defined
#   table filled by a loop   9 -> KeyError: 3
#   two names assigned       9 -> NameError: name 'A' is not defined
#   helper without return    9 -> NameError: name 'fill' is not defined
#   corrected below          9 -> 6
#   plain helper             9 -> 9
#   answer with an example: the example alone is left: True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q evalplus==0.3.1
cd "$work"
export HF_HUB_OFFLINE=1
cat > program.py <<'PY'
from evalplus.sanitize import sanitize

SOLUTIONS = {
    "cached entry point": (
        "from functools import lru_cache\n\n@lru_cache(None)\ndef square(x):\n    return x * x\n",
        "KeyError: 'square'",
    ),
    "dataclass": (
        "from dataclasses import dataclass\n\n@dataclass\nclass P:\n    v: int\n\ndef square(x):\n    return P(x).v ** 2\n",
        "NameError: name 'P' is not defined",
    ),
    "table filled by a loop": (
        "TABLE = {}\nfor i in range(100):\n    TABLE[i] = i * i\n\ndef square(x):\n    return TABLE[x]\n",
        "KeyError: 3",
    ),
    "two names assigned": (
        "A, B = 2, 0\n\ndef square(x):\n    return x**A + B\n",
        "NameError: name 'A' is not defined",
    ),
    "helper without return": (
        "def fill(found, x):\n    found.append(x * x)\n\ndef square(x):\n    found = []\n    fill(found, x)\n    return found[0]\n",
        "NameError: name 'fill' is not defined",
    ),
    "corrected below": (
        "def square(x):\n    return x + x\n\n# That doubles. Corrected:\ndef square(x):\n    return x * x\n",
        6,
    ),
    "plain helper": ("def times(a, b):\n    return a * b\n\ndef square(x):\n    return times(x, x)\n", 9),
}


def result(code):
    names = {"__name__": "solution"}
    try:
        exec(code, names)  # only the snippets above
        return names["square"](3)
    except (KeyError, NameError) as error:
        return f"{type(error).__name__}: {error}"


for name, (code, described) in SOLUTIONS.items():
    before, after = result(code), result(sanitize(code, entrypoint="square"))
    print(f"{name:24} {before} -> {after}")
    assert before == 9 and after == described

example = "for x in (1, 2, 3):\n    print(x)\n    print(square(x))\n    print(square(-x))"
answer = f"Sure:\n```python\ndef square(x):\n    return x * x\n```\nYou can try it:\n```python\n{example}\n```\n"
left = sanitize(answer, entrypoint="square")
print("answer with an example: the example alone is left:", left.strip() == example)
assert left.strip() == example
PY
"$work/venv/bin/python" program.py
echo "as described"
