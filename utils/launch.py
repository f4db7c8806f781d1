"""From configuration files to finished runs: check everything first, then run seed after seed."""

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch

import datasets
from datasets.data import Data, Task
from methods import Method
from models.learner import Learner
from utils import results
from utils.build import build_learner, build_method, build_tasks
from utils.config import Config, as_yaml, load
from utils.evaluation import numbers_held
from utils.jobs import cores, run_side_by_side
from utils.progress import bar, log, logging_to
from utils.runner import Run
from utils.seeding import generator
from utils.settings import BadInput
from utils.signals import Stop, listening


@dataclass(frozen=True)
class Experiment:
    """One configuration file, checked, with its data."""

    path: str
    config: Config
    data: Data
    data_root: Path
    seeds: tuple[int, ...]
    device: torch.device


def launch(options: Namespace) -> int:
    """Do what the command line asks for; returns the exit code.

    Raises:
        BadInput: anything wrong with the input; nothing has been run then.
    """
    experiments = _plan(options)
    if options.check:
        print("\n".join(_explain(experiment) for experiment in experiments))
        return 0
    with ExitStack() as locks:
        steps: tuple[Callable[[Config], None], ...] = (  # each for all of them before the next: nothing is half done
            lambda config: results.check_folder(config, options.restart),
            lambda config: locks.enter_context(results.locked(config.save_path)),
            lambda config: results.prepare(config, options.restart),
        )
        for step in steps:
            for experiment in experiments:
                with _naming(experiment.path):
                    step(experiment.config)
        stop = locks.enter_context(listening())
        return _run_all(experiments, options.jobs or max(1, cores() // torch.get_num_threads()), stop)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Errors of bad input inside are told with the file's name."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def _plan(options: Namespace) -> list[Experiment]:
    configs = [load(Path(path), options.set) for path in options.configs]
    folders = [config.save_path.resolve() for config in configs]
    for i, folder in enumerate(folders):
        if folder in folders[:i]:
            raise BadInput(f"{options.configs[i]}: train.save_path: {folder} is used by two of these files; change one")
    loaded: dict[tuple[str, Path], Data] = {}
    experiments = []
    for path, config in zip(options.configs, configs, strict=True):
        root = Path(options.data_root or os.environ.get("DATA_ROOT") or config.scenario.data_root or "data")
        key = (config.scenario.dataset.model_dump_json(), root)
        with _naming(path):
            if key not in loaded:
                loaded[key] = datasets.load(config.scenario.dataset, root)
            seeds = options.seeds or tuple(range(config.train.experiments))
            device = _device(options.device or config.train.device)
            experiments.append(Experiment(path, config, loaded[key], root, seeds, device))
            _build(experiments[-1])  # whatever the parts refuse, they refuse now
    return experiments


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInput(f"train.device: {name} is not there: {torch.cuda.device_count()} CUDA devices; use cpu or auto")
    return device


def _build(experiment: Experiment) -> tuple[list[Task], Learner, Method]:
    config, cpu, seed = experiment.config, torch.device("cpu"), experiment.seeds[0]
    tasks = build_tasks(config, experiment.data, seed, cpu)
    learner = build_learner(config, experiment.data, tasks, seed)
    return tasks, learner, build_method(config, learner, generator(seed, "method"))


def _explain(experiment: Experiment) -> str:
    config, seed = experiment.config, experiment.seeds[0]
    tasks, learner, method = _build(experiment)
    per_task = [config.train.steps or config.train.epochs * ceil(len(t.train) / config.train.batch_size) for t in tasks]
    lines = [as_yaml(config.dump()), f"tasks of seed {seed}:"]
    for task, steps in zip(tasks, per_task, strict=True):
        names = ", ".join(experiment.data.classes[c] for c in task.classes)
        sizes = len(task.train), len(task.dev) if task.dev else 0, len(task.test)
        images = "{:,} train, {:,} dev, {:,} test images".format(*sizes)
        lines.append(f"  {task.index}: {names} ({images}, {steps:,} steps on its own data)")
    channels, height, width = experiment.data.image_shape
    lines += [
        f"images: {channels} x {height} x {width}, classes: {len(experiment.data.classes)}",
        f"classifier: {sum(p.numel() for p in learner.parameters()):,} parameters",
        f"method: {sum(p.numel() for p in method.parameters() if p.requires_grad):,} parameters of its own, "
        f"{numbers_held(method):,} numbers held between tasks, as far as known before the first",
        f"steps: {sum(per_task):,} a seed, seeds: {', '.join(map(str, experiment.seeds))}, device: {experiment.device}",
        f"results: {config.save_path}",
    ]
    return "\n".join(lines)


def _run_all(experiments: Sequence[Experiment], at_once: int, stop: Stop) -> int:
    """Run the seeds that are not finished; returns 1 if one failed, or if results could not be written."""
    queue: list[tuple[Experiment, int]] = []
    for experiment in experiments:
        finished = results.finished_runs(experiment.config.save_path)
        for seed in experiment.seeds:
            if seed in finished:
                print(f"{experiment.config.save_path}: seed {seed} finished before, its results are kept")
            else:
                queue.append((experiment, seed))
    codes, progress = [0], bar(len(queue), "seeds", 0, "seed")

    def done(index: int, code: int) -> None:
        experiment, seed = queue[index]
        if code < 0 and not stop.requested:
            print(f"{experiment.config.save_path}: seed {seed} was killed (signal {-code})", file=sys.stderr)
        codes.extend((abs(code), _write_score(experiment)))
        progress.update()

    if at_once == 1:
        for index, (experiment, seed) in enumerate(queue):
            done(index, _run_seed(experiment, seed, f"seed {seed}", stop))
    else:
        threads = max(1, min(torch.get_num_threads(), cores() // at_once))
        jobs = [(e.config.save_path, e.data_root, seed, str(e.device), threads) for e, seed in queue]
        run_side_by_side(_job, jobs, at_once, done, stop)
    progress.close()
    for experiment in experiments:
        codes.append(_write_score(experiment))
        score = experiment.config.save_path / "final_score.log"
        if score.exists():
            print(f"\n{score.read_text()}\n{score}")
    return int(any(codes))


def _write_score(experiment: Experiment) -> int:
    try:
        results.write_final_score(experiment.config)
    except OSError as error:
        print(f"{experiment.config.save_path}: {_reason(error)}", file=sys.stderr)
        return 1
    return 0


def _job(save_path: Path, data_root: Path, seed: int, device: str, threads: int, stop: Stop) -> int:
    """One seed in a process of its own; its configuration is that of the results folder."""
    torch.set_num_threads(threads)
    config = load(save_path / "config.yml")
    data = datasets.load(config.scenario.dataset, data_root)
    experiment = Experiment(str(save_path), config, data, data_root, (seed,), torch.device(device))
    return _run_seed(experiment, seed, f"{save_path.name} seed {seed}", stop)


def _run_seed(experiment: Experiment, seed: int, name: str, stop: Stop) -> int:
    folder = results.RunFolder(experiment.config.save_path, seed)
    try:
        with logging_to(folder.log, f"{name}: "):
            try:
                Run(experiment.config, experiment.data, seed, experiment.device, stop)()
            except Exception:
                log.debug("failed", exc_info=True)
                raise
    except Exception as error:  # the boundary of a seed: the others go on
        print(f"{name} failed: {_reason(error)} (whole story: {folder.log})", file=sys.stderr)
        return 1
    return 0


def _reason(error: Exception) -> str:
    """One line: what went wrong, what is lost, how to go on."""
    line = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if isinstance(error, OSError):
        return f"{line}; what was saved before is kept: make it possible to write there, and run the same command again"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in line:
        return f"out of memory ({line}); lower train.batch_size, the method's batch sizes or its fixed_replay"
    return line
