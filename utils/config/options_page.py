"""The page of all options, from the settings classes: `python -m utils.config.options_page > docs/options.md`."""

import inspect
import json
from collections.abc import Container
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
TABLE_HEAD = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "ge": "≥", "gt": ">", "maximum": "≤", "exclusiveMaximum": "<"}
KINDS = {"integer": "whole number", "number": "number", "boolean": "yes or no", "string": "text", "array": "list"}


def page() -> str:
    """The page, as Markdown."""
    choices: list[tuple[str, Chosen]] = []  # dotted keys of sections that name a module; grows in the loop
    parts = [HEAD, "## Common options\n", *TABLE_HEAD, *_rows(Config, "", choices), ""]
    for key, choice in choices:
        for name in modules(choice.package, choice.builder):
            summary = (inspect.getdoc(find(choice.package, name, choice.builder)) or name).splitlines()[0]
            rows = _rows(choice.model(name), f"{key}.", choices, without=choice.base.model_fields)
            table = [*TABLE_HEAD, *rows] if rows else ["No options of its own."]
            parts += [f"## {key}: {name}\n", summary, "", *table, ""]
    return "\n".join(parts)


def _rows(model: Any, prefix: str, choices: list[tuple[str, Chosen]], without: Container[str] = ()) -> list[str]:
    """A row per option of a model and its sections; adds the sections that name a module to `choices`."""
    properties, rows = model.model_json_schema()["properties"], []
    for name, info in model.model_fields.items():
        field, key = properties[name], f"{prefix}{name}"
        if name in without:
            continue
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            found = [(key, entry) for entry in info.metadata if isinstance(entry, Chosen)]
            choices += [choice for choice in found if choice not in choices]
            rows += _rows(info.annotation, f"{key}.", choices)
            continue
        default = field.get("default")
        words = ("no", "yes")[default] if isinstance(default, bool) else json.dumps(default).strip('"')
        meaning = escape(" ".join(field.get("description", "").split()), quote=False)
        cells = (f"`{key}`", _kind(field), "" if info.is_required() else f"`{words}`", meaning)
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return rows


def _kind(field: dict[str, Any]) -> str:
    """The values that an option takes."""
    bounds = [f"{sign} {field[name]:g}" for name, sign in BOUNDS.items() if name in field]
    if "anyOf" in field:
        kinds = [_kind(choice) for choice in field["anyOf"] if choice.get("type") != "null"]
        return ", ".join([" or ".join(kinds), *bounds])
    if choices := field.get("enum", [field["const"]] if "const" in field else []):
        return ", ".join(f"`{choice}`" for choice in choices)
    return ", ".join([KINDS.get(field.get("type", ""), "any"), *bounds])


if __name__ == "__main__":
    print(page(), end="")
