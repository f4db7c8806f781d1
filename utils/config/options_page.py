"""The page of all options, from the settings classes: `python -m utils.config.options_page > docs/options.md`."""

import inspect
import json
from collections.abc import Iterator
from html import escape
from typing import Any

from pydantic import BaseModel

from utils.config.schema import Config
from utils.settings import Chosen, find, modules

HEAD = """# All options of the YAML

Written by `python -m utils.config.options_page > docs/options.md` from the code that declares them: do not edit.
A dotted key is a key in a section: `train.lr: 0.01` is `lr: 0.01` under `train:`, and on the command line
`--set train.lr=0.01`. Methods, data sets, encoders and flows have further keys, listed by name below.
"""
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "ge": "≥", "gt": ">", "maximum": "≤", "exclusiveMaximum": "<"}
KINDS = {"integer": "whole number", "number": "number", "boolean": "yes or no", "string": "text"}
Schema = dict[str, Any]
Choices = dict[str, Chosen]
"""Dotted key -> the modules that a section of this key may name."""


def page() -> str:
    """The page, as Markdown."""
    choices: Choices = {}
    parts = [HEAD, f"## Common options\n\n{_table(Config, '', choices)}"]
    done: set[str] = set()
    while remaining := [key for key in choices if key not in done]:
        key, choice = remaining[0], choices[remaining[0]]
        done.add(key)
        for name in modules(choice.package, choice.builder):
            summary = (inspect.getdoc(find(choice.package, name, choice.builder)) or name).splitlines()[0]
            own = _table(choice.model(name), f"{key}.", choices, without=choice.base)
            parts.append(f"## {key}: {name}\n\n{summary}\n\n{own}")
    return "\n".join(parts)


def _table(model: type[BaseModel], prefix: str, choices: Choices, without: type[BaseModel] = BaseModel) -> str:
    """The options of a model and its sections, but those of `without`; adds the sections that name a module."""
    schema = model.model_json_schema()
    lines = []
    for key, field, required in _options(model, schema, schema, prefix, choices):
        if key.removeprefix(prefix) not in without.model_fields:
            default = "" if required else f"`{_as_yaml(field.get('default'))}`"
            meaning = escape(" ".join(field.get("description", "").split()), quote=False)
            cells = (f"`{key}`", _kind(field), default, meaning)
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    head = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *lines]) + "\n" if lines else "No options of its own.\n"


def _options(
    model: type[BaseModel], schema: Schema, root: Schema, prefix: str, choices: Choices
) -> Iterator[tuple[str, Schema, bool]]:
    """Dotted key, JSON schema, and whether it is required, of each option of a model and its sections."""
    for name, field in schema["properties"].items():
        info, key = model.model_fields[name], f"{prefix}{name}"
        if "$ref" in field:
            choices.update((key, entry) for entry in info.metadata if isinstance(entry, Chosen))
            inner = root["$defs"][field["$ref"].rpartition("/")[2]]
            yield from _options(info.annotation, inner, root, f"{key}.", choices)
        elif not info.exclude:
            yield key, field, name in schema.get("required", [])


def _kind(field: Schema) -> str:
    """The values that an option takes."""
    bounds = [f"{sign} {field[name]:g}" for name, sign in BOUNDS.items() if name in field]
    if "anyOf" in field:
        kinds = [_kind(choice) for choice in field["anyOf"] if choice.get("type") != "null"]
        return ", ".join([" or ".join(kinds), *bounds])
    if "enum" in field:
        return ", ".join(f"`{choice}`" for choice in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    return ", ".join([KINDS.get(field.get("type", ""), "any"), *bounds])


def _as_yaml(value: Any) -> str:
    """A default as in the YAML."""
    words = {True: "yes", False: "no", None: "null"}
    return words[value] if value is None or isinstance(value, bool) else json.dumps(value).strip('"')


if __name__ == "__main__":
    print(page(), end="")
