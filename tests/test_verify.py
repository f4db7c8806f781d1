"""`--verify`: the same comes out again, and what does not is told, with the task at which it begins."""

import json
import re
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
import torch
import yaml
from conftest import few_images

import methods.naive
from datasets.data import Data
from main import main
from utils.config import provenance
from utils.config.provenance import current_provenance
from utils.store.files import write_tensors
from utils.store.folder import provenance_of


@pytest.fixture(scope="session")
def data() -> Data:
    return few_images()


@pytest.fixture
def finished(small, run, tmp_path):
    """A results folder of two seeds of three tasks."""
    small["method"] = {"name": "ewc", "plot": False}
    assert run(small, "--seeds", "0-1") == 0
    return tmp_path / "results"


def verify(*arguments: object) -> int:
    try:
        return main(["--verify", *map(str, arguments)])
    except SystemExit as stop:
        return stop.code


def test_a_finished_run_comes_out_again(finished, capsys):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert verify(finished, "--seeds", "0-1") == 0
    out = capsys.readouterr().out
    assert out.count(": bit-identical\n") == 2 and out.count("here: the same\n") == 2
    assert out.count("numbers are equal, weights are equal\n") == 6 and ": identical: " in out
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_the_first_tasks_alone(finished, capsys):
    assert verify(finished, "--tasks", "2") == 0
    out = capsys.readouterr().out
    assert "task 1: identical" in out and "task 2" not in out and "seed 1" not in out


def test_without_weights_and_curves_the_accuracies_are_compared(finished, capsys):
    shutil.rmtree(finished / "exp_0")
    assert verify(finished.parent) == 0  # a folder that holds it
    out = capsys.readouterr().out
    assert "task 2: identical: 6 of 6 numbers are equal, weights are not stored" in out
    assert out.rstrip().endswith("seed 0: identical in all that is stored")


def test_other_weights_with_the_same_accuracies(finished, capsys):
    path = finished / "exp_0" / "models" / "task_1.pt"
    weights = torch.load(path, weights_only=True)
    next(iter(weights.values())).view(-1)[0] += 1e-6
    write_tensors(path, weights)
    assert verify(finished) == 0
    out = capsys.readouterr().out
    assert "task 0: identical" in out and "task 1: the same: " in out and "weights differ; accuracies differ" in out
    assert "seed 0: the same within 0.01; bits differ from task 1 on" in out


def test_other_accuracies(finished, capsys):
    shutil.rmtree(finished / "exp_0")
    path = finished / "final_score.json"
    score = json.loads(path.read_text())
    score["test"]["accuracy_matrix"]["values"][0][1][2] += 0.011
    score["test"]["accuracy_matrix"]["values"][0][2][0] += 0.009
    path.write_text(json.dumps(score))
    assert verify(finished) == 1
    out = capsys.readouterr().out
    assert (
        "task 1: DIFFERS: 5 of 6 numbers are equal, weights are not stored; accuracies differ by at most 0.0110" in out
    )
    assert "task 2: the same: " in out
    assert "DIFFERS: in bits from task 1 on, by more than 0.01 from task 1 on" in out


