"""The public data sets that torchvision downloads and checks."""

from pathlib import Path

import numpy as np
import torch

from datasets import DatasetSettings
from datasets.data import Data, Split
from utils.settings import BadInput

CLASS_IN_TORCHVISION = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "svhn": "SVHN",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}


def load(settings: DatasetSettings, root: Path) -> Data:
    """Both parts of the data set under `root`, downloaded first where they are missing.

    Raises:
        BadInput: neither there nor to be downloaded, or damaged.
    """
    train, test = (_part(settings.name, root, train) for train in (True, False))
    names = getattr(train, "classes", None) or [str(c) for c in range(10)]  # SVHN names no classes
    return Data(_as_split(train), _as_split(test), tuple(str(name) for name in names))


def _part(name: str, root: Path, train: bool) -> object:
    from torchvision import datasets as torchvision_datasets

    dataset = getattr(torchvision_datasets, CLASS_IN_TORCHVISION[name])
    which = {"split": "train" if train else "test"} if name == "svhn" else {"train": train}
    try:
        return dataset(root, download=False, **which)
    except (RuntimeError, ValueError, OSError, EOFError):
        pass  # not there, or damaged: torchvision tells the two apart only by downloading
    try:
        return dataset(root, download=True, **which)
    except (RuntimeError, ValueError, OSError, EOFError) as error:
        raise BadInput(
            f"scenario.dataset: {name} is not (whole) under {root} and its download failed ({_first_line(error)}); "
            "say where it is with --data-root, or use the bundled data set: digits"
        ) from error


def _as_split(part: object) -> Split:
    """A torchvision data set holds (N, H, W), (N, H, W, C) or, for SVHN, (N, C, H, W)."""
    x = torch.as_tensor(np.asarray(part.data))
    y = torch.as_tensor(np.asarray(part.labels if hasattr(part, "labels") else part.targets)).long()
    if x.ndim == 3:
        x = x.unsqueeze(1)
    elif x.shape[-1] == 3:
        x = x.permute(0, 3, 1, 2)
    return Split(x.contiguous(), y)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
