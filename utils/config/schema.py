"""The settings of one experiment, frozen and validated. `utils/config/load.py` reads them from YAML."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from annotated_types import Gt
from pydantic import BeforeValidator, Field, model_validator

import methods
from models import encoders
from models.augment import Augment
from utils.config.scenario import ScenarioConfig
from utils.config.yaml_text import flatten
from utils.settings import AnyCase, Chosen, Settings


class EncoderConfig(Settings):
    """The keys of `model.encoder` that every encoder has."""

    name: str = "paper"
    """which encoder: the name of a file in models/encoders/"""


class NormalizeConfig(Settings):
    """Values of your own for `model.normalize`."""

    mean: list[float] = Field([0.0], min_length=1, max_length=3)
    """subtracted from each channel of images in [0, 1], one value for all or one for each"""
    std: list[Annotated[float, Gt(0)]] = Field([1.0], min_length=1, max_length=3)
    """what each channel is divided by then"""


METHOD = Chosen(methods, "name", methods.MethodConfig)
ENCODER = Chosen(encoders, "name", EncoderConfig, "build", short="model", implied=(("file", "own"), ("module", "own")))


def _frozen(value: Any) -> Any:
    """YAML reads yes and no as booleans; names match in any case."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value.lower() if isinstance(value, str) else value


class ModelConfig(Settings):
    """The classifier."""

    encoder: Annotated[EncoderConfig, ENCODER] = Field({}, validate_default=True)
    """the name of a file in models/encoders/, or a mapping with its options, e.g. {name: resnet18, filters: 32};
    torchvision:resnet18 and timm:vit_tiny_patch16_224 are networks of these libraries, {file: my_nets.py, build: lenet}
    and {module: package:function} your own"""
    frozen: Annotated[Literal["no", "yes", "after_first_task"], BeforeValidator(_frozen)] | None = None
    """yes: the encoder's features are computed once, and only what is above them is trained; after_first_task: the
    encoder is trained on the first task first, then the whole sequence is learned on its features. By default no;
    after_first_task for methods that need features; yes for patches"""
    cache: bool = True
    """with frozen: yes, keep the features in <data root>/cache, for all seeds and runs that need the same"""
    resize: int | None = Field(None, ge=8, le=1024)
    """height and width that the encoder's images are resized to, on the device"""
    normalize: Annotated[Literal["none", "imagenet", "first_task"], AnyCase] | NormalizeConfig = "none"
    """of each channel, subtract a mean and divide by a standard deviation: those of ImageNet, those of the first task's
    training images, or {mean: [..], std: [..]}"""
    embedding: int | None = Field(None, ge=2)
    """size of the embedding; by default 100 (paper, grey), 200 (paper, colour), 400 (mlp), 512 or 160 (resnets), else
    that of the features"""
    head: Annotated[Literal["paper", "linear"], AnyCase] | None = None
    """paper: three layers; linear: one; by default paper for encoder paper, else linear"""
    dropout: float | None = Field(None, ge=0, lt=1)
    """after each hidden layer of the paper's head, by default 0.5; before the linear head, by default 0"""

    @property
    def is_frozen(self) -> bool:
        """Whether methods learn on features of the encoder."""
        return self.frozen in ("yes", "after_first_task")


