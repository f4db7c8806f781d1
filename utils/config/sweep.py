"""`sweep:` in a configuration: lists of values for its keys -> one configuration per point, all in one folder."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from utils.config.aliases import named_method, translate_key
from utils.config.load import doubles, override, replacing, resolve, warn
from utils.config.schema import Config
from utils.config.yaml_text import Pair, flatten, overlap, read_layers
from utils.settings import BadInput, prefix_errors

MAX_POINTS = 1000
MAX_NAME = 200  # of a point's folder; file systems allow 255 bytes


@dataclass(frozen=True, eq=False)
class Sweep:
    """What the points of one file have in common."""

    root: Path  # the folder of the points' folders
    keys: tuple[str, ...]  # the dotted keys that vary
    rank_by: str  # the split that the points are ranked by: dev, or test on request
    shared: dict[str, Any]  # dotted keys that affect results and are the same for all points
    points: dict[str, dict[str, Any]]  # name -> its values, as written


@dataclass(frozen=True)
class Point:
    """One experiment of a file, with its name in messages; a file without `sweep` has one."""

    config: Config
    where: str
    sweep: Sweep | None = None


def load_points(path: Path, overrides: Sequence[str] = ()) -> list[Point]:
    """Read a YAML file and apply overrides; a key with a list in `sweep` or in an override is swept."""
    layers, changes, lists, method = _read(path, overrides)
    if not lists:
        config, warnings = resolve(str(path), layers, changes)
        warn(path, warnings)
        return [Point(config, str(path))]
    with prefix_errors(str(path)):
        count, rank_by = lists.pop("random", None), lists.pop("rank_by", "dev")
        keys = {key: translate_key(key, method) for key in lists}
        named = _named(combinations(lists, count), keys)
    configs, warnings = {}, []
    for name, values in named.items():
        own = [pair for key, value in values.items() for pair in replacing(key, value)]
        configs[name], of_point = resolve(f"{path} (sweep: {name})", layers, [*changes, *own])
        warnings += of_point
    with prefix_errors(str(path)):
        sweep = _sweep(configs, named, tuple(keys.values()), rank_by)
    warn(path, warnings)
    points = []
    for name, config in configs.items():
        train = config.train.model_copy(update={"save_path": str(sweep.root / name)})
        points.append(Point(config.model_copy(update={"train": train}), f"{path} (sweep: {name})", sweep))
    return points


def combinations(lists: Mapping[str, Any], count: int | None = None) -> list[dict[str, Any]]:
    """All combinations of one value from each list, the last key changing fastest; or `count` of them at random.

    The draw is always the same, and a larger count adds to those of a smaller one.
    """
    if not lists:
        raise BadInput("sweep: no key to vary; add one, e.g. train.lr: [1e-3, 1e-4], or remove `sweep`")
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
    points = []
    for index in sorted(chosen) or range(total):
        point: dict[str, Any] = {}
        for key in reversed(list(lists)):
            index, which = divmod(index, len(lists[key]))
            point[key] = lists[key][which]
        points.append({key: point[key] for key in lists})
    return points


def short_names(keys: Sequence[str]) -> list[str]:
    """The last parts of each dotted key, as few as make it unique."""

    def endings(key: str) -> list[str]:
        parts = key.split(".")
        return [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]

    return [next((e for e in endings(key) if sum(e in endings(k) for k in keys) == 1), key) for key in keys]


def label(value: Any) -> str:
    """A value as part of a folder's name: letters, digits and -+._ only."""
    if isinstance(value, dict):
        value = list(flatten(value).values())
    if isinstance(value, list):
        return "-".join(map(label, value))
    if isinstance(value, float):
        value = f"{value:g}" if float(f"{value:g}") == value else repr(value)
    words = {True: "yes", False: "no", None: "none"}
    text = words[value] if value is None or isinstance(value, bool) else str(value)
    return re.sub(r"[^A-Za-z0-9.+_-]", "_", text)


def _read(path: Path, overrides: Sequence[str]) -> tuple[list[list[Pair]], list[Pair], dict[str, Any], str]:
    """What the files and the overrides set, the lists of swept keys, and the method.

    A later file or an override that sets a key ends its sweep, unless it gives a list again.
    """
    files = read_layers(path)
    sources = [*files, *map(override, overrides)]
    method = named_method([pair for pairs in sources for pair in pairs])
    lists: dict[str, Any] = {}
    plain: list[list[Pair]] = []
    for pairs in sources:
        own, is_override = {}, len(plain) >= len(files)
        plain.append([])
        for key, value in pairs:
            section, _, name = key.partition(".")
            is_swept = section.lower() == "sweep"
            ours = translate_key(name if is_swept else key, method)  # empty if the whole of `sweep` is set
            lists = {k: v for k, v in lists.items() if ours and not overlap(translate_key(k, method), ours)}
            if is_swept or (is_override and isinstance(value, list)):
                own[name if is_swept else key] = value
            else:
                plain[-1].append((key, value))
        lists |= own
    if lists.pop("", None):
        raise BadInput(f"{path}: sweep: expected keys and the lists of their values, e.g. train.lr: [1e-3, 1e-4]")
    return plain[: len(files)], [pair for pairs in plain[len(files) :] for pair in pairs], lists, method


def _named(points: Sequence[dict[str, Any]], keys: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Folder name -> values; `keys` are the swept ones as written -> in our names."""
    if lines := doubles(keys.items()):
        raise BadInput(f"sweep: {lines[0]}")
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
    """What the points have in common. BadInput: they cannot be run and ranked together."""
    if rank_by not in ("dev", "test"):
        raise BadInput(f"sweep.rank_by: got {rank_by!r}; expected 'dev' or 'test'")
    seen: dict[str, str] = {}
    for name, config in configs.items():
        if (other := seen.setdefault(repr(config.identity), name)) != name:
            raise BadInput(f"sweep: {other} and {name} compute the same; remove one")
        if rank_by == "dev" and config.scenario.dev_split == 0:
            raise BadInput(
                f"sweep: {name} has no dev data for the ranking; set scenario.dev_split, e.g. to 0.1 "
                "(or rank by test data, which biases the best score upwards: sweep.rank_by: test)"
            )
        if rank_by == "test" and config.scenario.dev_split > 0:
            raise BadInput(f"sweep.rank_by: test, though {name} has dev data; rank by dev, or set scenario.dev_split 0")
    root, *more = dict.fromkeys(config.save_path for config in configs.values())
    if more:
        raise BadInput(f"sweep: its results would be in {root} and in {more[0]}; set one train.save_path for all")
    first, *others = (config.identity for config in configs.values())
    shared = {
        key: value
        for key, value in first.items()
        if all(other.get(key, ...) == value for other in others) and not any(overlap(key, swept) for swept in keys)
    }
    return Sweep(root, keys, rank_by, shared, named)
