"""DGR and GFR, and their generators: what they make up, what they learn from it, and that nothing real is kept."""

import copy
from collections import Counter
from functools import cache
from typing import NamedTuple

import pytest
import torch
from conftest import CPU, GROUPS, make_data, tensors_of, total_loss, train
from torch.nn import functional as F

from datasets.data import as_floats
from datasets.tasks import split_by_class
from methods import find
from methods.mechanisms.distance import divergence
from methods.mechanisms.generated import cycle_labels
from models import encoders
from models.encoders import mlp
from models.fitting import Objective
from models.gan import FeatureGAN
from models.gaussians import ClassGaussians
from models.learner import HEADS, NO_LOGIT, Learner
from models.vae import VAE
from utils import settings as names


def build_encoder(name, shape, embedding=None):
    return names.find(encoders, name, "build").build(shape, embedding)


class Embeddings(NamedTuple):
    z: torch.Tensor
    y: torch.Tensor


SCENARIOS = ["task", "class", "domain"]
SMALL = {
    "dgr": {"fixed_replay": 40, "vae": {"epochs": 2, "batch_size": 16, "latent": 8}},
    "gfr": {"fixed_replay": 40, "gan": {"epochs": 2, "batch_size": 16, "hidden_size": 16, "latent": 8}},
}


def make(name, scenario="class", shape=(1, 28, 28), encoder="mlp", embedding=20, **options):
    make_method, config = find(name)
    torch.manual_seed(0)
    learner = Learner(build_encoder(encoder, shape, embedding), HEADS["linear"](0.0), scenario, GROUPS)
    settings = config.model_validate({"name": name, **SMALL[name], **options})
    return make_method(settings, learner, torch.Generator().manual_seed(0))


def begun(name, scenario, tasks, index=1, **options):
    """A method that has learned the tasks before `index` and begun this one, whose learner has moved since."""
    method = make(name, scenario, **options)
    for task in tasks[:index]:
        train(method, task)
    method.begin_task(tasks[index])
    method.learner.see(index + 1)
    teacher = copy.deepcopy(method.learner)
    with torch.no_grad():
        for p in method.learner.parameters():
            p.add_(0.02 * torch.randn_like(p))
    return method, teacher


# --- the variational autoencoder ---------------------------------------------------------------------------------


def fitted_vae(tasks, encoder="mlp", **options):
    torch.manual_seed(0)
    shape = tuple(tasks[0].train.x.shape[1:])
    options = {"epochs": 40, "batch_size": 16, "latent": 8, "lr": 3e-3, **options}
    options = {"network": "encoder", **options}
    vae, stream = VAE(build_encoder(encoder, shape), **options), torch.Generator().manual_seed(0)
    vae.fit(tasks[0].train.x, None, stream)
    return vae, stream


def nearest_class(images, tasks):
    """The class (N,) of whose images each image (N, C, H, W) is nearest to the mean."""
    means = torch.stack([t.train.x[t.train.y == c].float().mean(0) for t in tasks for c in t.classes])
    return torch.cdist(images.float().flatten(1), means.flatten(1)).argmin(dim=1)


@pytest.mark.parametrize(("encoder", "channels"), [("mlp", 1), ("mlp", 3), ("paper", 1)])
def test_the_vae_learns_and_its_samples_are_of_the_classes_it_saw(encoder, channels):
    data = make_data(shape=(channels, 28, 28))
    tasks = split_by_class(data, GROUPS, 0.0, torch.Generator(), CPU)
    x = tasks[0].test.batch(slice(None))[0]
    losses = []
    for epochs in (0, 60):
        vae, stream = fitted_vae(tasks, encoder, epochs=epochs)
        with torch.no_grad():
            losses.append(float(sum(vae.negative_elbo(x, stream)).mean()))
    assert losses[1] < 0.95 * losses[0]  # most of it is the entropy of grey pixels, which nothing can lower
    made = vae.sample(100, stream)
    assert made.dtype == torch.uint8 and made.shape == (100, channels, 28, 28)
    counts = nearest_class(made, tasks).bincount(minlength=6)
    assert counts[:2].sum() >= 95 and counts[:2].min() >= 20
    reconstructed = nearest_class(vae.reconstruct(x) * 255, tasks)
    assert (reconstructed == tasks[0].test.y).float().mean() > 0.9


