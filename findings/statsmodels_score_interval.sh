#!/usr/bin/env bash
# Package:  statsmodels 0.15.0 (with scipy 1.17.1)
# Expected: confint_proportions_2indep(..., method="score") is Miettinen and Nurminen's interval, and does not care which outcome is called
#           a success: counting failures and swapping the groups asks for the same difference.
# Actual:   it gives two different intervals for the one question, and for 5 of 20 against 5 of 20 neither is right. For 174 of the 441
#           pairs of counts out of 20 it raises "f(a) and f(b) must have different signs", everyday ones such as 8 against 3 among them. The
#           p-value at a difference other than 0 is off likewise; at 0 it is right. Newcombe's interval, the default, is not affected.
# Why met:  "score" is the textbook advice for two rates on few tasks, such as the hack rates of two models.
# Cause:    the null proportions come from a cubic whose linear term has a count where a sample size belongs, so they do not maximise the
#           likelihood (known upstream as issue 10269, open); below they are found by maximising it.
# Seen on 2026-12-01:
#   20 and 10 of 20: (0.236, 0.717), asked by failures (0.297, 0.703), right (0.297, 0.703)
#   20 and 5 of 20: (0.474, 0.891), asked by failures (0.528, 0.889), right (0.528, 0.889)
#   5 and 5 of 20: (-0.258, 0.267), asked by failures (-0.280, 0.278), right (-0.272, 0.272)
#   raises for 174 of 441 pairs of counts
#   p at the right lower end of 20 and 10: 0.136, where 0.050 is due
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q statsmodels==0.15.0 scipy==1.17.1
cd "$work"
cat > program.py <<'PY'
import math
import warnings

from scipy.optimize import brentq, minimize_scalar
from scipy.special import xlogy
from statsmodels.stats.proportion import confint_proportions_2indep, test_proportions_2indep

warnings.simplefilter("ignore")
N = 20


def score(x1, x2, difference):
    """The score statistic of p1 - p2 = difference, its null proportions found by maximising the likelihood, N of each."""

    def loss(p2):
        p1 = p2 + difference
        return -(xlogy(x1, p1) + xlogy(N - x1, 1 - p1) + xlogy(x2, p2) + xlogy(N - x2, 1 - p2))

    bounds = (max(0.0, -difference) + 1e-12, min(1.0, 1 - difference) - 1e-12)
    p2 = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-13}).x
    p1 = p2 + difference
    variance = (p1 * (1 - p1) + p2 * (1 - p2)) / N * (2 * N) / (2 * N - 1)
    return ((x1 - x2) / N - difference) / math.sqrt(variance)


def right(x1, x2, z=1.959963984540054):
    seen = (x1 - x2) / N
    low = brentq(lambda d: score(x1, x2, d) - z, -0.999999, seen - 1e-6)
    return low, brentq(lambda d: score(x1, x2, d) + z, seen + 1e-6, 0.999999)


def theirs(x1, x2, method="score"):
    return confint_proportions_2indep(x1, N, x2, N, method=method, compare="diff")


def show(interval):
    return "(" + ", ".join(f"{end:.3f}" for end in interval) + ")"


for x1, x2 in ((20, 10), (20, 5), (5, 5)):
    mirrored = theirs(N - x2, N - x1)  # failures for successes, groups swapped: the same difference
    print(f"{x1} and {x2} of {N}: {show(theirs(x1, x2))}, asked by failures {show(mirrored)}, right {show(right(x1, x2))}")
    assert max(abs(a - b) for a, b in zip(right(x1, x2), right(N - x2, N - x1))) < 1e-4
    assert max(abs(a - b) for a, b in zip(theirs(x1, x2, "newcomb"), theirs(N - x2, N - x1, "newcomb"))) < 1e-9
    assert max(abs(a - b) for a, b in zip(theirs(x1, x2), right(x1, x2))) > 0.01
raised = 0
for x1 in range(N + 1):
    for x2 in range(N + 1):
        try:
            theirs(x1, x2)
        except ValueError:
            raised += 1
print(f"raises for {raised} of {(N + 1) ** 2} pairs of counts")
assert raised > 50
at_low = test_proportions_2indep(20, N, 10, N, value=right(20, 10)[0], compare="diff", method="score").pvalue
print(f"p at the right lower end of 20 and 10: {at_low:.3f}, where 0.050 is due")
assert abs(at_low - 0.05) > 0.01
print(f"p at 0: {test_proportions_2indep(20, N, 10, N, value=0, method='score').pvalue:.6f}, right {math.erfc(abs(score(20, 10, 0)) / math.sqrt(2)):.6f}")
PY
"$work/venv/bin/python" program.py
echo "as described"
