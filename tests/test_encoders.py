"""Encoders that others wrote, what images go through before them, and augmentation."""

import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import make_data
from torch import nn

from models.augment import PADDING, Augmentation
from models.encoders import identity, own, patches, torchvision
from models.encoders.network import load_weights
from models.prepare import Prepare, channel_statistics
from utils.config.schema import ENCODER, ModelConfig

SHAPE = (3, 32, 32)
NETS = """
import torch
import yaml
from torch import nn

class Lenet(nn.Sequential):
    def __init__(self, width=6):
        super().__init__(nn.Conv2d(3, width, 5, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())

def lenet(width=6):
    return Lenet(width)

def maps():
    return nn.Conv2d(3, 6, 5)

def number():
    return 3

def pair():
    class Pair(nn.Module):
        def forward(self, x):
            return x.flatten(1), x
    return Pair()

def broken():
    raise KeyError("no such layer")
"""


@pytest.fixture
def nets(tmp_path) -> str:
    (tmp_path / "nets.py").write_text(NETS)
    return str(tmp_path / "nets.py")


def test_a_network_in_a_file_is_an_encoder(nets):
    encoder = own.build(SHAPE, file=nets, build="lenet", options={"width": 5})
    assert (encoder.feature_dim, encoder.embedding_dim) == (20, 20)
    x = torch.rand(2, *SHAPE)
    assert torch.equal(encoder(x), encoder.features(x))
    assert own.build(SHAPE, 7, file=nets, build="lenet")(x).shape == (2, 7)


