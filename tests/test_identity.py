"""Results belong to a configuration, a seed and data; what is not theirs is refused before anything is run."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import CPU, make_data

from utils.config.load import load
from utils.run.runner import Run
from utils.settings import BadInput
from utils.store.files import write_pickle


def changed(npz: Path, change) -> None:
    with np.load(npz) as arrays:
        known = dict(arrays)
    np.savez(npz, **change(known))


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays | {"x_train": 255 - arrays["x_train"]},
        lambda arrays: arrays | {"x_test": arrays["x_test"][::-1].copy()},
        lambda arrays: {key: value[::2] for key, value in arrays.items()},
    ],
    ids=["pixels", "order", "number"],
)
def test_other_data_under_a_run_are_refused(small, run, npz, change, capsys):
    assert run(small) == 0
    changed(npz, change)
    assert run(small) == 2
    said = capsys.readouterr().err
    assert "holds results of another configuration (scenario.fingerprint: " in said and len(said.splitlines()) == 1


def test_config_yml_is_bound_to_the_data(small, run, npz, tmp_path, capsys):
    assert run(small) == 0
    again = (tmp_path / "results" / "config.yml").read_text()
    assert run(again) == 0, "already finished"
    changed(npz, lambda arrays: arrays | {"y_train": arrays["y_train"][::-1].copy()})
    assert run(again) == 2
    assert "images, labels or classes of npz have changed" in capsys.readouterr().err


def test_a_copied_seed_is_refused(small, run, tmp_path, capsys):
    assert run(small) == 0
    shutil.copytree(tmp_path / "results" / "exp_0", tmp_path / "results" / "exp_1")
    assert run(small, "--seeds", "0,1") == 2
    assert "exp_1 holds results of another configuration (seed: 0 -> 1)" in capsys.readouterr().err


@pytest.mark.parametrize("results", [[1, 2], {}, {"config": 1, "seed": 0}], ids=str)
def test_results_that_do_not_say_what_they_are_of_are_refused(small, run, tmp_path, capsys, results):
    assert run(small) == 0
    write_pickle(tmp_path / "results" / "exp_0" / "final_results.pkl", results)
    assert run(small) == 2
    assert "exp_0 holds results without their configuration and seed; remove or" in capsys.readouterr().err


def test_folders_that_are_no_seeds_are_left_alone(small, run, tmp_path):
    assert run(small) == 0
    shutil.copytree(tmp_path / "results" / "exp_0", tmp_path / "results" / "exp_0_backup")
    assert run(small, "--seeds", "0,1") == 0


def test_a_seed_of_another_configuration_is_refused(small, run, tmp_path, capsys):
    small["train"] |= {"lr": 0.01, "save_path": str(tmp_path / "other")}
    assert run(small, "--seeds", "1") == 0
    small["train"] |= {"lr": 0.001, "save_path": str(tmp_path / "results")}
    assert run(small) == 0
    shutil.copytree(tmp_path / "other" / "exp_1", tmp_path / "results" / "exp_1")
    assert run(small, "--seeds", "0,1") == 2
    assert "(train.lr: 0.01 -> 0.001)" in capsys.readouterr().err


def test_without_config_yml_the_results_say_what_they_are_of(small, run, tmp_path, capsys):
    assert run(small) == 0
    (tmp_path / "results" / "config.yml").unlink()
    small["train"]["lr"] = 0.05
    assert run(small) == 2
    assert "train.lr: 0.001 -> 0.05" in capsys.readouterr().err


@pytest.mark.parametrize("setting, seed", [("train.lr=0.05", 0), ("train.lr=0.001", 1)])
def test_a_checkpoint_of_another_configuration_or_seed_is_refused(small, run, tmp_path, setting, seed):
    small["train"]["load"] = True
    assert run(small) == 0
    folder = tmp_path / "results"
    (folder / "exp_0" / "final_results.pkl").unlink()
    if seed:
        (folder / "exp_0").rename(folder / f"exp_{seed}")
    with pytest.raises(BadInput, match="another configuration"):
        Run(load(tmp_path / "experiment.yaml", [setting]), make_data(), seed, CPU)()
