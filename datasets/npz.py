"""Npz: your own arrays, an .npz file with x_train, y_train, x_test and y_test."""

import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch

from datasets import DatasetConfig, reason
from datasets.data import Data, Split
from utils.settings import BadInput, prefix_errors

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


class Config(DatasetConfig):
    """The file of the arrays."""

    path: str
    """the .npz file, relative to the data root if one is given, else to the working directory"""


def load(config: Config, root: Path) -> Data:
    """Images (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or floats in [0, 1], or features (N, F), floats of any
    values; labels are integers, any values."""
    file = Path(config.path)
    arrays = _read(file)
    with prefix_errors(str(file)):
        x_train, x_test = (_images(name, arrays[name]) for name in ("x_train", "x_test"))
        y_train, y_test = (
            _labels(name, arrays[name], len(x)) for name, x in (("y_train", x_train), ("y_test", x_test))
        )
        names = np.unique(y_train)
        if len(unknown := np.setdiff1d(y_test, names)):
            raise BadInput(f"y_test has labels that y_train lacks: {unknown[:5].tolist()}")
        if x_train.shape[1:] != x_test.shape[1:]:
            shapes = f"x_train {x_train.shape[1:]} and x_test {x_test.shape[1:]}"
            raise BadInput(f"the images of {shapes} (C, H, W) must have the same shape")
    splits = ((x_train, y_train), (x_test, y_test))
    train, test = (Split(torch.from_numpy(x), torch.from_numpy(np.searchsorted(names, y))) for x, y in splits)
    return Data(train, test, tuple(str(name) for name in names))


def _read(file: Path) -> dict[str, np.ndarray]:
    """The arrays that are needed. BadInput: the file does not hold them."""
    try:
        if file.exists() and not file.is_file():  # a pipe would be waited for
            raise ValueError("not a regular file")
        with warnings.catch_warnings(), file.open("rb") as opened:
            warnings.simplefilter("ignore")  # about headers of old versions
            if not zipfile.is_zipfile(opened):
                raise ValueError("it is no archive; a .npy file holds one array only")
            opened.seek(0)
            archive = np.load(opened, allow_pickle=False)
            arrays = {name: archive[name] for name in ARRAYS if name in archive}
        if odd := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
            raise ValueError(f"{odd[0]} is not an array in numpy's format")
    except Exception as error:  # numpy and zipfile raise many types for damaged files
        raise BadInput(f"cannot read {file} as an .npz file ({reason(error)}); write it with np.savez") from error
    if missing := [name for name in ARRAYS if name not in arrays]:
        raise BadInput(f"{file} lacks {', '.join(missing)}; it needs {', '.join(ARRAYS)}")
    return arrays


def _images(name: str, x: np.ndarray) -> np.ndarray:
    """Any accepted array as images, uint8 (N, C, H, W), or features, float32 (N, F)."""
    if x.ndim == 2:
        return _features(name, x)
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[3] in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    elif x.ndim != 4 or x.shape[1] not in (1, 3):
        accepted = "(N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels, or features (N, F)"
        raise BadInput(f"{name} has shape {x.shape}; expected {accepted}")
    if x.size == 0:
        raise BadInput(f"{name} has shape {x.shape}; expected at least one image and one pixel")
    if x.dtype.kind == "f" and x.min() >= 0 and x.max() <= 1:  # nor NaN
        x = np.rint(x * 255).astype(np.uint8)
    if x.dtype != np.uint8:
        found = f"values from {x.min()} to {x.max()}" if x.dtype.kind in "iuf" else "other values"
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            found = "NaN or infinite values"
        raise BadInput(f"{name} is {x.dtype}; expected uint8, or floats in [0, 1]; it holds {found}")
    return np.ascontiguousarray(x)


def _features(name: str, x: np.ndarray) -> np.ndarray:
    if x.dtype.kind != "f" or x.size == 0 or not np.isfinite(x).all():
        found = "NaN or infinite values" if x.dtype.kind == "f" and x.size else f"{x.dtype}, shape {x.shape}"
        raise BadInput(f"{name} holds {found}; expected finite floats (N, F), or images")
    return np.ascontiguousarray(x, dtype=np.float32)


def _labels(name: str, y: np.ndarray, count: int) -> np.ndarray:
    if y.ndim != 1 or y.dtype.kind not in "iu" or len(y) != count:
        raise BadInput(f"{name} has shape {y.shape} and type {y.dtype}; expected {count} integers, one per image")
    return y
