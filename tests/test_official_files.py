"""The data sets that torchvision downloads, in their official file formats."""

import gzip
import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from datasets import load
from utils.config.schema import DATASET
from utils.settings import BadInput


def read(root: Path, name: str):
    return load(DATASET.validate(name), root)


def idx(array: np.ndarray) -> bytes:
    """The format of MNIST's files."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_mnist(root: Path, folder: str = "MNIST", **files: bytes) -> None:
    """The four files as they are unpacked, 20 training and 10 test images; others in `files`, by part and kind."""
    raw = root / folder / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for part, n in (("train", 20), ("t10k", 10)):
        x, y = np.arange(n * 784).reshape(n, 28, 28) % 251, np.arange(n) % 10
        for kind, array in (("images-idx3", x), ("labels-idx1", y)):
            content = files.get(f"{part}_{kind[:6]}", idx(array))
            (raw / f"{part}-{kind}-ubyte").write_bytes(content)


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
def test_mnist_and_its_kin_from_their_official_files(tmp_path, name, folder):
    write_mnist(tmp_path, folder)
    data = read(tmp_path, name=name)
    assert data.shape == (1, 28, 28) and (len(data.train), len(data.test)) == (20, 10)
    assert data.train.x[0, 0, 0, :3].tolist() == [0, 1, 2] and data.train.y.tolist() == [*range(10), *range(10)]
    assert len(data.classes) == 10


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        (
            "train_images",
            b"<!DOCTYPE html>\n<html>404</html>",
            r"incomplete under .* \(a file is not in its format, such as a web",
        ),
        ("t10k_labels", b"", "missing or incomplete under"),
        ("t10k_labels", idx(np.arange(9)), "10 test images have 9 labels; expected one per image"),
        ("train_labels", idx(np.arange(20)), "the training labels are 0 to 19; expected 0 to 9"),
        (
            "t10k_images",
            idx(np.full((10, 14, 56), 99)),
            r"are \(1, 28, 28\) and the test images \(1, 14, 56\); expected one",
        ),
    ],
)
def test_files_of_mnist_that_do_not_belong_together(tmp_path, file, content, match):
    write_mnist(tmp_path, **{file: content})
    with pytest.raises(BadInput, match=match):
        read(tmp_path, name="mnist")


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_from_its_official_files(tmp_path, monkeypatch, name, classes):
    import torchvision

    dataset = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[name]
    folder = tmp_path / dataset.base_folder
    folder.mkdir()

    def write(file: str, content: dict) -> tuple[str, str]:
        blob = pickle.dumps(content)
        (folder / file).write_bytes(blob)
        return file, hashlib.md5(blob).hexdigest()

    key = "labels" if name == "cifar10" else "fine_labels"
    pixels = np.arange(classes * 3072).reshape(classes, 3072).astype(np.uint8)
    batch = {"data": pixels, key: list(range(classes))}
    meta_key = "label_names" if name == "cifar10" else "fine_label_names"
    monkeypatch.setattr(dataset, "train_list", [write(file, batch) for file, _ in dataset.train_list])
    monkeypatch.setattr(dataset, "test_list", [write(file, batch) for file, _ in dataset.test_list])
    file, md5 = write(dataset.meta["filename"], {meta_key: [f"name{i}" for i in range(classes)]})
    monkeypatch.setattr(dataset, "meta", {"filename": file, "key": meta_key, "md5": md5})

    data = read(tmp_path, name=name)
    assert data.shape == (3, 32, 32) and len(data.train) == classes * len(dataset.train_list)
    assert data.train.x[1].flatten().tolist() == pixels[1].tolist()
    assert data.classes[3] == "name3" and data.test.y.tolist() == list(range(classes))


def test_svhn_from_its_official_files(tmp_path, monkeypatch):
    import scipy.io
    import torchvision

    parts = dict(torchvision.datasets.SVHN.split_list)
    for part, n in (("train", 20), ("test", 10)):
        url, file, _ = parts[part]
        x = np.arange(32 * 32 * 3 * n).reshape(32, 32, 3, n).astype(np.uint8)
        scipy.io.savemat(tmp_path / file, {"X": x, "y": (np.arange(n) % 10 + 1)[:, None]})
        parts[part] = [url, file, hashlib.md5((tmp_path / file).read_bytes()).hexdigest()]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", parts)
    data = read(tmp_path, name="svhn")
    assert data.shape == (3, 32, 32) and data.train.y[9] == 0 and data.train.y[0] == 1
    assert data.train.x[1, 2, 3, 4] == (np.arange(32 * 32 * 3 * 20).reshape(32, 32, 3, 20).astype(np.uint8))[3, 4, 2, 1]
    assert data.classes == tuple("0123456789")


def test_no_network_and_no_data_is_one_clear_error(tmp_path, monkeypatch):
    import urllib.error
    import urllib.request

    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    for name in ("mnist", "cifar10", "svhn"):
        with pytest.raises(BadInput, match=f"{name} is missing or incomplete under .* --data-root"):
            read(tmp_path, name=name)


def test_a_damaged_file_is_not_trained_on(tmp_path, monkeypatch):
    import urllib.error
    import urllib.request

    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{file}-ubyte").write_bytes(idx(np.zeros((10, 28, 28)))[:100])
        (raw / f"{file}-ubyte.gz").write_bytes(gzip.compress(b"short"))
    with pytest.raises(BadInput, match="mnist is missing or incomplete"):
        read(tmp_path, name="mnist")
