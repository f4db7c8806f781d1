"""LwF, DER, replay and ER against what can be worked out by hand; the memory they share."""

from itertools import pairwise

import pytest
import torch
from conftest import backward, make_method, total_loss, train
from scipy import stats
from torch.nn import functional as F

from datasets.data import as_bytes
from methods.mechanisms.distance import divergence
from methods.mechanisms.memory import Memory, balanced_choice
from models.encoders import paper
from models.learner import HEADS, NO_LOGIT, Learner
from utils.run.evaluation import evaluating

# --- LwF and distillation ------------------------------------------------------------------------------------------


def test_divergence_is_zero_for_equals_and_has_the_cross_entropy_s_gradient():
    torch.manual_seed(0)
    student, teacher = torch.randn(8, 5, requires_grad=True), torch.randn(8, 5)
    assert float(divergence(teacher, teacher, 2.0).mean()) == pytest.approx(0, abs=1e-6)
    for temperature in (1.0, 2.0, 5.0):
        t = temperature
        soft = -(t**2) * ((teacher / t).softmax(1) * (student / t).log_softmax(1)).sum(1).mean()
        (expected,) = torch.autograd.grad(soft, student)
        (found,) = torch.autograd.grad(divergence(student, teacher, t).mean(), student)
        torch.testing.assert_close(found, expected)


def test_temperature_keeps_the_gradient_s_size():
    """For large T the gradient tends to the centred difference of logits over k, whatever T is."""
    torch.manual_seed(0)
    student, teacher = torch.randn(8, 5, requires_grad=True), torch.randn(8, 5)
    difference = (student - teacher).detach()
    expected = (difference - difference.mean(1, keepdim=True)) / 5 / 8
    (found,) = torch.autograd.grad(divergence(student, teacher, 1000.0).mean(), student)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("scenario", ["task", "class", "domain"])
def test_distillation_is_of_the_past_s_outputs_only(tasks, scenario):
    method = make_method("lwf", scenario)
    learner, x, y = method.learner, *tasks[1].train.batch(slice(0, 8))
    with torch.no_grad():  # what belongs to later tasks must not count
        if scenario == "task":
            learner.heads[2][-1].bias.add_(3.0)
        if scenario == "class":
            learner.heads[0][-1].bias[2:].add_(3.0)
    assert float(method.loss(x, y, tasks[1])["distillation"].detach()) == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        learner.heads[0][-1].bias[0].add_(3.0)
    assert float(method.loss(x, y, tasks[1])["distillation"].detach()) > 0.01


def test_lwf_s_teacher_is_frozen_and_is_what_the_learner_was(tasks):
    method = make_method("lwf")
    optimizer = torch.optim.Adam(method.learner.parameters(), lr=1e-2)
    for past, current in pairwise(tasks):  # after each task, not the first alone
        with torch.no_grad():
            method.learner.encoder.projection.weight.mul_(2)
        method.end_task(past)
        was = {key: value.clone() for key, value in method.learner.state_dict().items()}
        for _ in range(3):
            backward(method, current)
            optimizer.step()
        assert not method.teacher.training and not any(module.training for module in method.teacher.modules())
        assert not any(p.requires_grad for p in method.teacher.parameters())
        assert all(torch.equal(value, was[key]) for key, value in method.teacher.state_dict().items())


def test_lwf_at_alpha_one_still_learns_the_current_task(tasks):
    """In the original nothing was left of the current task's loss."""
    method = make_method("lwf", alpha=1.0)
    method.end_task(tasks[0])
    x, y = tasks[1].train.batch(slice(0, 16))
    current = F.cross_entropy(method.learner.logits(method.learner.embed(x), 1), method.learner.columns(y, 1))
    torch.testing.assert_close(total_loss(method, x, y, tasks[1]), current)  # student = teacher: nothing to distil


# --- the memory ------------------------------------------------------------------------------------------------


def numbered(n: int, start: int = 0) -> dict[str, torch.Tensor]:
    y = torch.arange(start, start + n)
    return {"x": torch.zeros(n, 1, 1, 1, dtype=torch.uint8), "y": y}


@pytest.mark.parametrize("batch", [1, 5, 12])
def test_a_reservoir_keeps_everything_with_the_same_probability(batch):
    """Chi-squared over many streams of 12 samples into 3 places."""
    counts, streams, capacity, n = torch.zeros(12), 900, 3, 12
    for seed in range(streams):
        buffer = Memory(capacity, (1, 1, 1), torch.Generator().manual_seed(seed))
        for start in range(0, n, batch):
            buffer.add_reservoir(**numbered(min(batch, n - start), start))
        assert len(buffer) == capacity and len(set(buffer.y.tolist())) == capacity
        counts[buffer.y] += 1
    expected = streams * capacity / n
    # each stream contributes exactly `capacity` hits: the statistic is scaled by (n-1)/(n-capacity)
    statistic = float(((counts - expected) ** 2).sum() / expected) * (n - 1) / (n - capacity)
    assert stats.chi2.sf(statistic, n - 1) > 1e-4


