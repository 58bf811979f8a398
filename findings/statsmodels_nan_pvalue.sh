#!/usr/bin/env bash
# Packages: statsmodels 0.15.0, pingouin 0.6.1, scipy 1.17.1
# Expected: a p-value that could not be computed (NaN) is left aside, or spreads to every result, or is refused.
# Actual:   four answers. statsmodels' multipletests counts the NaN as a test in bonferroni, sidak and holm (.01 of three becomes .04, not .03).
#           In its step-up methods every adjusted p-value turns NaN while `reject` goes on without them: fdr_bh rejects one of the three
#           that it rejects without the NaN, fdr_tsbh all three, hommel and fdr_gbs none, and no warning is given. pingouin leaves the NaN aside,
#           scipy's false_discovery_control raises.
# Why met:  a table of arms and contexts has a cell without variance (0 of 40 against 0 of 40) whose z-test is NaN; code that reads only
#           `reject` then reports other findings than the same table without that cell.
# Seen on 2026-12-01, p-values .01, .03, .04, adjusted, without and with a NaN among them:
#   bonferroni   [0.03, 0.09, 0.12] [0.04, 0.12, nan, 0.16] rejects 1 and 1
#   holm         [0.03, 0.06, 0.06] [0.04, 0.09, nan, 0.09] rejects 1 and 1
#   hommel       [0.03, 0.04, 0.04] [nan, nan, nan, nan] rejects 3 and 0
#   fdr_bh       [0.03, 0.04, 0.04] [nan, nan, nan, nan] rejects 3 and 1
#   fdr_tsbh     [0.03, 0.04, 0.04] [nan, nan, nan, nan] rejects 3 and 3
#   fdr_gbs      [0.0303, 0.0309, 0.0309] [nan, nan, nan, nan] rejects 3 and 0
#   pingouin holm, fdr_bh: [0.03, 0.06, nan, 0.06] [0.03, 0.04, nan, 0.04]
#   scipy: `ps` must include only numbers between 0 and 1.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q statsmodels==0.15.0 pingouin==0.6.1 scipy==1.17.1
cd "$work"
cat > program.py <<'PY'
import warnings

import numpy as np
import pingouin
from scipy.stats import false_discovery_control
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportions_ztest

WHOLE, HOLED = [0.01, 0.03, 0.04], [0.01, 0.03, float("nan"), 0.04]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    assert np.isnan(proportions_ztest([0, 0], [40, 40])[1])  # where such a NaN comes from
warnings.simplefilter("error")

AS_A_TEST, NOTHING = "the NaN counts as a test", "every adjusted value is NaN"
methods = {
    "bonferroni": (AS_A_TEST, 1, 1),
    "holm": (AS_A_TEST, 1, 1),
    "hommel": (NOTHING, 3, 0),
    "fdr_bh": (NOTHING, 3, 1),
    "fdr_tsbh": (NOTHING, 3, 3),
    "fdr_gbs": (NOTHING, 3, 0),
}
for method, (what, without, with_nan) in methods.items():
    whole_rejects, whole = multipletests(WHOLE, method=method)[:2]
    rejects, holed = multipletests(HOLED, method=method)[:2]
    counts = int(whole_rejects.sum()), int(rejects.sum())
    print(f"{method:12} {whole.round(4).tolist()} {holed.round(4).tolist()} rejects {counts[0]} and {counts[1]}")
    assert counts == (without, with_nan)
    expected = multipletests([0.01, 0.03, 1.0, 0.04], method=method)[1] if what == AS_A_TEST else np.full(4, np.nan)
    assert np.allclose(np.delete(holed, 2), np.delete(expected, 2), equal_nan=True) and np.isnan(holed[2])

for method in ("holm", "fdr_bh"):
    aside = pingouin.multicomp(HOLED, method=method)[1]
    assert np.allclose(np.delete(aside, 2), multipletests(WHOLE, method=method)[1])
print("pingouin holm, fdr_bh:", *(pingouin.multicomp(HOLED, method=m)[1].round(4).tolist() for m in ("holm", "fdr_bh")))
try:
    false_discovery_control(HOLED)
except ValueError as error:
    print("scipy:", error)
else:
    raise SystemExit("scipy no longer refuses a NaN")
PY
"$work/venv/bin/python" program.py
echo "as described"
