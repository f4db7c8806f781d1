"""YAML -> a validated configuration; else a BadInput with a line per error: file, key, and what is expected."""

import sys
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from utils.config.aliases import Entry, known_names, named_method, translate
from utils.config.schema import METHOD, Config
from utils.config.yaml_text import Pair, flatten, overlap, parse, read_layers, unflatten
from utils.settings import BadInput, Chosen, nearest, prefix_errors

NAMES = {"method": "method.name", "scenario.dataset": "scenario.dataset.name", "model.encoder": "model.encoder.name"}
"""Sections that may be a bare name -> the key of the name."""


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read the YAML file of one experiment, apply overrides such as "train.epochs=2", and validate everything."""
    config, warnings = resolve(str(path), read_layers(path), [pair for text in overrides for pair in override(text)])
    warn(path, warnings)
    return config


def resolve(where: str, layers: Sequence[Sequence[Pair]], changes: Sequence[Pair]) -> tuple[Config, list[str]]:
    """The configuration, and warnings, of dotted keys and values: those of files, each over its base, then changes."""
    sources = [*layers, changes]
    with prefix_errors(where):
        method = named_method([pair for pairs in sources for pair in pairs])
        translated = [translate(pairs, method) for pairs in sources]
        if lines := [line for of_file in translated[:-1] for line in doubles((e.written, e.key) for e in of_file)]:
            raise BadInput("\n".join(lines))
        entries = [entry for of_source in translated for entry in of_source]
        sections = unflatten(_merged([entry for entry in entries if not entry.ignored]))
        try:
            config = Config.model_validate(sections)
        except ValidationError as error:
            lines = [_describe(sections, problem) for problem in error.errors()]
            raise BadInput("\n".join(dict.fromkeys(lines))) from None
        _check_together(config)
    return config, [f"{entry.written}: has no effect ({entry.ignored})" for entry in entries if entry.ignored]


def warn(path: Path, warnings: Sequence[str]) -> None:
    """Print the warnings about a file, each once."""
    for warning in dict.fromkeys(warnings):
        print(f"{path}: {warning}", file=sys.stderr)


def doubles(keys: Iterable[tuple[str, str]]) -> list[str]:
    """Errors about keys, each as written and in our names: a file may set a key by one name only."""
    return [
        f"{one} and {other} both set {min(ours, theirs, key=len)}; keep one of them"
        for (one, ours), (other, theirs) in combinations(keys, 2)
        if overlap(ours, theirs)
    ]


def _merged(entries: Sequence[Entry]) -> dict[str, Any]:
    """Dotted keys and values. A later entry replaces those it overlaps, but an option of a module keeps a bare name."""
    leaves: dict[str, Any] = {}
    for entry in entries:
        for key in [key for key in leaves if overlap(key, entry.key)]:
            value = leaves.pop(key)
            if isinstance(value, str) and key in NAMES and len(key) < len(entry.key):
                leaves[NAMES[key]] = value
        leaves[entry.key] = entry.value
    return leaves


def _check_together(config: Config) -> None:
    if config.train.momentum and config.train.optimizer != "sgd":
        raise BadInput("train.momentum: requires train.optimizer: sgd; set that, or momentum to 0")
    if config.train.selection == "dev" and config.scenario.dev_split == 0:
        raise BadInput("train.selection: dev needs a dev set; set scenario.dev_split, e.g. to 0.1")
    if config.scenario.type != "class" and config.scenario.labels_per_task == 1:
        raise BadInput(
            f"scenario.labels_per_task: with 1 there is nothing to classify in the {config.scenario.type} scenario; "
            "set it to 2 or more, or scenario.type to class"
        )


def override(text: str) -> list[Pair]:
    """The pairs of KEY=VALUE, to apply in turn. BadInput: it is not of this form."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise BadInput(f"--set {text}: expected KEY=VALUE, e.g. train.epochs=2")
    try:
        return replacing(key.strip(), parse(value))
    except yaml.YAMLError:
        raise BadInput(f"--set {text}: the value is not valid YAML") from None


def replacing(key: str, value: Any) -> list[Pair]:
    """The pairs that set a key to this value alone: an empty mapping, then each key of the value if it is a mapping."""
    return [(key, {}), *flatten({key: value}).items()]


def _describe(tree: dict[str, Any], problem: Any) -> str:
    """One line for one of pydantic's errors: key, what was given, what is expected, the nearest known key."""
    keys, section = _locate(tree, [str(part) for part in problem["loc"]])
    key, (*parents, name) = ".".join(keys), keys
    if problem["type"] == "extra_forbidden":
        originals = known_names(".".join(parents), str(METHOD.name_in(tree.get("method"))))
        known = [*section.model_fields, *originals, *([] if parents else ["sweep", "base"])]
        return f"{key}: unknown key; {nearest(name, known) or 'known here: ' + ', '.join(section.model_fields)}"
    if problem["type"] == "missing":
        description = section.model_fields[name].description or "see docs/options.md"
        return f"{key}: missing; add it: {description.splitlines()[0]}"
    expected = problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    if problem["type"] in ("value_error", "unknown_name"):
        return f"{key}: {expected}"
    if problem["type"] == "model_type":
        expected = "expected a mapping of keys to values"
    return f"{key}: got {problem['input']!r}; {expected}"


def _locate(tree: Any, location: list[str]) -> tuple[list[str], type[BaseModel]]:
    """The keys of pydantic's location, which may end with a type, and the settings class of the last one."""
    section: type[BaseModel] = Config
    for depth, part in enumerate(location[:-1]):
        field = section.model_fields[part]
        inner: Any = field.annotation
        tree = tree.get(part) if isinstance(tree, dict) else None
        for choice in [entry for entry in field.metadata if isinstance(entry, Chosen)]:
            inner = choice.model_in(tree)
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return location[: depth + 1], section
        section = inner
    return location, section
