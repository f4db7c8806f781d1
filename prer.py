"""The program from Python: `from prer import run, load_run`, in a checkout or with the checkout on PYTHONPATH."""

import json
import tempfile
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets.data import as_floats, chunks
from utils.config.yaml_text import as_yaml
from utils.queue.launch import run_here
from utils.queue.plan import Experiment, plan
from utils.run.runner import Run
from utils.run.streams import generator
from utils.settings import BadInput
from utils.store.final_score import seed_scores


def run(
    config: str | Path | Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (),
    device: str | None = None,
) -> dict[str, Any]:
    """Run or resume an experiment in this process; returns the content of its final_score.json.

    Args:
        config: a YAML file, or a mapping with its keys.
        settings: dotted keys to override, such as {"train.epochs": 1}.
        seeds, device: instead of those of the configuration.

    Raises:
        BadInput: the configuration, the data or the results folder cannot be used; nothing has been run.
        Exception: the error of the first seed that failed; finished seeds are kept.
    """
    experiment = _plan(config, settings or {}, seeds, device)
    run_here(experiment)
    return json.loads((experiment.config.save_path / "final_score.json").read_text())


def load_run(folder: str | Path, seed: int = 0, device: str = "cpu") -> "TrainedRun":
    """A finished seed of a results folder, as it was after its last task.

    Raises:
        BadInput: the seed is not finished, or has no checkpoints (`train.save: no`); the data set is not there.
    """
    experiment = _plan(Path(folder, "config.yml"), {}, [seed], device)
    return TrainedRun(Run(experiment.config, experiment.data, seed, experiment.device))


def _plan(config: Any, settings: Mapping[str, Any], seeds: Sequence[int], device: str | None) -> Experiment:
    changes = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    with tempfile.TemporaryDirectory() as scratch:
        if isinstance(config, Mapping):
            tree, config = dict(config), Path(scratch, "config")
            config.write_text(as_yaml(tree))
        try:
            experiment, *more = plan(
                Namespace(
                    configs=[config], set=changes, seeds=tuple(seeds), device=device, data_root=None, backend="local"
                )
            )
        except BadInput as error:
            raise BadInput(str(error).replace(f"{scratch}/", "")) from None
    if more:
        raise BadInput("sweep: run sweeps with main.py, or call run() for each point")
    return experiment


class TrainedRun:
    """A trained seed: `learner` (classifier), `method` (with its generator), `tasks`, `results`, and `scores` by split.

    Images are uint8 (N, C, H, W), or floats in [0, 1]; they are moved to the run's device, where the results are.
    """

    def __init__(self, run: Run) -> None:
        results, weights = run.folder.results(), run.folder.weights(len(run.tasks) - 1)
        if results is None or not run.folder.method.exists():
            missing = "not finished" if results is None else "without checkpoints: it was run with train.save: no"
            raise BadInput(f"{run.folder.path} is {missing}")
        self.learner, self.method, self.tasks, self.results = run.learner, run.method, run.tasks, results
        self.scores, self._run = seed_scores(results), run
        for module, path in ((self.learner, weights), (self.method, run.folder.method)):
            module.load_state_dict(torch.load(path, map_location=run.device, weights_only=True))
        self.learner.eval()
        self._stream = generator(run.seed, "sample", run.device)

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings (N, d)."""
        return self._map(self.learner.embed, images)

    def classify(self, images: Tensor, task: int | None = None) -> Tensor:
        """Global class ids (N,); the task and domain scenarios need the index of the images' task.

        Raises:
            ValueError: it is missing.
        """
        if task is None and self.learner.scenario != "class":
            raise ValueError(f"the {self.learner.scenario} scenario needs task=0 to {len(self.tasks) - 1}")
        return self._map(lambda x: self.method.predict(x, task or 0), images)

    @torch.no_grad()
    def sample(self, labels: Sequence[int] | Tensor) -> Tensor:
        """One generated image, uint8 (N, C, H, W), or code (N, d) of the method's generator per label (N,).

        Raises:
            ValueError: the method has no generator of given classes.
        """
        make = getattr(getattr(self.method, "generator", None), "sample", None)
        if make is None:
            raise ValueError(f"the method {self.method.config.name} has no generator of given classes")
        return make(torch.as_tensor(labels, device=self._run.device), self._stream)[0]

    @torch.no_grad()
    def _map(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        x = images.to(self._run.device)
        return torch.cat([network(as_floats(part) if part.dtype == torch.uint8 else part) for part in chunks(x)])
