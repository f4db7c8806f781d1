"""`prer.run` and `prer.load_run`: the program from Python."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import few_images, method_settings

from bench.kill import left_by
from datasets.data import Data
from prer import load_run, run
from utils.config.yaml_text import as_yaml
from utils.run.runner import Run
from utils.run.training import TrainingFailed
from utils.settings import BadInput

PAGE = (Path(__file__).parent.parent / "docs" / "python.md").read_text()


@pytest.fixture(scope="session")
def data() -> Data:
    return few_images()


def test_the_example_of_the_page_works_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.S).group(1), names)
    assert names["scores"] == json.loads(Path("results/python/prer/final_score.json").read_text())
    assert names["z"].shape == (8, 100) and names["labels"].shape == (8,)
    assert names["images"].shape == (3, *names["x"].shape[1:]) and names["images"].dtype == torch.uint8


@pytest.mark.parametrize(
    ("method", "scenario"),
    [
        (method_settings("er"), "class"),
        (method_settings("prer", predict="flow"), "task"),
        (method_settings("prer", predict="flow"), "class"),
        (method_settings("prer_features", predict="flow", flow={"epochs": 2, "dimension": 8}), "class"),
    ],
    ids=["er", "flow-task", "flow-class", "features"],
)
def test_a_loaded_run_predicts_and_embeds_as_the_run_did(small, tmp_path, monkeypatch, method, scenario):
    ended, call = [], Run.__call__
    monkeypatch.setattr(Run, "__call__", lambda self, *tasks: (call(self, *tasks), ended.append(self))[0])
    small["method"], small["scenario"]["type"] = method, scenario
    scores = run(small, seeds=[1])
    trained = load_run(tmp_path / "results", seed=1)
    assert {name: [value] for name, value in trained.scores["test"].items()} == {
        name: scores["test"][name]["values"] for name in trained.scores["test"]
    }
    (live,) = ended
    live.learner.eval()
    for task in trained.tasks:
        x, y = task.test.x, task.test.y
        predicted = trained.classify(x, None if scenario == "class" else task.index)
        recorded = scores["test"]["accuracy_matrix"]["values"][0][-1][task.index]
        assert float((predicted == y).double().mean()) == pytest.approx(recorded)
        assert torch.equal(trained.embed(x), live.method.embed(task.test.batch(slice(None))[0]).detach())
        if x.dtype == torch.uint8:
            assert torch.equal(trained.embed(x), trained.embed(x.float() / 255))
    if method["name"] != "er":
        y = torch.tensor([0, 3, 5])
        assert trained.sample([0, 3, 5]).isfinite().all() and len(trained.sample(y)) == 3
        images = trained.sample([0] * 4)
        assert not torch.equal(images[:2], images[2:]), "one sample per label"


def test_settings_and_seeds_override_and_a_second_call_resumes(small, tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small))
    first = run(path, settings={"train.epochs": 1, "method": {"name": "lwf", "alpha": 0.5}}, seeds=(0,))
    assert first["method"] == "lwf" and first["protocol"]["epochs"] == 1 and first["seeds"] == [0]
    before = left_by(tmp_path / "results")
    second = run(str(path), settings={"train.epochs": 1, "method": {"name": "lwf", "alpha": 0.5}}, seeds=(0, 1))
    assert second["seeds"] == [0, 1] and before.items() <= left_by(tmp_path / "results").items()


def test_bad_input_is_raised_in_the_words_of_the_command_line(small, tmp_path):
    with pytest.raises(BadInput, match=r"^config: train.epoch: unknown key; did you mean epochs\?"):
        run({**small, "train": {**small["train"], "epoch": 1}})
    with pytest.raises(BadInput, match=r"^sweep: run sweeps with main\.py"):
        run({**small, "sweep": {"train.lr": [0.1, 0.2], "rank_by": "test"}})
    with pytest.raises(BadInput, match=r"nothing\.yaml: no such file"):
        run(tmp_path / "nothing.yaml")
    with pytest.raises(BadInput, match="no such file"):
        load_run(tmp_path / "results")
    for seeds, told in (("0-x", "is not like 0-4 or 0,3"), ([-1], "'-1' is not like"), (1.5, "'1.5' is not")):
        with pytest.raises(BadInput, match=f"^seeds: .*{told}"):
            run(small, seeds=seeds)
    with pytest.raises(BadInput, match=r"^config: got NoneType; expected a path or a mapping"):
        run(None)
    assert not (tmp_path / "results").exists()


def test_seeds_are_given_as_on_the_command_line(small, tmp_path):
    assert run(small, seeds="0,2")["seeds"] == [0, 2] and run(small, seeds=1)["seeds"] == [0, 1, 2]
    with pytest.raises(BadInput, match=r'(?s)^(?!.*/tmp/tmp).*start again with settings=\{"train.load": False\}'):
        run({**small, "train": {**small["train"], "lr": 0.5}})


def test_a_run_that_was_moved_is_read_where_it_is(small, tmp_path):
    run(small, seeds=[0])
    (tmp_path / "results").rename(tmp_path / "moved")
    run(small, settings={"train.lr": 1e-9}, seeds=[0])
    assert load_run(tmp_path / "moved").results["config"]["train"]["lr"] == small["train"].get("lr", 1e-3)


def test_paths_numbers_of_numpy_and_bases_are_taken(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(as_yaml(small))
    changes = {"train": {"save_path": tmp_path / "other", "lr": np.float32(0.5)}}
    assert run({"base": "base.yaml", **changes}, seeds=[0])["seeds"] == [0]
    assert load_run("other").results["config"]["train"]["lr"] == 0.5
    assert run(small, {"train.save_path": Path("third"), "train.epochs": torch.tensor(1)})["seeds"] == [0]
    for wrong in ({**small, "train": {"lr": object()}}, {**small, "train": {"lr": np.zeros(2)}}):
        with pytest.raises(BadInput, match=r"^train: .*; expected what YAML can hold"):
            run(wrong)


def test_scores_that_cannot_be_written_are_an_error(small, tmp_path, capsys):
    run(small, seeds=[0])
    (tmp_path / "results" / ".final_score.json.tmp").mkdir()
    with pytest.raises(OSError, match="the scores could not be written"):
        run(small, seeds=[0, 1])


def test_samples_are_of_classes_that_there_are(small, tmp_path):
    small["method"] = method_settings("prer")
    run(small, seeds=[0])
    trained = load_run(tmp_path / "results")
    assert len(trained.sample([0, 5])) == 2
    for labels in ([6], [-1], [], 3, [0.5]):
        with pytest.raises(ValueError, match="labels: expected a list of classes from 0 to 5, got"):
            trained.sample(labels)
    with pytest.raises(ValueError, match="task: got 9; the task scenario needs 0 to 2"):
        trained.classify(trained.tasks[0].test.x, task=9)


def test_a_failed_seed_raises_its_error_and_finished_seeds_are_scored(small, tmp_path, monkeypatch):
    learn = Run._learn

    def unlucky(self, task):
        if self.seed == 1:
            raise TrainingFailed("bad luck")
        learn(self, task)

    monkeypatch.setattr(Run, "_learn", unlucky)
    with pytest.raises(TrainingFailed, match="bad luck"):
        run(small, seeds=(0, 1, 2))
    assert json.loads((tmp_path / "results" / "final_score.json").read_text())["seeds"] == [0]
    with pytest.raises(BadInput, match="exp_1 is not finished"):
        load_run(tmp_path / "results", seed=1)
    monkeypatch.undo()
    assert run(small, seeds=(0, 1, 2))["seeds"] == [0, 1, 2]


def test_what_a_run_does_not_have_is_said(small, tmp_path):
    run(small, settings={"train.save": False})
    with pytest.raises(BadInput, match=r"exp_0 .*train\.save: no"):
        load_run(tmp_path / "results")
    small["train"]["save_path"] = str(tmp_path / "saved")
    run(small)
    trained = load_run(tmp_path / "saved")
    with pytest.raises(ValueError, match="naive cannot generate"):
        trained.sample([0])
    with pytest.raises(ValueError, match="task: got None; the task scenario needs 0 to 2"):
        trained.classify(trained.tasks[0].test.x)
