"""A method, a data set, an encoder and a flow are each one file, a score is a function: CONTRIBUTING.md in a copy."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL_PRER

from utils.config.yaml_text import as_yaml

ROOT = Path(__file__).parent.parent
EXAMPLES = {"A method": "methods", "A data set": "datasets", "An encoder": "models/encoders", "A flow": "flows"}
"""Heading of CONTRIBUTING.md -> the folder of its example."""


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The repository's files and, beside them, the examples."""
    folder = tmp_path_factory.mktemp("copy")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.toml", "*.md"]
    for name in subprocess.check_output(listed, cwd=ROOT, text=True).splitlines():
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for heading, package in EXAMPLES.items():
        section = (ROOT / "CONTRIBUTING.md").read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
        name, code = re.search(rf"`{package}/(\w+)\.py`:\n\n```python\n(.*?)```", section, re.S).groups()
        (folder / package / f"{name}.py").write_text(code)
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## A score\n")[2]
    with (folder / "utils" / "store" / "metrics.py").open("a") as file:
        file.write("\n\n" + re.search(r"```python\n(.*?)```", section, re.S).group(1))
    shutil.copy(ROOT / "utils" / "report" / "report.html", folder / "utils" / "report")
    return folder


def python(copy: Path, *command: str) -> str:
    """The output of `python command` in the copy, which must succeed."""
    done = subprocess.run([sys.executable, *command], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def experiment(name: str, method: dict, model: dict) -> dict:
    """A small experiment on the new data set."""
    scenario = {"dataset": {"name": "stripes", "noise": 0.05}}
    train = {"epochs": 3, "batch_size": 16, "device": "cpu", "save": False, "save_path": name}
    return {"method": method, "scenario": scenario, "model": model, "train": train}


ANCHORED = experiment(
    "anchored",
    {"name": "anchor", "importance": 0.01, "plot": False},
    {"encoder": {"name": "pooled", "channels": 16}},
)
GLOWING = experiment(
    "glowing",
    {**SMALL_PRER, "flow": {"type": "glow", "blocks": 2, "epochs": 2, "batch_size": 32, "dimension": 8}},
    {},
)
WRONG = {"method": {"name": "anchor", "importence": 1}, "scenario": {"dataset": "stripe"}}
PROGRAM = """
import runpy, shutil, sys
from main import main
assert main(["anchored.yaml", "glowing.yaml"]) == 0
print("--- the page of options")
runpy.run_module("utils.config.options_page", run_name="__main__", alter_sys=True)
print("--- what is wrong")
sys.stderr = sys.stdout
assert main(["wrong.yaml"]) == 2
print("--- a comparison")
assert main(["--compare", "anchored"]) == 0
print("--- a comparison of older scores")
older = shutil.copytree("anchored", "older") + "/final_score.json"
text = open(older).read().replace("WorstAccuracy", "Other")
open(older, "w").write(text)
assert main(["--compare", "older", "--out", "of_older"]) == 0
"""
"""One process for all that the program does in the copy: its imports take longer than the rest."""


@pytest.fixture(scope="module")
def said(copy) -> list[str]:
    """What the program says of two experiments, its page of options, and what it says of a file with two mistakes."""
    for name, tree in (("anchored", ANCHORED), ("glowing", GLOWING), ("wrong", WRONG)):
        (copy / f"{name}.yaml").write_text(as_yaml(tree))
    return re.split(r"^--- .*$", python(copy, "-c", PROGRAM), flags=re.M)


def test_a_method_a_data_set_and_an_encoder_run_with_options_of_their_own(copy, said):
    score = json.loads((copy / "anchored" / "final_score.json").read_text())
    assert (score["method"], score["dataset"]) == ("anchor", "stripes")
    assert score["test"]["accuracy_matrix"]["mean"][0][0] > 0.9
    assert "30 degrees" in (copy / "anchored" / "exp_0" / "experiment.log").read_text()
    resolved = (copy / "anchored" / "config.yml").read_text()
    assert "channels: 16" in resolved and "noise: 0.05" in resolved and "importance: 0.01" in resolved


def test_a_score_is_a_column_of_the_comparison(copy, said):
    score = json.loads((copy / "anchored" / "final_score.json").read_text())["test"]["WorstAccuracy"]
    assert f" {score['mean']:.4f} " in said[3].splitlines()[5]
    page, text = ((copy / "comparison" / name).read_text() for name in ("report.html", "comparison.md"))
    assert "| ECE | WorstAccuracy | seconds |" in text and "Lowest accuracy on a task after the last." in page
    (run_of,) = json.loads((copy / "comparison" / "comparison.json").read_text())["groups"][0]["runs"]
    assert run_of["WorstAccuracy"] == score
    assert "FinalAccuracy" in said[4] and "WorstAccuracy" not in said[4], "scores written before it was there"


def test_a_flow_runs_with_an_option_of_its_own(copy, said):
    assert (copy / "glowing" / "final_score.json").exists()
    assert "type: glow" in (copy / "glowing" / "config.yml").read_text()


def test_the_page_of_options_lists_them(said):
    page = said[1]
    for key in ("method: anchor", "scenario.dataset: stripes", "model.encoder: pooled", "method.flow: glow"):
        assert f"\n## {key}\n" in page
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert all(len(row) == 4 and row[3].strip(" |") for row in rows), "every option has a description"
    assert "| `scenario.dataset.noise` | number, ≥ 0 | `0.1` | standard deviation of the pixels' noise |" in page
    assert "| `model.encoder.channels` | whole number, ≥ 1 | `32` | of both convolutions |" in page


def test_a_misspelt_option_of_its_own_names_the_nearest(said):
    assert "wrong.yaml: method.importence: unknown key; did you mean importance?" in said[2]
    assert "wrong.yaml: scenario.dataset: unknown dataset 'stripe'; did you mean stripes?" in said[2]


@pytest.mark.long
@pytest.mark.parametrize(("suite", "name"), [("test_methods", "anchor"), ("test_flows", "glow")])
def test_the_tests_of_all_run_on_the_new_file(copy, suite, name):
    assert " passed" in python(copy, "-m", "pytest", f"tests/{suite}.py", "-k", name, "-o", "addopts=")
