"""Watching a run: metrics.csv, TensorBoard's events, and what --check says the queue will take."""

import csv
import json
import re
import shutil
from math import ceil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import few_images, method_settings
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_resume import After, begun, experiment

from bench.kill import left_by
from datasets.data import Data
from methods import find, known
from utils.options import parse
from utils.queue import check, plan
from utils.run.signals import Interrupted
from utils.store.folder import finished_runs


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "exp_0" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def data() -> Data:
    return few_images()


@pytest.fixture
def two_tasks(small) -> dict:
    small["method"] = method_settings("oewc")
    small["scenario"] |= {"dev_split": 0.25, "labels_per_task": 3}
    return small


def test_metrics_are_the_numbers_of_the_run_in_long_format(two_tasks, run, tmp_path):
    assert run(two_tasks) == 0
    folder = tmp_path / "results"
    done, score = finished_runs(folder)[0], json.loads((folder / "final_score.json").read_text())
    rows = table(folder)
    assert list(rows[0]) == ["method", "seed", "task", "epoch", "step", "split", "metric", "value"]
    assert {(row["method"], row["seed"]) for row in rows} == {("oewc", "0")}
    values = {tuple(row[k] for k in ("task", "epoch", "split", "metric")): float(row["value"]) for row in rows}
    assert len(values) == len(rows), "a row is there once"
    for t in range(2):
        for e in range(2):
            terms = [values[str(t), str(e), "train", f"loss/{name}"] for name in ("cross_entropy", "penalty")[: t + 1]]
            assert values[str(t), str(e), "train", "loss"] == done["epochs"][t][e]["loss"] == pytest.approx(sum(terms))
            assert values[str(t), str(e), "dev", "accuracy"] == done["epochs"][t][e]["accuracy"]
        for part in ("test", "train", "dev"):
            for j in range(2):
                assert values[str(t), "", part, f"accuracy/{j}"] == done[part]["accuracy_matrix"][t][j]
                assert values["", "", part, f"initial_accuracy/{j}"] == done[part]["initial_accuracy"][j]
        for name, value in done["diagnostics"][t].items():
            assert values[str(t), "", "", name] == value
    for name in ("FinalAccuracy", "BWT", "FWT", "Forgetting", "TotalAccuracy", "F1"):
        assert values["1", "", "test", name] == score["test"][name]["values"][0]
    assert values["0", "", "test", "FinalAccuracy"] == done["test"]["accuracy_matrix"][0][0]
    assert ("0", "", "test", "F1") not in values


def test_without_save_metrics_come_with_the_results(two_tasks, data, tmp_path):
    config = experiment(two_tasks, tmp_path / "unsaved", two_tasks["method"], save=False)
    with pytest.raises(Interrupted):
        begun(config, data, After(6))()
    assert not (tmp_path / "unsaved" / "exp_0" / "metrics.csv").exists()
    begun(config, data)()
    assert {row["task"] for row in table(tmp_path / "unsaved")} == {"", "0", "1"}


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = EventAccumulator(str(folder / "exp_0")).Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_events_are_the_rows_and_change_no_bit_of_the_run(two_tasks, data, tmp_path):
    begun(experiment(two_tasks, tmp_path / "plain", two_tasks["method"]), data)()
    watched = experiment(two_tasks, tmp_path / "watched", two_tasks["method"], tensorboard=True)
    chance = iter(range(3, 100, 4))
    while True:
        try:
            begun(watched, data, After(next(chance)))()
            break
        except Interrupted:
            continue
    assert left_by(tmp_path / "plain") == left_by(tmp_path / "watched")
    assert not list((tmp_path / "plain").rglob("*tfevents*"))
    found, rows = events(tmp_path / "watched"), table(tmp_path / "watched")
    assert sum(map(len, found.values())) == len(rows)
    for name in ("loss", "loss/cross_entropy", "loss/penalty"):
        losses = [float(row["value"]) for row in rows if row["metric"] == name]
        assert found[f"train/{name}"][-2:] == [(epoch, pytest.approx(losses[epoch - 4])) for epoch in (2, 3)]
    accuracies = [float(row["value"]) for row in rows if row["split"] == "test" and row["metric"] == "accuracy/0"]
    assert found["test/accuracy/0"] == [(task, pytest.approx(value)) for task, value in enumerate(accuracies)]
    assert watched.identity == experiment(two_tasks, tmp_path / "plain", two_tasks["method"]).identity


