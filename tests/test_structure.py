"""The house rules: imports point down, names and sizes stay within bounds, and the documentation is true."""

import ast
import json
import re
from pathlib import Path

import pytest
import torch

import datasets
import flows.flow
from utils.config.options_page import reference

ROOT = Path(__file__).parent.parent
PACKAGES = ("methods", "models", "flows", "datasets", "utils")
CODE = sorted([ROOT / "main.py", *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))])

ROOMS = ["report", "queue", "run", "store", "config"]
"""The rooms of `utils/`, from top to bottom: a module imports only from its own room and from those below it."""
BELOW = {
    "utils": {"methods", "models", "datasets", "flows"},
    "methods": {"models", "datasets", "flows", "utils.settings"},
    "models": {"datasets", "flows", "utils.settings"},
    "datasets": {"utils.settings"},
    "flows": set(),
}
"""Top-level package -> what of the project it may import beside itself."""


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
        if package not in BELOW or top not in BELOW:
            continue
        if package == top == "utils" and rest and inner and inner[0] in ROOMS:
            assert rest[0] in ROOMS and ROOMS.index(rest[0]) <= ROOMS.index(inner[0]), imported
        elif package != top:
            assert package in BELOW[top] or imported in BELOW[top], imported


@pytest.mark.parametrize("path", CODE, ids=module_name)
def test_sizes_and_names(path):
    text = path.read_text()
    assert text.count("\n") <= 300 and not re.search("helper|common|misc", path.name)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and node.col_offset == 0:
            assert ast.get_docstring(node), f"{node.name} has no docstring"
    assert (ROOT / "main.py").read_text().count("\n") <= 80


def examples(heading: str) -> str:
    """The Python code under a heading of CONTRIBUTING.md."""
    section = (ROOT / "CONTRIBUTING.md").read_text().partition(f"## {heading}\n")[2]
    return re.search(r"```python\n(.*?)```", section, re.S).group(1)


def test_the_data_set_of_contributing_works_as_it_stands(monkeypatch, small, run, tmp_path):
    """The name is not among those of `DatasetSettings`, which are settled at import: it stands in for one that is."""
    (tmp_path / "stripes.py").write_text(examples("A data set"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(datasets.LOADERS, "digits", "stripes")
    small["scenario"] = {"dataset": "digits"}
    small["train"] |= {"epochs": 3, "save_path": str(tmp_path / "results")}
    assert run(small) == 0
    assert "120 degrees" in (tmp_path / "results" / "exp_0" / "experiment.log").read_text()
    matrix = json.loads((tmp_path / "results" / "final_score.json").read_text())["test"]["accuracy_matrix"]["mean"]
    assert min(matrix[i][i] for i in range(3)) > 0.9


def test_the_flow_of_contributing_works_as_it_stands():
    names = {**vars(flows.flow), "Flow": flows.Flow}
    exec(examples("A flow"), names)
    flow = names["glow"](width=6, context=2, blocks=3).double()
    x, c = torch.randn(5, 6, dtype=torch.double), torch.eye(2, dtype=torch.double)[[0, 1, 0, 1, 0]]
    flow.initialize(x, c)
    z, ladj = flow(x, c)
    back, inverse_ladj = flow.inverse(z, c)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(ladj, -inverse_ladj)


def test_the_page_of_options_is_current_and_says_what_each_means():
    page = (ROOT / "docs" / "options.md").read_text()
    assert page == reference(), "python -m utils.config.options_page > docs/options.md"
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 150 and all(len(row) == 4 and row[3].strip(" |") for row in rows)
