"""PRER's generator: what it learns, keeps and makes up, and how it is fitted."""

import copy
from dataclasses import replace
from itertools import count

import pytest
import torch
from conftest import SMALL, SMALL_PRER, make_features, make_prer, train
from torch.nn import functional as F

import flows
from datasets.data import Split, concatenate, mapped
from flows import gaussian
from methods.mechanisms.distance import frechet
from models.autoencoder import RECONSTRUCTION_LOSSES, pixel_cross_entropy
from models.code_flow import CodeFlow, Condition
from models.encoders.paper import BlockwiseTranspose
from models.fitting import Journal, Objective, class_weights, fit
from utils.run.evaluation import evaluating
from utils.settings import BadInput, find, modules, options_of

pytestmark = pytest.mark.usefixtures("quick_health")


def test_the_decoder_keeps_old_classes(tasks):
    """The original fitted the decoder on the current task only, and old classes decayed."""
    method = make_prer(autoencoder={"epochs": 20, "batch_size": 16}, flow={"epochs": 10})
    train(method, tasks[0])
    forgetful, stream = copy.deepcopy(method.autoencoder), torch.Generator().manual_seed(1)
    y = torch.arange(60) % 2
    with_past = concatenate(tasks[1].train, Split(method.generate(y)[0], y))
    for autoencoder, pool in ((method.autoencoder, with_past), (forgetful, tasks[1].train)):
        autoencoder.fit(mapped(method.features, pool.x), pool, stream)
    x, y = tasks[0].test.batch(slice(None))
    kept = float((method.reconstruct(x, y) - x).square().mean())
    method.autoencoder = forgetful
    lost = float((method.reconstruct(x, y) - x).square().mean())
    assert kept < 0.8 * lost


def test_generated_images_bear_global_labels_and_depend_on_them(tasks):
    """The original sampled with global labels what it had fitted with task-local ones."""
    method = make_prer(
        autoencoder={"epochs": 20, "batch_size": 16, "lr": 5e-3},
        flow={"epochs": 20, "batch_size": 16, "lr": 5e-3},
        regularization={"fixed_replay": 60},
    )
    train(method, tasks[0], steps=20)
    train(method, tasks[1], steps=20)
    y = torch.tensor([1, 2] * 30)
    made = method.generate(y)[0]
    for c in (1, 2):
        mean = made[y == c].float().mean(0)
        nearest = min(range(4), key=lambda k: float((mean - mean_of(tasks, k)).square().sum()))
        assert nearest == c


def mean_of(tasks, c):
    task = next(task for task in tasks if c in task.classes)
    return task.train.x[task.train.y == c].float().mean(0)


@pytest.mark.parametrize(
    ("rec_loss", "conditioning"),
    [(loss, "one_hot") for loss in RECONSTRUCTION_LOSSES] + [("bce", "none"), ("bce", "class_embedding")],
)
def test_every_loss_and_conditioning_runs_and_every_part_learns(tasks, rec_loss, conditioning):
    """`rec_loss: gaussian` and a missing conditioning crashed the original."""
    method = make_prer(
        autoencoder={"rec_loss": rec_loss, "conditioning": {"type": conditioning}},
        flow={"conditioning": {"type": conditioning, "dimension": 3}},
    )
    before = copy.deepcopy(method.state_dict())
    train(method, tasks[0])
    after = method.state_dict()
    for part in ("autoencoder.projection", "autoencoder.decoder.", "flow.flow."):
        assert any(not torch.equal(before[k], after[k]) for k in before if k.startswith(part))
    for name in ("autoencoder.condition", "flow.condition"):
        vectors = f"{name}.vectors.weight"
        assert (vectors in after) == (conditioning == "class_embedding")
        assert vectors not in after or not torch.equal(before[vectors], after[vectors])
    assert all(torch.isfinite(value).all() for value in after.values())


def test_the_encoder_is_read_not_trained_by_the_generator(tasks):
    method = make_prer()
    method.begin_task(tasks[0])
    before = copy.deepcopy(method.learner.state_dict())
    method.end_task(tasks[0])
    assert all(torch.equal(before[key], value) for key, value in method.learner.state_dict().items())
    assert all(p.grad is None for p in method.learner.parameters())
    assert not any(key.startswith(("learner", "encoder")) for key in method.state_dict())


