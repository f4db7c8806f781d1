"""PRER on features: projected after the first task, and replayed to the layers above."""

from dataclasses import replace

import pytest
import torch
from conftest import make_features, train

from models.subspace import Subspace
from utils.settings import BadInput


@pytest.fixture
def tasks(feature_tasks):
    return feature_tasks


@pytest.mark.parametrize("targets", ["labels", "logits", "both"])
@pytest.mark.parametrize("scenario", ["task", "class", "domain"])
def test_replay_trains_the_heads_and_the_projection(tasks, scenario, targets):
    method = make_features(scenario, replay={"targets": targets}, weights={"er": 0.5})
    train(method, tasks[0])
    task = method.begin_task(tasks[1])
    with torch.no_grad():  # as if training had moved the projection: logits differ from those of the past
        method.learner.encoder.projection.weight.mul_(2)
    for term in ("replay", "distance"):
        method.learner.zero_grad()
        method.loss(*task.train.batch(slice(20, 36)), task)[term].backward()
        assert method.learner.encoder.projection.weight.grad.abs().sum() > 1e-6
        assert (method.learner.heads[0][0].weight.grad is not None) == (term == "replay")


def test_rejection_asks_what_classifies(tasks, monkeypatch):
    method = make_features(
        "class", predict="flow", flow={"conditioning": {"type": "one_hot"}}, regularization={"rejection": True}
    )
    train(method, tasks[0])
    monkeypatch.setattr(method.learner, "predict_mixed", None)  # no head is trained
    assert set(method.generate_past(tasks[1])[1].tolist()) == set(tasks[0].classes)


def test_more_directions_than_samples_are_refused(tasks):
    method = make_features("class", predict="flow", flow={"dimension": 8})
    task = replace(tasks[0], train=tasks[0].train.take(torch.arange(7)))
    with pytest.raises(BadInput, match=r"method.flow.dimension: 8 directions .* 7 samples; lower it"):
        method.end_task(task)


def test_the_layers_above_are_given_projected_features_after_the_first_task(tasks):
    method = make_features("class", weights={"l1": 0.1})
    train(method, tasks[0])
    x, subspace = tasks[0].test.x, method.subspace
    assert torch.equal(subspace(x), x)  # not projected yet
    for task in tasks[1:]:
        train(method, task)
    codes = method.codes(x)
    torch.testing.assert_close(subspace(x), subspace.features(codes))
    torch.testing.assert_close(method.embed_generated(codes), method.embed(x), atol=1e-5, rtol=1e-4)
    assert not any(tensor.shape[1:] == (64,) and len(tensor) > 20 for tensor in method.state_dict().values()), "samples"


def test_projecting_changes_nothing_but_what_is_outside_the_subspace(tasks):
    method = make_features("class")
    train(method, tasks[0])
    projection, subspace, features = method.layer, method.subspace, tasks[0].test.x
    inside = (features - subspace.mean) @ subspace.directions.T @ subspace.directions + subspace.mean
    before = projection(inside)
    codes = subspace.codes(features)
    torch.testing.assert_close(method.embed_generated(codes), before, atol=1e-5, rtol=1e-4)  # not projected yet
    for _ in range(2):  # the second time changes nothing more
        subspace.activate(projection)
        torch.testing.assert_close(projection(method.subspace(features)), before, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(method.embed_generated(codes), before, atol=1e-5, rtol=1e-4)


@pytest.mark.long
def test_replay_keeps_the_first_task_in_the_class_scenario(tasks):
    """With replay old classes are still recognised; without, all are classified as new ones."""
    kept = {}
    for replay in (0.0, 1.0):
        options = {"weights": {"replay": replay}, "flow": {"epochs": 200, "noise": 0.2}}
        method = make_features("class", **options, regularization={"fixed_replay": 400})
        for task in tasks[:2]:
            train(method, task, steps=60, lr=3e-3)
        x, y = tasks[0].test.batch(slice(None))
        kept[replay] = float((method.predict(x, 0) == y).float().mean())
    assert kept[0.0] < 0.2 < 0.8 < kept[1.0]


def test_the_subspace_is_that_of_the_principal_components():
    torch.manual_seed(0)
    x = torch.randn(200, 3) @ torch.randn(3, 7) + 5
    plain, balanced = Subspace(7, 3), Subspace(7, 3)
    plain.find(x, balanced=False)
    balanced.find(x, balanced=True)
    plain.activate(torch.nn.Identity())
    torch.testing.assert_close(plain(x), x, atol=1e-4, rtol=1e-4)  # they have three dimensions
    torch.testing.assert_close(plain.directions @ plain.directions.T, torch.eye(3), atol=1e-5, rtol=0)
    deviation, share = plain.codes(x).std(0), plain.codes(x).std(0) / plain.codes(x).std(0)[0]
    assert (deviation.diff() <= 0).all()
    torch.testing.assert_close(balanced.codes(x).std(0), deviation / share.sqrt())
