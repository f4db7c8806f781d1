"""PRER's generator: what it learns, keeps and makes up, and how it is fitted."""

import copy

import pytest
import torch
from conftest import EMBEDDING, make_prer, merged, train
from torch.nn import functional as F

import flows
from methods.mechanisms.distance import frechet
from models.code_flow import FLOW, CodeFlow, FlowSettings
from models.decoders import BlockwiseTranspose, pixel_cross_entropy
from models.feature_generator import Subspace
from models.fitting import minimise
from models.image_generator import RECONSTRUCTION_LOSSES
from utils.run.evaluation import evaluating
from utils.settings import modules


def test_the_decoder_keeps_old_classes(tasks):
    """The original fitted the decoder on the current task only, and old classes decayed."""
    method = make_prer(autoencoder={"epochs": 20, "batch_size": 16}, flow={"epochs": 10})
    train(method, tasks[0])
    forgetful, stream = copy.deepcopy(method.generator), torch.Generator().manual_seed(1)
    replayed = method.generator.sample(torch.arange(60) % 2, stream).x, torch.arange(60) % 2
    method.generator.fit(tasks[1].train, replayed, stream)
    forgetful.fit(tasks[1].train, None, stream)
    x, y = tasks[0].test.batch(slice(None))
    kept, lost = (float((g.reconstruct(x, y) - x).square().mean()) for g in (method.generator, forgetful))
    assert kept < 0.8 * lost


def test_made_up_images_bear_global_labels_and_depend_on_them(tasks):
    """The original sampled with global labels what it had fitted with task-local ones."""
    method = make_prer(
        autoencoder={"epochs": 40, "batch_size": 16}, flow={"epochs": 40}, regularization={"fixed_replay": 60}
    )
    train(method, tasks[0], steps=20)
    train(method, tasks[1], steps=20)
    y = torch.tensor([1, 2] * 30)
    made = method.generator.sample(y, torch.Generator().manual_seed(0)).x
    for c in (1, 2):
        mean = made[y == c].float().mean(0)
        nearest = min(range(4), key=lambda k: float((mean - mean_of(tasks, k)).square().sum()))
        assert nearest == c


def mean_of(tasks, c):
    task = next(task for task in tasks if c in task.classes)
    return task.train.x[task.train.y == c].float().mean(0)


@pytest.mark.parametrize("rec_loss", RECONSTRUCTION_LOSSES)
@pytest.mark.parametrize("conditioning", ["none", "one_hot", "class_embedding"])
def test_every_loss_and_conditioning_runs_and_every_part_learns(tasks, rec_loss, conditioning):
    """`rec_loss: gaussian` and a missing conditioning crashed the original."""
    method = make_prer(
        autoencoder={"rec_loss": rec_loss, "conditioning": {"type": conditioning}},
        flow={"conditioning": {"type": conditioning, "dimension": 3}},
    )
    before = copy.deepcopy(method.state_dict())
    train(method, tasks[0])
    after = method.state_dict()
    for part in ("projection", "decoder.", "flow."):
        assert any(not torch.equal(before[k], after[k]) for k in before if k.startswith(f"generator.{part}"))
    for name in ("condition", "flow.condition"):
        vectors = f"generator.{name}.vectors.weight"
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
    assert not any("learner" in key or "encoder" in key for key in method.state_dict())


def test_reset_begins_each_fit_with_new_weights(tasks):
    method = make_prer(flow={"reset": True, "epochs": 0}, autoencoder={"reset": True, "epochs": 0})
    train(method, tasks[0])
    before = copy.deepcopy(method.generator.state_dict())
    train(method, tasks[1])
    after = method.generator.state_dict()
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert {"decoder", "flow"} <= changed and "projection" not in changed


@pytest.mark.parametrize("name", modules(flows, "build"))
def test_every_flow_by_name_runs(tasks, name):
    method = make_prer(flow={"type": name, "levels": 1 if name == "realnvp" else None})
    for task in tasks[:2]:
        train(method, task)
    assert all(torch.isfinite(torch.tensor(value)) for value in method.diagnostics([]).values())


def test_samples_that_are_not_finite_or_far_out_are_drawn_again_and_counted(tasks):
    method = make_prer()
    train(method, tasks[0])
    flow, y = method.generator.flow, torch.tensor([0, 1] * 50)
    inner, calls = flow.flow.sample, []

    def broken(condition, n, temperature, stream):
        z = inner(condition, n, temperature, stream)
        calls.append((n, temperature))
        if len(calls) == 1:
            z[3], z[7, 0], z[11] = torch.nan, torch.inf, 1e6
        return z

    before = int(flow.redrawn)
    flow.flow.sample = broken
    z = flow.sample(y, method.stream)
    assert torch.isfinite(z).all() and z.abs().max() < 1e5
    assert int(flow.redrawn) == before + 3 and calls[1][0] == 3 and calls[1][1] < calls[0][1]
    flow.flow.sample = lambda condition, n, temperature, stream: torch.full((n, flow.dimension), torch.nan)
    with pytest.raises(FloatingPointError, match="no sample near its data"):
        flow.sample(y, method.stream)


