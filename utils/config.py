"""YAML -> a frozen, validated configuration. Every error says which file, which key, and how to mend it."""

import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, SerializeAsAny, ValidationError, create_model

import methods
from datasets import DatasetSettings
from models import ENCODERS
from models.learner import HEADS, Scenario
from utils.made_with import MadeWith
from utils.original import Entry, known_names, translate
from utils.settings import AnyCase, BadInput, Settings

MOST_VALUES = 10_000
"""In a file."""
Pair = tuple[str, Any]
"""A dotted key, and its value."""


class ScenarioConfig(Settings):
    """What is learnt: a data set, cut into tasks."""

    dataset: DatasetSettings
    """a name (digits, mnist, fashion_mnist, kmnist, svhn, cifar10, cifar100), or {name: folder | npz, path: ...}"""
    type: Annotated[Scenario, AnyCase] = "task"
    """task: a head for each task; class: one head for all classes; domain: one head for positions inside a task"""
    labels_per_task: int = Field(2, ge=1)
    """classes in a task; a lone last class joins the task before"""
    shuffle_labels: bool = False
    """let the seed decide the order of the classes"""
    dev_split: float = Field(0.0, ge=0, lt=1)
    """share of the training data held out as dev set, the same of each class"""
    data_root: str | None = None
    """directory of the data sets; --data-root and $DATA_ROOT come first, ./data last"""


class ModelConfig(Settings):
    """The classifier."""

    encoder: Annotated[Literal[tuple(ENCODERS)], AnyCase] = "paper"
    """paper: the paper's convolutions for the images' shape; mlp: two layers of 400; resnet18, slim_resnet18: 64 or 20
    filters, with batch normalisation"""
    embedding: int | None = Field(None, ge=2)
    """size of the embedding; by default 100 (paper, grey), 200 (paper, colour), 400 (mlp), 512 or 160 (resnets)"""
    head: Annotated[Literal[tuple(HEADS)], AnyCase] | None = None
    """paper: three layers; linear: one; by default paper for encoder paper, else linear"""
    dropout: float | None = Field(None, ge=0, lt=1)
    """after each hidden layer of the paper's head, by default 0.5; before the linear head, by default 0"""


class TrainConfig(Settings):
    """How it is learnt, and where the results go."""

    epochs: int = Field(20, ge=1)
    """passes over a task's training data"""
    steps: int | None = Field(None, ge=1)
    """batches a task, instead of epochs"""
    batch_size: int = Field(64, ge=1)
    """images a step"""
    optimizer: Annotated[Literal["adam", "sgd"], AnyCase] = "adam"
    """whose steps change the classifier"""
    reset_optimizer: bool = True
    """make it anew for each task; no: its running moments go on, which makes the first steps of a task larger"""
    lr: float = Field(1e-3, gt=0)
    """learning rate"""
    schedule: Annotated[Literal["constant", "cosine"], AnyCase] = "constant"
    """of the learning rate during a task; cosine: down to 0"""
    momentum: float = Field(0.0, ge=0, lt=1)
    """of sgd"""
    weight_decay: float = Field(0.0, ge=0)
    """L2 penalty of the optimizer"""
    experiments: int = Field(1, ge=1)
    """number of seeds: 0, 1, ... (--seeds chooses others)"""
    selection: Annotated[Literal["last", "dev"], AnyCase] = "last"
    """weights kept of a task: after its last epoch, or after the one with the best dev accuracy"""
    device: Annotated[str, AnyCase] = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """auto (CUDA where there is one), cpu, cuda, cuda:1"""
    save: bool = True
    """write checkpoints, and results after each task; no: an interrupted seed starts again"""
    checkpoint_minutes: float = Field(1.0, ge=0)
    """save: so often inside a task; 0: after every epoch, of a generator's fit too"""
    load: bool = True
    """go on from what is in save_path; no: move it aside and start again"""
    tensorboard: bool = False
    """write the numbers of metrics.csv as TensorBoard's events too (pip install tensorboard)"""
    save_path: str | None = None
    """results folder; by default results/<dataset>/<method>"""


class ClusterConfig(Settings):
    """What a seed takes of a cluster, for --backend ray and slurm; decides no number but by its threads."""

    cpus: int = Field(1, ge=1)
    """cores, and threads"""
    gpus: float = Field(0.0, ge=0)
    """GPUs; 0: computed on the CPU; 0.25: four seeds share one (slurm gives whole ones)"""
    hours: float = Field(24.0, gt=0)
    """slurm's time limit; a seed that reaches it saves, is queued again, and goes on"""


