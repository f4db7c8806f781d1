"""New scores by hand, from images and probabilities; which tasks and splits are evaluated; accuracy inside tasks."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
import torch
import yaml
from conftest import CPU, GROUPS, few_images, make_data, make_method, method_settings
from PIL import Image
from test_captured import StandIn
from test_compare import make_run
from test_live import events
from test_resume import After, begun, experiment
from test_verify import verify

from bench.kill import left_by
from datasets.data import Data, Split, Task
from datasets.tasks import split_by_class
from main import main
from methods.naive import Naive
from models import captured
from models.encoders import paper
from models.learner import HEADS, Learner
from utils.report.find import find
from utils.report.groups import groups
from utils.run import evaluation
from utils.run.evaluation import Predictions, auroc, calibration, predict
from utils.run.signals import Interrupted
from utils.store import metrics
from utils.store.files import previous, read_checkpoint, read_pickle, write_checkpoint, write_pickle
from utils.store.folder import finished_runs
from utils.store.metrics import Scored

R, INITIAL = np.array([[0.9, 0.5], [0.6, 0.8]]), np.array([0.5, 0.3])


@pytest.fixture(scope="session")
def data() -> Data:
    return few_images()


@pytest.fixture
def tasks() -> list[Task]:
    """Of the size that `make_method` is for."""
    return split_by_class(make_data(), GROUPS, 0.0, torch.Generator(), CPU)


# ---- by hand


def test_accuracy_by_images_weighs_tasks_by_their_size():
    s = Scored(R, INITIAL, images=np.array([300, 100]))
    assert metrics.image_accuracy(s) == pytest.approx((0.6 * 300 + 0.8 * 100) / 400) == pytest.approx(0.65)
    assert metrics.final_accuracy(s) == pytest.approx(0.7)
    assert metrics.average_incremental_accuracy(s) == pytest.approx((0.9 + 0.65) / 2)
    assert metrics.plasticity(s) == pytest.approx((0.9 + 0.8) / 2)


def test_anytime_accuracy_is_the_mean_over_measurements_of_the_mean_over_tasks():
    inside = [[{"step": 5, "accuracy": [0.5]}, {"step": 10, "accuracy": [0.9]}], [{"step": 15, "accuracy": [0.2, 0.6]}]]
    split = {"accuracy_matrix": R.tolist(), "initial_accuracy": [], "anytime": inside}
    assert metrics.scores(split)["AAA"] == pytest.approx((0.5 + 0.9 + 0.4) / 3)
    assert metrics.scores(split, 1)["AAA"] == pytest.approx((0.5 + 0.9) / 2)


def predictions(confidence=None, right=None, score=None) -> Predictions:
    y = np.zeros(len(confidence if score is None else score), dtype=int)
    predicted = y if right is None else 1 - np.array(right, dtype=int)
    return Predictions(y, predicted, *(None if v is None else np.array(v) for v in (confidence, score)))


def test_calibration_error_of_four_images_in_two_bins():
    found = [predictions([0.61, 0.65], [1, 0]), predictions([0.95, 1.0], [1, 1])]
    bins = np.array(calibration(found))  # 15 bins: 0.61 and 0.65 are in (9/15, 10/15], the others in (14/15, 1]
    assert bins[9] == pytest.approx([2, 1, 1.26]) and bins[14] == pytest.approx([2, 2, 1.95]) and bins[:, 0].sum() == 4
    expected = 2 / 4 * abs(1 / 2 - 0.63) + 2 / 4 * abs(1 - 0.975)
    assert metrics.expected_calibration_error(Scored(R, INITIAL, calibration=bins)) == pytest.approx(expected)


def test_bins_are_closed_above_and_nan_is_in_the_first():
    bins = np.array(calibration([predictions([0.0, 1 / 15, 0.2, np.nan, 1.0], [1] * 5)]))
    assert bins[:, 0].nonzero()[0].tolist() == [0, 2, 14] and bins[0, 0] == 3


def test_auroc_counts_pairs():
    taught, untaught = predictions(score=[0.9, 0.8, 0.4]), predictions(score=[0.4, 0.85])
    # 0.9 beats both, 0.8 beats 0.4 alone, 0.4 ties once
    assert auroc([taught], [untaught]) == pytest.approx((2 + 1 + 0.5) / 6)
    assert auroc([predictions(score=[np.nan])], [untaught]) == 0 and auroc([taught], []) is None
    assert metrics.auroc(Scored(R, INITIAL, auroc=[0.5, 0.75, None])) == 0.625


def test_intransigence_against_joint_on_common_seeds(tmp_path):
    """`make_run`: right after each of 3 tasks the accuracies are 1, (1 + final) / 2 and final."""
    make_run(tmp_path / "joint", "joint", [0.9, 0.8])
    make_run(tmp_path / "ewc", "ewc", [0.7, 0.5, 0.1])
    (group,) = groups(find([tmp_path]))
    joint, ewc = (next(row for row in group.rows if row.run.method == name) for name in ("joint", "ewc"))
    of_seed = [(0 + (ours - theirs) / 2 + (ours - theirs)) / 3 for ours, theirs in ((0.9, 0.7), (0.8, 0.5))]
    assert ewc.intransigence["values"] == pytest.approx(of_seed) and joint.intransigence["mean"] is None
    make_run(tmp_path / "other", {"name": "joint"}, [0.9], epochs=9)
    assert all(row.intransigence["mean"] is None for row in groups(find([tmp_path]))[0].rows), "which joint?"


# ---- probabilities


def test_one_pass_gives_predictions_probabilities_and_scores(tasks):
    method, split = make_method("naive", "class"), tasks[0].test
    method.learner.see(2)
    found = predict(method, split, 0, scored=True)
    x, _ = split.batch(slice(None))
    method.learner.eval()
    p = method.logits(x, 0).detach().double().softmax(dim=1)
    assert (found.predicted == method.predict(x, 0).numpy()).all() and (found.predicted < 4).all()
    assert found.confidence == pytest.approx(p.amax(dim=1).numpy()) and (found.score == found.confidence).all()
    assert found.confidence[0] == pytest.approx(p[0, found.predicted[0]].item()) and p[:, 4:].max() == 0


def test_logits_are_of_the_classes_that_the_task_may_have():
    """Tasks of 3 and 1 classes: of the domain scenario's 3 outputs the second task has one."""
    for scenario, widths in {"task": (3, 1), "domain": (3, 1), "class": (4, 4)}.items():
        learner = Learner(paper.build((1, 28, 28), 20), HEADS["linear"](0.0), scenario, [(2, 0, 3), (1,)])
        z, log_p = torch.randn(5, 20), torch.randn(5, 4).log_softmax(dim=1)
        for task, width in enumerate(widths):
            logits, known = learner.class_logits(z, task), learner.as_class_logits(log_p, task)
            assert logits.shape == known.shape == (5, width)
            assert torch.equal(learner.class_of(logits, task), learner.predict(z, task))
        group = learner.as_class_logits(log_p, 0)
        if scenario == "task":
            assert torch.equal(group, log_p[:, [2, 0, 3]])
        if scenario == "domain":  # class 1 is at the position of class 2
            assert group.exp() == pytest.approx(
                log_p[:, [2, 0, 3]].exp() + log_p[:, [1]].exp() * torch.tensor([1, 0, 0])
            )


