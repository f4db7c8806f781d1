"""Plain data as YAML text, and as dotted keys."""

import re
from pathlib import Path
from typing import Any

import yaml

from utils.settings import BadInput, nearest

MAX_VALUES = 10_000  # per file
Pair = tuple[str, Any]  # a dotted key, and its value


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; BadInput if there is none."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except FileNotFoundError:
        hint = nearest(path.name, [file.name for file in path.parent.glob("*.y*ml")])
        raise BadInput(f"{path}: no such file{hint and '; '}{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error})") from None
    except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
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


def read_layers(path: Path, above: tuple[Path, ...] = ()) -> list[list[Pair]]:
    """Dotted keys and values of a file and, before them, of the file that its `base` names, relative to it."""
    tree = read(path)
    base = tree.pop("base", None)
    own = list(flatten(tree).items())
    if base is None:
        return [own]
    if not isinstance(base, str):
        raise BadInput(f"{path}: base: got {base!r}; expected another YAML file, e.g. prer_mnist.yaml")
    above = (*above, path.resolve())
    if (path.parent / base).resolve() in above:
        raise BadInput(f"{path}: base: {base} is based on this file; remove one of the two")
    return [*read_layers(path.parent / base, above), own]


def as_yaml(tree: dict[str, Any]) -> str:
    """Plain data as YAML text that `read` reads back."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys; an empty mapping is kept as a value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        flat |= flatten(value, f"{dotted}.") if isinstance(value, dict) and value else {dotted: value}
    return flat


def overlap(one: str, other: str) -> bool:
    """Whether setting one of two dotted keys replaces the other."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


class Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number, as YAML 1.2 does, and refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key, (where, _) in zip(keys, node.value, strict=True):
            if keys.count(key) > 1 and key != "<<":
                message = f"the key {key!r} is written twice"
                raise yaml.constructor.ConstructorError(None, None, message, where.start_mark)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes strings that `Loader` would read as numbers."""


for _reader_or_writer in (Loader, _Dumper):
    _number = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
    _reader_or_writer.add_implicit_resolver("tag:yaml.org,2002:float", _number, list("-+.0123456789"))
