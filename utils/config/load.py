"""YAML -> validated configurations; else a BadInput with a line per error: file, key, and what is expected."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from utils.config.aliases import NULLS, doubles, known_names, named_method, translate, translate_key
from utils.config.schema import METHOD, Config
from utils.config.sweep import Sweep, as_sweep, combinations, name_points
from utils.config.yaml_text import Loader, Pair, flatten, overlap, read_layers
from utils.settings import BadInput, Chosen, nearest, prefix_errors

NAMES = {"method": "name", "dataset": "name", "encoder": "name", "flow": "type"}
"""Sections that may be a bare name -> the key of the name."""


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


def load_points(path: Path, overrides: Sequence[str] = ()) -> list[Point]:
    """The experiments of a YAML file after overrides; a key with a list in `sweep` or in an override is swept."""
    files, changes = read_layers(path), [_override(text) for text in overrides]
    method = named_method([pair for pairs in (*files, *changes) for pair in pairs])
    with prefix_errors(str(path)):
        translated = [[(key, translate_key(key, method)) for key, _ in pairs] for pairs in files]
        if lines := [line for keys in translated for line in doubles(keys)]:
            raise BadInput("\n".join(lines))
        plain, lists = _part(files, changes, method)
        is_swept, count, rank_by = bool(lists), lists.pop("random", None), lists.pop("rank_by", "dev")
        keys = {key: translate_key(key, method) for key in lists}
        named = name_points(combinations(lists, count), keys) if is_swept else {"": {}}
    where = {name: f"{path} (sweep: {name})" if name else str(path) for name in named}
    configs, warnings = dict[str, Config](), dict[str, str]()  # key as written -> warning
    for name, values in named.items():
        own = [pair for key, value in values.items() for pair in _replacing(key, value)]
        configs[name] = _resolve(where[name], [*plain, *own], warnings)
    for warning in warnings.values():
        print(f"{path}: {warning}", file=sys.stderr)
    if not is_swept:
        return [Point(configs[""], str(path), None)]
    with prefix_errors(str(path)):
        sweep = as_sweep(configs, named, list(keys.values()), rank_by)
    return [Point(config.saved_in(sweep.root / name), where[name], sweep) for name, config in configs.items()]


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
            written = name if is_swept else key
            ours = translate_key(written, method)  # empty if the whole of `sweep` is set
            lists = {k: v for k, v in lists.items() if ours and not overlap(translate_key(k, method), ours)}
            if is_swept or (number >= len(files) and isinstance(value, list)):
                own[written] = value
            else:
                plain.append((key, value))
        lists |= own
    if lists.pop("", None):
        raise BadInput("sweep: expected keys and the lists of their values, e.g. train.lr: [1e-3, 1e-4]")
    return plain, lists


def _resolve(where: str, written: Sequence[Pair], warnings: dict[str, str]) -> Config:
    """The configuration of dotted keys and values, later ones over earlier ones; adds to the warnings."""
    with prefix_errors(where):
        pairs, ignored = translate(written, named_method(written))
        sections = _merged(pairs)
        try:
            config = Config.model_validate(sections)
        except ValidationError as error:
            raise BadInput("\n".join(dict.fromkeys(_describe(sections, each) for each in error.errors()))) from None
        scenario, train = config.scenario, config.train
        if train.momentum and train.optimizer != "sgd":
            raise BadInput("train.momentum: requires train.optimizer: sgd; set that, or momentum to 0")
        if train.selection == "dev" and scenario.dev_split == 0:
            raise BadInput("train.selection: dev needs a dev set; set scenario.dev_split, e.g. to 0.1")
        if scenario.type != "class" and scenario.labels_per_task == 1:
            problem = f"with 1 there is nothing to classify in the {scenario.type} scenario"
            raise BadInput(f"scenario.labels_per_task: {problem}; set it to 2 or more, or scenario.type to class")
    warnings |= {key: f"{key}: has no effect ({reason})" for key, reason in ignored.items()}
    return config


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
    return {section: {} if value is None else value for section, value in tree.items()}


def _override(text: str) -> list[Pair]:
    """The pairs of KEY=VALUE, to apply in turn. BadInput: it is not of this form."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise BadInput(f"--set {text}: expected KEY=VALUE, e.g. train.epochs=2")
    try:
        return _replacing(key.strip(), yaml.load(value, Loader))
    except yaml.YAMLError:
        raise BadInput(f"--set {text}: the value is not valid YAML") from None


def _replacing(key: str, value: Any) -> list[Pair]:
    """The pairs that set a key to this value alone: an empty mapping, then each key of the value if it is a mapping."""
    return [(key, {}), *flatten({key: value}).items()]


def _describe(tree: dict[str, Any], problem: Any) -> str:
    """One line for one of pydantic's errors: key, what was given, what is expected, the nearest known key."""
    keys: list[str] = []
    section: type[BaseModel] = Config  # that declares the last of the keys
    inner: Any = Config
    value: Any = tree
    for name in map(str, problem["loc"]):
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break  # a location may end with a type
        keys, section = [*keys, name], inner
        if field := section.model_fields.get(name):
            value = value.get(name) if isinstance(value, dict) else None
            choices = [entry.model_in(value) for entry in field.metadata if isinstance(entry, Chosen)]
            inner = choices[0] if choices else field.annotation
    key, (*parents, name) = ".".join(keys), keys
    if problem["type"] == "extra_forbidden":
        originals = known_names(".".join(parents), str(METHOD.name_in(tree.get("method"))))
        known = [*section.model_fields, *originals, *([] if parents else ["sweep", "base"])]
        return f"{key}: unknown key; {nearest(name, known) or 'known here: ' + ', '.join(section.model_fields)}"
    if problem["type"] == "missing":
        description = section.model_fields[name].description or "see docs/options.md"
        return f"{key}: missing; add it: {description.splitlines()[0]}"
    expected = problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    if problem["type"] == "value_error":
        return f"{key}: {expected}"
    if problem["type"] == "model_type":
        expected = "expected a mapping of keys to values"
    return f"{key}: got {problem['input']!r}; {expected}"
