"""Folder: your own images, train/<class>/* and test/<class>/* (or val/), or <class>/* with `test_split`."""

import hashlib
import multiprocessing
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL
import torch

from datasets import natural
from datasets.cache import cached
from datasets.data import Data, Split, held_out, reason
from datasets.decode import ImageConfig, decode, stacked
from utils.settings import BadInput

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
ANNOTATIONS = "val_annotations.txt"
"""In val/ of Tiny-ImageNet: a line per image in val/images/, with its name, its class and a box, between tabs."""
EXPECTED = "expected train/<class>/* with test/<class>/* or val/<class>/*, or test_split and <class>/*"
Files = dict[str, list[Path]]  # class -> its images


class Config(ImageConfig):
    """The folder of the images, and their form."""

    path: str
    """the folder with train/<class>/ and test/<class>/ (or val/<class>/), or with <class>/ alone and test_split,
    relative to the data root if one is given, else to the working directory; classes are in natural order of their
    names: 2 before 10"""
    cache: bool = False
    """keep the decoded images in <data root>/cache, for all runs; decoded again when a file's size or time changes"""


def load(config: Config, root: Path) -> Data:
    """Read every image of the folder `config.path`; classes are in natural order of their folders' names."""
    folder = Path(config.path)
    try:
        train, test = _parts(folder, config.test_split)
        if odd := sorted({*train} ^ {*test}):
            raise BadInput(f"{folder}: its training and test part must have the same classes; only in one: {odd}")
        classes = sorted(train, key=natural)
        labelled = [(file, y) for part in (train, test) for y, name in enumerate(classes) for file in part[name]]
        files = [file for file, _ in labelled]
        x = torch.from_numpy(_pixels(config, files, root))
        names = _names(folder, classes)
    except (OSError, MemoryError) as error:
        raise BadInput(f"{folder} cannot be read ({reason(error)})") from error
    whole, count = Split(x, torch.tensor([y for _, y in labelled])), sum(map(len, train.values()))
    return Data(whole.take(slice(count)), whole.take(slice(count, None)), tuple(names))


def _pixels(config: Config, files: list[Path], root: Path) -> np.ndarray:
    """All images, uint8 (N, C, H, W)."""

    def read() -> np.ndarray:
        form = config.image_size, config.channels
        return stacked(len(files), lambda index: decode(files[index], *form), files.__getitem__)

    if not config.cache:
        return read()
    states = [(str(file.relative_to(config.path)), file.stat()) for file in files]
    listing = repr([(name, state.st_size, state.st_mtime_ns) for name, state in states])
    description: dict[str, object] = {
        "files": hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest(),
        "image_size": config.image_size,
        "channels": config.channels,
        "decoder": f"Pillow {PIL.__version__}",
    }

    def tell(line: str) -> None:
        _note(f"images of {config.path}: {line}")

    return cached(root / "cache", description, read, tell, tell)


def _parts(folder: Path, test_split: float | None) -> tuple[Files, Files]:
    """The training and the test images by class."""
    if (folder / "val" / ANNOTATIONS).is_file():  # whose test/ has no labels
        return _by_class(folder / "train", expected_inside=True), _annotated(folder / "val")
    known = [part for part in ("test", "val") if (folder / part).is_dir()]
    if test_split is None:
        train = _by_class(folder / "train")
        if not known:
            raise BadInput(f"{folder} has no test/ and no val/; add one, or set test_split, e.g. test_split: 0.2")
        return train, _by_class(folder / next((part for part in known if _class_names(folder / part)), known[0]))
    if known and (folder / "train").is_dir():
        raise BadInput(f"{folder} has a test part, {known[0]}/; remove test_split, or that folder")
    whole = _by_class(folder / "train" if (folder / "train").is_dir() else folder)
    y = torch.tensor([label for label, files in enumerate(whole.values()) for _ in files])
    mask = iter(held_out(y, range(len(whole)), test_split, torch.Generator().manual_seed(0), "test_split").tolist())
    pairs = {name: [(file, next(mask)) for file in files] for name, files in whole.items()}
    train, test = (
        {n: [file for file, is_test in of if is_test == part] for n, of in pairs.items()} for part in (False, True)
    )
    return train, test


