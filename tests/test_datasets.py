"""Data sets: the bundled one, folders and arrays; what every data set has."""

import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets import DATASET, load
from datasets.data import Data, Split, stratified
from utils.settings import BadInput


def read(root: Path, **settings):
    return load(DATASET.validate(settings), root)


def test_digits_are_split_once_and_for_all(tmp_path):
    data = read(tmp_path, name="digits")
    assert (len(data.train), len(data.test)) == (1437, 360)
    assert data.shape == (1, 28, 28) and data.train.x.dtype == torch.uint8
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
    assert data.classes == ("cat", "dog") and data.shape == (3, 16, 16)
    assert data.train.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.train.x[4].unique().tolist() == [41]
    assert read(folder, name="folder", path=str(folder), image_size=8, channels=1).shape == (1, 8, 8)


def test_what_can_be_wrong_with_a_folder(folder):
    def refused(match, **more):
        with pytest.raises(BadInput, match=match):
            read(folder, name="folder", path=str(folder), **more)

    Image.new("RGB", (9, 16)).save(folder / "train" / "dog" / "odd.png")
    refused(r"odd.png and .* different sizes, 9 x 16 and 16 x 16 pixels.*set image_size")
    assert read(folder, name="folder", path=str(folder), image_size=16).shape == (3, 16, 16)
    (folder / "train" / "dog" / "odd.png").write_bytes(b"not an image")
    refused("cannot read the image .*odd.png", image_size=16)
    whole = (folder / "train" / "dog" / "0.png").read_bytes()
    (folder / "train" / "dog" / "odd.png").write_bytes(whole[: len(whole) // 2])
    refused("cannot read the image .*odd.png")
    (folder / "train" / "dog" / "odd.png").unlink()
    (folder / "test" / "bird").mkdir()
    refused("test/bird holds no images")
    (folder / "test" / "bird" / "0.png").write_bytes(whole)
    refused(r"same classes; only in one: \['bird'\]")
    (folder / "test" / "bird").rename(folder / "train" / "bird")
    (folder / "test").rename(folder / "rest")
    refused("has no test/ and no val/; add one, or set test_split, e.g. test_split: 0.2")
    with pytest.raises(BadInput, match="is not a directory"):
        read(folder, name="folder", path=str(folder / "nowhere"))


def save(path: Path, **changes) -> Path:
    arrays = {
        "x_train": np.full((4, 8, 8), np.uint8([0, 60, 120, 180])[:, None, None]),
        "y_train": np.array([3, 7, 3, 7]),
        "x_test": np.zeros((2, 8, 8), np.uint8),
        "y_test": np.array([7, 3]),
    } | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def test_arrays_in_every_accepted_shape(tmp_path):
    data = read(tmp_path, name="npz", path=str(save(tmp_path / "a.npz")))
    assert data.classes == ("3", "7") and data.test.y.tolist() == [1, 0] and data.shape == (1, 8, 8)
    last = {
        "x_train": np.arange(4 * 8 * 9 * 3, dtype=np.uint8).reshape(4, 8, 9, 3),
        "x_test": np.zeros((2, 8, 9, 3), np.uint8),
    }
    assert read(tmp_path, name="npz", path=str(save(tmp_path / "b.npz", **last))).shape == (3, 8, 9)
    first = {"x_train": np.full((4, 3, 8, 9), [[[[0.5]]], [[[1]]], [[[1]]], [[[1]]]]), "x_test": np.ones((2, 3, 8, 9))}
    data = read(tmp_path, name="npz", path=str(save(tmp_path / "c.npz", **first)))
    assert data.shape == (3, 8, 9) and data.train.x.unique().tolist() == [128, 255]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"y_test": None}, "lacks y_test"),
        ({"x_train": np.zeros((4, 8), np.uint8)}, r"x_train holds uint8, shape \(4, 8\); expected finite floats"),
        ({"x_train": np.full((4, 8), 1e39)}, "x_train holds NaN, infinite values or values beyond float32"),
        ({"x_train": np.zeros((4, 5, 8, 8), np.uint8)}, "with 1 or 3 channels"),
        ({"x_train": np.full((4, 8, 8), 255.0)}, r"x_train is float64; expected uint8, or floats in \[0, 1\]"),
        ({"x_train": np.full((4, 8, 8), 255.0)}, r"it holds values from 255.0 to 255.0$"),
        ({"x_train": np.full((4, 8, 8), np.nan)}, "it holds NaN or infinite values$"),
        (
            {"x_train": np.full((4, 8, 8), 255)},
            r"x_train is int64; expected uint8, .* it holds values from 255 to 255$",
        ),
        ({"x_train": np.zeros((4, 8, 8), "S3")}, r"x_train is |S3; expected uint8"),
        ({"x_train": np.zeros((4, 0, 8))}, r"x_train has shape \(4, 1, 0, 8\); expected at least one image"),
        ({"x_train": np.zeros((0, 8, 8)), "y_train": np.zeros(0, int)}, "expected at least one image"),
        ({"x_train": np.uint8(3)}, r"x_train has shape \(\); expected \(N, H, W\)"),
        ({"y_train": np.int64(3)}, r"y_train has shape \(\) and type int64; expected 4 integers, one per image"),
        ({"y_test": np.zeros(0, int)}, r"y_test has shape \(0,\) and type int64; expected 2 integers"),
        ({"x_train": np.eye(8, dtype=np.uint8)[None].repeat(4, 0)}, "largest value in the training images is 1 of 255"),
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


