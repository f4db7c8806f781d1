"""PRER behaves as its paper says; the original's mistakes are tests."""

import copy

import pytest
import torch
from conftest import CPU, SMALL_PRER, tensors_of, train

from datasets.data import as_floats
from datasets.tasks import split_by_class
from flows import FLOWS
from methods.mechanisms.distance import frechet
from methods.prer import DISTANCES, PRER, Config
from models import ENCODERS
from models.code_flow import CodeFlow, FlowSettings
from models.feature_generator import Subspace
from models.fitting import minimise
from models.generator import RECONSTRUCTION_LOSSES
from models.learner import HEADS, Learner
from utils.config import flatten
from utils.evaluation import evaluating
from utils.settings import BadInput

GROUPS = [(0, 1), (2, 3), (4, 5)]


def merged(tree: dict, changes: dict) -> dict:
    return {**tree, **{k: merged(tree.get(k, {}), v) if isinstance(v, dict) else v for k, v in changes.items()}}


def make(scenario="task", **changes) -> PRER:
    torch.manual_seed(0)
    learner = Learner(ENCODERS["paper"]((1, 28, 28), 20), HEADS["paper"](0.0), scenario, GROUPS)
    stream = torch.Generator().manual_seed(0)
    return PRER(Config.model_validate(merged(SMALL_PRER, changes)), learner, stream)


@pytest.fixture
def tasks(data):
    return split_by_class(data, GROUPS, 0.0, torch.Generator(), CPU)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("target", ["past_encoder", "flow"])
def test_a_step_of_the_regulariser_lowers_the_distance(tasks, distance, target):
    """The original added the cosine similarity, and pushed embeddings apart."""
    method = make(target=target, regularization={"distance": distance})
    train(method, tasks[0])
    method.begin_task(tasks[1])
    x, targets = as_floats(method.rehearsal.x), method.rehearsal.targets
    with torch.no_grad():  # as if training had moved the encoder
        for p in method.learner.encoder.parameters():
            p.add_(0.02 * torch.randn_like(p))
    optimizer = torch.optim.SGD(method.learner.encoder.parameters(), lr=1e-3)
    before = DISTANCES[distance](method.learner.embed(x), targets).mean()
    before.backward()
    optimizer.step()
    after = DISTANCES[distance](method.learner.embed(x), targets).mean()
    assert 0 < float(after.detach()) < float(before.detach())


def test_distances():
    a, b = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [2.0, 0.0]])
    torch.testing.assert_close(DISTANCES["cosine"](a, b), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(DISTANCES["euclidean"](a, b), torch.tensor([2.0, 8.0**0.5]))


def test_the_past_encoder_s_word_is_what_it_said_when_the_task_began(tasks):
    method = make()
    train(method, tasks[0])
    frozen = copy.deepcopy(method.learner.encoder)
    method.begin_task(tasks[1])
    torch.testing.assert_close(method.rehearsal.targets, frozen(as_floats(method.rehearsal.x)))


def test_with_target_flow_the_made_up_code_is_itself_the_target(tasks):
    method = make(target="flow")
    train(method, tasks[0])
    assert method.generator.flow.dimension == method.learner.encoder.embedding_dim == 20
    x = tasks[0].train.batch(slice(0, 4))[0]
    torch.testing.assert_close(method.generator.codes(x), method.learner.embed(x).detach())
    method.begin_task(tasks[1])
    assert method.rehearsal.targets.shape == (40, 20)
    y = method.rehearsal.y
    decoded = method.generator.decode(method.rehearsal.targets, y).sigmoid()
    torch.testing.assert_close(decoded, as_floats(method.rehearsal.x), atol=1 / 255, rtol=0)


@pytest.mark.parametrize("kind", ["alternation", "overwrite", "concatenation"])
@pytest.mark.parametrize("scenario", ["task", "class", "domain"])
def test_every_way_of_mixing_trains_encoder_and_head(tasks, kind, scenario):
    method = make(scenario, regularization={"type": kind}, weights={"replay": 1.0})
    train(method, tasks[0])
    task = method.begin_task(tasks[1])
    x, y = task.train.batch(slice(0, 16))
    loss = method.loss(x, y, task)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad.abs().sum() > 0 for p in method.learner.encoder.parameters())
    assert method.learner.heads[0][0].weight.grad.abs().sum() > 0  # an old head, or the one head, replays