def _by_class(top: Path, expected_inside: bool = False) -> Files:
    """The images in each folder of `top` by its name; tells of surprises, unless sub-folders are expected."""
    if not top.is_dir():
        raise BadInput(f"{top} is not a directory; {EXPECTED}")
    if not (names := _class_names(top)):
        raise BadInput(f"{top} has no sub-directories; expected one per class")
    below = {name: sorted(_below(top / name)) for name in names}
    images = {name: [file for file in files if _is_image(file)] for name, files in below.items()}
    if empty := [name for name, files in images.items() if not files]:
        raise BadInput(f"{top / empty[0]} holds no images ({', '.join(sorted(EXTENSIONS))})")
    if not expected_inside:
        _tell_of_surprises(top, below)
    return images


def _annotated(val: Path) -> Files:
    """The images of Tiny-ImageNet's val/ by class."""
    files: Files = {}
    for number, line in enumerate((val / ANNOTATIONS).read_text("utf-8", "replace").splitlines(), 1):
        name, *rest = line.split("\t")
        if not rest or name != Path(name).name or not line.replace("\t", "").isprintable():
            expected = "expected the name of a file in images/, a tab and its class"
            raise BadInput(f"{val / ANNOTATIONS}, line {number}: got {line[:80]!a}; {expected}")
        files.setdefault(rest[0], []).append(val / "images" / name)
    return files


def _names(folder: Path, classes: list[str]) -> list[str]:
    """The classes in words: Tiny-ImageNet's words.txt has a line per class, its folder, a tab and synonyms."""
    words = folder / "words.txt"
    if not ((folder / "val" / ANNOTATIONS).is_file() and words.is_file()):
        return classes
    lines = (line.partition("\t") for line in words.read_text("utf-8", "replace").splitlines())
    said = {name: synonyms.partition(",")[0].strip() for name, _, synonyms in lines}
    told = [said.get(name) or name for name in classes]
    return [word if told.count(word) == 1 else f"{word} ({name})" for name, word in zip(classes, told, strict=True)]


def _inside(folder: Path, top: Path) -> list[Path]:
    """The entries of a folder. Names that break messages, and links out of `top`, are refused."""
    entries = sorted(folder.iterdir())
    for entry in entries:
        if not entry.name.isprintable():  # nor are undecodable bytes
            raise BadInput(f"{folder} holds a name that cannot be printed, {entry.name!a}; rename it")
        if entry.is_symlink() and not Path(os.path.realpath(entry)).is_relative_to(top.resolve()):
            raise BadInput(f"{entry} is a link out of its folder; copy its target, or remove it")
    return entries


def _class_names(top: Path) -> list[str]:
    names = [entry.name for entry in _inside(top, top) if entry.is_dir() and not entry.name.startswith(".")]
    return sorted(names, key=natural)


def _below(folder: Path) -> Iterator[Path]:
    """The files of a folder and of its sub-folders, without hidden sub-folders. Links to folders are refused."""
    waiting = [folder]
    while waiting:
        for entry in _inside(waiting.pop(), folder):
            if not entry.is_dir():
                yield entry
            elif entry.is_symlink():
                raise BadInput(f"{entry} is a link to a folder; copy its target, or remove it")
            elif not entry.name.startswith("."):
                waiting.append(entry)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in EXTENSIONS


def _tell_of_surprises(top: Path, files: Files) -> None:
    """Print how many files are not read, and how many images are in a sub-folder of the folder of their class."""
    others = [entry for entry in _inside(top, top) if not entry.is_dir()]
    others += [file for below in files.values() for file in below if not _is_image(file)]
    others = [file for file in others if not file.name.startswith(".")]
    nested = [file for name, below in files.items() for file in below if _is_image(file) and file.parent != top / name]
    read = f"images are {', '.join(sorted(EXTENSIONS))} in the folders of the classes"
    for surprising, what in ((others, f"not read; {read}"), (nested, "in sub-folders of a class, and belong to it")):
        if surprising:
            _note(f"{top}: {len(surprising)} files, such as {surprising[0]}, are {what}")


def _note(line: str) -> None:
    """Print a line, once and not in each job."""
    if multiprocessing.parent_process() is None:
        print(f"note: {line}", file=sys.stderr)
