"""The folder of images: what is in the files is what is read, or one line says why not."""

import os
import re
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datasets import DATASET, load
from datasets.data import Data
from datasets.decode import decode
from utils.settings import BadInput

KINDS = [("png", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")]
KINDS += [("tif", mode) for mode in ("1", "L", "RGB", "RGBA", "CMYK", "I;16", "F")]
KINDS += [
    ("jpg", "L"),
    ("jpg", "RGB"),
    ("webp", "RGB"),
    ("webp", "RGBA"),
    ("bmp", "P"),
    ("ppm", "RGB"),
    ("pgm", "I;16"),
]
UPRIGHT = {  # what EXIF's orientation asks for, on arrays (H, W, ...)
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: lambda a: np.rot90(a),
}


def drawn(mode: str, height: int, width: int, seed: int) -> tuple[Image.Image, np.ndarray]:
    """A random image, and its pixels (H, W) or (H, W, 3) with 8 bits: as Pillow converts them, or by definition."""
    stream = np.random.default_rng(seed)
    if mode == "I;16":
        values = stream.integers(0, 65536, (height, width), dtype=np.uint16)
        return Image.fromarray(values), np.rint(values / 65535 * 255)
    if mode == "F":
        values = stream.random((height, width), dtype=np.float32)
        return Image.fromarray(values), np.rint(values * 255)
    image = Image.fromarray(stream.integers(0, 256, (height, width, 4), dtype=np.uint8), "RGBA")
    image = image.convert("RGB").quantize(8) if mode == "P" else image.convert(mode)
    return image, np.asarray(image.convert("L" if mode in ("1", "L", "LA") else "RGB"))


@given(st.sampled_from(KINDS), st.integers(1, 24), st.integers(1, 24), st.integers(0, 9), st.integers(0, 99))
def test_every_kind_of_image_is_read_as_pillow_has_it(tmp_path_factory, kind, height, width, orientation, seed):
    suffix, mode = kind
    file = tmp_path_factory.mktemp("images") / f"a.{suffix}"
    image, expected = drawn(mode, height, width, seed)
    exif = Image.Exif()
    exif[274] = orientation
    image.save(file, **({} if suffix in ("bmp", "ppm", "pgm") else {"exif": exif}))
    if suffix in ("jpg", "webp"):  # lossy: as Pillow reads the file
        expected = np.asarray(Image.open(file).convert("L" if mode == "L" else "RGB"))
    if suffix not in ("bmp", "ppm", "pgm"):
        expected = UPRIGHT.get(orientation, lambda a: a)(expected)
    read = decode(file, None, None)
    assert read.dtype == np.uint8
    assert np.array_equal(read, expected[None] if expected.ndim == 2 else expected.transpose(2, 0, 1))


@pytest.fixture
def read(tmp_path):
    """Make a folder of images, one per path and its pixels, image or bytes; read it."""

    def make_and_read(files: dict, **settings) -> Data:
        for name, content in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                file.write_bytes(content)
            else:
                (content if isinstance(content, Image.Image) else Image.fromarray(content)).save(file)
        return load(DATASET.validate({"name": "folder", "path": str(tmp_path), **settings}), tmp_path)

    return make_and_read


def grey(value: int) -> np.ndarray:
    return np.full((8, 8), value, np.uint8)


def red(value: int) -> np.ndarray:
    return np.stack([grey(value), grey(0), grey(0)], axis=2)


SMALL = {
    f"{part}/{name}/0.png": grey(100 * label + 40) for part in ("train", "test") for label, name in enumerate("ab")
}


def test_16_bits_and_floats_are_scaled_by_their_range(read):
    values = np.array([[0, 257, 32768], [128, 129, 65535]], np.uint16)
    data = read(
        {f"{part}/{c}/0.png": values[::step] for part in ("train", "test") for c, step in (("a", 1), ("b", -1))}
    )
    assert data.train.x.tolist() == [[[[0, 1, 128], [0, 1, 255]]], [[[0, 1, 255], [0, 1, 128]]]]
    floats = np.array([[0, 0.5, 1], [0.1, 0.25, 0.9]], np.float32)
    assert read({f"{part}/{c}/1.tif": floats for part in ("train", "test") for c in "ab"}).train.x[1].tolist() == [
        [[0, 128, 255], [26, 64, 230]]
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.float32([[0, 255]]), r"floats from 0 to 255; expected \[0, 1\]"),
        (np.float32([[0, np.nan]]), r"floats from nan to nan"),
        (np.int32([[-5, 70000]]), "signed or 32-bit integers from -5 to 70000; expected unsigned ones of 8 or 16"),
    ],
)
def test_values_of_an_unknown_range_are_refused(read, values, message):
    with pytest.raises(BadInput, match=rf"cannot read the image .*x.tif \(it holds {message}"):
        read({**SMALL, "train/a/x.tif": values})