def test_mixing_keeps_or_replaces_real_samples_as_it_says(tasks):
    seen = {}
    for kind in ("alternation", "overwrite", "concatenation"):
        method = make(regularization={"type": kind, "to_sample": 7})
        train(method, tasks[0])
        train(method, tasks[1])
        task = method.begin_task(tasks[2])
        sizes, real = [], []
        x, y = task.train.batch(slice(0, 48))
        method.learner.embed = lambda images, method=method, sizes=sizes, real=real, x=x: (
            sizes.append(len(images)),
            real.append(sum((images[i] == x[i]).all().item() for i in range(min(len(images), len(x))))),
            method.learner.encoder(images),
        )[-1]
        method.loss(x, y, task)
        seen[kind] = sizes, real
    assert seen["alternation"] == ([48, 7], [48, 0])
    assert seen["concatenation"] == ([55], [48])
    sizes, (kept,) = seen["overwrite"]
    assert sizes == [48] and 6 <= kept <= 27  # a third of the classes are current: 16 of 48 expected, sd 3.3


def test_old_tasks_shares_the_loss_out(tasks):
    losses = {}
    for share in (None, 0.0, 0.25, 1.0):
        method = make(weights={"old_tasks": share, "er": 3.0})
        train(method, tasks[0])
        task = method.begin_task(tasks[1])
        with torch.no_grad():
            method.learner.encoder.projection.weight.mul_(-1)
        losses[share] = float(method.loss(*task.train.batch(slice(0, 16)), task).detach())
    new, old = losses[0.0], losses[1.0]
    assert new > 0 and old > 1
    assert losses[None] == pytest.approx(new + old, rel=1e-5)
    assert losses[0.25] == pytest.approx(0.75 * new + 0.25 * old, rel=1e-5)


def test_without_weights_it_is_naive_even_with_a_past(tasks):
    method = make(weights={"er": 0.0})
    train(method, tasks[0])
    task = method.begin_task(tasks[1])
    assert method.rehearsal is None
    x, y = task.train.batch(slice(0, 16))
    z = method.learner.embed(x)
    naive = torch.nn.functional.cross_entropy(method.learner.logits(z, 1), method.learner.columns(y, 1))
    assert torch.equal(method.loss(x, y, task), naive)


def test_l1_is_the_norm_of_the_encoder(tasks):
    method = make(weights={"l1": 0.5})
    task = method.begin_task(tasks[0])
    x, y = task.train.batch(slice(0, 16))
    with_l1 = method.loss(x, y, task)
    norm = sum(p.abs().sum() for p in method.learner.encoder.parameters())
    method.config = Config.model_validate(SMALL_PRER)
    torch.testing.assert_close(with_l1, method.loss(x, y, task) + 0.5 * norm)


def test_no_real_image_of_the_past_can_be_reached(tasks):
    method = make()
    real = {image.numpy().tobytes() for task in tasks for image in task.train.x}
    for task in tasks:
        train(method, task)
        for tensor in tensors_of(method):
            if tensor.ndim == 4 and tensor.shape[1:] == (1, 28, 28):
                bytes_ = tensor if tensor.dtype == torch.uint8 else (tensor * 255).round().to(torch.uint8)
                assert not any(image.numpy().tobytes() in real for image in bytes_.detach())
            assert tensor.numel() < 100 * 784, "room for a hundred images"
    method.begin_task(tasks[2])
    assert len(method.rehearsal.x) == 40
    assert sum(t.numel() for t in tensors_of(method) if t.dtype == torch.uint8 and t.ndim == 4) == 40 * 784
    assert method.stored_real_samples == 0


