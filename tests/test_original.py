"""YAML files written for the original code run unchanged: what becomes of each key, and what is said about it."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

import main
import methods
from methods import MethodConfig
from utils import loading
from utils.config import ScenarioConfig, TrainConfig
from utils.original import KEYS, METHODS, SECTIONS, WITHOUT_EFFECT, known_names, translate, translate_key
from utils.settings import BadInput, Settings
from utils.trees import flatten

FOLDER = Path(__file__).parent / "originals"

USUAL = {
    "scenario.type": "task",
    "scenario.labels_per_task": 2,
    "scenario.shuffle_labels": False,
    "train.epochs": 20,
    "train.batch_size": 64,
    "train.experiments": 5,
    "train.optimizer": "adam",
    "train.lr": 0.001,
    "train.device": "auto",
    "train.load": True,
    "train.save": True,
}
"""What every file means, unless it is said below."""

REGULARIZE, WARM_UP = "cl_config.regularize", "train_config.warm_up_epochs"


class Meaning(NamedTuple):
    """What a file resolves to: `USUAL`, these keys, and the defaults for the rest; the keys without effect in it."""

    keys: dict
    ignored: tuple[str, ...] = ()


def method(**options) -> dict:
    return {f"method.{name}": value for name, value in options.items()}


MEANINGS = {
    "naive_mnist": Meaning({"train.save_path": "Results/MNIST/naive"}, (REGULARIZE,)),
    "naive_cifar10": Meaning({"train.optimizer": "sgd", "train.lr": 0.01}, (WARM_UP,)),
    "naive_svhn": Meaning(
        {"scenario.type": "class", "train.device": "cpu", "train.batch_size": 128},
        (REGULARIZE,),
    ),
    "joint_mnist": Meaning({"scenario.type": "class"}, (REGULARIZE,)),
    "joint_cifar10": Meaning({"scenario.shuffle_labels": True}, (REGULARIZE,)),
    "joint_svhn": Meaning({"train.epochs": 5, "train.experiments": 1, "train.load": False, "train.save": False}),
    "ewc_mnist": Meaning(method(importance=100.0, fisher_samples=500), (REGULARIZE,)),
    "ewc_cifar10": Meaning(method(importance=1000.0), (WARM_UP,)),
    "ewc_svhn": Meaning({"scenario.type": "class"} | method(importance=10.0, fisher_samples=250), (REGULARIZE,)),
    "gem_mnist": Meaning(method(memory_per_task=500, margin=0.5), (REGULARIZE,)),
    "gem_cifar10": Meaning(method(memory_per_task=1000), ("cl_technique_config.sample_size",)),
    "gem_svhn": Meaning(
        {"train.device": "cpu"} | method(memory_per_task=250, margin=0.0),
        ("cl_technique_config.batch_size", REGULARIZE),
    ),
    "er_mnist": Meaning(method(memory_per_task=200, sample_size=50, importance=1.0), (REGULARIZE,)),
    "er_cifar10": Meaning(
        method(memory_per_task=100, sample_size=25, importance=10.0, distance="euclidean", normalize=True),
        ("cl_technique_config.batch_size",),
    ),
    "er_svhn": Meaning(method(memory_per_task=300, distance="cosine", normalize=False), (WARM_UP, REGULARIZE)),
    "lwf_mnist": Meaning(method(alpha=0.5, temperature=1.0), ("cl_technique_config.memory_size", REGULARIZE)),
    "lwf_cifar10": Meaning(method(alpha=0.1)),
    "lwf_svhn": Meaning({"scenario.type": "class"} | method(alpha=1.0, temperature=2.0), (WARM_UP,)),
    "gan_mnist": Meaning({}, (REGULARIZE,)),
    "gan_cifar10": Meaning({}),
    "gan_svhn": Meaning({"scenario.type": "class"}, (WARM_UP,)),
    "prer_mnist": Meaning(
        {
            "train.save_path": "results/mnist/PRER",
            "method.plot": True,
            "method.flow.tolerance": 10,
            "method.autoencoder.epochs": 10,
            "method.autoencoder.lr": 0.001,
            "method.autoencoder.batch_size": 64,
            "method.autoencoder.rec_loss": "bce",
            "method.autoencoder.conditioning.type": "one_hot",
            "method.autoencoder.conditioning.dimension": 10,
            "method.flow.epochs": 20,
            "method.flow.levels": 2,
            "method.flow.blocks": 20,
            "method.flow.hidden_layers": 0,
            "method.flow.hidden_size": 1.0,
            "method.flow.lr": 0.001,
            "method.flow.weight_decay": 1e-5,
            "method.flow.batch_size": 128,
            "method.flow.annealing": True,
            "method.flow.conditioning.type": "one_hot",
            "method.flow.conditioning.dimension": 10,
            "method.regularization.type": "alternation",
            "method.regularization.distance": "cosine",
            "method.regularization.fixed_replay": 10_000,
            "method.regularization.to_sample": 64,
            "method.weights.old_tasks": 0.5,
            "method.weights.er": 1.0,
            "method.weights.l1": 0.0,
        },
        (
            "cl_technique_config.plot_step",
            "cl_technique_config.nf.tolerance_cap",
            "cl_technique_config.weights.ce",
            "cl_technique_config.weights.rec",
            WARM_UP,
            REGULARIZE,
        ),
    ),
    "prer_cifar10": Meaning(
        {
            "method.plot": False,
            "method.autoencoder.epochs": 1,
            "method.autoencoder.rec_loss": "mse",
            "method.autoencoder.conditioning.type": "none",
            "method.flow.epochs": 10,
            "method.flow.levels": 2,
            "method.flow.blocks": 5,
            "method.flow.conditioning.type": "class_embedding",
            "method.flow.conditioning.dimension": 16,
            "method.regularization.type": "overwrite",
            "method.regularization.distance": "euclidean",
            "method.regularization.fixed_replay": 10_000,
            "method.weights.er": 10.0,
        },
        ("cl_technique_config.autoencoder.conditioning_config.conditioner_fine_tuning", REGULARIZE),
    ),
    "prer_svhn": Meaning(
        {
            "scenario.type": "class",
            "train.device": "cpu",
            "method.autoencoder.epochs": 25,
            "method.autoencoder.rec_loss": "gaussian",
            "method.flow.epochs": 50,
            "method.flow.levels": 2,
            "method.flow.blocks": 1,
            "method.flow.hidden_size": 100,
            "method.flow.annealing": False,
            "method.flow.conditioning.type": "one_hot",
            "method.regularization.type": "concatenation",
            "method.regularization.fixed_replay": 5000,
            "method.weights.er": 10.0,
            "method.weights.l1": 1e-4,
        },
        ("cl_technique_config.autoencoder.softclip",),
    ),
    "prer_mnist_flat": Meaning(
        {
            "method.plot": False,
            "method.autoencoder.epochs": 10,
            "method.autoencoder.rec_loss": "bce",
            "method.flow.epochs": 20,
            "method.flow.dimension": 20,
            "method.flow.levels": 2,
            "method.flow.blocks": 20,
            "method.flow.hidden_layers": 1,
            "method.flow.hidden_size": 1.0,
            "method.flow.batch_size": 128,
            "method.flow.temperature": 1.0,
            "method.flow.conditioning.type": "one_hot",
            "method.flow.conditioning.dimension": 10,
            "method.regularization.fixed_replay": 10_000,
            "method.regularization.to_sample": 32,
            "method.weights.er": 1.0,
            "method.weights.l1": 0.0,
        },
        ("cl_technique_config.model_type", REGULARIZE),
    ),
    "prer_cifar10_flat": Meaning(
        {
            "method.plot": True,
            "method.flow.early_stopping": True,
            "method.flow.tolerance": 10,
            "method.autoencoder.epochs": 1,
            "method.autoencoder.rec_loss": "mse",
            "method.autoencoder.conditioning.type": "one_hot",
            "method.flow.epochs": 10,
            "method.flow.levels": 2,
            "method.flow.blocks": 5,
            "method.flow.hidden_layers": 0,
            "method.flow.hidden_size": 2.0,
            "method.flow.weight_decay": 1e-5,
            "method.flow.annealing": False,
            "method.flow.conditioning.type": "one_hot",
            "method.flow.conditioning.dimension": 10,
            "method.regularization.type": "alternation",
            "method.regularization.distance": "euclidean",
            "method.regularization.fixed_replay": 10_000,
            "method.weights.old_tasks": 0.5,
            "method.weights.er": 10.0,
            "method.weights.l1": 0.0,
        },
        (
            "cl_technique_config.softclip",
            "cl_technique_config.plot_step",
            "cl_technique_config.tolerance_cap",
            "cl_technique_config.conditioning_config.conditioner_fine_tuning",
            "cl_technique_config.ce",
            "cl_technique_config.rec",
            WARM_UP,
            REGULARIZE,
        ),
    ),
    "prer_svhn_flat": Meaning(
        {
            "method.autoencoder.epochs": 25,
            "method.autoencoder.rec_loss": "mse",
            "method.autoencoder.conditioning.type": "none",
            "method.flow.epochs": 50,
            "method.flow.levels": 2,
            "method.flow.blocks": 1,
            "method.flow.hidden_size": 100,
            "method.flow.conditioning.type": "class_embedding",
            "method.flow.conditioning.dimension": 8,
            "method.regularization.type": "overwrite",
            "method.regularization.fixed_replay": 10_000,
            "method.weights.er": 10.0,
        },
        ("cl_technique_config.nf.nf_weight_decay", REGULARIZE),
    ),
}
"""File in originals/ -> what it means."""


def our_method(stem: str) -> str:
    """The method of a file in our name; skips the test where it is not there yet."""
    name = stem.partition("_")[0]
    name = METHODS.get(name, name)
    if name not in methods.known():
        pytest.skip(f"there is no methods/{name}.py yet")
    return name


def test_there_is_a_meaning_for_every_file():
    assert set(MEANINGS) == {path.stem for path in FOLDER.glob("*.yaml")}
    names = ("naive", "joint", "ewc", "gem", "er", "lwf", "gan", "prer")
    wanted = {f"{m}_{d}" for m in names for d in ("mnist", "cifar10", "svhn")}
    assert wanted | {f"prer_{d}_flat" for d in ("mnist", "cifar10", "svhn")} == set(MEANINGS)


@pytest.mark.parametrize("stem", MEANINGS)
def test_every_file_means_what_it_meant(stem, tmp_path, capsys):
    name, dataset, path = our_method(stem), stem.split("_")[1], FOLDER / f"{stem}.yaml"
    plain = tmp_path / "plain.yaml"
    plain.write_text(yaml.safe_dump({"method": {"name": name}, "scenario": {"dataset": dataset}}))
    meaning = MEANINGS[stem]
    usual = USUAL | {"train.save_path": f"results/{dataset}/{stem.replace(f'_{dataset}', '')}"}
    expected = flatten(loading.load(plain).dump()) | usual
    assert flatten(loading.load(path).dump()) == expected | meaning.keys
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r" \(.+\)$", "", line) for line in lines] == [
        f"{path}: {key}: has no effect" for key in meaning.ignored
    ]


@pytest.mark.parametrize("stem", MEANINGS)
def test_every_file_can_be_built(stem, npz, capsys):
    our_method(stem)
    dataset = f"cl_config.dataset={{name: npz, path: {npz}}}"
    assert main.main([str(FOLDER / f"{stem}.yaml"), "--check", "--device", "cpu", "--set", dataset]) == 0
    assert "parameters of its own" in capsys.readouterr().out


def test_every_name_of_the_original_is_in_a_file():
    seen = set()
    for path in FOLDER.glob("*.yaml"):
        name = METHODS.get(path.stem.partition("_")[0], path.stem.partition("_")[0])
        for entry in translate(list(flatten(yaml.safe_load(path.read_text())).items())):
            section, _, key = entry.written.partition(".")
            owner = name if SECTIONS[section] == "method" else SECTIONS[section]
            parts = key.split(".")
            seen |= {(owner, part) for part in parts} | {(owner, entry.key.partition(".")[2])}
    for owner, names in KEYS.items():
        assert {(owner, old.rpartition(".")[2]) for old in names} <= seen
    assert {tuple(key.split(".", 1)) for key in WITHOUT_EFFECT} <= seen


def fields(settings: type[Settings], prefix: str = "") -> set[str]:
    """The dotted keys of a settings class."""
    found = set()
    for name, field in settings.model_fields.items():
        nested = isinstance(field.annotation, type) and issubclass(field.annotation, Settings)
        found |= {f"{prefix}{name}"} | (fields(field.annotation, f"{prefix}{name}.") if nested else set())
    return found


@pytest.mark.parametrize("owner", {*KEYS, *(key.partition(".")[0] for key in WITHOUT_EFFECT)})
def test_names_lead_to_our_keys_and_hide_none(owner):
    section = {"scenario": ScenarioConfig, "train": TrainConfig}.get(owner)
    ours = fields(section or methods.find(owner)[1])
    name, prefix = ("", owner) if section else (owner, "method")
    ignored = {key.removeprefix(f"{owner}.") for key in WITHOUT_EFFECT if key.startswith(f"{owner}.")}
    for old in KEYS.get(owner, {}):
        assert old not in ours, f"{old} of {owner} is a key of ours"
        assert translate_key(f"{prefix}.{old}", name).removeprefix(f"{prefix}.") in ours | ignored, old
    assert not ours & ignored, "implemented: to be taken out of WITHOUT_EFFECT"


HEAD = "cl_config: {dataset: MNIST}\n"
PRER = HEAD + "cl_technique_config: {name: prer}\n"


def write(tmp_path, text: str) -> Path:
    path = tmp_path / "old.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cl_technique_config: {name: prer, blokcs: 3}", r"method.blokcs: unknown key; did you mean blocks\?"),
        ("cl_technique_config: {name: prer, nf: {tolerence: 3}}", "method.flow.tolerence: .* did you mean tolerance"),
        ("cl_technique_config: {name: prer, importance: 3}", "method.importance: unknown key"),
        ("cl_technique_config: {name: naive, blocks: 3}", "method.blocks: unknown key; known here: name, plot"),
        ("cl_technique_config: {name: naive, memory_size: 3}", "method.memory_size: unknown key"),
        ("cl_technique_config: {name: ewc, nf: {levels: 3}}", "method.nf: unknown key"),
        ("cl_technique_config: {name: ewc, penalty: 3}", r"method.penalty: unknown key"),
        ("cl_technique_config: {name: ewc, penalty_importence: 3}", "did you mean penalty_importance"),
        ("cl_technique_config: {name: lwf, memory_sice: 3}", "did you mean memory_size"),
        ("cl_technique_config: {name: prer}\ntrain_config: {warm_up: 3}", "train.warm_up: unknown key; did you mean"),
        ("cl_technique_config: {name: prer}\nprer: {weights: {ce: 1}}", "prer: unknown key"),
        ("cl_technique_config: {name: gna}", "unknown method 'gna'"),
        ("cl_technique_config: {name: prer, blocks: 2x}", "method.flow.blocks: got '2x'; expected a valid integer"),
        ("cl_technique_config: {name: prer, type: swap}", "method.regularization.type: got 'swap'; expected"),
        ("cl_technique_config: {name: prer}\ntrain_config: {cuda: 1}", "train.device: got 1; expected"),
    ],
)
def test_what_the_original_did_not_know_is_unknown(tmp_path, capsys, text, message):
    assert main.main([str(write(tmp_path, HEAD + text))]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert "Traceback" not in error and "has no effect" not in error


@pytest.mark.parametrize(
    ("options", "first", "second", "ours"),
    [
        ("name: prer, blocks: 2, nf: {blocks: 2}", "blocks", "nf.blocks", "flow.blocks"),
        ("name: prer, levels: 2, n_levels: 1", "levels", "n_levels", "flow.levels"),
        ("name: prer, n_hidden: 2, flow: {hidden_layers: 1}", "n_hidden", "flow.hidden_layers", "flow.hidden_layers"),
        ("name: prer, nf: , flow: {blocks: 1}", "nf", "flow.blocks", "flow"),
        ("name: ewc, importance: 1, penalty_importance: 1", "importance", "penalty_importance", "importance"),
    ],
)
def test_one_key_by_two_names_is_an_error(tmp_path, capsys, options, first, second, ours):
    path = write(tmp_path, HEAD + f"cl_technique_config: {{{options}}}")
    assert main.main([str(path)]) == 2
    where = "cl_technique_config"
    expected = f"{path}: {where}.{first} and {where}.{second} both set method.{ours}; keep one of them\n"
    assert capsys.readouterr().err == expected


def test_all_doubles_are_told_at_once_and_sections_count(tmp_path):
    text = PRER + "train: {epochs: 1, device: cpu}\ntrain_config: {epochs: 2, cuda: no}\n"
    with pytest.raises(BadInput) as error:
        loading.load(write(tmp_path, text))
    lines = str(error.value).splitlines()
    assert [line.split(": ", 1)[1] for line in lines] == [
        "train.epochs and train_config.epochs both set train.epochs; keep one of them",
        "train.device and train_config.cuda both set train.device; keep one of them",
    ]


def test_overrides_replace_by_any_name(tmp_path, capsys):
    path = write(tmp_path, PRER + "train: {epochs: 3, device: cpu}\n")
    overrides = [
        "cl_technique_config.n_levels=1",
        "cl_technique_config.nf.blocks=7",
        "method.flow.blocks=8",
        "cl_technique_config.type=Overwrite",
        "cl_technique_config.conditioning_config={type: CLASS_embedding, dimension: 4}",
        "cl_technique_config.ae_conditioned=no",
        "train_config.cuda=yes",
        "train_config.epochs=2",
        "cl_config.cl_problem=SIT",
        "cl_config.dataset=CIFAR10",
    ]
    loaded = loading.load(path, overrides)
    flow = loaded.method.flow
    assert (flow.levels, flow.blocks, flow.conditioning.type, flow.conditioning.dimension) == (
        1,
        8,
        "class_embedding",
        4,
    )
    assert (loaded.method.regularization.type, loaded.method.autoencoder.conditioning.type) == ("overwrite", "none")
    assert (loaded.train.device, loaded.train.epochs) == ("auto", 2)
    assert (loaded.scenario.type, loaded.scenario.dataset.name) == ("class", "cifar10")
    assert capsys.readouterr().err == ""
    loading.load(path, ["cl_technique_config.tolerance_cap=3", "cl_technique_config.tolerance_cap=4"])
    reason = WITHOUT_EFFECT["prer.flow.tolerance_cap"]
    assert capsys.readouterr().err == f"{path}: cl_technique_config.tolerance_cap: has no effect ({reason})\n"


def test_an_override_of_the_method_changes_what_names_mean(tmp_path):
    path = write(tmp_path, HEAD + "cl_technique_config: {name: naive}\n")
    ewc = loading.load(path, ["cl_technique_config.penalty_importance=5", "cl_technique_config.name=EWC"])
    assert (ewc.method.name, ewc.method.importance) == ("ewc", 5)
    with pytest.raises(BadInput, match=r"method\.penalty_importance: unknown key"):
        loading.load(path, ["cl_technique_config.penalty_importance=5"])


def test_a_mapping_that_overrides_replaces_the_whole(tmp_path):
    path = write(tmp_path, PRER.replace("name: prer", "name: prer, nf: {blocks: 9, n_hiddens: 4}"))
    flow = loading.load(path, ["method.nf={n_hiddens: 2, conditioning_config: {type: none}}"]).method.flow
    assert (flow.hidden_layers, flow.conditioning.type) == (2, "none")
    assert flow.blocks == methods.find("prer")[1].model_fields["flow"].default.blocks


def test_keys_match_without_regard_to_case(tmp_path):
    """As the original's did: it turned them all to lower case."""
    loaded = loading.load(
        write(tmp_path, "CL_technique_config: {Name: prer, NF: {Blocks: 3}}\nCl_Config: {Dataset: SVHN}")
    )
    assert (loaded.method.flow.blocks, loaded.scenario.dataset.name) == (3, "svhn")


