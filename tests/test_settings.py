"""Names that are files: modules found by name, options read from signatures, and sections that name a module."""

import sys
from types import ModuleType
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Gt
from pydantic import Field, ValidationError

from utils.settings import BadInput, Chosen, Settings, find, modules, nearest, options_of


@pytest.fixture
def shapes(tmp_path, monkeypatch) -> ModuleType:
    """A package of two named modules and one that is none."""
    (tmp_path / "shapes").mkdir()
    files = {
        "__init__": "",
        "circle": "def build(n, *, radius: float = 1.0): ...\n",
        "square": "def build(n, *, side: int): ...\n",
        "broken": "import nothing_of_this_name\ndef build(n): ...\n",
        "drawing": "def paint(): ...\n    # def build(\n",
    }
    for name, text in files.items():
        (tmp_path / "shapes" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    import shapes

    yield shapes
    for name in [name for name in sys.modules if name.split(".")[0] == "shapes"]:
        del sys.modules[name]


def test_names_are_the_modules_that_define_the_builder_and_none_is_imported(shapes):
    assert modules(shapes, "build") == ["broken", "circle", "square"]
    assert modules(shapes) == ["broken", "circle", "drawing", "square"]
    assert not [name for name in sys.modules if name.startswith("shapes.")]


def test_find_imports_one_module_in_any_case_or_gives_the_nearest_name(shapes):
    assert find(shapes, "Circle", "build").__name__ == "shapes.circle"
    assert "shapes.square" not in sys.modules
    with pytest.raises(BadInput, match=r"^unknown shape 'cirle'; did you mean circle\? known: broken, circle, square$"):
        find(shapes, "cirle", "build")
    with pytest.raises(BadInput, match=r"^unknown shape 'drawing'; known: broken, circle, square$"):
        find(shapes, "drawing", "build")
    assert nearest("x", ["circle"]) == ""


class Base(Settings):
    """A shape."""

    name: str = "circle"
    colour: Literal["red", "blue"] = "red"


@pytest.fixture
def page(shapes) -> type[Settings]:
    class Page(Settings):
        shape: Annotated[Base, Chosen(shapes, "name", Base, "build")] = Field({}, validate_default=True)

    return Page


def test_a_section_takes_a_name_or_a_mapping_with_the_module_s_own_options(page):
    assert page().model_dump() == {"shape": {"name": "circle", "colour": "red", "radius": 1.0}}
    assert page.model_validate({"shape": "CIRCLE"}) == page()
    assert page.model_validate({"shape": {"radius": 2.0}}).shape.radius == 2.0
    square = page.model_validate({"shape": {"name": "square", "side": 3}})
    assert square.model_dump() == {"shape": {"name": "square", "colour": "red", "side": 3}}
    assert page.model_validate(square.model_dump()) == square
    assert page.model_validate({"shape": square.shape}).shape is square.shape


@pytest.mark.parametrize(
    ("value", "kind", "where"),
    [
        ("cirle", "value_error", ("shape",)),
        ({"name": "cirle"}, "value_error", ("shape",)),
        ({"name": 3}, "string_type", ("shape", "name")),
        ({"name": "square"}, "missing", ("shape", "side")),
        ({"radius": 2.0, "side": 3}, "extra_forbidden", ("shape", "side")),
        ({"name": "square", "side": 3, "radius": None}, "extra_forbidden", ("shape", "radius")),
        ({"radius": "wide"}, "float_type", ("shape", "radius")),
        ({"colour": "green"}, "literal_error", ("shape", "colour")),
        ([1], "model_type", ("shape",)),
    ],
)
def test_errors_carry_the_whole_key(page, value, kind, where):
    with pytest.raises(ValidationError) as error:
        page.model_validate({"shape": value})
    assert [(problem["type"], problem["loc"]) for problem in error.value.errors()] == [(kind, where)]


def test_the_builder_of_a_section_has_its_options(shapes, page):
    choice = Chosen(shapes, "name", Base, "build")
    assert choice.builder_of(page.model_validate({"shape": {"radius": 2.0}}).shape).keywords == {"radius": 2.0}


def curve(
    points: int,
    *,
    kind: Literal["line", "arc"] | None = None,
    width: Annotated[int | float, Gt(0)] = 1,
    steps: Annotated[int, Ge(1)],
    ends: Literal[1, 3] = 1,
) -> None:
    """A curve.

    Args:
        points: not an option
        kind: line or arc: the kind
            of curve
        width, steps: of the pen

    Raises:
        ValueError: never
    """


def test_options_are_the_keyword_only_parameters_with_bounds_and_descriptions():
    options = options_of(curve)
    assert options is options_of(curve) and list(options.model_fields) == ["kind", "width", "steps", "ends"]
    assert options.model_fields["kind"].description == "line or arc: the kind of curve"
    assert options.model_fields["width"].description == options.model_fields["steps"].description == "of the pen"
    assert options(kind="ARC", steps=2).model_dump() == {"kind": "arc", "width": 1, "steps": 2, "ends": 1}
    for wrong in ({}, {"steps": 0}, {"steps": 1, "width": -0.5}, {"steps": 1, "kind": "x"}, {"steps": 1, "ends": 2}):
        with pytest.raises(ValidationError):
            options(**wrong)


def test_options_of_a_class_are_those_of_its_constructor():
    class Pen:
        """A pen.

        Args:
            ink: its colour
        """

        def __init__(self, *, ink: str = "black") -> None: ...

    assert options_of(Pen)().model_dump() == {"ink": "black"}
    assert options_of(Pen).model_fields["ink"].description == "its colour"