def test_a_reservoir_is_full_as_soon_as_it_can_be():
    buffer = Memory(10, (1, 1, 1), torch.Generator())
    sizes = []
    for start in range(0, 24, 6):
        buffer.add_reservoir(**numbered(6, start))
        sizes.append(len(buffer))
    assert sizes == [6, 10, 10, 10] and buffer.offered == 24


def test_a_balanced_memory_is_balanced_and_exactly_full():
    buffer = Memory(10, (1, 1, 1), torch.Generator())
    for classes in ((0, 1), (2,), (3, 4)):
        y = torch.tensor(classes).repeat_interleave(20)
        buffer.add_balanced(x=torch.zeros(len(y), 1, 1, 1, dtype=torch.uint8), y=y)
        counts = buffer.y[: len(buffer)].bincount()
        counts = counts[counts > 0]
        assert len(buffer) == 10 and len(counts) == max(classes) + 1 and counts.max() - counts.min() <= 1
    y = torch.tensor([0] * 2 + [1] * 50)
    kept = y[balanced_choice(y, 10, torch.Generator())]
    assert kept.bincount().tolist() == [2, 8], "a small class leaves its places to the others"
    assert len(balanced_choice(y, 99, torch.Generator())) == 52


def test_of_more_classes_than_places_a_random_choice_is_kept():
    y = torch.arange(6).repeat_interleave(5)
    counts = torch.zeros(6)
    for seed in range(300):
        kept = y[balanced_choice(y, 4, torch.Generator().manual_seed(seed))]
        assert len(kept.unique()) == len(kept) == 4
        counts[kept] += 1
    assert stats.chi2.sf(float(((counts - 200) ** 2).sum() / 200), 5) > 1e-4


def test_a_balanced_choice_is_random_within_a_class():
    y = torch.tensor([0, 1]).repeat_interleave(10)
    counts = torch.zeros(20)
    for seed in range(600):
        counts[balanced_choice(y, 4, torch.Generator().manual_seed(seed))] += 1
    assert stats.chi2.sf(float(((counts - 120) ** 2).sum() / 120), 18) > 1e-4


def test_what_belongs_to_a_sample_stays_with_it_and_survives_saving():
    buffer = Memory(6, (1, 1, 1), torch.Generator().manual_seed(0), code=1)
    for start in range(0, 60, 10):
        samples = numbered(10, start)
        code = samples["y"][:, None].float()
        buffer.add_reservoir(**{**samples, "x": samples["y"].view(-1, 1, 1, 1).to(torch.uint8), "code": code})
    other = Memory(6, (1, 1, 1), torch.Generator(), code=1)
    other.load_state_dict(buffer.state_dict())
    assert (len(other), other.offered) == (6, 60)
    drawn = other.draw(50)
    torch.testing.assert_close(drawn["code"][:, 0], drawn["y"].float())
    torch.testing.assert_close(drawn["x"].flatten() * 255, drawn["y"].float())


@pytest.mark.parametrize("kind", ["balanced", "reservoir"])
def test_replay_fills_its_memory_as_it_says(tasks, kind):
    method = make_method("replay", buffer=kind, memory_size=30)
    for task in tasks:
        method.end_task(task)
        assert method.stored_real_samples == 30
    counts = method.memory.y.bincount(minlength=6)
    assert (counts == 5).all() if kind == "balanced" else counts.min() >= 1


@pytest.mark.parametrize(("seen", "expected"), [(1, 1 / 2), (2, 2 / 3)])
def test_replay_weighs_the_past_by_the_tasks_seen(tasks, seen, expected):
    losses = {}
    for share in (None, 0.0, 0.25, 1.0):
        one = make_method("replay", share=share, memory_size=12)
        for past in tasks[:seen]:
            one.end_task(past)
        losses[share] = float(total_loss(one, *tasks[seen].train.batch(slice(0, 16)), tasks[seen]).detach())
    for share, weight in ((None, expected), (0.25, 0.25)):
        assert losses[share] == pytest.approx((1 - weight) * losses[0.0] + weight * losses[1.0])


@pytest.mark.parametrize("scenario", ["task", "class", "domain"])
def test_der_stores_the_logits_of_the_moment_of_insertion(tasks, scenario):
    method = make_method("der", scenario, dropout=0.5, memory_size=16)
    x, y = tasks[0].train.batch(slice(0, 16))
    with evaluating(method.learner):  # without dropout
        then = method.learner.logits(method.learner.embed(x), 0).detach()
    total_loss(method, x, y, tasks[0])
    assert method.learner.training and all(part.training for part in method.learner.modules())
    with torch.no_grad():
        for p in method.learner.parameters():
            p.mul_(1.5)
    assert torch.equal(method.memory.x, as_bytes(x)) and torch.equal(method.memory.y, y)
    torch.testing.assert_close(method.memory.logits[:, : then.shape[1]], then)


