"""Statistics computed by SciPy, statsmodels and scikit-learn, for tests/it/stats.rs.

    pip install numpy scipy statsmodels scikit-learn
    python tests/oracle/stats.py > tests/fixtures/stats.json
"""

import json
from collections import Counter
from fractions import Fraction
from math import comb

import numpy as np
from scipy import stats
from scipy.optimize import brentq
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint, proportions_ztest

rng = np.random.default_rng(20)


def pass_at_k():
    cases = [(n, c, k) for n in (1, 4, 8, 64, 200) for c in {0, 1, n // 3, n - 1, n} for k in (1, 2, 8, 64) if k <= n]
    return [[n, c, k, float(1 - Fraction(comb(n - c, k), comb(n, k)))] for n, c, k in sorted(cases)]


def majority():
    """The most frequent answer, the first one in a tie; Counter keeps the order of first appearance."""
    cases = []
    for size in (1, 2, 5, 16, 64):
        for _ in range(6):
            answers = [int(a) if a else None for a in rng.integers(0, 5, size)]
            votes = Counter(a for a in answers if a is not None).most_common(1)
            cases.append([answers, votes[0][0] if votes else None])
    return cases


def wilson():
    cases = [(0, 30), (4, 30), (30, 30), (37, 83), (48, 198), (356, 500), (1187, 1319), (1, 2), (0, 1)]
    return [
        [c, n, level, *map(float, proportion_confint(c, n, alpha=1 - level, method="wilson"))]
        for c, n in cases
        for level in (0.8, 0.95, 0.999)
    ]


def mcnemar_exact():
    cases = [(0, 0), (0, 6), (1, 7), (12, 25), (13, 26), (40, 40), (3, 70), (200, 260)]
    return [[b, c, float(mcnemar([[10, b], [c, 10]], exact=True).pvalue)] for b, c in cases]


def normal():
    return [[z, float(stats.norm.cdf(z))] for z in (-37.0, -8.0, -3.0001, -2.9999, -1.0, -0.01, 0.0, 0.5, 2.0, 4.0, 9.0)]


def student():
    dfs = [1, 2, 3, 4, 9, 29, 82, 197, 499, 1318, 100_000]
    cdf = [[t, df, float(stats.t.cdf(t, df))] for df in dfs for t in (-60.0, -4.3, -2.0, -0.3, 0.0, 1e-3, 1.0, 3.2, 9.0)]
    levels = (1e-6, 5e-4, 0.01, 0.025, 0.3, 0.5, 0.75, 0.975, 0.9995)
    return {"cdf": cdf, "quantile": [[p, df, float(stats.t.ppf(p, df))] for df in dfs for p in levels]}


def holm():
    families = [[0.01, 0.04, 0.03, 0.005], [0.5], [0.2, 0.2, 0.2], rng.beta(0.3, 2.0, 30).tolist()]
    return [[p, multipletests(p, method="holm")[1].tolist()] for p in families]


def kappa():
    cases = []
    for size, classes, noise in ((20, 2, 0.2), (300, 5, 0.4), (100, 3, 1.0)):
        first = rng.integers(0, classes, size)
        second = np.where(rng.random(size) < noise, rng.integers(0, classes, size), first)
        first, second = (first == 0).astype(int), (second == 0).astype(int)
        cases.append([first.tolist(), second.tolist(), float(cohen_kappa_score(first, second))])
    return cases


def power():
    test = TTestPower()
    cases = [(e, n, a) for e in (0.1, 0.5, 1.0, 2.5) for n in (2, 3, 5, 10, 30, 198) for a in (0.05, 0.005)]
    powers = [[e, n, a, float(test.power(e, n, a, alternative="two-sided"))] for e, n, a in cases if e * n**0.5 < 6]

    def detectable(n, alpha):
        """statsmodels' solver stops at about 1e-8. In the far tail, SciPy's noncentral t is NaN where it should be zero."""
        critical = stats.t.ppf(1 - alpha / 2, n - 1)
        tail = lambda shift: np.nan_to_num(stats.nct.sf(critical, n - 1, shift))
        near = critical + 0.84
        shift = brentq(lambda shift: tail(shift) + tail(-shift) - 0.8, 0.7 * near, 1.4 * near, xtol=1e-13, rtol=1e-13)
        return shift / n**0.5

    solved = [[n, a, detectable(n, a)] for n in (3, 5, 10, 30, 83, 198, 500) for a in (0.05, 0.01)]
    return {"power": powers, "detectable": solved}


def paired_t():
    cases = []
    for size in (2, 3, 5, 9):
        differences = rng.normal(0.02, 0.03, size)
        test = stats.ttest_1samp(differences, 0.0)
        low, high = test.confidence_interval(0.95)
        cases.append([differences.tolist(), float(low), float(high), float(test.pvalue)])
    return cases


def sign_flip():
    """All 4,096 sign flips."""
    cases = []
    for shift in (0.0, 0.05, 0.12):
        differences = rng.normal(shift, 0.15, 12)
        test = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
        cases.append([differences.tolist(), float(test.pvalue)])
    return cases


def unpaired():
    cases = [(4, 30, 6, 30), (31, 83, 36, 83), (48, 198, 61, 198), (278, 500, 366, 500), (119, 164, 0, 164), (3, 7, 9, 11)]
    out = []
    for c1, n1, c2, n2 in cases:
        low, high = confint_proportions_2indep(c2, n2, c1, n1, method="newcomb", compare="diff")
        out.append([c1, n1, c2, n2, float(low), float(high), float(proportions_ztest([c1, c2], [n1, n2])[1])])
    return out


tables = [pass_at_k, majority, wilson, mcnemar_exact, normal, student, holm, kappa, power, paired_t, sign_flip, unpaired]
lines = [f"{json.dumps(table.__name__)}: {json.dumps(table())}" for table in tables]
print("{\n" + ",\n".join(lines) + "\n}")
