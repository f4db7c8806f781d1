"""The public data sets that torchvision downloads and verifies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets import DatasetConfig, reason
from datasets.data import Data, Split
from utils.settings import BadInput


def loader(kind: str) -> Callable[[DatasetConfig, Path], Data]:
    """The `load` of the class `kind` in torchvision: reads both parts under `root`, downloads them if missing."""

    def load(config: DatasetConfig, root: Path) -> Data:
        train, test = (_part(config.name, kind, root, is_train) for is_train in (True, False))
        names = getattr(train, "classes", range(10))  # SVHN does not name its classes
        return Data(_as_split(train), _as_split(test), tuple(str(name) for name in names))

    return load


def _part(name: str, kind: str, root: Path, is_train: bool) -> Any:
    import torchvision

    which: dict[str, Any] = {"split": "train" if is_train else "test"} if kind == "SVHN" else {"train": is_train}
    for download in (False, True):  # only a download tells a missing file from a damaged one
        try:
            return getattr(torchvision.datasets, kind)(root, download=download, **which)
        except AssertionError:
            why = "a file is not in its format, such as a web page saved in its place"
        except Exception as error:  # damaged files raise many types
            why = reason(error)
    raise BadInput(
        f"{name} is missing or incomplete under {root}, and cannot be downloaded ({why}); remove its damaged files, "
        "give another folder with --data-root, or use the bundled data set: digits"
    )


def _as_split(part: Any) -> Split:
    """A torchvision data set holds (N, H, W), (N, H, W, C) or, for SVHN, (N, C, H, W)."""
    x = torch.as_tensor(np.asarray(part.data))
    y = torch.as_tensor(np.asarray(part.labels if hasattr(part, "labels") else part.targets)).long()
    if x.ndim == 3:
        x = x.unsqueeze(1)
    elif x.shape[-1] == 3:
        x = x.permute(0, 3, 1, 2)
    return Split(x.contiguous(), y)
