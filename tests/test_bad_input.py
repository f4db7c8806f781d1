"""Bad input ends with exit 2 before anything is run: a line or two that name file, key and fix, no traceback."""

import re

import numpy as np
import pytest

import main
import methods
from utils.config import load as loading
from utils.config.aliases import translate_key
from utils.config.load import load_points
from utils.config.yaml_text import as_yaml
from utils.settings import BadInput


def edited(tree: dict, dotted: str, value) -> dict:
    node = tree
    *parents, last = dotted.split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = value
    return tree


KEYS = [
    ("train.epoch", 3, r"train.epoch: unknown key; did you mean epochs\?"),
    ("traim", {}, r"traim: unknown key; did you mean train\?"),
    ("scenario.label_per_tsk", 2, "did you mean label_per_task"),
    ("train.nonsense", 1, "known here: epochs, steps,"),
    ("method.importance", 5, "method.importance: unknown key; known here: name, plot"),
    ("train.epochs", "many", r"train.epochs: got 'many'; expected a valid integer"),
    ("train.epochs", 1.5, "train.epochs: got 1.5; expected"),
    ("train.epochs", True, "train.epochs: got True; expected a valid integer"),
    ("train.epochs", 0, "train.epochs: got 0; expected greater than or equal to 1"),
    ("train.lr", -1, "train.lr: got -1; expected greater than 0"),
    ("train.lr", float("inf"), "train.lr: got inf; expected a finite number"),
    ("train.batch_size", None, "train.batch_size: got None"),
    ("train", [1, 2], r"train: got \[1, 2\]; expected a mapping"),
    ("train.save_path", 7, "train.save_path: got 7; expected a valid string"),
    ("train.optimizer", "adm", r"train.optimizer: got 'adm'; expected 'adam' or 'sgd'"),
    ("train.device", "gpu", "train.device: got 'gpu'"),
    ("train.selection", "dev", r"train.selection: dev needs a dev set; set scenario.dev_split"),
    ("method.name", "niave", r"method: unknown method 'niave'; did you mean naive\? known: .*prer"),
    ("method", {}, "method.name: missing; add it"),
    ("scenario.type", "mutli", "scenario.type: got 'mutli'; expected 'task', 'class' or 'domain'"),
    ("scenario.dataset", "minst", r"scenario.dataset: unknown dataset 'minst'; did you mean mnist\? known: .*npz"),
    ("scenario.dataset", {"name": "npz"}, "scenario.dataset.path: missing; add it: the .npz file"),
    ("scenario.dataset", {"name": "mnist", "path": "x"}, "scenario.dataset.path: unknown key; known here: name"),
    (
        "scenario.dataset",
        {"name": "npz", "path": "nowhere.npz"},
        "nowhere.npz does not exist; it was looked for in the working",
    ),
    (
        "scenario.dataset",
        {"name": "folder", "path": "nowhere"},
        "nowhere does not exist; it was looked for in the working",
    ),
    ("scenario.labels_per_task", 7, "scenario.labels_per_task: 7 is more than the data set's 6 classes"),
    ("scenario.labels_per_task", 1, "scenario.labels_per_task: with 1 there is nothing to classify"),
    ("scenario.dev_split", 1.0, "scenario.dev_split: got 1.0; expected less than 1"),
    ("model.encoder", "resnet9000", r"model.encoder: unknown encoder 'resnet9000'; did you mean resnet18\?"),
    ("model.encoder", {"name": "resnet18", "filter": 8}, r"model.encoder.filter: unknown key; did you mean filters\?"),
    ("model.encoder", {"name": "mlp", "hiden": None}, r"encoder.hiden: unknown key; did you mean hidden_size\?"),
    ("scenario.dataset", {"name": "npz", "path": "a", "pth": None}, r"dataset.pth: unknown key; did you mean path\?"),
    ("model.encoder", {"name": "mlp", "hidden_size": 0}, "model.encoder.hidden_size: got 0; expected greater than"),
    ("method", {"name": "prer", "flow": {"type": "gaussian", "blocks": 2}}, "method.flow.blocks: unknown key; known"),
    ("method", {"name": "prer", "flow": {"type": "nce"}}, r"method.flow: unknown flow 'nce'; did you mean nice\?"),
    ("method", {"name": "prer", "flow": "nce"}, r"method.flow: unknown flow 'nce'; did you mean nice\?"),
    ("method", {"name": "prer", "flow": {"block": 2}}, r"method.flow.block: unknown key; did you mean blocks\?"),
    ("method", {"name": "prer", "flow": {"hidden_size": "big"}}, "method.flow.hidden_size: got 'big'; expected"),
    ("train.momentum", 0.9, "train.momentum: requires train.optimizer: sgd"),
    ("train.cuda_graphs", 3, "train.cuda_graphs: got 3; expected yes or no, or 'auto'$"),
    ("train.device", "gpu", r"train.device: got 'gpu'; expected auto \(CUDA where there is one\), cpu, cuda, cuda:1$"),
    ("train.device", "cuda:128", "train.device: cuda:128 is not available"),
    ("train.device", f"cuda:{10**20}", "train.device: cuda:1.* is not available"),
    ("scenario.dataset", ["digits", "nix"], r"^(?!.*at least).*\[1\]: unknown dataset 'nix'"),
    ("model.normalize", {"mean": [], "std": [1]}, "or at least 1 value$"),
    ("model.base", "a.yaml", "model.base: unknown key; it can be written at the top of a file only"),
    ("train.experiments", 10**12, "train.experiments: got 1000000000000; expected less than or equal to 10000"),
    ("model.embedding", 10**12, "cannot be built .*; are the sizes in model and method too large"),
    ("seed", 3, "seed: unknown key; --seeds 3 or --seeds 0-4"),
    ("train.seeds", [0, 1], "train.seeds: unknown key; --seeds 3 or --seeds 0-4"),
    ("epochs", 3, r"epochs: unknown key; did you mean train.epochs\?"),
    ("epoch", 3, r"epoch: unknown key; did you mean train.epochs\?"),
    ("method.epochs", 3, r"method.epochs: unknown key; did you mean train.epochs\?"),
    ("scenario.dataset", "mnits", r"unknown dataset 'mnits'; did you mean mnist\?"),
    (
        "method",
        {"name": "ewc", "flow": {}, "weights": {"er": 1}, "importence": 2},
        "method: unknown keys for ewc: flow, "
        r"importence \(did you mean importance\?\), weights; delete or correct them; known here: name, plot",
    ),
    (
        "method",
        {"name:ewc": None, "plot:no": None},
        r"method: unknown keys: name:ewc \(write a space after the colon: name: ewc\), plot:no",
    ),
]


