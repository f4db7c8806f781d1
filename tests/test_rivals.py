"""ER-ACE, iCaRL, GDumb and PackNet against what their papers say, worked out by hand or by brute force."""

from itertools import combinations

import pytest
import torch
from conftest import make_method, step, train
from torch.nn import functional as F

from datasets.data import Task
from methods.icarl import herd
from methods.mechanisms.distance import divergence
from methods.packnet import FREE
from models.encoders import resnet18
from utils.run.evaluation import evaluating
from utils.settings import BadInput


def begun(name: str, scenario: str, tasks: list[Task], **options):
    """A method that has learned the first task and begun the second, whose learner has moved since."""
    method = make_method(name, scenario, **options)
    train(method, tasks[0])
    method.learner.see(1)
    with evaluating(method.learner):
        task = method.begin_task(tasks[1])
    method.learner.see(2)
    with torch.no_grad():
        for p in method.learner.parameters():
            p.add_(0.02 * torch.randn_like(p))
    return method, task


# --- ER-ACE


@pytest.mark.parametrize("only_seen", [True, False])
def test_er_ace_s_softmax_is_over_the_classes_of_the_batch_and_of_the_memory_over_all(tasks, only_seen):
    method, task = begun("er_ace", "class", tasks, sample_size=5)
    learner = method.learner
    learner.only_seen = only_seen
    alone = method.loss(*task.train.batch(task.train.y == 2), task)
    assert float(alone["cross_entropy"].detach()) == 0 < float(alone["replay"].detach()), "one class alone"
    both, state = task.train.batch(slice(None, None, 4)), method.stream.get_state()
    stored = method.memory.draw(5)
    method.stream.set_state(state)
    terms = method.loss(*both, task)
    columns = learner.heads[0](learner.embed(both[0]))[:, [2, 3]]  # without those of classes before and to come
    torch.testing.assert_close(terms["cross_entropy"], F.cross_entropy(columns, both[1] - 2))
    seen = learner.heads[0](learner.embed(stored["x"]))[:, : 4 if only_seen else 6]
    torch.testing.assert_close(terms["replay"], F.cross_entropy(seen, stored["y"]))


def test_er_ace_s_new_classes_do_not_push_old_ones_away(tasks):
    """Current images give columns of old classes no gradient; in `replay` they do."""
    for name, pushed in (("replay", True), ("er_ace", False)):
        method, task = begun(name, "class", tasks)
        method.learner.zero_grad()
        method.loss(*task.train.batch(slice(None, None, 4)), task)["cross_entropy"].backward()
        gradient = method.learner.heads[0][-1].weight.grad.abs().sum(dim=1)
        assert bool((gradient[:2] > 0).all()) is pushed and (gradient[2:4] > 0).all()


# --- iCaRL


@pytest.mark.parametrize("n", [1, 4, 7])
def test_herding_is_the_greedy_choice(n):
    """By brute force: of all that are left, the next one brings the mean of those chosen nearest to that of all."""
    z = F.normalize(torch.randn(7, 3, generator=torch.Generator().manual_seed(n), dtype=torch.double))
    chosen = list[int]()
    for _ in range(n):
        rest = [i for i in range(7) if i not in chosen]
        chosen.append(min(rest, key=lambda i: float((z[[*chosen, i]].mean(0) - z.mean(0)).norm())))
    assert herd(z, n).tolist() == chosen and sorted(herd(z, 9).tolist()) == [*range(7)]


