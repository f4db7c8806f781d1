"""PRER behaves as its paper says; the original's mistakes are tests."""

import copy

import pytest
import torch
from conftest import SMALL_PRER, make_features, make_prer, merged, tensors_of, total_loss, train

from datasets.data import as_floats
from methods.mechanisms.distance import DISTANCES, divergence
from methods.prer import Config
from utils.settings import BadInput

pytestmark = pytest.mark.usefixtures("quick_health")


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("target", ["past_encoder", "flow"])
def test_a_step_of_the_regulariser_lowers_the_distance(tasks, distance, target):
    """The original added the cosine similarity, and pushed embeddings apart."""
    method = make_prer(target=target, regularization={"distance": distance})
    train(method, tasks[0])
    method.begin_task(tasks[1])
    with torch.no_grad():  # as if training had moved the encoder
        for p in method.learner.encoder.parameters():
            p.add_(0.1 * torch.randn_like(p))
    optimizer = torch.optim.SGD(method.learner.encoder.parameters(), lr=1e-3)
    state, batch = method.stream.get_state(), tasks[1].train.batch(slice(0, 16))

    def term() -> torch.Tensor:
        method.stream.set_state(state)  # the same generated images
        return method.loss(*batch, tasks[1])["distance"]

    (before := term()).backward()
    optimizer.step()
    assert 0 < float(term().detach()) < float(before.detach())


def test_distances():
    a, b = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [2.0, 0.0]])
    torch.testing.assert_close(DISTANCES["cosine"](a, b), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(DISTANCES["euclidean"](a, b), torch.tensor([2.0, 8.0**0.5]))


def test_targets_are_the_embeddings_when_the_task_began(tasks):
    method = make_prer()
    train(method, tasks[0])
    frozen = copy.deepcopy(method.learner.encoder)
    method.begin_task(tasks[1])
    torch.testing.assert_close(method.rehearsal.targets, frozen(as_floats(method.rehearsal.x)))


def test_with_target_flow_the_generated_code_is_itself_the_target(tasks):
    method = make_prer(target="flow")
    train(method, tasks[0])
    assert method.flow.dimension == method.learner.encoder.embedding_dim == 20
    x = tasks[0].train.batch(slice(0, 4))[0]
    torch.testing.assert_close(method.codes(x), method.learner.embed(x).detach())
    method.begin_task(tasks[1])
    assert method.rehearsal.targets.shape == (40, 20)
    y = method.rehearsal.y
    decoded = method.autoencoder.decode(method.rehearsal.targets, y).sigmoid()
    torch.testing.assert_close(decoded, as_floats(method.rehearsal.x), atol=1 / 255, rtol=0)


def test_mixing_keeps_or_replaces_real_samples_as_it_says(tasks):
    seen = {}
    for kind in ("alternation", "overwrite", "concatenation"):
        method = make_prer(regularization={"type": kind, "to_sample": 7})
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
        total_loss(method, x, y, task)
        seen[kind] = sizes, real
    assert seen["alternation"] == ([48, 7], [48, 0])
    assert seen["concatenation"] == ([55], [48])
    sizes, (kept,) = seen["overwrite"]
    assert sizes == [48] and 6 <= kept <= 27  # a third of the classes are current: 16 of 48 expected, sd 3.3


def test_old_tasks_shares_the_loss_out(tasks):
    losses = {}
    for share in (None, 0.0, 0.25, 1.0):
        method = make_prer(weights={"old_tasks": share, "er": 3.0})
        train(method, tasks[0])
        task = method.begin_task(tasks[1])
        with torch.no_grad():
            method.learner.encoder.projection.weight.mul_(-1)
        losses[share] = float(total_loss(method, *task.train.batch(slice(0, 16)), task).detach())
    new, old = losses[0.0], losses[1.0]
    assert new > 0 and old > 1
    assert losses[None] == pytest.approx(new + old, rel=1e-5)
    assert losses[0.25] == pytest.approx(0.75 * new + 0.25 * old, rel=1e-5)


def test_replay_weighs_as_much_as_the_past_has_classes(tasks):
    def made(weight):
        return make_prer(weights={"er": 0.0, "replay": weight}, regularization={"noise": 0.0})

    method = made(3.0)
    for past in tasks[:2]:
        train(method, past)
    task = method.begin_task(tasks[2])
    x, y = task.train.batch(slice(0, 16))
    torch.manual_seed(0)  # dropout
    alone = method.cross_entropy(method.learner.embed(x), y, task)
    state = method.stream.get_state()
    terms = {}
    for weight in (3.0, 6.0):
        method.config = made(weight).config
        method.stream.set_state(state)
        terms[weight] = method.loss(x, y, task)
    assert terms[3.0].keys() == {"cross_entropy", "replay"} and terms[3.0]["replay"] > 0
    torch.testing.assert_close(terms[3.0]["cross_entropy"], alone / 3)
    torch.testing.assert_close(terms[6.0]["replay"], 2 * terms[3.0]["replay"])


@pytest.mark.parametrize("kind", ["alternation", "overwrite", "concatenation"])
def test_only_the_heads_learn_to_tell_current_images_from_generated_ones(tasks, kind):
    """Smith et al. 2021, eq. 11 and 14: the encoder learns them by a softmax over the task's own classes."""
    method = make_prer("class", regularization={"type": kind, "noise": 0.0})
    for past in tasks[:2]:
        train(method, past)
    method.learner.eval()  # no dropout
    method.learner.see(3)
    task = method.begin_task(tasks[2])
    x, y = task.train.batch(slice(0, 16))
    terms = method.loss(x, y, task)
    encoder, head = list(method.learner.encoder.parameters()), list(method.learner.heads.parameters())
    assert not any(torch.autograd.grad(terms["heads"], encoder, retain_graph=True, allow_unused=True))
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(terms["heads"], head, retain_graph=True))
    if kind != "overwrite":  # which replaces images of the batch
        logits = method.learner.logits(method.learner.embed(x), 2)
        own = torch.nn.functional.cross_entropy(logits[:, list(task.classes)], y - task.classes[0])
        torch.testing.assert_close(terms["cross_entropy"], own)
        torch.testing.assert_close(terms["heads"], torch.nn.functional.cross_entropy(logits, y) / 3)