@pytest.mark.parametrize(("key", "value", "message"), KEYS)
def test_keys_and_values(small, run, capsys, tmp_path, key, value, message):
    assert run(edited(small, key, value)) == 2
    check(capsys, tmp_path, message)


def check(capsys, tmp_path, message):
    out, error = capsys.readouterr()
    assert re.search(message, error), error
    assert "experiment.yaml: " in error
    assert "Traceback" not in error and "task 0" not in out
    assert len(error.strip().splitlines()) <= 3 and "unicode string" not in error
    assert not (tmp_path / "results" / "exp_0").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds nothing; expected the sections method, scenario"),
        ("# only a comment", "holds nothing"),
        ("[1, 2]", "holds a list"),
        ("a: [", "not valid YAML: .*line 1"),
        ("a: b: c", "not valid YAML"),
        ("\t- x", "not valid YAML"),
        ("train: {lr: 1}\ntrain: {lr: 2}", "the key 'train' is written twice"),
        (
            "method: !!python/object/apply:os.system ['true']",
            "not valid YAML: line 1, column 9: the tag !!python.* has no meaning here; remove it",
        ),
        ("? [a, b]\n: 1", "line 1, column 3: a key must be a name of at most 200 characters"),
        ("&a a: *b", "not valid YAML: line 1, column 7: found undefined alias 'b'$"),
        ("a: @b", "line 1, column 4: found character '@', which cannot start a value$"),
        ("a: [1, 2", "line 1, column 9: something is missing before this place; check brackets"),
        ("a: !!bool x", "line 1, column 4: the tag !!bool has no meaning here"),
        ("a: !!set {b}", "the tag !!set has no meaning here"),
        ("a: 1\n--- b", "expected a single document in the stream but found another document"),
        ("a: " + "[" * 1000, "not valid YAML: nested too deeply"),
        ("a: {<<: 3}", "not valid YAML: line 1, column 9: << takes a mapping"),
        ('a: "\\U00110000"', "no character"),
        ('"\\ud800": 1', "no character"),
        ("".join(f"key{i}: 1\n" for i in range(50_000)), "more than 200,000 characters"),
        ("".join(f"key{i}: 1\n" for i in range(9_900)), "unknown keys: key0, .* and 9,892 more; delete"),
        ("sweep:\n" + "".join(f"  key{i}: [1]\n" for i in range(4_900)), "sweep: 4,900 keys; at most 50"),
        ("a.b: 1\na: {b: 2}", "a.b and a.b both set a.b; keep one of them"),
    ],
)
def test_files_that_are_no_configuration(run, capsys, tmp_path, text, message):
    assert run(text) == 2
    check(capsys, tmp_path, message)


