"""GEM and A-GEM against what can be worked out by hand."""

from itertools import combinations

import pytest
import torch
from conftest import backward, make_method, train
from torch.nn import functional as F

from methods.agem import project as project_one
from methods.gem import project
from methods.mechanisms.gradients import flat_gradients, gradient_of, set_gradients

# --- GEM ---------------------------------------------------------------------------------------------------------


def exact_projection(g, memories):
    """The same quadratic programme by trying every set of active constraints: exact, for a few memories."""
    best = None
    for size in range(len(memories) + 1):
        for active in combinations(range(len(memories)), size):
            rows = memories[list(active)]
            candidate = g - rows.T @ torch.linalg.pinv(rows @ rows.T) @ (rows @ g) if size else g
            feasible = (memories @ candidate >= -1e-9 * memories.norm(dim=1) * g.norm()).all()
            if feasible and (best is None or (candidate - g).norm() < (best - g).norm()):
                best = candidate
    return best


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_gem_finds_the_nearest_vector_that_opposes_no_memory(count, seed):
    torch.manual_seed(seed)
    g, memories = torch.randn(30).double(), torch.randn(count, 30).double() - 0.3
    found = project(g, memories)
    assert (memories @ found).min() >= -1e-6
    torch.testing.assert_close(found, exact_projection(g, memories), rtol=1e-4, atol=1e-4)


def test_gem_with_zero_duplicate_and_opposed_memories():
    torch.manual_seed(0)
    g, m = torch.randn(20).double(), torch.randn(20).double()
    m = m if g @ m < 0 else -m
    once = project(g, m[None])
    torch.testing.assert_close(project(g, torch.stack([m, m])), once, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(project(g, torch.stack([m, torch.zeros(20).double()])), once, rtol=1e-4, atol=1e-5)
    opposed = project(g, torch.stack([m, -m]))
    assert abs(opposed @ m) <= 1e-6 * m.norm() * g.norm()
    torch.testing.assert_close(opposed, g - (g @ m) / (m @ m) * m, rtol=1e-4, atol=1e-5)
    assert torch.equal(project(g, torch.zeros(2, 20).double()), g)


def test_gem_keeps_the_margin():
    torch.manual_seed(0)
    g = torch.randn(20).double()
    memories = -g[None] + 0.5 * torch.randn(2, 20).double()
    plain, wide = project(g, memories), project(g, memories, margin=0.5)
    assert (memories @ wide >= memories @ plain - 1e-9).all() and (memories @ wide).sum() > (memories @ plain).sum()


def test_gem_says_when_there_is_no_solution():
    assert project(torch.ones(3), torch.full((2, 3), float("nan"))) is None


def learned(name, tasks, **options):
    """The method after one task that pulled its one head to class positions 0 and 1."""
    method = make_method(name, "domain", **options)
    optimizer = torch.optim.Adam(method.learner.parameters(), lr=3e-3)
    method.begin_task(tasks[0])
    for _ in range(10):
        backward(method, tasks[0])
        optimizer.step()
    method.end_task(tasks[0])
    return method


def memory_gradients(method, tasks_seen):
    rows = []
    for index in range(tasks_seen):
        kept = method.memory.x[: len(method.memory)], method.memory.y[: len(method.memory)]
        own = method.learner.task_of[kept[1]] == index
        x, y = kept[0][own].float() / 255, kept[1][own]
        method.learner.zero_grad()
        F.cross_entropy(method.learner.logits(method.learner.embed(x), index), method.learner.columns(y, 0)).backward()
        rows.append(flat_gradients(method.learner.parameters()).clone())
    return torch.stack(rows)


def test_gem_leaves_a_step_that_violates_nothing_as_it_is(tasks):
    method = learned("gem", tasks)
    method.begin_task(tasks[1])
    method.learner.zero_grad()
    method._gradient_of(0, list(method.learner.parameters()))  # leaves .grad alone
    x, y = method.past[0].batch(slice(None))
    F.cross_entropy(method.learner.logits(method.learner.embed(x), 0), method.learner.columns(y, 0)).backward()
    before = flat_gradients(method.learner.parameters()).clone()
    method.after_backward()
    assert torch.equal(before, flat_gradients(method.learner.parameters()))
    assert method.counts.tolist() == [1, 0, 0]


def test_gem_s_step_opposes_no_memory_over_the_whole_gradient(tasks):
    method = learned("gem", tasks, memory_per_task=20)
    method.end_task(tasks[1])
    method.begin_task(tasks[2])
    before = backward(method, tasks[2])
    memories = memory_gradients(method, 2)
    if (memories @ before >= 0).all():  # make it violate
        before = -before
    set_gradients(method.learner.parameters(), before)
    method.after_backward()
    after = flat_gradients(method.learner.parameters())
    assert method.counts.tolist() == [1, 1, 0]
    assert (memories @ after).min() >= -1e-6 * float(memories.norm() * before.norm())
    assert not torch.equal(before, after)


def test_gem_holds_its_memory_once_between_tasks(tasks):
    method = learned("gem", tasks)
    train(method, tasks[1])
    assert method.past == [] and len(method.memory) > 0


def test_gem_keeps_the_current_head_s_gradient(tasks):
    """The original projected each tensor by itself and dropped the current head's gradient."""
    method = make_method("gem", "task")
    method.end_task(tasks[0])
    method.begin_task(tasks[1])
    backward(method, tasks[1])
    head = [p.grad.clone() for p in method.learner.heads[1].parameters()]
    encoder = method.learner.encoder.projection.weight
    reference = method._gradient_of(0, list(method.learner.parameters()))
    offset = sum(p.numel() for p in method.learner.encoder.features.parameters())
    encoder.grad = -10 * reference[offset : offset + encoder.numel()].view_as(encoder)  # violates for certain
    method.after_backward()
    assert method.counts.tolist() == [1, 1, 0]
    for before, p in zip(head, method.learner.heads[1].parameters(), strict=True):
        torch.testing.assert_close(p.grad, before)


# --- A-GEM -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gem", "agem"])
def test_a_fixed_layer_of_the_encoder_stays_as_it_is(tasks, name):
    method = make_method(name, "domain")
    fixed = next(method.learner.parameters()).requires_grad_(False)
    before = fixed.clone()
    for task in tasks[:2]:
        train(method, task, steps=5)
    assert torch.equal(fixed, before) and fixed.grad is None and len(method.memory)


def test_agem_is_the_closed_form():
    torch.manual_seed(0)
    g, r = torch.randn(50), torch.randn(50)
    r = r if g @ r < 0 else -r
    found = project_one(g, r)
    torch.testing.assert_close(found, g - (g @ r) / (r @ r) * r)
    assert abs(float(found @ r)) < 1e-4
    assert torch.equal(project_one(g, -r), g)
    assert torch.equal(project_one(g, torch.zeros(50)), g)


def test_agem_counts_the_steps_that_opposed_the_memory(tasks):
    method = learned("agem", tasks)
    method.begin_task(tasks[1])
    learner, parameters = method.learner, list(method.learner.parameters())
    for sign in (-1, 1):
        state, stored = method.stream.get_state(), method.memory.draw(16)
        method.stream.set_state(state)
        reference = gradient_of(learner.cross_entropy(learner.embed(stored["x"]), stored["y"]).mean(), parameters)
        set_gradients(parameters, sign * reference)
        method.after_backward()
        left = reference if sign > 0 else torch.zeros_like(reference)
        torch.testing.assert_close(flat_gradients(parameters), left, atol=1e-6, rtol=0)
        assert int(method.violations) == 1
    assert method.diagnostics([]) == {"violations": 0.5}
