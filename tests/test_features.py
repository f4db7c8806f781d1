"""Frozen encoders: their features are computed once, cached, and what every method then learns on."""

import json
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CPU, After, few_images, method_settings

from bench.kill import left_by
from datasets.cache import cached
from datasets.data import Data, Split
from prer import load_run
from prer import run as run_in_python
from utils.config.load import load
from utils.run import features
from utils.run.runner import Run
from utils.run.signals import Interrupted, Stop

pytestmark = pytest.mark.usefixtures("quick_health")


@pytest.fixture(scope="session")
def data() -> Data:
    return few_images()


@pytest.fixture
def frozen(small) -> dict:
    """A small experiment on the features of an untrained encoder, whose cache lies in its data root."""
    small["scenario"] |= {"type": "class", "data_root": None}
    small["model"] = {"frozen": "yes"}
    return small


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """The number of images of each call of the extractor."""
    counts, compute = [], features.features
    monkeypatch.setattr(
        features, "features", lambda extractor, x, device: (counts.append(len(x)), compute(extractor, x, device))[1]
    )
    return counts


def started(tree: dict, tmp_path: Path, data: Data, cache: Path | None = None, seed: int = 0, stop: Stop | None = None):
    import yaml

    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(tree))
    run = Run(load(path), data, seed, CPU, stop, cache)
    run.folder.path.mkdir(parents=True, exist_ok=True)
    return run


def test_features_are_the_encoder_s_outputs_whether_cached_or_not(frozen, tmp_path, data, computed):
    plain, first, second = (started(frozen, tmp_path, data, cache) for cache in (None, tmp_path / "c", tmp_path / "c"))
    assert sum(computed) == 2 * (len(data.train) + len(data.test)), "the last run reads what the second wrote"
    for runs in zip(plain.tasks, first.tasks, second.tasks, strict=True):
        for other in runs[1:]:
            assert torch.equal(runs[0].train.x, other.train.x) and torch.equal(runs[0].test.x, other.test.x)
    task = plain.tasks[1]
    mine = data.train.take(torch.isin(data.train.y, torch.tensor(task.classes)))
    with torch.no_grad():
        expected = plain.extractor(mine.batch(slice(None))[0])
    torch.testing.assert_close(task.train.x, expected)
    assert torch.equal(task.train.y, mine.y)


def test_the_results_are_the_same_bits_with_and_without_a_cache_and_in_jobs(frozen, run, tmp_path, capsys):
    frozen["scenario"]["dataset"] = {"name": "npz", "path": "small.npz"}
    frozen["train"]["experiments"] = 2
    for name, more in (("no", ["model.cache=no"]), ("yes", []), ("again", []), ("jobs", [])):
        options = ["--jobs", "2"] if name == "jobs" else []
        settings = ["--set", f"train.save_path={tmp_path / name}", *more]
        assert run(frozen, "--data-root", str(tmp_path), *options, *settings) == 0
    lines = capsys.readouterr().out
    assert lines.count("features written to") == 2, "one for each seed: untrained encoders differ"
    assert lines.count("features read from") == 4
    for name in ("yes", "again", "jobs"):
        assert left_by(tmp_path / "no") == left_by(tmp_path / name)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2


def test_a_damaged_cache_is_computed_again(frozen, tmp_path, data, computed, caplog):
    cache = tmp_path / "cache"
    whole = started(frozen, tmp_path, data, cache).tasks[0].train.x.clone()
    (array,) = cache.glob("*.npy")
    for damage in (lambda: array.write_bytes(array.read_bytes()[:-8] + bytes(8)), lambda: array.write_bytes(b"")):
        damage()
        computed.clear()
        assert torch.equal(started(frozen, tmp_path, data, cache).tasks[0].train.x, whole)
        assert sum(computed) > len(data.train)
    (about,) = cache.glob("*.json")
    about.unlink()  # killed between the two files
    assert torch.equal(started(frozen, tmp_path, data, cache).tasks[0].train.x, whole)
    assert json.loads(about.read_text())["data"] == data.fingerprint


