"""`sweep:` in a configuration: lists of values for its keys -> one configuration a point, all in one folder."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from utils.config.aliases import named_method, translate_key
from utils.config.load import override, replacing, resolve, warn
from utils.config.schema import Config
from utils.config.yaml_text import Pair, flatten, overlap, read_layers
from utils.settings import BadInput

MAX_POINTS = 1000
"""Per sweep."""
MAX_NAME = 200
"""Length of the name of a point's folder; file systems allow 255 bytes."""
OPTIONS = ("random", "rank_by")
"""Keys of `sweep` that are not keys of the configuration."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """What the points of one file have in common."""

    root: Path
    """the folder of the points' folders"""
    keys: tuple[str, ...]
    """the dotted keys that vary"""
    rank_by: str
    """the split that the points are ranked by: dev, or test on request"""
    shared: dict[str, Any]
    """dotted keys that affect results and are the same for all points"""
    points: dict[str, dict[str, Any]]
    """name -> its values, as written"""


@dataclass(frozen=True)
class Point:
    """One experiment of a file; a file without `sweep` has one, and no sweep."""

    config: Config
    sweep: Sweep | None = None
    where: str = ""
    """its name in messages"""


@dataclass
class _Written:
    """The contents of a file, with its base files, and of the overrides."""

    layers: list[list[Pair]] = field(default_factory=list)
    changes: list[Pair] = field(default_factory=list)
    sweep: dict[str, Any] = field(default_factory=dict)

    def translated(self, key: str) -> str:
        """A dotted key in our names."""
        pairs = [pair for pairs in (*self.layers, self.changes) for pair in pairs]
        return translate_key(key.removeprefix("sweep."), named_method(pairs))

    def replace(self, key: str) -> None:
        """Sweep no key that `key` replaces."""
        ours = self.translated(key)
        kept = {name: values for name, values in self.sweep.items() if not overlap(self.translated(name), ours)}
        self.sweep = {} if key == "sweep" else kept


def load_points(path: Path, overrides: Sequence[str] = ()) -> list[Point]:
    """Read a YAML file and apply overrides; where a list is given for a key, here or in `sweep`, it is swept.

    Raises:
        BadInput: all that is wrong with the file, the overrides, or a point, a line each.
    """
    written = _read(path, overrides)
    if written.sweep.pop("", None):
        raise BadInput(f"{path}: sweep: expected keys and the lists of their values, e.g. train.lr: [1e-3, 1e-4]")
    if not written.sweep:
        config, warnings = resolve(str(path), written.layers, written.changes)
        warn(path, warnings)
        return [Point(config, where=str(path))]
    try:
        options = {name: written.sweep.pop(name) for name in OPTIONS if name in written.sweep}
        keys = _keys(written)
        named = _named(combinations(written.sweep, options.get("random")), keys)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    places = {name: f"{path} (sweep: {name})" for name in named}
    configs, warnings = {}, []
    for name, values in named.items():
        changes = [pair for key, value in values.items() for pair in replacing(key, value)]
        configs[name], of_point = resolve(places[name], written.layers, [*written.changes, *changes])
        warnings += of_point
    try:
        sweep = _sweep(configs, named, tuple(keys.values()), options.get("rank_by", "dev"))
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    warn(path, warnings)
    return [Point(_placed(config, sweep.root / name), sweep, places[name]) for name, config in configs.items()]


def combinations(lists: Mapping[str, Any], count: int | None = None) -> list[dict[str, Any]]:
    """All combinations of one value from each list, the last key changing fastest; or `count` of them at random.

    The draw is always the same, and a larger count adds to those of a smaller one.

    Raises:
        BadInput: a value is not a list, or an empty one; `count` is not a number of points; there are too many.
    """
    for key, values in lists.items():
        if not isinstance(values, list) or not values:
            raise BadInput(f"sweep.{key}: got {values!r}; expected a list of values, e.g. [0.1, 1, 10]")
    total = prod(len(values) for values in lists.values())
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= total):
        raise BadInput(f"sweep.random: got {count!r}; expected a number of points, at most the {total:,} there are")
    if (count or total) > MAX_POINTS:
        raise BadInput(f"sweep: {count or total:,} points; at most {MAX_POINTS:,}: e.g. add `random: 100`")
    chance, chosen = random.Random(0), dict[int, None]()
    while len(chosen) < (count or 0):
        chosen[chance.randrange(total)] = None
    return [_combination(lists, index) for index in (sorted(chosen) or range(total))]


def _combination(lists: Mapping[str, list[Any]], index: int) -> dict[str, Any]:
    values = {}
    for key, choices in reversed(lists.items()):
        index, which = divmod(index, len(choices))
        values[key] = choices[which]
    return {key: values[key] for key in lists}


def short_names(keys: Sequence[str]) -> list[str]:
    """The last parts of each dotted key, as few as make it unique."""

    def ending(key: str, parts: int) -> str:
        return ".".join(key.split(".")[-parts:])

    def unambiguous(key: str) -> str:
        lengths = range(1, key.count(".") + 2)
        return next(ending(key, n) for n in lengths if [ending(k, n) for k in keys].count(ending(key, n)) == 1)

    return [unambiguous(key) for key in keys]


