"""On a GPU: the same results as on CPU, captured steps equal eager ones, runs resume, memory does not grow."""

import warnings
from pathlib import Path

import pytest
import torch
import yaml
from conftest import make_data, merged, method_settings
from test_resume import After

import methods
from main import main
from models import captured
from models.captured import CUDAGraph, capturing
from utils.config.schema import Config
from utils.run.evaluation import evaluating
from utils.run.runner import Run
from utils.run.signals import Interrupted, Stop
from utils.run.training import train_step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
GPU = torch.device("cuda", 0)
SET_PER_TASK = ("der", "er_ace")
STATIC = [name for name in methods.known() if methods.find(name)[0].static or name in SET_PER_TASK]


def tree(name: str, folder: Path, scenario: str = "task", **train) -> dict:
    """A small run of a method: 6 classes in tasks of 2, 48 images each, 3 batches per epoch."""
    generators = {"dgr": {"vae": {"epochs": 4}}, "gfr": {"gan": {"epochs": 4}}}
    return {
        "method": method_settings(name, **generators.get(name, {})),
        "scenario": {"dataset": "digits", "labels_per_task": 2, "type": scenario},
        "train": {
            "batch_size": 16,
            "epochs": 2,
            "save_path": str(folder),
            "checkpoint_minutes": 0,
            "deterministic": True,
            **train,
        },
    }


def make_run(settings: dict, device: torch.device = GPU, stop: Stop | None = None, classes: int = 6) -> Run:
    _, options = methods.find(settings["method"]["name"])
    config = Config.model_validate(settings | {"method": options.model_validate(settings["method"])})
    run = Run(config, make_data(classes), 0, device, stop)
    run.folder.path.mkdir(parents=True, exist_ok=True)
    return run


