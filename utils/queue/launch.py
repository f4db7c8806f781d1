"""Doing what the command line asks for: the queue of seeds, run one after the other, side by side, or on a cluster."""

import sys
from argparse import Namespace
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

import datasets
from utils.config.load import load
from utils.config.provenance import made_with
from utils.queue import ranking
from utils.queue.check import describe
from utils.queue.parallel_jobs import ClusterJob, RunOnCluster, cores, run_side_by_side
from utils.queue.plan import Experiment, naming, plan
from utils.run.allocator import keep_freed_memory
from utils.run.runner import Run
from utils.run.signals import Stop, listening
from utils.settings import BadInput
from utils.store import folder as results
from utils.store.final_score import write_final_score
from utils.store.log import bar, log, logging_to


def launch(options: Namespace) -> int:
    """Do what the command line asks for; returns the exit code.

    Raises:
        BadInput: anything wrong with the input; nothing has been run then.
    """
    experiments = plan(options)
    if options.check:
        for part in describe(experiments, _at_once(options.jobs)):
            print(part, flush=True)  # the first at once
        return 0
    with ExitStack() as held:
        _check_and_lock(experiments, options.restart, held)
        on_cluster = held.enter_context(_cluster(options.backend, experiments))
        threads = _threads(_at_once(options.jobs)) if options.backend == "local" else None
        _make_folders(experiments, options.restart, threads)
        stop = held.enter_context(listening())
        return _run_all(experiments, on_cluster, options.jobs, stop)


def _each(experiments: Iterable[Experiment], step: Callable[[Experiment], object]) -> None:
    """One step for all of them before the next: nothing is half done."""
    for experiment in experiments:
        with naming(experiment.path):
            step(experiment)


def _folders(experiments: Sequence[Experiment]) -> list[Experiment]:
    """One experiment of each folder: a sweep's points share theirs."""
    return list({experiment.folder: experiment for experiment in reversed(experiments)}.values())


def _check_and_lock(experiments: Sequence[Experiment], restart: bool, held: ExitStack) -> None:
    """Make sure that the results folders are free or ours, and keep other processes away from them."""
    folders = _folders(experiments)
    sweeps = [experiment for experiment in folders if experiment.sweep]
    _each(sweeps, lambda e: ranking.check_folder(e.sweep, restart or not e.config.train.load))
    _each(experiments, lambda e: results.check_folder(e.config, restart))
    owners = {results.owner(experiment.folder): experiment for experiment in folders}
    _each(owners.values(), lambda e: held.enter_context(results.locked(results.owner(e.folder))))


def _make_folders(experiments: Sequence[Experiment], restart: bool, threads: int | None) -> None:
    """Make them, with what their seeds are made with: so many threads here, on a cluster what the experiment says."""
    sweeps = [experiment for experiment in _folders(experiments) if experiment.sweep]
    _each(sweeps, lambda e: ranking.prepare(e.sweep, restart or not e.config.train.load, e.seeds))

    def prepare(experiment: Experiment) -> None:
        now = made_with(str(experiment.device), threads or experiment.config.cluster.cpus)
        results.prepare(experiment.config, experiment.seeds, restart, now)

    _each(experiments, prepare)


def _cluster(backend: str, experiments: Sequence[Experiment]) -> AbstractContextManager[RunOnCluster | None]:
    """Inside, the cluster is connected; gives what runs a queue there, None for this machine."""
    if backend == "ray":
        from utils.queue.ray_jobs import ray_cluster  # optional packages: imported when asked for

        return ray_cluster()
    if backend == "slurm":
        from utils.queue.slurm_jobs import slurm_queue

        return slurm_queue([experiment.config.save_path for experiment in experiments])
    return nullcontext()