class TrainConfig(Settings):
    """Training, and where the results go."""

    epochs: int = Field(20, ge=1)
    """passes over a task's training data"""
    steps: int | None = Field(None, ge=1)
    """batches per task, instead of epochs"""
    batch_size: int = Field(64, ge=1)
    """images per step"""
    optimizer: Annotated[Literal["adam", "sgd"], AnyCase] = "adam"
    """the optimizer of the classifier"""
    augment: Annotated[Augment, AnyCase] = "none"
    """of training images, also stored and generated ones: flip them at random, crop them at a random place, or both"""
    reset_optimizer: bool = True
    """a new optimizer per task; no: keep its running moments, which makes the first steps of a task larger"""
    lr: float = Field(1e-3, gt=0)
    """learning rate"""
    schedule: Annotated[Literal["constant", "cosine"], AnyCase] = "constant"
    """schedule of the learning rate per task; cosine: down to 0"""
    momentum: float = Field(0.0, ge=0, lt=1)
    """momentum of sgd"""
    weight_decay: float = Field(0.0, ge=0)
    """L2 penalty of the optimizer"""
    experiments: int = Field(1, ge=1, le=10_000)
    """number of seeds: 0, 1, ... (--seeds chooses others)"""
    selection: Annotated[Literal["last", "dev"], AnyCase] = "last"
    """the weights kept per task: of the last epoch, or of the epoch with the best dev accuracy"""
    evaluate: Annotated[Literal["all", "seen"], AnyCase] = "all"
    """the tasks that are evaluated after each task: all, or only those seen so far (no FWT, no AUROC)"""
    evaluate_splits: Annotated[Literal["all", "test", "test+train", "test+dev"], AnyCase] = "all"
    """the splits that are evaluated after each task; all: test, train, and dev where scenario.dev_split holds it out"""
    evaluate_every: int | None = Field(None, ge=1)
    """also measure the test accuracy of the tasks so far every so many steps inside a task"""
    device: Annotated[str, AnyCase] = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """auto (CUDA where there is one), cpu, cuda, cuda:1"""
    cuda_graphs: Annotated[bool | Literal["auto"], AnyCase] = "auto"
    """capture the steps as CUDA graphs, with the same results, several times faster; auto: where the device is CUDA"""
    deterministic: bool = False
    """CUDA: only kernels that give the same bits each time, so that a resumed run does (on CPU they always do)"""
    save: bool = True
    """write checkpoints, and results per task; no: an interrupted seed starts again"""
    checkpoint_minutes: float = Field(1.0, ge=0)
    """time between checkpoints inside a task; 0: after every epoch, also of a generator's fit"""
    load: bool = True
    """resume the run in save_path; no: move it aside and start again"""
    tensorboard: bool = False
    """also write the numbers of metrics.csv as TensorBoard events (pip install tensorboard)"""
    save_path: str | None = None
    """results folder, by default results/{dataset}/{method}; ~, $VAR, {scenario} and {name} are filled in, too"""


class ClusterConfig(Settings):
    """Resources per seed, for --backend ray and slurm; affects results only through the thread count."""

    cpus: int = Field(1, ge=1)
    """cores and threads"""
    gpus: float = Field(0.0, ge=0)
    """GPUs; 0: run on the CPU; 0.25: four seeds share one (not on slurm)"""
    hours: float = Field(24.0, gt=0, le=24 * 365)
    """slurm's time limit; a seed that reaches it is checkpointed, queued again, and resumed"""


class Config(Settings):
    """A whole experiment."""

    method: Annotated[methods.MethodConfig, METHOD]
    """the method's name and its own options, e.g. {name: naive}"""
    scenario: ScenarioConfig
    """the data set and how it is split into tasks, e.g. {dataset: digits}"""
    model: ModelConfig = ModelConfig()
    """the classifier"""
    train: TrainConfig = TrainConfig()
    """training, and where the results go"""
    cluster: ClusterConfig = ClusterConfig()
    """resources per seed on a cluster"""

    @model_validator(mode="after")
    def _in_scenario(self) -> Self:
        object.__setattr__(self, "method", self.method.in_scenario(self.scenario.type))  # of a frozen model
        return self

    def measures(self, split: str) -> bool:
        """Whether scores are measured on test, train or dev."""
        wanted = self.train.evaluate_splits
        return (wanted == "all" or split in wanted.split("+")) and (split != "dev" or self.scenario.dev_split > 0)

    @property
    def save_path(self) -> Path:
        """The results folder."""
        return Path(self.train.save_path or f"results/{self.scenario.dataset.label}/{self.method.name}")

    def saved_in(self, folder: Path) -> "Config":
        """The same with another results folder."""
        return self.model_copy(update={"train": self.train.model_copy(update={"save_path": str(folder)})})

    def on_data(self, fingerprint: str) -> "Config":
        """The same, bound to the data set with this fingerprint."""
        return self.model_copy(update={"scenario": self.scenario.model_copy(update={"fingerprint": fingerprint})})

    @property
    def identity(self) -> dict[str, Any]:
        """The dotted keys that affect results, with values: runs that share them may share a results folder."""
        return identity_of(self.dump())

    def dump(self) -> dict[str, Any]:
        """The resolved configuration as plain data, which `utils.config.load.load` reads back."""
        return self.model_dump(mode="json")


def identity_of(dump: dict[str, Any]) -> dict[str, Any]:
    """`Config.identity` of the plain data that `Config.dump` gives."""
    of_train = "experiments device cuda_graphs deterministic save checkpoint_minutes load tensorboard save_path"
    ignored = {"scenario.data_root", "method.plot", "method.plot_format", "model.cache", "scenario.dataset.cache"}
    ignored |= {f"train.{key}" for key in of_train.split()}
    ignored |= {f"cluster.{key}" for key in ClusterConfig.model_fields}
    found = {key: value for key, value in flatten(dump).items() if key not in ignored}
    if found.get("model.frozen") == "no":  # as in older runs, which do not say it
        found["model.frozen"] = None
    return found
