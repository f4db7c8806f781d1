"""Sweeps: what points a file stands for, and what is done with them."""

import json
import re
import types
from contextlib import nullcontext
from math import prod
from pathlib import Path
from typing import Union, get_args, get_origin

import pytest
import yaml
from conftest import few_images, method_settings
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from test_resume import After

from bench.kill import left_by
from datasets.data import Data
from main import main
from methods import find, known
from utils.config.load import LISTED, load, load_points
from utils.config.schema import Config
from utils.config.sweep import MAX_POINTS, Sweep, combinations, label, short_names
from utils.queue import launch
from utils.settings import BadInput
from utils.store import folder as results

LISTS = {
    "method.importance": st.sampled_from([0, 0.1, 1, 1.5, 1e4, 3e-7, 123456.789]),
    "train.lr": st.floats(1e-9, 10),
    "train.epochs": st.integers(1, 10**6),
    "train.optimizer": st.sampled_from(["adam", "SGD"]),
    "model.dropout": st.none() | st.floats(0, 0.99),
    "model.embedding": st.integers(2, 999),
    "scenario.class_order": st.sampled_from(["natural", "shuffled"]),
    "scenario.type": st.sampled_from(["task", "class", "domain"]),
}


@st.composite
def sweeps(draw) -> dict[str, list]:
    keys = draw(st.lists(st.sampled_from(sorted(LISTS)), min_size=1, max_size=3, unique=True))
    return {key: draw(st.lists(LISTS[key], min_size=1, max_size=3, unique_by=label)) for key in keys}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("sweep") / "sweep.yaml"

    def write(sweep: dict, **train) -> Path:
        tree = {"method": {"name": "ewc"}, "scenario": {"dataset": "digits", "dev_split": 0.2}, "sweep": sweep}
        path.write_text(yaml.safe_dump({**tree, "train": {"save_path": "results/s", **train}}, sort_keys=False))
        return path

    return write


@settings(max_examples=20)
@given(sweep=sweeps())
def test_a_grid_is_the_product_and_each_point_s_file_says_the_same(file, tmp_path_factory, sweep):
    try:
        points = load_points(file(sweep))
    except BadInput as error:  # None, and the default in its stead
        assert "compute the same" in str(error) and None in sweep["model.dropout"]
        return
    folders = {point.config.save_path for point in points}
    assert len(points) == len(folders) == prod(len(values) for values in sweep.values())
    assert all(folder.parent == Path("results/s") for folder in folders)
    again = tmp_path_factory.getbasetemp() / "config.yml"
    for point in points[:4]:
        name = point.config.save_path.name
        assert re.fullmatch(r"[A-Za-z0-9.+_=,-]+", name)
        again.write_text(results.as_yaml(point.config.dump()))
        assert "sweep" not in yaml.safe_load(again.read_text())
        assert load(again).identity == point.config.identity and load(again).dump() == point.config.dump()
        overrides = [f"{key}={json.dumps(value)}" for key, value in point.sweep.points[name].items()]
        assert load_points(file({}), overrides)[0].config.identity == point.config.identity


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), data=st.data())
def test_random_points_are_of_the_grid_and_more_add_to_fewer(sizes, data):
    lists = {f"k{i}": list(range(size)) for i, size in enumerate(sizes)}
    most = min(prod(sizes), MAX_POINTS)
    few, more = sorted(data.draw(st.lists(st.integers(1, most), min_size=2, max_size=2)))
    chosen = combinations(lists, more)
    assert len({tuple(point.items()) for point in chosen}) == more
    assert all(point.keys() == lists.keys() and all(point[key] in lists[key] for key in lists) for point in chosen)
    fewer = combinations(lists, few)
    kept = {tuple(point.items()) for point in fewer}
    assert [point for point in chosen if tuple(point.items()) in kept] == fewer


