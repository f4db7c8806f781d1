"""Torchvision: any of its image classification data sets by the name of its class, e.g. torchvision:EuroSAT."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch

from datasets import DatasetConfig
from datasets.data import Data, Split, held_out, reason
from datasets.decode import ImageConfig, as_pixels, stacked
from utils.locks import exclusive
from utils.settings import AnyCase, BadInput, nearest

PARTS = (("train", "trainval"), ("test", "val", "valid"))
"""What the parts for training and testing are called; the first that a class has is read."""


class Config(ImageConfig):
    """Which data set, and the form of its images."""

    kind: Annotated[str, AnyCase]
    """the class in torchvision.datasets, in any case: `dataset: torchvision:EuroSAT`, or with further options
    `{name: torchvision:EuroSAT, test_split: 0.2}`"""

    @property
    def label(self) -> str:
        return self.kind


def load(config: Config, root: Path) -> Data:
    """Both parts of the data set under `root`, downloaded if missing; without a test part, `test_split` of each class.

    Classes that need arguments of their own, such as EMNIST, are refused.
    """
    import torchvision

    known = {name.lower(): name for name in torchvision.datasets.__all__}
    if (kind := known.get(config.kind)) is None:
        hint = nearest(config.kind, known) or "see the names in torchvision's documentation, Datasets"
        raise BadInput(f"torchvision has no data set {config.kind!r}; {hint}")
    accepted = inspect.signature(getattr(torchvision.datasets, kind)).parameters
    if "root" not in accepted:
        raise BadInput(f"torchvision:{kind} reads no files of images; choose another data set")
    has_parts, share = not {"train", "split"}.isdisjoint(accepted), config.test_split
    if has_parts == (share is not None):
        told = "has a test part; remove test_split" if has_parts else "has no test part; add e.g. test_split: 0.2"
        raise BadInput(f"torchvision:{kind} {told}")
    if share is None:
        parts = [_part(config.label, kind, root, index) for index in (0, 1)]
        train, test = (_as_split(part, config) for part in parts)
        return Data(train, test, _class_names(parts[0], train))
    part = _part(config.label, kind, root, None)
    whole = _as_split(part, config)
    always = torch.Generator().manual_seed(0)
    mask = held_out(whole.y, whole.y.unique().tolist(), share, always, "test_split")
    return Data(whole.take(~mask), whole.take(mask), _class_names(part, whole))


def loader(kind: str) -> Callable[[DatasetConfig, Path], Data]:
    """The `load` of a module with a name of its own: `kind` holds both parts as arrays."""

    def load(config: DatasetConfig, root: Path) -> Data:
        parts = [_part(config.name, kind, root, index) for index in (0, 1)]
        train, test = (_as_arrays(part.data, _labels_of(part)) for part in parts)
        return Data(train, test, _class_names(parts[0], train))

    return load


def _part(name: str, kind: str, root: Path, index: int | None) -> Any:
    """The opened data set: of two parts the one for training (0) or testing (1), of one part (None) the whole."""
    import torchvision

    make, there = getattr(torchvision.datasets, kind), root.exists()
    accepted = inspect.signature(make).parameters
    # only a download tells missing from damaged files
    downloads = [{"download": False}, {"download": True}] if "download" in accepted else [{}]
    choices: list[dict[str, Any]] = [{}]
    if index is not None:
        choices = [{"train": index == 0}] if "train" in accepted else [{"split": part} for part in PARTS[index]]
    for which in choices:
        for download in downloads:
            try:
                with _alone(root, kind) if download.get("download") else nullcontext():
                    return make(root, **which, **download)
            except AssertionError:
                why = "a file is not in its format, such as a web page saved in its place"
            except Exception as error:  # damaged files raise many types
                why = reason(error)
        if not why.startswith("Unknown value"):  # for the argument split
            break
    else:
        raise BadInput(f"{name} has no part named {' or '.join(PARTS[index or 0])} ({why}); choose another data set")
    place = root if there else f"{root}, which does not exist"
    raise BadInput(
        f"{name} is missing or incomplete under {place}, and cannot be downloaded ({why}); remove its damaged files, "
        "give another folder with --data-root, or use the bundled data set: digits"
    )


@contextmanager
def _alone(root: Path, kind: str) -> Iterator[None]:
    """Inside, no other process downloads the data set: the first does, and the others find its files."""
    root.mkdir(parents=True, exist_ok=True)
    with exclusive(root / f".{kind}.lock"):
        yield


def _as_split(part: Any, config: Config) -> Split:
    """A part in the form that is configured; what torchvision holds in arrays is not decoded."""
    in_arrays = isinstance(getattr(part, "data", None), np.ndarray | torch.Tensor)
    y = _labels_of(part)
    if in_arrays and y.ndim == 1 and config.image_size is None and config.channels is None:
        return _as_arrays(part.data, y)
    labels = [0] * len(part)

    def image(index: int) -> np.ndarray:
        try:
            opened, label = part[index]
            labels[index] = int(label)
            return as_pixels(opened, config.image_size, config.channels)
        except Exception as error:  # Pillow's readers raise many types for damaged files
            raise BadInput(f"{config.label}: image {index} or its label cannot be read ({reason(error)})") from error

    x = stacked(len(part), image, lambda index: f"{config.label}: image {index}")
    return Split(torch.from_numpy(x), torch.tensor(labels))


def _labels_of(part: Any) -> np.ndarray:
    """Labels (N,) as torchvision holds them; of another shape if it holds none, or more than one per image."""
    return np.asarray(getattr(part, "labels", getattr(part, "targets", None)))


def _as_arrays(data: Any, y: np.ndarray) -> Split:
    """A torchvision data set holds (N, H, W), (N, H, W, C) or, for SVHN, (N, C, H, W)."""
    x = torch.as_tensor(np.asarray(data))
    if x.ndim == 3:
        x = x.unsqueeze(1)
    elif x.shape[-1] == 3:
        x = x.permute(0, 3, 1, 2)
    return Split(x.contiguous(), torch.as_tensor(y).long())


def _class_names(part: Any, train: Split) -> tuple[str, ...]:
    """The names, of several for a class the first; numbers if torchvision does not name the classes."""
    names = getattr(part, "classes", None) or range(int(train.y.max()) + 1 if len(train) else 0)
    return tuple(name[0] if isinstance(name, tuple) else str(name) for name in names)
