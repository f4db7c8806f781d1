"""Data sets: the bundled one, people's own, and the downloaded ones in their official file formats."""

import gzip
import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets import load
from datasets.data import Data, Split, stratified
from utils.config.schema import DATASET
from utils.settings import BadInput


def read(root: Path, **settings):
    return load(DATASET.validate(settings), root)


def test_digits_are_split_once_and_for_all(tmp_path):
    data = read(tmp_path, name="digits")
    assert (len(data.train), len(data.test)) == (1437, 360)
    assert data.image_shape == (1, 28, 28) and data.train.x.dtype == torch.uint8
    assert data.train.x.max() > 240 and len(data.classes) == 10
    again = read(tmp_path, name="digits")
    assert torch.equal(data.test.x, again.test.x) and torch.equal(data.test.y, again.test.y)
    shares = torch.stack([split.y.bincount() / len(split) for split in (data.train, data.test)])
    assert (shares[0] - shares[1]).abs().max() < 0.005
    known = {x.numpy().tobytes() for x in data.train.x}
    assert sum(x.numpy().tobytes() in known for x in data.test.x) == 0


@pytest.fixture
def folder(tmp_path):
    for part, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(["cat", "dog"]):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.full((16, 16, 3), 40 * label + i, dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{i}.png")
    return tmp_path


def test_a_folder_of_images(folder):
    data = read(folder, name="folder", path=str(folder))
    assert data.classes == ("cat", "dog") and data.image_shape == (3, 16, 16)
    assert data.train.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.train.x[4].unique().tolist() == [41]
    assert read(folder, name="folder", path=str(folder), image_size=8, channels=1).image_shape == (1, 8, 8)


def test_what_can_be_wrong_with_a_folder(folder):
    def refused(match, **more):
        with pytest.raises(BadInput, match=match):
            read(folder, name="folder", path=str(folder), **more)

    Image.new("RGB", (9, 16)).save(folder / "train" / "dog" / "odd.png")
    refused(r"odd.png and .* different sizes, 9 x 16 and 16 x 16 pixels.*set image_size")
    assert read(folder, name="folder", path=str(folder), image_size=16).image_shape == (3, 16, 16)
    (folder / "train" / "dog" / "odd.png").write_bytes(b"not an image")
    refused("cannot read the image .*odd.png", image_size=16)
    whole = (folder / "train" / "dog" / "0.png").read_bytes()
    (folder / "train" / "dog" / "odd.png").write_bytes(whole[: len(whole) // 2])
    refused("cannot read the image .*odd.png")
    (folder / "train" / "dog" / "odd.png").unlink()
    (folder / "test" / "bird").mkdir()
    refused(r"same classes; only in one: \['bird'\]")
    (folder / "test" / "bird").rename(folder / "train" / "bird")
    (folder / "test" / "bird").mkdir()
    refused("holds no images")
    with pytest.raises(BadInput, match="is not a directory"):
        read(folder, name="folder", path=str(folder / "nowhere"))


def save(path: Path, **changes) -> Path:
    arrays = {
        "x_train": np.zeros((4, 8, 8), np.uint8),
        "y_train": np.array([3, 7, 3, 7]),
        "x_test": np.zeros((2, 8, 8), np.uint8),
        "y_test": np.array([7, 3]),
    } | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def test_arrays_in_every_accepted_shape(tmp_path):
    data = read(tmp_path, name="npz", path=str(save(tmp_path / "a.npz")))
    assert data.classes == ("3", "7") and data.test.y.tolist() == [1, 0] and data.image_shape == (1, 8, 8)
    last = {"x_train": np.zeros((4, 8, 9, 3), np.uint8), "x_test": np.zeros((2, 8, 9, 3), np.uint8)}
    assert read(tmp_path, name="npz", path=str(save(tmp_path / "b.npz", **last))).image_shape == (3, 8, 9)
    first = {"x_train": np.full((4, 3, 8, 9), 0.5), "x_test": np.ones((2, 3, 8, 9))}
    data = read(tmp_path, name="npz", path=str(save(tmp_path / "c.npz", **first)))
    assert data.image_shape == (3, 8, 9) and data.train.x.unique().tolist() == [128]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"y_test": None}, "lacks y_test"),
        ({"x_train": np.zeros((4, 8), np.uint8)}, r"x_train has shape \(4, 8\)"),
        ({"x_train": np.zeros((4, 5, 8, 8), np.uint8)}, "with 1 or 3 channels"),
        ({"x_train": np.full((4, 8, 8), 255.0)}, r"x_train is float64; expected uint8, or floats in \[0, 1\]"),
        ({"x_train": np.full((4, 8, 8), np.nan)}, "expected uint8"),
        ({"y_train": np.array([3, 7, 3])}, "y_train has shape"),
        ({"y_train": np.array([3.0, 7, 3, 7])}, "expected 4 integers"),
        ({"y_test": np.array([7, 8])}, r"labels that y_train lacks: \[8\]"),
        ({"x_test": np.zeros((2, 9, 9), np.uint8)}, "must have the same shape"),
        ({"y_train": np.array([{}, 1, 2, 3], dtype=object)}, "cannot read"),
    ],
)
def test_what_can_be_wrong_with_arrays(tmp_path, changes, match):
    with pytest.raises(BadInput, match=match):
        read(tmp_path, name="npz", path=str(save(tmp_path / "a.npz", **changes)))


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04broken"])
def test_a_file_that_is_no_archive(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(BadInput, match=r"cannot read .*a\.npz"):
        read(tmp_path, name="npz", path=str(tmp_path / "a.npz"))


def idx(array: np.ndarray) -> bytes:
    """The format of MNIST's files."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
def test_mnist_and_its_kin_from_their_official_files(tmp_path, name, folder):
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 20), ("t10k", 10)):
        x, y = np.arange(n * 784).reshape(n, 28, 28) % 251, np.arange(n) % 10
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(x))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(y))
    data = read(tmp_path, name=name)
    assert data.image_shape == (1, 28, 28) and (len(data.train), len(data.test)) == (20, 10)
    assert data.train.x[0, 0, 0, :3].tolist() == [0, 1, 2] and data.train.y.tolist() == [*range(10), *range(10)]
    assert len(data.classes) == 10


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
    assert data.image_shape == (3, 32, 32) and len(data.train) == classes * len(dataset.train_list)
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
    assert data.image_shape == (3, 32, 32) and data.train.y[9] == 0 and data.train.y[0] == 1
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


def test_a_folder_s_links_names_bombs_and_modes(folder, tmp_path_factory):
    def refused(match):
        with pytest.raises(BadInput, match=match):
            read(folder, name="folder", path=str(folder))

    outside = tmp_path_factory.mktemp("outside")
    Image.new("RGB", (16, 16)).save(outside / "secret.png")
    link = folder / "train" / "dog" / "link.png"
    link.symlink_to(outside / "secret.png")
    refused("link.png is a link out of its folder")
    link.unlink()
    link.symlink_to(folder / "train" / "dog" / "0.png")  # inside is fine
    assert len(read(folder, name="folder", path=str(folder)).train) == 7
    link.unlink()
    for part in ("train", "test"):
        (folder / part / "bird").symlink_to(outside)
    refused("bird is a link out of its folder")
    for part in ("train", "test"):
        (folder / part / "bird").unlink()
    (folder / "train" / "two\nlines").mkdir()
    refused("a name that cannot be printed")
    (folder / "train" / "two\nlines").rmdir()
    for size in ((8000, 8000), (12000, 12000), (20000, 20000)):  # ours, PIL's warning, PIL's error
        Image.new("1", size).save(folder / "train" / "dog" / "bomb.png")
        refused("cannot read the image .*bomb.png")
    (folder / "train" / "dog" / "bomb.png").unlink()
    for mode in ("1", "L", "LA", "P", "RGBA", "I;16"):
        Image.new(mode, (16, 16)).save(folder / "train" / "dog" / f"{mode.replace(';', '')}.png")
    Image.new("CMYK", (16, 16)).save(folder / "train" / "dog" / "cmyk.jpg")
    assert read(folder, name="folder", path=str(folder)).image_shape == (3, 16, 16)


def test_a_fingerprint_tells_data_sets_apart():
    x, y = torch.arange(96, dtype=torch.uint8).view(6, 1, 4, 4), torch.tensor([0, 1, 0, 1, 0, 1])

    def of(x=x, y=y, test=(x, y), classes=("a", "b")):
        return Data(Split(x, y), Split(*test), classes).fingerprint

    assert of() == of(x.clone(), y.clone()) and len(of()) == 16 and int(of(), 16)
    assert of(x.contiguous(memory_format=torch.channels_last)) == of()
    brighter, swapped = x.clone(), torch.tensor([2, 1, 0, 3, 4, 5])  # the labels stay as they are
    brighter[5, 0, 3, 3] += 1
    others = [of(brighter), of(x[swapped]), of(x.view(6, 1, 2, 8)), of(y=1 - y), of(test=(x[:4], y[:4]))]
    others += [of(classes=("a", "c")), of(classes=("ab", "")), of(x.float()), of(x[:4], y[:4], (x, y))]
    assert len({of(), *others}) == 10


def test_a_stratified_sample_has_of_every_class_its_share():
    y = torch.tensor([0] * 600 + [1] * 300 + [2] * 100)
    shuffled = y[torch.randperm(1000, generator=torch.Generator().manual_seed(0))]
    for labels in (y, shuffled):
        index = stratified(labels, 100)
        assert labels[index].bincount().tolist() == [60, 30, 10] and len(index.unique()) == 100
        assert torch.equal(index, stratified(labels, 100))
        assert labels[stratified(labels, 7)].bincount().tolist() == [4, 2, 1]
    assert stratified(shuffled, 1000).tolist() == stratified(shuffled, 2000).tolist() == list(range(1000))
    assert stratified(y[:0], 5).tolist() == []
