"""Check and make the results folders of all experiments, before anything is run."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from utils.config.yaml_text import as_yaml
from utils.queue import ranking
from utils.queue.plan import Experiment
from utils.settings import BadInput, prefix_errors
from utils.store import folder as results


def check_folders(experiments: Sequence[Experiment], restart: bool) -> None:
    """Make sure that the results folders are new or ours, and that no other process runs the seeds; changes nothing.

    Raises:
        BadInput: they are not; names the file, the folder, and the seed or the keys.
    """
    for experiment in experiments:
        with prefix_errors(experiment.path):
            _check_folder(experiment, restart)
    _in_each_folder(experiments, partial(_check_free, restart=restart))


def prepare_folders(experiments: Sequence[Experiment], restart: bool) -> None:
    """Make the results folders; with `restart`, existing ones are moved aside.

    Raises:
        BadInput: another command has taken one since it was checked, or it cannot be written.
    """
    _in_each_folder(experiments, partial(_prepare, restart=restart))


def _check_folder(experiment: Experiment, restart: bool) -> None:
    """Make sure that the results folder is new, or was made by the same configuration and sweep."""
    if experiment.sweep:
        ranking.check_folder(experiment.sweep, _anew(experiment, restart))
    results.check_folder(experiment.config, restart)


def _anew(experiment: Experiment, restart: bool) -> bool:
    """Whether an existing results folder is moved aside."""
    return restart or not experiment.config.train.load


def _in_each_folder(experiments: Iterable[Experiment], step: Callable[[list[Experiment]], object]) -> None:
    """Call `step` with the experiments of each results folder, a sweep's points together, while it is locked."""
    folders: dict[Path, list[Experiment]] = {}
    for experiment in experiments:
        folders.setdefault(experiment.folder, []).append(experiment)
    for folder, of_folder in folders.items():
        with prefix_errors(of_folder[0].path):
            try:
                folder.parent.mkdir(parents=True, exist_ok=True)
                with results.locked(folder):
                    step(of_folder)
            except OSError as error:
                raise BadInput(f"train.save_path: {folder} cannot be written ({error}); choose another") from error


def _check_free(experiments: list[Experiment], restart: bool) -> None:
    """Make sure that no other process runs a seed that this command will write or move aside."""
    if _anew(experiments[0], restart):
        return results.check_free(experiments[0].folder)
    for experiment in experiments:
        results.check_free(experiment.config.save_path, experiment.seeds)


def _prepare(experiments: list[Experiment], restart: bool) -> None:
    """Make the folder, unless another command has taken it since it was checked."""
    for experiment in experiments:
        _check_folder(experiment, restart)
    _check_free(experiments, restart)
    anew = _anew(experiments[0], restart)
    if sweep := experiments[0].sweep:
        ranking.prepare(sweep, anew, experiments[0].seeds)
    for experiment in experiments:
        results.make_folder(experiment.config.save_path, anew, "config.yml", as_yaml(experiment.config.dump()))
