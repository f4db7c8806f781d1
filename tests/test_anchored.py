"""EWC, online EWC, SI and MAS against what can be worked out by hand."""

from dataclasses import replace

import pytest
import torch
from conftest import CPU, make_data, total_loss
from torch.nn import functional as F

from datasets.data import Split, Task
from datasets.tasks import split_by_class
from methods import find
from methods.ewc import EWC, fisher
from methods.mechanisms import gradients
from methods.mechanisms.gradients import flat_parameters
from methods.si import SI
from models.encoders import Encoder, paper
from models.learner import HEADS, Learner

SHAPE = (1, 2, 3)
GROUPS = [(0, 1, 2), (3, 4)]


def identity(image_shape) -> Encoder:
    return Encoder(torch.nn.Flatten(), torch.nn.Identity(), image_shape, lambda inputs, shape: torch.nn.Identity())


def logistic(scenario="task") -> Learner:
    """Logistic regression: an encoder without parameters, linear heads."""
    torch.manual_seed(0)
    return Learner(identity(SHAPE), torch.nn.Linear, scenario, GROUPS).double().eval()


def some_task(index=0, n=37) -> Task:
    g = torch.Generator().manual_seed(index)
    x = torch.randint(256, (n, *SHAPE), dtype=torch.uint8, generator=g)
    y = torch.tensor(GROUPS[index])[torch.randint(len(GROUPS[index]), (n,), generator=g)]
    return Task(index, GROUPS[index], Split(x, y), None, Split(x, y))


class Doubles(Split):
    """Images as float64, so that theorems hold to the last digits."""

    def batch(self, index):
        return self.x[index].double() / 255, self.y[index]

    def take(self, index):
        return Doubles(self.x[index], self.y[index])


def by_hand(learner: Learner, split: Split, task: int) -> torch.Tensor:
    """The mean of squared gradients, one sample and one backward pass at a time."""
    total = torch.zeros_like(flat_parameters(learner))
    for i in range(len(split)):
        x, y = split.batch(slice(i, i + 1))
        loss = F.cross_entropy(learner.logits(learner.embed(x), task), learner.columns(y, task))
        total += gradients.gradient_of(loss, learner.parameters()) ** 2
    return total / len(split)


@pytest.mark.parametrize("chunk", [1, 7, 64])
@pytest.mark.parametrize("scenario", ["task", "class", "domain"])
def test_empirical_fisher_is_the_mean_of_each_samples_squares_whatever_the_batch(monkeypatch, chunk, scenario):
    monkeypatch.setattr(gradients, "CHUNK", chunk)
    learner, task = logistic(scenario), some_task()
    split = Doubles(task.train.x, task.train.y)
    found = fisher(learner, split, 0, "empirical", None, torch.Generator())
    torch.testing.assert_close(found, by_hand(learner, split, 0), rtol=1e-10, atol=1e-14)


def test_fisher_of_the_paper_s_network_too(data):
    """Convolutions, in float32."""
    learner = Learner(paper.build((1, 28, 28), 10), HEADS["paper"](0.5), "task", [(0, 1)]).eval()
    split = data.train.take(data.train.y < 2)
    found = fisher(learner, split, 0, "empirical", None, torch.Generator())
    torch.testing.assert_close(found, by_hand(learner, split, 0), rtol=1e-3, atol=1e-9)


def test_exact_fisher_of_logistic_regression_is_the_analytic_one():
    """E over labels of (onehot - p)(onehot - p)' = diag(p) - pp': the weight's diagonal is mean x_i^2 p_k (1 - p_k)."""
    learner, task = logistic(), some_task()
    split = Doubles(task.train.x, task.train.y)
    x, _ = split.batch(slice(None))
    p = learner.logits(learner.embed(x), 0).softmax(1).detach()
    variance = p * (1 - p)  # (N, k)
    weight = torch.einsum("nk,ni->ki", variance, learner.embed(x) ** 2) / len(x)
    stream = torch.Generator().manual_seed(0)
    draws = torch.stack([fisher(learner, split, 0, "exact", None, stream) for _ in range(200)]).mean(0)
    size = weight.numel()
    torch.testing.assert_close(draws[:size].view_as(weight), weight, rtol=0.1, atol=1e-3)
    torch.testing.assert_close(draws[size : size + 3], variance.mean(0), rtol=0.1, atol=1e-3)
    assert (draws[size + 3 :] == 0).all(), "the other task's head"