def test_names_are_as_short_as_they_can_be():
    keys = ["method.flow.lr", "train.lr", "method.weights.er", "method.autoencoder.lr"]
    assert short_names(keys) == ["flow.lr", "train.lr", "er", "autoencoder.lr"]
    values = {
        0.1: "0.1",
        1e-3: "0.001",
        True: "yes",
        None: "none",
        "a b/..": "a_b_..",
        3e-7: "3e-07",
        1 / 3: repr(1 / 3),
    }
    assert {value: label(value) for value in values} == values
    assert label(1 / 3) == repr(1 / 3)  # not rounded to what another value may be called
    assert label({"name": "npz", "path": "my.npz"}) == "npz-my.npz"


def test_no_key_of_any_configuration_is_a_list():
    """A list given for a key is therefore a sweep of it."""

    def check(annotation, name: str = "") -> None:
        assert get_origin(annotation) not in (list, tuple, set, dict) or name in LISTED, name
        if get_origin(annotation) in (Union, types.UnionType):
            for part in get_args(annotation):
                check(part, name)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            for name, field in annotation.model_fields.items():
                check(field.annotation, name)

    for model in (Config, *(find(name)[1] for name in known())):
        check(model)


def names(points) -> list[str]:
    return [point.config.save_path.name for point in points]


def test_what_the_command_line_does_to_a_sweep(file):
    path = file({"train.lr": [1, 2], "train_config": {"epochs": [3, 4]}})  # nested, and by the original's name
    assert names(load_points(path)) == ["lr=1,epochs=3", "lr=1,epochs=4", "lr=2,epochs=3", "lr=2,epochs=4"]
    assert names(load_points(path, ["train.epochs=7"])) == ["lr=1", "lr=2"]
    assert load_points(path, ["train.epochs=7"])[1].config.train.epochs == 7
    assert names(load_points(path, ["train_config.lr=[5]"])) == ["epochs=3,lr=5", "epochs=4,lr=5"]
    assert names(load_points(path, ["sweep.random=1"])) == names(load_points(path, ["sweep.random=1"]))
    (only,) = load_points(path, ["sweep={}"])
    assert only.sweep is None and str(only.config.save_path) == "results/s"
    methods = load_points(path, ["sweep={method: [{name: ewc, penalty_importance: 7}, naive]}"])
    assert names(methods) == ["method=ewc-7", "method=naive"] and methods[0].config.method.importance == 7


BAD = [
    ({"train.lr": [1, "x"]}, {}, r"sweep.yaml \(sweep: lr=x\): train.lr: got 'x'; expected a valid number"),
    ({"train.lrr": [1]}, {}, r"train.lrr: unknown key; did you mean lr\?"),
    ({"lr": [1]}, {}, r"lr: unknown key; did you mean train.lr\?"),
    ({"train.lr": 1}, {}, "sweep.yaml: sweep.train.lr: got 1; expected a list of values"),
    ({"train.lr": []}, {}, "sweep.train.lr: got .*; expected a list"),
    ([1, 2], {}, "sweep: expected keys and the lists of their values"),
    ({"random": 2}, {}, "sweep: no key to vary"),
    ({"train.lr": [1, 2], "random": 3}, {}, "sweep.random: got 3; expected a number of points, at most the 2"),
    ({"train.lr": [1, 2], "random": True}, {}, "sweep.random: got True"),
    ({"train.lr": [1, 2], "rank_by": "train"}, {}, "sweep.rank_by: got 'train'; expected 'dev' or 'test'"),
    ({"train.lr": [1, 2], "rank_by": "test"}, {}, "sweep.rank_by: test, though lr=1 has dev data"),
    ({"train.lr": [1, 2], "scenario.dev_split": [0.0]}, {}, "has no dev data for the ranking; set scenario.dev_split"),
    ({"train.lr": [1, 1.0]}, {}, "would both be named lr=1"),
    ({"train.optimizer": ["adam", "ADAM"]}, {}, "would both be named"),
    ({"train.experiments": [1, 2]}, {}, "experiments=1 and experiments=2 compute the same; remove one"),
    ({"method": ["naive", "ewc"]}, {"save_path": None}, "would be in results/digits/naive and in results/digits/ewc"),
    ({"train.lr": [1], "train_config.lr": [2]}, {}, "train.lr and train_config.lr both set train.lr; keep one"),
    ({"train.lr": list(range(1, 99)), "train.epochs": list(range(1, 99))}, {}, "9,604 points; at most 1,000"),
    ({"lr": [1], "train.lr": [1]}, {}, "lr: unknown key"),
    ({"scenario.data_root": ["x" * 300]}, {}, "too long for the name of a folder"),
]


