"""The queue of seeds: check everything, make the results folders, run the seeds, write the scores."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

import datasets
from utils.config.provenance import current_provenance
from utils.config.schema import Config
from utils.queue import ranking
from utils.queue.check import describe
from utils.queue.folders import check_folders, prepare_folders
from utils.queue.parallel_jobs import ClusterJob, RunOnCluster, cores, run_side_by_side
from utils.queue.plan import Experiment, plan
from utils.run.allocator import keep_freed_memory
from utils.run.runner import Run
from utils.run.signals import Stop, listening
from utils.settings import BadInput
from utils.store import folder as results
from utils.store.final_score import write_final_score
from utils.store.log import bar, log, logging_to


def launch(options: Namespace) -> int:
    """Run what the command line asks for, or with `--check` explain it; returns the exit code.

    Raises:
        BadInput: anything wrong with the input; nothing has been run then.
    """
    experiments = plan(options)
    if options.check:
        for part in describe(experiments, parallel_jobs(options.jobs)):
            print(part, flush=True)
        return 0
    check_folders(experiments, options.restart)
    with _cluster(options.backend, experiments) as on_cluster:
        prepare_folders(experiments, options.restart)
        with listening() as stop:
            return _run_all(experiments, on_cluster, options.jobs, stop)


def _cluster(backend: str, experiments: Sequence[Experiment]) -> AbstractContextManager[RunOnCluster | None]:
    """Inside, the cluster is connected; gives what runs a queue there, None for this machine."""
    if backend == "ray":
        from utils.queue.ray_jobs import ray_cluster  # an optional package

        return ray_cluster()
    if backend == "slurm":
        from utils.queue.slurm_jobs import slurm_queue

        return slurm_queue([(experiment.config.save_path, experiment.seeds) for experiment in experiments])
    return nullcontext()


def parallel_jobs(jobs: int) -> int:
    """How many seeds run side by side on this machine; for 0 jobs, as many as there are cores for."""
    return jobs or max(1, cores() // torch.get_num_threads())


def _run_all(experiments: Sequence[Experiment], on_cluster: RunOnCluster | None, jobs: int, stop: Stop) -> int:
    """Run the unfinished seeds, at most `jobs` at a time (0: as many as there is room for), and write the scores.

    Returns 1 if a seed failed, or if scores could not be written.
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

    at_once = parallel_jobs(jobs)
    if on_cluster:
        on_cluster(_job, [_cluster_job(e, seed) for e, seed in queue], jobs or len(queue), done, stop)
    elif at_once == 1:
        for index, (experiment, seed) in enumerate(queue):
            point = f"{experiment.config.save_path.name} " if experiment.sweep else ""
            done(index, run_seed(experiment, seed, f"{point}seed {seed}", stop))
    else:
        threads = max(1, min(torch.get_num_threads(), cores() // at_once))
        run_side_by_side(_job, [_arguments(e, seed, threads) for e, seed in queue], at_once, done, stop)
    progress.close()
    codes.append(_write_scores(experiments, failed))
    for score in dict.fromkeys(e.folder / ("sweep.log" if e.sweep else "final_score.log") for e in experiments):
        if score.exists():
            print(f"\n{score.read_text()}\n{score}")
    return int(any(codes))


def _unfinished(experiments: Sequence[Experiment]) -> list[tuple[Experiment, int]]:
    """The queue: the seeds to run, in order."""
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
    """Arguments of `_job`, to be pickled."""
    return experiment.config.dump(), experiment.data_root, seed, str(experiment.device), threads


def _cluster_job(experiment: Experiment, seed: int) -> ClusterJob:
    needs = experiment.config.cluster
    arguments = _arguments(experiment, seed, needs.cpus)
    return ClusterJob(f"{experiment.config.save_path}: seed {seed}", arguments, needs.cpus, needs.gpus, needs.hours)


def _write_scores(experiments: Sequence[Experiment], failed: set[tuple[Path, int]]) -> int:
    """Write final_score.* of each, and the rankings of their sweeps; returns 1 if one could not be written."""
    sweeps = {experiment.sweep: experiment.seeds for experiment in experiments if experiment.sweep}
    writers = [(e.config.save_path, partial(write_final_score, e.config)) for e in experiments]
    writers += [(sweep.root, partial(ranking.write, sweep, seeds, failed)) for sweep, seeds in sweeps.items()]
    code = 0
    for folder, write in writers:
        try:
            with results.locked(folder):  # seeds of other commands may finish at the same moment
                write()
        except (OSError, BadInput) as error:
            print(f"{folder}: {_reason(error)}", file=sys.stderr)
            code = 1
    return code


def _job(config: dict[str, Any], data_root: Path, seed: int, device: str, threads: int, stop: Stop) -> int:
    """One seed in a process of its own; returns its exit code."""
    torch.set_num_threads(threads)
    checked = Config.model_validate(config)
    data = datasets.load(checked.scenario.dataset, data_root)
    experiment = Experiment("config.yml", checked, data, data_root, (seed,), torch.device(device))
    return run_seed(experiment, seed, f"{checked.save_path.name} seed {seed}", stop)


def run_seed(experiment: Experiment, seed: int, name: str, stop: Stop, tasks: int | None = None) -> int:
    """Run one seed, or its first `tasks` tasks, in this process; returns its exit code and reports what went wrong."""
    try:
        _run(experiment, seed, name, stop, tasks)
    except Exception as error:  # the boundary of a seed: the others go on
        log_file = results.RunFolder(experiment.config.save_path, seed).log
        where = f" (whole story: {log_file})" if log_file.exists() else ""
        print(f"{name} failed: {_reason(error)}{where}", file=sys.stderr)
        return 1
    return 0


def _run(experiment: Experiment, seed: int, name: str, stop: Stop, tasks: int | None = None) -> None:
    config = experiment.config
    folder = results.RunFolder(config.save_path, seed)
    keep_freed_memory()
    with folder.held(), logging_to(folder.log, f"{name}: "):
        try:
            results.check_folder(config)  # another command may have restarted it
            folder.begin(current_provenance(config.method.name, str(experiment.device)))
            Run(config, experiment.data, seed, experiment.device, stop)(tasks)
        except Exception:
            log.debug("failed", exc_info=True)
            raise


def run_here(experiment: Experiment) -> None:
    """Run the unfinished seeds of one experiment in this process, and write the scores.

    Raises:
        BadInput: the results folder is not usable.
        Exception: the error of the first seed that fails; what was finished before is scored.
    """
    check_folders([experiment], restart=False)
    prepare_folders([experiment], restart=False)
    try:
        for _, seed in _unfinished([experiment]):
            _run(experiment, seed, f"seed {seed}", Stop())
    finally:
        _write_scores([experiment], set())


def _reason(error: Exception) -> str:
    """One line: what went wrong, what is lost, how to go on."""
    line = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if isinstance(error, OSError):
        return f"{line}; earlier checkpoints are kept: fix the disk or the permissions, and run the same command again"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in line:
        return f"out of memory ({line}); lower train.batch_size, the method's batch sizes or its fixed_replay"
    return line if not isinstance(error, BadInput) else str(error)
