"""Permuted and rotated images, and data sets in a row: against arrays made by hand."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CPU

from datasets import DATASET, load
from datasets.data import Data, Split
from datasets.tasks import permutations, rotations
from utils.config import load as loading
from utils.config.schema import Config
from utils.run.build import build_learner, build_tasks, class_names
from utils.run.features import features
from utils.run.runner import Run
from utils.run.streams import generator
from utils.settings import BadInput


def config(**scenario) -> Config:
    tree = {"dataset": "digits", "type": "domain", **scenario}
    return Config.model_validate({"method": "naive", "model": {"encoder": {"name": "mlp"}}, "scenario": tree})


def two_classes(n: int = 4, shape=(2, 3, 3)) -> Data:
    """Images 0, 1, ... of increasing pixels; labels alternate."""
    x = torch.arange(n * 18, dtype=torch.uint8).view(n, *shape)
    y = torch.arange(n) % 2
    return Data(Split(x, y), Split(x[:2] + 100, y[:2]), ("a", "b"))


def test_permuted_images_are_those_of_the_data_in_the_seed_s_orders():
    data, scenario = two_classes(), config(stream="permuted", tasks=3)
    tasks = build_tasks(scenario, data, 7, CPU)
    stream = generator(7, "permutations")
    orders = [list(range(9)), *(torch.randperm(9, generator=stream).tolist() for _ in range(2))]
    assert orders[1] != orders[2] and [task.classes for task in tasks] == [(0, 1), (2, 3), (4, 5)]
    for task, order in zip(tasks, orders, strict=True):
        for split, whole in ((task.train, data.train), (task.test, data.test)):
            by_hand = np.array([[image.numpy().reshape(2, 9)[c][order] for c in range(2)] for image in whole.x])
            assert split.x.dtype == torch.uint8 and split.x.tolist() == by_hand.reshape(-1, 2, 3, 3).tolist()
            assert split.y.tolist() == [2 * task.index + label for label in whole.y.tolist()]
    others = build_tasks(scenario, data, 8, CPU)
    assert torch.equal(others[0].train.x, tasks[0].train.x) and not torch.equal(others[1].train.x, tasks[1].train.x)
    assert class_names(scenario, data)[3] == "b (task 1)"


def test_rotated_images_are_turned_by_even_steps_counter_clockwise():
    data = two_classes()
    tasks = build_tasks(config(stream="rotated", tasks=2), data, 0, CPU)
    assert torch.equal(tasks[0].train.x, data.train.x) and tasks[1].train.x.dtype == torch.uint8
    assert tasks[1].test.x.tolist() == np.rot90(data.test.x.numpy(), axes=(2, 3)).tolist()
    dot = torch.zeros(1, 1, 5, 5, dtype=torch.uint8)
    dot[0, 0, 2, 4] = 200  # at the right: a turn by 45 degrees moves it to (2 - 2 sin, 2 + 2 cos)
    turned = rotations(4)[1](dot)[0, 0]
    up, right = divmod(int(turned.flatten().argmax()), 5)
    assert (up, right) == (1, 3) and turned[2, 4] == 0
    assert rotations(4)[1](torch.full((1, 1, 9, 9), 200, dtype=torch.uint8))[0, 0, 0, 0] == 0, "corners are black"


def test_an_order_of_classes_is_that_of_each_task_and_dev_data_are_the_same_images():
    data = two_classes(8)
    tasks = build_tasks(config(stream="permuted", tasks=2, class_order=[1, 0], dev_split=0.25), data, 0, CPU)
    assert [task.classes for task in tasks] == [(1, 0), (3, 2)]
    change = permutations((2, 3, 3), 2, generator(0, "permutations"))[1]
    assert torch.equal(change(tasks[0].dev.x), tasks[1].dev.x) and len(tasks[1].dev) == 2
    assert torch.equal(change(tasks[0].train.x), tasks[1].train.x) and len(tasks[1].train) == 6


@pytest.mark.parametrize(("kind", "width"), [("domain", 2), ("task", 2), ("class", 6)])
def test_classes_share_a_column_in_the_domain_scenario_only(kind, width):
    data, scenario = two_classes(), config(stream="permuted", tasks=3, type=kind)
    learner = build_learner(scenario, build_tasks(scenario, data, 0, CPU), 0)
    assert learner.logits(torch.zeros(1, 400), 2).shape == (1, width)
    columns = [learner.columns(torch.tensor([2 * task, 2 * task + 1]), task).tolist() for task in range(3)]
    assert columns == ([[0, 1], [2, 3], [4, 5]] if kind == "class" else [[0, 1]] * 3)


def test_a_frozen_encoder_sees_the_changed_images(data, tmp_path):
    scenario = config(stream="rotated", tasks=2)
    frozen = scenario.model.model_copy(update={"frozen": "yes"})
    run = Run(scenario.model_copy(update={"model": frozen}).saved_in(tmp_path), data, 0, CPU)
    for task, images in zip(run.tasks, build_tasks(scenario, data, 0, CPU), strict=True):
        assert torch.equal(task.test.x, features(run.extractor, images.test.x, CPU)) and task.test.x.dim() == 2
        assert torch.equal(task.test.y, images.test.y) and task.classes == images.classes
    assert not torch.equal(run.tasks[0].test.x, run.tasks[1].test.x)


def test_features_have_no_pixels_to_change(tmp_path):
    features = torch.rand(4, 5)
    data = Data(Split(features, torch.arange(4) % 2), Split(features, torch.arange(4) % 2), ("a", "b"))
    with pytest.raises(
        BadInput, match=r"scenario.stream: permuted is for images, and the data are features; set it to"
    ):
        build_tasks(config(stream="permuted", tasks=2), data, 0, CPU)
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", x_train=features, y_train=data.train.y, x_test=features, y_test=data.test.y)
    row = [{"name": "npz", "path": str(tmp_path / f"{name}.npz")} for name in "ab"]
    with pytest.raises(BadInput, match=r"dataset: npz holds features \(5,\); data sets in a row must be of images"):
        load(DATASET.validate({"name": "sequence", "datasets": row}), tmp_path)


def save(path, classes: int, shape, low: int) -> str:
    x = torch.randint(low, 256, (2 * classes, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(low))
    y = np.arange(2 * classes) % classes
    np.savez(path, x_train=x.numpy(), y_train=y, x_test=x[:classes].numpy(), y_test=y[:classes])
    return str(path)


@pytest.fixture
def row(tmp_path) -> dict:
    """Three grey classes of 6 x 9 pixels, then two in colour of 12 x 12."""
    first, second = save(tmp_path / "a.npz", 3, (1, 6, 9), 1), save(tmp_path / "b.npz", 2, (3, 12, 12), 30)
    return {"name": "sequence", "datasets": [{"name": "npz", "path": first}, {"name": "npz", "path": second}]}


def test_data_sets_in_a_row_get_one_shape_and_a_task_each(row, tmp_path):
    data = load(DATASET.validate(row), tmp_path)
    one, two = (load(DATASET.validate(part), tmp_path) for part in row["datasets"])
    assert data.classes == ("0 (npz 0)", "1 (npz 0)", "2 (npz 0)", "0 (npz 1)", "1 (npz 1)") and data.parts == (3, 2)
    assert data.shape == (3, 6, 9) and data.train.y.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 3, 4]
    assert torch.equal(data.train.x[:6], one.train.x.expand(-1, 3, -1, -1)), "grey is repeated"
    floats = torch.nn.functional.interpolate(two.test.x.float(), size=(6, 9), mode="bilinear", antialias=True)
    assert (data.test.x[3:].float() - floats).abs().max() <= 1 and data.test.x.dtype == torch.uint8
    tasks = build_tasks(config(dataset=row), data, 0, CPU)
    assert [task.classes for task in tasks] == [(0, 1, 2), (3, 4)]
    assert [task.classes for task in build_tasks(config(dataset=row, labels_per_task=[2, 3]), data, 0, CPU)] == [
        (0, 1),
        (2, 3, 4),
    ]
    square = load(DATASET.validate({**row, "image_size": 12}), tmp_path)
    assert square.shape == (3, 12, 12) and torch.equal(square.train.x[6:], two.train.x)


def test_the_fingerprint_of_a_row_is_of_all_its_data_sets(row, tmp_path):
    before = load(DATASET.validate(row), tmp_path).fingerprint
    save(tmp_path / "b.npz", 2, (3, 12, 12), 31)
    assert load(DATASET.validate(row), tmp_path).fingerprint != before


def test_a_list_is_the_short_form_of_a_row(row, run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HERE", str(tmp_path))
    paths = [{"name": "npz", "path": "$HERE/a.npz"}, {"name": "npz", "path": "b.npz"}]
    for key in ("datasets", "dataset"):
        tree = {"method": {"name": "naive"}, "scenario": {key: paths, "type": "domain"}, "model": {"encoder": "mlp"}}
        tree["train"] = {"epochs": 1, "save_path": str(tmp_path / "results" / key), "device": "cpu"}
        assert run(tree, "--data-root", str(tmp_path)) == 0
    out = capsys.readouterr().out
    assert "0 (npz 0), 1 (npz 0)" in out and "0 (npz 1), 1 (npz 1)" in out
    assert run(str((tmp_path / "results" / "dataset" / "config.yml").read_text())) == 0
    assert "already finished" in capsys.readouterr().out


REFUSED = [
    ({"stream": "permuted"}, "scenario.tasks: missing; add the number of permuted tasks, e.g. tasks: 10"),
    ({"tasks": 3}, "scenario.tasks: is for stream: permuted and rotated; remove it"),
    ({"stream": "rotated", "tasks": 1}, "scenario.tasks: got 1; expected greater than or equal to 2"),
    ({"stream": "permutd"}, "scenario.stream: got 'permutd'; expected 'split', 'permuted' or 'rotated'"),
    ({"stream": "rotated", "tasks": 3, "labels_per_task": 2}, "scenario.labels_per_task: is for stream: split"),
    ({"labels_per_task": [2, 0]}, r"scenario.labels_per_task: got .*expected"),
    ({"labels_per_task": [4, 1, 1]}, "scenario.labels_per_task: with 1 there is nothing to classify in the task"),
    ({"labels_per_task": [4, 3]}, "the 2 sizes add up to 7, and the data set has 6 classes"),
    ({"class_order": "reversed"}, "scenario.class_order: got 'reversed'; expected 'natural' or 'shuffled', or a valid"),
    ({"class_order": [0, 1]}, "scenario.class_order: expected each of the 6 class ids, 0 to 5, once; missing: 2, 3, 4"),
    ({"class_order_seed": 3}, "scenario.class_order_seed: is for class_order: shuffled; set that, or remove it"),
    ({"shuffle_labels": True, "class_order": "natural"}, "both set scenario.class_order; keep one of them"),
    (
        {"dataset": "digits", "datasets": ["digits", "digits"]},
        "dataset and scenario.datasets both set scenario.dataset; keep one of them",
    ),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_does_not_belong_together_is_one_line(small, run, capsys, changes, message):
    small["scenario"] = {"dataset": small["scenario"]["dataset"], **changes}
    assert run(small) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and len(error.splitlines()) == 1, error


@pytest.mark.parametrize(
    ("several", "message"),
    [
        (["digits"], "scenario.dataset.datasets: got .*at least 2 values"),
        (["digits", "mnits"], r"dataset.datasets\[1\]: unknown dataset 'mnits'; did you mean mnist\?"),
        (["digits", {"name": "npz"}], r"scenario.dataset.datasets\[1\].path: missing; add it: the .npz file"),
        (
            ["digits", {"name": "npz", "pth": "a"}],
            r"scenario.dataset.datasets\[1\].pth: unknown key; did you mean path",
        ),
        (["digits", {"name": "npz", "path": "no.npz"}], "scenario.dataset.path: no.npz does not exist"),
    ],
)
def test_what_can_be_wrong_with_a_row(small, run, capsys, several, message):
    small["scenario"] = {"datasets": several}
    assert run(small) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert "Traceback" not in error


def test_older_files_keep_their_order_of_classes_and_their_folder(small, run, capsys, tmp_path):
    """config.yml of versions before class_order."""
    small["scenario"] |= {"class_order": "shuffled"}
    assert run(small) == 0
    config_yml = tmp_path / "results" / "config.yml"
    text = config_yml.read_text()
    older = text.replace("class_order: shuffled", "shuffle_labels: true").replace("  class_order_seed: null\n", "")
    older = older.replace("  stream: split\n", "").replace("  tasks: null\n", "")
    assert "shuffle_labels: true" in older and "class_order" not in older and "stream" not in older
    config_yml.write_text(older)
    capsys.readouterr()
    assert run(older) == 0 and "already finished" in capsys.readouterr().out
    assert run(small) == 0 and "already finished" in capsys.readouterr().out
    assert run(small, "--set", "scenario.shuffle_labels=no") == 2
    assert "scenario.class_order: shuffled -> natural" in capsys.readouterr().err


def test_the_examples_of_the_page_about_data_are_valid(tmp_path):
    page = (Path(__file__).parent.parent / "docs" / "data.md").read_text()
    examples = re.findall(r"```yaml\n(scenario:.*?)```", page, re.S)
    for number, example in enumerate(examples):
        (file := tmp_path / f"{number}.yaml").write_text(f"method: naive\n{example}")
        loading.load(file)
    assert len(examples) == 6
