"""The paired tests against scipy on the same numbers; Holm and the normalised score by hand."""

import numpy as np
import pytest
from scipy import stats

from utils.report import statistics

BEST, OTHER = [0.91, 0.93, 0.95, 0.90, 0.97, 0.94, 0.92, 0.96], [0.88, 0.935, 0.91, 0.88, 0.92, 0.93, 0.89, 0.90]


def test_paired_tests_are_scipy_s():
    ours = statistics.paired(BEST, OTHER)
    t = stats.ttest_rel(BEST, OTHER)
    interval = t.confidence_interval(0.95)
    assert ours.seeds == 8
    assert ours.t == pytest.approx(t.pvalue)
    assert ours.wilcoxon == pytest.approx(stats.wilcoxon(BEST, OTHER).pvalue)
    assert (ours.difference - ours.ci95, ours.difference + ours.ci95) == pytest.approx(tuple(interval))
    assert ours.effect == pytest.approx(t.statistic / np.sqrt(8))  # t = d_z * sqrt(n)


def test_paired_tests_by_hand():
    """Differences 1, 2, 3, 4, 5: mean 3, variance 2.5; t = 3 / sqrt(2.5 / 5) = sqrt(18)."""
    ours = statistics.paired([3.0, 5.0, 7.0, 9.0, 11.0], [2.0, 3.0, 4.0, 5.0, 6.0])
    assert ours.difference == pytest.approx(3.0) and ours.effect == pytest.approx(3 / np.sqrt(2.5))
    assert ours.t == pytest.approx(2 * stats.t.sf(np.sqrt(18), 4))
    assert ours.wilcoxon == pytest.approx(0.0625)  # all of one sign: 2 of the 32 ways


@pytest.mark.parametrize(
    ("best", "other", "t", "wilcoxon"),
    [
        ([0.9], [0.8], None, None),
        ([0.9, 0.95, 0.9, 0.93], [0.8, 0.7, 0.6, 0.5], None, 0.125),  # too few for t
        ([0.9, 0.8, 0.7, 0.6, 0.5], [0.9, 0.8, 0.7, 0.6, 0.5], 1.0, 1.0),  # no difference
        ([0.9, 0.8, 0.7, 0.6, 0.5], [0.8, 0.7, 0.6, 0.5, 0.4], None, 0.0625),  # equal but for rounding: t is infinite
    ],
)
def test_what_is_undefined_is_none(best, other, t, wilcoxon):
    ours = statistics.paired(best, other)
    assert ours.t == t and ours.wilcoxon == (wilcoxon and pytest.approx(wilcoxon))
    assert ours.verdict == "not tested"


def test_pairs_without_a_difference_are_left_out_of_wilcoxon():
    assert statistics.paired([*BEST, 0.5], [*OTHER, 0.5]).wilcoxon == statistics.paired(BEST, OTHER).wilcoxon


def test_holm_by_hand():
    """Four p-values in disorder: 0.005 * 4, 0.01 * 3, 0.03 * 2, then 0.04 * 1, which may not be below 0.06."""
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.6, None, 0.7]) == [1.0, None, 1.0]  # two tests, not three; never above 1
    assert statistics.holm([]) == []


def test_pairs_are_made_by_seed():
    best = {0: 0.9, 1: 0.8, 2: 0.7, 3: 0.9, 4: 0.8, 5: 0.1}
    other = {2: 0.6, 0: 0.7, 1: 0.5, 4: 0.7, 3: 0.6, 9: 1.0}
    one, none = statistics.against_best(best, [other, {7: 0.5}])
    assert one.seeds == 5 and one.difference == pytest.approx((0.2 + 0.3 + 0.1 + 0.3 + 0.1) / 5)
    assert none.seeds == 0 and none.difference is None and none.t_holm is None and none.verdict == "not tested"
    assert one.t is not None and one.t_holm == one.t  # the other was not tested: no correction for it
    assert one.verdict == "better" and statistics.against_best(other, [best])[0].verdict == "worse"


def test_wilcoxon_needs_six_seeds_for_one_comparison_and_eight_for_five():
    for comparisons, needed in ((1, 6), (5, 8)):
        assert statistics.seeds_for_wilcoxon(comparisons) == needed
        clear, unclear = (stats.wilcoxon(range(1, n + 1)).pvalue * comparisons for n in (needed, needed - 1))
        assert clear < statistics.LEVEL <= unclear


@pytest.mark.parametrize(("pairs", "comparisons"), [(10, 1), (5, 9)])
def test_the_detectable_effect_is_found_in_four_of_five_draws(pairs, comparisons):
    effect = statistics.detectable(pairs, comparisons)
    draws = np.random.default_rng(0).normal(effect, 1, (20_000, pairs))
    found = stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05 / comparisons
    assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_there_is_no_normalised_score_where_joint_is_hardly_above_naive():
    assert statistics.normalised({0: 0.9}, {0: 0.700}, {0: 0.709}) is None
    assert statistics.normalised({0: 0.9}, {0: 0.700}, {0: 0.711}) == pytest.approx(0.2 / 0.011)


def test_the_normalised_score_by_hand():
    naive, joint = {0: 0.5, 1: 0.7, 2: 0.0}, {0: 1.0, 1: 1.0}
    assert statistics.normalised({0: 0.85, 1: 0.95}, naive, joint) == pytest.approx((0.9 - 0.6) / (1.0 - 0.6))
    assert statistics.normalised({1: 0.5, 2: 1.0}, naive, joint) == pytest.approx((0.5 - 0.7) / (1.0 - 0.7))
    assert (
        statistics.normalised({0: 0.9}, naive, naive) is None and statistics.normalised({3: 0.9}, naive, joint) is None
    )
