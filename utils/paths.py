"""Paths as the user writes them: `~`, `$VAR` and {placeholders} are filled in, or refused. Imports nothing heavy."""

import os
import re
from collections.abc import Mapping

MAX_NAME, MAX_PATH = 255, 4000  # bytes, of common file systems


def expanded(text: str) -> str:
    """A path with `~`, `$VAR` and `${VAR}` replaced. ValueError says in one line why it cannot be used."""
    path = os.path.expanduser(os.path.expandvars(text))
    if unset := re.search(r"\$(\w+|\{.*?\})", path):
        raise ValueError(f"{unset[0]} in {text!r} is not set; set this variable, or write the path in full")
    if path.startswith("~"):
        raise ValueError(f"{text!r}: there is no home directory of this user; write ./~name for a name with a tilde")
    return usable(path)


def filled(text: str, values: Mapping[str, str | None]) -> str:
    """A path with each {placeholder} replaced by its value; None is a value that is missing. ValueError as above."""

    def value_of(match: re.Match[str]) -> str:
        if match[1] not in values:
            known = ", ".join(f"{{{name}}}" for name in values)
            raise ValueError(f"{match[0]} in {text!r} is no placeholder; known: {known}")
        if (value := values[match[1]]) is None:
            raise ValueError(f"{match[0]} in {text!r} is missing; give it with --{match[1]} TEXT")
        return value

    return usable(re.sub(r"\{(.*?)\}", value_of, text))


def usable(path: str) -> str:
    """The path itself. ValueError if no file system could hold it."""
    shown = repr(path if len(path) <= 80 else f"{path[:40]}...{path[-20:]}")
    if not path:
        raise ValueError("the path is empty; write one, or leave it out")
    if odd := re.search("[\0-\x1f\x7f]", path):
        raise ValueError(f"{shown} holds the character {odd[0]!a}, which no path should; remove it")
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        raise ValueError(f"{shown} cannot be a path in this locale; use ASCII, or set LC_ALL=C.UTF-8") from None
    if len(encoded) > MAX_PATH or any(len(name) > MAX_NAME for name in encoded.split(b"/")):
        raise ValueError(f"{shown} is too long; a path has at most {MAX_PATH} bytes and {MAX_NAME} in each name")
    return path