def test_herding_is_better_than_most_choices():
    z = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    errors = sorted(float((z[list(some)].mean(0) - z.mean(0)).norm()) for some in combinations(range(10), 3))
    assert float((z[herd(z, 3)].mean(0) - z.mean(0)).norm()) < errors[len(errors) // 10]


def test_exemplars_are_bounded_and_cut_to_the_first_of_their_class(tasks):
    method, before = make_method("icarl", "class", memory_size=20), {}
    for task in tasks:
        train(method, task)
        held = {c: method.stored().x[method.stored().y == c] for c in method.stored().y.unique().tolist()}
        each = 20 // (2 * task.index + 2)
        assert {c: len(x) for c, x in held.items()} == dict.fromkeys(range(2 * task.index + 2), each)
        assert all(torch.equal(held[c], x[:each]) for c, x in before.items())
        assert not method.memory.x[len(method.memory) :].any(), "places that are free hold no image"
        before = held
    with pytest.raises(BadInput, match="at least one per class, 6, got 5"):
        make_method("icarl", "class", memory_size=5)


@torch.no_grad()
@pytest.mark.parametrize("scenario", ["task", "class", "domain"])
def test_icarl_predicts_the_nearest_mean_of_exemplars(tasks, scenario):
    method = make_method("icarl", scenario, memory_size=24)
    with torch.enable_grad():
        for task in tasks:
            train(method, task)
    method.learner.eval()
    stored, x = method.stored(), tasks[1].test.batch(slice(None))[0]
    means = [F.normalize(method.embed(stored.batch(stored.y == c)[0])).mean(dim=0) for c in range(6)]
    distances = torch.cdist(F.normalize(method.embed(x)), F.normalize(torch.stack(means)))
    may = {"task": [2, 3], "class": range(6), "domain": range(6)}[scenario]
    nearest = torch.tensor([min(may, key=lambda c: float(row[c])) for row in distances])
    expected = nearest % 2 + 2 if scenario == "domain" else nearest
    assert torch.equal(method.predict(x, 1), expected)


@pytest.mark.parametrize("scenario", ["task", "class", "domain"])
def test_icarl_s_loss(tasks, scenario):
    method, task = begun("icarl", scenario, tasks, distillation=3.0)
    assert len(task.train) == len(tasks[1].train) + len(method.memory) and task.classes == (0, 1, 2, 3)
    learner, (teacher,) = method.learner, method.teacher
    x, y = task.train.batch(slice(None, None, 5))
    terms, new, old = method.loss(x, y, task), learner.embed(x), teacher.embed(x)
    torch.testing.assert_close(terms["cross_entropy"], learner.cross_entropy(new, y).mean())
    logits, answers = learner.heads[0](new), teacher.heads[0](old)
    expected = divergence(logits[:, :2], answers[:, :2], 2.0).mean()
    torch.testing.assert_close(terms["distillation"], 3 * expected)


# --- GDumb


def test_gdumb_trains_new_weights_on_a_balanced_memory_alone(tasks):
    method = make_method("gdumb", "class", memory_size=10)
    untrained = {name: value.clone() for name, value in method.learner.state_dict().items()}
    for task in tasks:
        with evaluating(method.learner):
            training = method.begin_task(task)
        assert all(torch.equal(value, untrained[name]) for name, value in method.learner.state_dict().items())
        counts = training.train.y.bincount()
        assert len(training.train) == 10 and len(counts) == 2 * task.index + 2 and counts.max() - counts.min() <= 1
        real = {image.numpy().tobytes() for seen in tasks[: task.index + 1] for image in seen.train.x}
        assert all(image.numpy().tobytes() in real for image in training.train.x)
        train(method, task)
        assert method.stored_real_samples == 10


# --- PackNet


def logits_of(method, tasks: list[Task], task: int) -> torch.Tensor:
    """What the head of a task says of its test images, in evaluation mode."""
    with evaluating(method.learner), torch.no_grad():
        return method.learner.logits(method.embed_for(tasks[task].test.batch(slice(None))[0], task), task)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "weight_decay": 0.1}])
@pytest.mark.parametrize("encoder", ["paper", "resnet18"])
def test_outputs_of_old_tasks_do_not_change_by_a_bit(tasks, monkeypatch, encoder, options):
    """Not with an optimizer that moves weights without a gradient, nor with batch normalisation."""
    if encoder == "resnet18":
        monkeypatch.setattr("conftest.paper.build", lambda shape, size: resnet18.build(shape, size, filters=4))
    method = make_method("packnet", dropout=0.5, retraining={"epochs": 1})
    optimizer, said = torch.optim.SGD(method.learner.parameters(), lr=0.01, **options), list[torch.Tensor]()
    for task in tasks:
        with evaluating(method.learner):
            method.begin_task(task)
        for _ in range(3):
            step(method, optimizer, task, torch.Generator())
            assert all(torch.equal(logits_of(method, tasks, t), before) for t, before in enumerate(said)), "in a task"
        with evaluating(method.learner):
            method.end_task(task)
        assert all(torch.equal(logits_of(method, tasks, t), before) for t, before in enumerate(said))
        said.append(logits_of(method, tasks, task.index))
        assert len(said) < 2 or not torch.equal(logits_of(method, tasks, 0), logits_of(method, tasks, 1))


def test_a_task_owns_the_largest_of_its_weights_and_changes_no_others(tasks):
    method = make_method("packnet", prune=0.75)
    layers = [p.dim() > 1 for p in method.learner.encoder.parameters()]
    sizes = [p.numel() for p in method.learner.encoder.parameters()]
    for task in tasks:
        before = [p.detach().clone() for p in method.learner.encoder.parameters()]
        train(method, task, end=False)
        trained = [p.detach().clone() for p in method.learner.encoder.parameters()]
        with evaluating(method.learner):
            method.end_task(task)
        after, owners = [*method.learner.encoder.parameters()], method.owner.split(sizes)
        for old, mid, new, owner, layer in zip(before, trained, after, owners, layers, strict=True):
            owner = owner.view_as(new)
            assert torch.equal(old[owner < task.index], new[owner < task.index])
            assert not new[owner == FREE].any(), "what no task owns is 0"
            if layer:
                own, free = (owner == task.index).sum(), (owner == FREE).sum()
                assert free == int(0.75 * (own + free)), "a quarter of what was free"
                assert mid[owner == task.index].abs().min() >= mid[owner == FREE].abs().max()
            else:
                assert (owner == 0).all()


def test_packnet_retrains_what_it_keeps(tasks):
    losses = []
    for epochs in (0, 20):
        method = make_method("packnet", prune=0.75, retraining={"epochs": epochs, "batch_size": 16})
        train(method, tasks[0], steps=60, lr=3e-3)
        x, y = tasks[0].train.batch(slice(None))
        with torch.no_grad():
            losses.append(float(F.cross_entropy(method.logits(x, 0), method.learner.columns(y, 0))))
    assert losses[1] < 0.8 * losses[0], losses
