"""The loop: what a seed decides, what evaluation leaves alone, and what a resumed run is."""

import copy
import shutil
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import CPU, SMALL_PRER, few_images, method_settings, with_method

from datasets.data import Data
from methods import Method, find, known
from utils.config.load import load
from utils.config.schema import Config
from utils.run import evaluation, training
from utils.run.build import SCHEDULES, build_learner, build_optimizer, build_tasks
from utils.run.evaluation import accuracy, confusion, evaluating, predict
from utils.run.runner import Run
from utils.run.streams import generator, isolated
from utils.store.files import read_pickle
from utils.store.folder import finished_runs

pytestmark = pytest.mark.usefixtures("quick_health")


@pytest.fixture(scope="session")
def data() -> Data:
    return few_images()


@pytest.fixture
def config(small, tmp_path):
    def make(**changes) -> Config:
        tree = copy.deepcopy(small)
        for dotted, value in changes.items():
            section, key = dotted.split("__")
            tree[section][key] = value
        _, options = find(tree["method"]["name"])
        tree["method"] = options.model_validate(tree["method"])
        return Config.model_validate(tree)

    return make


def weights(run: Run) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in run.learner.parameters()])


def results_of(run: Run) -> dict:
    return run.recording.results


def started(config, data, seed=0) -> Run:
    run = Run(config, data, seed, CPU)
    run.folder.path.mkdir(parents=True, exist_ok=True)
    return run


def finished(config, data, seed=0) -> Run:
    run = started(config, data, seed)
    run()
    return run


@pytest.mark.parametrize("name", ["naive", "prer"])
def test_the_same_seed_gives_the_same_weights_and_another_gives_others(config, data, name, tmp_path):
    method = method_settings(name)
    runs = []
    for folder, seed in (("a", 3), ("b", 3), ("c", 4)):
        experiment = config(train__save_path=str(tmp_path / folder))
        _, options = find(name)
        experiment = with_method(experiment, options.model_validate(method))
        torch.manual_seed(hash(folder) % 1000)  # whatever was drawn before
        runs.append(finished(experiment, data, seed))
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    assert results_of(runs[0])["test"] == results_of(runs[1])["test"]
    assert not torch.equal(weights(runs[0]), weights(runs[2]))


def test_seeds_differ_in_initialisation_and_in_data_order(config, data, tmp_path, monkeypatch):
    tasks = build_tasks(config(), data, 0, CPU)
    first, second = (build_learner(config(), tasks, seed).state_dict() for seed in (0, 1))
    assert all(not torch.equal(first[key], second[key]) for key in first)
    naive, _ = find("naive")
    seen, loss = [], naive.loss
    monkeypatch.setattr(
        naive, "loss", lambda self, x, y, task: (seen.extend(x.flatten(1).sum(1)), loss(self, x, y, task))[1]
    )
    orders = []
    for number, seed in enumerate((0, 0, 1)):
        seen.clear()
        started(config(train__save_path=str(tmp_path / str(number)), train__epochs=1), data, seed)(tasks=1)
        orders.append([float(value) for value in seen])
    assert orders[0] == orders[1] and orders[0] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]), "an epoch is a pass over all of them"


def test_prer_without_weight_is_naive_bit_for_bit(config, data, tmp_path):
    """In whole runs; in every scenario, and for every method that can be switched off, in tests/test_methods.py."""
    scenario = "class"
    naive = finished(config(scenario__type=scenario, train__save_path=str(tmp_path / "naive")), data)
    prer = config(scenario__type=scenario, train__save_path=str(tmp_path / "prer"))
    _, options = find("prer")
    off = options.model_validate({**SMALL_PRER, "weights": {"er": 0.0, "replay": 0.0}})
    held = finished(with_method(prer, off), data)
    assert torch.equal(weights(naive), weights(held))
    scores = [
        {name: value for name, value in results_of(run)["test"].items() if name != "auroc"} for run in (naive, held)
    ]
    assert scores[0] == scores[1], "but for AUROC, which is that of the flow's density"


