"""YAML -> a validated configuration. Every error says which file, which key, and how to mend it."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from utils.config.aliases import Entry, known_names, translate
from utils.config.schema import METHOD, Config
from utils.config.yaml_text import Pair, flatten, overlap, parse, read, unflatten
from utils.settings import BadInput, Chosen, nearest


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read the YAML file of one experiment, apply overrides such as "train.epochs=2", and validate everything.

    Raises:
        BadInput: all that is wrong with the file or the overrides, a line each.
    """
    changes = [pair for text in overrides for pair in override(text)]
    config, warnings = resolve(str(path), list(flatten(read(path)).items()), changes)
    warn(path, warnings)
    return config


def resolve(where: str, written: Sequence[Pair], changes: Sequence[Pair]) -> tuple[Config, list[str]]:
    """Dotted keys and values, as a file has them and as they are then changed -> configuration, and warnings.

    Raises:
        BadInput: all that is wrong with them, a line each that begins with `where`.
    """
    entries = translate([*written, *changes])
    _refuse_doubles(where, entries[: len(written)])
    leaves: dict[str, Any] = {}
    for entry in (entry for entry in entries if not entry.ignored):
        for other in [key for key in leaves if overlap(key, entry.key)]:
            del leaves[other]  # a name replaces a mapping, or the other way round
        leaves[entry.key] = entry.value
    sections = unflatten(leaves)
    try:
        config = Config.model_validate(sections)
        _check_together(config)
    except ValidationError as error:
        lines = dict.fromkeys(_describe(sections, problem) for problem in error.errors())
        raise BadInput("\n".join(f"{where}: {line}" for line in lines)) from None
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
    return config, [f"{e.written}: has no effect ({e.ignored})" for e in entries if e.ignored]


def warn(path: Path, warnings: Sequence[str]) -> None:
    """Say what a file holds to no effect, each thing once."""
    for warning in dict.fromkeys(warnings):
        print(f"{path}: {warning}", file=sys.stderr)


def _refuse_doubles(where: str, entries: Sequence[Entry]) -> None:
    """A file may call a key by our name or by the original's, not by both."""
    lines = [
        f"{where}: {first.written} and {second.written} both set {min(first.key, second.key, key=len)}; "
        "keep one of them"
        for i, second in enumerate(entries)
        for first in entries[:i]
        if overlap(first.key, second.key)
    ]
    if lines:
        raise BadInput("\n".join(lines))


def _check_together(config: Config) -> None:
    if config.train.momentum and config.train.optimizer != "sgd":
        raise BadInput("train.momentum: is for sgd; set train.optimizer to sgd, or momentum to 0")
    if config.train.selection == "dev" and config.scenario.dev_split == 0:
        raise BadInput("train.selection: dev needs a dev set; set scenario.dev_split, e.g. to 0.1")
    if config.scenario.type != "class" and config.scenario.labels_per_task == 1:
        raise BadInput(
            f"scenario.labels_per_task: 1 leaves nothing to tell apart in the {config.scenario.type} scenario; "
            "set it to 2 or more, or scenario.type to class"
        )


def override(text: str) -> list[Pair]:
    """The pairs of KEY=VALUE, to apply one after the other.

    Raises:
        BadInput: it is not of this form.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise BadInput(f"--set {text}: expected KEY=VALUE, e.g. train.epochs=2")
    try:
        return replacing(key.strip(), parse(value))
    except yaml.YAMLError:
        raise BadInput(f"--set {text}: the value is not valid YAML") from None


def replacing(key: str, value: Any) -> list[Pair]:
    """The pairs that give a key this value and no other: what was there goes, then each key of a mapping comes."""
    return [(key, {}), *flatten({key: value}).items()]


def _describe(tree: dict[str, Any], problem: Any) -> str:
    """One line for one of pydantic's errors: key, what was given, what is expected, the nearest known key."""
    keys, section = _locate(tree, [str(part) for part in problem["loc"]])
    *parents, name = keys
    key = ".".join(keys)
    if problem["type"] == "extra_forbidden":
        method = METHOD.name_in(tree.get("method"))
        known = [
            *section.model_fields,
            *known_names(".".join(parents), method),
            *([] if parents else ["sweep", "base"]),
        ]
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


def _locate(tree: dict[str, Any], location: list[str]) -> tuple[list[str], type[BaseModel]]:
    """The keys of pydantic's location, which may end with a type, and the settings class of the last one."""
    section, value = Config, tree
    for depth, part in enumerate(location[:-1]):
        field = section.model_fields[part]
        inner, value = field.annotation, value.get(part) if isinstance(value, dict) else None
        for choice in [entry for entry in field.metadata if isinstance(entry, Chosen)]:
            inner = choice.model_in(value)
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return location[: depth + 1], section
        section = inner
    return location, section
