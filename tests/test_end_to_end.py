"""The command line on real digits, and what it leaves in the results folder."""

import io
import json
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import merged, method_settings
from PIL import Image

from main import main
from utils.store.files import Damaged, read_pickle, write_pickle

ROOT = Path(__file__).parent.parent
TASKS = 3


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """PRER on digits through the command line, as small as it makes sense."""
    folder = tmp_path_factory.mktemp("run") / "prer"
    options = [
        f"train.save_path={folder}",
        "train.epochs=1",
        "scenario.labels_per_task=4",
        "method.autoencoder.epochs=1",
        "method.flow.epochs=1",
        "method.regularization.fixed_replay=100",
    ]
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as error:
        code = main([str(ROOT / "files/prer_digits.yaml"), "--seeds", "0,2", "--device", "cpu", "--set", *options])
    assert code == 0, error.getvalue()
    assert "FinalAccuracy" in out.getvalue() and f"seed 2: task {TASKS - 1} learned" in out.getvalue()
    assert "\r" not in out.getvalue() + error.getvalue(), "progress bars belong on a terminal"
    return folder


def test_the_results_folder_is_as_documented(results):
    there = {str(path.relative_to(results)) for path in results.rglob("*") if path.is_file()}
    expected = {"config.yml", "final_score.log", "final_score.json"}
    for seed in (0, 2):
        expected |= {
            f"exp_{seed}/{name}"
            for name in (
                *("experiment.log", "metrics.csv", "final_results.pkl", "state.pt", "state.pt.previous"),
                *("provenance.yml", ".lock", "models/method.pt"),
            )
        }
        expected |= {f"exp_{seed}/models/task_{t}.pt" for t in range(TASKS)}
        expected |= {f"exp_{seed}/results/task_{t}.pkl" for t in range(TASKS)}
        drawn = ("samples", "reconstructions")
        expected |= {f"exp_{seed}/plots/{name}_task_{t}.png" for t in range(TASKS) for name in drawn}
        names = ("accuracy_matrix", "accuracy_over_tasks", "agreement", "flow_nll", "redrawn")
        expected |= {f"exp_{seed}/plots/{name}.png" for name in names}
    assert there == expected


def test_scores_are_those_of_the_runs(results):
    score = json.loads((results / "final_score.json").read_text())
    assert (score["method"], score["dataset"], score["scenario"]) == ("prer", "digits", "task")
    assert score["seeds"] == [0, 2] and score["protocol"] == {"selection": "last", "epochs": 1, "steps": None}
    runs = [read_pickle(results / f"exp_{seed}" / "final_results.pkl") for seed in (0, 2)]
    for part in ("test", "train"):
        matrices = np.array([run[part]["accuracy_matrix"] for run in runs])
        assert matrices.shape == (2, TASKS, TASKS)
        np.testing.assert_allclose(score[part]["accuracy_matrix"]["mean"], matrices.mean(0))
        np.testing.assert_allclose(score[part]["accuracy_matrix"]["std"], matrices.std(0, ddof=1))
        final = score[part]["FinalAccuracy"]
        np.testing.assert_allclose(final["values"], matrices[:, -1].mean(1))
        np.testing.assert_allclose(
            [final["mean"], final["std"]], [np.mean(final["values"]), np.std(final["values"], ddof=1)]
        )
        assert set(score[part]) == {
            *("accuracy_matrix", "FinalAccuracy", "BWT", "FWT", "Forgetting", "TotalAccuracy"),
            *("BackwardTransfer", "LastBackwardTransfer", "F1", "ImageAccuracy", "AverageIncrementalAccuracy"),
            *("Plasticity", "AAA", "ECE", "AUROC"),
        }
    assert set(score["time"]) == {"train_s", "method_s", "eval_s", "total_s", "steps_per_s"}
    assert score["memory"]["stored_real_samples"] == 0 and score["memory"]["method_floats"] > 0
    held = read_pickle(results / "exp_0" / "final_results.pkl")["memory_by_task"]  # after each of the tasks
    assert len(held) == TASKS and all(after == held[0] for after in held)
    log = (results / "final_score.log").read_text()
    assert f"{score['test']['FinalAccuracy']['mean']:.4f} ± {score['test']['FinalAccuracy']['std']:.4f}" in log


