"""The house rules: imports point down, names and sizes stay within bounds, and the documentation is true."""

import ast
import json
import re
from pathlib import Path

import pytest
import torch

import datasets
import flows.flow
import methods
from bench.tables import side_by_side
from utils.config import load as loading
from utils.config.options_page import reference
from utils.config.sweep import load_points
from utils.report.find import find

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


FILES = sorted((ROOT / "files").glob("*.yaml"))


def test_there_is_a_file_for_every_method_and_data_set():
    there = {path.stem for path in FILES}
    wanted = {f"{m}_{d}" for m in methods.known() for d in ("digits", "mnist", "svhn", "cifar10", "cifar100")}
    assert wanted <= there


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_open_with_command_cost_and_score_and_are_valid(path):
    loaded = loading.load(path)
    *method, dataset = path.stem.split("_")  # prer_paper_mnist: a variant of prer
    assert loaded.method.name == method[0] and loaded.scenario.dataset.name == dataset
    assert str(loaded.save_path) == f"results/{dataset}/{'_'.join(method)}"
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert header[0].startswith(f"# python main.py files/{path.name}")
    assert "about" in header[0] and ("expect" in header[0] or "not measured" in header[0])


STUDY = sorted((ROOT / "files" / "study").glob("*/*.yaml"))


@pytest.mark.parametrize("folder", sorted({path.parent for path in STUDY}), ids=lambda folder: folder.name)
def test_files_of_the_study_ask_the_same_of_every_method(folder):
    loaded = {path.stem: loading.load(path) for path in folder.glob("*.yaml")}
    assert {"naive", "joint", "prer"} <= loaded.keys() <= set(methods.known())
    for name, own in loaded.items():
        assert (own.method.name, str(own.save_path)) == (name, f"results/study/{folder.name}/{name}")
        assert (own.scenario, own.train.experiments) == (loaded["naive"].scenario, loaded["naive"].train.experiments)
        assert (own.model, own.train.epochs) == (loaded["naive"].model, loaded["naive"].train.epochs)
        assert (folder / f"{name}.yaml").read_text().startswith(f"# python main.py files/study/{folder.name}/*.yaml")


@pytest.mark.parametrize("path", STUDY, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_files_of_the_study_have_the_values_of_the_files_they_name(path):
    named = re.search(r"# Values as in (\S+)\.\n", path.read_text())
    if named:
        ours, theirs = loading.load(path).method, loading.load(ROOT / named[1]).method
        own = {"gem": "margin", "der": "alpha"}.get(ours.name) if "class" in path.parent.name else None
        assert ours == theirs or (own and ours.model_copy(update={own: getattr(theirs, own)}) == theirs)
    else:
        assert path.parent.name == "cifar10_part"


@pytest.mark.parametrize("folder", sorted(ROOT.glob("study/*")), ids=lambda folder: folder.name)
def test_what_is_kept_of_the_study_was_made_by_its_files_on_one_commit(folder):
    runs = find([folder])
    assert {run.folder.name for run in runs} == {path.stem for path in STUDY if path.parent.name == folder.name}
    for run in runs:
        asked = loading.load(ROOT / "files" / "study" / folder.name / f"{run.folder.name}.yaml")
        assert run.settings == asked.identity and len(run.score.seeds) == asked.train.experiments
    assert len({run.config.made_with.commit for run in runs}) == 1
    assert "dirty" not in runs[0].config.made_with.commit


def test_the_readme_s_table_of_results_is_made_of_the_study():
    readme = (ROOT / "README.md").read_text()
    patterns = re.search(r"python bench/tables.py --side-by-side (.*)", readme).group(1).split()
    folders = [folder for pattern in patterns for folder in sorted(ROOT.glob(pattern)) if folder.is_dir()]
    assert {folder.parent for folder in folders} == set((ROOT / "study").iterdir())
    scores = [json.loads((folder / "final_score.json").read_text()) for folder in folders]
    assert "\n".join(side_by_side(scores, [folder.parent.name for folder in folders])) in readme


@pytest.mark.parametrize("path", sorted((ROOT / "files").glob("*/*.yaml")), ids=lambda path: path.stem)
def test_files_of_a_folder_are_valid_and_say_their_command(path):
    assert path.read_text().startswith(f"# python main.py {path.relative_to(ROOT)}")
    for point in load_points(path):
        assert str(point.config.save_path).startswith(f"results/{path.parent.name}/")
        assert point.config.method.name in methods.known()


BASES = {"class": "prer_class_mnist", "task": "prer_mnist"}


@pytest.mark.parametrize("path", sorted((ROOT / "files" / "ablation").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_ablation_differs_in_one_thing(path):
    base = loading.load(ROOT / "files" / f"{BASES[path.stem.split('_')[0]]}.yaml").identity
    own = loading.load(path).identity
    assert sum(base[key] != own[key] for key in base) == 1


def test_the_readme_s_method_example_works_as_it_stands(tmp_path, monkeypatch, small, run):
    """Adding a method is one file and one YAML, as the README shows it."""
    readme = (ROOT / "README.md").read_text()
    code, yaml_text = re.search(r"```python\n(\"\"\".*?)```.*?```yaml\n(.*?)```", readme, re.S).groups()
    name = re.search(r"methods/(\w+)\.py", readme[: readme.index(code)].splitlines()[-3]).group(1)
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    assert name in methods.known()
    assert run(yaml_text, "--set", f"train.save_path={tmp_path / 'example'}", "train.epochs=1") == 0
    assert (tmp_path / "example" / "final_score.log").exists()


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