def test_memory_does_not_grow_with_the_tasks(tasks):
    method = make()
    sizes = []
    for task in tasks:
        train(method, task)
        sizes.append(sum(value.numel() for value in method.state_dict().values()))
        assert method.rehearsal is None, "made-up images outlive their task"
    assert sizes[0] == sizes[1] == sizes[2] > 0


def test_the_decoder_keeps_old_classes(tasks):
    """The original fitted the decoder on the current task only, and old classes decayed."""
    method = make(autoencoder={"epochs": 20, "batch_size": 16}, flow={"epochs": 10})
    train(method, tasks[0])
    forgetful, stream = copy.deepcopy(method.generator), torch.Generator().manual_seed(1)
    replayed = method.generator.sample(torch.arange(60) % 2, stream).split
    method.generator.fit(tasks[1].train, replayed, stream)
    forgetful.fit(tasks[1].train, None, stream)
    x, y = tasks[0].test.batch(slice(None))
    kept, lost = (float((g.reconstruct(x, y) - x).square().mean()) for g in (method.generator, forgetful))
    assert kept < 0.8 * lost


def test_made_up_images_bear_global_labels_and_depend_on_them(tasks):
    """The original sampled with global labels what it had fitted with task-local ones."""
    method = make(
        autoencoder={"epochs": 40, "batch_size": 16}, flow={"epochs": 40}, regularization={"fixed_replay": 60}
    )
    train(method, tasks[0], steps=20)
    train(method, tasks[1], steps=20)
    made = method.generator.sample(torch.tensor([1, 2] * 30), torch.Generator().manual_seed(0)).split
    for c in (1, 2):
        mean = made.x[made.y == c].float().mean(0)
        nearest = min(range(4), key=lambda k: float((mean - mean_of(tasks, k)).square().sum()))
        assert nearest == c


def mean_of(tasks, c):
    task = next(task for task in tasks if c in task.classes)
    return task.train.x[task.train.y == c].float().mean(0)


