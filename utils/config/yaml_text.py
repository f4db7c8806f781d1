"""Plain data as YAML text, and as dotted keys."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from utils.paths import expanded
from utils.settings import BadInput, nearest, shown

MAX_LENGTH, MAX_VALUES, MAX_KEY = 200_000, 10_000, 200  # characters and values per file, characters of a key
Pair = tuple[str, Any]  # a dotted key, and its value


def parse(text: str) -> Any:
    """The plain data of a YAML text. ValueError says in one line why there is none."""
    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        parts = (error.context, error.problem)
        what = " ".join(part for part in parts if part and not part.startswith("while "))
        what = what.replace(" that cannot start any token", ", which cannot start a value")
        if re.search("<[a-z]", what):  # <block end> and the like are the parser's words
            what = "something is missing before this place; check brackets, quotes and indentation"
        raise ValueError(f"not valid YAML: {where}{what}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ValueError(f"not valid YAML: line {line}: the character {text[error.position]!a}; remove it") from None
    except RecursionError:
        raise ValueError("not valid YAML: nested too deeply; an experiment needs fewer brackets") from None
    except (ValueError, OverflowError):  # of chr() and decode()
        raise ValueError("not valid YAML: an escape such as \\U00110000 is no character; write the character") from None


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; BadInput if there is none."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_LENGTH + 1)
    except FileNotFoundError:
        hint = nearest(path.name, [file.name for file in path.parent.glob("*.y*ml")])
        raise BadInput(f"{path}: no such file{hint and '; '}{hint}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: cannot be read: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    if len(text) > MAX_LENGTH:
        raise BadInput(f"{path}: more than {MAX_LENGTH:,} characters; an experiment needs fewer; is it the right file?")
    try:
        tree = parse(text)
    except ValueError as error:
        raise BadInput(f"{path}: {error}") from None
    if not isinstance(tree, dict):
        got = "nothing" if tree is None else f"a {type(tree).__name__}"
        raise BadInput(f"{path}: holds {got}; expected the sections method, scenario, model, train")
    tree.pop("made_with", None)  # older versions wrote it into config.yml; it has no effect
    nodes = [tree]
    for count, node in enumerate(nodes):  # grows: YAML aliases may expand to themselves, or to more than memory holds
        if count >= MAX_VALUES:
            raise BadInput(f"{path}: more than {MAX_VALUES:,} values, aliases expanded; an experiment needs fewer")
        nodes += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return tree


def read_layers(path: Path, above: tuple[str, ...] = ()) -> list[list[Pair]]:
    """Dotted keys and values of a file and, before them, of the file that its `base` names, relative to it."""
    tree = read(path)
    base = tree.pop("base", None)
    own = list(pairs(tree))
    if base is None:
        return [own]
    if not isinstance(base, str):
        raise BadInput(f"{path}: base: got {shown(base)}; expected another YAML file, e.g. prer_mnist.yaml")
    try:
        ground = path.parent / expanded(base)
    except ValueError as error:
        raise BadInput(f"{path}: base: {error}") from None
    above = (*above, os.path.realpath(path))
    if os.path.realpath(ground) in above:
        raise BadInput(f"{path}: base: {base} is based on this file; remove one of the two")
    return [*read_layers(ground, above), own]


def as_yaml(tree: dict[str, Any]) -> str:
    """Plain data as YAML text that `read` reads back."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def flatten(tree: dict[str, Any]) -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys; an empty mapping is kept as a value."""
    return dict(pairs(tree))


def pairs(tree: dict[str, Any], prefix: str = "") -> Iterator[Pair]:
    """The dotted keys of nested mappings and their values; a key may come twice, as `a.b` and as `b` in `a`."""
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from pairs(value, f"{dotted}.")
        else:
            yield dotted, value


def overlap(one: str, other: str) -> bool:
    """Whether setting one of two dotted keys replaces the other."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


class Loader(yaml.SafeLoader):
    """SafeLoader with the numbers of YAML 1.2 (1e-3; 010, 1:30 and dates are text) and keys that are text.

    Keys that are written twice, or are no names, and explicit tags are refused.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if tag := getattr(event, "tag", None):
            raise _refused(
                f"the tag {tag.replace(STANDARD, '!!')} has no meaning here; remove it",
                event.start_mark,
            )
        return super().compose_node(parent, index)

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)  # JSON writes some characters as two escapes, which form a pair
        node.value = node.value.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node, seen = super().compose_mapping_node(anchor), set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or len(key.value) > MAX_KEY:
                raise _refused(f"a key must be a name of at most {MAX_KEY} characters", key.start_mark)
            if key.tag != MERGE:
                key.tag = TEXT
                if key.value in seen:
                    raise _refused(f"the key {key.value!r} is written twice; keep one of them", key.start_mark)
                seen.add(key.value)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Replace `<<`: a mapping's own keys win, then those of the first mapping merged. PyYAML's versions differ."""
        sources = [value for key, value in node.value if key.tag == MERGE]
        node.value = [pair for pair in node.value if pair[0].tag != MERGE]
        for source in sources:
            for merged in source.value if isinstance(source, yaml.SequenceNode) else [source]:
                if not isinstance(merged, yaml.MappingNode):
                    raise _refused("<< takes a mapping, or a list of mappings", merged.start_mark)
                self.flatten_mapping(merged)
                own = {key.value for key, _ in node.value}
                node.value += [pair for pair in merged.value if pair[0].value not in own]


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes what a reader of YAML 1.1 or 1.2 would not take for text."""


def _refused(message: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.composer.ComposerError(None, None, message, mark)


STANDARD = "tag:yaml.org,2002:"
MERGE, TEXT, INT, FLOAT = (f"{STANDARD}{kind}" for kind in ("merge", "str", "int", "float"))
_digits = r"[0-9](_?[0-9])*"
_power = r"[eE][-+]?[0-9]+"
_real = rf"({_digits}\.({_digits})?|\.{_digits})({_power})?|{_digits}{_power}"
_numbers = {
    INT: r"[-+]?(0|[1-9](_?[0-9]){0,39})$",  # Python reads no integer of thousands of digits
    FLOAT: rf"[-+]?({_real}|\.(inf|Inf|INF))$|\.(nan|NaN|NAN)$",
}
Loader.yaml_implicit_resolvers = {
    start: [(tag, pattern) for tag, pattern in entries if tag.removeprefix(STANDARD) in ("bool", "null", "merge")]
    for start, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in _numbers.items():
    for _reader_or_writer in (Loader, _Dumper):
        _reader_or_writer.add_implicit_resolver(_tag, re.compile(_pattern), list("-+.0123456789"))
Loader.add_constructor(INT, lambda loader, node: int(node.value))