def test_images_that_would_look_black_are_refused(read):
    for dark, peak in (((grey(0) + np.eye(8, dtype=np.uint8)), 1), (np.full((8, 8), 4095, np.uint16), 16)):
        with pytest.raises(BadInput, match=f"largest value in the training images is {peak} of 255.*white is 255"):
            read({name: dark for name in SMALL})
    with pytest.raises(BadInput, match="largest value in the test images is 2 of 255"):
        read(SMALL | {f"test/{c}/0.png": grey(2) for c in "ab"})


def test_one_image_in_colour_makes_all_of_them_so(read):
    data = read({**SMALL, "test/b/1.png": red(90)})
    assert data.shape == (3, 8, 8) and data.train.x[0].unique().tolist() == [40]
    assert data.test.x[2].flatten(1)[:, 0].tolist() == [90, 0, 0]
    assert read({}, channels=1).shape == (1, 8, 8) and read({}, channels=3).shape == (3, 8, 8)
    assert torch.equal(read({}, channels=3).train.x, data.train.x)


def test_palettes_and_transparency_make_no_warnings(read):
    icon = Image.fromarray(red(200)).quantize(2)
    icon.info["transparency"] = bytes([255, 0])
    with pytest.warns(UserWarning, match="Transparency"):
        icon.convert("L")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert read({**SMALL, "train/a/0.png": icon}).train.x[0].flatten(1)[:, 0].tolist() == [200, 0, 0]
    assert not caught


def test_damaged_metadata_do_not_matter(tmp_path):
    Image.fromarray(red(200)).save(tmp_path / "a.jpg", exif=b"Exif\0\0nonsense", quality=100)
    assert decode(tmp_path / "a.jpg", None, None).max() >= 199


def test_classes_are_in_natural_order(read):
    names = ["10", "2", "1", "b10", "b9", "a", "01", "٣"]
    files = {f"{part}/{name}/0.png": grey(20 * i + 20) for part in ("train", "test") for i, name in enumerate(names)}
    assert read(files).classes == ("01", "1", "2", "10", "a", "b9", "b10", "٣")


def test_what_is_left_out_or_nested_is_told(read, capsys):
    more = {"train/a/new/1.png": grey(70), "train/b/2.jp2": b"", "train/README": b"", "train/a/.DS_Store": b"",
            "train/a/.cache/1.png": b""}  # fmt: skip
    data = read({**SMALL, **more})
    assert data.train.y.tolist() == [0, 0, 1] and data.train.x[:, 0, 0, 0].tolist() == [40, 70, 140]
    told = capsys.readouterr().err.splitlines()
    assert (
        len(told) == 2 and "2 files, such as " in told[0] and "train/README, are not read; images are .bmp, " in told[0]
    )
    assert "1 files, such as " in told[1] and "train/a/new/1.png, are in sub-folders of a class" in told[1]
    read({}, image_size=8)