@pytest.mark.parametrize("rec_loss", RECONSTRUCTION_LOSSES)
@pytest.mark.parametrize("conditioning", ["none", "one_hot", "class_embedding"])
def test_every_loss_and_conditioning_runs_and_every_part_learns(tasks, rec_loss, conditioning):
    """`rec_loss: gaussian` and a missing conditioning crashed the original."""
    method = make(
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
    method = make()
    method.begin_task(tasks[0])
    before = copy.deepcopy(method.learner.state_dict())
    method.end_task(tasks[0])
    assert all(torch.equal(before[key], value) for key, value in method.learner.state_dict().items())
    assert all(p.grad is None for p in method.learner.parameters())
    assert not any("learner" in key or "encoder" in key for key in method.state_dict())


def test_a_saved_method_goes_on_the_same(tasks):
    one = make()
    train(one, tasks[0])
    other = make()
    other.learner.load_state_dict(one.learner.state_dict())
    other.load_state_dict(one.state_dict())
    other.stream.set_state(one.stream.get_state())
    for method in (one, other):
        train(method, tasks[1])
    for key, value in one.learner.state_dict().items():
        assert torch.equal(value, other.learner.state_dict()[key]), key
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


def test_health_names_every_class_and_task_seen(tasks):
    method = make()
    train(method, tasks[0])
    train(method, tasks[1])
    assert set(method.diagnostics()) == {
        "embedding_distance",
        "redrawn",
        *(f"agreement/class {c}" for c in range(4)),
        *(f"flow_nll/task {t}" for t in range(2)),
    }
    pictures = method.pictures(tasks[1])
    assert [label for label, _ in pictures["samples"].rows] == [f"class {c}" for c in range(4)]
    assert [len(images) for _, images in pictures["reconstructions"].rows] == [10] * 4
    named = method.diagnostics() | method.examine([task.test for task in tasks[:2]])
    assert {name.split("/")[0] for name in named} == set(method.meaning)
    assert set(method.healthy) <= set(method.meaning)


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(BadInput, match="cannot say which class"):
        make(flow={"conditioning": {"type": "none"}}, weights={"replay": 1.0})
    with pytest.raises(BadInput, match=r"method.flow: 5 levels need more than 8 dimensions"):
        make(flow={"levels": 5})


EMBEDDING = {"replay": {"space": "embedding"}, "weights": {"er": 0.0, "replay": 1.0}, "flow": {"temperature": 1.0}}


@pytest.mark.parametrize("targets", ["labels", "logits", "both"])
@pytest.mark.parametrize("scenario", ["task", "class", "domain"])
@pytest.mark.parametrize("space", ["image", "embedding"])
def test_replay_in_either_space_trains_the_heads(tasks, space, scenario, targets):
    options = {"replay": {"space": space, "targets": targets}, "weights": {"er": 0.5, "replay": 1.0}}
    method = make(scenario, **options)
    train(method, tasks[0])
    task = method.begin_task(tasks[1])
    for kind in ("alternation", "overwrite", "concatenation"):
        method.config = Config.model_validate(merged(SMALL_PRER, {**options, "regularization": {"type": kind}}))
        method.learner.zero_grad()
        loss = method.loss(*task.train.batch(slice(20, 36)), task)
        loss.backward()
        assert torch.isfinite(loss)
        assert method.learner.heads[0][0].weight.grad.abs().sum() > 0
        assert method.learner.encoder.projection.weight.grad.abs().sum() > 0
        frozen = [p.grad is None or not p.grad.any() for p in method.learner.encoder.features.parameters()]
        assert all(frozen) if space == "embedding" else not any(frozen)


def test_in_embedding_space_the_features_are_frozen_after_the_first_task(tasks):
    method = make("class", **merged(EMBEDDING, {"weights": {"l1": 0.1}}))
    train(method, tasks[0])
    x = tasks[0].test.batch(slice(None))[0]
    encoder, subspace = method.learner.encoder, method.generator.subspace
    first = encoder.features(x)
    assert torch.equal(encoder.subspace(first), first)  # not projected yet
    for task in tasks[1:]:
        train(method, task)
    assert torch.equal(encoder.features(x), first)
    codes = method.generator.codes(x)
    torch.testing.assert_close(encoder.subspace(first), subspace.features(codes))
    torch.testing.assert_close(method.generator.embed(codes), method.learner.embed(x), atol=1e-5, rtol=1e-4)
    assert not any(tensor.dtype == torch.uint8 and tensor.ndim == 4 for tensor in tensors_of(method)), "images"


def test_freezing_changes_nothing_but_what_is_outside_the_subspace(tasks):
    method = make("class", **EMBEDDING)
    train(method, tasks[0])
    encoder, subspace = method.learner.encoder, method.generator.subspace
    features = encoder.features(tasks[0].test.batch(slice(None))[0])
    inside = (features - subspace.mean) @ subspace.directions.T @ subspace.directions + subspace.mean
    before = encoder.projection(inside)
    codes = subspace.codes(features)
    torch.testing.assert_close(method.generator.embed(codes), before, atol=1e-5, rtol=1e-4)  # not frozen yet
    for _ in range(2):  # the second time changes nothing more
        method.generator.freeze()
        torch.testing.assert_close(encoder.projection(encoder.subspace(features)), before, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(method.generator.embed(codes), before, atol=1e-5, rtol=1e-4)


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


def test_embedding_replay_keeps_the_first_task_in_the_class_scenario(tasks):
    """With replay of embeddings old classes are still told apart; without, they are all taken for new ones."""
    kept = {}
    for replay in (0.0, 1.0):
        options = merged(EMBEDDING, {"weights": {"replay": replay}, "flow": {"epochs": 200, "noise": 0.2}})
        method = make("class", **merged(options, {"regularization": {"fixed_replay": 400}}))
        for task in tasks[:2]:
            train(method, task, steps=60, lr=3e-3)
        x, y = tasks[0].test.batch(slice(None))
        kept[replay] = float((method.predict(x, 0) == y).float().mean())
    assert kept[0.0] < 0.2 < 0.8 < kept[1.0]


@pytest.mark.parametrize("space", ["image", "embedding"])
@pytest.mark.parametrize("scenario", ["task", "class", "domain"])
def test_the_flow_classifies_by_bayes_rule(tasks, scenario, space):
    options = {"flow": {"epochs": 200, "noise": 0.2}, "replay": {"space": space}, "predict": "flow"}
    method = make(scenario, **options, autoencoder={"epochs": 20}, regularization={"fixed_replay": 200})
    x, y = tasks[1].test.batch(slice(None))
    untaught = method.predict(x, 1)  # by the heads
    assert set(untaught.tolist()) <= set(range(6))
    for task in tasks[:2]:
        train(method, task, steps=40, lr=3e-3)
    assert float((method.predict(x, 1) == y).float().mean()) > 0.8
    posterior = method.generator.flow.posterior(method.generator.codes(x))
    torch.testing.assert_close(posterior.exp().sum(1), torch.ones(len(x)))
    assert (posterior[:, 4:] == -torch.inf).all(), "classes never seen"


def test_samples_that_are_not_finite_or_far_out_are_drawn_again_and_counted(tasks):
    method = make()
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
        method = make(regularization={"rejection": rejection}, **options)
        train(method, tasks[0], steps=100, lr=3e-3)
        with evaluating(method.learner):
            x, y, _ = method._make_up(1)
            shares[rejection] = float((method._judged(x, y) == y).float().mean())
        assert min(v for k, v in method.diagnostics().items() if k.startswith("agreement")) < 1, "health hides refusals"
    assert shares[False] < shares[True] == 1.0


def test_the_likelihood_reported_is_that_of_the_codes_that_were_fitted(tasks):
    """Made-up images are encoded anew before the fit: their old codes mean nothing to the new projection."""
    method, fitted = make(), []
    train(method, tasks[0])
    inner = method.generator.flow.fit
    method.generator.flow.fit = lambda z, y, *rest: (fitted.append((z, y)), inner(z, y, *rest))[1]
    train(method, tasks[1])
    ((z, y),) = fitted
    for t in range(2):
        own = method.learner.task_of[y] == t
        nll = -method.generator.flow.log_prob(z[own], y[own]).mean() / method.generator.flow.dimension
        assert method.diagnostics()[f"flow_nll/task {t}"] == pytest.approx(float(nll.detach()), rel=1e-4)


def test_noise_goes_to_real_codes_only_and_does_not_pile_up():
    """A flow fitted to its own noisy samples, again with noise, would widen from task to task."""
    torch.manual_seed(0)
    stream = torch.Generator().manual_seed(0)
    settings = FlowSettings(
        type="gaussian", epochs=60, noise=0.5, temperature=1.0, lr=1e-2, batch_size=250, dimension=2
    )
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

    minimise(loss, [module], torch.zeros(40, dtype=torch.long), settings, stream, torch.tensor([0, 1, 2, 3]))
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


def test_reset_begins_each_fit_with_new_weights(tasks):
    method = make(flow={"reset": True, "epochs": 0}, autoencoder={"reset": True, "epochs": 0})
    train(method, tasks[0])
    before = copy.deepcopy(method.generator.state_dict())
    train(method, tasks[1])
    after = method.generator.state_dict()
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert {"decoder", "flow"} <= changed and "projection" not in changed


def test_frechet_distance_of_known_gaussians():
    torch.manual_seed(0)
    a, b = torch.randn(4000, 2), 2 * torch.randn(4000, 2) + torch.tensor([3.0, 0.0])
    assert frechet(a, b) == pytest.approx(9 + 2 * (1 - 2) ** 2, rel=0.05)
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", FLOWS)
def test_every_flow_by_name_runs(tasks, name):
    method = make(flow={"type": name, "levels": 1})
    for task in tasks[:2]:
        train(method, task)
    assert all(torch.isfinite(torch.tensor(value)) for value in method.diagnostics().values())


def test_options_are_documented_where_they_are_declared():
    def undocumented(settings):
        for name, field in settings.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                yield from undocumented(field.annotation)
            if not field.description:
                yield f"{settings.__name__}.{name}"

    assert list(undocumented(Config)) == []
    assert len(flatten(Config(name="prer").model_dump())) > 25