def test_the_cache_tells_images_weights_and_preparation_apart(frozen, tmp_path, data, monkeypatch):
    cache = tmp_path / "cache"
    other = Data(data.train.take(torch.arange(len(data.train)).flip(0)), data.test, data.classes)
    started(frozen, tmp_path, data, cache)
    started(frozen, tmp_path, other, cache)
    started(frozen, tmp_path, data, cache, seed=1)
    for change in ({"resize": 20}, {"normalize": "first_task"}, {"normalize": {"mean": [0.5], "std": [0.5]}}):
        started({**frozen, "model": {"frozen": "yes", **change}}, tmp_path, data, cache)
    assert len(list(cache.glob("*.npy"))) == 6


def test_an_own_network_whose_file_was_edited_is_another(frozen, tmp_path, data):
    file = tmp_path / "nets.py"
    frozen["model"]["encoder"] = {"file": str(file)}
    means = []
    for function in ("relu", "sigmoid"):
        file.write_text(
            "from torch import nn\n\nclass Net(nn.Module):\n    def forward(self, x):\n"
            f"        return x.flatten(1)[:, :50].{function}()\n\ndef build():\n    return Net()\n"
        )
        means.append(float(started(frozen, tmp_path, data, tmp_path / "cache").tasks[0].train.x.mean()))
    assert means[0] < means[1] and len(list((tmp_path / "cache").glob("*.npy"))) == 2


def test_while_another_process_computes_them_it_waits_and_may_be_stopped(tmp_path):
    made, said, calls = threading.Event(), [], []

    def make() -> np.ndarray:
        calls.append(1)
        made.wait(60)
        return np.arange(3.0)

    def ask(check=lambda: None) -> np.ndarray:
        return cached(tmp_path, {"the": "same"}, make, said.append, said.append, check)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(ask)
        while not calls:
            time.sleep(0.01)
        second = pool.submit(ask)
        while not said:
            time.sleep(0.01)
        with pytest.raises(Interrupted):
            ask(lambda: (_ for _ in ()).throw(Interrupted()))
        made.set()
        assert np.array_equal(first.result(), second.result()) and len(calls) == 1
    assert [line.split()[0] for line in said] == ["wait", "wait", "written", "read"]


def test_a_cache_that_cannot_be_written_is_told_and_done_without(frozen, tmp_path, data):
    (tmp_path / "cache").write_text("a file")
    assert len(started(frozen, tmp_path, data, tmp_path / "cache").tasks) == 3


@pytest.mark.parametrize("encoder", ["resnet18", "paper"])
@pytest.mark.parametrize("mode", ["yes", "after_first_task"])
def test_a_frozen_encoder_never_changes_nor_its_running_statistics(frozen, tmp_path, data, mode, encoder):
    frozen["model"] = {
        "frozen": mode,
        "encoder": {"name": encoder, **({"filters": 4} if encoder == "resnet18" else {})},
    }
    frozen["method"] = method_settings("lwf")
    frozen["train"]["epochs"] = 1
    run = started(frozen, tmp_path, data)
    run(tasks=1)
    state = {name: value.clone() for name, value in run.extractor.state_dict().items()}
    assert not run.extractor.training and not any(p.requires_grad for p in run.extractor.parameters())
    run(tasks=None)
    assert all(torch.equal(value, state[name]) for name, value in run.extractor.state_dict().items())
    held = run.recording.results["memory_by_task"][-1]
    assert held["frozen_parameters"] == sum(p.numel() for p in run.extractor.parameters())
    if mode == "after_first_task":
        untrained = started({**frozen, "model": {**frozen["model"], "frozen": "yes"}}, tmp_path, data).extractor
        assert not all(torch.equal(state[name], value) for name, value in untrained.state_dict().items())


@pytest.mark.parametrize(
    ("model", "train"),
    [
        ({"frozen": "after_first_task"}, {"augment": "crop_flip"}),
        ({"frozen": "yes", "encoder": {"name": "patches", "count": 8, "size": 5}}, {}),
        ({"frozen": "no", "resize": 20, "normalize": "first_task"}, {"augment": "crop_flip"}),
    ],
    ids=["after_first_task", "patches", "augmented"],
)
def test_asked_to_stop_anywhere_a_run_goes_on_to_the_same_bits(small, tmp_path, data, model, train):
    small["scenario"]["type"] = "class"
    small["method"], small["model"] = method_settings("der", memory_size=20), model
    small["train"] |= {"checkpoint_minutes": 0, **train}
    small["train"]["save_path"] = str(tmp_path / "whole")
    started(small, tmp_path, data)()
    small["train"]["save_path"] = str(tmp_path / "resumed")
    interruptions = 0
    while True:
        torch.manual_seed(interruptions)  # what the process drew before must not matter
        try:
            started(small, tmp_path, data, stop=After(1 + interruptions % 4))()
            break
        except Interrupted:
            interruptions += 1
    assert interruptions >= 5
    assert left_by(tmp_path / "whole") == left_by(tmp_path / "resumed")


