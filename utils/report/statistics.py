"""Is one method better than another? Pure functions of scores paired by seed.

A seed decides initialisation, order of the data and order of the classes for every method alike, so that scores of one
seed are a pair, and what is tested is the mean of their differences. scipy is imported when a test is made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

LEVEL = 0.05
"""Probability of error that a significant difference is allowed, two-sided."""
FEWEST_FOR_T = 5
"""Pairs below which no t-test is made. Accuracies are shares of few images, so that three differences are equal now and
then, by chance, and p is next to 0."""
DIGITS = 12
"""Decimals that count; further ones are rounding errors, which would break ties and make equal differences vary."""


@dataclass(frozen=True)
class Paired:
    """The best against another, on the seeds that both have. None where it is undefined or too few seeds are there."""

    seeds: int
    """number of pairs n"""
    difference: float | None
    """mean of best - other"""
    ci95: float | None
    """half-width of the 95% confidence interval of the mean difference (Student's t)"""
    effect: float | None
    """d_z = mean / standard deviation of the differences. Cohen, Statistical Power Analysis, 1988, eq. 2.3.5"""
    t: float | None
    """p-value of the paired t-test, two-sided"""
    wilcoxon: float | None
    """p-value of the Wilcoxon signed-rank test, two-sided; pairs without a difference are left out"""
    t_holm: float | None = None
    """p-value of the t-test, corrected for the number of comparisons"""
    wilcoxon_holm: float | None = None
    """the same of the Wilcoxon test"""

    @property
    def significant(self) -> bool:
        """By the corrected t-test: it is the one that can tell with five seeds."""
        return self.t_holm is not None and self.t_holm < LEVEL

    @property
    def verdict(self) -> str:
        """What the best is beside the other, in a word or two."""
        if self.t is None:
            return "not tested"
        if not self.significant:
            return "not told apart"
        return "better" if self.difference > 0 else "worse"


def paired(best: Sequence[float], other: Sequence[float]) -> Paired:
    """Compare scores (n,) of the same seeds in the same order; not corrected for several comparisons."""
    from scipy import stats

    differences = np.round(np.asarray(best, dtype=float) - np.asarray(other, dtype=float), DIGITS)
    n, mean = len(differences), float(differences.mean()) if len(differences) else None
    changes = differences[differences != 0]
    if n < 2:
        return Paired(n, mean, ci95=None, effect=None, t=None, wilcoxon=None)
    wilcoxon = float(stats.wilcoxon(changes).pvalue) if len(changes) else 1.0
    if np.ptp(differences) == 0:  # t would be 0 / 0, or infinite
        t = 1.0 if mean == 0 and n >= FEWEST_FOR_T else None
        return Paired(n, mean, ci95=0.0, effect=None, t=t, wilcoxon=wilcoxon)
    std = float(differences.std(ddof=1))
    t = float(stats.ttest_1samp(differences, 0).pvalue) if n >= FEWEST_FOR_T else None
    ci95 = float(stats.t.ppf(0.975, n - 1) * std / np.sqrt(n))
    return Paired(n, mean, ci95, effect=mean / std, t=t, wilcoxon=wilcoxon)


def against_best(best: Mapping[int, float], others: Sequence[Mapping[int, float]]) -> list[Paired]:
    """Compare the best with each of the others, all of them seed -> score; Holm-corrected over them.

    That the best was chosen on these same scores is not corrected for: read a p-value near the level with care.
    """
    tests = []
    for other in others:
        shared = sorted(best.keys() & other.keys())
        tests.append(paired([best[seed] for seed in shared], [other[seed] for seed in shared]))
    t, wilcoxon = holm([test.t for test in tests]), holm([test.wilcoxon for test in tests])
    return [replace(test, t_holm=p, wilcoxon_holm=q) for test, p, q in zip(tests, t, wilcoxon, strict=True)]


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction: the i-th smallest of m p-values (i from 0) times m - i, made monotone, at most 1.

    Holm, Scandinavian Journal of Statistics 6, 1979. What is None was not tested, and stays None.
    """
    corrected: list[float | None] = [None] * len(p_values)
    order = sorted((i for i, p in enumerate(p_values) if p is not None), key=lambda i: p_values[i])
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def least_wilcoxon(n: int) -> float:
    """The smallest two-sided p-value that n pairs can have: all n differences of one sign, 2 of 2^n ways."""
    return min(1.0, 2.0 ** (1 - n))


def seeds_for_wilcoxon(comparisons: int) -> int:
    """How many seeds it takes for a Wilcoxon test to be significant after Holm, if it is the clearest of several."""
    n = 2
    while comparisons * least_wilcoxon(n) >= LEVEL:
        n += 1
    return n


def normalised(score: float, naive: float, joint: float) -> float | None:
    """(score - naive) / (joint - naive): 0 is fine-tuning, 1 training on everything; None if joint is not better."""
    return (score - naive) / (joint - naive) if joint > naive else None
