"""A flow for each class: the same density as one flow's, and nothing of a class changes later."""

import math

import pytest
import torch
from conftest import make_features
from torch.distributions import MultivariateNormal

from flows import realnvp
from methods import find
from models.class_flows import ClassFlows
from models.code_flow import CodeFlow, Condition

SEPARATE = {"conditioning": {"type": "separate"}}


def made(dimension: int = 2, classes: int = 3, **options) -> ClassFlows:
    def build() -> CodeFlow:
        return CodeFlow(
            dimension, Condition(1, type="none"), lambda w, c: realnvp.build(w, c, levels=1, blocks=2), **options
        )

    torch.manual_seed(0)
    return ClassFlows(dimension, classes, build)


@pytest.fixture(scope="module")
def gaussians() -> tuple[torch.Tensor, torch.Tensor, list[MultivariateNormal]]:
    """Codes (N, 2) of three classes, their labels, and the distributions they were drawn from."""
    torch.manual_seed(0)
    covariances = [torch.tensor([[1.0, 0.8], [0.8, 1.0]]), torch.eye(2), torch.tensor([[2.0, -1.0], [-1.0, 1.0]])]
    of = [MultivariateNormal(torch.tensor([4.0 * c, 0.0]), covariances[c]) for c in range(3)]
    z, y = torch.cat([one.sample((1000,)) for one in of]), torch.arange(3).repeat_interleave(1000)
    order = torch.randperm(3000)
    return z[order], y[order], of


def test_it_learns_the_density_of_each_class_and_bayes_rule_follows(gaussians):
    z, y, of = gaussians
    flows = made(steps=300, noise=0.0, temperature=1.0)
    flows.fit(z, y, torch.ones_like(y, dtype=torch.bool), torch.Generator().manual_seed(0))
    points = torch.stack([one.sample((200,)) for one in of])
    for c, one in enumerate(of):
        with torch.no_grad():
            ours = flows.log_prob(points[c], torch.full((200,), c))
        assert float((one.log_prob(points[c]) - ours).mean()) < 0.05, "the divergence from the truth, in nats"
        drawn = flows.sample(torch.full((4000,), c), torch.Generator().manual_seed(1))
        torch.testing.assert_close(drawn.mean(dim=0), one.mean, atol=0.15, rtol=0)
        torch.testing.assert_close(drawn.T.cov(), one.covariance_matrix, atol=0.3, rtol=0)
    true = torch.stack([one.log_prob(points.flatten(0, 1)) for one in of], dim=1).log_softmax(dim=1)
    ours = flows.posterior(points.flatten(0, 1))
    assert (ours.argmax(dim=1) == true.argmax(dim=1)).float().mean() > 0.98
    torch.testing.assert_close(ours.exp(), true.exp(), atol=0.2, rtol=0)


def test_a_mixed_batch_is_what_its_classes_are_alone(gaussians):
    z, y, _ = gaussians
    flows = made(steps=5)
    flows.fit(z, y, torch.ones_like(y, dtype=torch.bool), torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = flows.log_prob(z, y)
    for c in range(3):
        torch.testing.assert_close(whole[y == c], flows.log_prob(z[y == c], y[y == c]))
        torch.testing.assert_close(whole[y == c], flows.flows[c].log_prob(z[y == c], torch.zeros_like(y[y == c])))
    assert float(flows.round_trip(z, y).max()) < 1e-4
    mean = -float(whole.mean()) / 2
    assert math.isclose(flows.negative_log_likelihood(z, y), mean, rel_tol=1e-6)


def test_a_later_fit_changes_nothing_of_earlier_classes_to_the_bit(gaussians):
    z, y, _ = gaussians
    flows, stream, real = made(steps=20), torch.Generator().manual_seed(0), y < 2
    flows.fit(z[real], y[real], real[real], stream)
    before = flows.log_prob(z[real], y[real])
    assert flows.known.tolist() == [True, True, False]
    generated = flows.sample(torch.arange(2).repeat(50), stream)
    codes, labels = torch.cat((z[y == 2], generated)), torch.cat((y[y == 2], torch.arange(2).repeat(50)))
    flows.fit(codes, labels, labels == 2, stream)
    assert torch.equal(flows.log_prob(z[real], y[real]), before) and flows.known.all()


@pytest.mark.parametrize(
    ("name", "flow", "expected"),
    [
        ("prer", {}, (500, None)),
        ("prer_features", {}, (None, 20)),
        ("prer_features", SEPARATE | {"steps": 9}, (9, None)),
        ("prer_features", {"epochs": 3}, (None, 3)),
        ("prer", {"steps": 600, "epochs": 20}, (600, None)),  # as older versions wrote into config.yml
        ("prer", SEPARATE, (None, 20)),
    ],
)
def test_a_fit_is_as_long_as_asked_and_by_default_as_suits_the_flow(name, flow, expected):
    section = find(name)[1].model_validate({"name": name, "flow": flow}).in_scenario("class").flow
    assert (section.steps, section.epochs) == expected


def test_no_step_is_trained_where_only_the_flow_classifies():
    assert not make_features("class", predict="flow", flow=SEPARATE, weights={"replay": 0.0}).trains
    assert make_features("class", predict="flow", flow=SEPARATE, weights={"replay": 1.0}).trains
    assert make_features("class", flow=SEPARATE, weights={"replay": 0.0}).trains
