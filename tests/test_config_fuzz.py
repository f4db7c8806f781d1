"""Random configurations: valid ones resolve and come back, others end with exit code 2 and name the key.

In the short form some hundred; `python -m pytest tests/test_config_fuzz.py --hypothesis-profile long` tries thousands.
"""

import copy
import string
import types
from functools import partial
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel

from main import main
from methods import find, known
from utils.config.load import load
from utils.config.schema import ModelConfig, TrainConfig
from utils.config.yaml_text import as_yaml, flatten
from utils.settings import Chosen, modules

TEXT = st.text(string.ascii_letters + string.digits + "/._- äß", min_size=1, max_size=20)


def of_type(annotation: Any, metadata: list[Any]) -> st.SearchStrategy:
    """Values of one annotation, within its bounds, as they may stand in a YAML file."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return of_type(arguments[0], [*metadata, *arguments[1:]])
    if origin in (Union, types.UnionType):
        return st.one_of([of_type(argument, metadata) for argument in arguments])
    if origin is Literal:
        names = st.sampled_from(arguments)
        return names | names.map(lambda name: name.upper() if isinstance(name, str) else name)
    if origin is list:
        return st.lists(of_type(arguments[0], []), min_size=1, max_size=1)
    for choice in [entry for entry in metadata if isinstance(entry, Chosen)]:
        names = [name for name in modules(choice.package, choice.builder) if not required(choice.model(name))]
        names = [name for name in names if name != "own"]  # it needs one of two
        return st.sampled_from(names).flatmap(partial(chosen, choice))
    if annotation is type(None):
        return st.none()
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return section(annotation)
    if annotation is str:
        return TEXT.map("of {}e".format)  # the options with text are paths: not `..` or `/`
    if annotation is bool:
        return st.booleans()
    bounds = {name: getattr(m, name) for m in metadata for name in ("ge", "gt", "le", "lt") if hasattr(m, name)}
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if annotation is int:
        return st.integers(low + ("gt" in bounds), high if high is not None else low + 10**6)
    return st.floats(
        low, high, exclude_min="gt" in bounds, exclude_max="lt" in bounds, allow_infinity=False, allow_nan=False
    )


def required(model: type[BaseModel]) -> list[str]:
    """The options without a default."""
    return [name for name, field in model.model_fields.items() if field.is_required() and name != "name"]


def chosen(choice: Chosen, name: str) -> st.SearchStrategy:
    """Sections that name this module."""
    return section(choice.model(name), choice.key).map(lambda values: {**values, choice.key: name})


@st.composite
def section(draw, model: type[BaseModel], key: str = "name") -> dict[str, Any]:
    """Some of a section's keys, but not `key`, with valid values."""
    fields = {name: field for name, field in model.model_fields.items() if name != key}
    names = draw(st.lists(st.sampled_from(sorted(fields)), unique=True)) if fields else []
    return {name: draw(of_type(fields[name].annotation, fields[name].metadata)) for name in names}


@st.composite
def trees(draw) -> dict[str, Any]:
    """Whole valid files."""
    name = draw(st.sampled_from(known()))
    train = {**draw(section(TrainConfig)), "device": draw(st.sampled_from(["auto", "CPU", "cuda", "cuda:1"]))}
    scenario = {"dataset": "digits", "type": draw(st.sampled_from(["task", "class", "Domain"]))}
    scenario |= {
        "labels_per_task": draw(st.integers(2, 10)),
        "class_order": draw(st.sampled_from(["natural", "Shuffled"])),
    }
    if train.get("optimizer", "adam").lower() != "sgd":
        train.pop("momentum", None)
    if train.get("selection", "last").lower() == "dev" or train.get("evaluate_splits", "").lower() == "test+dev":
        scenario["dev_split"] = draw(st.floats(0.01, 0.9))
    method = {"name": name, **draw(section(find(name)[1]))}
    return {"method": method, "scenario": scenario, "model": draw(section(ModelConfig)), "train": train}


def written(tmp_path_factory, tree: dict[str, Any]):
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_text(as_yaml(tree), encoding="utf-8")
    return path


@given(tree=trees())
def test_valid_configurations_resolve_and_come_back(tmp_path_factory, tree):
    config = load(written(tmp_path_factory, tree))
    again = load(written(tmp_path_factory, config.dump()))
    assert again.dump() == config.dump() and again.identity == config.identity
    values = flatten(config.dump())
    for key, value in flatten(tree).items():
        if key not in ("scenario.dataset", "train.device") and value not in ({}, None):  # null: a default
            given_, kept = (v.lower() if isinstance(v, str) else v for v in (value, values[key]))
            assert given_ == kept, key


@given(tree=trees(), data=st.data())
def test_mutated_configurations_end_with_2_and_a_line_that_names_the_key(tmp_path_factory, capsys, tree, data):
    tree = copy.deepcopy(tree)
    keys = sorted(flatten(tree))
    *parents, last = data.draw(st.sampled_from(keys), label="key").split(".")
    node = tree
    for parent in parents:
        node = node[parent]
    kind = data.draw(st.sampled_from(["misspelt", "list", "mapping", "text", "huge"]), label="kind")
    if kind == "misspelt":
        named = last[:-1] + "qx"
        node[named] = node.pop(last)
    else:
        named = last
        assume(kind in ("list", "mapping") or isinstance(node[last], bool | int | float))
        node[last] = {"list": ["nonsense"], "mapping": {"nonsense": 1}, "text": "nonsense", "huge": -1e999}[kind]
    capsys.readouterr()
    assert main([str(written(tmp_path_factory, tree)), "--check"]) == 2
    said = capsys.readouterr()
    assert named in said.err and "Traceback" not in said.err and not said.out
    assert all(line.count(":") >= 2 for line in said.err.strip().splitlines())


@given(text=st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
def test_any_text_is_no_traceback(tmp_path_factory, capsys, text):
    path = tmp_path_factory.getbasetemp() / "text.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    assert main([str(path), "--check"]) == 2
    assert "Traceback" not in capsys.readouterr().err


DOUBLING = ["a0: &a0 {k: 1}", *(f"a{i}: &a{i} {{p: *a{i - 1}, q: *a{i - 1}}}" for i in range(1, 40))]


@pytest.mark.parametrize("text", ["a: &a {x: *a}", "\n".join(DOUBLING)])
def test_a_file_that_unfolds_without_end_is_refused_at_once(tmp_path, capsys, text):
    (tmp_path / "bomb.yaml").write_text(text)
    assert main([str(tmp_path / "bomb.yaml"), "--check"]) == 2
    assert "bomb.yaml: more than" in capsys.readouterr().err