def test_a_missing_file_names_the_nearest(tmp_path, capsys):
    (tmp_path / "prer_mnist.yaml").write_text("a: 1")
    assert main.main([str(tmp_path / "prer_minst.yaml")]) == 2
    assert re.search(r"prer_minst.yaml: no such file; did you mean .*prer_mnist.yaml\?", capsys.readouterr().err)
    assert main.main([str(tmp_path)]) == 2
    assert "cannot be read" in capsys.readouterr().err
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert main.main([str(tmp_path / "binary.yaml")]) == 2
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "train.epochs"], "expected KEY=VALUE"),
        (["--set", "train.epoch=2"], "did you mean epochs"),
        (["--set", "train.epochs=[1"], "not valid YAML"),
        (["--set", "train.epochs=x"], "expected a valid integer"),
        (["--set", "train.lr=" + "[" * 1000], "nested too deeply"),
        (["--set", "train.save_path=#1"], "# begins a comment in YAML; put the value in quotes"),
        (["--set", "train.save_path=a #1"], "# begins a comment in YAML"),
        (["--set", "train.save_path="], "the value is empty; write train.save_path=null"),
        (["--set", "train.save_path=&a"], "the value is empty"),
        (["--set", "train.lr=!!float x"], "the tag !!float has no meaning here"),
        (["--set", "a." * 150 + "a=1"], "expected KEY=VALUE"),
        (["--name", "a/b"], "expected letters, digits"),
        (["--name", "a"], r"train.save_path: no \{name\} in it for --name a"),
        (["--data-root=~nobody_of_this_name/x"], "there is no home directory of this user"),
        (["--data-root=$NOT_SET/x"], "NOT_SET.* is not set"),
        (["--out="], "the path is empty"),
        (["--seeds", "4-0"], "is not a range"),
        (["--seeds", "a"], "is not like 0-4 or 0,3"),
        (["--device", "tpu"], "expected auto, cpu, cuda"),
        (["--frobnicate"], "unrecognized arguments"),
        (["--cuda", "99"], "cuda:99 is not available"),
    ],
)
def test_options(small, run, capsys, tmp_path, options, message):
    assert run(small, *options) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert len(error.splitlines()) == 1 and not (tmp_path / "results").exists()


def test_no_configuration_at_all(capsys):
    with pytest.raises(SystemExit) as stop:
        main.main([])
    assert stop.value.code == 2 and "CONFIG" in capsys.readouterr().err


