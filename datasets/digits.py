"""Digits: the 1,797 handwritten digits bundled with scikit-learn; no download."""

from pathlib import Path

import torch
from torch.nn import functional as F

from datasets import DatasetConfig
from datasets.data import Data, Split, as_bytes


def load(config: DatasetConfig, root: Path) -> Data:
    """Digits 8 x 8 resized to 28 x 28, with a fixed stratified split into 1,437 training and 360 test images.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (its test part).
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    pixels = torch.from_numpy(bunch.images).float().div_(16).unsqueeze(1)  # (N, 1, 8, 8) in [0, 1]
    x = as_bytes(F.interpolate(pixels, size=28, mode="bilinear", align_corners=False))
    y = torch.from_numpy(bunch.target).long()
    train, test = train_test_split(range(len(y)), test_size=0.2, random_state=0, stratify=bunch.target)
    whole = Split(x, y)
    return Data(whole.take(torch.tensor(train)), whole.take(torch.tensor(test)), tuple("0123456789"))