def test_a_file_is_read_as_what_it_is_and_never_by_another_program(read, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **more: pytest.fail("Ghostscript is started"))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(BadInput, match=r"cannot read the image .*0.png \(it is none of BMP, GIF,"):
        read({**SMALL, "train/b/0.png": eps})


def test_pipes_and_circles_of_links_do_not_hang(read, tmp_path):
    def refused(entry, message):
        with pytest.raises(BadInput, match=message):
            read({})
        entry.unlink()

    read(SMALL)
    os.mkfifo(tmp_path / "train" / "a" / "pipe.png")
    refused(tmp_path / "train" / "a" / "pipe.png", r"pipe.png \(not a regular file\)")
    for name, target in (("self.png", "self.png"), ("gone.png", "nowhere.png")):
        (link := tmp_path / "train" / "a" / name).symlink_to(target)
        refused(link, rf"{name} \(not a regular file\)")
    (link := tmp_path / "train" / "a" / "again").symlink_to(".")
    refused(link, "again is a link to a folder; copy its target, or remove it")
    (tmp_path / "train" / "c").symlink_to("c")
    (tmp_path / "train" / "d").symlink_to(tmp_path / "train" / "c")
    os.mkfifo(tmp_path / "train" / "a" / "notes")
    assert read({}).classes == ("a", "b")


@pytest.mark.parametrize("path", ["x" * 300, "a\0b"])
def test_unreadable_paths_are_refused(tmp_path, path):
    for name in ("folder", "npz"):
        with pytest.raises(BadInput, match=r"cannot (be )?read|is not a directory"):
            load(DATASET.validate({"name": name, "path": path}), tmp_path)


def test_val_is_the_test_part_where_there_is_no_other(read):
    data = read({name.replace("test/", "val/"): pixels for name, pixels in SMALL.items()})
    assert (data.train.y.tolist(), data.test.y.tolist(), data.classes) == ([0, 1], [0, 1], ("a", "b"))
    read({"test/unlabelled.png": grey(9)})  # a test/ without classes, as competitions have it
    assert read({f"test/{c}/0.png": grey(222) for c in "ab"}).test.x.unique().tolist() == [222]


@pytest.mark.parametrize("top", ["", "train/"])
def test_one_folder_of_classes_is_split_once_and_for_all_with_every_class_s_share(read, top):
    counts = {"1": 5, "2": 10, "10": 20}
    files = {f"{top}{name}/{i}.png": grey(20 + i + 30 * len(name)) for name, n in counts.items() for i in range(n)}
    data = read(files, test_split=0.2)
    assert data.classes == ("1", "2", "10")
    assert (data.train.y.bincount().tolist(), data.test.y.bincount().tolist()) == ([4, 8, 16], [1, 2, 4])
    of_last = [split.x[split.y == 2, 0, 0, 0].tolist() for split in (data.train, data.test)]
    assert sorted(of_last[0] + of_last[1]) == list(range(80, 100)) and of_last[1] != [80, 81, 82, 83]
    assert read({}, test_split=0.2).fingerprint == data.fingerprint
    with pytest.raises(
        BadInput, match="has no test/ and no val/; add one, or set" if top else "train is not a directory"
    ):
        read({})
    if top:
        with pytest.raises(BadInput, match="has a test part, test/; remove test_split, or that folder"):
            read({"test/1/0.png": grey(30)}, test_split=0.2)


def test_a_class_with_one_image_cannot_be_split(read):
    with pytest.raises(BadInput, match=r"dataset: test_split: a class with one training image has none to hold out"):
        read({"a/0.png": grey(50), "b/0.png": grey(50), "b/1.png": grey(60)}, test_split=0.5)