def test_classes_that_are_unlikely_beside_those_of_other_tasks_are_told_apart():
    """Their probabilities are 0 in single precision."""
    learner = Learner(paper.build((1, 28, 28), 20), HEADS["linear"](0.0), "task", [(0, 1), (2, 3)])
    log_p = torch.tensor([[-900.0, -800.0, 0.0, -700.0]])
    assert log_p.exp()[0, :2].sum() == 0 and learner.class_of(learner.as_class_logits(log_p, 0), 0).tolist() == [1]


class Nearest(Naive):
    """Overrides `predict` alone."""

    def predict(self, x, task):
        return torch.full((len(x),), 2)


class Brightness(Naive):
    """A score of its own."""

    def score(self, x, logits, task):
        return x.mean(dim=(1, 2, 3))


def test_a_method_may_override_predict_or_score(tasks, small, data, tmp_path, monkeypatch):
    plain = make_method("naive")
    found = predict(Nearest(plain.config, plain.learner, plain.stream), tasks[1].test, 1, scored=True)
    assert (found.predicted == 2).all() and found.accuracy == 0.5 and found.confidence is found.score is None
    found = predict(Brightness(plain.config, plain.learner, plain.stream), tasks[1].test, 1, scored=True)
    assert found.score == pytest.approx(tasks[1].test.x.double().mean(dim=(1, 2, 3)).numpy() / 255, abs=1e-6)
    monkeypatch.setattr(Naive, "predict", Nearest.predict)
    monkeypatch.setattr(evaluation.Method, "predict", None)
    small["scenario"]["type"] = "class"
    results = begun(experiment(small, tmp_path, small["method"], save=False), data)()
    scores = metrics.scores(results["test"])
    assert scores["ECE"] is scores["AUROC"] is None and scores["FinalAccuracy"] == pytest.approx(1 / 6)