def test_checkpoints_are_plain_weights_that_give_the_recorded_accuracy(results, tmp_path):
    from utils.config.load import load
    from utils.run.evaluation import accuracy
    from utils.run.runner import Run

    config = load(results / "config.yml")
    import datasets

    data = datasets.load(config.scenario.dataset, tmp_path)
    run = Run(config, data, 2, torch.device("cpu"))
    run.learner.load_state_dict(torch.load(results / "exp_2" / "models" / "task_1.pt", weights_only=True))
    recorded = read_pickle(results / "exp_2" / "results" / "task_1.pkl")["test"]["accuracy_matrix"][1]
    assert [accuracy(run.method, task.test, task.index) for task in run.tasks] == recorded


def test_pickles_hold_builtins_only_and_others_are_refused(results, tmp_path):
    plain = read_pickle(results / "exp_0" / "final_results.pkl")
    assert plain["seed"] == 0 and plain["tasks"] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(plain["epochs"]) == TASKS and set(plain["epochs"][0][0]) == {"loss", "loss/cross_entropy", "accuracy"}
    write_pickle(tmp_path / "evil.pkl", Path("x"))
    with pytest.raises(Damaged, match="refused"):
        read_pickle(tmp_path / "evil.pkl")


def test_the_log_says_what_matters(results):
    log = (results / "exp_0" / "experiment.log").read_text()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in log.splitlines())
    for text in (
        "method.weights.er: ",
        "train.lr: 0.001",
        "task 1: classes 4, 5, 6, 7;",
        "task 2 learned: test accuracy",
        "agreement/class 9",
        "task 2 test scores: FinalAccuracy 0.",
        "task 1 train scores: FinalAccuracy",
    ):
        assert text in log


def test_figures_are_pictures(results):
    for path in (results / "exp_0" / "plots").glob("*.png"):
        with Image.open(path) as image:
            assert min(image.size) > 200 and len(set(image.convert("L").resize((50, 50)).tobytes())) > 5, path


def test_running_again_keeps_what_is_finished_and_adds_seeds(small, run, capsys, tmp_path):
    folder = tmp_path / "results"
    assert run(small, "--seeds", "1") == 0
    before = (folder / "exp_1" / "final_results.pkl").stat().st_mtime_ns
    assert run(small, "--seeds", "0-1") == 0
    assert "seed 1 already finished" in capsys.readouterr().out
    assert (folder / "exp_1" / "final_results.pkl").stat().st_mtime_ns == before
    assert json.loads((folder / "final_score.json").read_text())["seeds"] == [0, 1]


def test_restart_moves_the_old_run_aside(small, run, tmp_path):
    assert run(small) == 0
    small["train"]["lr"] = 0.01
    assert run(small) == 2
    assert run(small, "--restart") == 0
    old = tmp_path / "results.old-1"
    assert (old / "exp_0" / "final_results.pkl").exists() and (old / "final_score.log").exists()
    assert yaml.safe_load((tmp_path / "results" / "config.yml").read_text())["train"]["lr"] == 0.01
    small["train"]["load"] = False
    assert run(small) == 0
    assert (tmp_path / "results.old-2").exists()


def test_without_save_only_the_results_are_written(small, run, tmp_path):
    small["train"]["save"] = False
    assert run(small) == 0
    there = {path.name for path in (tmp_path / "results").rglob("*") if path.is_file()}
    in_folder = {"config.yml", "final_score.log", "final_score.json"}
    assert there == in_folder | {"experiment.log", "metrics.csv", "final_results.pkl", "provenance.yml", ".lock"}


def test_one_seed_and_one_task_leave_undefined_scores_null(small, run, tmp_path):
    small["scenario"]["labels_per_task"] = 6
    assert run(small) == 0
    score = json.loads((tmp_path / "results" / "final_score.json").read_text())
    assert score["test"]["BWT"] == {"mean": None, "std": None, "ci95": None, "values": [None]}
    assert score["test"]["FinalAccuracy"]["std"] is None and score["test"]["accuracy_matrix"]["std"] is None


def test_dev_scores_are_reported_beside_test(small, run, tmp_path):
    small["scenario"]["dev_split"] = 0.25
    small["train"]["selection"] = "dev"
    assert run(small) == 0
    score = json.loads((tmp_path / "results" / "final_score.json").read_text())
    assert 0 <= score["dev"]["FinalAccuracy"]["mean"] <= 1 and score["protocol"]["selection"] == "dev"
    assert re.search(r"test +train +dev", (tmp_path / "results" / "final_score.log").read_text())


