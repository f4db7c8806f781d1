"""Npz: your own arrays, an .npz file with x_train, y_train, x_test and y_test, or MedMNIST's names."""

import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch

from datasets import DatasetConfig, natural
from datasets.data import Data, Split, reason
from utils.settings import BadInput, prefix_errors

NAMES = (("x_{}", "y_{}"), ("{}_images", "{}_labels"))
"""Of the images and of the labels of a part, train and test (or val): ours, and MedMNIST's."""


class Config(DatasetConfig):
    """The file of the arrays."""

    path: str
    """the .npz file, relative to the data root if one is given, else to the working directory"""


def load(config: Config, root: Path) -> Data:
    """Images (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or floats in [0, 1], or features (N, F), any floats.

    Labels are integers (N,) or (N, 1) of any values, one-hot rows (N, K), or texts; these have natural order: 2, 10.
    """
    file = Path(config.path)
    arrays = _read(file)
    with prefix_errors(str(file)):
        of_train, of_labels, of_test, of_test_labels = arrays
        x_train, x_test = (_images(name, arrays[name]) for name in (of_train, of_test))
        y_train = _labels(of_labels, arrays[of_labels], len(x_train))
        y_test = _labels(of_test_labels, arrays[of_test_labels], len(x_test))
        names = np.unique(y_train)
        same_kind = (names.dtype.kind == "U") == (y_test.dtype.kind == "U")
        if len(unknown := np.setdiff1d(y_test, names) if same_kind else y_test):
            raise BadInput(f"{of_test_labels} has labels that {of_labels} lacks: {unknown[:5].tolist()}")
        if x_train.shape[1:] != x_test.shape[1:]:
            shapes = f"{of_train} {x_train.shape[1:]} and {of_test} {x_test.shape[1:]}"
            raise BadInput(f"the images of {shapes} (C, H, W) must have the same shape")
    order = list(range(len(names)))
    if names.dtype.kind == "U":
        order.sort(key=lambda index: natural(str(names[index])))
    ids, splits = np.argsort(order), ((x_train, y_train), (x_test, y_test))
    train, test = (Split(torch.from_numpy(x), torch.from_numpy(ids[np.searchsorted(names, y)])) for x, y in splits)
    return Data(train, test, tuple(str(names[index]) for index in order))


def _read(file: Path) -> dict[str, np.ndarray]:
    """The images and labels of both parts, under their names. BadInput: the file does not hold them."""
    try:
        if file.exists() and not file.is_file():  # a pipe would be waited for
            raise ValueError("not a regular file")
        with warnings.catch_warnings(), file.open("rb") as opened:
            warnings.simplefilter("ignore")  # about headers of old versions
            if not zipfile.is_zipfile(opened):
                raise ValueError("it is no archive; a .npy file holds one array only")
            opened.seek(0)
            archive = np.load(opened, allow_pickle=False)
            names = next((pair for pair in NAMES if pair[0].format("train") in archive), NAMES[0])
            tests = [part for part in ("test", "val") if names[0].format(part) in archive]
            wanted = [name.format(part) for part in ("train", (*tests, "test")[0]) for name in names]
            arrays = {name: archive[name] for name in wanted if name in archive}
        if odd := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
            raise ValueError(f"{odd[0]} is not an array in numpy's format")
    except Exception as error:  # numpy and zipfile raise many types for damaged files
        raise BadInput(f"cannot read {file} as an .npz file ({reason(error)}); write it with np.savez") from error
    if missing := [name for name in wanted if name not in arrays]:
        known = " or ".join(", ".join(n.format(part) for part in ("train", "test") for n in pair) for pair in NAMES)
        raise BadInput(f"{file} lacks {', '.join(missing)}; it needs {known}")
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
    if x.dtype.kind != "f" or x.size == 0:
        raise BadInput(f"{name} holds {x.dtype}, shape {x.shape}; expected finite floats (N, F), or images")
    with np.errstate(over="ignore"):
        x = np.ascontiguousarray(x, dtype=np.float32)
    if not np.isfinite(x).all():
        raise BadInput(f"{name} holds NaN, infinite values or values beyond float32; expected finite floats (N, F)")
    return x


def _labels(name: str, y: np.ndarray, count: int) -> np.ndarray:
    """Labels (N,): integers, or texts."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    elif y.ndim == 2 and y.dtype.kind in "biuf" and ((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all():
        y = y.argmax(axis=1)
    if y.ndim != 1 or y.dtype.kind not in "iuU" or len(y) != count:
        expected = f"expected {count} integers, one per image, or texts, or a row per image with a single 1"
        raise BadInput(f"{name} has shape {y.shape} and type {y.dtype}; {expected}")
    if odd := [text for text in map(str, np.unique(y)) if not (text and text.isprintable())]:
        raise BadInput(f"{name} holds the text {odd[0]!a}; expected names that can be printed")
    return y