def test_one_class_only(small, run, capsys, tmp_path):
    x, y = np.zeros((8, 12, 12), np.uint8), np.zeros(8, int)
    np.savez(tmp_path / "one.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    small["scenario"]["dataset"]["path"] = str(tmp_path / "one.npz")
    assert run(small) == 2
    check(capsys, tmp_path, "1 class only; a classifier needs at least 2")


def test_images_that_are_all_alike(small, run, capsys, tmp_path):
    x, y = np.zeros((8, 12, 12), np.uint8), np.arange(8) % 4
    np.savez(tmp_path / "black.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    small["scenario"]["dataset"]["path"] = str(tmp_path / "black.npz")
    assert run(small) == 2
    check(capsys, tmp_path, "scenario.dataset: all 8 training images are the same; check how they were made")


def test_images_too_small_for_the_encoder(small, run, capsys, tmp_path):
    x, y = np.arange(200, dtype=np.uint8).reshape(8, 5, 5), np.arange(8) % 4
    np.savez(tmp_path / "tiny.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    small["scenario"]["dataset"]["path"] = str(tmp_path / "tiny.npz")
    assert run(small) == 2
    check(capsys, tmp_path, "model.encoder: images of 5 x 5 pixels are too small for the paper's encoder; use mlp")


def test_what_a_method_refuses_is_found_before_anything_runs(small, run, capsys, tmp_path):
    small["method"] = {"name": "prer", "flow": {"levels": 9}}
    assert run(small) == 2
    check(capsys, tmp_path, "method.flow: 9 levels need more than 32 dimensions")


def test_a_results_folder_of_another_configuration_is_left_alone(small, run, capsys, tmp_path):
    assert run(small) == 0
    before = {p: p.read_bytes() for p in (tmp_path / "results").rglob("*") if p.is_file()}
    capsys.readouterr()
    small["train"]["lr"] = 0.5
    assert run(small) == 2
    error = capsys.readouterr().err
    assert "train.lr: 0.001 -> 0.5" in error and "--restart" in error and len(error.splitlines()) == 1
    assert before == {p: p.read_bytes() for p in (tmp_path / "results").rglob("*") if p.is_file()}


def test_settings_without_effect_on_results_may_change_in_a_folder(small, run):
    assert run(small) == 0
    small["train"] |= {"experiments": 2, "device": "auto", "load": True}
    small["method"]["plot"] = True
    assert run(small) == 0


def test_a_folder_that_may_not_be_written(small, run, capsys, tmp_path):
    small["train"]["save_path"] = "/proc/results"  # not even by root
    assert run(small) == 2
    check(capsys, tmp_path, "train.save_path: /proc/results cannot be (made|written)")


def test_a_save_path_below_a_file(small, run, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    small["train"]["save_path"] = str(tmp_path / "file" / "results")
    assert run(small) == 2
    check(capsys, tmp_path, "cannot be made: .*file is not a directory")


def test_two_files_with_one_folder(small, run, capsys, tmp_path):
    import yaml

    (tmp_path / "other.yaml").write_text(yaml.safe_dump(small))
    assert run(small, str(tmp_path / "other.yaml")) == 2
    assert "is also used by" in capsys.readouterr().err


def test_a_missing_section_says_what_goes_there(run, capsys, tmp_path):
    assert run("train: {epochs: 2}") == 2
    check(capsys, tmp_path, r"method: missing; add it: .*\n.*scenario: missing; add it: the data set")


def test_all_mistakes_are_told_at_once(small, run, capsys):
    small["train"] |= {"epochs": -1, "lrr": 1}
    assert run(small) == 2
    error = capsys.readouterr().err
    assert "train.epochs" in error and "train.lrr" in error


def load(tmp_path, text, *overrides):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return loading.load(path, overrides)


BASE = "method: {name: NAIVE}\nscenario: {dataset: DIGITS}\n"


def test_names_match_without_regard_to_case_and_paths_keep_theirs(tmp_path):
    text = BASE + "train: {save_path: /Tmp/My_Results, optimizer: SGD, device: CUDA:1}\nmodel:\n"
    loaded = load(tmp_path, text)
    assert (loaded.method.name, loaded.scenario.dataset.name, loaded.train.optimizer) == ("naive", "digits", "sgd")
    assert loaded.train.save_path == "/Tmp/My_Results" and loaded.train.device == "cuda:1"
    assert str(load(tmp_path, BASE).save_path) == "results/digits/naive"


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("5E+2", 500.0), ("1", 1.0), (".5", 0.5), ("2.5e-1", 0.25)]
)
def test_numbers_are_numbers(tmp_path, text, value):
    assert load(tmp_path, BASE + f"train: {{lr: {text}}}").train.lr == value
    assert load(tmp_path, BASE, f"train.lr={text}").train.lr == value


@pytest.mark.parametrize("text", ["010", "1:30", "0x10", "0x_", "0b1", "9" * 5000, "1:" * 5000 + "1", "2024-13-45"])
def test_what_yaml_1_1_reads_as_another_number_is_text(tmp_path, text):
    with pytest.raises(BadInput, match=r"train.epochs: got '.{1,80}'; expected a valid integer$"):
        load(tmp_path, BASE, f"train.epochs={text}")
    if len(text) < 20:
        loaded = load(tmp_path, BASE + f"train: {{save_path: {text}}}")
        assert loaded.train.save_path == text and load(tmp_path, as_yaml(loaded.dump())).train.save_path == text


def test_merge_keys_and_anchors(tmp_path):
    text = """
    method: &m {<<: {name: ewc, plot: no}, plot: yes}
    scenario: {<<: [{type: class}, {type: task, dataset: digits}]}
    train: {<<: {epochs: 3, lr: 1}, epochs: 1, save_path: "<<"}
    """
    loaded = load(tmp_path, text)
    assert (loaded.method.name, loaded.method.plot, loaded.scenario.type) == ("ewc", True, "class")
    assert (loaded.train.epochs, loaded.train.lr, loaded.train.save_path) == (1, 1.0, "<<")
    bomb = "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 60))
    with pytest.raises(BadInput, match="unknown keys: a0, a1"):
        load(tmp_path, "a0: &a0 {k: 1}\n" + bomb)


def test_a_character_that_json_writes_as_two_escapes(tmp_path):
    assert load(tmp_path, BASE, r'train.save_path="\ud83d\ude00 #1"').train.save_path == "\U0001f600 #1"


def test_short_forms_take_overrides(tmp_path):
    text = "method: ewc\nscenario: digits\n"
    loaded = load(tmp_path, text, "method.importance=5", "scenario.type=class", "scenario.dataset.name=mnist")
    assert (loaded.method.importance, loaded.scenario.type, loaded.scenario.dataset.name) == (5, "class", "mnist")
    assert load(tmp_path, text, "scenario=svhn").scenario.dataset.name == "svhn"
    (point, _) = load_points(tmp_path / "c.yaml", ["method.importance=[1, 2]", "scenario.dev_split=0.1"])
    assert point.config.method.importance == 1


def test_an_override_by_a_name_replaces_the_whole_section(tmp_path):
    text = "method: {name: prer, flow: {blocks: 2}, weights: {er: 1}}\nscenario: digits\n"
    assert load(tmp_path, text, "method=ewc").dump()["method"] == load(tmp_path, BASE, "method=ewc").dump()["method"]
    with pytest.raises(BadInput, match=r"c.yaml: method: unknown keys for ewc: flow, weights; delete[^\n]*$"):
        load(tmp_path, text.replace("name: prer", "name: ewc"))


def test_overrides_replace_a_name_by_a_mapping_and_back(tmp_path):
    mapping = load(tmp_path, BASE, "scenario.dataset={name: npz, path: a.npz}")
    assert (mapping.scenario.dataset.name, mapping.scenario.dataset.path) == ("npz", "a.npz")
    text = "method: {name: naive}\nscenario: {dataset: {name: npz, path: a.npz}}"
    assert load(tmp_path, text, "scenario.dataset=mnist").dump()["scenario"]["dataset"] == {"name": "mnist"}
    assert load(tmp_path, text, "scenario.dataset.path=b.npz").scenario.dataset.path == "b.npz"


def test_the_original_s_names_are_aliases(tmp_path):
    text = """
    cl_technique_config:
      name: prer
      autoencoder_epochs: 3
      generator_epochs: 4
      nf: {levels: 1, n_hiddens: 2, conditioning_config: {type: class_embedding, dimension: 4}}
      autoencoder: {conditioning_config: {type: none}}
    train_config: {epochs: 2, cuda: no, save_path: Here}
    cl_config: {cl_problem: SIT, label_per_task: 5, dataset: MNIST}
    """
    loaded = load(tmp_path, text, "train_config.epochs=3", "method.nf.blocks=7")
    assert (loaded.scenario.type, loaded.scenario.labels_per_task, loaded.train.device) == ("class", 5, "cpu")
    assert (loaded.method.autoencoder.epochs, loaded.method.flow.epochs) == (3, 4)
    assert (loaded.method.flow.levels, loaded.method.flow.hidden_layers, loaded.method.flow.blocks) == (1, 2, 7)
    assert loaded.method.flow.conditioning.dimension == 4 and loaded.method.autoencoder.conditioning.type == "none"
    assert loaded.train.epochs == 3 and loaded.train.save_path == "Here"
    assert load(tmp_path, text, "cl_config.cl_problem=mt", "train.cuda=yes").scenario.type == "task"
    assert translate_key("cl_technique_config.nf.conditioning_config.type", "prer") == "method.flow.conditioning.type"


def test_a_resolved_configuration_loads_as_it_is(tmp_path):
    import yaml

    text = "method: {name: prer, flow: {hidden_size: 2.0}}\nscenario: {dataset: {name: npz, path: a.npz}}"
    loaded = load(tmp_path, text)
    again = load(tmp_path, yaml.safe_dump(loaded.dump()))
    assert again.dump() == loaded.dump() and again.identity == loaded.identity
    assert again.method.flow.hidden_size == 2.0 and isinstance(again.method.flow.hidden_size, float)


def test_bad_input_carries_its_own_words():
    with pytest.raises(BadInput, match="did you mean prer"):
        methods.find("prrr")


def test_a_base_file_is_the_ground_and_own_keys_win(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "ground.yaml").write_text(BASE + "train: {epochs: 7, lr: 0.1}\nsweep: {train.batch_size: [8, 16]}\n")
    (tmp_path / "sub" / "middle.yaml").write_text("base: ../ground.yaml\ntrain_config: {epochs: 8}\n")
    (tmp_path / "c.yaml").write_text("base: sub/middle.yaml\nmethod: {plot: no}\nsweep: {scenario.dev_split: [0.1]}\n")
    points = [point.config for point in load_points(tmp_path / "c.yaml")]
    assert [(c.train.epochs, c.train.lr, c.train.batch_size) for c in points] == [(8, 0.1, 8), (8, 0.1, 16)]
    assert {(c.method.name, c.method.plot, c.scenario.dev_split) for c in points} == {("naive", False, 0.1)}
    (tmp_path / "c.yaml").write_text("base: sub/middle.yaml\nmethod: ewc\ntrain: {batch_size: 4}\n")
    (point,) = load_points(tmp_path / "c.yaml")
    assert (point.config.method.name, point.config.train.batch_size) == ("ewc", 4)  # no longer swept
    (point,) = load_points(tmp_path / "c.yaml", ["train.epochs=1"])
    assert point.config.train.epochs == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: c.yaml", "c.yaml: base: c.yaml is based on this file"),
        ("base: other.yaml", r"other.yaml: base: c.yaml is based on this file"),
        ("base: othr.yaml", r"othr.yaml: no such file; did you mean other.yaml\?"),
        ("base: [a, b]", r"c.yaml: base: got \['a', 'b'\]; expected another YAML file"),
        ("bse: other.yaml", r"bse: unknown key; did you mean base\?"),
    ],
)
def test_base_files_that_cannot_be_used(tmp_path, text, message):
    (tmp_path / "other.yaml").write_text("base: c.yaml\n")
    with pytest.raises(BadInput, match=message):
        load(tmp_path, BASE + text)


def test_an_option_of_a_module_keeps_its_bare_name(tmp_path):
    text = "method: naive\nscenario: {dataset: digits}\nmodel: {encoder: resnet18}"
    loaded = load(tmp_path, text, "method.plot=no", "model.encoder.filters=8", "model.encoder.filters=4")
    assert (loaded.method.name, loaded.method.plot) == ("naive", False)
    assert (loaded.model.encoder.name, loaded.model.encoder.filters) == ("resnet18", 4)
    assert load(tmp_path, text, "model.encoder.name=mlp").model.encoder.hidden_size == 400


def test_a_null_that_older_versions_wrote_for_another_data_set_is_the_default(tmp_path):
    text = "method: naive\nscenario: {dataset: {name: %s, path: %s, image_size: null, channels: null}}"
    assert load(tmp_path, text % ("digits", "null")).dump()["scenario"]["dataset"] == {"name": "digits"}
    assert load(tmp_path, text % ("folder", "a")).scenario.dataset.image_size is None
    with pytest.raises(BadInput, match=r"scenario.dataset.path: missing; add it: the \.npz file"):
        load(tmp_path, text % ("npz", "null"))
