"""The features of a frozen encoder: computed once, and kept on disk for all runs that need the same."""

import hashlib
import inspect
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from datasets.cache import cached
from datasets.data import Data, Split, Task, mapped
from models.learner import Learner
from utils.config.schema import Config
from utils.run.build import build_learner, build_tasks
from utils.run.streams import generator
from utils.store.log import bar, log

BLOCK = 1024  # images between two looks at a request to stop


def frozen(
    config: Config,
    data: Data,
    tasks: list[Task],
    seed: int,
    trained: dict[str, Tensor] | None,
    cache: Path | None,
    check: Callable[[], None],
) -> tuple[Learner, nn.Module, list[Task]]:
    """An untrained classifier on the features of a frozen encoder, the encoder, and the tasks with features.

    Args:
        tasks: with images, on the device of the run.
        trained: weights of the encoder's features; None: those it begins with.
        cache, check: as for `on_features`.
    """
    device, learner = tasks[0].train.y.device, build_learner(config, tasks, seed)
    if trained is None:
        learner.encoder.prepare(tasks[0].train.x, generator(seed, "encoder", device))
    else:
        learner.encoder.features.load_state_dict(trained)
    extractor = learner.freeze()
    if config.scenario.tasks is not None:  # each task has images of its own, which no other run need have
        return learner, extractor, [_with_features(task, extractor, check) for task in tasks]
    return learner, extractor, build_tasks(config, on_features(data, extractor, device, cache, check), seed, device)


def on_features(
    data: Data, extractor: nn.Module, device: torch.device, cache: Path | None, check: Callable[[], None]
) -> Data:
    """The data set with the outputs (N, F) of the extractor, which is on `device`, in place of its images.

    Args:
        cache: folder of features on disk, where those of the same images and extractor are looked up; None: none.
        check: called now and then; may raise an exception to stop.
    """
    sizes = [len(data.train), len(data.test)]

    def compute() -> np.ndarray:
        """The features of all images."""
        start, done, out = time.perf_counter(), 0, np.empty((sum(sizes), 0), np.float32)
        with bar(len(out), "features", 2, "image") as progress:
            for block in (*data.train.x.split(BLOCK), *data.test.x.split(BLOCK)):
                z = features(extractor, block, device).numpy()
                if not done:
                    out = np.empty((len(out), z.shape[1]), np.float32)
                out[done : done + len(z)] = z
                done += len(z)
                progress.update(len(z))
                check()
        log.info("features of %d images: %d each, computed in %.1f s", *out.shape, time.perf_counter() - start)
        return out

    if cache is None:
        x = compute()
    else:
        tell, warn = (partial(say, "features %s") for say in (log.info, log.warning))
        x = cached(cache, describe(data, extractor, device), compute, tell, warn, check)
    train, test = torch.from_numpy(x).split(sizes)
    return replace(data, train=Split(train, data.train.y), test=Split(test, data.test.y))


def _with_features(task: Task, extractor: nn.Module, check: Callable[[], None]) -> Task:
    """The task with features in place of its images; `check` is called after each part."""

    def of(split: Split) -> Split:
        check()
        return Split(features(extractor, split.x, split.x.device), split.y)

    return replace(task, train=of(task.train), dev=task.dev and of(task.dev), test=of(task.test))


def features(extractor: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """The extractor's outputs (N, F), on the images' device, for images uint8 (N, C, H, W)."""
    return mapped(extractor, images.to(device)).to(images.device)


def describe(data: Data, extractor: nn.Module, device: torch.device) -> dict[str, object]:
    """What decides the features, to the bit: images, network with its code, weights, and the kernels that compute them.

    Of the code, the files that define the network's layers are known, not what these import.
    """
    digest = hashlib.sha256()
    for name, tensor in extractor.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().numpy().data)
    modules = {type(layer).__module__: type(layer) for layer in extractor.modules()}
    code = {name: _digest_of_source(layer) for name, layer in sorted(modules.items()) if not name.startswith("torch.")}
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {
        "data": data.fingerprint,
        "weights": digest.hexdigest(),
        "network": repr(extractor),
        "code": code,
        "kernels": f"torch {torch.__version__}, {device.type}, {processor}, {torch.get_num_threads()} threads",
    }


def _digest_of_source(layer: type[nn.Module]) -> str:
    """Of the file that defines it; empty if there is none."""
    try:
        return hashlib.sha256(Path(inspect.getfile(layer)).read_bytes()).hexdigest()
    except (OSError, TypeError):
        return ""