class Config(Settings):
    """A whole experiment."""

    method: SerializeAsAny[methods.MethodConfig]
    """the method's name and its own options, e.g. {name: naive}"""
    scenario: ScenarioConfig
    """the data set and how it is cut into tasks, e.g. {dataset: digits}"""
    model: ModelConfig = ModelConfig()
    """the classifier"""
    train: TrainConfig = TrainConfig()
    """how it is trained, and where the results go"""
    cluster: ClusterConfig = ClusterConfig()
    """what a seed takes of a cluster"""
    made_with: MadeWith | None = Field(None, exclude=True)
    """written by a run into its results folder; decides nothing"""

    @property
    def save_path(self) -> Path:
        """The results folder."""
        return Path(self.train.save_path or f"results/{self.scenario.dataset.name}/{self.method.name}")

    @property
    def identity(self) -> dict[str, Any]:
        """The dotted keys that decide the numbers: two runs with the same may share a results folder."""
        of_train = ("experiments", "device", "save", "checkpoint_minutes", "load", "tensorboard", "save_path")
        ignored = {"scenario.data_root", "method.plot", *(f"train.{key}" for key in of_train)}
        ignored |= {f"cluster.{key}" for key in ClusterConfig.model_fields}
        return {key: value for key, value in flatten(self.dump()).items() if key not in ignored}

    def dump(self) -> dict[str, Any]:
        """The resolved configuration as plain data, which `load` reads back."""
        return self.model_dump(mode="json")


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read the YAML file of one experiment, apply overrides such as "train.epochs=2", and validate everything.

    Raises:
        BadInput: all that is wrong with the file or the overrides, a line each.
    """
    changes = [pair for text in overrides for pair in override(text)]
    config, warnings = resolve(str(path), list(flatten(read(path)).items()), changes)
    warn(path, warnings)
    return config


def resolve(where: str, written: Sequence[Pair], changes: Sequence[Pair]) -> tuple[Config, list[str]]:
    """Dotted keys and values, as a file has them and as they are then changed -> configuration, and warnings.

    Raises:
        BadInput: all that is wrong with them, a line each that begins with `where`.
    """
    entries = translate([*written, *changes])
    _refuse_doubles(where, entries[: len(written)])
    leaves: dict[str, Any] = {}
    for entry in (entry for entry in entries if not entry.ignored):
        for other in [key for key in leaves if overlap(key, entry.key)]:
            del leaves[other]  # a name replaces a mapping, or the other way round
        leaves[entry.key] = entry.value
    sections = _unflatten(leaves)
    try:
        schema = _schema(sections)
        config = schema.model_validate(sections)
        _check_together(config)
    except ValidationError as error:
        lines = dict.fromkeys(_describe(schema, problem) for problem in error.errors())
        raise BadInput("\n".join(f"{where}: {line}" for line in lines)) from None
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
    return config, [f"{e.written}: has no effect ({e.ignored})" for e in entries if e.ignored]


def warn(path: Path, warnings: Sequence[str]) -> None:
    """Say what a file holds to no effect, each thing once."""
    for warning in dict.fromkeys(warnings):
        print(f"{path}: {warning}", file=sys.stderr)


def overlap(one: str, other: str) -> bool:
    """Whether setting one of two dotted keys replaces the other."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def _refuse_doubles(where: str, entries: Sequence[Entry]) -> None:
    """A file may call a key by our name or by the original's, not by both."""
    lines = [
        f"{where}: {first.written} and {second.written} both set {min(first.key, second.key, key=len)}; "
        "keep one of them"
        for i, second in enumerate(entries)
        for first in entries[:i]
        if overlap(first.key, second.key)
    ]
    if lines:
        raise BadInput("\n".join(lines))


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys; an empty mapping stays a value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        flat |= flatten(value, f"{dotted}.") if isinstance(value, dict) and value else {dotted: value}
    return flat