def test_evaluation_leaves_modes_buffers_and_random_state_untouched(config, data):
    run = Run(config(), data, 0, CPU)
    run.learner.train()
    run.learner.heads[0].eval()  # a mixture of modes, on purpose
    modes = {name: module.training for name, module in run.learner.named_modules()}
    state = copy.deepcopy(run.learner.state_dict())
    before, streams = torch.get_rng_state(), run.streams.state_dict()
    counts = confusion([predict(run.method, run.tasks[1].test, 1, scored=True)], 6)
    assert counts.sum() == len(run.tasks[1].test)
    assert accuracy(run.method, run.tasks[1].test, 1) == counts.trace() / counts.sum()
    assert modes == {name: module.training for name, module in run.learner.named_modules()}
    assert all(torch.equal(value, state[key]) for key, value in run.learner.state_dict().items())
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, streams[key]) for key, value in run.streams.state_dict().items())
    with pytest.raises(RuntimeError, match="on purpose"), evaluating(run.learner):
        raise RuntimeError("on purpose")
    assert modes == {name: module.training for name, module in run.learner.named_modules()}


def test_sampling_and_drawing_leave_training_s_random_state_untouched(config, data, tmp_path):
    results = []
    for plot in (False, True):
        experiment = config(train__save_path=str(tmp_path / str(plot)))
        method = find("prer")[1].model_validate({**SMALL_PRER, "plot": plot})
        results.append(finished(with_method(experiment, method), data))
    assert torch.equal(weights(results[0]), weights(results[1]))
    assert results_of(results[0])["diagnostics"] == results_of(results[1])["diagnostics"]


def test_isolation_restores_the_global_generator():
    stream, before = generator(0, "x"), torch.get_rng_state()
    with isolated(stream):
        first = torch.rand(3)
    with isolated(stream):
        second = torch.rand(3)
    with isolated(generator(0, "x")):
        again = torch.rand(3)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, again) and not torch.equal(first, second)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("name", ["naive", "ewc", "prer"])
@pytest.mark.parametrize("after", [0, 1])
def test_a_seed_that_dies_between_tasks_goes_on_to_the_same_bits(config, data, name, after, tmp_path, monkeypatch):
    def experiment(folder):
        method = method_settings(name)
        made = config(train__save_path=str(tmp_path / folder), train__reset_optimizer=after == 0)
        return with_method(made, find(name)[1].model_validate(method))

    whole = finished(experiment("whole"), data)
    broken = started(experiment("broken"), data)
    learn = broken._learn

    def until(task):
        if task.index > after:
            raise Interrupted
        learn(task)

    monkeypatch.setattr(broken, "_learn", until)
    with pytest.raises(Interrupted):
        broken()
    resumed = finished(experiment("broken"), data)
    assert torch.equal(weights(whole), weights(resumed))
    for key in ("test", "train", "epochs", "diagnostics", "memory_by_task"):
        assert results_of(whole)[key] == results_of(resumed)[key], key
    assert whole.steps == resumed.steps
    assert read_pickle(resumed.folder.final)["test"] == results_of(whole)["test"]


def test_selection_on_dev_keeps_the_best_epoch_s_weights(config, data, monkeypatch):
    """The original kept the best weights by reference, so that restoring them did nothing; and chose on test data."""
    from utils.run import training

    run = Run(config(train__selection="dev", train__epochs=4, scenario__dev_split=0.25), data, 0, CPU)
    snapshots, given = [], iter([0.3, 0.9, 0.9, 0.1])

    def watched(method, split, task):
        assert split is run.tasks[0].dev
        snapshots.append(copy.deepcopy(method.learner.state_dict()))
        return next(given)

    monkeypatch.setattr(training, "accuracy", watched)
    run._learn(run.tasks[0])
    kept = run.learner.state_dict()
    assert all(torch.equal(kept[key], value) for key, value in snapshots[1].items())
    assert not all(torch.equal(kept[key], value) for key, value in snapshots[3].items())


def test_steps_instead_of_epochs(config, data):
    run = Run(config(train__steps=5), data, 0, CPU)  # a task has 24 images, 2 batches of at most 16
    calls = []
    run.method.after_backward = lambda: calls.append(1)
    run._learn(run.tasks[0])
    assert len(calls) == run.steps == 5 and len(run.recording.results["epochs"][0]) == 3


def test_a_loss_that_is_not_finite_stops_the_seed_and_says_where(small, run, capsys, tmp_path):
    small["train"] |= {"lr": 1e30, "optimizer": "sgd"}
    assert run(small) == 1
    error = capsys.readouterr().err
    assert "seed 0 failed: TrainingFailed: task 0, epoch" in error and "Traceback" not in error
    assert "Traceback" in (tmp_path / "results" / "exp_0" / "experiment.log").read_text()