def test_pretraining_is_fine_tuning_on_the_first_task(frozen, tmp_path, data):
    frozen["model"] = {"frozen": "after_first_task"}
    frozen["train"]["epochs"] = 1
    pretrained = started(frozen, tmp_path, data)
    pretrained(tasks=1)
    frozen["model"] = {"frozen": "no"}
    frozen["train"]["save_path"] += "_naive"
    naive = started(frozen, tmp_path, data)
    naive(tasks=1)
    ours, theirs = pretrained.extractor.state_dict(), naive.learner.encoder.features.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert pretrained.recording.results["pretraining"] == naive.recording.results["epochs"][0]


def test_pretraining_augments(frozen, tmp_path, data):
    frozen["model"], states = {"frozen": "after_first_task"}, []
    for augment in ("none", "flip"):
        frozen["train"] |= {"augment": augment, "save_path": str(tmp_path / augment), "epochs": 1}
        run = started(frozen, tmp_path, data)
        run(tasks=1)
        states.append(next(iter(run.extractor.parameters())))
    assert not torch.equal(*states)


@pytest.mark.parametrize("mode", ["yes", "after_first_task"])
def test_a_loaded_run_classifies_images_and_features(frozen, tmp_path, data, mode):
    frozen["model"] = {"frozen": mode, "embedding": 7}
    frozen["train"]["epochs"] = 1
    scores = run_in_python(frozen, seeds=[1])
    trained = load_run(tmp_path / "results", seed=1)
    images, task = np.load(tmp_path / "small.npz")["x_test"], trained.tasks[0]
    x = torch.from_numpy(images[: len(task.test)])
    assert torch.equal(trained.classify(x), trained.classify(task.test.x))
    assert torch.equal(trained.embed(x), trained.embed(task.test.x)) and trained.embed(x).shape == (len(x), 7)
    recorded = scores["test"]["accuracy_matrix"]["values"][0][-1][0]
    assert float((trained.classify(x) == task.test.y).float().mean()) == pytest.approx(recorded)


def test_patches_and_normalisation_use_nothing_but_the_first_task_s_training_images(small, tmp_path, data):
    later = data.train.y >= 2
    changed = data.train.x.clone()
    changed[later] = 255 - changed[later]
    other = Data(Split(changed, data.train.y), Split(255 - data.test.x, data.test.y), data.classes)
    small["model"] = {"encoder": {"name": "patches", "count": 8, "size": 5}, "normalize": "first_task"}
    one, two = started(small, tmp_path, data), started(small, tmp_path, other)
    assert torch.equal(one.tasks[0].train.x, two.tasks[0].train.x)
    states = (run.extractor.state_dict().values() for run in (one, two))
    assert all(torch.equal(*pair) for pair in zip(*states, strict=True))
    assert not torch.equal(one.tasks[1].train.x, two.tasks[1].train.x)


def test_data_that_are_features_are_learned_on(small, run, tmp_path, capsys):
    g = torch.Generator().manual_seed(0)
    y = torch.arange(6).repeat_interleave(20)
    x = torch.randn(6, 12, generator=g)[y] + 0.1 * torch.randn(120, 12, generator=g)
    np.savez(tmp_path / "small.npz", x_train=x.numpy(), y_train=y.numpy(), x_test=x.numpy(), y_test=y.numpy())
    assert run(small) == 2
    assert "use encoder: identity, or mlp" in capsys.readouterr().err
    small["train"]["epochs"] = 20
    for number, (method, encoder) in enumerate((("replay", "mlp"), ("prer_features", "identity"), ("der", "identity"))):
        small["method"], small["model"] = method_settings(method), {"encoder": encoder}
        small["train"]["save_path"] = str(tmp_path / f"{number}")
        assert run(small) == 0
        score = json.loads((tmp_path / f"{number}" / "final_score.json").read_text())
        assert score["test"]["FinalAccuracy"]["mean"] > 0.6, method