@pytest.mark.parametrize(("scenario", "has_auroc"), [("task", False), ("class", True), ("domain", True)])
def test_scores_of_a_run(small, data, tmp_path, scenario, has_auroc):
    """Tasks of 4 and 2 classes; 4 test images per class."""
    small["scenario"] |= {"labels_per_task": 4, "type": scenario}
    test = begun(experiment(small, tmp_path, small["method"], save=False), data)()["test"]
    scores = metrics.scores(test, confusion=test["confusion"])
    assert test["images"] == [16, 8] and scores["ImageAccuracy"] == pytest.approx(np.trace(test["confusion"]) / 24)
    (a, _), (b, c) = test["accuracy_matrix"]
    assert scores["AverageIncrementalAccuracy"] == pytest.approx((a + (16 * b + 8 * c) / 24) / 2)
    for images, bins in zip((16, 24), np.array(test["calibration"]), strict=True):
        assert bins[:, 0].sum() == images
    assert np.array(test["calibration"])[1, :, 1].sum() == np.trace(test["confusion"])
    assert (test["auroc"][0] is not None) == has_auroc and test["auroc"][1] is None
    assert 0 <= scores["ECE"] <= 1 and (scores["AUROC"] == test["auroc"][0])


def test_results_of_older_versions_have_no_such_scores_and_compare(small, run, tmp_path, capsys):
    assert run(small) == 0
    root, out = tmp_path / "results", tmp_path / "out"
    path = root / "exp_0" / "final_results.pkl"
    older = read_pickle(path)
    for part in ("test", "train"):
        for name in ("images", "calibration", "auroc"):
            del older[part][name]
    for key in [key for key in older["config"]["train"] if key.startswith("evaluate")]:
        del older["config"]["train"][key]
    write_pickle(path, older)
    assert run(small) == 0
    score = json.loads((root / "final_score.json").read_text())["test"]
    assert score["ECE"]["mean"] is None and score["Plasticity"]["mean"] > 0
    text = (root / "final_score.json").read_text()
    (root / "final_score.json").write_text(re.sub(r"\"(ECE|AUROC|ImageAccuracy)\"", r'"no\1"', text))
    shutil.copytree(root, tmp_path / "copy")
    run(small)  # one with the scores beside one without
    (tmp_path / "copy" / "final_score.json").write_text(text)
    assert main(["--compare", str(root), str(tmp_path / "copy"), "--out", str(out), "--columns", "ECE,Plasticity"]) == 0
    rows = [*csv.DictReader((out / "comparison.csv").read_text().splitlines())]
    assert all(row["ECE.mean"] == "" and row["Plasticity.mean"] for row in rows) and "ECE" not in rows[0]
    assert re.search(r"^Naive.* - +0\.\d{4}$", capsys.readouterr().out, re.M)


def test_a_checkpoint_of_an_older_version_is_resumed(small, data, tmp_path):
    """What was not measured after its first task is null, the rest is there."""
    config = experiment(small, tmp_path, small["method"])
    with pytest.raises(Interrupted):
        begun(config, data, After(8))()
    for path in (tmp_path / "exp_0" / "state.pt", previous(tmp_path / "exp_0" / "state.pt")):
        state = read_checkpoint(path, CPU)
        for part in ("test", "train"):
            for name in ("images", "calibration", "auroc"):
                state["results"][part].pop(name, None)
        state["position"].pop("anytime", None)
        write_checkpoint(path, state)
    assert state["tasks_done"] == 1
    test = begun(config, data)()["test"]
    scores = metrics.scores(test)
    assert test["calibration"][0] is None and None not in test["calibration"][1:] and scores["ECE"] > 0
    rows = [*csv.DictReader((tmp_path / "exp_0" / "metrics.csv").read_text().splitlines())]
    assert [row["task"] for row in rows if row["split"] == "test" and row["metric"] == "ECE"] == ["1", "2"]