def test_arrays_as_medmnist_has_them(tmp_path):
    arrays = np.load(save(tmp_path / "a.npz"))
    part = {"train_images": arrays["x_train"], "train_labels": arrays["y_train"][:, None].astype(np.uint8)}
    test = {"test_images": arrays["x_test"], "test_labels": arrays["y_test"][:, None].astype(np.uint8)}
    val = {"val_images": arrays["x_test"], "val_labels": np.uint8([[3], [3]])}

    def labels_of(**named):
        np.savez(tmp_path / "b.npz", **named)
        data = read(tmp_path, name="npz", path=str(tmp_path / "b.npz"))
        return data.classes, data.train.y.tolist(), data.test.y.tolist()

    assert labels_of(**part, **val, **test) == (("3", "7"), [0, 1, 0, 1], [1, 0])
    assert labels_of(**part, **val) == (("3", "7"), [0, 1, 0, 1], [0, 0])
    with pytest.raises(BadInput, match=r"lacks test_images, test_labels; it needs x_train, .* or train_images, "):
        labels_of(**part)


def test_labels_that_are_one_hot_or_texts(tmp_path):
    def labels_of(y_train, y_test):
        data = read(tmp_path, name="npz", path=str(save(tmp_path / "a.npz", y_train=y_train, y_test=y_test)))
        return data.classes, data.train.y.tolist(), data.test.y.tolist()

    rows = np.eye(3)[[2, 0, 1, 2]]
    for kind in (float, bool, np.uint8):
        assert labels_of(rows.astype(kind), rows[1:3].astype(kind)) == (("0", "1", "2"), [2, 0, 1, 2], [0, 1])
    texts = labels_of(np.array(["b10", "b9", "a", "b10"]), np.array([["b9"], ["b10"]]))
    assert texts == (("a", "b9", "b10"), [2, 1, 0, 2], [1, 2])
    with pytest.raises(BadInput, match=r"y_test has labels that y_train lacks: \['3', '7'\]"):
        labels_of(np.array([3, 7, 3, 7]), np.array(["3", "7"]))
    for odd in (np.array(["a", "b", "", "a"]), np.array(["a", "b", "two\nlines", "a"])):
        with pytest.raises(BadInput, match=r"y_train holds the text '.*'; expected names that can be printed"):
            labels_of(odd, odd[:2])
    for several in (rows + np.array([1, 0, 0]), np.ones((4, 3)), 2 * rows):
        with pytest.raises(BadInput, match=r"y_train has shape \(4, 3\).*expected 4 integers, .* with a single 1"):
            labels_of(several, rows[:2])


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04broken", b"\x93NUMPY\x01\x00", b"\x80\x04}."])
def test_a_file_that_is_no_archive(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(
        BadInput, match=r"cannot read .*a\.npz as an .npz file \(it is no archive; a .npy file holds one"
    ):
        read(tmp_path, name="npz", path=str(tmp_path / "a.npz"))


def test_archives_that_cannot_be_read(tmp_path):
    whole = save(tmp_path / "a.npz").read_bytes()

    def refused(content: bytes, match: str):
        (tmp_path / "b.npz").write_bytes(content)
        with pytest.raises(
            BadInput, match=rf"cannot read .*b.npz as an .npz file \({match}.*\); write it with np.savez"
        ):
            read(tmp_path, name="npz", path=str(tmp_path / "b.npz"))

    def flagged(local: int, central: int, value: int) -> bytes:  # of every member: a field of both of its headers
        content = bytearray(whole)
        for start, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
            for found in re.finditer(re.escape(start), whole):
                content[found.start() + offset] = value
        return bytes(content)

    refused(flagged(6, 8, 1), "File 'x_train.npy' is encrypted")
    refused(flagged(8, 10, 99), "That compression method is not supported")
    np.savez_compressed(tmp_path / "c.npz", **np.load(tmp_path / "a.npz"))
    compressed = (tmp_path / "c.npz").read_bytes()  # a member's data follow 61 bytes of header
    refused(compressed[:61] + b"\xff" * 19 + compressed[80:], "Error -3 while decompressing data")
    refused(whole[:-100], "it is no archive")
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
        archive.writestr("x_train", b"text")
    refused((tmp_path / "c.npz").read_bytes(), "x_train is not an array in numpy's format")
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(BadInput, match=r"pipe.npz as an .npz file \(not a regular file\)"):
        read(tmp_path, name="npz", path=str(tmp_path / "pipe.npz"))


@pytest.mark.parametrize("seed", range(3))
def test_damaged_archives_are_refused_or_read_never_a_crash(tmp_path, seed):
    stream, path = np.random.default_rng(seed), tmp_path / "a.npz"
    np.savez_compressed(
        path, x_train=stream.random((4, 8, 8)), y_train=[3, 7, 3, 7], x_test=np.ones((1, 8, 8)), y_test=[3]
    )
    whole = path.read_bytes()
    for _ in range(60):
        content = bytearray(whole)
        for place in stream.integers(len(content), size=3):
            content[place] = stream.integers(256)
        path.write_bytes(content[: stream.integers(len(content) // 2, 2 * len(content))])
        try:
            read(tmp_path, name="npz", path=str(path))
        except BadInput as error:
            assert "\n" not in str(error)


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
    assert read(folder, name="folder", path=str(folder)).shape == (3, 16, 16)


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
