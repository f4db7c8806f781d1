"""The house rules: imports point down, names and sizes stay within bounds, and the documentation is true."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("methods", "models", "flows", "datasets", "utils")
CODE = sorted(
    [ROOT / "main.py", ROOT / "prer.py", *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]
)

LAYERS = ["report", "queue", "run", "store", "config"]
"""The packages of `utils/`, from top to bottom: a module imports only from its own and from those below it."""
BELOW = {
    "main": {"utils"},
    "prer": {"datasets.data", "utils"},
    "utils": {"methods", "models", "datasets", "flows"},
    "methods": {"models", "datasets.data", "flows", "utils.settings"},
    "models": {"datasets.data", "flows"},
    "datasets": {"utils.settings", "utils.locks"},
    "flows": set(),
}
"""Top-level package or module -> what of the project it may import beside itself."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("path", CODE, ids=module_name)
def test_imports_point_down(path):
    top, *rest = module_name(path).split(".")
    for imported in imports(path):
        package, *inner = imported.split(".")
        if package not in BELOW:
            continue
        if package == top == "utils" and rest and inner and inner[0] in LAYERS:
            assert rest[0] in LAYERS and LAYERS.index(rest[0]) <= LAYERS.index(inner[0]), imported
        elif package != top:
            assert package in BELOW[top] or imported in BELOW[top], imported


def test_no_module_imports_itself_through_others():
    modules = {module_name(path): path for path in CODE}
    graph = {name: {other for other in imports(path) if other in modules} for name, path in modules.items()}
    assert set(TopologicalSorter(graph).static_order()) == graph.keys()  # raises CycleError


@pytest.mark.parametrize("path", CODE, ids=module_name)
def test_sizes_and_names(path):
    text = path.read_text()
    assert text.count("\n") <= 250 and not re.search("helper|common|misc", path.name)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and node.col_offset == 0:
            assert ast.get_docstring(node), f"{node.name} has no docstring"
    assert (ROOT / "main.py").read_text().count("\n") <= 60