def test_the_elbo_is_that_of_the_paper(tasks):
    """The divergence against torch.distributions; the reconstruction is a log-likelihood for black and white pixels."""
    vae, stream = fitted_vae(tasks, epochs=1)
    x = as_floats(tasks[0].train.x[:5]).round()
    state = stream.get_state()
    reconstruction, kl = vae.negative_elbo(x, stream)
    features = vae.features(x)
    code = torch.distributions.Normal(vae.mean(features), (0.5 * vae.log_variance(features)).exp())
    standard = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    torch.testing.assert_close(kl, torch.distributions.kl_divergence(code, standard).sum(1))
    stream.set_state(state)
    z = code.mean + code.stddev * torch.randn(code.mean.shape, generator=stream)
    pixels = torch.distributions.Bernoulli(logits=vae.decoder(z))
    torch.testing.assert_close(reconstruction, -pixels.log_prob(x).flatten(1).sum(1))


def test_the_vae_keeps_the_tasks_before(tasks):
    kept, stream = fitted_vae(tasks)
    lost = copy.deepcopy(kept)
    kept.fit(tasks[1].train.x, kept.sample(100, stream), stream)
    lost.fit(tasks[1].train.x, None, stream)
    old = [(nearest_class(vae.sample(200, stream), tasks) < 2).float().mean() for vae in (kept, lost)]
    assert 0.3 < old[0] < 0.7 and old[1] < 0.1


def test_every_task_weighs_the_same_in_the_vae(tasks):
    vae, share, stream = VAE(mlp.build((1, 28, 28)), epochs=200, batch_size=16), [], torch.Generator().manual_seed(0)
    vae.fits += 2
    vae.negative_elbo = lambda x, stream: (share.append(x.mean()), 2 * (vae.mean.bias.sum(),))[1]
    white, black = torch.full((40, 1, 28, 28), 255, dtype=torch.uint8), torch.zeros(90, 1, 28, 28, dtype=torch.uint8)
    vae.fit(white, black, stream)
    assert float(torch.stack(share).mean()) == pytest.approx(1 / 3, abs=0.02)  # 9600 draws: deviation 0.005


def test_the_vae_s_weights_are_its_own(tasks):
    encoder = mlp.build((1, 28, 28), None)
    before = [p.detach().clone() for p in encoder.parameters()]
    vae = VAE(encoder, epochs=1)
    assert not any(torch.equal(a, b) for a, b in zip(vae.features.parameters(), encoder.parameters(), strict=True))
    vae.fit(tasks[0].train.x, None, torch.Generator())
    assert all(torch.equal(a, b) for a, b in zip(before, encoder.parameters(), strict=True))


def test_the_vae_has_shapes_of_its_own():
    """By default those of a perceptron, the same bits whatever the classifier's encoder; or those of the encoder."""
    vaes = {}
    for encoder in ("paper", "mlp"):
        built = build_encoder(encoder, (1, 28, 28))
        for network in ("mlp", "encoder"):
            torch.manual_seed(0)
            vaes[encoder, network] = VAE(built, network=network)
    shapes = {key: [p.shape for p in vae.parameters()] for key, vae in vaes.items()}
    assert shapes["paper", "mlp"] == shapes["mlp", "mlp"] == shapes["mlp", "encoder"] != shapes["paper", "encoder"]
    assert all(
        torch.equal(*pair)
        for pair in zip(vaes["mlp", "mlp"].parameters(), vaes["mlp", "encoder"].parameters(), strict=True)
    )


