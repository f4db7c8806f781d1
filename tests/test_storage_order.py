"""The order in which a data set is stored decides nothing: no prefix stands for a sample."""

import csv
import statistics

import numpy as np
import pytest
import torch
from conftest import make_data, make_method, method_settings, train

from datasets.data import Data, Split
from methods import find, known
from utils.store.folder import finished_runs
from utils.store.metrics import scores

pytestmark = pytest.mark.usefixtures("quick_health")


def permuted(split: Split, seed: int) -> Split:
    return split.take(torch.randperm(len(split), generator=torch.Generator().manual_seed(seed)))


def saved(data: Data, path) -> str:
    arrays = {"x_train": data.train.x, "y_train": data.train.y, "x_test": data.test.x, "y_test": data.test.y}
    np.savez(path, **{name: value.numpy() for name, value in arrays.items()})
    return str(path)


@pytest.mark.parametrize("name", known())
def test_a_prediction_depends_on_its_image_alone(tasks, feature_tasks, name):
    tasks = feature_tasks if find(name)[0].works_on == "features" else tasks
    method = make_method(name, find(name)[0].scenarios[-1])
    for task in tasks[:2]:
        train(method, task)
    method.learner.eval()
    x = torch.cat([task.test.batch(slice(None))[0] for task in tasks])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        predicted = method.predict(x, 1)
        assert torch.equal(method.predict(x[order], 1), predicted[order])
        assert torch.equal(torch.cat([method.predict(part, 1) for part in x.split(7)]), predicted)


@pytest.mark.parametrize("name", ["naive", "prer"])
def test_test_data_in_another_order_give_the_same_numbers(small, run, tmp_path, name):
    data, found = make_data(train=12, test=20), []
    small["method"] = method_settings(name)
    for seed, test in enumerate((data.test, permuted(data.test, 0))):
        small["scenario"]["dataset"]["path"] = saved(Data(data.train, test, data.classes), tmp_path / f"{seed}.npz")
        small["train"]["save_path"] = str(tmp_path / f"results{seed}")
        assert run(small) == 0
        with (tmp_path / f"results{seed}" / "exp_0" / "metrics.csv").open() as file:
            found.append([tuple(row.values()) for row in csv.DictReader(file)])
    assert [row[:-1] for row in found[0]] == [row[:-1] for row in found[1]]
    for one, other in zip(*found, strict=True):  # means of confidences are sums in another order
        assert float(one[-1]) == (
            pytest.approx(float(other[-1]), rel=1e-5) if one[-2] == "ECE" else float(other[-1])
        ), one


@pytest.mark.long
@pytest.mark.parametrize("name", known())
def test_training_data_in_another_order_change_no_score_beyond_noise(small, run, tmp_path, name):
    """Sorted by class, as folders are, against shuffled: three seeds each, 3 standard errors of their difference."""
    data = make_data(train=60, test=20)  # sorted by class
    small["method"] = method_settings(name)
    small["scenario"] |= {"type": find(name)[0].scenarios[-1], "labels_per_task": 3}
    small["train"] |= {"epochs": 8, "experiments": 3}
    found = []
    for order, train_part in (("sorted", data.train), ("shuffled", permuted(data.train, 1))):
        path = saved(Data(train_part, data.test, data.classes), tmp_path / f"{order}.npz")
        small["scenario"]["dataset"]["path"], small["train"]["save_path"] = path, str(tmp_path / order)
        assert run(small) == 0
        runs = finished_runs(tmp_path / order).values()
        for part in ("test", "train"):
            values = [scores(of_seed[part])["FinalAccuracy"] for of_seed in runs]
            found.append((order, part, values))
    for part in ("test", "train"):
        one, other = (values for _, of, values in found if of == part)
        noise = (statistics.variance(one) / 3 + statistics.variance(other) / 3) ** 0.5
        assert abs(statistics.mean(one) - statistics.mean(other)) < 3 * noise + 0.05, (part, one, other)