DAMAGE = {
    "no row at all": lambda text: "",
    "the header alone": lambda text: text.partition("\n")[0] + "\n",
    "bytes that are zero": lambda text: "\0" * len(text),
    "half of the rows": lambda text: text[: text.index("\n", len(text) // 2) + 1],
    "all but the last row": lambda text: text[: text.rindex("\n", 0, -1) + 1],
    "a cut last number": lambda text: text[:-3],
    "values that are empty": lambda text: re.sub(r",[^,\n]*$", ",", text, flags=re.M).replace(
        "metric,", "metric,value"
    ),
    "accuracies that are nan": lambda text: re.sub(r"(accuracy/0),.*", r"\1,nan", text),
    "another seed": lambda text: re.sub(r"^ewc,0,", "ewc,1,", text, flags=re.M),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_numbers_are_an_error_of_one_line(finished, capsys, damage):
    path = finished / "exp_0" / "metrics.csv"
    path.write_text(DAMAGE[damage](path.read_text()))
    capsys.readouterr()
    assert verify(finished, *(() if damage == "all but the last row" else ("--tasks", 2))) == 2
    out, error = capsys.readouterr()
    assert error.startswith(f"{path} is ") and error.count("\n") == 1 and "remove it" in error
    assert ": identical\n" not in out and "bit-identical" not in out


def test_zeroed_numbers_differ_and_older_files_have_no_method(finished, capsys):
    path = finished / "exp_0" / "metrics.csv"
    text = path.read_text()
    path.write_text(re.sub(r"^ewc,|^method,", "", text, flags=re.M))
    assert verify(finished, "--tasks", 2) == 0
    path.write_text(re.sub(r",[^,\n]*$", ",0", text, flags=re.M).replace("metric,0", "metric,value"))
    assert verify(finished, "--tasks", 2) == 1
    out = capsys.readouterr().out
    assert out.count("bit-identical") == 1 and "seed 0: DIFFERS" in out


def test_damaged_weights_and_scores_are_an_error_of_one_line(finished, capsys):
    weights = finished / "exp_0" / "models" / "task_1.pt"
    for content in (b"", b"\0" * 500, weights.read_bytes()[:500]):
        weights.write_bytes(content)
        capsys.readouterr()
        assert verify(finished, "--tasks", 2) == 2
        assert re.fullmatch(rf"{weights} is damaged \(.*\); remove it to .*\n", capsys.readouterr().err)
    weights.unlink()
    assert verify(finished, "--tasks", 2) == 0
    assert "seed 0: identical in all that is stored" in capsys.readouterr().out, "not all weights are stored"
    (finished / "exp_0" / "metrics.csv").unlink()
    path = finished / "final_score.json"
    score = json.loads(path.read_text())
    del score["train"]["accuracy_matrix"]["values"][0][1]
    path.write_text(json.dumps(score))
    capsys.readouterr()
    assert verify(finished) == 2 and capsys.readouterr().err.startswith(f"{path} is damaged (")


def test_another_learning_rate_differs(finished, capsys):
    tree = yaml.safe_load((finished / "config.yml").read_text())
    tree["train"]["lr"] = 0.05
    (finished / "config.yml").write_text(yaml.safe_dump(tree))
    assert verify(finished) == 1
    assert "seed 0: DIFFERS: in bits from task 0 on, by more than 0.01 from task 1 on" in capsys.readouterr().out


BAD = {
    ("--seeds", "7"): "--seeds 7: ",
    ("--tasks", "4"): "--tasks 4: ",
    ("--tasks", "0"): "--tasks 0: expected 1 or more",
    ("--out", "x"): "--verify runs no experiment: leave out out",
    ("--restart",): "--verify runs no experiment: leave out restart",
    ("--device", "cuda:9"): "cuda:9 is not available",
}


def test_bad_input(finished, capsys):
    for options, told in BAD.items():
        assert verify(finished, *options) == 2, options
        assert told in capsys.readouterr().err


def test_no_run_to_verify(tmp_path, capsys):
    assert verify(tmp_path) == 2
    assert capsys.readouterr().err.startswith(f"--verify {tmp_path}: no finished run")
    assert main_code("files/naive_digits.yaml", "--tasks", "2") == 2
    assert "--tasks is for --verify" in capsys.readouterr().err


def main_code(*arguments: str) -> int:
    try:
        return main(list(arguments))
    except SystemExit as stop:
        return stop.code


def test_the_provenance_of_each_seed_is_kept_and_a_change_is_said(small, run, tmp_path, capsys, monkeypatch):
    assert run(small, "--seeds", "0") == 0
    root = tmp_path / "results"
    begun = provenance_of(root, 0)
    assert begun == current_provenance("naive", "cpu") and begun.torch == torch.__version__ and begun.threads == 1
    assert begun.method_hash == sha256(Path(methods.naive.__file__).read_bytes()).hexdigest()
    assert len(begun.code_hash) == 64 and (begun.commit is None) == (begun.changed is None)
    other = begun.model_copy(update={"torch": "0.4.1"})
    monkeypatch.setattr("utils.queue.launch.current_provenance", lambda *_: other)
    assert run(small, "--seeds", "0-1") == 0
    said = capsys.readouterr().out
    assert "resumed with" not in said  # one seed is finished, the other is new
    assert f"run with torch 0.4.1 instead of {torch.__version__[:16]}, unlike seed 0" in said
    assert provenance_of(root, 0) == begun and provenance_of(root, 1) == other
    (root / "exp_0" / "final_results.pkl").unlink()
    assert run(small, "--seeds", "0") == 0
    assert f"resumed with torch 0.4.1 instead of {torch.__version__[:16]}: results may" in capsys.readouterr().out
    assert provenance_of(root, 0) == begun
    small["train"]["save"] = False  # without a checkpoint nothing is resumed
    (root / "exp_0" / "state.pt").unlink(), (root / "exp_0" / "state.pt.previous").unlink()
    (root / "exp_0" / "final_results.pkl").unlink()
    assert run(small, "--seeds", "0") == 0
    assert provenance_of(root, 0) == other


def test_provenance_of_a_folder_of_no_folder_and_damaged(finished, capsys):
    kept = (finished / "exp_0" / "provenance.yml").rename(finished / "provenance.yml")
    assert verify(finished, "--tasks", "1") == 0
    assert f"run with {provenance_of(finished, 0)}\nhere: the same\n" in capsys.readouterr().out
    kept.write_text("commit: [1]")
    assert verify(finished) == 2
    assert "provenance.yml is damaged" in capsys.readouterr().err
    kept.unlink()
    with (finished / "config.yml").open("a") as file:
        file.write("made_with:\n  commit: abc\n  threads: 3\n")  # as older versions had it
    assert verify(finished, "--tasks", "1") == 0
    out, error = capsys.readouterr()
    assert "run with unknown versions (no provenance.yml)\n" in out and "here:" not in out and not error


def test_provenance_in_words():
    here = current_provenance("naive", "cpu").model_copy(update={"threads": 2})
    assert ", 2 threads" in str(here) and f"torch {torch.__version__}" in str(here)
    assert (
        here.changed_to(here) == "" and here.changed_to(current_provenance("naive", "cpu")) == "threads 1 instead of 2"
    )
    unknown = here.model_copy(update={"commit": None, "method_hash": None})
    assert unknown.changed_to(here) == ""


def test_the_commit_is_the_programs_whatever_git_variables_say(monkeypatch, tmp_path):
    known = provenance._code.__wrapped__()
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    assert provenance._code.__wrapped__() == known
