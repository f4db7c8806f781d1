"""The queue of seeds: check everything, make the results folders, run the seeds, write the scores."""

from argparse import Namespace
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

import datasets
from utils.config.provenance import current_provenance
from utils.config.schema import Config
from utils.queue import ranking
from utils.queue.check import describe, most_at_once
from utils.queue.local_jobs import INTERRUPTED, LOST, Job, RunJobs, cores, run_side_by_side
from utils.queue.plan import Experiment, plan, prepare_folders
from utils.queue.summary import failures, summary
from utils.run.allocator import keep_freed_memory
from utils.run.runner import Run
from utils.run.signals import Interrupted, Stop, listening
from utils.settings import BadInput
from utils.store import folder as results
from utils.store.final_score import write_final_score
from utils.store.log import bar, complain, log, logging_to


def launch(options: Namespace) -> int:
    """Run or explain what the command line asks for; returns the exit code. BadInput: nothing has been run."""
    experiments, at_once, here = plan(options), options.jobs, options.backend == "local"
    if here or options.check:
        at_once = at_once or most_at_once(experiments, max(1, cores() // torch.get_num_threads()))
    if options.check:
        for part in describe(experiments, at_once):
            print(part, flush=True)
        return 0
    prepare_folders(experiments, options.restart, make=False)
    try:
        cluster = None if here else import_module(f"utils.queue.{options.backend}_jobs")
        run_jobs = cluster.connect(experiments) if cluster else run_side_by_side
    except ImportError as error:
        hint = "install it: pip install -r requirements-cluster.txt"
        raise BadInput(f"--backend {options.backend}: {error}; {hint}") from error
    prepare_folders(experiments, options.restart)
    threads = max(1, min(torch.get_num_threads(), cores() // at_once)) if here else 0
    with listening() as stop:
        try:
            return _run_all(experiments, run_jobs, at_once, threads, stop)
        except KeyboardInterrupt as interruption:
            trains, hint = [experiment.config.train for experiment in experiments], ""
            if not all(train.load for train in trains):
                hint = " (train.load is no, and starts anew: add --set train.load=yes)"
            elif not all(train.save for train in trains):
                hint = " (train.save is no: unfinished seeds start again)"
            raise Interrupted(f"{interruption}{hint}") from interruption


def _run_all(experiments: Sequence[Experiment], run_jobs: RunJobs, at_once: int, threads: int, stop: Stop) -> int:
    """Run the unfinished seeds, `at_once` at a time (0: all), and write the scores; returns 1 if one failed.

    A seed has this number of threads on this machine; 0 means a cluster, where `cluster.cpus` says it.
    """
    queue, in_turn = _unfinished(experiments), bool(threads) and at_once == 1
    code, failed = 0, set[tuple[Path, int]]()
    ended: Iterator[tuple[int, int]]
    if in_turn:
        ended = ((index, run_seed(*queued, stop)) for index, queued in enumerate(queue))
    else:
        jobs = []
        for experiment, seed in queue:
            config, place = experiment.config, (experiment.data_root, seed, str(experiment.device))
            run = partial(_job, config.dump(), *place, threads or config.cluster.cpus)
            jobs.append(Job(f"{config.save_path.name} seed {seed}", run, config.cluster))
        ended = run_jobs(jobs, at_once or len(jobs), stop)
    with bar(len(queue), "seeds", 0, "seed") as progress:
        for index, code_of_seed in ended:
            experiment, seed = queue[index]
            path = experiment.config.save_path
            if code_of_seed and (in_turn or not stop.requested):  # in parallel, a stop ends seeds with a code too
                failed.add((path, seed))
                if code_of_seed < 0:
                    complain(
                        f"{path}: seed {seed} was killed (signal {-code_of_seed}); run it again, with a lower "
                        "--jobs if memory ran out"
                    )
                elif code_of_seed == LOST:
                    complain(f"{path}: seed {seed} is lost: the server of --jobs was killed; run it again")
            code |= _write_scores([experiment], failed)
            progress.update()
    if stop.requested and not in_turn:
        raise Interrupted(f" by {stop.requested}")
    code |= _write_scores(experiments, failed)
    print(summary(experiments))
    if failed:
        complain(failures(failed))
    return int(bool(code or failed))


def _unfinished(experiments: Sequence[Experiment]) -> list[tuple[Experiment, int]]:
    """The queue: the seeds to run, in order."""
    queue = []
    for experiment in experiments:
        finished = results.finished_runs(experiment.config.save_path)
        for seed in experiment.seeds:
            if seed in finished:
                print(f"{experiment.config.save_path}: seed {seed} already finished; its results are kept")
            else:
                queue.append((experiment, seed))
    return queue


def _job(config: dict[str, Any], data_root: Path, seed: int, device: str, threads: int, stop: Stop) -> int:
    """One seed in a process of its own, from plain data; returns its exit code."""
    torch.set_num_threads(threads)
    checked = Config.model_validate(config)
    try:
        data = datasets.load(checked.scenario.dataset, data_root)
    except (BadInput, OSError, MemoryError) as error:
        complain(f"{checked.save_path.name} seed {seed} failed: {_reason(error)}")
        return 1
    experiment = Experiment(checked, "config.yml", None, data, data_root, (seed,), torch.device(device))
    try:
        return run_seed(experiment, seed, stop)
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
            complain(f"{folder}: {_reason(error)}")
            code = 1
    return code


def run_seed(
    experiment: Experiment, seed: int, stop: Stop, tasks: int | None = None, name: str = "", reraise: bool = False
) -> int:
    """Run one seed, or its first `tasks` tasks, in this process; returns its exit code and reports what went wrong."""
    config, folder = experiment.config, results.RunFolder(experiment.config.save_path, seed)
    name = name or f"{config.save_path.name} seed {seed}"
    keep_freed_memory()
    try:
        with folder.held(), logging_to(folder.log, f"{name}: "):
            try:
                results.check_folder(config)  # another command may have restarted it
                if tasks is None and folder.results() is not None:
                    log.info("finished by another command; its results are kept")
                    return 0
                own = getattr(config.model.encoder, "file", None)
                folder.begin(current_provenance(config.method.name, str(experiment.device), own))
                Run(config, experiment.data, seed, experiment.device, stop, experiment.cache)(tasks)
            except Exception:
                log.debug("failed", exc_info=True)
                raise
            except KeyboardInterrupt as interruption:
                log.debug("interrupted%s", interruption)
                raise
    except Exception as error:  # the boundary of a seed: the others go on
        if reraise:
            raise
        where = f" (details: {folder.log})" if folder.log.exists() else ""
        complain(f"{name} failed: {_reason(error)}{where}")
        return 1
    return 0


def run_here(experiment: Experiment) -> None:
    """Run the unfinished seeds of an experiment in this process; scores what is finished and raises the first error."""
    prepare_folders([experiment], restart=False)
    try:
        for _, seed in _unfinished([experiment]):
            run_seed(experiment, seed, Stop(), name=f"seed {seed}", reraise=True)
    finally:
        code = _write_scores([experiment])
    if code:
        raise OSError(f"{experiment.config.save_path}: the scores could not be written; run again")


def _reason(error: Exception) -> str:
    """One line: what went wrong, what is lost, how to go on."""
    line = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if isinstance(error, OSError):
        return f"{line}; earlier checkpoints are kept: fix the disk or the permissions, and run the same command again"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in line:
        return f"out of memory ({line}); lower train.batch_size, the method's batch sizes or its fixed_replay"
    return line if not isinstance(error, BadInput) else str(error)
