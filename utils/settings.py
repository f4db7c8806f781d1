"""Validated settings, names that are files, and the error for bad input. Imports nothing of the project."""

import difflib
import inspect
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, create_model
from pydantic_core import CoreSchema, core_schema


class BadInput(Exception):
    """An error in the user's input: reported without a traceback, exit code 2, nothing is run."""


@contextmanager
def prefix_errors(where: str) -> Iterator[None]:
    """Inside, each line of a BadInput begins with `where`."""
    try:
        yield
    except BadInput as error:
        raise BadInput("\n".join(f"{where}: {line}" for line in str(error).splitlines())) from error


class Settings(BaseModel):
    """A frozen section of the configuration: unknown keys and wrong types are errors; fields have docstrings."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


AnyCase = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
"""Annotates a choice of names that match without regard to case: `Annotated[Literal["mnist"], AnyCase]`."""


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80


def shown(value: Any) -> str:
    """A value for a message: as Python writes it, what is long or deep cut short."""
    return _short.repr(value)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name most similar to `name`, such as "did you mean naive?"; empty if none is similar."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]}?" if near else ""


def modules(package: ModuleType, builder: str = "") -> list[str]:
    """The names of the modules of a package that define the function `builder`; of all, without one. Imports none."""
    files = {file.stem: file for folder in package.__path__ for file in Path(folder).glob("*.py")}
    defines = re.compile(rf"^(def {builder}\(|{builder} = )" if builder else "", re.MULTILINE)
    names = sorted(name for name in files if name.isidentifier() and name != "__init__")
    return [name for name in names if defines.search(files[name].read_text(encoding="utf-8"))]


def find(package: ModuleType, name: str, builder: str = "") -> ModuleType:
    """Import the module `name` of a package, in any case, and no other; BadInput gives the nearest name."""
    known = modules(package, builder)
    if name.lower() not in known:
        kind = package.__name__.rpartition(".")[2].removesuffix("s")
        hint = f"{nearest(name.lower(), known)} known: {', '.join(known)}".lstrip()
        raise BadInput(f"unknown {kind} {shown(name)}; {hint}")
    try:
        return import_module(f"{package.__name__}.{name.lower()}")
    except Exception as error:  # of a file that the user adds
        file = Path(package.__path__[0], f"{name.lower()}.py")
        raise BadInput(f"{file}: cannot be imported ({type(error).__name__}: {error})") from error


@cache
def options_of(function: Callable[..., Any], base: type[Settings] = Settings) -> type[Settings]:
    """The fields of `base` and the keyword-only parameters of a function or constructor, as settings.

    Types, bounds (`Annotated[int, Ge(1)]`) and defaults are those of its signature; descriptions come from the "Args:"
    of its Google-style docstring, where "a, b: text" describes both. A `Literal` matches without regard to case.
    """
    text = inspect.getdoc(function) or ""
    block = re.search(r"^Args:\n((?: +.*\n?|\n)+)", text, re.MULTILINE)
    entries = re.findall(r"^ {4}(\w[\w, ]*): *(.*(?:\n {5,}.*)*)", block[1], re.MULTILINE) if block else []
    described = {name: " ".join(words.split()) for names, words in entries for name in re.split(r",\s*", names)}
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            hint = Any if parameter.annotation is parameter.empty else parameter.annotation
            if any(get_origin(part) is Literal for part in (hint, *get_args(hint))):
                hint = Annotated[hint, AnyCase]
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[name] = (hint, Field(default, description=described.get(name)))
    return create_model(function.__name__, __base__=base, __doc__=text, **fields)


def configured(function: Callable[..., Any], section: Settings) -> Callable[..., Any]:
    """The function or constructor with its options taken from a section."""
    return partial(function, **{name: getattr(section, name) for name in options_of(function).model_fields})


@dataclass(frozen=True)
class Chosen:
    """A section that names a module: a name, or a mapping of `key`, the fields of `base`, and the module's own options.

    It annotates a field: `flow: Annotated[FlowConfig, Chosen(flows, "type", FlowConfig, "build")]`. A module's options
    are its `Config`, a subclass of `base`, or the keyword-only parameters of its builder.

    With `short`, "name:text" sets that option of the module to the text. `implied` has pairs of an option and the
    module that it names where the key is missing.
    """

    package: ModuleType
    key: str
    base: type[Settings]
    builder: str = ""
    short: str = ""
    implied: tuple[tuple[str, str], ...] = ()

    def in_full(self, value: Any) -> Any:
        """An unvalidated section as a mapping with the key, where it names a module."""
        tree = {self.key: value} if isinstance(value, str) else value
        if not isinstance(tree, dict):
            return value
        name = tree.get(self.key, next((name for option, name in self.implied if option in tree), None))
        if self.short and isinstance(name, str) and ":" in name:
            name, _, text = name.partition(":")
            tree = {**tree, self.short: text}
        return tree if name is None else {**tree, self.key: name}

    def name_in(self, value: Any) -> Any:
        """The name in an unvalidated section: the value itself, the value of its key, or the default."""
        value = self.in_full(value)
        return value.get(self.key, self.base.model_fields[self.key].default) if isinstance(value, dict) else value

    def model_in(self, value: Any) -> type[Settings]:
        """The settings of an unvalidated section: `base` alone if it names no module."""
        name = str(self.name_in(value)).lower()
        return self.model(name) if name in modules(self.package, self.builder) else self.base

    def model(self, name: str) -> type[Settings]:
        """The settings of a section that names this module. BadInput: there is none."""
        module = find(self.package, name, self.builder)
        options = options_of(vars(module)[self.builder], self.base) if self.builder else self.base
        return getattr(module, "Config", options)

    def builder_of(self, section: Settings) -> Callable[..., Any]:
        """The builder of the module that a section names, with the module's own options filled in."""
        return configured(vars(find(self.package, getattr(section, self.key), self.builder))[self.builder], section)

    def validate(self, value: Any) -> Any:
        """A name, or a mapping -> the section."""
        tree = self.in_full(value)
        name = self.name_in(tree)
        if not isinstance(name, str):
            return value  # `base` refuses it, unless it is a section already
        try:
            return self.model(name).model_validate({**tree, self.key: name.lower()})
        except BadInput as error:
            raise ValueError(error) from None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        own_class = core_schema.simple_ser_schema("any")  # serialise the module's options too
        return core_schema.no_info_before_validator_function(self.validate, handler(source), serialization=own_class)