def state_of(run: Run) -> dict[str, torch.Tensor]:
    """Every tensor of the learner and the method."""
    state = {**run.learner.state_dict(prefix="learner."), **run.method.state_dict(prefix="method.")}
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different, f"{len(different)} of {len(one)} tensors differ, the first is {different[0]}"


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every replay of a graph."""
    seen: list[int] = []
    replay = CUDAGraph.replay
    monkeypatch.setattr(CUDAGraph, "replay", lambda self: (seen.append(1), replay(self))[1])
    return seen


@pytest.mark.parametrize(
    ("name", "scenario"),
    [(name, scenario) for name in STATIC for scenario in methods.find(name)[0].scenarios if scenario != "domain"],
)
def test_captured_steps_equal_eager_ones_bit_for_bit(name, scenario, tmp_path, replays):
    epochs = 100  # 300 steps per task
    runs = []
    for graphs in (False, True):
        settings = tree(name, tmp_path / str(graphs), scenario, epochs=epochs, cuda_graphs=graphs, save=False)
        runs.append(make_run(settings))
        runs[-1](tasks=2)
        assert bool(replays) is graphs
    assert len(replays) >= 2 * (3 * epochs - captured.WARM_UP), "steps of both tasks were replayed"
    assert_equal(state_of(runs[0]), state_of(runs[1]))


VARIANTS = {
    "augmented": ("replay", {}, {"augment": "crop_flip"}),
    "prer augmented": ("prer", {}, {"augment": "flip"}),
    "prer predict both": ("prer", {"predict": "both"}, {}),
    "prer separate flows": ("prer", {"flow": {"conditioning": {"type": "separate"}}}, {}),
    "prer heads per task": ("prer", {"replay": {"current": "task", "targets": "both"}}, {}),
    "flow classifies": ("prer_features", {"predict": "flow", "flow": {"epochs": 12, "batch_size": 8}}, {}),
    "flow and heads classify": ("prer_features", {"predict": "both"}, {}),
    "steps of the generator": ("dgr", {"vae": {"steps": 20, "epochs": None}}, {}),
}
"""Options that change what a step does -> method, its options, those of the training."""


@pytest.mark.parametrize("variant", VARIANTS)
def test_options_are_captured_too(variant, tmp_path, replays):
    name, options, train = VARIANTS[variant]
    runs = []
    for graphs in (False, True):
        settings = tree(name, tmp_path / str(graphs), "class", epochs=20, cuda_graphs=graphs, save=False, **train)
        runs.append(make_run(settings | {"method": merged(settings["method"], options)}))
        runs[-1](tasks=2)
        assert bool(replays) is graphs
    assert_equal(state_of(runs[0]), state_of(runs[1]))


@pytest.mark.parametrize("scenario", ["task", "class"])
@pytest.mark.parametrize("name", ["naive", "der", "prer"])
def test_measuring_between_replays_changes_no_bit(name, scenario, tmp_path, replays):
    runs = []
    for every, graphs in ((None, True), (7, True), (7, False)):
        settings = tree(name, tmp_path / f"{every}_{graphs}", scenario, epochs=20, cuda_graphs=graphs, save=False)
        settings["train"]["evaluate_every"] = every
        runs.append(make_run(settings))
        runs[-1](tasks=2)
    assert replays
    assert_equal(state_of(runs[0]), state_of(runs[1]))
    assert_equal(state_of(runs[1]), state_of(runs[2]))
    captured, eager = (run.recording.results["test"]["anytime"] for run in runs[1:])
    assert captured == eager and [len(of_task) for of_task in eager] == [60 // 7] * 2


@pytest.mark.parametrize("name", [name for name in methods.known() if methods.find(name)[0].trains])
def test_a_step_never_waits_for_the_device(name, tmp_path):
    run = make_run(tree(name, tmp_path))
    run(tasks=1)
    with evaluating(run.learner):
        task = run.method.begin_task(run.tasks[1])
    index = torch.arange(16, device=GPU)
    run.learner.train()
    train_step(run.method, run.optimizer, *task.train.batch(index), task)
    torch.cuda.synchronize()
    try:
        with warnings.catch_warnings(action="ignore"):  # that it does not see every wait
            torch.cuda.set_sync_debug_mode("error")
        if name in STATIC:
            train_step(run.method, run.optimizer, *task.train.batch(index), task)
        else:
            with pytest.raises(RuntimeError, match="synchronizing"):
                train_step(run.method, run.optimizer, *task.train.batch(index), task)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", methods.known())
def test_scores_are_close_to_those_on_cpu(name, tmp_path):
    matrices = []
    for device in (torch.device("cpu"), GPU):
        run = make_run(tree(name, tmp_path / device.type, epochs=10, save=False), device)
        matrices.append(torch.tensor(run()["test"]["accuracy_matrix"]))
    cpu, gpu = matrices
    assert (cpu.diagonal().mean() - gpu.diagonal().mean()).abs() < 0.1
    assert (cpu[-1].mean() - gpu[-1].mean()).abs() < 0.2  # forgetting differs from seed to seed


@pytest.mark.parametrize("looks", [5, 12, 24, 40])
@pytest.mark.parametrize("name", ["naive", "der", "si", "prer", "gfr"])
def test_a_stopped_run_continues_with_the_same_bits(name, looks, tmp_path):
    whole = make_run(tree(name, tmp_path / "whole", epochs=4))
    whole(tasks=2)
    settings = tree(name, tmp_path / "stopped", epochs=4)
    with pytest.raises(Interrupted):
        make_run(settings, stop=After(looks))(tasks=2)
    again = make_run(settings)
    again(tasks=2)
    assert_equal(state_of(whole), state_of(again))


def test_memory_does_not_grow_from_task_to_task(tmp_path):
    run = make_run(tree("prer", tmp_path, save=False), classes=20)
    held = []
    save = run._save

    def measuring(tasks_done: int) -> None:
        save(tasks_done)
        held.append(torch.cuda.memory_allocated(GPU))

    run._save = measuring
    run()
    assert len(held) == 11
    assert held[-1] - held[3] < 2**20, held


def test_a_step_that_cannot_be_captured_runs_eagerly_and_says_why(tmp_path, caplog, monkeypatch):
    method, _ = methods.find("naive")
    loss = method.loss

    def reading(self, x, y, task):
        terms = loss(self, x, y, task)
        terms["cross_entropy"].item()  # waits for the device
        return terms

    settings = tree("naive", tmp_path / "run", epochs=4, save=False)
    run = make_run(settings | {"train": settings["train"] | {"cuda_graphs": False}})
    run(tasks=2)
    monkeypatch.setattr(method, "loss", reading)
    monkeypatch.setattr(captured.log, "propagate", True)
    caplog.set_level("INFO", logger=captured.log.name)
    refused = make_run(settings)
    refused(tasks=2)
    assert sum("steps run eagerly" in line for line in caplog.messages) == 1
    assert_equal(state_of(run), state_of(refused))


def test_jobs_share_one_card(tmp_path):
    path, settings = tmp_path / "experiment.yaml", tree("naive", tmp_path / "one", device="cuda")
    path.write_text(yaml.safe_dump(settings))
    assert main([str(path), "--seeds", "0,1"]) == 0
    assert main([str(path), "--seeds", "0,1", "--jobs", "2", "--set", f"train.save_path={tmp_path}/two"]) == 0
    for seed in (0, 1):
        one, two = ((tmp_path / name / f"exp_{seed}/metrics.csv").read_text() for name in ("one", "two"))
        assert len(one.splitlines()) == len(two.splitlines())


def test_capturing_is_off_outside_of_a_run():
    assert captured._reasons.get() is None
    with capturing(True):
        assert captured._reasons.get() == set()
