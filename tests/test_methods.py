"""What every method is held to, whatever file it is in: one suite over methods/*.py."""

import copy
from dataclasses import replace

import pytest
import torch
from conftest import make_method, train

import methods
from methods import find, known
from utils.run.evaluation import evaluating
from utils.settings import BadInput

pytestmark = pytest.mark.usefixtures("quick_health")
SCENARIOS = ["task", "class", "domain"]
EVERYWHERE = [(name, scenario) for name in known() for scenario in find(name)[0].scenarios]
SWITCHED = [(name, scenario) for name, scenario in EVERYWHERE if find(name)[0].off]
TRAINED = [name for name in known() if find(name)[0].trains]
PRUNING = {"packnet"}
"""Methods whose `end_task` changes the classifier."""


@pytest.fixture
def tasks(request, tasks, feature_tasks):
    """What the method of the test works on: images, or else features."""
    return feature_tasks if find(request.node.callspec.params["name"])[0].works_on == "features" else tasks


def weights(method) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in method.learner.parameters()])


@pytest.mark.parametrize(("name", "scenario"), SWITCHED)
def test_switched_off_it_is_naive_bit_for_bit(tasks, name, scenario):
    """Dropout is on: a method that draws from the global generator would be found out too."""
    off = find(name)[0].off
    on = find(name)[0].works_on
    runs = [make_method("naive", scenario, dropout=0.5, on=on), make_method(name, scenario, dropout=0.5, **off)]
    for method in runs:
        torch.manual_seed(1)
        for task in tasks:
            train(method, task)
    assert torch.equal(weights(runs[0]), weights(runs[1]))


@pytest.mark.parametrize(("name", "scenario"), [pair for pair in EVERYWHERE if pair[0] in TRAINED])
def test_it_changes_nothing_on_the_first_task_and_something_on_the_second(tasks, name, scenario):
    naive, method = make_method("naive", scenario, on=find(name)[0].works_on), make_method(name, scenario)
    for each in (naive, method):
        train(each, tasks[0], end=name not in PRUNING)
    assert torch.equal(weights(naive), weights(method)), "the first task"
    if name in PRUNING:
        with evaluating(method.learner):
            method.end_task(tasks[0])
    for each in (naive, method):
        train(each, tasks[1], steps=5)
    assert torch.isfinite(weights(method)).all()
    assert torch.equal(weights(naive), weights(method)) == (name == "naive"), "the second task"


def test_a_scenario_that_a_method_does_not_serve_is_refused_in_one_line():
    for name in known():
        for scenario in set(SCENARIOS) - set(find(name)[0].scenarios):
            with pytest.raises(BadInput, match=rf"^scenario.type: {name} works with \w+ only, got {scenario}$"):
                make_method(name, scenario)


@pytest.mark.parametrize("name", known())
def test_saved_and_loaded_between_tasks_it_goes_on_the_same(tasks, name):
    one, other = make_method(name), make_method(name)
    train(one, tasks[0])
    train(one, tasks[1])
    other.learner.load_state_dict(one.learner.state_dict())
    state = copy.deepcopy(one.state_dict())
    other.load_state_dict(state)
    other.stream.set_state(one.stream.get_state())
    for method in (one, other):
        torch.manual_seed(2)
        train(method, tasks[2])
    assert torch.equal(weights(one), weights(other))
    after = one.state_dict(), other.state_dict()
    assert after[0].keys() == after[1].keys()
    for key, value in after[0].items():
        same = torch.equal(value, after[1][key]) if isinstance(value, torch.Tensor) else value == after[1][key]
        assert same, key


@pytest.mark.parametrize("name", known())
def test_its_state_is_plain_and_holds_the_real_samples_it_declares(tasks, name, tmp_path):
    method = make_method(name)
    real = {image.numpy().tobytes() for task in tasks for image in task.train.x}
    for count, task in enumerate(tasks, start=1):
        train(method, task)
        torch.save(method.state_dict(), tmp_path / "state.pt")
        state = torch.load(tmp_path / "state.pt", weights_only=True)
        images = [t for t in state.values() if isinstance(t, torch.Tensor) and t.shape[1:] == (1, 28, 28)]
        as_bytes = [t if t.dtype == torch.uint8 else (t * 255).round().to(torch.uint8) for t in images]
        held = sum(image.numpy().tobytes() in real for stack in as_bytes for image in stack)
        assert held == method.stored_real_samples, f"after {count} tasks"