TINY = {f"train/{wnid}/images/{wnid}_{i}.JPEG": red(100 + 20 * i) for wnid in ("n01", "n02", "n03") for i in range(2)}
TINY |= {f"train/{wnid}/{wnid}_boxes.txt": b"" for wnid in ("n01", "n02", "n03")}
TINY |= {f"val/images/val_{i}.JPEG": red(100 + 40 * i) for i in range(4)} | {"test/images/test_0.JPEG": red(99)}
TINY |= {"val/val_annotations.txt": b"".join(b"val_%d.JPEG\tn0%d\t0\t0\t7\t7\n" % (i, 3 - i % 3) for i in range(4))}
TINY |= {"wnids.txt": b"n02\nn01\nn03\n", "words.txt": b"n01\tcrane\nn02\tcrane\nn03\tgoldfish, Carassius\nn09\tx\n"}


def test_tiny_imagenet_as_it_is_distributed(read, capsys):
    data = read(TINY)
    assert data.classes == ("crane (n01)", "crane (n02)", "goldfish") and data.shape == (3, 8, 8)
    assert data.train.y.tolist() == [0, 0, 1, 1, 2, 2] and data.test.y.tolist() == [0, 1, 2, 2]
    assert [round(int(value) / 40) * 40 for value in data.test.x[:, 0, 0, 0] - 20] == [160, 120, 80, 200]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            b"val_0.JPEG n01",
            "val_annotations.txt, line 1: got 'val_0.JPEG n01'; expected the name of a file in images/",
        ),
        (b"../../secret.png\tn01", "line 1: got '../../secret.png"),
        (b"gone.JPEG\tn01\n" + TINY["val/val_annotations.txt"], "cannot read the image .*gone.JPEG"),
        (TINY["val/val_annotations.txt"] + b"val_0.JPEG\tn77", r"same classes; only in one: \['n77'\]"),
    ],
)
def test_annotations_that_cannot_be_used(read, line, told):
    with pytest.raises(BadInput, match=told):
        read(TINY | {"val/val_annotations.txt": line})


def test_threads_change_nothing_and_the_first_error_is_told(read, monkeypatch):
    files = {
        f"{part}/{name}/{i:03}.png": grey(i % 250 + 3)
        for part in ("train", "test")
        for name in "ab"
        for i in range(300)
    }
    one = read(files | {"test/b/250.png": red(90)})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert read({}).fingerprint == one.fingerprint and one.shape[0] == 3
    with pytest.raises(BadInput, match=r"train/b/007.png \(it is none of"):
        read({"train/b/007.png": b"x", "train/b/009.png": b"x"})


def test_peak_memory_is_near_the_images(tmp_path):
    """Decoding holds no second copy of what it has read."""
    import tracemalloc

    from datasets.decode import stacked

    image = np.zeros((3, 64, 64), np.uint8)
    tracemalloc.start()
    x = stacked(4000, lambda index: image.copy(), str)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert x.nbytes < peak < 1.2 * x.nbytes


def test_a_cache_holds_the_decoded_images_until_a_file_changes(read, tmp_path, monkeypatch, capsys):
    plain = read(SMALL, channels=3)
    calls = []
    monkeypatch.setattr("datasets.folder.decode", lambda *args: calls.append(args) or decode(*args))
    for expected in (4, 0):
        calls.clear()
        assert read({}, channels=3, cache=True).fingerprint == plain.fingerprint
        assert len(calls) == expected, "decoded once, then read"
    assert read({}, channels=1, cache=True).shape[0] == 1, "another form is another entry"
    calls.clear()
    assert read({"train/b/0.png": grey(9)}, channels=3, cache=True).fingerprint != plain.fingerprint
    assert len(calls) == 4
    assert re.search(r"note: images of .*: written to .*\.npy \(0 MB\)\n.*: read from ", capsys.readouterr().err)


def test_a_cache_that_cannot_be_written_is_told_and_done_without(read, tmp_path, capsys):
    (tmp_path / "cache").write_text("a file")
    assert len(read(SMALL, cache=True).train) == 2
    assert re.search(r"note: images of .*: not kept on disk: .*cache cannot be used", capsys.readouterr().err)
