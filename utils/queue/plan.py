"""From configuration files to experiments and their folders: everything is checked before anything is run."""

import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from math import ceil
from pathlib import Path

import torch

import datasets
from datasets.data import Data, Task
from methods import Method
from utils.config.schema import Config, TrainConfig
from utils.config.load import load_points
from utils.config.sweep import Sweep
from utils.config.yaml_text import as_yaml
from utils.queue import ranking
from utils.run.build import build_learner, build_method, build_tasks
from utils.run.evaluation import memory
from utils.run.streams import generator
from utils.settings import BadInput, prefix_errors
from utils.store import folder as results


@dataclass(frozen=True)
class Experiment:
    """One checked configuration with its data."""

    path: str  # its file, and its name in a sweep, for messages
    config: Config
    data: Data
    data_root: Path
    seeds: tuple[int, ...]
    device: torch.device
    sweep: Sweep | None = None  # that it is a point of

    @property
    def folder(self) -> Path:
        """The results folder; of a sweep's point, that of the sweep."""
        return self.sweep.root if self.sweep else self.config.save_path


def plan(options: Namespace) -> list[Experiment]:
    """Load and check everything that the command line asks for; writes nothing, and raises BadInput."""
    points = [point for path in options.configs for point in load_points(Path(path), options.set)]
    sweeps = {point.sweep: point.where for point in points if point.sweep}
    folders = [(sweep.root, where) for sweep, where in sweeps.items()]
    seen: dict[Path, str] = {}
    for folder, where in folders + [(point.config.save_path, point.where) for point in points]:
        if seen.setdefault(folder.resolve(), where) != where:
            raise BadInput(f"{where}: train.save_path: {folder} is used by two of these files; change one")
    loaded: dict[tuple[str, Path], Data] = {}
    experiments = []
    for point in points:
        config, train = point.config, point.config.train
        root = Path(options.data_root or os.environ.get("DATA_ROOT") or config.scenario.data_root or "data")
        key = (config.scenario.dataset.model_dump_json(), root)
        with prefix_errors(point.where):
            if key not in loaded:
                loaded[key] = datasets.load(config.scenario.dataset, root)
            seeds = options.seeds or tuple(range(train.experiments))
            device = _device(options.device or train.device, config.cluster.gpus, options.backend != "local")
            experiments.append(Experiment(point.where, config, loaded[key], root, seeds, device, point.sweep))
            _build(experiments[-1])  # raises BadInput now, not after an hour
            if train.tensorboard and find_spec("tensorboard") is None:
                raise BadInput("train.tensorboard: the package is not there; pip install tensorboard, or set it to no")
    return experiments


def _device(name: str, gpus: float, on_cluster: bool) -> torch.device:
    """The device `name` of this machine, or of a cluster that gives each seed this number of `gpus`."""
    if on_cluster:
        if gpus == 0 and name.startswith("cuda"):
            raise BadInput(f"train.device: {name} on a cluster needs cluster.gpus: 1, or 0.25 to share one")
        return torch.device("cuda" if gpus and name != "cpu" else "cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInput(f"train.device: {name} is not there: {torch.cuda.device_count()} CUDA devices; use cpu or auto")
    return device


def _build(experiment: Experiment) -> tuple[list[Task], Method]:
    config, cpu, seed = experiment.config, torch.device("cpu"), experiment.seeds[0]
    tasks = build_tasks(config, experiment.data, seed, cpu)
    learner = build_learner(config, experiment.data, tasks, seed)
    return tasks, build_method(config, learner, generator(seed, "method"))


def steps_of(train: TrainConfig, images: int) -> int:
    """The number of steps of a task with this number of images."""
    return train.steps or train.epochs * ceil(images / train.batch_size)


def explain(experiment: Experiment) -> str:
    """The resolved configuration, tasks, sizes and steps of an experiment, as text."""
    config, data, (tasks, method) = experiment.config, experiment.data, _build(experiment)
    lines, held, total = [as_yaml(config.dump()), f"tasks of seed {experiment.seeds[0]}:"], memory(method), 0
    for task in tasks:
        steps = steps_of(config.train, len(task.train))
        total += steps
        images = f"{len(task.train):,} train, {len(task.dev or ()):,} dev, {len(task.test):,} test images"
        names = ", ".join(data.classes[label] for label in task.classes)
        lines.append(f"  {task.index}: {names} ({images}, {steps:,} steps on its own data)")
    lines += [
        f"images: {' x '.join(map(str, data.image_shape))}, classes: {len(data.classes)}",
        f"classifier: {held['learner_parameters']:,} parameters",
        f"method: {sum(p.numel() for p in method.parameters() if p.requires_grad):,} parameters of its own",
        f"memory before the first task: {held['method_floats']:,} numbers",
        f"seeds: {', '.join(map(str, experiment.seeds))}, {total:,} steps each, on {experiment.device}",
        f"results: {config.save_path}",
    ]
    return "\n".join(lines)


def prepare_folders(experiments: Sequence[Experiment], restart: bool, make: bool = True) -> None:
    """Make the results folders, or only check them; with `restart`, existing ones are moved aside.

    Raises:
        BadInput: a folder belongs to another configuration, is in use by another process, or cannot be written.
    """
    for folder, group in groupby(experiments, lambda experiment: experiment.folder):  # a sweep's points together
        points = list(group)
        with prefix_errors(points[0].path):
            there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
            if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
                problem = f"{there} is not a directory that may be written to"
                raise BadInput(f"train.save_path: {folder} cannot be made: {problem}; choose another")
            try:
                folder.parent.mkdir(parents=True, exist_ok=True)
                with results.locked(folder):
                    _prepare(points, restart or not points[0].config.train.load, make)
            except OSError as error:
                raise BadInput(f"train.save_path: {folder} cannot be written ({error}); choose another") from error


def _prepare(points: Sequence[Experiment], anew: bool, make: bool) -> None:
    """Check the folder of one experiment, or of a sweep's points, and make it."""
    sweep, seeds = points[0].sweep, points[0].seeds
    if anew:
        results.check_free(points[0].folder)
    elif sweep:
        ranking.check_folder(sweep)
    for point in () if anew else points:
        results.check_folder(point.config)
        results.check_free(point.config.save_path, point.seeds)
    if make and sweep:
        ranking.prepare(sweep, anew, seeds)
    for point in points if make else ():
        results.make_folder(point.config.save_path, anew, "config.yml", as_yaml(point.config.dump()))