def test_reset_begins_each_fit_with_new_weights(tasks):
    method = make_prer(flow={"reset": True, "epochs": 0}, autoencoder={"reset": True, "epochs": 0})
    train(method, tasks[0])
    before = copy.deepcopy(method.state_dict())
    train(method, tasks[1])
    after = method.state_dict()
    changed = {".".join(key.split(".")[:2]) for key in before if not torch.equal(before[key], after[key])}
    assert {"autoencoder.decoder", "flow.flow"} <= changed and "autoencoder.projection" not in changed


@pytest.mark.parametrize("name", modules(flows, "build"))
def test_every_flow_by_name_runs(tasks, name, monkeypatch):
    known = options_of(find(flows, name, "build").build).model_fields
    lacking = {"blocks", "hidden_size"} - known.keys()
    flow = {key: value for key, value in SMALL_PRER["flow"].items() if key not in lacking}
    monkeypatch.setitem(SMALL, "prer", {**SMALL_PRER, "flow": {**flow, "type": name}})
    method = make_prer()
    for task in tasks[:2]:
        train(method, task)
    assert all(torch.isfinite(torch.tensor(value)) for value in method.diagnostics([]).values())


def test_samples_that_are_not_finite_or_far_out_are_drawn_again_and_counted(tasks):
    method = make_prer()
    train(method, tasks[0])
    flow, y = method.flow, torch.tensor([0, 1] * 50)
    inner, calls = flow.flow.sample, []

    def broken(condition, temperature, stream):
        z = inner(condition, temperature, stream)
        calls.append((len(condition), temperature))
        if len(calls) == 1:
            z[3], z[7, 0], z[11] = torch.nan, torch.inf, 1e6
        return z

    before = int(flow.redrawn)
    flow.flow.sample = broken
    z = flow.sample(y, method.stream)
    assert torch.isfinite(z).all() and z.abs().max() < 1e5
    assert int(flow.redrawn) == before + 3 and calls[1][0] == 3 and calls[1][1] < calls[0][1]
    flow.flow.sample = lambda condition, *_: torch.full((len(condition), flow.dimension), torch.nan)
    with pytest.raises(FloatingPointError, match="no sample near its data"):
        flow.sample(y, method.stream)


def test_rejection_leaves_what_the_classifier_takes_for_the_class_asked_for(feature_tasks):
    tasks, shares = feature_tasks, {}
    for rejection in (False, True):
        method = make_features(regularization={"rejection": rejection}, flow={"epochs": 60, "noise": 0.5})
        train(method, tasks[0], steps=60, lr=3e-3)
        with evaluating(method.learner):
            x, y, _ = method.generate_past(tasks[1])
            judged = method.learner.predict_mixed(method.embed_all(x), y)
            shares[rejection] = float((judged == y).float().mean())
        assert min(v for k, v in method.diagnostics([]).items() if k.startswith("agreement")) < 1, (
            "health hides refusals"
        )
    assert shares[False] < shares[True] == 1.0


def test_health_names_every_class_and_task_seen(tasks):
    method = make_prer()
    train(method, tasks[0])
    train(method, tasks[1])
    assert set(method.diagnostics([])) == {
        "redrawn",
        *(f"agreement/class {c}" for c in range(4)),
        *(f"flow_nll/task {t}" for t in range(2)),
    }
    pictures = method.pictures(tasks[1])
    assert [label for label, _ in pictures["samples"].rows] == [f"class {c}" for c in range(4)]
    assert [len(images) for _, images in pictures["reconstructions"].rows] == [10] * 4
    named = method.diagnostics([task.test for task in tasks[:2]])
    assert {name.split("/")[0] for name in named} == set(method.diagnosed)


def test_the_likelihood_reported_is_that_of_the_codes_that_were_fitted(tasks):
    """Made-up images are encoded anew before the fit: their old codes mean nothing to the new projection."""
    method, fitted = make_prer(), []
    train(method, tasks[0])
    inner = method.flow.fit
    method.flow.fit = lambda z, y, *rest: (fitted.append((z, y)), inner(z, y, *rest))[1]
    train(method, tasks[1])
    ((z, y),) = fitted
    for t in range(2):
        own = method.learner.task_of[y] == t
        nll = -method.flow.log_prob(z[own], y[own]).mean() / method.flow.dimension
        assert method.diagnostics([])[f"flow_nll/task {t}"] == pytest.approx(float(nll.detach()), rel=1e-4)


