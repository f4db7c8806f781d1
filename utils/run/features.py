"""The features of a frozen encoder: computed once, and kept on disk for all runs that need the same."""

import hashlib
import json
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from datasets.data import Data, Split, Task, as_floats, chunks
from models.learner import Learner
from utils.config.schema import Config
from utils.run.build import build_learner, build_tasks
from utils.run.streams import generator
from utils.store.files import write_text
from utils.store.locks import exclusive
from utils.store.log import bar, log

BLOCK = 1024  # images between two looks at a request to stop

Fill = Callable[[np.ndarray], None]


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
    shape = sum(sizes), features(extractor, data.train.x[:1], device).shape[1]

    def fill(out: np.ndarray) -> None:
        """Compute all features."""
        start, done = time.perf_counter(), 0
        with bar(len(out), "features", 2, "image") as progress:
            for part in (data.train.x, data.test.x):
                for block in part.split(BLOCK):
                    out[done : done + len(block)] = features(extractor, block, device).numpy()
                    done += len(block)
                    progress.update(len(block))
                    check()
        log.info("features of %d images: %d each, computed in %.1f s", *out.shape, time.perf_counter() - start)

    x = None
    if cache is not None:
        try:
            x = _cached(cache, describe(data, extractor, device), shape, fill)
        except OSError as error:
            log.warning("the features are not kept on disk: %s cannot be used (%s)", cache, error)
    if x is None:
        x = np.empty(shape, np.float32)
        fill(x)
    train, test = torch.from_numpy(x).split(sizes)
    return replace(data, train=Split(train, data.train.y), test=Split(test, data.test.y))


def _with_features(task: Task, extractor: nn.Module, check: Callable[[], None]) -> Task:
    """The task with features in place of its images; `check` is called after each part."""

    def of(split: Split) -> Split:
        check()
        return Split(features(extractor, split.x, split.x.device), split.y)

    return replace(task, train=of(task.train), dev=task.dev and of(task.dev), test=of(task.test))


@torch.no_grad()
def features(extractor: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """The extractor's outputs (N, F), on the images' device, for images uint8 (N, C, H, W)."""
    return torch.cat([extractor(as_floats(part)) for part in chunks(images.to(device))]).to(images.device)


def describe(data: Data, extractor: nn.Module, device: torch.device) -> dict[str, object]:
    """What decides the features, to the bit: images, network, weights, and the kernels that compute them."""
    digest = hashlib.sha256()
    for name, tensor in extractor.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().numpy().data)
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {
        "data": data.fingerprint,
        "weights": digest.hexdigest(),
        "network": repr(extractor),
        "kernels": f"torch {torch.__version__}, {device.type}, {processor}",
    }


def _cached(folder: Path, description: dict[str, object], shape: tuple[int, int], fill: Fill) -> np.ndarray:
    """The features in the folder, computed if they are not there or damaged. OSError: it cannot be written."""
    key = hashlib.sha256(json.dumps(description).encode()).hexdigest()[:16]
    array, about = folder / f"{key}.npy", folder / f"{key}.json"
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / f".{key}.lock", inf, ""):  # of several jobs one computes, the others wait
        if about.exists():
            if (x := _read(array, about, shape)) is not None:
                log.info("features read from %s", array)
                return x
            log.warning("%s is damaged; the features are computed again", array)
        temporary = array.with_suffix(".tmp")  # of a killed run: overwritten
        out = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
        fill(out)
        out.flush()
        checksum = zlib.crc32(out.data)
        temporary.replace(array)
        write_text(about, json.dumps(description | {"crc32": checksum}, indent=1))
        log.info("features written to %s (%.0f MB)", array, array.stat().st_size / 1e6)
        return out


def _read(array: Path, about: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """The features, mapped into memory; None if their file is not what was written."""
    try:
        x = np.load(array, mmap_mode="c")  # copy on write: tensors are of memory that may be written to
        intact = x.shape == shape and zlib.crc32(x.data) == json.loads(about.read_text())["crc32"]
    except (OSError, ValueError, KeyError, EOFError):
        return None
    return x if intact else None