# --- DGR ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_generated_images_are_labelled_by_the_teacher(tasks, scenario):
    method, teacher = begun("dgr", scenario, tasks, index=2)
    x, answers = method.rehearsal
    z = teacher.embed(as_floats(x))
    expected = [teacher.logits(z, head) for head in range(2 if scenario == "task" else 1)]
    if scenario == "class":
        expected[0] = F.pad(expected[0][:, :4], (0, 2), value=NO_LOGIT)
        assert int(answers[0].argmax(dim=1).max()) < 4, "a class that is yet to come"
    for one, other in zip(expected, answers, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("distillation", [False, True])
@pytest.mark.parametrize("share", [None, 0.25])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_dgr_s_loss(tasks, scenario, distillation, share):
    method, teacher = begun("dgr", scenario, tasks, 2, distillation=distillation, share=share, replay=3.0)
    learner, (x, y) = method.learner, tasks[2].train.batch(slice(0, 16))
    state = method.stream.get_state()
    loss = total_loss(method, x, y, tasks[2])
    method.stream.set_state(state)
    x_old = method.rehearsal[0]
    x_old = as_floats(x_old[torch.randint(len(x_old), (16,), generator=method.stream)])
    z, z_old, z_teacher = learner.embed(x), learner.embed(x_old), teacher.embed(x_old)
    current = F.cross_entropy(learner.logits(z, 2), learner.columns(y, 2))
    past = []
    for head in range(2 if scenario == "task" else 1):
        said, asked = learner.logits(z_old, head), teacher.logits(z_teacher, head)
        if scenario == "class":
            asked = F.pad(asked[:, :4], (0, 2), value=NO_LOGIT)
        past.append(divergence(said, asked, 2.0).mean() if distillation else F.cross_entropy(said, asked.argmax(dim=1)))
    share = share or 1 / 3
    torch.testing.assert_close(loss, share * current + 3.0 * (1 - share) * torch.stack(past).mean())


@pytest.mark.parametrize("distillation", [False, True])
def test_new_classes_are_told_from_generated_images(tasks, distillation):
    """In the class scenario the columns of the new classes fall on images of the past, with soft targets too."""
    method, _ = begun("dgr", "class", tasks, distillation=distillation, share=0.0)
    total_loss(method, *tasks[1].train.batch(slice(0, 16)), tasks[1]).backward()
    bias = method.learner.heads[0].bias.grad
    assert (bias[2:4] > 0).all() and (bias[4:] == 0).all(), "classes that no task had yet take no part"


def test_dgr_forgets_less_than_naive(tasks):
    x, y = tasks[0].test.batch(slice(None))
    for replay, distillation in ((0.0, False), (1.0, False), (1.0, True)):
        vae = {"epochs": round(30 * replay), "batch_size": 16, "latent": 8, "lr": 2e-3}
        method = make("dgr", embedding=None, replay=replay, vae=vae, distillation=distillation, fixed_replay=100)
        for task in tasks[:2]:
            train(method, task, steps=40)
        accuracy = float((method.learner.predict(method.learner.embed(x), 0) == y).float().mean())
        if replay:
            assert accuracy > 0.8 and method.diagnostics([])["agreement"] > 0.8
        else:
            assert accuracy < 0.1


# --- the GAN of embeddings ---------------------------------------------------------------------------------------


def clusters(classes, n=150, seed=0):
    """Embeddings (N, 8) around one point for each class; one dimension is constant."""
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    y = torch.tensor(classes).repeat_interleave(n)
    z = centres[y] + 0.3 * torch.randn(len(y), 8, generator=generator)
    z[:, 5] = 2.0
    centres[:, 5] = 2.0
    return Embeddings(z, y), centres


@cache
def fitted_gan(**options):
    """For tests that do not change it; they copy."""
    torch.manual_seed(0)
    sizes = {"epochs": 40, "batch_size": 32, "hidden_size": 64, "latent": 8, "lr": 1e-2, **options}
    gan, stream = FeatureGAN(8, 4, **sizes), torch.Generator().manual_seed(0)
    real = clusters([0, 1])[0]
    gan.fit(*real, None, stream)
    return gan, stream


def generated(gan, n, classes, stream):
    y = cycle_labels(classes, n, CPU)
    return Embeddings(gan.sample(y, stream), y)


def distance_to_centres(gan, classes, stream):
    """Of the mean of what is generated for each class from the centre of that class (k,)."""
    made, centres = generated(gan, 100 * len(classes), classes, stream), clusters([0])[1]
    return torch.stack([(made.z[made.y == c].mean(dim=0) - centres[c]).norm() for c in classes])


def test_generated_embeddings_move_to_the_class_asked_for():
    before, stream = fitted_gan(epochs=0)
    after, _ = fitted_gan()
    far, near = (distance_to_centres(gan, [0, 1], stream) for gan in (before, after))
    assert (near < 0.4 * far).all()
    made = generated(after, 200, [1, 0], stream)
    assert made.y.tolist() == [1, 0] * 100
    assert 0.1 < float(made.z[made.y == 1].std(dim=0)[0]) < 0.6  # 0.3: as far as it goes a distribution, not a point
    torch.testing.assert_close(made.z[:, 5], torch.full((200,), 2.0), atol=0.1, rtol=0)


@pytest.mark.parametrize("alignment", [1.0, 0.0])
def test_the_gan_keeps_the_classes_before(alignment):
    """Held to itself at the same noise, or learning its own samples again; without either it forgets them."""
    fitted, stream = fitted_gan()
    kept, lost = copy.deepcopy(fitted), copy.deepcopy(fitted)
    kept.alignment = alignment
    real, past = clusters([2, 3])[0], generated(kept, 300, [0, 1], stream)
    kept.fit(*real, past, stream)
    lost.fit(*real, None, stream)
    assert (distance_to_centres(kept, [0, 1, 2, 3], stream) < 3.5).all()
    assert (distance_to_centres(lost, [0, 1], stream) > 4).all()


def test_a_new_standardisation_does_not_change_what_is_generated():
    gan, stream = copy.deepcopy(fitted_gan()[0]), torch.Generator().manual_seed(3)
    former, before = copy.deepcopy(gan.standardize), generated(gan, 20, [0, 1], stream).z
    gan.standardize.initialize(clusters([2, 3])[0].z)
    gan._express(former)
    torch.testing.assert_close(generated(gan, 20, [0, 1], stream.manual_seed(3)).z, before, atol=1e-4, rtol=1e-4)


def test_steps_are_those_of_the_generator(monkeypatch):
    taken = Counter()
    monkeypatch.setattr(Objective, "step", lambda self, *_: taken.update([self.module]))
    gan = FeatureGAN(8, 4, steps=230, critic_steps=3)
    gan.fit(*clusters([0, 1])[0], None, torch.Generator())
    assert (taken[gan.generator], taken[gan.critic]) == (230, 690)


def test_gaussians_have_the_moments_of_their_classes():
    real, stream = clusters([0, 2], n=40)[0], torch.Generator().manual_seed(0)
    gaussians = ClassGaussians(8, 4)
    gaussians.fit(*real, None, stream)
    kept = gaussians.factor[0].clone()
    gaussians.fit(*clusters([1], n=3)[0], None, stream)  # fewer embeddings than dimensions
    assert torch.equal(gaussians.factor[0], kept)
    made, of_class = gaussians.sample(torch.full((40000,), 2), stream), real.z[real.y == 2]
    torch.testing.assert_close(made.mean(dim=0), of_class.mean(dim=0), atol=0.02, rtol=0)
    torch.testing.assert_close(made.T.cov(), of_class.T.cov(correction=0), atol=0.01, rtol=0)
    assert torch.isfinite(gaussians.sample(torch.full((10,), 1), stream)).all()


# --- GFR ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("distance", ["squared", "euclidean"])
@pytest.mark.parametrize(("replay", "distillation"), [(2.0, 3.0), (2.0, 0.0), (0.0, 3.0)])
def test_gfr_s_loss(tasks, scenario, replay, distillation, distance):
    options = {"replay": replay, "feature_distillation": distillation, "distance": distance}
    method, teacher = begun("gfr", scenario, tasks, 2, **options)
    learner, (x, y) = method.learner, tasks[2].train.batch(slice(0, 16))
    state = method.stream.get_state()
    loss = total_loss(method, x, y, tasks[2])
    method.stream.set_state(state)
    index = torch.randint(40, (16,), generator=method.stream)
    z, z_old, y_old = learner.embed(x), method.rehearsal[0][index], method.rehearsal[1]
    expected = F.cross_entropy(learner.logits(z, 2), learner.columns(y, 2))
    assert set(y_old.tolist()) == {0, 1, 2, 3}
    if replay:
        past = learner.cross_entropy(z_old, y_old[index]).mean()
        expected = expected / 3 + replay * 2 / 3 * past
    norms = (z - teacher.embed(x)).norm(dim=1)
    expected = expected + distillation * (norms.square() if distance == "squared" else norms).mean()
    torch.testing.assert_close(loss, expected)


def test_generated_embeddings_train_the_heads_alone(tasks):
    """The encoder learns from the current images; generated embeddings reach the heads of their classes."""
    gradients = []
    for replay in (1e-9, 1.0):
        method, _ = begun("gfr", "task", tasks, replay=replay, feature_distillation=0.0)
        total_loss(method, *tasks[1].train.batch(slice(0, 16)), tasks[1]).backward()
        gradients.append([p.grad for p in method.learner.encoder.parameters()])
        assert method.learner.heads[0].weight.grad.abs().sum() > 0
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_the_first_step_of_a_task_is_finite(tasks):
    """There the distance to the old encoder is 0, where a norm has no slope."""
    method = make("gfr", distance="euclidean")
    train(method, tasks[0])
    method.begin_task(tasks[1])
    total_loss(method, *tasks[1].train.batch(slice(0, 16)), tasks[1]).backward()
    assert all(torch.isfinite(p.grad).all() for p in method.learner.parameters())


@pytest.mark.parametrize("generator", ["gan", "gaussian"])
def test_gfr_forgets_less_than_naive(tasks, generator):
    accuracy = {}
    for strength in (0.0, 1.0):
        gan = {"epochs": round(60 * strength), "batch_size": 16, "hidden_size": 64, "latent": 8, "lr": 2e-3}
        options = {"replay": strength, "feature_distillation": strength, "gan": gan, "generator": generator}
        method = make("gfr", fixed_replay=100, **options)
        for task in tasks[:2]:
            train(method, task, steps=60)
        x, y = tasks[0].test.batch(slice(None))
        accuracy[strength] = float((method.learner.predict(method.learner.embed(x), 0) == y).float().mean())
    assert accuracy[0.0] < 0.1 and accuracy[1.0] > 0.8


# --- both --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("encoder", ["paper", "slim_resnet18"])
def test_colour_images(name, encoder):
    tasks = split_by_class(make_data(train=4, test=2, shape=(3, 20, 20)), GROUPS, 0.0, torch.Generator(), CPU)
    method = make(name, "task", (3, 20, 20), encoder)
    for task in tasks[:2]:
        train(method, task, steps=1)
    assert all(torch.isfinite(p).all() for p in method.learner.parameters())
    assert method.pictures(tasks[1]).keys() == ({"samples", "reconstructions"} if name == "dgr" else set())


@pytest.mark.parametrize("name", SMALL)
def test_memory_is_constant_and_nothing_generated_outlives_its_task(tasks, name):
    method, sizes = make(name), []
    for task in tasks:
        train(method, task)
        sizes.append(sum(value.numel() for value in method.state_dict().values()))
        assert method.rehearsal is None
    assert sizes[0] == sizes[1] == sizes[2]
    assert method.stored_real_samples == 0


@pytest.mark.parametrize("name", SMALL)
def test_no_real_image_can_be_reached(tasks, name):
    method = make(name)
    real = {image.numpy().tobytes() for task in tasks for image in task.train.x}
    for task in tasks:
        train(method, task)
        method.diagnostics([])
        for tensor in tensors_of(method):
            if tensor.ndim == 4 and tensor.shape[1:] == (1, 28, 28):
                bytes_ = tensor if tensor.dtype == torch.uint8 else (tensor * 255).round().to(torch.uint8)
                assert not any(image.numpy().tobytes() in real for image in bytes_.detach())


@pytest.mark.parametrize("name", SMALL)
def test_the_loss_draws_from_the_method_s_own_stream(tasks, name):
    method, _ = begun(name, "class", tasks)
    before, own = torch.get_rng_state(), method.stream.get_state()
    total_loss(method, *tasks[1].train.batch(slice(0, 16)), tasks[1])
    assert torch.equal(before, torch.get_rng_state()) and not torch.equal(own, method.stream.get_state())


def test_the_teacher_of_dgr_names_no_class_to_come_where_all_classes_are_active(tasks):
    method = make("dgr", "class")
    method.learner.only_seen = False
    train(method, tasks[0])
    with torch.no_grad():
        method.learner.heads[0].bias[2:].add_(10.0)
    method.begin_task(tasks[1])
    assert int(method.rehearsal[1][0].argmax(dim=1).max()) < 2