@pytest.mark.parametrize(("scenario", "noise"), [("task", 0.0), ("class", 0.15), ("domain", 0.15)])
def test_noise_hides_what_sets_generated_images_apart_where_heads_are_shared(tasks, scenario, noise):
    method, seen = make_prer(scenario), []
    train(method, tasks[0])
    task = method.begin_task(tasks[1])
    embed = method.learner.embed
    method.learner.embed = lambda x: [seen.append(x), embed(x)][1]
    x, y = task.train.batch(slice(0, 64))
    method.loss(x, y, task)
    current, generated = seen
    assert float((current - x).std()) == pytest.approx(noise, rel=0.1)
    assert (generated.min() < 0) == (noise > 0)


def test_without_weights_it_is_naive_even_with_a_past(tasks):
    method = make_prer(weights={"er": 0.0})
    train(method, tasks[0])
    task = method.begin_task(tasks[1])
    assert method.rehearsal is None
    x, y = task.train.batch(slice(0, 16))
    z = method.learner.embed(x)
    naive = torch.nn.functional.cross_entropy(method.learner.logits(z, 1), method.learner.columns(y, 1))
    assert torch.equal(total_loss(method, x, y, task), naive)


def test_l1_is_the_norm_of_the_encoder(tasks):
    method = make_prer(weights={"l1": 0.5})
    task = method.begin_task(tasks[0])
    x, y = task.train.batch(slice(0, 16))
    with_l1 = total_loss(method, x, y, task)
    norm = sum(p.abs().sum() for p in method.learner.encoder.parameters())
    method.config = Config.model_validate(SMALL_PRER)
    torch.testing.assert_close(with_l1, total_loss(method, x, y, task) + 0.5 * norm)


def test_no_real_image_of_the_past_can_be_reached(tasks):
    method = make_prer()
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
    method = make_prer()
    sizes = []
    for task in tasks:
        train(method, task)
        sizes.append(sum(value.numel() for value in method.state_dict().values()))
        assert method.rehearsal is None, "generated images outlive their task"
    assert sizes[0] == sizes[1] == sizes[2] > 0


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(BadInput, match="cannot say which class"):
        make_prer(flow={"conditioning": {"type": "none"}}, weights={"replay": 1.0})
    with pytest.raises(BadInput, match=r"method.flow: 5 levels need more than 8 dimensions"):
        make_prer(flow={"levels": 5})