def test_a_killed_run_s_events_are_replaced_also_for_a_reader_that_has_them(two_tasks, data, tmp_path):
    """Killed after the events of a task and before the checkpoint behind them, the resumed run repeats the task."""
    watched = experiment(two_tasks, tmp_path, two_tasks["method"], tensorboard=True)
    killed = begun(watched, data)
    killed.folder.save_state = lambda state: 1 / 0 if state["tasks_done"] == 2 else None
    with pytest.raises(ZeroDivisionError):
        killed()
    (old,) = (tmp_path / "exp_0").glob("events.out.tfevents.*")
    kept = tmp_path / "reader" / "exp_0"
    kept.mkdir(parents=True)
    shutil.copy(old, kept / "events.out.tfevents.1")  # what TensorBoard had read
    begun(watched, data)()
    (new,) = (tmp_path / "exp_0").glob("events.out.tfevents.*")
    assert new != old
    shutil.copy(new, kept / "events.out.tfevents.2")
    assert events(kept.parent) == events(tmp_path)
    assert sum(map(len, events(tmp_path).values())) == len(table(tmp_path))


def test_tensorboard_that_is_not_there_is_missed_before_anything_runs(two_tasks, run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plan, "find_spec", lambda name: None)
    two_tasks["train"]["tensorboard"] = True
    assert run(two_tasks) == 2
    error = capsys.readouterr().err
    assert (
        "train.tensorboard: the package is not installed; pip install tensorboard" in error
        and "\n" not in error.strip()
    )
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", known())
def test_every_method_is_estimated(small, tmp_path, name):
    small["method"] = method_settings(name)
    (experiment,) = plan.plan(_options(small, tmp_path))
    state = torch.get_rng_state()
    seconds, size = check.estimate(experiment)
    assert torch.equal(state, torch.get_rng_state())
    assert 0 < seconds < 600 and size > 0


def _options(tree: dict, tmp_path: Path, *more: str):
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(tree))
    return parse([str(path), *more])


def test_time_grows_with_the_work_and_disk_is_what_is_used(small, run, tmp_path):
    small["method"] = method_settings("oewc")
    small["train"]["checkpoint_minutes"] = 0
    (short, size), (long, _) = (
        check.estimate(plan.plan(_options(small, tmp_path, "--set", f"train.epochs={epochs}"))[0])
        for epochs in (2, 200)
    )
    assert long > 10 * short
    assert run(small) == 0
    used = sum(path.stat().st_size for path in (tmp_path / "results").rglob("*.pt*"))
    assert size / 3 < used < 1.2 * size
    small["train"]["save"] = False
    assert check.estimate(plan.plan(_options(small, tmp_path))[0])[1] == 0


def test_an_estimate_is_of_the_right_size(small, run, tmp_path):
    """Real work, so that neither start-up nor chance decides: 5 times is what a busy machine may cost."""
    small["method"] = method_settings("prer", autoencoder={"epochs": 16}, flow={"epochs": 16})
    small["train"]["epochs"] = 16
    seconds, _ = check.estimate(plan.plan(_options(small, tmp_path))[0])
    assert run(small) == 0
    assert seconds / 5 < finished_runs(tmp_path / "results")[0]["time"]["total_s"] < 5 * seconds


def test_the_training_of_an_encoder_that_is_frozen_afterwards_is_counted(small, tmp_path, monkeypatch):
    small["method"] = method_settings("slda")  # trains nothing itself
    small["train"] |= {"epochs": 7, "batch_size": 8}
    monkeypatch.setattr(check, "_seconds_per_step", lambda *_: 100.0)
    (experiment,) = plan.plan(_options(small, tmp_path))
    steps = 7 * ceil(len(plan.build(experiment.config, experiment.data, 0, experiment.device)[0][0].train) / 8)
    assert check.estimate(experiment)[0] == pytest.approx(100 * steps, rel=0.05)


