"""PRER on features as a classifier: a Gaussian whose marginal on the codes is a flow, tempered on held-out samples."""

import copy
from dataclasses import replace

import pytest
import torch
from conftest import make_features, make_method, train
from torch.distributions import MultivariateNormal

from models.gaussians import SharedGaussian
from models.tempering import SCALES, SHARES, Tempering, mix
from utils.run.evaluation import auroc, predict
from utils.settings import BadInput


def made(scenario: str = "class", **flow):
    flow = {"epochs": 30, "noise": 0.2, "dimension": 4, **flow}
    return make_features(scenario, predict="flow", flow=flow, weights={"replay": 0.0})


@pytest.fixture(scope="module")
def trained(feature_tasks):
    method = made()
    for task in feature_tasks:
        train(method, task)
    return method


@pytest.fixture
def x(feature_tasks) -> torch.Tensor:
    return torch.cat([task.test.x for task in feature_tasks])


def test_with_share_0_it_is_slda_and_no_share_matters_if_the_flow_is_gaussian(trained, feature_tasks, x, monkeypatch):
    slda = make_method("slda", "class")
    for task in feature_tasks:
        train(slda, task, steps=0)
    expected, marginal = slda.logits(x, 0), trained.classifier.marginal
    for share in (0.0, 0.4, 1.0):
        monkeypatch.setattr(Tempering, "chosen", (share, 1.0))
        if share > 0:  # a flow that is exactly the Gaussian's marginal
            monkeypatch.setattr(trained.flow, "class_densities", lambda z: marginal.log_prob(z[:, None]))
        ours = trained.logits(x, 0).log_softmax(dim=1)
        torch.testing.assert_close(ours, expected, atol=2e-2, rtol=1e-3)


def test_with_share_1_the_codes_have_the_flow_s_density_and_the_rest_is_gaussian_given_them(trained, x):
    """log p(x | c) = log f_c(z) + log N(rest | z, c), the latter written out as a regression of the rest on codes."""
    gaussian, means = trained.classifier.gaussian, trained.classifier.gaussian.means
    covariance, directions = gaussian.shrunk, trained.subspace.directions.double()
    values, basis = torch.linalg.eigh(torch.eye(64).double() - directions.T @ directions)
    rest = basis[:, values > 0.5].T  # orthonormal, and orthogonal to the directions
    assert len(rest) == 60
    within = directions @ covariance @ directions.T
    slope = rest @ covariance @ directions.T @ torch.linalg.inv(within)
    left = rest @ covariance @ rest.T - slope @ within @ slope.T
    given = means @ rest.T - means @ directions.T @ slope.T  # (K, 60)
    residual = x.double() @ rest.T - x.double() @ directions.T @ slope.T
    conditional = MultivariateNormal(given, left).log_prob(residual[:, None])
    with torch.no_grad():
        expected = trained.flow.class_densities(trained.codes(x)) + conditional
        ours = trained.classifier.densities(x)[1].double()
    torch.testing.assert_close(ours - ours[:, :1], expected - expected[:, :1], atol=5e-2, rtol=1e-3)


def test_densities_relative_to_all_classes_are_those_of_the_distributions():
    torch.manual_seed(0)
    means, factor = torch.randn(5, 7).double(), torch.randn(7, 7).double()
    covariance = factor @ factor.T + 0.1 * torch.eye(7)
    apart, x = means - means.mean(dim=0), 2 * torch.randn(50, 7).double()
    total = MultivariateNormal(means.mean(dim=0), covariance + apart.T @ apart / 5)
    expected = MultivariateNormal(means, covariance).log_prob(x[:, None]) - total.log_prob(x)[:, None]
    shared = SharedGaussian(means, covariance)
    ours = (shared.discriminants(x.float()) - shared.background(x.float())[:, None]).double()
    torch.testing.assert_close(ours - ours[0, 0], expected - expected[0, 0], atol=1e-3, rtol=1e-3)