@pytest.mark.parametrize("targets", ["labels", "logits", "both"])
@pytest.mark.parametrize("scenario", ["task", "class", "domain"])
def test_replay_trains_the_heads_and_the_encoder(tasks, scenario, targets):
    options = {"replay": {"targets": targets}, "weights": {"er": 0.0, "replay": 1.0}}
    method = make_prer(scenario, **options)
    train(method, tasks[0])
    task = method.begin_task(tasks[1])
    with torch.no_grad():  # as if training had moved the encoder: logits differ from those of the past
        method.learner.encoder.projection.weight.mul_(2)
    for kind in ("alternation", "overwrite", "concatenation"):
        method.config = Config.model_validate(merged(SMALL_PRER, {**options, "regularization": {"type": kind}}))
        method.learner.zero_grad()
        terms = method.loss(*task.train.batch(slice(20, 36)), task)
        terms["replay"].backward()
        assert all(torch.isfinite(term) for term in terms.values())
        assert method.learner.heads[0][0].weight.grad.abs().sum() > 1e-6
        assert all(p.grad.abs().sum() > 1e-6 for p in method.learner.encoder.parameters())


@pytest.mark.long
@pytest.mark.parametrize("make", [make_prer, make_features])
@pytest.mark.parametrize("scenario", ["task", "class", "domain"])
def test_the_flow_classifies_by_bayes_rule(tasks, feature_tasks, scenario, make):
    tasks = feature_tasks if make is make_features else tasks
    options = {"flow": {"epochs": 60, "lr": 5e-3, "noise": 0.2}, "predict": "flow"}
    options["regularization"] = {"fixed_replay": 100}
    if make is make_prer:
        options["autoencoder"] = {"epochs": 20}
    method = make(scenario, **options)
    x, y = tasks[1].test.batch(slice(None))
    untaught = method.predict(x, 1)  # by the heads
    assert set(untaught.tolist()) <= set(range(6))
    for task in tasks[:2]:
        train(method, task, steps=40, lr=3e-3)
    assert float((method.predict(x, 1) == y).float().mean()) > 0.8
    posterior = method.flow.posterior(method.codes(x))
    torch.testing.assert_close(posterior.exp().sum(1), torch.ones(len(x)))
    assert (posterior[:, 4:] == -torch.inf).all(), "classes never seen"


@pytest.mark.parametrize("make", [make_prer, make_features])
@pytest.mark.parametrize("scenario", ["task", "class", "domain"])
def test_both_classify_by_the_product_of_their_probabilities(tasks, feature_tasks, scenario, make):
    tasks = feature_tasks if make is make_features else tasks
    method = make(scenario, predict="both")
    x, _ = tasks[0].test.batch(slice(None))
    for task in tasks:
        train(method, task, steps=2)
    with torch.no_grad():
        head = method.learner.logits(method.embed(x), 0).softmax(dim=1)
        flow = method.learner.as_class_logits(method.class_densities(x), 0).softmax(dim=1)
        product = (head * flow) / (head * flow).sum(dim=1, keepdim=True)
        torch.testing.assert_close(method.logits(x, 0).softmax(dim=1), product, rtol=1e-3, atol=1e-5)
    assert method.config.weights.replay or scenario == "task", "the heads learn from samples, as with predict: head"


@pytest.mark.parametrize("targets", ["labels", "logits", "both"])
@pytest.mark.parametrize("scenario", ["task", "class", "domain"])
def test_replay_is_of_the_labels_or_of_what_the_heads_said_before(tasks, scenario, targets):
    options = {"replay": {"targets": targets, "temperature": 3.0}, "weights": {"er": 0.0, "replay": 1.0}}
    prer = make_prer(scenario, **options, regularization={"noise": 0.0})
    for past in tasks[:2]:
        train(prer, past)
    learner = prer.learner.eval()  # no dropout
    task, teacher = prer.begin_task(tasks[2]), copy.deepcopy(learner)
    learner.see(3)
    with torch.no_grad():
        for p in learner.parameters():
            p.add_(0.1 * torch.randn_like(p))
    state = prer.stream.get_state()
    terms = prer.loss(*task.train.batch(slice(0, 16)), task)
    prer.stream.set_state(state)
    old = prer.rehearsal.draw(16, prer.stream)
    z, before = learner.embed(as_floats(old.x)), teacher.embed(as_floats(old.x))
    past = slice(4) if scenario == "class" else slice(None)
    labels = learner.cross_entropy(z, old.y)
    held = divergence(learner.mixed_logits(z, old.y)[:, past], teacher.mixed_logits(before, old.y)[:, past], 3.0)
    expected = {"labels": labels, "logits": held, "both": labels + held}[targets].mean()
    torch.testing.assert_close(terms["replay"], 2 / 3 * expected)