@pytest.mark.parametrize(("sweep", "train", "message"), BAD)
def test_invalid_sweeps_are_refused(file, sweep, train, message):
    with pytest.raises(BadInput, match=message) as error:
        load_points(file(sweep, **train))
    assert len(str(error.value).splitlines()) == 1


@pytest.fixture(scope="session")
def data() -> Data:
    return few_images()


@pytest.fixture
def swept(small) -> dict:
    """Two points of a small experiment that is soon over."""
    small["scenario"]["dev_split"] = 0.25
    small["method"] = method_settings("ewc")
    return small | {"sweep": {"method.importance": [1, 100]}}


def ranking(folder: Path) -> dict:
    return json.loads((folder / "sweep.json").read_text())


def test_points_are_run_ranked_on_dev_data_and_the_best_alone_is_tested(swept, run, tmp_path, capsys):
    folder = tmp_path / "results"
    assert run(swept, "--seeds", "0,1") == 0
    said, found = capsys.readouterr().out, ranking(folder)
    scores = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/final_score.json")}
    assert set(scores) == {"importance=1", "importance=100"}
    means = {name: score["dev"]["FinalAccuracy"]["mean"] for name, score in scores.items()}
    assert [p["dev"]["mean"] for p in found["points"]] == sorted(means.values(), reverse=True)
    best = found["chosen"]
    assert means[best["name"]] == max(means.values()) and best["values"] in [{"method.importance": i} for i in (1, 100)]
    assert best["test"]["values"] == scores[best["name"]]["test"]["FinalAccuracy"]["values"]
    assert all("test" not in point for point in found["points"]) and found["warning"] is None
    text = (folder / "sweep.log").read_text()
    assert text in said and f"chosen: {best['name']}\ntest FinalAccuracy: " in text and "TEST" not in text
    assert "sweep" not in yaml.safe_load((folder / "importance=1" / "config.yml").read_text())
    before = results.finished_runs(folder / "importance=1")
    swept["sweep"]["method.importance"] = [1, 10]  # goes on, and another point joins those that are known
    assert run(swept, "--seeds", "0,1", "--jobs", "2") == 0
    assert "importance=1: seed 0 already finished" in capsys.readouterr().out
    assert results.finished_runs(folder / "importance=1") == before
    assert {point["name"] for point in ranking(folder)["points"]} == {f"importance={i}" for i in (1, 10, 100)}
    assert run(swept, "--seeds", "2") == 0  # on seeds that one of them lacks
    assert {p["name"]: p["status"] for p in ranking(folder)["points"]}["importance=100"] == "not finished"


def test_a_damaged_score_of_a_point_is_written_again(swept, run, tmp_path):
    assert run(swept, "--seeds", "0") == 0
    whole, score = ranking(tmp_path / "results"), tmp_path / "results" / "importance=1" / "final_score.json"
    for damaged in (score.read_text()[:99], "{}", "[]"):
        score.write_text(damaged)
        assert run(swept, "--seeds", "0") == 0
        assert ranking(tmp_path / "results") == whole


