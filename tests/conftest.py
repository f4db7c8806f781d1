"""What many tests need: small data, a small experiment, and the command line."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, settings

from datasets.data import Data, Split, Task
from datasets.tasks import split_by_class
from main import main
from methods import Method, MethodConfig, find
from methods.mechanisms import rehearsal
from methods.mechanisms.gradients import flat_gradients
from methods.prer import PRER
from methods.prer_features import PRERFeatures
from models.encoders import identity, paper
from models.learner import HEADS, Learner
from utils.config.schema import Config
from utils.run.evaluation import evaluating
from utils.run.signals import Stop
from utils.run.training import train_step

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start: two tests run side by side
CPU = torch.device("cpu")
collect_ignore = ["ray_nodes.py", "slurm_commands.py"]  # programs that tests start
settings.register_profile(
    "short", max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
settings.register_profile("long", settings.get_profile("short"), max_examples=1500, derandomize=False)
settings.load_profile("short")


def make_data(classes: int = 6, train: int = 24, test: int = 10, shape: tuple[int, int, int] = (1, 28, 28)) -> Data:
    """Noisy images around one random smooth pattern a class: learnable in a few steps."""
    g = torch.Generator().manual_seed(0)
    coarse = torch.rand(classes, shape[0], 4, 4, generator=g)
    patterns = torch.nn.functional.interpolate(coarse, size=shape[1:], mode="bilinear")

    def split(n: int) -> Split:
        y = torch.arange(classes).repeat_interleave(n)
        x = patterns[y] + 0.1 * torch.randn(len(y), *shape, generator=g)
        return Split((x.clamp(0, 1) * 255).to(torch.uint8), y)

    return Data(split(train), split(test), tuple(f"c{i}" for i in range(classes)))


def few_images() -> Data:
    """The data of test modules that do many whole runs: as many classes, few and small images."""
    return make_data(train=12, test=4, shape=(1, 16, 16))


@pytest.fixture
def quick_health(monkeypatch):
    """PRER's health from 60 generated samples: with 2000 it takes longer than the small fits."""
    monkeypatch.setattr(rehearsal, "JUDGED", 60)
    monkeypatch.setattr(rehearsal, "MIN_JUDGED", 10)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """The tests' tensors are small: one thread is faster than two that wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data() -> Data:
    return make_data()


SMALL_PRER = {
    "name": "prer",
    "plot": False,
    "autoencoder": {"epochs": 2, "batch_size": 32},
    "flow": {"epochs": 2, "batch_size": 32, "blocks": 1, "hidden_size": 16, "dimension": 8},
    "regularization": {"fixed_replay": 40},
    "weights": {"er": 1.0},
}
"""PRER's `method` section, as small as it gets."""
SMALL_FEATURES = {
    "name": "prer_features",
    "plot": False,
    "predict": "head",
    "flow": {**SMALL_PRER["flow"], "temperature": 1.0},
    "regularization": {"fixed_replay": 40},
    "weights": {"er": 0.0, "replay": 1.0},
}
"""The `method` section of PRER on features, as small as it gets."""
SMALL = {
    "prer": SMALL_PRER,
    "prer_features": SMALL_FEATURES,
    "dgr": {"fixed_replay": 40, "vae": {"epochs": 2, "batch_size": 32, "latent": 8}},
    "bir": {"fixed_replay": 40, "vae": {"epochs": 2, "batch_size": 32, "latent": 8, "hidden_size": 16}},
    "gfr": {"fixed_replay": 40, "gan": {"epochs": 2, "batch_size": 32, "hidden_size": 16, "latent": 8}},
    "agem": {"memory_per_task": 30, "sample_size": 16},
    "ranpac": {"width": 50},
}
GROUPS = [(0, 1), (2, 3), (4, 5)]
"""Three tasks of the small data."""


def merged(tree: dict, changes: dict) -> dict:
    """The tree with the changes made in it, at any depth."""
    return {**tree, **{k: merged(tree.get(k, {}), v) if isinstance(v, dict) else v for k, v in changes.items()}}


def make_method(name: str, scenario: str = "task", dropout: float = 0.0, on: str = "", **options) -> Method:
    """A small method of any name on the paper's network, with options of its own; `on` features, on a linear layer."""
    method, config = find(name)
    torch.manual_seed(0)
    encoder = identity.build((64,), 20) if (on or method.works_on) == "features" else paper.build((1, 28, 28), 20)
    learner = Learner(encoder, HEADS["paper"](dropout), scenario, GROUPS)
    settings = config.model_validate(method_settings(name, **options))
    return method(settings.in_scenario(scenario), learner, torch.Generator().manual_seed(0))


def make_prer(scenario: str = "task", **changes) -> PRER:
    """A small PRER with changes in its settings."""
    return make_method("prer", scenario, **changes)


