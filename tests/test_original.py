"""YAML files written for the original code run unchanged: what becomes of each key, and what is said about it."""

import re
from pathlib import Path

import pytest
import yaml
from original_meanings import MEANINGS, USUAL

import main
import methods
from methods import MethodConfig
from utils.config import load as loading
from utils.config.aliases import KEYS, METHODS, SECTIONS, WITHOUT_EFFECT, known_names, translate_key
from utils.config.schema import ScenarioConfig, TrainConfig
from utils.config.yaml_text import flatten
from utils.queue import check
from utils.settings import BadInput, Chosen, Settings

FOLDER = Path(__file__).parent / "originals"


def our_method(stem: str) -> str:
    """The method of a file in our name."""
    name = stem.partition("_")[0]
    return METHODS.get(name, name)


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
def test_every_file_can_be_built(stem, npz, capsys, monkeypatch):
    monkeypatch.setattr(check, "estimate", lambda experiment: (0.0, 0.0))  # of time, as of any configuration
    dataset = f"cl_config.dataset={{name: npz, path: {npz}}}"
    assert main.main([str(FOLDER / f"{stem}.yaml"), "--check", "--device", "cpu", "--set", dataset]) == 0
    assert "parameters of its own" in capsys.readouterr().out


def test_every_name_of_the_original_is_in_a_file():
    seen = set()
    for path in FOLDER.glob("*.yaml"):
        name = our_method(path.stem)
        for written in flatten(yaml.safe_load(path.read_text())):
            section, _, key = written.partition(".")
            owner = name if SECTIONS[section] == "method" else SECTIONS[section]
            parts = key.split(".")
            seen |= {(owner, part) for part in parts} | {(owner, translate_key(written, name).partition(".")[2])}
    for owner, names in KEYS.items():
        assert {(owner, old.rpartition(".")[2]) for old in names} <= seen
    ours = {("prer", "replay.space")}  # of an older version of this program
    assert {tuple(key.split(".", 1)) for key in WITHOUT_EFFECT} - ours <= seen


def fields(settings: type[Settings], prefix: str = "") -> set[str]:
    """The dotted keys of a settings class."""
    found = set()
    for name, field in settings.model_fields.items():
        choices = [entry.model_in({}) for entry in field.metadata if isinstance(entry, Chosen)]
        inner = choices[0] if choices else field.annotation
        nested = isinstance(inner, type) and issubclass(inner, Settings)
        found |= {f"{prefix}{name}"} | (fields(inner, f"{prefix}{name}.") if nested else set())
    return found


@pytest.mark.parametrize("owner", sorted({*KEYS, *(key.partition(".")[0] for key in WITHOUT_EFFECT)}))
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
    assert flow.blocks == loading.load(write(tmp_path, PRER)).method.flow.blocks


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
    assert {"name", "plot", "plot_format"} == fields(MethodConfig)


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
    assert set(resolved) == {"method", "scenario", "model", "train", "cluster"}
    assert "model_type" not in resolved["method"]
    assert main.main([str(results / "config.yml")]) == 0  # and the resolved configuration is one of ours
    out, error = capsys.readouterr()
    assert "already finished" in out and error == ""


def test_a_space_of_replay_of_older_versions(tmp_path, capsys):
    text = PRER.replace("name: prer", "name: prer, replay: {space: %s}")
    loading.load(write(tmp_path, text % "image"))
    assert "cl_technique_config.replay.space: has no effect (generated images are replayed;" in capsys.readouterr().err
    with pytest.raises(BadInput, match=r"old.yaml: method.replay.space: embedding is the method prer_features now"):
        loading.load(write(tmp_path, text % "Embedding"))
