"""pydantic's errors as lines: key, what was given, what is expected, and the key that was probably meant."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from utils.config.aliases import known_names
from utils.config.schema import METHOD, Config
from utils.settings import Chosen, nearest, shown

MAX_LINES, MAX_NAMES = 20, 8
MEANT = dict.fromkeys(
    ("seed", "seeds"), "--seeds 3 or --seeds 0-4 chooses the seeds, and train.experiments says how many"
) | {"base": "it can be written at the top of a file only"}
"""Keys of other programs, or in the wrong place -> what to write here."""
Unknown = dict[tuple[str, ...], list[str]]  # keys of a section -> the unknown keys in it


def explain(error: ValidationError, tree: dict[str, Any]) -> str:
    """A line per wrong value, then a line per section with unknown keys; `tree` is what was validated."""
    lines, unknown, sections = dict[str, str](), Unknown(), dict[tuple[str, ...], type[BaseModel]]()
    problems = error.errors(include_url=False)
    for problem in problems:
        place = problem["loc"]
        if problem["type"] == "too_short" and any(place == other["loc"][:-1] for other in problems):
            continue  # an item was refused, and is not counted
        (*parents, name), section = _locate(tree, place)
        key = ".".join((*parents, name))
        if problem["type"] == "extra_forbidden":
            unknown.setdefault(tuple(parents), []).append(name)
            sections[tuple(parents)] = section
        elif key in lines:  # a choice of types has an error for each of them
            lines[key] += f", or {_expected(problem, section, name).removeprefix('expected ')}"
        else:
            given = "" if problem["type"] in ("missing", "value_error") else f"got {shown(problem['input'])}; "
            lines[key] = f"{key}: {given}{_expected(problem, section, name)}"
    told = [*lines.values(), *(_unknown(tree, *entry, sections[entry[0]]) for entry in unknown.items())]
    more = [f"{len(told) - MAX_LINES:,} more errors"] if len(told) > MAX_LINES else []
    return "\n".join([*told[:MAX_LINES], *more])


def _locate(tree: dict[str, Any], location: Sequence[int | str]) -> tuple[list[str], type[BaseModel]]:
    """The keys of a location, and the section that declares the last of them."""
    keys: list[str] = []
    section: type[BaseModel] = Config
    inner: Any = Config
    value: Any = tree
    for name in map(str, location):
        if isinstance(value, list) and name.isdecimal() and (choice := _of_items(inner)):
            value = value[int(name)]
            keys[-1], inner = f"{keys[-1]}[{name}]", choice.model_in(value)
            continue
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break  # a location may end with a type
        keys, section = [*keys, name], inner
        if field := section.model_fields.get(name):
            value = value.get(name) if isinstance(value, dict) else None
            inner = _inner(field, value)
    return keys, section


def _of_items(annotation: Any) -> Chosen | None:
    """What the items of a list choose, if it is a list of sections."""
    found = (entry for item in get_args(annotation) for entry in getattr(item, "__metadata__", ()))
    return next((entry for entry in found if isinstance(entry, Chosen)), None)


def _inner(field: Any, value: Any) -> Any:
    """The section that a field with this unvalidated value is, or its type."""
    return next((entry.model_in(value) for entry in field.metadata if isinstance(entry, Chosen)), field.annotation)


def _expected(problem: Any, section: type[BaseModel], name: str) -> str:
    """What is expected instead, in the words of the YAML."""
    field = section.model_fields.get(name)
    description = (field and field.description) or "see docs/options.md"
    match problem["type"]:
        case "missing":
            return f"missing; add it: {description.splitlines()[0]}"
        case "model_type":
            return "expected a mapping of keys to values"
        case "bool_type":
            return "expected yes or no"
        case "string_type" if isinstance(problem["input"], int | float):
            return "expected a valid string; put it in quotes"
        case "string_pattern_mismatch":
            return f"expected {description.splitlines()[0]}"
        case "too_short":
            least = problem["ctx"]["min_length"]
            return f"expected at least {least} value{'s' if least > 1 else ''}"
    return problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected")


def _unknown(tree: dict[str, Any], parents: Sequence[str], names: Sequence[str], section: type[BaseModel]) -> str:
    """The line about the unknown keys of a section."""
    place, fields = ".".join(parents), ", ".join(section.model_fields)
    known = [*section.model_fields, *known_names(place, str(METHOD.name_in(tree.get("method"))))]
    known += [] if parents else ["sweep", "base"]
    hints = {name: _hint(tree, name, known, bool(parents)) for name in names[:MAX_NAMES]}
    if len(names) == 1:
        (name,) = names
        return f"{'.'.join((*parents, name))}: unknown key; {hints[name] or f'known here: {fields}'}"
    told = ", ".join(f"{name}{hint and f' ({hint})'}" for name, hint in hints.items())
    told += f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    named = METHOD.name_in(tree.get("method")) if place == "method" else None
    of = f" for {named}" if isinstance(named, str) else ""
    return f"{place and f'{place}: '}unknown keys{of}: {told}; delete or correct them; known here: {fields}"


def _hint(tree: dict[str, Any], name: str, known: Sequence[str], in_section: bool) -> str:
    """The key that was probably meant: by this name in another section, or a similar one here; empty if none is."""
    if name in MEANT:
        return MEANT[name]
    if ":" in name:  # {name:value} is one key without a value
        return f"write a space after the colon: {name.replace(':', ': ', 1)}"
    places: dict[str, list[str]] = {}
    for key in _dotted(tree, Config):
        places.setdefault(key.rpartition(".")[2], []).append(key)
    if name not in places:
        if hint := nearest(name, known):
            return hint
        similar = [] if in_section else get_close_matches(name, places, n=1, cutoff=0.75)
        name = similar[0] if similar else name
    return f"did you mean {' or '.join(places[name])}?" if name in places else ""


def _dotted(tree: Any, section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """All dotted keys, with the own options of the modules that `tree` names."""
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}"
        value = tree.get(name) if isinstance(tree, dict) else None
        inner = _inner(field, value)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _dotted(value, inner, f"{prefix}{name}.")
