"""YAML -> validated configurations; else a BadInput with a line per error: file, key, and what is expected."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from utils.config.aliases import NULLS, doubles, named_method, translate, translate_key
from utils.config.errors import explain
from utils.config.schema import Config
from utils.config.sweep import Sweep, as_sweep, combinations, name_points
from utils.config.yaml_text import MAX_KEY, Pair, flatten, overlap, parse, read_layers
from utils.paths import expanded, filled
from utils.settings import BadInput, prefix_errors, shown

NAMES = {"method": "name", "scenario": "dataset", "dataset": "name", "encoder": "name", "flow": "type"}
"""Sections that may be a bare name -> the key of the name."""
MODULES = {
    "method": ("name",),
    "method.flow": ("type",),
    "scenario.dataset": ("name",),
    "model.encoder": ("name", "file", "module"),
}
"""Sections that name a module -> the keys that do."""
PATHS = {"train.save_path", "scenario.data_root", "scenario.dataset.path"}
LISTED = {"labels_per_task", "class_order", "datasets", "mean", "std"}
"""Last parts of keys whose value may be a list, in a file: on the command line a list is swept."""
MAX_SWEPT = 50  # keys


@dataclass(frozen=True)
class Point:
    """One experiment of a file; a file without `sweep` has one."""

    config: Config
    where: str  # its file, and its name in the sweep, for messages
    sweep: Sweep | None

    @property
    def folder(self) -> Path:
        """The results folder; of a sweep's point, that of the sweep."""
        return self.sweep.root if self.sweep else self.config.save_path


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration in a YAML file without `sweep`, after overrides such as "train.epochs=2"."""
    return load_points(path, overrides)[0].config


def load_points(path: Path, overrides: Sequence[str] = (), name: str | None = None) -> list[Point]:
    """The experiments of a YAML file after overrides; a key with a list in `sweep` or in an override is swept.

    `name` is what {name} in `train.save_path` stands for.
    """
    files, changes = read_layers(path), [_override(text) for text in overrides]
    method = named_method([pair for pairs in (*files, *changes) for pair in pairs])
    with prefix_errors(str(path)):
        translated = [[(key, translate_key(key, method)) for key, _ in pairs] for pairs in files]
        if lines := [line for keys in translated for line in doubles(keys)]:
            raise BadInput("\n".join(lines))
        plain, lists = _part(_without_replaced(files, method), changes, method)
        is_swept, count, rank_by = bool(lists), lists.pop("random", None), lists.pop("rank_by", "dev")
        keys = {key: translate_key(key, method) for key in lists}
        named = name_points(combinations(lists, count), keys) if is_swept else {"": {}}
    where = {point: f"{path} (sweep: {point})" if point else str(path) for point in named}
    configs, warnings = dict[str, Config](), dict[str, str]()  # key as written -> warning
    for point, values in named.items():
        own = [pair for key, value in values.items() for pair in _replacing(key, value)]
        with prefix_errors(where[point]):
            configs[point] = _placed(_resolve([*plain, *own], warnings), name)
    for warning in warnings.values():
        print(f"{path}: {warning}", file=sys.stderr)
    if not is_swept:
        return [Point(configs[""], str(path), None)]
    with prefix_errors(str(path)):
        sweep = as_sweep(configs, named, list(keys.values()), rank_by)
    return [Point(config.saved_in(sweep.root / point), where[point], sweep) for point, config in configs.items()]


def _without_replaced(files: list[list[Pair]], method: str) -> list[list[Pair]]:
    """The layers, without the options of a module that a later layer replaces by another one."""
    kept = list[list[Pair]]()
    for pairs in files:
        for section, keys in MODULES.items():
            named = [_module(layer, section, keys, method) for layer in (*kept, pairs)]
            before = [name for name in named[:-1] if name]
            if named[-1] and before and named[-1] != before[-1]:
                kept = [[pair for pair in layer if not _is_in(pair[0], section, method)] for layer in kept]
        kept.append(pairs)
    return kept


def _module(pairs: list[Pair], section: str, keys: Sequence[str], method: str) -> str:
    """What a layer names as the module of a section; empty if it names none."""
    places = {section, *(f"{section}.{key}" for key in keys)}
    found = [str(value).lower() for key, value in pairs if translate_key(key, method) in places]
    return ":".join(found) if found != ["{}"] else ""


def _is_in(key: str, section: str, method: str) -> bool:
    ours = translate_key(key.removeprefix("sweep."), method)
    return ours == section or ours.startswith(f"{section}.")


def _part(files: list[list[Pair]], changes: list[list[Pair]], method: str) -> tuple[list[Pair], dict[str, Any]]:
    """What the files and overrides set to one value, and the swept keys with their lists.

    A later file or an override that sets a key ends its sweep, unless it gives a list again.
    """
    plain, lists = list[Pair](), dict[str, Any]()
    for number, pairs in enumerate([*files, *changes]):
        own = {}
        for key, value in pairs:
            section, _, name = key.partition(".")
            is_swept = section.lower() == "sweep"
            if number >= len(files) and not is_swept:
                _check_unambiguous(key, value, translate_key(key, method))
            written = name if is_swept else key
            ours = translate_key(written, method)  # empty if the whole of `sweep` is set
            lists = {k: v for k, v in lists.items() if ours and not overlap(translate_key(k, method), ours)}
            if is_swept or (number >= len(files) and isinstance(value, list)):
                own[written] = value
            else:
                plain.append((key, value))
        lists |= own
        if len(lists) > MAX_SWEPT:
            raise BadInput(f"sweep: {len(lists):,} keys; at most {MAX_SWEPT}")
    if lists.pop("", None):
        raise BadInput("sweep: expected keys and the lists of their values, e.g. train.lr: [1e-3, 1e-4]")
    return plain, lists


def _check_unambiguous(key: str, value: Any, ours: str) -> None:
    """BadInput if an override is a list that may be meant as a value: on the command line, a list is swept."""
    if ours.rpartition(".")[2] in LISTED and isinstance(value, list) and not any(isinstance(v, list) for v in value):
        ways = f"write the list into the file, or sweep it with sweep.{key}={shown(value)}"
        raise BadInput(f"--set {key}: on the command line a list is swept, and this key may be a list itself; {ways}")


def _resolve(written: Sequence[Pair], warnings: dict[str, str]) -> Config:
    """The configuration of dotted keys and values, later ones over earlier ones; adds to the warnings."""
    pairs, ignored = translate(written, named_method(written))
    sections = _merged([(key, _expanded(key, value) if key in PATHS else value) for key, value in pairs])
    try:
        config = Config.model_validate(sections)
    except ValidationError as error:
        raise BadInput(explain(error, sections)) from None
    scenario, train = config.scenario, config.train
    if train.momentum and train.optimizer != "sgd":
        raise BadInput("train.momentum: requires train.optimizer: sgd; set that, or momentum to 0")
    if train.selection == "dev" and scenario.dev_split == 0:
        raise BadInput("train.selection: dev needs a dev set; set scenario.dev_split, e.g. to 0.1")
    if train.evaluate_splits == "test+dev" and scenario.dev_split == 0:
        raise BadInput("train.evaluate_splits: test+dev needs a dev set; set scenario.dev_split, e.g. to 0.1")
    labels = scenario.labels_per_task
    if scenario.type != "class" and 1 in (labels if isinstance(labels, list) else [labels]):
        problem = f"with 1 there is nothing to classify in the {scenario.type} scenario"
        raise BadInput(f"scenario.labels_per_task: {problem}; set it to 2 or more, or scenario.type to class")
    warnings |= {key: f"{key}: has no effect ({reason})" for key, reason in ignored.items()}
    return config


def _expanded(key: str, value: Any) -> Any:
    try:
        return expanded(value) if isinstance(value, str) else value
    except ValueError as error:
        raise BadInput(f"{key}: {error}") from None


def _placed(config: Config, name: str | None) -> Config:
    """The configuration with the placeholders of its results folder filled in."""
    written, scenario = config.train.save_path or "", config.scenario
    if name is not None and "{name}" not in written:
        raise BadInput(f"train.save_path: no {{name}} in it for --name {name}; write e.g. results/{{method}}/{{name}}")
    values = {"method": config.method.name, "dataset": scenario.dataset.label, "scenario": scenario.type, "name": name}
    try:
        path = filled(written, values) if written else ""
    except ValueError as error:
        raise BadInput(f"train.save_path: {error}") from None
    if written and Path(path).name in ("", ".."):
        raise BadInput(f"train.save_path: got {path!r}; expected a folder of its own, e.g. results/{{method}}")
    return config if path == written else config.saved_in(Path(path))


def _merged(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Nested sections. A later pair replaces those it overlaps, but an option of a module keeps a bare name."""
    tree: dict[str, Any] = {}
    for key, value in pairs:
        node, (*parents, last) = tree, key.split(".")
        for parent in parents:
            if not isinstance(below := node.get(parent), dict):
                node[parent] = {NAMES[parent]: below} if isinstance(below, str) and parent in NAMES else {}
            node = node[parent]
        node[last] = {} if value == {} else value  # points share the pair's
        if value is None and key in NULLS:
            del node[last]
    if isinstance(name := tree.get("scenario"), str):
        tree["scenario"] = {"dataset": name}
    return {section: {} if value is None else value for section, value in tree.items()}


def _override(text: str) -> list[Pair]:
    """The pairs of KEY=VALUE, to apply in turn. BadInput: it is not of this form."""
    key, equals, written = text.partition("=")
    with prefix_errors(f"--set {text if len(text) <= 80 else text[:80] + '...'}"):
        if not equals or not key.strip() or len(key) > MAX_KEY:
            raise BadInput("expected KEY=VALUE, e.g. train.epochs=2")
        try:
            value = parse(written)
        except ValueError as error:
            raise BadInput(f"the value is {error}; put text in quotes: '{key}=\"...\"'") from None
        if str(value).count("#") < written.count("#"):
            raise BadInput(f"# begins a comment in YAML; put the value in quotes: '{key}=\"...\"'")
        if value is None and written.strip().lower() not in ("null", "~"):
            raise BadInput(f"the value is empty; write {key}=null for the default")
    return _replacing(key.strip(), value)


def _replacing(key: str, value: Any) -> list[Pair]:
    """The pairs that set a key to this value alone: an empty mapping, then each key of the value if it is a mapping."""
    return [(key, {}), *flatten({key: value}).items()]