def make_features(scenario: str = "task", **changes) -> PRERFeatures:
    """A small PRER on features with changes in its settings."""
    return make_method("prer_features", scenario, **changes)


def total_loss(method: Method, x: torch.Tensor, y: torch.Tensor, task: Task) -> torch.Tensor:
    """What a step minimises: the sum of the terms of the method's loss."""
    return sum(method.loss(x, y, task).values())


def backward(method: Method, task: Task, at: slice = slice(0, 16)) -> torch.Tensor:
    """The gradient of a method's loss on some images of a task, as one vector."""
    method.learner.zero_grad()
    x, y = task.train.batch(at)
    total_loss(method, x, y, task).backward()
    return flat_gradients(method.learner.parameters()).clone()


@pytest.fixture(scope="session")
def tasks(data: Data) -> list[Task]:
    """The small data's tasks, in order."""
    return split_by_class(data, GROUPS, 0.0, torch.Generator(), CPU)


@pytest.fixture(scope="session")
def feature_tasks(data: Data) -> list[Task]:
    """The same tasks with 64 features for each image, its means over 8 x 8 parts."""

    def pooled(split: Split) -> Split:
        return Split(torch.nn.functional.adaptive_avg_pool2d(split.batch(slice(None))[0], 8).flatten(1), split.y)

    features = replace(data, train=pooled(data.train), test=pooled(data.test))
    return split_by_class(features, GROUPS, 0.0, torch.Generator(), CPU)


class After(Stop):
    """Somebody asks to stop when it was looked at so many times."""

    def __init__(self, times: int) -> None:
        self.left = times

    @property
    def requested(self) -> str | None:
        self.left -= 1
        return "SIGTERM" if self.left < 0 else None


def method_settings(name: str, **options) -> dict:
    """The `method` section of a small run of any method."""
    return merged({**SMALL.get(name, {}), "name": name, "plot": False}, options)


def with_method(experiment: Config, method: MethodConfig) -> Config:
    """The experiment with other options of a method, those that the scenario decides too."""
    return experiment.model_copy(update={"method": method.in_scenario(experiment.scenario.type)})


def step(method: Method, optimizer: torch.optim.Optimizer, task: Task, generator: torch.Generator) -> torch.Tensor:
    """One step on 16 images of a task; returns the loss."""
    x, y = task.train.batch(torch.randint(len(task.train), (16,), generator=generator))
    return train_step(method, optimizer, x, y, task)["loss"]


def train(method: Method, task: Task, steps: int = 3, end: bool = True, lr: float = 1e-3) -> None:
    """As the runner does it, in short: between the hooks the global generator is nobody's but dropout's."""
    method.learner.see(task.index)
    with torch.random.fork_rng(), evaluating(method.learner):
        training = method.begin_task(task)
    method.learner.see(task.index + 1)
    optimizer = torch.optim.Adam(method.learner.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(task.index)
    for _ in range(steps * method.trains):
        step(method, optimizer, training, generator)
    if end:
        with torch.random.fork_rng(), evaluating(method.learner):
            method.end_task(training)


def tensors_of(thing, seen=None):
    """Every tensor that can be reached from an object through attributes, containers and state."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        yield thing
    elif isinstance(thing, dict):
        for value in thing.values():
            yield from tensors_of(value, seen)
    elif isinstance(thing, (list, tuple, set)):
        for value in thing:
            yield from tensors_of(value, seen)
    elif hasattr(thing, "__dict__"):
        yield from tensors_of(vars(thing), seen)


@pytest.fixture
def npz(tmp_path: Path, data: Data) -> Path:
    """The small data as a user's .npz file."""
    path = tmp_path / "small.npz"
    arrays = {"x_train": data.train.x, "y_train": data.train.y, "x_test": data.test.x, "y_test": data.test.y}
    np.savez(path, **{name: value.numpy() for name, value in arrays.items()})
    return path


@pytest.fixture
def small(tmp_path: Path, npz: Path) -> dict:
    """A whole small experiment, as the tree of its YAML."""
    return {
        "method": {"name": "naive", "plot": False},
        "scenario": {"dataset": {"name": "npz", "path": str(npz)}, "labels_per_task": 2},
        "train": {"epochs": 2, "batch_size": 16, "device": "cpu", "save_path": str(tmp_path / "results")},
    }


@pytest.fixture
def run(tmp_path: Path):
    """run(tree, *options): write the tree as YAML and call the command line; returns the exit code."""

    def call(tree: dict | str, *options: str) -> int:
        path = tmp_path / "experiment.yaml"
        path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
        try:
            return main([str(path), *options])
        except SystemExit as stop:
            return stop.code

    return call
