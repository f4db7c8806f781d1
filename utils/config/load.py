"""YAML -> a validated configuration. Every error says which file, which key, and how to mend it."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError, create_model

import methods
from utils.config.aliases import Entry, known_names, translate
from utils.config.schema import Config
from utils.config.yaml_text import Pair, flatten, overlap, parse, read, unflatten
from utils.settings import BadInput, nearest


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
        schema = _schema(sections)
        config = schema.model_validate(sections)
        _check_together(config)
    except ValidationError as error:
        lines = dict.fromkeys(_describe(schema, problem) for problem in error.errors())
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


def _schema(sections: dict[str, Any]) -> type[Config]:
    """`Config` with the method's own options in its `method` section; brings short forms to the long one."""
    scenario, method = sections.get("scenario"), sections.get("method")
    if isinstance(scenario, dict) and isinstance(scenario.get("dataset"), str):
        scenario["dataset"] = {"name": scenario["dataset"]}
    if isinstance(method, str):
        method = sections["method"] = {"name": method}
    if not isinstance(method, dict) or not isinstance(method.get("name"), str):
        return Config
    try:
        _, options = methods.find(method["name"])
    except BadInput as error:
        raise BadInput(f"method.name: {error}") from None
    method["name"] = method["name"].lower()
    return create_model("Config", __base__=Config, method=(options, ...))


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


def _describe(schema: type[BaseModel], problem: Any) -> str:
    """One line for one of pydantic's errors: key, what was given, what is expected, the nearest known key."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location) or "the whole"
    if problem["type"] == "extra_forbidden":
        section = _section_at(schema, location[:-1])
        prefix = ".".join(location[:-1])
        method = schema.model_fields["method"].annotation.__module__.removeprefix("methods.")
        names = [*section.model_fields, *known_names(prefix, method), *([] if prefix else ["sweep"])]
        hint = nearest(location[-1], names) or f"known here: {', '.join(section.model_fields)}"
        return f"{key}: unknown key; {hint}"
    if problem["type"] == "missing":
        field = _section_at(schema, location[:-1]).model_fields[location[-1]]
        return f"{key}: missing; add it: {(field.description or 'see the README').splitlines()[0]}"
    expected = problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    if problem["type"] == "value_error":
        return f"{key}: {expected}"
    return f"{key}: got {problem['input']!r}; {expected}"


def _section_at(schema: type[BaseModel], location: list[str]) -> type[BaseModel]:
    """The settings class of a nested section."""
    for part in location:
        schema = schema.model_fields[part].annotation
    return schema
