"""The program from Python: `from prer import run, load_run`, in a checkout or with the checkout on PYTHONPATH."""

import json
import os
import tempfile
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets.data import mapped
from utils.config.yaml_text import as_yaml
from utils.options import seeds as parse_seeds
from utils.queue.launch import run_here
from utils.queue.plan import Experiment, plan
from utils.run.runner import Run
from utils.settings import BadInput
from utils.store.final_score import seed_scores


def run(
    config: str | Path | Mapping[str, Any], settings: Mapping[str, Any] | None = None, seeds: str | Sequence[int] = ()
) -> dict[str, Any]:
    """Run or resume an experiment in this process; returns the content of its final_score.json.

    `config`: a YAML file or a mapping with its keys. `settings`, such as {"train.epochs": 1}, and `seeds`, such as
    "0-4" or [0, 3], override it.

    Raises:
        BadInput: the configuration, the data or the results folder cannot be used; nothing has been run.
        Exception: the error of the first seed that failed; finished seeds are kept.
    """
    experiment = _plan(config, settings or {}, seeds)
    try:
        run_here(experiment)
    except BadInput as error:
        raise BadInput(str(error).replace("--restart", 'settings={"train.load": False}')) from None
    return json.loads((experiment.config.save_path / "final_score.json").read_text())


def load_run(folder: str | Path, seed: int = 0, device: str = "cpu") -> "TrainedRun":
    """A finished seed of a results folder, as it was after its last task.

    Raises:
        BadInput: the seed is not finished, or has no checkpoints (`train.save: no`); the data set is not there.
    """
    settings = {"train.device": device, "train.save_path": str(folder)}  # which may have been moved
    experiment = _plan(Path(folder, "config.yml"), settings, [seed])
    return TrainedRun(Run(experiment.config, experiment.data, seed, experiment.device, cache=experiment.cache))


def _plan(config: Any, settings: Mapping[str, Any], seeds: str | Sequence[int]) -> Experiment:
    if not isinstance(config, str | Path | Mapping):
        raise BadInput(f"config: got {type(config).__name__}; expected a path or a mapping")
    options = Namespace(seeds=_seeds(seeds), device=None, data_root=None, backend="local")
    options.set = [f"{key}={_as_json(key, value)}" for key, value in settings.items()]
    with tempfile.TemporaryDirectory() as scratch:
        options.configs = [Path(scratch, "config") if isinstance(config, Mapping) else config]
        if isinstance(config, Mapping):
            tree = {key: json.loads(_as_json(key, value)) for key, value in config.items()}
            tree |= {"base": os.path.abspath(base)} if isinstance(base := tree.get("base"), str) else {}
            options.configs[0].write_text(as_yaml(tree))
        try:
            experiment, *more = plan(options)
        except BadInput as error:
            raise BadInput(str(error).replace(f"{scratch}/", "")) from None
    experiment = replace(experiment, where=experiment.where.replace(f"{scratch}/", ""))
    if more:
        raise BadInput("sweep: run sweeps with main.py, or call run() for each point")
    return experiment


def _as_json(key: str, value: Any) -> str:
    """Of a value of the configuration, also a path or a number of NumPy's or PyTorch's."""
    try:
        return json.dumps(value, default=lambda one: one.item() if hasattr(one, "item") else os.fspath(one))
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadInput(f"{key}: {error}; expected what YAML can hold") from None


def _seeds(seeds: Any) -> tuple[int, ...]:
    text = seeds if isinstance(seeds, str) else ",".join(map(str, seeds if isinstance(seeds, Iterable) else [seeds]))
    try:
        return parse_seeds(text) if text else ()
    except ArgumentTypeError as error:
        raise BadInput(f"seeds: {error}") from None


class TrainedRun:
    """A trained seed: `learner` (the classifier), `method`, `tasks`, `results`, and `scores` by split and name.

    Images are uint8 (N, C, H, W), or floats in [0, 1]. Results are on the run's device.
    """

    def __init__(self, run: Run) -> None:
        results, folder = run.folder.results(), run.folder
        if results is None or not folder.method.exists():
            missing = "not finished" if results is None else "without checkpoints: it was run with train.save: no"
            raise BadInput(f"{folder.path} is {missing}")
        run.restore_encoder()
        self.learner, self.method, self.tasks, self.results = run.learner, run.method, run.tasks, results
        self.scores, self._device = seed_scores(results), run.device
        self.extractor = run.extractor or torch.nn.Identity()
        for module, path in ((self.learner, folder.weights(len(self.tasks) - 1)), (self.method, folder.method)):
            module.load_state_dict(torch.load(path, map_location=run.device, weights_only=True))
        self.learner.eval()

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings (N, d)."""
        return self._map(self.method.embed, images)

    def classify(self, images: Tensor, task: int | None = None) -> Tensor:
        """Global class ids (N,). Raises ValueError without the index of a task where the scenario needs it."""
        if self.learner.scenario != "class" and task not in range(len(self.tasks)):
            raise ValueError(f"task: got {task}; the {self.learner.scenario} scenario needs 0 to {len(self.tasks) - 1}")
        return self._map(lambda x: self.method.predict(x, task or 0), images)

    @torch.no_grad()
    def sample(self, labels: Sequence[int] | Tensor) -> Tensor:
        """Samples of classes (N,): images, uint8 (N, C, H, W), or codes (N, d).

        Raises ValueError without a generator, or for what is no list of classes.
        """
        generate: Any = getattr(self.method, "generate", None)
        if generate is None:
            raise ValueError(f"the method {self.method.config.name} cannot generate samples of given classes")
        y, classes = torch.as_tensor(labels, device=self._device), len(self.learner.task_of)
        if y.dim() != 1 or y.is_floating_point() or not len(y) or not bool(((y >= 0) & (y < classes)).all()):
            raise ValueError(f"labels: expected a list of classes from 0 to {classes - 1}, got {labels}")
        return generate(y)[0]

    def _map(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        x = images.to(self._device)
        if x.dim() > 2 and self.learner.encoder.shape != x.shape[1:]:  # images, and the classifier learned on features
            return mapped(lambda part: network(self.extractor(part)), x)
        return mapped(network, x)
