"""The data sets that torchvision downloads, in their official file formats."""

import gzip
import hashlib
import pickle
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import DATASET, load
from main import main
from utils.queue import check
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


def write_cifar(root: Path, monkeypatch, name: str, classes: int) -> np.ndarray:
    """CIFAR's files, each with the images (K, 3072) it returns, one per class; torchvision knows their hashes."""
    import torchvision

    dataset = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[name]
    folder = root / dataset.base_folder
    folder.mkdir()

    def write(file: str, content: dict) -> tuple[str, str]:
        blob = pickle.dumps(content)
        (folder / file).write_bytes(blob)
        return file, hashlib.md5(blob).hexdigest()

    key = "labels" if name == "cifar10" else "fine_labels"
    pixels = (np.arange(classes * 3072) % 251).reshape(classes, 3072).astype(np.uint8)
    batch = {"data": pixels, key: list(range(classes))}
    meta_key = "label_names" if name == "cifar10" else "fine_label_names"
    monkeypatch.setattr(dataset, "train_list", [write(file, batch) for file, _ in dataset.train_list])
    monkeypatch.setattr(dataset, "test_list", [write(file, batch) for file, _ in dataset.test_list])
    file, md5 = write(dataset.meta["filename"], {meta_key: [f"name{i}" for i in range(classes)]})
    monkeypatch.setattr(dataset, "meta", {"filename": file, "key": meta_key, "md5": md5})
    return pixels


@pytest.mark.parametrize(("name", "classes", "files"), [("cifar10", 10, 5), ("cifar100", 100, 1)])
def test_cifar_from_its_official_files(tmp_path, monkeypatch, name, classes, files):
    pixels = write_cifar(tmp_path, monkeypatch, name, classes)
    data = read(tmp_path, name=name)
    assert data.shape == (3, 32, 32) and len(data.train) == classes * files
    assert data.train.x[1].flatten().tolist() == pixels[1].tolist()
    assert data.classes[3] == "name3" and data.test.y.tolist() == list(range(classes))


@pytest.mark.parametrize(("file", "sizes"), [("b50_inc10", [50, 10, 10, 10, 10, 10]), ("b0_inc10", [10] * 10)])
def test_the_protocols_of_cifar100_in_icarl_s_order(tmp_path, monkeypatch, capsys, file, sizes):
    write_cifar(tmp_path, monkeypatch, "cifar100", 100)
    monkeypatch.setattr(check, "estimate", lambda experiment: (0.0, 0.0))
    path = Path(__file__).parent.parent / "files" / "streams" / f"cifar100_{file}.yaml"
    assert main([str(path), "--check", "--data-root", str(tmp_path), "--device", "cpu"]) == 0
    tasks = re.findall(r"^  \d+: (.*) \(", capsys.readouterr().out, re.M)
    classes = [[int(name.removeprefix("name")) for name in names.split(", ")] for names in tasks]
    assert list(map(len, classes)) == sizes
    # Rebuffi et al., CVPR 2017: their code shuffles the classes with numpy's seed 1993
    assert [c for task in classes for c in task] == np.random.RandomState(1993).permutation(100).tolist()
    assert classes[0][:10] == [68, 56, 78, 8, 23, 84, 90, 65, 74, 76]


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


def of_torchvision(root: Path, name: str, **more):
    return read(root, name={"name": f"torchvision:{name}", **more})


def test_any_data_set_of_torchvision_by_name_in_any_case(tmp_path):
    write_mnist(tmp_path, "FashionMNIST")
    ours, theirs = read(tmp_path, name="fashion_mnist"), of_torchvision(tmp_path, "FashionMNIST")
    assert of_torchvision(tmp_path, "fashionmnist").fingerprint == theirs.fingerprint == ours.fingerprint
    larger = of_torchvision(tmp_path, "FashionMNIST", image_size=32, channels=3)
    assert larger.shape == (3, 32, 32) and larger.train.y.tolist() == ours.train.y.tolist()


def images(root: Path, folder: str, sizes: dict[str, list[tuple[int, int]]]) -> None:
    """Colour images, per class of these widths and heights; the value of the red channel counts on."""
    for name, of_class in sizes.items():
        (root / folder / name).mkdir(parents=True, exist_ok=True)
        for i, size in enumerate(of_class):
            Image.new("RGB", size, (100 + 10 * i, 0, 0)).save(root / folder / name / f"{name}_{i}.png")