def test_a_per_cent_sign_in_the_folder_s_name_and_numbers_of_numpy_are_taken(small, run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("methods.naive.Naive.diagnostics", lambda self, dev: {"norm": np.float64(0.5)}, raising=False)
    root = tmp_path / "50%_x"
    assert run(small, "--set", f"train.save_path={root}") == 0
    assert "50%_x seed 0: task 0 learned" in capsys.readouterr().out
    assert finished_runs(root)[0]["diagnostics"] == [{"norm": 0.5}] * 3


def test_a_failed_seed_does_not_take_the_others(small, run, capsys, tmp_path, monkeypatch):
    learn = Run._learn

    def unlucky(self, task):
        if self.seed == 1:
            raise RuntimeError("bad luck")
        learn(self, task)

    monkeypatch.setattr(Run, "_learn", unlucky)
    small["train"]["experiments"] = 3
    assert run(small) == 1
    error = capsys.readouterr().err
    assert "seed 1 failed: RuntimeError: bad luck" in error
    assert error.splitlines()[-1].startswith(f"failed: {tmp_path / 'results'} seed 1, see ")
    assert "2 seeds (0, 2)" in (tmp_path / "results" / "final_score.log").read_text()
    monkeypatch.undo()
    assert run(small) == 0
    assert "3 seeds (0, 1, 2)" in (tmp_path / "results" / "final_score.log").read_text()


@pytest.mark.parametrize("name", ["joint", "cumulative"])
def test_joint_trains_on_everything_and_says_what_it_keeps(config, data, name):
    run = finished(config(method__name=name), data)
    trained, untrained = weights(run), weights(started(config(method__name=name), data))
    assert [m["stored_real_samples"] for m in results_of(run)["memory_by_task"]] == [24, 48, 72]
    training = run.method.begin_task(run.tasks[2])
    assert training.classes == (0, 1, 2, 3, 4, 5)
    assert len(training.train) == 72 + 24  # the last task was stored, and comes again
    assert torch.equal(weights(run), untrained if name == "joint" else trained)


def test_prer_on_features_holds_as_many_numbers_after_every_task(config, data):
    method = find("prer_features")[1].model_validate(method_settings("prer_features"))
    run = finished(with_method(config(), method), data)
    held = results_of(run)["memory_by_task"]
    assert len(held) == 3 and all(after == held[0] for after in held)
    assert held[0]["stored_real_samples"] == 0 and run.method.rehearsal is None


def test_a_method_s_buffers_may_grow(data):
    class Growing(Method):
        def __init__(self):
            super().__init__(None, SimpleNamespace(scenario="task"), torch.Generator())
            self.register_buffer("kept", torch.zeros(0))

    old, new = Growing(), Growing()
    old.kept = torch.arange(5.0)
    new.load_state_dict(old.state_dict())
    assert torch.equal(new.kept, old.kept) and new.kept is not old.kept


def test_the_program_loads_what_it_wrote(small, run, tmp_path):
    assert run(small) == 0
    again = load(tmp_path / "results" / "config.yml")
    assert again.dump() == load(tmp_path / "experiment.yaml").on_data(again.scenario.fingerprint).dump()


def test_train_scores_are_of_every_class_whatever_the_order(config, data, monkeypatch):
    monkeypatch.setattr(evaluation, "SCORED_TRAINING_IMAGES", 10)
    tasks = build_tasks(config(scenario__labels_per_task=3), data, 0, CPU)
    by_class = tasks[0].train.take(tasks[0].train.y.argsort(stable=True))
    assert sorted(evaluation.scored_part(by_class).y.bincount().tolist()) == [3, 3, 4]


def test_no_evaluation_depends_on_the_order_of_the_test_data(config, data):
    run = finished(config(), data)
    for task in run.tasks:
        shuffled = task.test.take(torch.randperm(len(task.test)))
        one, other = ([predict(run.method, split, task.index)] for split in (task.test, shuffled))
        assert (confusion(one, 6) == confusion(other, 6)).all()
        assert np.allclose(evaluation.calibration(one), evaluation.calibration(other))


def test_the_state_of_the_method_goes_back_with_the_weights_of_the_best_epoch(config, data, monkeypatch):
    """SI's path would take the way back to them for a step."""
    reached = iter([0.1, 0.9, 0.2, 0.3])
    monkeypatch.setattr(training, "accuracy", lambda *_: next(reached))
    settings = config(method__name="si", train__selection="dev", train__epochs=4, scenario__dev_split=0.25)
    run, ends = started(settings, data), []
    monkeypatch.setattr(type(run.method), "end_task", lambda self, task: ends.append(copy.deepcopy(self.state_dict())))
    run(tasks=1)
    reached = iter([0.1, 0.9])
    monkeypatch.setattr(training, "accuracy", lambda *_: next(reached))
    settings = config(method__name="si", train__selection="dev", train__epochs=2, scenario__dev_split=0.25)
    settings = settings.saved_in(settings.save_path / "short")
    short = Run(settings, data, 0, CPU)
    short.folder.path.mkdir(parents=True)
    short(tasks=1)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.long
@pytest.mark.parametrize("name", known())
def test_every_method_runs_with_every_optimizer(config, data, name, tmp_path):
    optimizers = [("adam", 0.0, 0.0), ("sgd", 0.0, 0.0), ("sgd", 0.9, 0.0), ("sgd", 0.9, 1e-4)]
    for (optimizer, momentum, decay), reset, scenario in product(optimizers, (True, False), find(name)[0].scenarios):
        train = {"optimizer": optimizer, "momentum": momentum, "weight_decay": decay, "reset_optimizer": reset}
        changes = {f"train__{key}": value for key, value in train.items()} | {"scenario__type": scenario}
        settings = config(**changes, train__epochs=1, train__save=False, train__save_path=str(tmp_path / "run"))
        method = find(name)[1].model_validate(method_settings(name))
        finished(with_method(settings, method), data)
        shutil.rmtree(tmp_path / "run")


def test_an_optimizer_that_is_not_reset_keeps_its_moments_and_starts_each_task_at_the_full_rate(config, data):
    run = started(config(train__reset_optimizer=False, train__schedule="cosine"), data)
    run.recording.begin(run.method, CPU)
    optimizer = run.optimizer
    run._learn(run.tasks[0])
    run._evaluate(run.tasks[0])
    run._save(1)
    moment = next(iter(optimizer.state.values()))["exp_avg"].clone()
    rates, moments, learn = [], [], run.method.after_backward

    def watched() -> None:
        rates.append(run.optimizer.param_groups[0]["lr"])
        moments.append(next(iter(run.optimizer.state.values()))["exp_avg"].clone())
        learn()

    run.method.after_backward = watched
    run._learn(run.tasks[1])
    assert run.optimizer is optimizer and moment.abs().sum() > 0 and torch.equal(moments[0], moment)
    assert rates[0] == 1e-3 and rates[-1] < rates[0]
    fresh = Run(config(), data, 0, CPU)
    optimizer = fresh.optimizer
    fresh._learn(fresh.tasks[0])
    assert fresh.optimizer is not optimizer


def test_optimizers_and_schedules(config, data):
    rates = {}
    for schedule in ("constant", "cosine"):
        run = Run(config(train__schedule=schedule, train__optimizer="sgd", train__momentum=0.9), data, 0, CPU)
        optimizer = build_optimizer(run.config.train, run.learner)
        assert optimizer.defaults["momentum"] == 0.9
        seen = SCHEDULES[schedule](optimizer, 10)
        rates[schedule] = []
        for _ in range(10):
            rates[schedule].append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            seen.step()
    assert rates["constant"] == [1e-3] * 10
    assert rates["cosine"][0] == 1e-3 and rates["cosine"][5] == pytest.approx(5e-4) and rates["cosine"][9] < 5e-5
    decayed = build_optimizer(config(train__weight_decay=0.1).train, run.learner)
    assert isinstance(decayed, torch.optim.Adam) and decayed.defaults["weight_decay"] == 0.1


def test_batch_normalisation_is_left_alone_by_hooks_and_evaluation(config, small, data, tmp_path):
    """ResNets have buffers: only training steps may move them."""
    small["model"] = {"encoder": {"name": "resnet18", "filters": 4}}
    experiment = config(train__save_path=str(tmp_path / "r"), train__epochs=1)
    method = find("prer")[1].model_validate(method_settings("prer", plot=True))
    run = started(with_method(experiment, method), data)
    run.recording.begin(run.method, CPU)
    run._learn(run.tasks[0])
    before = copy.deepcopy(run.learner.state_dict())
    assert any("running_mean" in key for key in before)
    with run._hook():
        run.method.end_task(run.tasks[0])
    run._evaluate(run.tasks[0])
    assert all(torch.equal(value, before[key]) for key, value in run.learner.state_dict().items())


def test_accuracies_during_training_are_of_training_data(config, data, monkeypatch):
    seen, measured = [], training.accuracy
    monkeypatch.setattr(training, "accuracy", lambda m, split, t: (seen.append(split), measured(m, split, t))[1])
    run = started(config(), data)
    run._learn(run.tasks[0])
    assert seen and all(torch.equal(split.x, run.tasks[0].train.x) for split in seen)