def test_exact_fisher_counts_labels_that_are_hardly_ever_drawn():
    """A sure classifier: a label drawn from it would nearly always be the one that says nothing."""
    learner, task = logistic(), some_task()
    with torch.no_grad():
        learner.heads[0].bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
    split = Doubles(task.train.x, task.train.y)
    p = learner.logits(learner.embed(split.batch(slice(None))[0]), 0).softmax(1).detach()
    assert p[:, 0].min() > 0.999
    found = fisher(learner, split, 0, "exact", None, torch.Generator().manual_seed(0))
    size = learner.heads[0].weight.numel()
    torch.testing.assert_close(found[size : size + 3], (p * (1 - p)).mean(0), rtol=0.3, atol=0)


def test_fisher_of_a_few_samples_is_of_a_random_choice():
    learner, task = logistic(), some_task()
    split = Doubles(task.train.x, task.train.y)
    few = [fisher(learner, split, 0, "empirical", 5, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(few[0], few[1]) and not torch.equal(few[0], few[2])
    whole = fisher(learner, split, 0, "empirical", None, torch.Generator())
    torch.testing.assert_close(fisher(learner, split, 0, "empirical", 99, torch.Generator()), whole)


def method(name: str, learner: Learner, **options):
    make, config = find(name)
    return make(config.model_validate({"name": name, **options}), learner, torch.Generator())


def move(learner: Learner, seed: int) -> torch.Tensor:
    """Somewhere else in the space of weights."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in learner.parameters():
            p.copy_(torch.randn_like(p))
    return flat_parameters(learner).clone()


def test_ewc_s_one_quadratic_has_the_gradient_of_the_sum_over_tasks(monkeypatch):
    learner = logistic("domain")
    ewc = method("ewc", learner, importance=6.0)
    informations, anchors = [], []
    for seed, task in enumerate([some_task(0), some_task(1), some_task(0)]):
        anchors.append(move(learner, seed))
        informations.append(torch.rand_like(anchors[-1]) * (torch.rand_like(anchors[-1]) > 0.3))
        monkeypatch.setattr(EWC, "_information", lambda self, task, i=informations[-1]: i)
        ewc.end_task(task)
    weights = move(learner, 9)
    gradient = gradients.gradient_of(ewc.strength * ewc.penalty(), learner.parameters())
    expected = 6.0 * sum(f * (weights - a) for f, a in zip(informations, anchors, strict=True))
    torch.testing.assert_close(gradient, expected)
    assert ewc.state_dict().keys() == {"anchor", "importance"}


def test_online_ewc_adds_up_where_the_anchors_agree_and_forgets_with_gamma():
    learner = logistic("domain")
    options = {"importance": 1.0, "fisher": "empirical", "fisher_samples": None}
    online, summed = method("oewc", learner, gamma=1.0, **options), method("ewc", learner, **options)
    fading = method("oewc", learner, gamma=0.5, **options)
    tasks = [some_task(0), some_task(1)]
    single = []
    for task in tasks:  # the weights stay where they are: every task has the same anchor
        task = Task(task.index, task.classes, Doubles(task.train.x, task.train.y), None, task.test)
        single.append(fisher(learner, task.train, task.index, "empirical", None, torch.Generator()))
        for each in (online, summed, fading):
            each.end_task(task)
    torch.testing.assert_close(online.importance, single[0] + single[1])
    torch.testing.assert_close(fading.importance, 0.5 * single[0] + single[1])
    move(learner, 3)
    torch.testing.assert_close(online.penalty(), summed.penalty())


class Quadratic(SI):
    """Loss 1/2 sum a_i w_i^2 on the weights themselves, instead of a classifier's."""

    a: torch.Tensor

    def task_loss(self):
        return 0.5 * (self.a * torch.cat([p.flatten() for p in self.learner.parameters()]) ** 2).sum()


@pytest.mark.parametrize("strength", [0.0, 3.0])
def test_si_s_importance_is_the_path_integral_of_the_task_s_own_gradient(strength):
    """Gradient descent on a quadratic: the sum of gradient times step is known in closed form for every weight."""
    learner = logistic("domain")
    config = find("si")[1].model_validate({"name": "si", "importance": strength, "damping": 0.2})
    si = Quadratic(config, learner, torch.Generator())
    start = flat_parameters(learner).clone()
    si.a = torch.linspace(0.5, 2.0, len(start), dtype=torch.double)
    si.importance = torch.rand_like(start)  # an earlier task's: its penalty must not count as the new task's doing
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
    si.begin_task(some_task(0))
    path, w = torch.zeros_like(start), start.clone()
    earlier = si.importance.clone()
    for _ in range(5):
        optimizer.zero_grad()
        (si.task_loss() + strength * si.penalty()).backward()
        si.after_backward()
        optimizer.step()
        own = si.a * w
        moved = -0.1 * (own + 2 * strength * earlier * (w - start))
        path -= own * moved
        w = w + moved
    si.end_task(some_task(0))
    torch.testing.assert_close(flat_parameters(learner), w)
    torch.testing.assert_close(si.importance, earlier + path.clamp(min=0) / ((w - start) ** 2 + 0.2))
    torch.testing.assert_close(si.anchor, w)


def test_si_s_integral_becomes_the_loss_s_decrease_with_small_steps():
    learner = logistic("domain")
    si = Quadratic(find("si")[1].model_validate({"name": "si"}), learner, torch.Generator())
    si.a = torch.ones_like(flat_parameters(learner))
    before = float(si.task_loss().detach())
    si.begin_task(some_task(0))
    optimizer = torch.optim.SGD(learner.parameters(), lr=1e-3)
    for _ in range(300):
        optimizer.zero_grad()
        si.task_loss().backward()
        si.after_backward()
        optimizer.step()
    si._walk()
    assert float(si.path.sum()) == pytest.approx(before - float(si.task_loss().detach()), rel=1e-2)


def test_mas_is_the_mean_absolute_gradient_of_the_squared_norm():
    learner, task = logistic(), some_task()
    mas = method("mas", learner, samples=None)
    mas.end_task(Task(0, task.classes, Doubles(task.train.x, task.train.y), None, task.test))
    expected = torch.zeros_like(mas.importance)
    for image in task.train.x:
        x = image[None].double() / 255
        norm = learner.logits(learner.embed(x), 0).square().sum()
        expected += gradients.gradient_of(norm, learner.parameters()).abs()
    torch.testing.assert_close(mas.importance, expected / len(task.train))


@pytest.mark.parametrize("name", ["ewc", "oewc", "si", "mas"])
def test_the_penalty_is_zero_at_the_anchor_and_pulls_back_to_it(name):
    data = make_data(shape=(1, 8, 8), classes=4)
    tasks = split_by_class(data, [(0, 1), (2, 3)], 0.0, torch.Generator(), CPU)
    torch.manual_seed(0)
    learner = Learner(identity((1, 8, 8)), torch.nn.Linear, "domain", [(0, 1), (2, 3)]).eval()
    penalised = method(name, learner)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
    penalised.begin_task(tasks[0])
    for _ in range(5):
        optimizer.zero_grad()
        total_loss(penalised, *tasks[0].train.batch(slice(None)), tasks[0]).backward()
        penalised.after_backward()
        optimizer.step()
    penalised.end_task(tasks[0])
    assert float(penalised.penalty().detach()) == pytest.approx(0, abs=1e-9)
    anchor = flat_parameters(learner).clone()
    with torch.no_grad():
        for p in learner.parameters():
            p.add_(0.1)
    pull = gradients.gradient_of(penalised.strength * penalised.penalty(), learner.parameters())
    assert (pull * (flat_parameters(learner) - anchor) >= 0).all() and pull.abs().sum() > 0


@pytest.mark.parametrize(("name", "factor"), [("ewc", 0.5), ("oewc", 0.5), ("si", 1.0), ("mas", 1.0)])
def test_the_loss_has_the_penalty_times_its_weight(name, factor):
    learner, task = logistic("domain"), some_task(1)
    penalised, weights = method(name, learner, importance=6.0), move(learner, 1)
    penalised.importance = torch.rand_like(weights)
    terms = penalised.loss(*Doubles(task.train.x, task.train.y).batch(slice(None)), task)
    expected = 6.0 * factor * (penalised.importance * (weights - penalised.anchor).square()).sum()
    torch.testing.assert_close(terms["penalty"], expected)


def test_mas_adds_up_over_tasks():
    learner, single = logistic("domain"), []
    both = method("mas", learner, samples=None)
    for task in (some_task(0), some_task(1)):
        task, alone = replace(task, train=Doubles(task.train.x, task.train.y)), method("mas", learner, samples=None)
        for one in (alone, both):
            one.end_task(task)
        single.append(alone.importance)
    torch.testing.assert_close(both.importance, single[0] + single[1])