def test_a_list_for_a_key_that_may_be_one_is_not_swept_unawares(file, capsys):
    path = file({})
    assert main([str(path), "--set", "scenario.labels_per_task=[5, 5]"]) == 2
    said = capsys.readouterr().err
    assert "write the list into the file, or sweep it with sweep.scenario.labels_per_task=[5, 5]" in said
    assert len(load_points(path, ["scenario.labels_per_task=[[2, 4], [4, 2]]"])) == 2


def test_a_comparison_of_points_says_that_it_is_on_test_data(swept, run, tmp_path, capsys):
    assert run(swept, "--seeds", "0") == 0
    (tmp_path / "results" / "importance=1" / "final_score.json").unlink()
    assert main(["--compare", str(tmp_path / "results"), "--out", str(tmp_path / "out")]) == 0
    error, folder = capsys.readouterr().err, tmp_path / "results"
    assert f"{folder}: points of a sweep, compared on test data: choose by {folder / 'sweep.log'}" in error
    assert f"{folder / 'importance=1'}: no finished seed; left out" in error


def test_a_folder_is_of_one_sweep_or_of_one_experiment(swept, small, run, tmp_path, capsys):
    plain = {key: value for key, value in swept.items() if key != "sweep"}
    assert run(swept, "--seeds", "0") == 0
    whole = (tmp_path / "results" / "sweep.json").read_text()
    for tree, options, message in [
        (plain, [], "holds a sweep; choose another, or start again with --restart"),
        (swept, ["--set", "train.lr=0.5"], r"holds results of another configuration \(train.lr: 0.001 -> 0.5\)"),
        (swept, ["--set", "train.lr=[0.1, 0.2]"], r"another configuration \(sweep: \['method.importance'\] -> "),
        (swept, ["--set", "scenario.dev_split=0", "sweep.rank_by=test"], "sweep.rank_by: dev -> test"),
    ]:
        capsys.readouterr()
        assert run(tree, "--seeds", "0", *options) == 2
        assert re.search(message, capsys.readouterr().err)
    assert (tmp_path / "results" / "sweep.json").read_text() == whole
    point = tmp_path / "results" / "importance=1"
    with results.RunFolder(point, 7).held():  # of an earlier list, perhaps
        assert run(swept, "--seeds", "0", "--restart") == 2
        assert run(plain, "--seeds", "0", "--restart", "--set", f"train.save_path={point}") == 2
        assert run(swept, "--seeds", "7") == 2
    assert capsys.readouterr().err.count(f"another process runs seed 7 of {point}") == 3
    one, two = (str(tmp_path / "results" / f"importance={i}" / "config.yml") for i in (1, 100))
    assert main([one, two, "--seeds", "0"]) == 0  # each is a configuration of its own, and was already finished
    assert capsys.readouterr().out.count("seed 0 already finished") == 2
    assert run(swept, "--seeds", "0", "--restart", "--set", "train.lr=0.5") == 0
    assert (tmp_path / "results.old-1" / "sweep.json").read_text() == whole
    assert run(plain, "--seeds", "0", "--restart") == 0
    assert (tmp_path / "results.old-2" / "sweep.log").exists()
    assert run(swept) == 2
    assert "holds results of one experiment, not of a sweep" in capsys.readouterr().err


def test_two_files_share_no_folder(swept, tmp_path, capsys, run):
    other = tmp_path / "other.yaml"
    for changes in ({"sweep": {"train.lr": [1.0]}}, {"sweep": {}}):
        other.write_text(yaml.safe_dump({**swept, **changes}))
        assert run(swept, str(other), "--check") == 2
        assert "other.yaml" in (error := capsys.readouterr().err) and "is also used by " in error