def test_eurosat_has_no_test_part_and_is_split(tmp_path):
    images(tmp_path, "eurosat/2750", {"AnnualCrop": [(16, 16)] * 5, "Forest": [(16, 16)] * 10})
    data = of_torchvision(tmp_path, "EuroSAT", test_split=0.2)
    assert data.classes == ("AnnualCrop", "Forest") and data.shape == (3, 16, 16)
    assert (data.train.y.bincount().tolist(), data.test.y.bincount().tolist()) == ([4, 8], [1, 2])
    assert of_torchvision(tmp_path, "EuroSAT", test_split=0.2).fingerprint == data.fingerprint
    with pytest.raises(BadInput, match=r"dataset: torchvision:EuroSAT has no test part; add e.g. test_split: 0.2$"):
        of_torchvision(tmp_path, "eurosat")


def test_images_of_different_sizes_and_parts_by_name(tmp_path, monkeypatch):
    """GTSRB: training images in folders, test images with a table."""
    import torchvision

    monkeypatch.setattr(torchvision.datasets.GTSRB, "download", lambda self: None)
    images(tmp_path, "gtsrb/GTSRB/Training", {"00000": [(20, 15)], "00001": [(9, 9), (8, 8)]})
    for file in (tmp_path / "gtsrb").rglob("*.png"):
        Image.open(file).save(file.with_suffix(".ppm"))
    images(tmp_path, "gtsrb/GTSRB/Final_Test", {"Images": [(10, 10), (30, 30)]})
    (tmp_path / "gtsrb" / "GT-final_test.csv").write_text("Filename;ClassId\nImages_0.png;1\nImages_1.png;0\n")
    data = of_torchvision(tmp_path, "GTSRB", image_size=8)
    assert data.shape == (3, 8, 8) and data.train.y.tolist() == [0, 1, 1] and data.test.y.tolist() == [1, 0]
    assert data.classes == ("0", "1")
    with pytest.raises(BadInput, match=r"gtsrb: image 1 and the images before it have different sizes.*set image_size"):
        of_torchvision(tmp_path, "GTSRB")


def test_a_data_set_without_class_labels_is_refused(tmp_path, monkeypatch):
    import torchvision

    class MovingMNIST(torchvision.datasets.VisionDataset):
        data = np.zeros((3, 20, 1, 8, 8), np.uint8)

        def __init__(self, root, train: bool = True):
            super().__init__(root)

        def __len__(self):
            return len(self.data)

        def __getitem__(self, index):
            return self.data[index]

    monkeypatch.setattr(torchvision.datasets, "MovingMNIST", MovingMNIST)
    with pytest.raises(BadInput, match="movingmnist: image 0 or its label cannot be read"):
        of_torchvision(tmp_path, "MovingMNIST")


@pytest.mark.parametrize(
    ("name", "more", "told"),
    [
        ("EuroSTA", {}, r"torchvision has no data set 'eurosta'; did you mean eurosat\?"),
        ("", {}, "torchvision has no data set ''; see the names in torchvision's documentation"),
        ("FakeData", {}, "torchvision:FakeData reads no files of images"),
        ("MNIST", {"test_split": 0.5}, "torchvision:MNIST has a test part; remove test_split"),
        ("EMNIST", {}, "emnist has no part named train or trainval .*; choose another"),
        ("EuroSAT", {"test_split": 0.5}, "eurosat is missing or incomplete under .* --data-root"),
    ],
)
def test_what_torchvision_cannot_give(tmp_path, monkeypatch, name, more, told):
    import urllib.error
    import urllib.request

    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    with pytest.raises(BadInput, match=told):
        of_torchvision(tmp_path, name, **more)


def test_what_follows_a_colon_is_the_class_of_torchvision(tmp_path):
    with pytest.raises(ValueError, match=r"kind\n  Extra inputs are not permitted"):
        read(tmp_path, name="mnist:x")
    assert DATASET.validate("TORCHVISION:EuroSAT").model_dump() == {
        "name": "torchvision", "test_split": None, "image_size": None, "channels": None, "kind": "eurosat"
    }  # fmt: skip