@pytest.mark.parametrize(
    ("name", "options", "images"),
    [
        ("naive", {}, [24, 24, 24]),
        ("joint", {}, [24, 48, 72]),
        ("gdumb", {"memory_size": 32}, [24, 32, 32]),
        ("icarl", {"memory_size": 32}, [24, 48, 56]),
    ],
)
def test_the_images_that_a_task_trains_on_are_counted(small, tmp_path, monkeypatch, name, options, images):
    small["method"] = method_settings(name, **options)
    small["scenario"]["dev_split"] = 0
    small["train"] |= {"epochs": 7, "batch_size": 8}
    monkeypatch.setattr(check, "_seconds_per_step", lambda *_: 100.0)
    (experiment,) = plan.plan(_options(small, tmp_path))
    assert check.estimate(experiment)[0] == pytest.approx(100 * 7 * sum(images) / 8, rel=0.05)


@pytest.mark.parametrize(("evaluate", "splits", "images"), [("all", "all", 9 * 32), ("seen", "test", 6 * 8)])
def test_the_images_that_are_evaluated_are_counted(small, tmp_path, evaluate, splits, images):
    small["scenario"]["dev_split"] = 0.25
    small["train"] |= {"evaluate": evaluate, "evaluate_splits": splits}
    (experiment,) = plan.plan(_options(small, tmp_path))
    tasks = plan.build(experiment.config, experiment.data, 0, experiment.device)[0]
    assert {(len(task.train), len(task.dev), len(task.test)) for task in tasks} == {(18, 6, 8)}
    assert check._evaluated(experiment.config, tasks) == images


def test_fits_are_shortened_and_the_share_is_known():
    settings = find("prer")[1].model_validate(method_settings("prer", autoencoder={"epochs": 30}, flow={"epochs": 4}))
    short, share = check._shortened(settings)
    assert (short.autoencoder.epochs, short.flow.epochs, share) == (3, 1, 0.1)


@pytest.mark.parametrize(
    ("name", "options", "in_steps"),
    [
        ("prer", {}, False),
        ("prer", {"flow": {"steps": 9}}, True),
        ("gfr", {"gan": {"epochs": None}}, True),
        ("gfr", {"gan": {"epochs": 2}}, False),
        ("naive", {}, False),
    ],
)
def test_fits_in_steps_are_not_longer_for_more_images(name, options, in_steps):
    assert check._fits_in_steps(find(name)[1].model_validate(method_settings(name, **options))) == in_steps


def test_check_shows_the_configuration_once_and_then_the_queue(small, run, capsys, tmp_path):
    small["scenario"]["dev_split"] = 0.25
    small["sweep"] = {"train.lr": [0.1, 0.2], "train.epochs": [1, 2, 3]}
    assert run(small, "--check", "--seeds", "0-3", "--jobs", "2") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"# {tmp_path / 'experiment.yaml'} (sweep: ") and "), the first of 6 points\n" in said
    assert said.count("scenario:\n") == 1 and said.count("tasks of seed 0:") == 1
    assert re.search(r"estimate per seed: \d:\d\d:\d\d, [\d.]+ MB on disk\n", said)
    assert re.search(r"total of runs: 24, about \d:\d\d:\d\d, \d:\d\d:\d\d with 2 in parallel, [\d.]+ MB", said)
    assert "within a factor of 2" in said and "Not counted: " in said
    assert not (tmp_path / "results").exists()


def test_an_estimate_that_fails_does_not_stop_the_check(small, run, capsys, monkeypatch):
    def fails(experiment) -> None:
        raise FloatingPointError("no sample near its data")

    monkeypatch.setattr(check, "estimate", fails)
    assert run(small, "--check") == 0
    assert "no estimate, counted as 0 s (FloatingPointError: no sample near its data)" in capsys.readouterr().out
