"""Scores against matrices worked out by hand."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from utils.store import metrics
from utils.store.files import read_pickle
from utils.store.metrics import Scored

R = np.array([[0.9, 0.5, 0.4], [0.7, 0.8, 0.6], [0.6, 0.9, 1.0]])
INITIAL = np.array([0.5, 0.3, 0.2])
THREE, ONE = Scored(R, INITIAL), Scored(np.array([[0.9]]), INITIAL[:1])


def test_scores_of_three_tasks():
    assert metrics.final_accuracy(THREE) == pytest.approx((0.6 + 0.9 + 1.0) / 3)
    assert metrics.bwt(THREE) == pytest.approx(((0.6 - 0.9) + (0.9 - 0.8)) / 2)
    assert metrics.fwt(metrics.Scored(THREE.r, np.zeros(0))) is None, "the class scenario has no initial accuracy"
    assert metrics.fwt(THREE) == pytest.approx(((0.5 - 0.3) + (0.6 - 0.2)) / 2)
    assert metrics.forgetting(THREE) == pytest.approx(((0.9 - 0.6) + (0.8 - 0.9)) / 2)
    assert metrics.total_accuracy(THREE) == pytest.approx((0.9 + 0.7 + 0.8 + 0.6 + 0.9 + 1.0) / 6)
    assert metrics.backward_transfer(THREE) == pytest.approx(((0.7 - 0.9) + (0.6 - 0.9) + (0.9 - 0.8)) / 3)
    assert metrics.last_backward_transfer(THREE) == pytest.approx(((0.6 - 0.9) + (0.9 - 0.8) + 0) / 3)


def test_forgetting_looks_at_the_tasks_before_the_last_only():
    r = np.array([[0.2, 0.9], [0.4, 1.0]])
    assert metrics.forgetting(Scored(r, np.zeros(2))) == pytest.approx(0.2 - 0.4)


def test_a_single_task_leaves_transfer_undefined():
    assert metrics.final_accuracy(ONE) == metrics.total_accuracy(ONE) == 0.9
    for score in (metrics.bwt, metrics.fwt, metrics.forgetting):
        assert score(ONE) is None
    assert metrics.backward_transfer(ONE) is metrics.last_backward_transfer(ONE) is None


def test_macro_f1():
    confusion = np.array([[8, 2, 0], [4, 6, 0], [0, 0, 0]])  # the third class does not occur
    first, second = 2 * 8 / (10 + 12), 2 * 6 / (10 + 8)
    assert metrics.f1(Scored(R, INITIAL, confusion)) == pytest.approx((first + second) / 2)
    assert metrics.f1(THREE) is None  # not known


def test_scores_after_a_task_are_those_of_the_tasks_so_far():
    split = {"accuracy_matrix": R.tolist(), "initial_accuracy": INITIAL.tolist()}
    two, three = metrics.scores(split, 2), metrics.scores(split, confusion=np.eye(6, dtype=int))
    assert (
        list(two)
        == list(three)
        == [
            *("FinalAccuracy", "BWT", "FWT", "Forgetting", "TotalAccuracy"),
            *("BackwardTransfer", "LastBackwardTransfer", "F1", "ImageAccuracy", "AverageIncrementalAccuracy"),
            *("Plasticity", "AAA", "ECE", "AUROC"),
        ]
    )
    assert not [
        three[name] for name in ("ImageAccuracy", "AverageIncrementalAccuracy", "AAA", "ECE", "AUROC") if three[name]
    ]
    assert two["F1"] is None and three["F1"] == 1
    assert two["FinalAccuracy"] == pytest.approx((0.7 + 0.8) / 2) and two["FWT"] == pytest.approx(0.5 - 0.3)


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


def test_a_number_that_rounds_to_zero_has_no_sign():
    assert metrics.plus_minus({"mean": -0.00001, "std": 0.00001}) == "0.0000 ± 0.0000"
    assert metrics.plus_minus({"mean": -0.0001, "std": None}) == "-0.0001"


def test_the_log_of_scores_has_seeds_units_and_classes(small, run, tmp_path):
    small["scenario"]["class_order"] = "shuffled"
    assert run(small, "--seeds", "0-1") == 0
    folder = tmp_path / "results"
    lines, score = (
        (folder / "final_score.log").read_text().splitlines(),
        json.loads((folder / "final_score.json").read_text()),
    )
    start = lines.index("test, by seed                       0        1")
    first = "".join(f"{value:>9.4f}" for value in score["test"]["FinalAccuracy"]["values"])
    assert lines[start + 1] == f"{'FinalAccuracy':28}{first}"
    assert re.search(r"^total_s +[\d.]+ ± [\d.]+ seconds$", "\n".join(lines), re.M)
    assert any(re.fullmatch(r"learner_parameters +[\d,]+ numbers", line) for line in lines)
    assert any(re.fullmatch(r"stored_real_samples +0 samples", line) for line in lines)
    for seed in (0, 1):
        run_of = read_pickle(folder / f"exp_{seed}" / "final_results.pkl")
        at = lines.index(f"classes of each task, seed {seed}")
        names = [", ".join(run_of["class_names"][c] for c in classes) for classes in run_of["tasks"]]
        assert lines[at + 1 : at + 1 + len(names)] == [f"{task:>6}  {text}" for task, text in enumerate(names)]


def test_the_score_of_contributing_appears_everywhere(small, run, tmp_path, monkeypatch):
    section = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text().partition("## A score\n")[2]
    monkeypatch.setattr(metrics, "SCORES", dict(metrics.SCORES))
    exec(re.search(r"```python\n(.*?)```", section, re.S).group(1), vars(metrics) | {})
    assert run(small, "--seeds", "0-1") == 0
    folder = tmp_path / "results"
    score = json.loads((folder / "final_score.json").read_text())["test"]
    r = np.array(score["accuracy_matrix"]["values"])
    assert score["WorstAccuracy"]["values"] == pytest.approx(r[:, -1].min(axis=1))
    assert list(score)[-1] == "WorstAccuracy" and score["WorstAccuracy"]["ci95"] is not None
    assert "\nWorstAccuracy  " in (folder / "final_score.log").read_text()
    rows = (folder / "exp_1" / "metrics.csv").read_text()
    assert f"naive,1,1,,,test,WorstAccuracy,{r[1, 1, :2].min()}\n" in rows
    assert "WorstAccuracy 0." in (folder / "exp_0" / "experiment.log").read_text()