def _unflatten(leaves: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for dotted, value in leaves.items():
        *parents, last = dotted.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return {section: {} if value is None else value for section, value in tree.items()}


def _schema(sections: dict[str, Any]) -> type[Config]:
    """`Config` with the method's own options in its `method` section; brings short forms to the long one."""
    scenario, method = sections.get("scenario"), sections.get("method")
    if isinstance(scenario, dict) and isinstance(scenario.get("dataset"), str):
        scenario["dataset"] = {"name": scenario["dataset"]}
    if isinstance(method, str):
        method = sections["method"] = {"name": method}
    if not isinstance(method, dict) or not isinstance(method.get("name"), str):
        return Config
    _, options = methods.find(method["name"])
    method["name"] = method["name"].lower()
    return create_model("Config", __base__=Config, method=(options, ...))


def _check_together(config: Config) -> None:
    if config.train.momentum and config.train.optimizer != "sgd":
        raise BadInput("train.momentum: is for sgd; set train.optimizer to sgd, or momentum to 0")
    if config.train.selection == "dev" and config.scenario.dev_split == 0:
        raise BadInput("train.selection: dev needs a dev set; set scenario.dev_split, e.g. to 0.1")
    if config.scenario.type != "class" and config.scenario.labels_per_task == 1:
        raise BadInput(
            f"scenario.labels_per_task: 1 leaves nothing to tell apart in the {config.scenario.type} scenario; "
            "set it to 2 or more, or scenario.type to class"
        )


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number, as YAML 1.2 does, and refuses a key written twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key, (where, _) in zip(keys, node.value, strict=True):
            if keys.count(key) > 1 and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is written twice", where.start_mark
                )
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Puts quotes around what `_Loader` would take for a number."""


for _reader_or_writer in (_Loader, _Dumper):
    _reader_or_writer.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def as_yaml(tree: dict[str, Any]) -> str:
    """Plain data as the text of a file that `load` reads back."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _parse(text: str) -> Any:
    return yaml.load(text, _Loader)  # a SafeLoader


def read(path: Path) -> dict[str, Any]:
    """The tree that a YAML file holds.

    Raises:
        BadInput: there is no such file, or it holds none.
    """
    try:
        tree = _parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [file.name for file in path.parent.glob("*.y*ml")], n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise BadInput(f"{path}: no such file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error})") from None
    except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        got = "nothing" if tree is None else f"a {type(tree).__name__}"
        raise BadInput(f"{path}: holds {got}; expected the sections method, scenario, model, train")
    _refuse_endless(path, tree)
    return tree


def _refuse_endless(path: Path, tree: dict[str, Any]) -> None:
    """Aliases may unfold to more than any memory holds, or to themselves."""
    open_nodes, count = [tree], 0
    while open_nodes:
        node = open_nodes.pop()
        count += 1
        if count > MOST_VALUES:
            raise BadInput(f"{path}: more than {MOST_VALUES:,} values, aliases unfolded; an experiment needs fewer")
        open_nodes += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


def override(text: str) -> list[Pair]:
    """The pairs of KEY=VALUE, to apply one after the other.

    Raises:
        BadInput: it is not of this form.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise BadInput(f"--set {text}: expected KEY=VALUE, e.g. train.epochs=2")
    try:
        return replacing(key.strip(), _parse(value))
    except yaml.YAMLError:
        raise BadInput(f"--set {text}: the value is not valid YAML") from None


def replacing(key: str, value: Any) -> list[Pair]:
    """The pairs that give a key this value and no other: what was there goes, then each key of a mapping comes."""
    return [(key, {}), *flatten({key: value}).items()]


def _describe(schema: type[BaseModel], problem: Any) -> str:
    """One line for one of pydantic's errors: key, what was given, what is expected, the nearest known key."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location) or "the whole"
    if problem["type"] == "extra_forbidden":
        section = _section_at(schema, location[:-1])
        prefix = ".".join(location[:-1])
        method = schema.model_fields["method"].annotation.__module__.removeprefix("methods.")
        names = [*section.model_fields, *known_names(prefix, method), *([] if prefix else ["sweep"])]
        near = difflib.get_close_matches(location[-1], names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(section.model_fields)}"
        return f"{key}: unknown key; {hint}"
    if problem["type"] == "missing":
        field = _section_at(schema, location[:-1]).model_fields[location[-1]]
        return f"{key}: missing; add it: {(field.description or 'see the README').splitlines()[0]}"
    expected = problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    if problem["type"] == "value_error":
        return f"{key}: {expected}"
    return f"{key}: got {problem['input']!r}; {expected}"


def _section_at(schema: type[BaseModel], location: list[str]) -> type[BaseModel]:
    """The settings class of a nested section."""
    for part in location:
        schema = schema.model_fields[part].annotation
    return schema
