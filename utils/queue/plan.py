"""From configuration files to experiments and their folders: everything is checked before anything is run."""

import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

import torch

import datasets
from datasets import DatasetConfig
from datasets.data import Data, Task
from methods import Method
from utils.config.load import Point, load_points
from utils.config.schema import Config
from utils.config.yaml_text import as_yaml
from utils.paths import expanded
from utils.queue import ranking
from utils.run.build import build_learner, build_method, build_tasks, check_data, with_frozen
from utils.run.streams import generator
from utils.settings import BadInput, prefix_errors
from utils.store import folder as results


@dataclass(frozen=True)
class Experiment(Point):
    """A checked point with its data."""

    data: Data
    data_root: Path
    seeds: tuple[int, ...]
    device: torch.device

    @property
    def cache(self) -> Path | None:
        """The folder of frozen encoders' features on disk; None: they are not kept."""
        return self.data_root / "cache" if self.config.model.cache else None


def plan(options: Namespace) -> list[Experiment]:
    """Load and check everything that the command line asks for; writes nothing, and raises BadInput."""
    files = [os.path.realpath(path) for path in options.configs]
    if twice := [path for path, file in zip(options.configs, files, strict=True) if files.count(file) > 1]:
        raise BadInput(f"{twice[-1]}: given {len(twice)} times; give it once, and choose seeds by --seeds")
    name = getattr(options, "name", None)
    points, problems = list[Point](), list[str]()
    for path in options.configs:
        try:
            points += load_points(Path(path), options.set, name)
        except BadInput as error:
            problems += str(error).splitlines()
    if problems:  # of all files at once
        raise BadInput("\n".join(problems))
    used: dict[str, Point] = {}
    for point in points:
        for folder in (point.folder, point.config.save_path):
            other = used.setdefault(os.path.realpath(folder), point)
            if (other.sweep or other) is not (point.sweep or point):
                raise BadInput(f"{point.where}: train.save_path: {folder} is also used by {other.where}; change one")
    load, experiments = cache(datasets.load), []  # files may share their data
    for point in points:
        seeds = options.seeds or tuple(range(point.config.train.experiments))
        with prefix_errors(point.where):
            config, root = _find_data(point.config, options.data_root)
            data = load(config.scenario.dataset, root)
            check_data(config, data)
            config = with_frozen(config.on_data(data.fingerprint), data)
            device = _device(options.device or config.train.device, config.cluster.gpus, options.backend != "local")
            if config.train.cuda_graphs is True and device.type != "cuda":
                raise BadInput(f"train.cuda_graphs: yes needs CUDA, and the device is {device}; set it to auto")
            try:
                build(config, data, seeds[0], torch.device("cpu"))  # raises BadInput now, not after an hour
            except (MemoryError, RuntimeError) as error:
                problem = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                raise BadInput(f"cannot be built ({problem}); are the sizes in model and method too large?") from error
            if config.train.tensorboard and find_spec("tensorboard") is None:
                raise BadInput(
                    "train.tensorboard: the package is not installed; pip install tensorboard, or set it to no"
                )
        experiments.append(Experiment(config, point.where, point.sweep, data, root, seeds, device))
    return experiments


def _find_data(config: Config, option: Path | None) -> tuple[Config, Path]:
    """The configuration with its `dataset.path` below the data root, if one is given, and the data root."""
    roots = {"--data-root": option, "$DATA_ROOT": os.environ.get("DATA_ROOT"), "data_root": config.scenario.data_root}
    source, given = next(((source, root) for source, root in roots.items() if root), ("the working directory", ""))
    try:
        root = Path(expanded(str(given))) if given else Path()
    except ValueError as error:
        raise BadInput(f"{source}: {error}") from None
    dataset = _placed(config.scenario.dataset, root if given else None, source)
    scenario = config.scenario.model_copy(update={"dataset": dataset})
    return config.model_copy(update={"scenario": scenario}), root if given else Path("data")


def _placed(dataset: DatasetConfig, root: Path | None, source: str) -> DatasetConfig:
    """The settings with each `path`, also of data sets in a row, below the data root, if one is given."""
    if several := getattr(dataset, "datasets", ()):
        return dataset.model_copy(update={"datasets": tuple(_placed(one, root, source) for one in several)})
    if (path := getattr(dataset, "path", None)) is None:
        return dataset
    try:
        path = expanded(path)
    except ValueError as error:
        raise BadInput(f"scenario.dataset.path: {error}") from None
    place = (root / path).absolute() if root else Path(path)
    if not os.path.exists(place):
        below = "" if os.path.isabs(path) else f"; it was looked for in {source} ({(root or Path()).absolute()})"
        raise BadInput(
            f"scenario.dataset.path: {path} does not exist{below}; correct the path, or give --data-root DIR"
        )
    return dataset.model_copy(update={"path": str(place)})


def build(config: Config, data: Data, seed: int, device: torch.device) -> tuple[list[Task], Method]:
    """The tasks and the method of one seed, before training; the tasks have images also where the encoder is frozen.

    BadInput: they cannot be made.
    """
    tasks = build_tasks(config, data, seed, device)
    learner = build_learner(config, tasks, seed)
    if config.model.is_frozen:
        learner.freeze()
    return tasks, build_method(config, learner, generator(seed, "method", device))


def _device(name: str, gpus: float, on_cluster: bool) -> torch.device:
    """The device `name` of this machine, or of a cluster that gives each seed this number of `gpus`."""
    if on_cluster:
        if gpus == 0 and name.startswith("cuda"):
            raise BadInput(f"train.device: {name} on a cluster needs cluster.gpus: 1, or 0.25 to share one")
        return torch.device("cuda" if gpus and name != "cpu" else "cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():  # torch.device takes 128 for -128
        raise BadInput(
            f"train.device: {name} is not available: {torch.cuda.device_count()} CUDA devices; use cpu or auto"
        )
    return torch.device(name)


def prepare_folders(experiments: Sequence[Experiment], restart: bool, make: bool = True) -> None:
    """Make the results folders, or only check them; with `restart`, existing ones are moved aside.

    BadInput: one belongs to another configuration, is in use by another process, or cannot be written.
    """
    for folder, group in groupby(experiments, lambda experiment: experiment.folder):  # a sweep's points together
        points = list(group)
        sweep, anew = points[0].sweep, restart or not points[0].config.train.load
        with prefix_errors(points[0].where):
            try:
                there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
                if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
                    problem = f"{there} is not a directory that may be written to"
                    raise BadInput(f"train.save_path: {folder} cannot be made: {problem}; choose another")
                folder.parent.mkdir(parents=True, exist_ok=True)
                with results.locked(folder):
                    anew = anew and results.is_results(folder)  # a folder of the user's is not moved
                    if anew:
                        results.check_free(folder)
                    elif sweep:
                        ranking.check_folder(sweep)
                    for point in () if anew else points:
                        results.check_folder(point.config)
                        results.check_seeds(point.config)
                        results.check_free(point.config.save_path, point.seeds)
                    if make and sweep:
                        results.make_folder(sweep.root, anew, "sweep.log", "")
                        ranking.write(sweep, points[0].seeds)
                    for point in points if make else ():
                        results.make_folder(point.config.save_path, anew, "config.yml", as_yaml(point.config.dump()))
            except OSError as error:
                raise BadInput(f"train.save_path: {folder} cannot be written ({error}); choose another") from error