def _at_once(jobs: int) -> int:
    """How many seeds run side by side on this machine; of 0 jobs as many as there is room for."""
    return jobs or max(1, cores() // torch.get_num_threads())


def _threads(at_once: int) -> int:
    """How many each of the seeds has that run side by side."""
    threads = torch.get_num_threads()
    return threads if at_once == 1 else max(1, min(threads, cores() // at_once))


def _run_all(experiments: Sequence[Experiment], on_cluster: RunOnCluster | None, jobs: int, stop: Stop) -> int:
    """Run the seeds that are not finished, at most so many jobs at a time (0: as there is room).

    Returns 1 if one failed, or if results could not be written.
    """
    queue = _unfinished(experiments)
    codes, failed, progress = [0], set[tuple[Path, int]](), bar(len(queue), "seeds", 0, "seed")

    def done(index: int, code: int) -> None:
        experiment, seed = queue[index]
        if code < 0 and not stop.requested:
            print(f"{experiment.config.save_path}: seed {seed} was killed (signal {-code})", file=sys.stderr)
        if code and not stop.requested:
            failed.add((experiment.config.save_path, seed))
        codes.extend((abs(code), _write_scores([experiment], failed)))
        progress.update()

    if on_cluster:
        on_cluster(_job, [_cluster_job(e, seed) for e, seed in queue], jobs or len(queue), done, stop)
    elif (at_once := _at_once(jobs)) == 1:
        for index, (experiment, seed) in enumerate(queue):
            point = f"{experiment.config.save_path.name} " if experiment.sweep else ""
            done(index, run_seed(experiment, seed, f"{point}seed {seed}", stop))
    else:
        threads = _threads(at_once)
        run_side_by_side(_job, [_arguments(e, seed, threads) for e, seed in queue], at_once, done, stop)
    progress.close()
    codes.append(_write_scores(experiments, failed))
    for score in dict.fromkeys(e.folder / ("sweep.log" if e.sweep else "final_score.log") for e in experiments):
        if score.exists():
            print(f"\n{score.read_text()}\n{score}")
    return int(any(codes))


def _unfinished(experiments: Sequence[Experiment]) -> list[tuple[Experiment, int]]:
    """The queue: what is left to run, in order."""
    queue: list[tuple[Experiment, int]] = []
    for experiment in experiments:
        finished = results.finished_runs(experiment.config.save_path)
        for seed in experiment.seeds:
            if seed in finished:
                print(f"{experiment.config.save_path}: seed {seed} finished before, its results are kept")
            else:
                queue.append((experiment, seed))
    return queue


def _arguments(experiment: Experiment, seed: int, threads: int) -> tuple[Any, ...]:
    return experiment.config.save_path, experiment.data_root, seed, str(experiment.device), threads


def _cluster_job(experiment: Experiment, seed: int) -> ClusterJob:
    path, needs = experiment.config.save_path, experiment.config.cluster
    arguments = _arguments(experiment, seed, needs.cpus)
    return ClusterJob(f"{path}: seed {seed}", arguments, needs.cpus, needs.gpus, needs.hours)


def _write_scores(experiments: Sequence[Experiment], failed: Collection[tuple[Path, int]]) -> int:
    """final_score.* of each, and the rankings of their sweeps; returns 1 if any of it could not be written."""
    sweeps = {experiment.sweep: experiment.seeds for experiment in experiments if experiment.sweep}
    writers = [(e.config.save_path, partial(write_final_score, e.config)) for e in experiments]
    writers += [(sweep.root, partial(ranking.write, sweep, seeds, failed)) for sweep, seeds in sweeps.items()]
    code = 0
    for folder, write in writers:
        try:
            write()
        except (OSError, BadInput) as error:
            print(f"{folder}: {_reason(error)}", file=sys.stderr)
            code = 1
    return code


def _job(save_path: Path, data_root: Path, seed: int, device: str, threads: int, stop: Stop) -> int:
    """One seed in a process of its own; its configuration is that of the results folder."""
    torch.set_num_threads(threads)
    config = load(save_path / "config.yml")
    data = datasets.load(config.scenario.dataset, data_root)
    experiment = Experiment(str(save_path), config, data, data_root, (seed,), torch.device(device))
    return run_seed(experiment, seed, f"{save_path.name} seed {seed}", stop)


def run_seed(experiment: Experiment, seed: int, name: str, stop: Stop, tasks: int | None = None) -> int:
    """Run one seed, or its first `tasks` tasks, in this process; returns its exit code and reports what went wrong."""
    try:
        _run(experiment, seed, name, stop, tasks)
    except Exception as error:  # the boundary of a seed: the others go on
        log_file = results.RunFolder(experiment.config.save_path, seed).log
        print(f"{name} failed: {_reason(error)} (whole story: {log_file})", file=sys.stderr)
        return 1
    return 0


def _run(experiment: Experiment, seed: int, name: str, stop: Stop, tasks: int | None = None) -> None:
    keep_freed_memory()
    with logging_to(results.RunFolder(experiment.config.save_path, seed).log, f"{name}: "):
        try:
            Run(experiment.config, experiment.data, seed, experiment.device, stop)(tasks)
        except Exception:
            log.debug("failed", exc_info=True)
            raise


def run_here(experiment: Experiment) -> None:
    """Run the unfinished seeds of one experiment in this process, and write the scores.

    Raises:
        BadInput: the results folder is not usable.
        Exception: the error of the first seed that fails; what was finished before is scored.
    """
    with ExitStack() as held:
        _check_and_lock([experiment], False, held)
        _make_folders([experiment], False, torch.get_num_threads())
        try:
            for _, seed in _unfinished([experiment]):
                _run(experiment, seed, f"seed {seed}", Stop())
        finally:
            write_final_score(experiment.config)


def _reason(error: Exception) -> str:
    """One line: what went wrong, what is lost, how to go on."""
    line = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if isinstance(error, OSError):
        return f"{line}; what was saved before is kept: make it possible to write there, and run the same command again"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in line:
        return f"out of memory ({line}); lower train.batch_size, the method's batch sizes or its fixed_replay"
    return line
