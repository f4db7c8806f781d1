"""Paired tests between methods, pure functions of scores. scipy is imported by the first test.

Scores of one seed form a pair, because the seed sets initialisation, data order and class order for every method alike.
"""

from collections.abc import Mapping, Sequence
from math import floor, log2
from typing import NamedTuple

import numpy as np

from utils.store.metrics import Summary, summary

LEVEL = 0.05  # significance level, two-sided
POWER = 0.8  # as usual (Cohen 1988)
MIN_GAP = 0.01  # of joint above naive, for a normalised score: less is noise that is divided by
MIN_PAIRS_FOR_T = 5  # with fewer pairs, discrete accuracies can tie by chance, and p collapses to 0
DIGITS = 12  # decimals to round differences to; rounding errors would break ties and make equal differences vary


class Paired(NamedTuple):
    """The best against another run, on the seeds that both have. None where undefined or with too few seeds.

    `difference` is the mean of best - other, `ci95` the half-width of its 95% confidence interval (Student's t),
    `effect` d_z = mean / standard deviation of the differences (Cohen, Statistical Power Analysis, 1988, eq. 2.3.5).
    The p-values are two-sided; Wilcoxon's signed-rank test drops pairs without a difference.
    """

    seeds: int
    difference: float | None = None
    ci95: float | None = None
    effect: float | None = None
    t: float | None = None
    wilcoxon: float | None = None
    t_holm: float | None = None
    wilcoxon_holm: float | None = None

    @property
    def spread(self) -> float | None:
        """Standard deviation of the differences."""
        return self.difference / self.effect if self.effect and self.difference is not None else None

    @property
    def verdict(self) -> str:
        """better, worse, not significant or not tested, by the corrected t-test: the Wilcoxon test needs more seeds."""
        if self.t_holm is None or self.difference is None:
            return "not tested"
        if self.t_holm >= LEVEL:
            return "not significant"
        return "better" if self.difference > 0 else "worse"


def paired(best: Sequence[float], other: Sequence[float]) -> Paired:
    """Compare scores (n,) of the same seeds in the same order; not corrected for several comparisons."""
    from scipy import stats

    differences = np.round(np.subtract(best, other), DIGITS)
    if (n := len(differences)) < 2:
        return Paired(n, *differences.tolist())
    mean, changes = float(differences.mean()), differences[differences != 0]
    wilcoxon = float(stats.wilcoxon(changes).pvalue) if len(changes) else 1.0
    if np.ptp(differences) == 0:  # t would be 0 / 0, or infinite
        return Paired(n, mean, ci95=0.0, t=None if mean or n < MIN_PAIRS_FOR_T else 1.0, wilcoxon=wilcoxon)
    test, effect = stats.ttest_1samp(differences, 0), mean / float(differences.std(ddof=1))
    t = float(test.pvalue) if n >= MIN_PAIRS_FOR_T else None
    return Paired(n, mean, float(test.confidence_interval(0.95).high - mean), effect, t, wilcoxon)


def against_best(best: Mapping[int, float], others: Sequence[Mapping[int, float]]) -> list[Paired]:
    """Test the best against each other run, all given as seed -> score; Holm-corrected over the tests.

    The choice of the best on the same scores is not corrected for: read p-values near the level with care.
    """
    shared = [sorted(best.keys() & other.keys()) for other in others]
    tests = [paired([best[i] for i in seeds], [o[i] for i in seeds]) for o, seeds in zip(others, shared, strict=True)]
    t, wilcoxon = holm([test.t for test in tests]), holm([test.wilcoxon for test in tests])
    return [test._replace(t_holm=p, wilcoxon_holm=q) for test, p, q in zip(tests, t, wilcoxon, strict=True)]


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction: the i-th smallest of m p-values (i from 0) times m - i, made monotone, at most 1.

    Holm, Scandinavian Journal of Statistics 6, 1979. None (not tested) stays None.
    """
    corrected: list[float | None] = [None] * len(p_values)
    tested = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    largest = 0.0
    for rank, (p, i) in enumerate(tested):
        corrected[i] = largest = max(largest, min(1.0, (len(tested) - rank) * p))
    return corrected


def detectable(pairs: int, comparisons: int) -> float:
    """The effect d_z that the paired t-test at LEVEL / comparisons, Holm's first step, finds with probability POWER."""
    from scipy import optimize, stats

    degrees = pairs - 1
    critical = stats.t.ppf(1 - LEVEL / comparisons / 2, degrees)

    def excess(effect: float) -> float:
        return float(stats.nct.sf(critical, degrees, effect * pairs**0.5)) - POWER

    return float(optimize.brentq(excess, 0.0, 100.0))


def seeds_for_wilcoxon(comparisons: int) -> int:
    """Seeds n with which the smallest possible p of a Wilcoxon test, 2 / 2^n, is significant after Holm."""
    return floor(log2(comparisons / LEVEL)) + 2


def normalised(score: Mapping[int, float], naive: Mapping[int, float], joint: Mapping[int, float]) -> float | None:
    """(score - naive) / (joint - naive), means over the seeds that all have; None if joint is less than
    `MIN_GAP` above naive."""
    shared = score.keys() & naive.keys() & joint.keys()
    ours, low, high = (sum(scores[seed] for seed in shared) / max(len(shared), 1) for scores in (score, naive, joint))
    return (ours - low) / (high - low) if high - low >= MIN_GAP else None


def intransigence(ours: Mapping[int, np.ndarray], joint: Mapping[int, np.ndarray]) -> Summary:
    """Mean over tasks of joint's accuracy minus ours, right after training on each, over the seeds that both have.

    Given as seed -> accuracies (T,), where joint is trained on all tasks so far. Chaudhry et al., ECCV 2018, eq. 5.
    """
    shared = sorted(ours.keys() & joint.keys())
    return summary([float((joint[seed] - ours[seed]).mean()) for seed in shared])
