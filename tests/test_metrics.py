"""Scores against matrices worked out by hand."""

import numpy as np
import pytest
from scipy import stats

from utils.store import metrics

R = np.array([[0.9, 0.5, 0.4], [0.7, 0.8, 0.6], [0.6, 0.9, 1.0]])
INITIAL = np.array([0.5, 0.3, 0.2])


def test_scores_of_three_tasks():
    assert metrics.final_accuracy(R) == pytest.approx((0.6 + 0.9 + 1.0) / 3)
    assert metrics.bwt(R) == pytest.approx(((0.6 - 0.9) + (0.9 - 0.8)) / 2)
    assert metrics.fwt(R, INITIAL) == pytest.approx(((0.5 - 0.3) + (0.6 - 0.2)) / 2)
    assert metrics.forgetting(R) == pytest.approx(((0.9 - 0.6) + (0.8 - 0.9)) / 2)
    assert metrics.total_accuracy(R) == pytest.approx((0.9 + 0.7 + 0.8 + 0.6 + 0.9 + 1.0) / 6)
    assert metrics.backward_transfer(R) == pytest.approx(((0.7 - 0.9) + (0.6 - 0.9) + (0.9 - 0.8)) / 3)
    assert metrics.last_backward_transfer(R) == pytest.approx(((0.6 - 0.9) + (0.9 - 0.8) + 0) / 3)


def test_forgetting_looks_at_the_tasks_before_the_last_only():
    r = np.array([[0.2, 0.9], [0.4, 1.0]])
    assert metrics.forgetting(r) == pytest.approx(0.2 - 0.4)


def test_a_single_task_leaves_transfer_undefined():
    one = np.array([[0.9]])
    assert metrics.final_accuracy(one) == metrics.total_accuracy(one) == 0.9
    for score in (metrics.bwt, metrics.forgetting, metrics.backward_transfer, metrics.last_backward_transfer):
        assert score(one) is None
    assert metrics.fwt(one, INITIAL[:1]) is None


def test_macro_f1():
    confusion = np.array([[8, 2, 0], [4, 6, 0], [0, 0, 0]])  # the third class does not occur
    first, second = 2 * 8 / (10 + 12), 2 * 6 / (10 + 8)
    assert metrics.f1(confusion) == pytest.approx((first + second) / 2)


def test_summary_over_seeds():
    values = [0.9, 0.8, 0.85]
    summary = metrics.summary(values)
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert summary["mean"] == pytest.approx(np.mean(values))
    assert summary["std"] == pytest.approx(np.std(values, ddof=1))
    assert summary["ci95"] == pytest.approx((high - low) / 2)
    assert summary["values"] == values
    assert metrics.summary([0.9]) == {"mean": 0.9, "std": None, "ci95": None, "values": [0.9]}
    assert metrics.summary([None, None])["mean"] is None