def test_tempering_finds_the_better_density_and_how_certain_to_be():
    g = torch.Generator().manual_seed(0)
    y = torch.randint(3, (4000,), generator=g)
    good = torch.randn(4000, 3, generator=g).add(2 * torch.nn.functional.one_hot(y, 3)).log_softmax(dim=1) * 2
    # the posterior of these is softmax(good): densities N(x; e_c, I) times 2
    bad = 5 * torch.randn(4000, 3, generator=g)
    for a, b, share in ((good, bad, 0.0), (bad, good, 1.0)):
        for certainty in (1, 8):
            tempering = Tempering()
            for part in torch.arange(4000).split(1000):
                tempering.add(certainty * a[part], certainty * b[part], y[part])
            assert tempering.chosen == (share, 1 / certainty)
    assert Tempering().chosen == (1.0, 1.0), "before it has seen anything"
    with_unknown = good.index_fill(1, torch.tensor(2), -torch.inf)
    tempering = Tempering()
    tempering.add(bad[y < 2], with_unknown[y < 2], y[y < 2])
    assert tempering.chosen[0] == 1.0 and tempering.log_likelihood.isfinite().all()
    assert mix(bad, with_unknown, 0.0)[:, 2].isneginf().all()
    assert len(SHARES) * len(SCALES) == tempering.log_likelihood.numel()


@pytest.mark.parametrize("scenario", ["task", "class", "domain"])
def test_it_forgets_no_task_and_its_state_is_complete(feature_tasks, x, scenario):
    method = made(scenario)
    assert not method.trains, "no layer is used"
    for task in feature_tasks:
        train(method, task)
        for past in feature_tasks[: task.index + 1]:
            accuracy = (method.predict(past.test.x, past.index) == past.test.y).float().mean()
            assert accuracy > (0.9 if scenario != "domain" else 0.8)
    again = made(scenario)
    again.logits(x, 0)
    again.load_state_dict(copy.deepcopy(method.state_dict()))
    again.learner.see(len(feature_tasks))
    assert torch.equal(again.logits(x, 1), method.logits(x, 1))
    assert torch.equal(again.score(x, again.logits(x, 1), 1), method.score(x, method.logits(x, 1), 1))
    assert {"tempering/share", "tempering/scale"} <= set(method.diagnostics([]))


def test_classes_not_yet_taught_have_a_lower_score(feature_tasks):
    method = make_features(
        "class", predict="flow", shrinkage=0.1, flow={"epochs": 30, "dimension": 4}, weights={"replay": 0.0}
    )
    train(method, feature_tasks[0])
    taught, other, _ = (predict(method, task.test, 0, scored=True) for task in feature_tasks)
    assert auroc([taught], [other]) > 0.9


def test_a_class_of_few_samples_is_fitted_to_all_of_them(feature_tasks):
    first = feature_tasks[0].train
    few = torch.cat([(first.y == 0).nonzero()[:, 0], (first.y == 1).nonzero()[:2, 0]])
    for seed in range(5):
        method = made(epochs=1)
        method.stream.manual_seed(seed)
        train(method, replace(feature_tasks[0], train=first.take(few)), steps=0)
        assert method.flow.known[:2].all() and method.classifier.gaussian.counts[:2].tolist() == [24, 2]


def test_a_class_of_one_image_is_refused_in_one_line(feature_tasks):
    first = feature_tasks[0].train
    one = torch.cat([(first.y == 0).nonzero()[:, 0], (first.y == 1).nonzero()[:1, 0]])
    with pytest.raises(BadInput, match="class 1 has no two training samples that differ"):
        train(made(epochs=1), replace(feature_tasks[0], train=first.take(one)), steps=0)


def test_the_flow_s_weight_is_chosen_on_samples_that_it_was_not_fitted_to(feature_tasks):
    method, fitted, unseen = made(epochs=1), [], []
    fit, choose = method.flow.fit, method.classifier.choose
    method.flow.fit = lambda z, *rest: (fitted.append(z), fit(z, *rest))[1]
    method.classifier.choose = lambda split: (unseen.append(method.codes(split.x)), choose(split))[1]
    train(method, feature_tasks[0], steps=0)
    assert len(fitted[0]) + len(unseen[0]) == len(feature_tasks[0].train) and len(unseen[0])
    assert torch.cdist(unseen[0], fitted[0]).min() > 0