WRONG = [
    ({"model": {"frozen": "yes"}, "method": "prer"}, "prer works on images, and gets features; set model.frozen: no"),
    ({"model": {"frozen": "yes"}, "method": "dgr"}, "dgr works on images, and gets features"),
    ({"model": {"frozen": "no"}, "method": "prer_features"}, "prer_features works on features, and gets images; set"),
    ({"model": {"encoder": "patches", "frozen": "no"}}, "patches has nothing to train; set it to yes"),
    ({"model": {"encoder": {"name": "patches", "size": 28}}}, "too few patches of size 28"),
    ({"model": {"frozen": "yes"}, "train": {"augment": "flip"}}, "train.augment: flip needs images at each step"),
    ({"model": {"normalize": {"mean": [0.1, 0.2]}}}, "2 means and 1 stds for 1 channels"),
    ({"model": {"normalize": "imagnet"}}, "expected 'none', 'imagenet' or 'first_task'"),
    ({"model": {"resize": 4}}, "model.resize: got 4; expected greater than or equal to 8"),
    ({"model": {"encoder": "torchvision:resnet19"}}, "torchvision has no network 'resnet19'; known: resnet18"),
    ({"model": {"encoder": "torchvision:vit_b_16"}}, "Wrong image height! Expected 224 but got 16!); model.resize"),
    ({"model": {"encoder": {"file": "nets.py"}}}, "model.encoder: file: nets.py does not exist"),
    ({"model": {"encoder": {"fiel": "nets.py"}}}, "model.encoder.fiel: unknown key"),
    ({"model": {"encoder": "torch_vision:resnet18"}}, "unknown encoder 'torch_vision'; did you mean torchvision?"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[message[:30] for _, message in WRONG])
def test_what_does_not_fit_is_told_before_anything_is_run(small, run, tmp_path, capsys, changes, message):
    if method := changes.pop("method", None):
        small["method"] = method_settings(method)
    tree = {**small, **changes, "train": {**small["train"], **changes.get("train", {})}}
    assert run(tree) == 2
    error = capsys.readouterr().err
    assert message in error and error.strip().count("\n") == 0, error
    assert not (tmp_path / "results").exists()


def test_an_encoder_of_one_s_own_runs_from_yaml(small, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(
        "from torch import nn\n\ndef net(width):\n    return nn.Sequential(nn.Flatten(), nn.LazyLinear(width))\n"
    )
    small["model"] = {"encoder": {"file": "nets.py", "build": "net", "options": {"width": 9}}, "frozen": "yes"}
    assert run(small) == 0
    assert "file: nets.py" in (tmp_path / "results" / "config.yml").read_text()
    assert re.search("encoder_hash: [0-9a-f]{64}", (tmp_path / "results" / "exp_0" / "provenance.yml").read_text())
    shutil.rmtree(tmp_path / "results")
    assert run(small, "--check") == 0


def test_a_file_on_another_one_may_name_another_module_without_its_options(small, tmp_path):
    import yaml

    small["method"] = {"name": "ewc", "importance": 3.0}
    small["model"] = {"encoder": {"name": "patches", "count": 9}, "embedding": 5}
    small["sweep"] = {"method.importance": [1.0, 2.0], "train.lr": [1e-3, 1e-2]}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(small))
    (tmp_path / "own.yaml").write_text(
        "base: base.yaml\nmethod: {name: si}\nmodel: {encoder: {file: nets.py}}\nsweep: {}"
    )
    config = load(tmp_path / "own.yaml")
    assert config.method.name == "si" and config.model.encoder.file == "nets.py" and config.model.embedding == 5
    (tmp_path / "same.yaml").write_text("base: base.yaml\nmethod: {name: EWC}\nmodel: {encoder: {size: 4}}\nsweep: {}")
    same = load(tmp_path / "same.yaml")
    assert same.method.importance == 3.0 and (same.model.encoder.count, same.model.encoder.size) == (9, 4)
