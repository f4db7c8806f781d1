"""BI-R: its prior and gates, what it generates, and what it learns from that."""

import copy

import pytest
import torch
from conftest import make_method, train
from torch.distributions import Normal, kl_divergence

from datasets.data import Task, as_floats
from methods.mechanisms.distance import divergence
from models.gated_vae import GatedVAE

SCENARIOS = ["task", "class", "domain"]


def nearest_class(x: torch.Tensor, tasks: list[Task]) -> torch.Tensor:
    """The class (N,) of whose samples each sample (N, ...) is nearest to the mean."""
    x, y = as_floats(x).flatten(1), torch.cat([task.train.y for task in tasks])
    every = torch.cat([as_floats(task.train.x).flatten(1) for task in tasks])
    means = torch.stack([every[y == c].mean(dim=0) for c in range(int(y.max()) + 1)])
    return torch.cdist(x, means).argmin(dim=1)


def test_the_evidence_lower_bound_is_that_of_its_distributions():
    torch.manual_seed(0)
    vae, stream = GatedVAE((5,), torch.tensor([0, 0, 1]), latent=3, hidden_size=8), torch.Generator().manual_seed(0)
    x, y = torch.randn(7, 5), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    error, far = vae.negative_elbo(x, y, stream)
    hidden = vae.encoder(x)
    posterior = Normal(vae.mean(hidden), (0.5 * vae.log_variance(hidden)).exp())
    prior = Normal(vae.prior_mean[y], (0.5 * vae.prior_log_variance[y]).exp())
    torch.testing.assert_close(far, kl_divergence(posterior, prior).sum(dim=1))
    noise = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    decoded = vae.decode(posterior.mean + posterior.stddev * noise, y)
    likelihood = Normal(decoded, 1.0).log_prob(x) - Normal(0.0, 1.0).log_prob(torch.tensor(0.0))
    torch.testing.assert_close(error, -likelihood.sum(dim=1))


def test_a_context_switches_off_its_share_of_units_and_the_seed_says_which():
    def gates(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return GatedVAE((5,), torch.tensor([0, 1, 2, 2]), hidden_size=50, inhibited=0.8).gates

    assert torch.equal(gates(0), gates(0)) and not torch.equal(gates(0), gates(1))
    assert gates(0).shape == (3, 2, 50) and gates(0).sum(dim=2).unique().tolist() == [10]
    assert len(gates(0).flatten(1).unique(dim=0)) == 3, "contexts differ"
    assert GatedVAE((5,), torch.arange(3), hidden_size=2, inhibited=0.9).gates.sum(dim=2).unique().tolist() == [1]


def test_a_gradient_of_one_class_does_not_reach_the_units_that_its_context_switches_off():
    torch.manual_seed(0)
    vae = GatedVAE((5,), torch.arange(2), latent=3, hidden_size=20, inhibited=0.5)
    sum(vae.negative_elbo(torch.randn(9, 5), torch.zeros(9, dtype=torch.long), torch.Generator()))[0].backward()
    off = vae.gates[0] == 0
    assert not vae.hidden[0].weight.grad[off[0]].any() and not vae.hidden[1].weight.grad[off[1]].any()
    assert vae.hidden[0].weight.grad[~off[0]].any() and not vae.output.weight.grad[:, off[1]].any()
    assert not vae.prior_mean.grad[1].any()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_context_is_the_task_in_the_task_scenario_and_else_the_class(scenario):
    context = make_method("bir", scenario).vae.context_of.tolist()
    assert context == ([0, 0, 1, 1, 2, 2] if scenario == "task" else [0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize("on", ["images", "features"])
def test_it_generates_the_class_asked_for_also_of_earlier_tasks(tasks, feature_tasks, on):
    tasks = tasks if on == "images" else feature_tasks
    vae = {"epochs": 100, "lr": 3e-3 if on == "images" else 1e-2, "hidden_size": 64, "inhibited": 0.5}
    method = make_method("bir", "class", on="" if on == "images" else on, fixed_replay=200, vae=vae)
    for task in tasks[:2]:
        method.begin_task(task)
        method.end_task(task)
    asked = torch.arange(4).repeat(50)
    x = method.vae.sample(asked, torch.Generator().manual_seed(0))
    assert x.dtype == (torch.uint8 if on == "images" else torch.float32) and x.shape[1:] == tasks[0].train.x.shape[1:]
    assert (nearest_class(x, tasks[:2]) == asked).float().mean() > 0.9


@pytest.mark.parametrize("scenario", ["task", "class", "domain"])
def test_the_loss_is_the_cross_entropy_and_the_divergence_from_what_the_classifier_said(tasks, scenario):
    method = make_method("bir", scenario, replay=3.0)
    for past in tasks[:2]:
        train(method, past)
    method.begin_task(tasks[2])
    method.learner.see(3)
    teacher = copy.deepcopy(method.learner)
    teacher.see(2)
    with torch.no_grad():
        for p in method.learner.parameters():
            p.add_(0.1 * torch.randn_like(p))
    stream = copy.deepcopy(method.stream.get_state())
    x, y = tasks[2].train.batch(slice(0, 8))
    terms = method.loss(x, y, tasks[2])
    x_old, y_old, _ = method.rehearsal
    generator = torch.Generator()
    generator.set_state(stream)
    index = torch.randint(len(y_old), (8,), generator=generator)
    assert set(y_old.tolist()) == {0, 1, 2, 3}
    with torch.no_grad():
        old, y_old = as_floats(x_old[index]), y_old[index]
        said = teacher.mixed_logits(teacher.embed(old), y_old)
        now = method.learner.mixed_logits(method.learner.embed(old), y_old)
        torch.testing.assert_close(terms["replay"], 3 * 2 / 3 * divergence(now, said, 2.0).mean())
        expected = method.cross_entropy(method.learner.embed(x), y, tasks[2]) / 3
        torch.testing.assert_close(terms["cross_entropy"], expected)
