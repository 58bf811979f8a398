#!/usr/bin/env bash
# Packages: krippendorff 0.9.0, simpledorff 0.0.2, crowd-kit 1.4.2, irrCAC 0.4.4, scikit-learn 1.9.1, statsmodels 0.15.0
# Expected: two judges who agree on all eight answers, all "1", get the same agreement from every package: 1, or undefined.
# Actual:   four answers for the same eight pairs: an error of one of two types, NaN, or a perfect 1.0; and the measures called Krippendorff's alpha
#           give three of them (ValueError, ZeroDivisionError twice, 1.0). Turn one of the sixteen labels and everybody answers: 0 or a little below
#           from the alphas and kappas, .86 and .75 from Gwet's AC1 and Brennan-Prediger, which is nearly what they said before.
# Why met:  after a fix the misbehaviour is gone, so every label is "fine": the dashboard shows NaN, stops, or shows 1.0 depending on the package,
#           and one stray label takes crowd-kit's alpha from 1.0 to 0.0.
# Seen on 2026-12-01:
#                              all sixteen labels 1           one of them 0
#   krippendorff               ValueError                     0.0
#   simpledorff                ZeroDivisionError              0.0
#   crowd-kit                  1.0                            0.0
#   irrCAC krippendorff        ZeroDivisionError              0.0
#   irrCAC fleiss              ZeroDivisionError              -0.067
#   irrCAC conger              nan                            0.0
#   irrCAC gwet                1.0                            0.858
#   irrCAC bp                  1.0                            0.75
#   scikit-learn kappa         nan                            0.0
#   statsmodels kappa          nan                            0.0
#   statsmodels fleiss         nan                            -0.067
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q krippendorff==0.9.0 simpledorff==0.0.2 crowd-kit==1.4.2 irrCAC==0.4.4 scikit-learn==1.9.1 statsmodels==0.15.0
cd "$work"
cat > program.py <<'PY'
import warnings

import krippendorff
import numpy as np
import pandas as pd
import simpledorff
from crowdkit.metrics.data import alpha_krippendorff
from irrCAC.raw import CAC
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import aggregate_raters, cohens_kappa, fleiss_kappa, to_table

warnings.simplefilter("ignore")
ALL_ONE = np.ones((8, 2), int)
ONE_OFF = ALL_ONE.copy()
ONE_OFF[7, 1] = 0


def long(labels):
    return pd.DataFrame([(f"task {t}", f"judge {j}", label) for (t, j), label in np.ndenumerate(labels)], columns=["task", "worker", "label"])


def coefficient(name):
    return lambda labels: getattr(CAC(pd.DataFrame(labels)), name)()["est"]["coefficient_value"]


def by_simpledorff(labels):
    columns = {"experiment_col": "task", "annotator_col": "worker", "class_col": "label"}
    return simpledorff.calculate_krippendorffs_alpha_for_df(long(labels), **columns)


VALUE, ZERO = "ValueError", "ZeroDivisionError"
ways = {
    "krippendorff": (lambda x: krippendorff.alpha(x.T, level_of_measurement="nominal"), VALUE, 0),
    "simpledorff": (by_simpledorff, ZERO, 0),
    "crowd-kit": (lambda x: alpha_krippendorff(long(x)), 1, 0),
    "irrCAC krippendorff": (coefficient("krippendorff"), ZERO, 0),
    "irrCAC fleiss": (coefficient("fleiss"), ZERO, -1 / 15),
    "irrCAC conger": (coefficient("conger"), np.nan, 0),
    "irrCAC gwet": (coefficient("gwet"), 1, 0.858),
    "irrCAC bp": (coefficient("bp"), 1, 0.75),
    "scikit-learn kappa": (lambda x: cohen_kappa_score(x[:, 0], x[:, 1]), np.nan, 0),
    "statsmodels kappa": (lambda x: cohens_kappa(to_table(x)[0]).kappa, np.nan, 0),
    "statsmodels fleiss": (lambda x: fleiss_kappa(aggregate_raters(x)[0]), np.nan, -1 / 15),
}


def outcome(measure, labels):
    try:
        return round(float(measure(labels)), 3) + 0.0
    except (ValueError, ZeroDivisionError) as error:
        return type(error).__name__


print(f"{'':26} {'all sixteen labels 1':30} one of them 0")
for name, (measure, *described) in ways.items():
    seen = outcome(measure, ALL_ONE), outcome(measure, ONE_OFF)
    print(f"{name:26} {seen[0]!s:30} {seen[1]}")
    for was, due in zip(seen, described):
        assert was == due if isinstance(due, str) else np.isclose(was, due, atol=1e-3, equal_nan=True), (name, was, due)
PY
"$work/venv/bin/python" program.py
echo "as described"