def test_rejection_leaves_what_the_classifier_takes_for_the_class_asked_for(tasks):
    shares = {}
    for rejection in (False, True):
        options = merged(EMBEDDING, {"flow": {"epochs": 150, "noise": 0.5}})
        method = make_prer(regularization={"rejection": rejection}, **options)
        train(method, tasks[0], steps=100, lr=3e-3)
        with evaluating(method.learner):
            x, y, _ = method._make_up(1)
            judged = method.learner.predict_mixed(method.generator.embeddings(x), y)
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
        "embedding_distance",
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
    inner = method.generator.flow.fit
    method.generator.flow.fit = lambda z, y, *rest: (fitted.append((z, y)), inner(z, y, *rest))[1]
    train(method, tasks[1])
    ((z, y),) = fitted
    for t in range(2):
        own = method.learner.task_of[y] == t
        nll = -method.generator.flow.log_prob(z[own], y[own]).mean() / method.generator.flow.dimension
        assert method.diagnostics([])[f"flow_nll/task {t}"] == pytest.approx(float(nll.detach()), rel=1e-4)


def test_the_subspace_is_that_of_the_principal_components():
    torch.manual_seed(0)
    x = torch.randn(200, 3) @ torch.randn(3, 7) + 5
    plain, balanced = Subspace(7, 3), Subspace(7, 3)
    plain.find(x, balanced=False)
    balanced.find(x, balanced=True)
    plain.activate()
    torch.testing.assert_close(plain(x), x, atol=1e-4, rtol=1e-4)  # they have three dimensions
    torch.testing.assert_close(plain.directions @ plain.directions.T, torch.eye(3), atol=1e-5, rtol=0)
    deviation, share = plain.codes(x).std(0), plain.codes(x).std(0) / plain.codes(x).std(0)[0]
    assert (deviation.diff() <= 0).all()
    torch.testing.assert_close(balanced.codes(x).std(0), deviation / share.sqrt())


def test_noise_goes_to_real_codes_only_and_does_not_pile_up():
    """A flow fitted to its own noisy samples, again with noise, would widen from task to task."""
    torch.manual_seed(0)
    stream = torch.Generator().manual_seed(0)
    own = {"noise": 0.5, "temperature": 1.0, "dimension": 2}
    settings = FLOW.validate({"type": "gaussian", "epochs": 60, "lr": 1e-2, "batch_size": 250, **own})
    flow, y = CodeFlow(2, 3, settings), torch.zeros(1000, dtype=torch.long)
    z = torch.randn(1000, 2)
    flow.fit(z, y, torch.ones(1000), stream)
    for _ in range(3):
        flow.fit(flow.sample(y, stream), y, torch.zeros(1000), stream)
    deviation = float(flow.sample(y, stream).std())
    assert abs(deviation - 1.25**0.5) < 0.1  # once 0.5^2 of variance, not four times


def test_early_stopping_keeps_the_best_weights_and_stops():
    stream, losses = torch.Generator().manual_seed(0), []
    settings = FlowSettings(epochs=50, tolerance=3, lr=0.5, batch_size=8, annealing=False)
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(module.weight, 1.0)

    def loss(index):
        value = (module.weight.sum() - (0.5 if index[0] == 0 else -100)).square()  # held out: best at the beginning
        losses.append((int(index[0]), float(module.weight.detach())))
        return value

    minimise(loss, [module], torch.zeros(40, dtype=torch.long), settings, stream, held_out=torch.arange(4))
    judged = [weight for first, weight in losses if first == 0]
    assert len(judged) == 4  # the first is the best, three are not better
    assert float(module.weight.detach()) == judged[0]
    assert all(first > 3 for first, _ in losses if first != 0), "held-out samples are not fitted"


@pytest.mark.parametrize("annealing", [True, False])
def test_a_fit_may_be_counted_in_steps(annealing):
    seen = []
    module = torch.nn.Linear(1, 1)
    settings = FlowSettings(steps=7, batch_size=8, annealing=annealing)

    def loss(index):
        seen.append(len(index))
        return module.weight.square().sum()

    minimise(loss, [module], torch.zeros(20, dtype=torch.long), settings, torch.Generator())
    assert seen == [8] * 7


def test_every_class_has_the_same_weight_in_a_fit():
    labels, drawn = torch.tensor([0] * 90 + [1] * 10), []
    module = torch.nn.Linear(1, 1)

    def loss(index):
        drawn.append(labels[index])
        return module.weight.square().sum()

    minimise(loss, [module], labels, FlowSettings(steps=20, batch_size=50), torch.Generator().manual_seed(0))
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