def test_names_belong_to_their_method():
    assert translate_key("method.importance", "prer") == "method.importance"
    assert translate_key("cl_technique_config.penalty_importance", "prer") == "method.penalty_importance"
    assert translate_key("cl_technique_config.penalty_importance", "er") == "method.importance"
    assert "penalty_importance" in known_names("method", "ewc") and not known_names("method", "naive")
    assert set(known_names("", "prer")) == set(SECTIONS)
    assert {"name", "plot"} == fields(MethodConfig)


def test_an_old_file_runs_from_end_to_end(tmp_path, npz, capsys):
    results = tmp_path / "Results"
    overrides = [
        f"cl_config.dataset={{name: npz, path: {npz}}}",
        f"train_config.save_path={results}",
        "train_config.epochs=1",
        "train_config.experiments=1",
        "train_config.cuda=no",
        "cl_technique_config.blocks=1",
        "cl_technique_config.autoencoder_epochs=1",
        "cl_technique_config.generator_epochs=1",
        "cl_technique_config.fixed_replay=40",
    ]
    command = [str(FOLDER / "prer_mnist_flat.yaml"), "--set", *overrides]
    assert main.main(command) == 0
    assert "FinalAccuracy" in (results / "final_score.log").read_text()
    assert capsys.readouterr().err.count("has no effect") == 2
    resolved = yaml.safe_load((results / "config.yml").read_text())
    assert set(resolved) == {"method", "scenario", "model", "train", "cluster", "made_with"}
    assert "model_type" not in resolved["method"]
    assert main.main([str(results / "config.yml")]) == 0  # and the resolved configuration is one of ours
    out, error = capsys.readouterr()
    assert "finished before" in out and error == ""