def test_check_explains_and_runs_nothing(small, run, capsys, tmp_path):
    assert run(small, "--check", "--set", "train.epochs=3", "train.lr=1e-2") == 0
    out = capsys.readouterr().out
    assert "lr: 0.01" in out and "labels_per_task: 2" in out
    assert "0: 0, 1 (48 train, 0 dev, 20 test images, 9 steps on its own data)" in out
    assert "seeds: 0, 27 steps each, on cpu" in out
    assert "method: 0 parameters of its own\nmemory before the first task: 0 numbers\n" in out
    assert not (tmp_path / "results").exists()


def test_check_names_the_method_made_for_the_scenario(small, run, capsys):
    small["method"] = method_settings("prer")
    for scenario, named in (("task", False), ("class", True)):
        assert run(small, "--check", "--set", f"scenario.type={scenario}") == 0
        assert ("note: prer_features" in capsys.readouterr().out) == named


def test_several_files_run_one_after_the_other(small, tmp_path, npz, capsys):
    paths = []
    for name in ("one", "two"):
        small["train"]["save_path"] = str(tmp_path / name)
        paths.append(tmp_path / f"{name}.yaml")
        paths[-1].write_text(yaml.safe_dump(small))
    small["train"]["save_path"] = str(tmp_path / "swept")
    paths.append(tmp_path / "swept.yaml")
    paths[-1].write_text(yaml.safe_dump(small | {"sweep": {"train.lr": [0.1, 0.2], "rank_by": "test"}}))
    assert main([*map(str, paths), "--set", "train.epochs=1", "--seeds", "0,1"]) == 0
    assert (tmp_path / "one" / "final_score.log").exists() and (tmp_path / "two" / "final_score.log").exists()
    rows = capsys.readouterr().out.splitlines()[-3:]
    assert re.match(rf"{tmp_path}/one +0\.\d{{4}} ± 0\.\d{{4}}  2 seeds", rows[0]) and "2 seeds" in rows[1]
    assert re.match(rf"{tmp_path}/swept +0\.\d{{4}} ± 0\.\d{{4}}  lr=0\.[12], best of 2 points", rows[2])


def test_mistakes_in_several_files_are_all_told(small, tmp_path, capsys):
    paths = []
    for name, section in (("one", "train"), ("two", "scenario"), ("three", "model")):
        paths.append(tmp_path / f"{name}.yaml")
        paths[-1].write_text(yaml.safe_dump(merged(small, {section: {"typo": 1}})))
    assert main([*map(str, paths)]) == 2
    assert [Path(line.partition(":")[0]) for line in capsys.readouterr().err.splitlines()] == paths


def test_ctrl_c_ends_with_one_line_and_is_resumable(small, run, capsys, monkeypatch, tmp_path):
    from utils.run.runner import Run

    learn = Run._learn

    def interrupted(self, task):
        if task.index == 1:
            raise KeyboardInterrupt
        learn(self, task)

    monkeypatch.setattr(Run, "_learn", interrupted)
    assert run(small) == 130
    assert capsys.readouterr().err.strip().startswith("interrupted; to resume: ")
    monkeypatch.undo()
    assert run(small) == 0
    assert "resuming in task 1" in (tmp_path / "results" / "exp_0" / "experiment.log").read_text()


@pytest.mark.parametrize("way", ["option", "environment", "config"])
def test_the_data_root_is_found_in_the_order_documented(small, run, capsys, tmp_path, monkeypatch, way):
    """The data set is not there: the message says where it was looked for."""
    import urllib.error
    import urllib.request

    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.delenv("DATA_ROOT", raising=False)
    small["scenario"] = {"dataset": "mnist", "data_root": str(tmp_path / "config")}
    if way != "config":
        monkeypatch.setenv("DATA_ROOT", str(tmp_path / "environment"))
    assert run(small, *(["--data-root", str(tmp_path / "option")] if way == "option" else [])) == 2
    assert f"mnist is missing or incomplete under {tmp_path / way}" in capsys.readouterr().err


def test_a_python_without_the_packages_is_told_in_one_line():
    command = [sys.executable, "-S", "main.py", "files/naive_digits.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "has no package pydantic: activate its environment" in done.stderr