def test_a_function_of_a_package_is_an_encoder(monkeypatch):
    package = types.ModuleType("their_package")
    package.net = lambda: nn.Flatten()
    monkeypatch.setitem(sys.modules, "their_package", package)
    assert own.build(SHAPE, module="their_package:net").feature_dim == 3072


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected one of file and module"),
        ({"file": "none.py"}, "none.py does not exist"),
        ({"file": "nets.py", "build": "alexnet"}, "nets.py has no function alexnet"),
        ({"file": "nets.py", "build": "maps"}, r"gives shape \(1, 6, 28, 28\) .*expected \(1, F\) floats"),
        ({"file": "nets.py", "build": "number"}, "returned int; expected a torch.nn.Module"),
        ({"file": "nets.py", "build": "pair"}, r"gives tuple .*expected \(1, F\) floats"),
        ({"file": "nets.py", "build": "broken"}, "broken in nets.py failed .KeyError: 'no such layer'"),
        ({"file": "nets.py", "build": "lenet", "options": {"depth": 3}}, "unexpected keyword argument 'depth'"),
        ({"file": "syntax.py"}, "syntax.py cannot be imported .SyntaxError"),
        ({"file": "nets.txt"}, "nets.txt is not a Python file"),
        ({"module": "torch"}, "expected package:function"),
        ({"module": "no_such_package:f"}, "no_such_package cannot be imported"),
        ({"module": "torch:no_such_function"}, "torch has no function no_such_function"),
        ({"file": "nets.py", "build": "lenet", "weights": "none.pt"}, "none.pt cannot be read"),
        ({"file": "nets.py", "build": "lenet", "weights": "other.pt"}, "missing: 0.weight, 0.bias; unknown: 1.weight"),
        ({"file": "nets.py", "build": "lenet", "weights": "shape.pt"}, r"0.bias is \(2,\) instead of \(6,\)"),
        ({"file": "nets.py", "build": "lenet", "weights": "list.pt"}, "holds no state dictionary"),
    ],
)
def test_what_is_wrong_with_a_network_is_one_line(nets, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    Path("syntax.py").write_text("def build(:")
    Path("nets.txt").write_text("")
    torch.save({"1.weight": torch.zeros(3)}, "other.pt")
    torch.save({"0.weight": torch.zeros(6, 3, 5, 5), "0.bias": torch.zeros(2)}, "shape.pt")
    torch.save([1, 2], "list.pt")
    with pytest.raises(ValueError, match=message) as error:
        own.build(SHAPE, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_of_a_file_are_loaded(nets, tmp_path, wrapped):
    trained = own.build(SHAPE, file=nets, build="lenet").features.state_dict()
    trained = {name: torch.full_like(value, 0.5) for name, value in trained.items()}
    state = {"state_dict": {f"module.{name}": value for name, value in trained.items()}} if wrapped else trained
    torch.save(state, tmp_path / "w.pt")
    loaded = own.build(SHAPE, file=nets, build="lenet", weights=str(tmp_path / "w.pt")).features.state_dict()
    assert all(torch.equal(loaded[name], trained[name]) for name in trained)


def test_code_in_a_file_of_weights_does_not_run(nets, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"0.weight": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.pt cannot be read as a state dictionary"):
        own.build(SHAPE, file=nets, build="lenet", weights=str(tmp_path / "text.pt"))
    with pytest.raises(ValueError, match="cannot be read as a state dictionary"):
        own.build(SHAPE, file=nets, build="lenet", weights=str(tmp_path / "evil.pt"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v2", "shufflenet_v2_x0_5", "squeezenet1_0", "resnet19"])
def test_networks_of_torchvision_lose_their_last_layer(model):
    if model in ("squeezenet1_0", "resnet19"):
        message = "does not end in a linear layer" if model == "squeezenet1_0" else "known: resnet18"
        with pytest.raises(ValueError, match=message):
            torchvision.build(SHAPE, model=model)
        return
    grey, colour = torchvision.build((1, 32, 32), model=model), torchvision.build(SHAPE, 9, model=model)
    assert grey.feature_dim == colour.feature_dim == {"resnet18": 512, "mobilenet_v2": 1280}.get(model, 1024)
    assert grey(torch.rand(2, 1, 32, 32)).shape == (2, grey.feature_dim) and colour(torch.rand(2, *SHAPE)).shape == (
        2,
        9,
    )


@pytest.mark.parametrize("classes", [1000, 7])
def test_a_state_dictionary_in_torchvision_s_layout_is_loaded_without_its_last_layer(tmp_path, classes):
    from torchvision.models import resnet18

    theirs = resnet18(num_classes=classes).eval()
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    encoder = torchvision.build(SHAPE, model="resnet18", weights=str(tmp_path / "resnet18.pth")).eval()
    x = torch.rand(2, *SHAPE)
    with torch.no_grad():
        assert torch.equal(theirs.fc(encoder(x)), theirs(x))


def test_weights_of_torchvision_that_are_not_there_are_told(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="no file, nor a name of weights of resnet18: none, DEFAULT, IMAGENET1K_V1"):
        torchvision.build(SHAPE, model="resnet18", weights="IMAGENET")

    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with pytest.raises(ValueError, match=r"weights DEFAULT of resnet18 cannot be downloaded \(no route to host\)"):
        torchvision.build(SHAPE, model="resnet18", weights="DEFAULT")


def test_timm_that_is_not_there_is_told():
    from models.encoders import timm

    if "timm" not in sys.modules and __import__("importlib").util.find_spec("timm"):
        assert timm.build(SHAPE, model="resnet18").feature_dim == 512
    else:
        with pytest.raises(ValueError, match="pip install timm"):
            timm.build(SHAPE, model="resnet18")


def test_without_an_encoder_features_are_the_embedding():
    x = torch.randn(3, 5)
    assert torch.equal(identity.build((5,))(x), x) and identity.build((5,), 4)(x).shape == (3, 4)
    assert identity.build((1, 4, 4)).feature_dim == 16


def test_load_weights_may_leave_a_layer_out(tmp_path):
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    torch.save({"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2), "1.weight": torch.ones(9, 2)}, tmp_path / "w.pt")
    load_weights(net, str(tmp_path / "w.pt"), without="1.")
    assert net[0].weight.eq(1).all() and not net[1].weight.eq(1).all()


def test_images_are_resized_and_normalised():
    x = torch.rand(4, 3, 16, 16)
    mean, std = [0.1, 0.2, 0.3], [0.5, 1.0, 2.0]
    plain = Prepare(None, mean, std)(x)
    torch.testing.assert_close(plain[:, 2], (x[:, 2] - 0.3) / 2)
    larger = Prepare(32)
    assert larger(x).shape == (4, 3, 32, 32) and larger.shape(3, 16, 16) == (3, 32, 32)
    assert torch.equal(Prepare(16)(x), x)
    half = Prepare(8)(x)  # with antialiasing: the mean of an image stays
    torch.testing.assert_close(half.mean((2, 3)), x.mean((2, 3)), atol=0.02, rtol=0)
    assert Prepare(None, mean, std)(x[:, :1]).shape == (4, 3, 16, 16)  # grey images become colour images


def test_the_statistics_of_channels_are_those_of_all_pixels():
    x = make_data(shape=SHAPE).train.x
    mean, std = channel_statistics(x)
    pixels = x.double().div(255).transpose(0, 1).flatten(1)
    np.testing.assert_allclose(mean, pixels.mean(1))
    np.testing.assert_allclose(std, pixels.std(1, correction=0))


@pytest.mark.parametrize("kind", ["flip", "crop", "crop_flip"])
def test_augmented_images_are_crops_and_flips(kind):
    x = torch.rand(64, 3, 12, 12)
    augment = Augmentation(kind, torch.Generator().manual_seed(0))
    out = augment(x)
    padded = nn.functional.pad(x, [PADDING] * 4)
    seen = set()
    for image, whole, made in zip(x, padded, out, strict=True):
        crops = {
            (down, right, flip): (
                whole[:, down : down + 12, right : right + 12].flip(2)
                if flip
                else whole[:, down : down + 12, right : right + 12]
            )
            for down in range(2 * PADDING + 1)
            for right in range(2 * PADDING + 1)
            for flip in (False, True)
        }
        found = [place for place, crop in crops.items() if torch.equal(crop, made)]
        assert len(found) == 1, image.shape
        seen.add(found[0])
    assert len({place[:2] for place in seen}) > 30 if "crop" in kind else {place[:2] for place in seen} == {(4, 4)}
    assert len({flip for *_, flip in seen}) == (2 if "flip" in kind else 1)
    again = Augmentation(kind, torch.Generator().manual_seed(0))
    assert torch.equal(again(x), out) and not torch.equal(again(x), out)


def test_patches_are_learned_from_what_they_are_given_alone():
    data = make_data(shape=(1, 16, 16))
    first = data.train.x[data.train.y < 2]

    def features(images: torch.Tensor) -> torch.Tensor:
        encoder = patches.build((1, 16, 16), count=10, size=5).eval()
        encoder.prepare(images, torch.Generator().manual_seed(0))
        return encoder(data.test.batch(slice(None))[0])

    before, whole = features(first), features(data.train.x)
    assert torch.equal(before, features(first)) and not torch.equal(before, whole)
    assert before.shape == (len(data.test), 40) and 0.3 < before.std() < 30


def test_patches_are_encoded_as_in_the_paper():
    """Against the formulas patch by patch, in numpy."""
    torch.manual_seed(0)
    network = patches.Patches((1, 8, 8), 7, 3, 1, 0.1)
    images = torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8)
    network.learn(images, nn.Identity(), torch.Generator().manual_seed(0))
    x = images[0, 0].double().numpy() / 255
    mean, whiten, centres = (t.double().numpy() for t in (network.mean, network.whiten, network.centres))
    active = np.zeros((6, 6, 7))
    for i in range(6):
        for j in range(6):
            patch = x[i : i + 3, j : j + 3].ravel()
            patch = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + patches.NORM_OFFSET)
            distance = np.linalg.norm(whiten @ (patch - mean) - centres, axis=1)
            active[i, j] = np.maximum(0, distance.mean() - distance)
    quadrants = [active[a : a + 3, b : b + 3].mean((0, 1)) for a in (0, 3) for b in (0, 3)]
    expected = np.stack(quadrants, axis=1).ravel()
    got = network(images[:1].float() / 255)[0] * network.scale + network.centre
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)
    whitened = (
        network._sample(images, nn.Identity(), torch.Generator().manual_seed(1)).double().numpy() - mean
    ) @ whiten
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(9), atol=0.2)


def test_k_means_is_scikit_learn_s():
    from sklearn.cluster import KMeans

    x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    start = x[torch.randperm(400, generator=torch.Generator().manual_seed(2))[:5]]
    theirs = KMeans(5, init=start.numpy(), n_init=1, max_iter=patches.ROUNDS, tol=0).fit(x.numpy()).cluster_centers_
    found = patches.k_means(x, 5, torch.Generator().manual_seed(2))
    np.testing.assert_allclose(found.numpy(), theirs, atol=1e-4)


def test_the_example_of_the_page_runs(tmp_path, monkeypatch):
    """docs/encoders.md: the network of its own, with the options of its YAML."""
    page = (Path(__file__).parent.parent / "docs" / "encoders.md").read_text()
    monkeypatch.chdir(tmp_path)
    Path("my_nets.py").write_text(re.search(r"```python\n(.*?)```", page, re.S).group(1))
    (settings,) = [text for text in re.findall(r"```yaml\n(.*?)```", page, re.S) if "my_nets" in text]
    model = ModelConfig.model_validate(yaml.safe_load(settings)["model"])
    encoder = ENCODER.builder_of(model.encoder)((1, 28, 28), model.embedding)
    assert encoder.feature_dim == 12 * 16 and encoder(torch.rand(2, 1, 28, 28)).shape == (2, 64)
