"""The page of all options, made of the settings classes: `python -m utils.config.options_page > docs/options.md`."""

import inspect
import json
from collections.abc import Iterator
from html import escape
from typing import Any

from pydantic import BaseModel

import methods
from utils.config.schema import Config

HEAD = """# All options of the YAML

Written by `python -m utils.config.options_page > docs/options.md` from the classes that declare them: do not edit.
A dotted key is a key in a section: `train.lr: 0.01` is `lr: 0.01` under `train:`, and on the command line
`--set train.lr=0.01`. `sweep`, which takes any of these keys and lists of values, is explained in the README.
"""
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
KINDS = {"integer": "whole number", "number": "number", "boolean": "yes or no", "string": "text"}
Schema = dict[str, Any]


def reference() -> str:
    """The page, as markdown."""
    sections = {
        name: field.annotation
        for name, field in Config.model_fields.items()
        if name != "method" and not field.exclude  # methods have options of their own; the rest no one writes
    }
    parts = [HEAD]
    parts += [f"## {name}\n\n{inspect.getdoc(model)}\n\n{_table(model, name)}" for name, model in sections.items()]
    for name in methods.known():
        method, config = methods.find(name)
        summary = inspect.getdoc(inspect.getmodule(method)).splitlines()[0]
        parts.append(f"## method: {name}\n\n{summary}\n\n{_table(config, 'method')}")
    return "\n".join(parts)


def _table(model: type[BaseModel], prefix: str) -> str:
    schema = model.model_json_schema()
    lines = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    for key, field, required in _options(schema, schema, prefix):
        default = "" if required else f"`{_written(field.get('default'))}`"
        meaning = escape(" ".join(field.get("description", "").split()), quote=False)
        cells = (f"`{key}`", _kind(field), default, meaning)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _options(schema: Schema, root: Schema, prefix: str) -> Iterator[tuple[str, Schema, bool]]:
    """Dotted key, its schema, and whether it has to be given, of each option in a schema and the sections in it."""
    for name, field in schema["properties"].items():
        if "$ref" in field:
            yield from _options(root["$defs"][field["$ref"].rpartition("/")[2]], root, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", field, name in schema.get("required", [])


def _kind(field: Schema) -> str:
    """What may be written."""
    if "anyOf" in field:
        return " or ".join(_kind(choice) for choice in field["anyOf"] if choice.get("type") != "null")
    if "enum" in field:
        return ", ".join(f"`{choice}`" for choice in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    bounds = [f"{sign} {field[name]:g}" for name, sign in BOUNDS.items() if name in field]
    return ", ".join([KINDS[field["type"]], *bounds])


def _written(value: Any) -> str:
    """A default as the YAML has it."""
    words = {True: "yes", False: "no", None: "null"}
    return words[value] if value is None or isinstance(value, bool) else json.dumps(value).strip('"')


if __name__ == "__main__":
    print(reference(), end="")
