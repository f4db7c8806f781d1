"""Paths and results folders: `~`, $VARIABLES and placeholders; what is not the program's is left alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from main import main
from utils.config.load import load
from utils.options import parse
from utils.settings import BadInput

TEXT = "method: naive\nscenario: {dataset: digits, type: class}\ntrain: {save_path: '%s'}\n"


@pytest.fixture
def at(tmp_path, monkeypatch):
    """A home directory, the working directory `here`, and no data root."""
    for folder in ("home", "here"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OUT", "my/out")
    for unset in ("DATA_ROOT", "NOT_SET"):
        monkeypatch.delenv(unset, raising=False)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def saved_in(written: str, name: str | None = None) -> str | None:
    Path("a.yaml").write_text(TEXT % written.replace("'", "''"))
    from utils.config.load import load_points

    return load_points(Path("a.yaml"), (), name)[0].config.train.save_path


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("~/x", "HOME/x"),
        ("$OUT/x", "my/out/x"),
        ("${OUT}x", "my/outx"),
        ("a$", "a$"),
        ("r/{method}/{dataset}_{scenario}/{name}", "r/naive/digits_class/try.1"),
        ("~/{name}", "HOME/try.1"),
    ],
)
def test_what_paths_may_hold(at, written, path):
    name = "try.1" if "{name}" in written else None
    assert saved_in(written, name) == path.replace("HOME", str(at / "home"))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("~nobody_of_this_name/x", "there is no home directory of this user"),
        ("$NOT_SET/x", r"\$NOT_SET in '\$NOT_SET/x' is not set"),
        ("${NOT_SET}/x", r"\$\{NOT_SET\} in '.*' is not set"),
        ("{methd}/x", r"\{methd\} in '.*' is no placeholder; known: \{method\}, \{dataset\}, \{scenario\}, \{name\}"),
        ("{name}/x", r"\{name\} in '.*' is missing; give it with --name TEXT"),
        ("", "the path is empty"),
        (".", "got '.'; expected a folder of its own"),
        ("/", "got '/'; expected a folder of its own"),
        ("a/..", "got 'a/..'; expected a folder of its own"),
        ("a" * 256, "is too long"),
        ("é" * 128, "is too long"),
        ("a/" * 2001, "is too long"),
    ],
)
def test_paths_that_cannot_be_used(at, written, message):
    with pytest.raises(BadInput, match=rf"^a.yaml: train.save_path: .*{message}[^\n]*$"):
        saved_in(written)
    assert {*at.rglob("*")} == {at / "home", at / "here", at / "here" / "a.yaml"}


@pytest.mark.parametrize("escape", [r"\0", r"\n", r"\e"])
def test_control_characters_in_paths(at, escape):
    Path("a.yaml").write_text((TEXT % "PATH").replace("'PATH'", f'"a{escape}b"'))
    with pytest.raises(BadInput, match=r"^a.yaml: train.save_path: 'a.*b' holds the character"):
        load(Path("a.yaml"))


def test_every_path_is_expanded(at, npz, small, run, capsys):
    (at / "home" / "data").mkdir()
    npz.rename(at / "home" / "data" / "small.npz")
    small["train"] |= {"save_path": "~/results/{name}", "epochs": 1}
    small["scenario"]["dataset"]["path"] = "$HOME/data/small.npz"
    assert run(small, "--name", "one") == 0
    small["scenario"]["dataset"]["path"] = "small.npz"
    for name, options in (("two", ["--data-root=~/data"]), ("three", ["--set", "scenario.data_root=$HOME/data"])):
        assert run(small, *options, "--jobs", "2", "--seeds", "0,1", "--name", name) == 0
        made = yaml.safe_load((at / "home" / "results" / name / "config.yml").read_text())
        assert made["scenario"]["dataset"]["path"] == str(at / "home" / "data" / "small.npz")
    assert main([str(at / "home" / "results" / "two" / "config.yml")]) == 0  # without the option
    assert main(["--compare", "~/results/two", "~/results/three", "--out=~/compared"]) == 0
    assert (at / "home" / "compared" / "report.html").exists() and not [*Path().rglob("*")]
    capsys.readouterr()
    small["train"]["save_path"] = "results"
    assert run(small) == 2
    assert f"path: small.npz does not exist; it was looked for in the working directory ({Path.cwd()})" in said(capsys)
    assert run(small, "--data-root", str(at)) == 2
    assert f"path: small.npz does not exist; it was looked for in --data-root ({at})" in said(capsys)


def said(capsys) -> str:
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1, error
    return error


def test_files_may_stand_anywhere_on_the_command_line(at):
    for name in ("a.yaml", "lr=1.yml"):
        Path(name).write_text("")
    for command in (
        "--set train.epochs=2 a.yaml",
        "a.yaml --set train.epochs=2",
        "--set train.epochs=2 --check a.yaml",
    ):
        options = parse(command.split())
        assert ([str(file) for file in options.configs], options.set) == (["a.yaml"], ["train.epochs=2"])
    options = parse(["a.yaml", "--check", "--set", "train.epochs=2", "lr=1.yml", "method=ewc", "not_there.yaml"])
    assert [str(file) for file in options.configs] == ["a.yaml", "lr=1.yml", "not_there.yaml"]
    assert options.set == ["train.epochs=2", "method=ewc"] and options.check


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_file_given_twice_is_refused(at, small, run, capsys, jobs):
    assert run(small, "../experiment.yaml", "--jobs", jobs) == 2
    assert "experiment.yaml: given 2 times; give it once" in said(capsys)


def test_a_config_of_the_user_s_own_in_the_results_folder_stays(small, run, tmp_path, capsys):
    folder = tmp_path / "results"
    folder.mkdir()
    own, text = folder / "config.yml", f"# why this learning rate\n{yaml.safe_dump(small)}"
    own.write_text(text)
    for options in ([], ["--set", "train.experiments=2"]):
        assert main([str(own), *options]) == 0
        assert own.read_text() == text
    assert (folder / "exp_1" / "final_results.pkl").exists()
    capsys.readouterr()
    assert main([str(own), "--set", "train.lr=0.5"]) == 2
    assert "train.lr: 0.001 -> 0.5" in said(capsys)
    own.write_text("of: another program")
    assert run(small) == 2
    assert "results holds a config.yml that cannot be used" in said(capsys)


@pytest.mark.parametrize("options", [["--restart"], ["--set", "train.load=no"]])
def test_only_results_are_moved_aside(small, run, tmp_path, capsys, options):
    mine = tmp_path / "results" / "thesis" / "chapter"
    mine.parent.mkdir(parents=True)
    mine.write_text("text")
    assert run(small, *options) == 0  # nothing of ours is there
    assert mine.exists() and "is now" not in capsys.readouterr().out
    assert run(small, *options) == 0
    folder, aside = tmp_path / "results", tmp_path / "results.old-1"
    assert f"{folder}: what was there is now {aside}\n" in capsys.readouterr().out
    assert (aside / "exp_0").exists() and (folder / "exp_0").exists()


def test_names_that_the_file_system_refuses_end_with_a_line(small, run, tmp_path, capsys):
    (tmp_path / "loop").symlink_to("loop")
    for name in ("a" * 250, "loop", "loop/x"):
        small["train"]["save_path"] = str(tmp_path / name)
        assert run(small) == 2
        assert "train.save_path: " in said(capsys)


def test_a_working_directory_that_was_removed(tmp_path):
    (tmp_path / "gone").mkdir()
    program = Path(__file__).parent.parent / "main.py"
    command = f"cd gone && rmdir ../gone && exec {sys.executable} {program} a.yaml"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, env=os.environ)
    assert (done.returncode, done.stderr) == (
        2,
        "the working directory does not exist any more; change to another: cd DIR\n",
    )