def label(value: Any) -> str:
    """A value as part of a folder's name: letters, digits and -+._ only."""
    if isinstance(value, dict | list):
        parts = flatten(value).values() if isinstance(value, dict) else value
        return "-".join(label(part) for part in parts)
    if isinstance(value, float):
        value = f"{value:g}" if float(f"{value:g}") == value else repr(value)
    words = {True: "yes", False: "no", None: "none"}
    text = words[value] if value is None or isinstance(value, bool) else str(value)
    return re.sub(r"[^A-Za-z0-9.+_-]", "_", text)


def _read(path: Path, overrides: Sequence[str]) -> _Written:
    """Sort the contents. A later file or an override that sets a key ends its sweep, unless it gives a list again."""
    written = _Written()
    for layer in read_layers(path):
        swept = {key.partition(".")[2]: value for key, value in layer if _is_swept(key)}
        written.layers.append([pair for pair in layer if not _is_swept(pair[0])])
        for key, _ in layer if written.sweep else ():
            written.replace(key)
        written.sweep |= swept
    for text in overrides:
        cleared, *pairs = override(text)
        written.replace(cleared[0])
        if not _is_swept(cleared[0]):
            written.changes.append(cleared)
        for name, value in pairs:
            if _is_swept(name):
                written.sweep[name.partition(".")[2]] = value
            elif isinstance(value, list):
                written.sweep[name] = value
            else:
                written.changes.append((name, value))
    return written


def _is_swept(key: str) -> bool:
    return key.partition(".")[0].lower() == "sweep"


def _keys(written: _Written) -> dict[str, str]:
    """Swept keys as written -> in our names."""
    keys = {key: written.translated(key) for key in written.sweep}
    if not keys:
        raise BadInput("sweep: no key to vary; add one, e.g. train.lr: [1e-3, 1e-4], or remove `sweep`")
    for i, (key, ours) in enumerate(keys.items()):
        for other in list(keys)[:i]:
            if overlap(keys[other], ours):
                raise BadInput(f"sweep: {other} and {key} both set {min(keys[other], ours, key=len)}; keep one of them")
    return keys


def _named(points: Sequence[dict[str, Any]], keys: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Folder name -> values.

    Raises:
        BadInput: two points have the same name, or a name is too long.
    """
    short = dict(zip(keys, short_names(list(keys.values())), strict=True))
    named: dict[str, dict[str, Any]] = {}
    seen: dict[str, dict[str, Any]] = {}  # some file systems ignore case
    for values in points:
        name = ",".join(f"{short[key]}={label(value)}" for key, value in values.items())
        if len(name) > MAX_NAME:
            raise BadInput(f"sweep: {name} is too long for the name of a folder; shorten the values")
        if (other := seen.setdefault(name.lower(), values)) is not values:
            raise BadInput(f"sweep: {other} and {values} would both be named {name}; change one of the values")
        named[name] = values
    return named


def _sweep(configs: dict[str, Config], named: dict[str, dict[str, Any]], keys: tuple[str, ...], rank_by: Any) -> Sweep:
    """What the points have in common.

    Raises:
        BadInput: two are the same experiment, their folders differ, or they cannot be ranked.
    """
    seen: dict[str, str] = {}
    for name, config in configs.items():
        if seen.setdefault(repr(config.identity), name) != name:
            raise BadInput(f"sweep: {seen[repr(config.identity)]} and {name} compute the same; remove one")
    roots = list(dict.fromkeys(config.save_path for config in configs.values()))
    if len(roots) > 1:
        raise BadInput(f"sweep: its results would be in {roots[0]} and in {roots[1]}; set one train.save_path for all")
    _check_ranking(configs, rank_by)
    first, *others = (config.identity for config in configs.values())
    shared = {
        key: value
        for key, value in first.items()
        if all(other.get(key, ...) == value for other in others) and not any(overlap(key, swept) for swept in keys)
    }
    return Sweep(roots[0], keys, rank_by, shared, named)


def _check_ranking(configs: dict[str, Config], rank_by: Any) -> None:
    if rank_by not in ("dev", "test"):
        raise BadInput(f"sweep.rank_by: got {rank_by!r}; expected 'dev' or 'test'")
    for name, config in configs.items():
        if rank_by == "dev" and config.scenario.dev_split == 0:
            raise BadInput(
                f"sweep: {name} has no dev data for the ranking; set scenario.dev_split, e.g. to 0.1 "
                "(or rank by test data, which biases the best score upwards: sweep.rank_by: test)"
            )
        if rank_by == "test" and config.scenario.dev_split > 0:
            raise BadInput(f"sweep.rank_by: test, though {name} has dev data; rank by dev, or set scenario.dev_split 0")


def _placed(config: Config, folder: Path) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update={"save_path": str(folder)})})