def test_the_metrics_of_older_versions_are_verified(small, run, tmp_path, capsys):
    assert run(small) == 0
    path = tmp_path / "results" / "exp_0" / "metrics.csv"
    rows = [*csv.reader(path.read_text().splitlines())]
    older = [row[:4] + row[5:] for row in rows if row[6] not in ("ECE", "AUROC", "AAA", "Plasticity", "ImageAccuracy")]
    path.write_text("".join(",".join(row) + "\n" for row in older))
    capsys.readouterr()
    assert verify(tmp_path / "results") == 0 and "bit-identical" in capsys.readouterr().out
    path.write_text("".join(",".join(row) + "\n" for row in older if row[-2] != "accuracy/0"))
    assert verify(tmp_path / "results") == 2


# ---- which tasks and splits


def test_only_seen_tasks_are_evaluated(small, run, tmp_path, capsys):
    small["scenario"]["dev_split"] = 0.25
    small["method"]["plot"] = True
    paths = {}
    for name in ("all", "seen"):
        paths[name] = small["train"]["save_path"] = str(tmp_path / name)
        small["train"]["evaluate"] = name
        assert run(small, "--seeds", "0-1") == 0
    every, seen = (json.loads((tmp_path / name / "final_score.json").read_text()) for name in paths)
    for part in ("test", "train", "dev"):
        r, known = (np.array(of[part]["accuracy_matrix"]["values"], dtype=float) for of in (every, seen))
        below = np.tri(3, dtype=bool)
        assert np.isnan(known[:, ~below]).all() and (known[:, below] == r[:, below]).all()
        assert (
            seen[part]["accuracy_matrix"]["mean"][0][1:] == [None, None] == seen[part]["accuracy_matrix"]["std"][0][1:]
        )
        assert seen[part]["FWT"]["values"] == [None, None] and None not in every[part]["FWT"]["values"]
        same = {name for name in seen[part] if seen[part][name] == every[part][name]}
        assert same == set(seen[part]) - {"accuracy_matrix", "FWT"}
    rows = [(tmp_path / name / "exp_0" / "metrics.csv").read_text().splitlines() for name in paths]
    future = [
        row for row in rows[0] if re.search(r"FWT|initial_accuracy|,0,,,\w+,accuracy/[12]|,1,,,\w+,accuracy/2", row)
    ]
    assert [row for row in rows[0] if row not in future] == rows[1] and len(future) == 3 * (3 + 3 + 2)
    log = (tmp_path / "seen" / "final_score.log").read_text()
    assert re.search(r"^ +0 +\d\.\d{4} +- +-$", log, re.M)
    assert len(list((tmp_path / "seen" / "exp_0" / "plots").iterdir())) == 2
    capsys.readouterr()
    assert main(["--compare", *paths.values(), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "evaluate" not in said and "protocol differs" not in said, "nothing else was learned"
    assert verify(tmp_path / "seen") == 0 and "bit-identical" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "seen" / "exp_0")
    assert verify(tmp_path / "seen") == 0 and "task 0: identical: 3 of 3 numbers" in capsys.readouterr().out


def test_forgetting_looks_at_what_was_measured():
    r = np.array([[0.9, np.nan, np.nan], [0.7, 0.8, np.nan], [0.6, 0.9, 1.0]])
    assert metrics.forgetting(Scored(r, INITIAL[:0])) == pytest.approx(((0.9 - 0.6) + (0.8 - 0.9)) / 2)


def test_a_missing_accuracy_on_a_task_learned_is_damage(tmp_path, capsys):
    path = make_run(tmp_path / "ewc", "ewc", [0.5]) / "final_score.json"
    score = json.loads(path.read_text())
    for where, told in (((0, 2), 0), ((2, 0), 2)):
        score["test"]["accuracy_matrix"]["values"][0][where[0]][where[1]] = None
        path.write_text(json.dumps(score))
        assert main(["--compare", str(tmp_path), "--out", str(tmp_path / "out")]) == told
    assert "an accuracy on a task that was learned is missing" in capsys.readouterr().err


def test_splits_that_are_not_asked_for_are_not_evaluated(small, data, run, tmp_path, capsys, monkeypatch):
    small["scenario"]["dev_split"] = 0.25
    seen, real = [], evaluation.predict
    monkeypatch.setattr(
        "utils.run.recording.predict", lambda m, split, *rest: (seen.append(split), real(m, split, *rest))[1]
    )
    monkeypatch.setattr(evaluation, "predict", lambda m, split, *rest: (seen.append(split), real(m, split, *rest))[1])
    watched = {"selection": "dev", "epochs": 1, "save": False}
    for splits, parts in {"test": ["test"], "test+train": ["test", "train"], "all": ["test", "train", "dev"]}.items():
        seen.clear()
        settings = experiment(small, tmp_path / splits, small["method"], evaluate_splits=splits, **watched)
        results = begun(settings, data)()
        assert metrics.splits(results) == parts
        assert len(seen) == 3 * len(parts) * 4 + 3, "before the first task and after each, on each; and dev per epoch"
        rows = [*csv.DictReader((tmp_path / splits / "exp_0" / "metrics.csv").read_text().splitlines())]
        assert {row["split"] for row in rows if row["metric"] == "accuracy"} == {"dev"}, "after each epoch"
        assert {row["split"] for row in rows if row["metric"] == "FinalAccuracy"} == set(parts)
    small["train"]["evaluate_splits"] = "Test"
    assert run(small) == 0 and verify(tmp_path / "results") == 0
    assert main(["--compare", str(tmp_path / "results"), "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert run({**small, "sweep": {"train.lr": [0.1, 0.2]}}) == 2
    told = capsys.readouterr().err
    assert (
        "train.evaluate_splits: lr=0.1 is ranked on dev data, which test leaves out; set it to all or test+dev" in told
    )
    small["scenario"]["dev_split"], small["train"]["evaluate_splits"] = 0.0, "test+dev"
    assert run(small) == 2 and "test+dev needs a dev set; set scenario.dev_split" in capsys.readouterr().err


def test_another_evaluation_is_another_configuration(small, run, tmp_path, capsys):
    """The stored results would have some of each."""
    assert run(small) == 0
    config = tmp_path / "results" / "config.yml"
    older = yaml.safe_load(config.read_text())
    for key in [key for key in older["train"] if key.startswith("evaluate")]:
        del older["train"][key]
    config.write_text(yaml.safe_dump(older))
    assert run(small) == 0, "as it was before there was a choice"
    small["train"]["evaluate"] = "seen"
    assert run(small) == 2 and "train.evaluate: all -> seen" in capsys.readouterr().err


# ---- inside tasks


def without_anytime(found: dict) -> dict:
    """What is left by a run, without what is measured inside of tasks."""
    models = {name: state for name, state in found.items() if name.endswith(".pt")}
    for name in [name for name in found if name.endswith(".pkl")]:
        found[name]["test"].pop("anytime", None)
        models[name] = found[name]
    return models


@pytest.mark.parametrize("method", [method_settings(name) for name in ("naive", "er", "prer")], ids=lambda m: m["name"])
@pytest.mark.usefixtures("quick_health")
def test_measuring_inside_tasks_changes_nothing_and_resumes_to_the_same_bits(small, data, tmp_path, method):
    small["scenario"]["type"] = "class"
    small["model"] = {"dropout": 0.5}
    every = {"evaluate_every": 3, "epochs": 3, "batch_size": 5}  # 5 steps per epoch
    begun(experiment(small, tmp_path / "plain", method, epochs=3, batch_size=5), data)()
    results = begun(experiment(small, tmp_path / "whole", method, **every), data)()
    measured = results["test"]["anytime"]
    assert [[one["step"] for one in of_task] for of_task in measured] == [
        [15 * task + step for step in (3, 6, 9, 12, 15)] for task in range(3)
    ]
    assert [len(of_task[0]["accuracy"]) for of_task in measured] == [1, 2, 3]
    interruptions = 0
    while True:
        run = begun(experiment(small, tmp_path / "resumed", method, **every), data, After(4 + interruptions % 9))
        try:
            run()
            break
        except Interrupted:
            interruptions += 1
    assert interruptions > 3
    assert left_by(tmp_path / "whole") == left_by(tmp_path / "resumed")
    assert without_anytime(left_by(tmp_path / "plain")) == without_anytime(left_by(tmp_path / "whole"))


def test_what_is_measured_inside_a_task_is_the_accuracy_at_that_step(small, data, tmp_path):
    """The last step of the last epoch: naive's `end_task` does nothing, so that it is the accuracy after the task."""
    config = experiment(small, tmp_path, small["method"], evaluate_every=4, epochs=2, batch_size=12, tensorboard=True)
    test = begun(config, data)()["test"]
    for task, ((measured,), row) in enumerate(zip(test["anytime"], test["accuracy_matrix"], strict=True)):
        assert measured == {"step": 4 * (task + 1), "accuracy": row[: task + 1]}
    rows = [*csv.DictReader((tmp_path / "exp_0" / "metrics.csv").read_text().splitlines())]
    inside = [(row["task"], row["metric"]) for row in rows if row["step"] == "8"]
    assert inside == [("1", "accuracy/0"), ("1", "accuracy/1")]
    found = events(tmp_path)  # of TensorBoard, over steps
    assert [step for step, _ in found["test/inside_tasks/accuracy/0"]] == [4, 8, 12]
    assert [step for step, _ in found["test/accuracy/0"]] == [0, 1, 2]


def test_measured_between_replays_of_a_captured_step(small, data, tmp_path, monkeypatch):
    plain = begun(experiment(small, tmp_path / "eager", small["method"], evaluate_every=1, epochs=5), data)()
    monkeypatch.setitem(captured.GRAPHS, "cpu", StandIn)
    graphs = begun(experiment(small, tmp_path / "graphs", small["method"], evaluate_every=1, epochs=5), data)()
    assert plain["test"]["anytime"] == graphs["test"]["anytime"] and len(plain["test"]["anytime"][0]) == 10


def test_accuracy_inside_tasks_is_drawn_and_compared(small, run, tmp_path, capsys):
    small["method"]["plot"] = True
    small["train"]["evaluate_every"] = 1
    assert run(small, "--seeds", "0-1") == 0
    plots = tmp_path / "results" / "exp_0" / "plots"
    with Image.open(plots / "accuracy_over_steps.png") as image:
        assert min(image.size) > 200
    assert main(["--compare", str(tmp_path / "results"), "--out", str(tmp_path / "out"), "--columns", "AAA"]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Accuracy on tasks seen, by training step, first to last: Naive 0." in page and "More scores" in page
    assert verify(tmp_path / "results") == 0 and "bit-identical" in capsys.readouterr().out
    final = finished_runs(tmp_path / "results")[0]
    inside = [np.mean(one["accuracy"]) for of_task in final["test"]["anytime"] for one in of_task]
    score = json.loads((tmp_path / "results" / "final_score.json").read_text())
    assert score["test"]["AAA"]["values"][0] == pytest.approx(np.mean(inside)) and score["train"]["AAA"]["mean"] is None


@pytest.mark.parametrize(("kind", "start"), [("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_figures_are_files_of_the_format_asked_for(small, data, tmp_path, kind, start):
    drawn = []
    for name in ("a", "b"):
        method = {"name": "naive", "plot": True, "plot_format": kind}
        begun(experiment(small, tmp_path / name, method, save=False, epochs=1), data)()
        files = sorted((tmp_path / name / "exp_0" / "plots").iterdir())
        assert [path.name for path in files] == [f"accuracy_{what}.{kind}" for what in ("matrix", "over_tasks")]
        drawn.append([path.read_bytes() for path in files])
    assert drawn[0] == drawn[1] and all(content.startswith(start) for content in drawn[0])


def test_a_split_of_one_image_is_scored():
    """A task with one test image has an accuracy, a bin and no division by zero."""
    method, images = make_method("naive"), few_images().test
    one = Split(torch.nn.functional.pad(images.x[:1], (6, 6, 6, 6)), images.y[:1])
    found = predict(method, one.to(CPU), 0)
    assert found.accuracy in (0.0, 1.0) and np.array(calibration([found]))[:, 0].sum() == 1


def test_auroc_of_a_run_is_of_taught_against_untaught_images(small, data, tmp_path, monkeypatch):
    monkeypatch.setattr(Naive, "score", Brightness.score, raising=False)
    small["scenario"] |= {"labels_per_task": 4, "type": "class"}
    test = begun(experiment(small, tmp_path, small["method"], save=False), data)()["test"]
    means, taught = data.test.x.float().mean(dim=(1, 2, 3)), data.test.y < 4
    wins = (means[taught][:, None] > means[~taught]).float().mean()
    assert test["auroc"][0] == pytest.approx(float(wins), abs=0.01) and abs(float(wins) - 0.5) > 0.1
