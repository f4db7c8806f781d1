"""People's own arrays: an .npz file with x_train, y_train, x_test, y_test."""

import zipfile
from pathlib import Path

import numpy as np
import torch

from datasets import DatasetSettings
from datasets.data import Data, Split
from utils.settings import BadInput

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def load(settings: DatasetSettings, root: Path) -> Data:
    """Images (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or floats in [0, 1]; labels are integers, any values.

    Raises:
        BadInput: no such file, no such array, or one of the wrong shape, type or range.
    """
    file = Path(settings.path)
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            missing = [name for name in ARRAYS if name not in archive]
            if missing:
                raise BadInput(f"scenario.dataset: {file} lacks {', '.join(missing)}; it needs {', '.join(ARRAYS)}")
            arrays = {name: archive[name] for name in ARRAYS}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError, MemoryError) as error:
        raise BadInput(f"scenario.dataset: cannot read {file} as an .npz file ({error})") from error
    names = np.unique(arrays["y_train"]) if arrays["y_train"].ndim == 1 else np.empty(0)
    train, test = (_split(file, arrays, part, names) for part in ("train", "test"))
    if train.x.shape[1:] != test.x.shape[1:]:
        raise BadInput(
            f"scenario.dataset: {file}: images of x_train are {tuple(train.x.shape[1:])}, "
            f"those of x_test {tuple(test.x.shape[1:])} (C, H, W); they must be the same"
        )
    return Data(train, test, tuple(str(name) for name in names))


def _split(file: Path, arrays: dict[str, np.ndarray], part: str, names: np.ndarray) -> Split:
    x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
    if y.ndim != 1 or y.dtype.kind not in "iu" or len(y) != len(x) or len(y) == 0:
        raise BadInput(
            f"scenario.dataset: {file}: y_{part} has shape {y.shape} and type {y.dtype}; expected {len(x)} integers, "
            "one for each image, and at least one"
        )
    unknown = np.setdiff1d(y, names)
    if len(unknown):
        raise BadInput(f"scenario.dataset: {file}: y_{part} has labels that y_train lacks: {unknown[:5].tolist()}")
    labels = torch.from_numpy(np.searchsorted(names, y).astype(np.int64))
    return Split(torch.from_numpy(np.ascontiguousarray(_as_bytes(file, part, _channels_first(file, part, x)))), labels)


def _channels_first(file: Path, part: str, x: np.ndarray) -> np.ndarray:
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[3] in (1, 3):
        return x.transpose(0, 3, 1, 2)
    if x.ndim == 4 and x.shape[1] in (1, 3):
        return x
    raise BadInput(
        f"scenario.dataset: {file}: x_{part} has shape {x.shape}; expected (N, H, W), (N, H, W, C) or (N, C, H, W) "
        "with 1 or 3 channels"
    )


def _as_bytes(file: Path, part: str, x: np.ndarray) -> np.ndarray:
    if x.dtype == np.uint8:
        return x
    if x.dtype.kind == "f" and np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1:
        return np.rint(x * 255).astype(np.uint8)
    raise BadInput(f"scenario.dataset: {file}: x_{part} is {x.dtype}; expected uint8, or floats in [0, 1]")