def test_noise_goes_to_real_codes_only_and_does_not_pile_up():
    """A flow fitted to its own noisy samples, again with noise, would widen from task to task."""
    torch.manual_seed(0)
    stream = torch.Generator().manual_seed(0)
    options = {"epochs": 30, "lr": 1e-2, "batch_size": 250, "noise": 0.5, "temperature": 1.0}
    flow, y = CodeFlow(2, Condition(3), gaussian.build, **options), torch.zeros(1000, dtype=torch.long)
    real = torch.ones(1000, dtype=torch.bool)
    flow.fit(torch.randn(1000, 2), y, real, stream)
    for _ in range(3):
        flow.fit(flow.sample(y, stream), y, ~real, stream)
    deviation = float(flow.sample(y, stream).std())
    assert abs(deviation - 1.25**0.5) < 0.1  # once 0.5^2 of variance, not four times


def test_early_stopping_keeps_the_best_weights_and_stops():
    stream, losses = torch.Generator().manual_seed(0), []
    options = {"epochs": 50, "tolerance": 3, "lr": 0.5, "batch_size": 8}
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(module.weight, 1.0)

    def loss(index):
        value = (module.weight.sum() - (0.5 if index[0] == 0 else -100)).square()  # held out: best at the beginning
        losses.append((int(index[0]), float(module.weight.detach())))
        return value

    fit([Objective(module, loss)], torch.ones(40), stream, **options, held_out=torch.arange(4))
    judged = [weight for first, weight in losses if first == 0]
    assert len(judged) == 4  # the first is the best, three are not better
    assert float(module.weight.detach()) == judged[0]
    assert all(first > 3 for first, _ in losses if first != 0), "held-out samples are not fitted"


@pytest.mark.parametrize("annealing", [True, False])
def test_a_fit_may_be_counted_in_steps(annealing):
    weights, module = [], torch.nn.Linear(1, 1, bias=False)

    def loss(index):
        assert len(index) == 8
        weights.append(float(module.weight.detach()))
        return 1e6 * module.weight.sum()

    options = {"steps": 7, "batch_size": 8, "lr": 1e-3, "annealing": annealing, "max_norm": 10.0}
    fit([Objective(module, loss)], torch.ones(20), torch.Generator(), **options)
    moved = torch.tensor([*weights, float(module.weight.detach())]).diff().abs()  # Adam: lr, for a constant gradient
    expected = [1e-3 * (1 + torch.cos(torch.tensor(torch.pi * k / 7))) / 2 if annealing else 1e-3 for k in range(7)]
    torch.testing.assert_close(moved, torch.tensor(expected), rtol=1e-2, atol=1e-6)
    assert float(module.weight.grad.abs()) == pytest.approx(10.0), "clipped"


def test_objectives_take_turns_and_the_last_batch_of_an_epoch_is_always_a_step():
    turns = []
    modules = {name: torch.nn.Linear(1, 1) for name in "cg"}

    def loss(name):
        return lambda index: (turns.append(name), modules[name].weight.square().sum())[1]

    objectives = [Objective(modules["c"], loss("c")), Objective(modules["g"], loss("g"), every=3)]
    fit(objectives, torch.ones(100), torch.Generator(), epochs=2, samples=40, batch_size=8, lr=1e-3)
    assert "".join(turns) == 2 * "cccgccg"


def test_a_loss_that_is_not_finite_stops_the_fit():
    module = torch.nn.Linear(1, 1)
    with pytest.raises(FloatingPointError, match="the loss of the generator is nan in epoch 0; lower its lr"):
        fit(
            [Objective(module, lambda _: module.weight.sum() * torch.nan)],
            torch.ones(4),
            torch.Generator(),
            batch_size=2,
            lr=1e-3,
        )


def test_every_class_has_the_same_weight_in_a_fit():
    labels, drawn = torch.tensor([0] * 90 + [1] * 10), []
    module = torch.nn.Linear(1, 1)

    def loss(index):
        drawn.append(labels[index])
        return module.weight.square().sum()

    stream = torch.Generator().manual_seed(0)
    fit([Objective(module, loss)], class_weights(labels), stream, steps=20, batch_size=50, lr=1e-3)
    assert 0.45 < float(torch.cat(drawn).float().mean()) < 0.55


