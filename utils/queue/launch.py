"""The queue of seeds: check everything, make the results folders, run the seeds, write the scores."""

import sys
from argparse import Namespace
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

import datasets
from utils.config.provenance import current_provenance
from utils.config.schema import Config
from utils.queue import ranking
from utils.queue.check import describe
from utils.queue.parallel_jobs import INTERRUPTED, Job, RunQueue, cores, run_side_by_side
from utils.queue.plan import Experiment, plan, prepare_folders
from utils.run.allocator import keep_freed_memory
from utils.run.runner import Run
from utils.run.signals import Interrupted, Stop, listening
from utils.settings import BadInput
from utils.store import folder as results
from utils.store.final_score import write_final_score
from utils.store.log import bar, log, logging_to


def launch(options: Namespace) -> int:
    """Run or explain what the command line asks for; returns the exit code. BadInput: nothing has been run."""
    experiments, at_once = plan(options), options.jobs
    if options.backend == "local" or options.check:
        at_once = at_once or max(1, cores() // torch.get_num_threads())
    if options.check:
        for part in describe(experiments, at_once):
            print(part, flush=True)
        return 0
    prepare_folders(experiments, options.restart, make=False)
    run_queue = _backend(options.backend, experiments)
    prepare_folders(experiments, options.restart)
    with listening() as stop:
        return _run_all(experiments, run_queue, at_once, stop)


def _backend(name: str, experiments: Sequence[Experiment]) -> RunQueue:
    """What runs a queue on this machine, or on the cluster, which is connected."""
    try:
        if name == "ray":
            from utils.queue.ray_jobs import ray_queue

            return ray_queue()
        if name == "slurm":
            from utils.queue.slurm_jobs import slurm_queue

            return slurm_queue([(experiment.config.save_path, experiment.seeds) for experiment in experiments])
    except ImportError as error:
        raise BadInput(f"--backend {name}: {error}; install it: pip install -r requirements-cluster.txt") from error
    return run_side_by_side


def _run_all(experiments: Sequence[Experiment], run_queue: RunQueue, at_once: int, stop: Stop) -> int:
    """Run the unfinished seeds, at most `at_once` at a time (0: all), and write the scores; returns 1 if one failed."""
    queue, here = _unfinished(experiments), run_queue is run_side_by_side
    codes, failed, progress = [0], set[tuple[Path, int]](), bar(len(queue), "seeds", 0, "seed")
    ended: Iterable[tuple[int, int]]
    if in_turn := here and at_once == 1:
        ended = enumerate(run_seed(e, seed, f"{e.config.save_path.name} seed {seed}", stop) for e, seed in queue)
    else:
        jobs, local = [], max(1, min(torch.get_num_threads(), cores() // (at_once or 1)))
        for experiment, seed in queue:
            config, threads = experiment.config, local if here else experiment.config.cluster.cpus
            arguments = config.dump(), experiment.data_root, seed, str(experiment.device), threads
            jobs.append(Job(f"{config.save_path}: seed {seed}", arguments, config.cluster))
        ended = run_queue(_job, jobs, at_once or len(queue), stop)
    for index, code in ended:
        experiment, seed = queue[index]
        if code and not stop.requested:
            failed.add((experiment.config.save_path, seed))
            if code < 0:
                print(f"{experiment.config.save_path}: seed {seed} was killed (signal {-code})", file=sys.stderr)
        codes += [code, _write_scores([experiment], failed)]
        progress.update()
    if stop.requested and not in_turn:
        raise Interrupted(f" by {stop.requested}")
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


def _job(config: dict[str, Any], data_root: Path, seed: int, device: str, threads: int, stop: Stop) -> int:
    """One seed in a process of its own, from plain data; returns its exit code."""
    torch.set_num_threads(threads)
    checked = Config.model_validate(config)
    data = datasets.load(checked.scenario.dataset, data_root)
    experiment = Experiment("config.yml", checked, data, data_root, (seed,), torch.device(device))
    try:
        return run_seed(experiment, seed, f"{checked.save_path.name} seed {seed}", stop)
    except KeyboardInterrupt:
        return INTERRUPTED


def _write_scores(experiments: Sequence[Experiment], failed: Collection[tuple[Path, int]] = ()) -> int:
    """Write final_score.* of each, and the rankings of their sweeps; returns 1 if one could not be written."""
    writers = {e.config.save_path: partial(write_final_score, e.config) for e in experiments}
    writers |= {e.sweep.root: partial(ranking.write, e.sweep, e.seeds, failed) for e in experiments if e.sweep}
    code = 0
    for folder, write in writers.items():
        try:
            with results.locked(folder):  # seeds of other commands may finish at the same moment
                write()
        except (OSError, BadInput) as error:
            print(f"{folder}: {_reason(error)}", file=sys.stderr)
            code = 1
    return code


def run_seed(
    experiment: Experiment, seed: int, name: str, stop: Stop, tasks: int | None = None, reraise: bool = False
) -> int:
    """Run one seed, or its first `tasks` tasks, in this process; returns its exit code and reports what went wrong."""
    config, folder = experiment.config, results.RunFolder(experiment.config.save_path, seed)
    keep_freed_memory()
    try:
        with folder.held(), logging_to(folder.log, f"{name}: "):
            try:
                results.check_folder(config)  # another command may have restarted it
                folder.begin(current_provenance(config.method.name, str(experiment.device)))
                Run(config, experiment.data, seed, experiment.device, stop)(tasks)
            except Exception:
                log.debug("failed", exc_info=True)
                raise
    except Exception as error:  # the boundary of a seed: the others go on
        if reraise:
            raise
        where = f" (whole story: {folder.log})" if folder.log.exists() else ""
        print(f"{name} failed: {_reason(error)}{where}", file=sys.stderr)
        return 1
    return 0


def run_here(experiment: Experiment) -> None:
    """Run the unfinished seeds of an experiment in this process; scores what is finished and raises the first error."""
    prepare_folders([experiment], restart=False)
    try:
        for _, seed in _unfinished([experiment]):
            run_seed(experiment, seed, f"seed {seed}", Stop(), reraise=True)
    finally:
        _write_scores([experiment])


def _reason(error: Exception) -> str:
    """One line: what went wrong, what is lost, how to go on."""
    line = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if isinstance(error, OSError):
        return f"{line}; earlier checkpoints are kept: fix the disk or the permissions, and run the same command again"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in line:
        return f"out of memory ({line}); lower train.batch_size, the method's batch sizes or its fixed_replay"
    return line if not isinstance(error, BadInput) else str(error)
