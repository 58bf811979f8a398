#!/usr/bin/env bash
# Packages: math-verify 0.9.0 (latex2sympy2_extended 1.11.0)
# Expected: numbers are read as Python, JSON and calculators print them: 1e-05 is 0.00001.
# Actual:   in plain text the exponent is cut off: 1e-05 is 1, 2.5e-3 is 2.5, 6.02e23 is 6.02. Between dollar signs e is Euler's number:
#           $2e-05$ and \boxed{2e-05} are 2e - 5 = .4366, $2.5e3$ is 2.5 * e * 3. A minus sign that is typographic (U+2212) makes an answer unreadable, [],
#           and "1,0000" loses a zero. No error and no log line: verify() says True for answers that are 100,000 times too large.
# Why met:  rewards and graders of maths answers are built on it (TRL's accuracy_reward, lighteval). Python prints every float below .0001 in this
#           form, so a model that computes is denied its right answers and, in plain text, paid for wrong ones; many write U+2212 in prose.
# Seen on 2026-12-01:
#   gold 1, answer 1e-05: True; gold 0.00001, answer 1e-05: False
#   gold 2, answer 2e10: True; gold 20000000000, answer 2e10: False
#   1e-05 -> 1, 2.5e-3 -> 2.5, 6.02e23 -> 6.02, 1,0000 -> 1000
#   $2e-05$ -> 0.43656, \boxed{2e-05} -> 0.43656, $2.5e3$ -> 20.38711
#   "The answer is \u22125." -> [], "The answer is -5." -> [-5, '-5']
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q math-verify==0.9.0 latex2sympy2_extended==1.11.0
cd "$work"
cat > program.py <<'PY'
import math

from math_verify import parse, verify


def graded(gold, answer):
    return verify(parse(gold), parse(f"The answer is {answer}"))


def read(answer):
    return float(parse(answer)[0])


for gold_wrong, gold_right, answer in (("1", "0.00001", "1e-05"), ("2", "20000000000", "2e10")):
    wrong, right = graded(gold_wrong, answer), graded(gold_right, answer)
    print(f"gold {gold_wrong}, answer {answer}: {wrong}; gold {gold_right}, answer {answer}: {right}")
    assert wrong is True and right is False
plain = {"1e-05": 1, "2.5e-3": 2.5, "6.02e23": 6.02, "1,0000": 1000}
print(", ".join(f"{answer} -> {read(answer):g}" for answer in plain))
assert {answer: read(answer) for answer in plain} == plain
latex = {"$2e-05$": 2 * math.e - 5, r"\boxed{2e-05}": 2 * math.e - 5, "$2.5e3$": 2.5 * math.e * 3}
print(", ".join(f"{answer} -> {read(answer):.5f}" for answer in latex))
assert all(abs(read(answer) - value) < 1e-9 for answer, value in latex.items())
minus, hyphen = parse("The answer is \u22125."), parse("The answer is -5.")
print(f'"The answer is \\u22125." -> {minus}, "The answer is -5." -> {hyphen}')
assert minus == [] and hyphen[0] == -5
# What is not lost: ordinary decimals, powers of ten in LaTeX, thousands.
assert graded("0.00001", "0.00001") and graded("0.00001", "$10^{-5}$") and graded("1000", "1,000")
PY
"$work/venv/bin/python" program.py
echo "as described"