def test_der_s_loss_is_the_paper_s(tasks):
    """alpha * squared error of logits + beta * cross-entropy, and nothing while logits are what they were."""
    plain = make_method("der", alpha=0.0, beta=0.0)
    x, y = tasks[1].train.batch(slice(0, 16))
    current = total_loss(plain, x, y, tasks[1]).detach()
    der = make_method("der", alpha=2.0, beta=0.0, memory_size=48)
    total_loss(der, *tasks[0].train.batch(slice(None)), tasks[0])
    torch.testing.assert_close(total_loss(der, x, y, tasks[1]).detach(), current)
    with torch.no_grad():
        der.memory.logits.add_(0.5)  # as if every logit had drifted by 1/2
    torch.testing.assert_close(total_loss(der, x, y, tasks[1]).detach(), current + 2.0 * 0.25)
    plus = make_method("der", alpha=0.0, beta=3.0, memory_size=48)
    total_loss(plus, *tasks[0].train.batch(slice(None)), tasks[0])
    past = (total_loss(plus, x, y, tasks[1]).detach() - current) / 3
    assert 0.5 < float(past) < 1.0  # an untrained head of two classes: about log 2


def test_logits_of_uneven_heads_are_padded_alike():
    torch.manual_seed(0)
    learner = Learner(paper.build((1, 28, 28), 20), HEADS["paper"](0.0), "task", [(0, 1, 2), (3, 4)])
    z = torch.randn(2, 20)
    mixed = learner.mixed_logits(z, torch.tensor([1, 4]))
    torch.testing.assert_close(mixed[0], learner.logits(z, 0)[0])
    torch.testing.assert_close(mixed[1, :2], learner.logits(z, 1)[1])
    assert mixed[1, 2] == NO_LOGIT and learner.widths == [3, 2]


def test_er_holds_embeddings_to_what_was_stored_with_them(tasks):
    for normalize in (False, True):
        method = make_method("er", distance="euclidean", normalize=normalize, importance=2.0, memory_per_task=10)
        method.end_task(tasks[0])
        x, y = tasks[1].train.batch(slice(0, 16))
        current = F.cross_entropy(method.learner.logits(method.learner.embed(x), 1), method.learner.columns(y, 1))
        torch.testing.assert_close(total_loss(method, x, y, tasks[1]), current, atol=1e-4, rtol=0)
        with torch.no_grad():
            method.memory.embedding.mul_(3.0)
        grown = total_loss(method, x, y, tasks[1]) - current
        stored = method.memory.embedding[:10]
        expected = 0.0 if normalize else 2.0 * float((stored * 2 / 3).norm(dim=1).mean())
        assert float(grown.detach()) == pytest.approx(expected, rel=0.2, abs=1e-3)


@pytest.mark.parametrize(("scenario", "heads", "columns"), [("task", [0, 1], 2), ("class", [0], 4), ("domain", [0], 2)])
def test_lwf_s_loss(tasks, scenario, heads, columns):
    lwf = make_method("lwf", scenario, alpha=3.0, temperature=4.0)
    lwf.end_task(tasks[1])
    learner, teacher, (x, y) = lwf.learner, lwf.teacher, tasks[2].train.batch(slice(0, 16))
    with torch.no_grad():
        for p in learner.parameters():
            p.add_(0.1 * torch.randn_like(p))
    terms, z, before = lwf.loss(x, y, tasks[2]), learner.embed(x), teacher.embed(x)
    pairs = [(learner.heads[h](z)[:, :columns], teacher.heads[h](before)[:, :columns]) for h in heads]
    past = torch.stack([divergence(*pair, 4.0).mean() for pair in pairs])
    torch.testing.assert_close(terms["distillation"], 3.0 * past.mean())
    torch.testing.assert_close(terms["cross_entropy"], lwf.cross_entropy(z, y, tasks[2]))


def test_columns_that_were_not_there_when_der_stored_an_image_count_as_equal(tasks):
    der = make_method("der", "class", alpha=1.0, beta=0.0, memory_size=48)
    for seen, task in enumerate(tasks[:2], start=1):
        der.learner.see(seen)
        terms = der.loss(*task.train.batch(slice(None)), task)
    assert float(terms["logits"].detach()) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", ["replay", "er", "agem", "der", "er_ace"])
def test_stored_images_are_kept_as_they_are_and_augmented_when_they_are_used(tasks, name):
    method = make_method(name)
    real = {image.numpy().tobytes() for image in tasks[0].train.x}
    given, method.augmentation = [], lambda x: (given.append(x), x.flip(3))[1]
    train(method, tasks[0])
    assert all(image.numpy().tobytes() in real for image in method.memory.x[: len(method.memory)])
    given.clear()
    train(method, tasks[1], steps=1)
    assert len(given) >= 2
    drawn = [image for x in given[1:] for image in (x * 255).round().to(torch.uint8)]
    assert any(image.numpy().tobytes() in real for image in drawn), "images of the first task are augmented again"