def test_frechet_distance_of_known_gaussians():
    torch.manual_seed(0)
    a, b = torch.randn(4000, 2), 2 * torch.randn(4000, 2) + torch.tensor([3.0, 0.0])
    assert frechet(a, b) == pytest.approx(9 + 2 * (1 - 2) ** 2, rel=0.05)
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(4, 2, 1), (4, 2, 0), (6, 3, 2), (3, 1, 1), (2, 2, 0)])
def test_a_blockwise_transposed_convolution_is_a_transposed_convolution(kernel, stride, padding):
    """Values and gradients, of all that it is made of."""
    ours = BlockwiseTranspose(5, 2, kernel, stride, padding).double()
    theirs = torch.nn.ConvTranspose2d(5, 2, kernel, stride, padding).double()
    theirs.load_state_dict(ours.state_dict())
    found = []
    for layer in (ours, theirs):
        x = torch.linspace(-1, 1, 3 * 5 * 7 * 6, dtype=torch.double).view(3, 5, 7, 6).requires_grad_()
        y = layer(x)
        found.append((y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])))
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other)


def test_pixel_cross_entropy_is_torch_s_with_its_gradient_for_large_logits_too():
    logits = torch.cat((torch.linspace(-200, 200, 100), torch.randn(156))).view(4, 1, 8, 8).requires_grad_()
    x = torch.rand(4, 1, 8, 8)
    ours, theirs = pixel_cross_entropy(logits, x), F.binary_cross_entropy_with_logits(logits, x, reduction="none")
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(loss.sum(), logits)[0] for loss in (ours, theirs)]
    assert torch.allclose(*gradients, atol=1e-6)


def test_a_fit_with_dropout_resumes_to_the_bit():
    def fitted(stop_after: int | None = None, state: dict | None = None) -> torch.Tensor | dict:
        torch.manual_seed(0)
        stream, x = torch.Generator().manual_seed(1), torch.randn(40, 4)
        module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
        epochs = count(1)

        def after_epoch() -> None:
            if next(epochs) == stop_after:
                raise KeyboardInterrupt

        journal = Journal(after_epoch)
        try:
            with journal.recording(state):
                objective = Objective(module, lambda index: module(x[index]).square().mean())
                fit([objective], torch.ones(40), stream, epochs=3, batch_size=8, lr=1e-2)
        except KeyboardInterrupt:
            return journal.state()
        return module(x[:1]).detach()

    assert torch.equal(fitted(), fitted(state=fitted(stop_after=1)))


def test_a_task_with_fewer_images_than_past_classes_rehearses_all_of_them(tasks):
    method = make_prer("class", regularization={"fixed_replay": None})
    train(method, tasks[0])
    train(method, tasks[1])
    method.begin_task(replace(tasks[2], train=tasks[2].train.take(torch.arange(2))))
    assert method.rehearsal.y.tolist() == [0, 1, 2, 3]


def test_the_norm_of_no_parameters_is_0():
    assert make_prer(weights={"l1": 1.0}).l1(torch.nn.Identity()) == {"l1": torch.zeros(())}


def test_one_dev_image_has_a_likelihood_and_no_distance(tasks):
    method = make_prer()
    train(method, tasks[0])
    named = method.diagnostics([tasks[0].test.take(torch.arange(1))])
    assert "dev_nll/task 0" in named and "frechet/task 0" not in named


def test_a_class_of_identical_images_is_refused_by_a_flow_of_its_own(tasks):
    first = tasks[0].train
    alike = first.take(torch.where(first.y == 0, int((first.y == 0).nonzero()[0]), torch.arange(len(first))))
    method = make_prer("class", flow={"conditioning": {"type": "separate"}})
    with pytest.raises(BadInput, match="class 0 has no two training samples that differ"):
        train(method, replace(tasks[0], train=alike))


def test_temperature_and_early_stopping_reach_the_flow():
    z, y, real = torch.randn(1000, 2), torch.zeros(1000, dtype=torch.long), torch.ones(1000, dtype=torch.bool)
    stream, held_out = torch.Generator().manual_seed(0), []
    cold = CodeFlow(2, Condition(1), gaussian.build, epochs=0, temperature=0.1)
    cold.fit(z, y, real, stream)
    assert float(cold.sample(y, stream).std()) == pytest.approx(0.1, rel=0.1)
    for stops in (False, True):
        flow = CodeFlow(2, Condition(1), gaussian.build, early_stopping=stops)
        flow._fit = lambda *_, **options: held_out.append(options["held_out"])
        flow.fit(z, y, real, stream)
    assert held_out[0] is None and len(held_out[1].unique()) == 100
