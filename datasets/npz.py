"""Npz: your own arrays, an .npz file with x_train, y_train, x_test and y_test."""

import zipfile
from pathlib import Path

import numpy as np
import torch

from datasets import DatasetConfig
from datasets.data import Data, Split
from utils.settings import BadInput, prefix_errors

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


class Config(DatasetConfig):
    """The file of the arrays."""

    path: str
    """the .npz file, relative to the working directory"""


def load(config: Config, root: Path) -> Data:
    """Images (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or floats in [0, 1]; labels are integers, any values."""
    file = Path(config.path)
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ARRAYS if name in archive}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError, MemoryError) as error:
        raise BadInput(f"cannot read {file} as an .npz file ({error})") from error
    if missing := [name for name in ARRAYS if name not in arrays]:
        raise BadInput(f"{file} lacks {', '.join(missing)}; it needs {', '.join(ARRAYS)}")
    names = np.unique(arrays["y_train"])
    with prefix_errors(str(file)):
        train, test = (_split(part, arrays[f"x_{part}"], arrays[f"y_{part}"], names) for part in ("train", "test"))
    if train.x.shape[1:] != test.x.shape[1:]:
        shapes = f"x_train {tuple(train.x.shape[1:])} and x_test {tuple(test.x.shape[1:])}"
        raise BadInput(f"{file}: the images of {shapes} (C, H, W) must have the same shape")
    return Data(train, test, tuple(str(name) for name in names))


def _split(part: str, x: np.ndarray, y: np.ndarray, names: np.ndarray) -> Split:
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[3] in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    elif x.ndim != 4 or x.shape[1] not in (1, 3):
        accepted = "(N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels"
        raise BadInput(f"x_{part} has shape {x.shape}; expected {accepted}")
    if y.ndim != 1 or y.dtype.kind not in "iu" or len(y) != len(x) or len(y) == 0:
        given = f"y_{part} has shape {y.shape} and type {y.dtype}"
        raise BadInput(f"{given}; expected {len(x)} integers, one per image, and at least one")
    if len(unknown := np.setdiff1d(y, names)):
        raise BadInput(f"y_{part} has labels that y_train lacks: {unknown[:5].tolist()}")
    if x.dtype.kind == "f" and np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1:
        x = np.rint(x * 255).astype(np.uint8)
    if x.dtype != np.uint8:
        raise BadInput(f"x_{part} is {x.dtype}; expected uint8, or floats in [0, 1]")
    return Split(torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(np.searchsorted(names, y)))
