"""`sweep:` in a configuration: lists of values for its keys -> the points, each with a folder in one folder."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from utils.config.aliases import doubles
from utils.config.schema import Config
from utils.config.yaml_text import flatten, overlap
from utils.settings import BadInput, shown

MAX_POINTS = 1000
MAX_NAME = 200  # of a point's folder; file systems allow 255 bytes
Values = dict[str, Any]  # dotted keys of a point, as written -> its values


@dataclass(frozen=True, eq=False)
class Sweep:
    """What the points of one file have in common."""

    root: Path  # the folder of the points' folders
    keys: tuple[str, ...]  # the dotted keys that vary
    rank_by: str  # the split that the points are ranked by: dev, or test on request
    shared: dict[str, Any]  # dotted keys that affect results and are the same for all points
    points: dict[str, Values]  # by name


def combinations(lists: Mapping[str, Any], count: int | None = None) -> list[Values]:
    """All combinations of one value from each list, the last key changing fastest; or `count` of them at random.

    The draw is always the same, and a larger count adds to those of a smaller one.
    """
    if not lists:
        raise BadInput("sweep: no key to vary; add one, e.g. train.lr: [1e-3, 1e-4], or remove `sweep`")
    for key, values in lists.items():
        if not isinstance(values, list) or not values:
            raise BadInput(f"sweep.{key}: got {shown(values)}; expected a list of values, e.g. [0.1, 1, 10]")
    total = prod(len(values) for values in lists.values())
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= total):
        expected = f"a number of points, at most the {total:,} there are"
        raise BadInput(f"sweep.random: got {shown(count)}; expected {expected}")
    if (count or total) > MAX_POINTS:
        raise BadInput(f"sweep: {count or total:,} points; at most {MAX_POINTS:,}: e.g. add `random: 100`")
    chance, chosen = random.Random(0), set[int]()
    while len(chosen) < (count or 0):
        chosen.add(chance.randrange(total))
    points = []
    for index in sorted(chosen) or range(total):
        point: Values = {}
        for key, values in reversed(list(lists.items())):
            index, which = divmod(index, len(values))
            point = {key: values[which], **point}
        points.append(point)
    return points


def name_points(points: Sequence[Values], keys: Mapping[str, str]) -> dict[str, Values]:
    """The points by the names of their folders; `keys` are the swept ones, as written -> in our names."""
    if lines := doubles(list(keys.items())):
        raise BadInput(f"sweep: {lines[0]}")
    short = dict(zip(keys, short_names(list(keys.values())), strict=True))
    named: dict[str, Values] = {}
    seen: dict[str, Values] = {}  # some file systems ignore case
    for values in points:
        name = ",".join(f"{short[key]}={label(value)}" for key, value in values.items())
        if len(name) > MAX_NAME:
            raise BadInput(f"sweep: {name} is too long for the name of a folder; shorten the values")
        if (other := seen.setdefault(name.lower(), values)) is not values:
            raise BadInput(f"sweep: {other} and {values} would both be named {name}; change one of the values")
        named[name] = values
    return named


def short_names(keys: Sequence[str]) -> list[str]:
    """The last parts of each dotted key, as few as make it unique."""
    endings = [[key.split(".", count)[-1] for count in range(key.count("."), -1, -1)] for key in keys]
    return [next((e for e in own if sum(e in other for other in endings) == 1), own[-1]) for own in endings]


def label(value: Any) -> str:
    """A value as part of a folder's name: letters, digits and -+._ only."""
    if isinstance(value, dict):
        value = list(flatten(value).values())
    if isinstance(value, list):
        return "-".join(map(label, value))
    if isinstance(value, float):
        value = f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if value is None or isinstance(value, bool):
        value = {True: "yes", False: "no", None: "none"}[value]
    return re.sub(r"[^A-Za-z0-9.+_-]", "_", str(value))


def as_sweep(configs: Mapping[str, Config], named: dict[str, Values], keys: Sequence[str], rank_by: Any) -> Sweep:
    """What the points' configurations have in common. BadInput: they cannot be run and ranked together."""
    if rank_by not in ("dev", "test"):
        raise BadInput(f"sweep.rank_by: got {shown(rank_by)}; expected 'dev' or 'test'")
    seen: dict[str, str] = {}
    for name, config in configs.items():
        if (other := seen.setdefault(repr(config.identity), name)) != name:
            raise BadInput(f"sweep: {other} and {name} compute the same; remove one")
        if rank_by == "dev" and config.scenario.dev_split == 0:
            raise BadInput(
                f"sweep: {name} has no dev data for the ranking; set scenario.dev_split, e.g. to 0.1 "
                "(or rank by test data, which biases the best score upwards: sweep.rank_by: test)"
            )
        if rank_by == "dev" and not config.measures("dev"):
            problem = f"{name} is ranked on dev data, which {config.train.evaluate_splits} leaves out"
            raise BadInput(f"train.evaluate_splits: {problem}; set it to all or test+dev")
        if rank_by == "test" and config.scenario.dev_split > 0:
            raise BadInput(f"sweep.rank_by: test, though {name} has dev data; rank by dev, or set scenario.dev_split 0")
    root, *more = dict.fromkeys(config.save_path for config in configs.values())
    if more:
        raise BadInput(f"sweep: its results would be in {root} and in {more[0]}; set one train.save_path for all")
    identities = [config.identity for config in configs.values()]
    shared = {
        key: value
        for key, value in identities[0].items()
        if all(other.get(key, ...) == value for other in identities) and not any(overlap(key, swept) for swept in keys)
    }
    return Sweep(root, tuple(keys), rank_by, shared, named)