@pytest.mark.parametrize(("name", "scenario"), [pair for pair in EVERYWHERE if find(pair[0])[0].works_on == "all"])
def test_on_features_it_learns_and_stores_as_on_images(feature_tasks, name, scenario):
    method = make_method(name, scenario, on="features")
    real = {sample.numpy().tobytes() for task in feature_tasks for sample in task.train.x}
    for task in feature_tasks[:2]:
        train(method, task, steps=40, lr=1e-2)
    x, y = feature_tasks[1].test.batch(slice(None))
    assert torch.isfinite(weights(method)).all()
    if scenario == "task":  # in the others few steps are not enough for every method
        assert (method.predict(x, 1) == y).float().mean() > 0.7
    states = [t for t in method.state_dict().values() if isinstance(t, torch.Tensor) and t.shape[1:] == (64,)]
    held = sum(sample.numpy().tobytes() in real for t in states for sample in t)
    assert held == method.stored_real_samples


def undocumented(settings):
    """The keys of a section, and of the sections in it, without a description."""
    for name, field in settings.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            yield from undocumented(field.annotation)
        if not field.description:
            yield f"{settings.__name__}.{name}"


@pytest.mark.parametrize("name", known())
def test_it_describes_itself(tasks, name):
    method = make_method(name, **({"predict": "flow"} if name == "prer_features" else {}))  # it has most to tell
    train(method, tasks[0])
    train(method, tasks[1])
    numbers = method.diagnostics([task.test for task in tasks[:2]])
    assert all(isinstance(value, float) for value in numbers.values())
    assert set(method.diagnosed) <= {key.split("/")[0] for key in numbers}
    for grid in method.pictures(tasks[1]).values():
        assert all(images.ndim == 4 and images.min() >= 0 and images.max() <= 1 for _, images in grid.rows)
    assert vars(type(method)).get("title"), "its own, not one that it inherits"
    assert type(method).__doc__ and type(method).__module__ == f"methods.{name}"
    assert list(undocumented(type(method.config))) == []


@pytest.mark.parametrize("name", TRAINED)
def test_the_loss_reaches_the_encoder_and_the_current_head_in_every_task(tasks, name):
    """The loss reaches the trainable part of the encoder and the current head, in every task."""
    method = make_method(name)
    for task in tasks:
        train(method, task, steps=1, end=False)
        encoder = method.learner.encoder
        trained = [p for p in encoder.parameters() if p.dim() > 1 or name not in PRUNING or task.index == 0]
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained), "biases are the first task's"
        assert method.learner.heads[task.index][-1].weight.grad.abs().sum() > 0
        with evaluating(method.learner):
            method.end_task(task)


@pytest.mark.parametrize(
    "text, told",
    [
        ("def f(:\n", "invalid syntax"),
        ("import not_there\n", "No module named 'not_there'"),
        ("x = y\n", "'y' is not"),
        ("x = 1 / 0\n", "division by zero"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named(tmp_path, monkeypatch, text, told):
    monkeypatch.setattr(methods, "__path__", [str(tmp_path), *methods.__path__])
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(BadInput, match=rf"broken\.py: cannot be imported \(\w+: .*{told}"):
        find("broken")


@pytest.mark.parametrize("name", ["naive"])
def test_a_loss_that_is_no_dict_is_told(tasks, monkeypatch, name):
    method = make_method(name)
    monkeypatch.setattr(type(method), "loss", lambda self, x, y, task: 3)
    with pytest.raises(TypeError, match=r"Naive.loss must return a dict .*; it returned int"):
        train(method, tasks[0])


@pytest.mark.parametrize("name", known())
def test_it_never_looks_at_dev_or_test_data(tasks, feature_tasks, name):
    tasks = feature_tasks if find(name)[0].works_on == "features" else tasks
    one = make_method(name)
    for task in tasks[:2]:
        train(one, replace(task, dev=object(), test=object()), steps=1)