def test_without_dev_data_ranking_on_test_is_asked_for_and_stamped(swept, run, tmp_path, capsys):
    swept["scenario"]["dev_split"] = 0.0
    assert run(swept) == 2
    assert "set scenario.dev_split" in capsys.readouterr().err and not (tmp_path / "results").exists()
    assert run(swept, "--seeds", "0", "--set", "sweep.rank_by=test") == 0
    stamp = "RANKED ON TEST DATA"
    assert stamp in capsys.readouterr().out and stamp in (tmp_path / "results" / "sweep.log").read_text()
    found = ranking(tmp_path / "results")
    assert stamp in found["warning"] and found["ranked_on"] == "test" and "dev" not in found["points"][0]


def test_a_point_that_fails_is_listed_and_the_others_are_ranked(swept, run, tmp_path, capsys):
    swept["sweep"] = {"train.lr": [1e-3, 1e30]}
    assert run(swept, "--seeds", "0,1") == 1
    assert "lr=1e+30 seed 1 failed: TrainingFailed" in capsys.readouterr().err
    found = {point["name"]: point for point in ranking(tmp_path / "results")["points"]}
    assert found["lr=1e+30"]["status"] == "failed" and found["lr=1e+30"]["failed"] == [0, 1]
    assert ranking(tmp_path / "results")["chosen"]["name"] == "lr=0.001"
    assert "failed  lr=1e+30  (seeds 0, 1)" in (tmp_path / "results" / "sweep.log").read_text()


def test_an_interrupted_sweep_goes_on_to_the_same_bits(swept, run, tmp_path, monkeypatch):
    folders = [tmp_path / "whole", tmp_path / "resumed"]
    whole, resumed = ({**swept, "train": {**swept["train"], "save_path": str(folder)}} for folder in folders)
    assert run(whole, "--seeds", "0,1") == 0
    for looks in (5, 25, 35):
        with monkeypatch.context() as patch:
            patch.setattr(launch, "listening", lambda looks=looks: nullcontext(After(looks)))
            assert run(resumed, "--seeds", "0,1") == 130
    assert all(point["status"] == "not finished" for point in ranking(folders[1])["points"][1:])
    assert run(resumed, "--seeds", "0,1") == 0
    for name in ("importance=1", "importance=100"):
        assert len(left := left_by(folders[0] / name)) > 10 and left == left_by(folders[1] / name)
    assert ranking(folders[0]) == ranking(folders[1])


def test_the_example_ranks_six_points():
    assert len(load_points(Path(__file__).parent.parent / "files" / "sweep" / "ewc.yaml")) == 6


@pytest.mark.parametrize(("rank_by", "order"), [("dev", ["b", "c", "a"]), ("test", ["a", "c", "b"])])
def test_points_are_ranked_by_the_split_asked_for_where_dev_and_test_disagree(tmp_path, rank_by, order):
    scores = {"a": (0.6, 0.9), "b": (0.8, 0.5), "c": (0.7, 0.7)}  # dev, test
    for name, (dev, test) in scores.items():
        (tmp_path / name).mkdir()
        final = {part: {"FinalAccuracy": {"values": [value]}} for part, value in (("dev", dev), ("test", test))}
        (tmp_path / name / "final_score.json").write_text(json.dumps({"seeds": [0], **final}))
    launch.ranking.write(Sweep(tmp_path, ("k",), rank_by, {}, {name: {"k": name} for name in scores}), [0])
    found = ranking(tmp_path)
    assert [point["name"] for point in found["points"]] == order and found["chosen"]["name"] == order[0]
    assert found["chosen"]["test"]["values"] == [scores[order[0]][1]]


def test_a_failed_point_stays_failed_when_the_list_changes(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    launch.ranking.write(Sweep(tmp_path, ("k",), "dev", {}, {"a": {"k": 1}}), [0], {(tmp_path / "a", 0)})
    launch.ranking.write(Sweep(tmp_path, ("k",), "dev", {}, {"b": {"k": 2}}), [0])
    assert {point["name"]: point["status"] for point in ranking(tmp_path)["points"]} == {
        "a": "failed",
        "b": "not finished",
    }
