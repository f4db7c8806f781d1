"""From a configuration to the parts of one seed: tasks, classifier, method, optimizer."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler

import methods
from datasets.data import Data, Task
from datasets.tasks import changed, check_order, class_groups, permutations, rotations, split_by_class
from methods import Method
from models.augment import Augmentation
from models.encoders import Encoder
from models.learner import HEADS, Learner
from models.prepare import IMAGENET, Prepare, channel_statistics
from utils.config.schema import ENCODER, Config, ModelConfig, TrainConfig
from utils.run.streams import generator, isolated
from utils.settings import BadInput


def check_data(config: Config, data: Data) -> None:
    """BadInput if the configuration is bound to other data."""
    expected = config.scenario.fingerprint
    if expected not in (None, data.fingerprint):
        name = config.scenario.dataset.label
        raise BadInput(
            f"scenario.fingerprint: expected {expected}, got {data.fingerprint}: images, labels or classes of {name} "
            "have changed; restore them, or choose another save_path"
        )


def with_frozen(config: Config, data: Data) -> Config:
    """The configuration with `model.frozen` set where it has to be.

    BadInput: it does not fit the data, the encoder, or the training.
    """
    model, train = config.model, config.train
    if model.frozen is None:
        needed = methods.find(config.method.name)[0].works_on == "features" and len(data.shape) == 3
        frozen = "yes" if model.encoder.name == "patches" else "after_first_task" if needed else None
        model = model.model_copy(update={"frozen": frozen})
    if model.is_frozen and len(data.shape) != 3:
        raise BadInput(f"model.frozen: {model.frozen}, but the data are features already; set it to no")
    if model.frozen != "yes" and model.encoder.name == "patches":
        raise BadInput(f"model.frozen: {model.frozen or 'no'}, but patches has nothing to train; set it to yes")
    if train.augment != "none" and (model.frozen == "yes" or len(data.shape) != 3):
        raise BadInput(
            f"train.augment: {train.augment} needs images at each step, and features are given; set it to none"
        )
    return config.model_copy(update={"model": model})


def build_tasks(config: Config, data: Data, seed: int, device: torch.device) -> list[Task]:
    """The sequence of tasks of one seed; the same on every device, and of features as of their images."""
    scenario, order = config.scenario, _class_order(config, data, seed)
    dev = scenario.dev_split, generator(seed, "dev")
    if scenario.tasks is None:
        return split_by_class(data, class_groups(order, scenario.labels_per_task or data.parts), *dev, device)
    if len(data.shape) != 3:
        raise BadInput(f"scenario.stream: {scenario.stream} is for images, and the data are features; set it to split")
    if scenario.stream == "permuted":
        changes = permutations(data.shape, scenario.tasks, generator(seed, "permutations"))
    else:
        changes = rotations(scenario.tasks)
    return changed(data, order, changes, *dev, device)


def _class_order(config: Config, data: Data, seed: int) -> list[int]:
    """The class ids in the order in which they are assigned to tasks. BadInput: the order given is none of them."""
    wanted, fixed, count = config.scenario.class_order, config.scenario.class_order_seed, len(data.classes)
    if isinstance(wanted, list):
        check_order(wanted, count)
        return wanted
    if wanted == "natural":
        return list(range(count))
    return torch.randperm(count, generator=generator(seed if fixed is None else fixed, "classes")).tolist()


def class_names(config: Config, data: Data) -> list[str]:
    """The names of the class ids of the tasks: if each task has all classes, e.g. "3 (task 0)"."""
    if (tasks := config.scenario.tasks) is None:
        return list(data.classes)
    return [f"{name} (task {task})" for task in range(tasks) for name in data.classes]


def _build_encoder(config: ModelConfig, first: Task) -> Encoder:
    """The untrained encoder of the first task's samples, with what prepares them."""
    shape = image_shape = tuple(first.train.x.shape[1:])
    prepare = None
    if config.resize is not None or config.normalize != "none":
        if len(shape) != 3:
            raise BadInput(
                f"model: resize and normalize are for images, and the data are features {shape}; delete them"
            )
        prepare = Prepare(config.resize, *_channels(config, first.train.x))
        image_shape = prepare.shape(*shape)
    try:
        encoder = ENCODER.builder_of(config.encoder)(image_shape, config.embedding)
    except (ValueError, IndexError) as error:
        if len(shape) == 1:
            problem = f"{config.encoder.name} takes images, and the data are {shape[0]} features"
            raise BadInput(f"model.encoder: {problem}; use encoder: identity, or mlp") from error
        raise BadInput(f"model.encoder: {error}") from error
    if prepare:
        encoder.features, encoder.shape = nn.Sequential(prepare, encoder.features), shape
    return encoder


def _channels(config: ModelConfig, images: Tensor) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of each channel, for `model.normalize`."""
    if isinstance(config.normalize, str):
        return {"none": ([0.0], [1.0]), "imagenet": IMAGENET}.get(config.normalize) or channel_statistics(images)
    mean, std = config.normalize.mean, config.normalize.std
    if {len(mean), len(std)} - {1, len(images[0])}:
        raise BadInput(f"model.normalize: {len(mean)} means and {len(std)} stds for {len(images[0])} channels")
    return mean, std


def build_learner(config: Config, tasks: list[Task], seed: int) -> Learner:
    """The untrained classifier of one seed; the same weights on every device."""
    head = config.model.head or ("paper" if config.model.encoder.name == "paper" else "linear")
    dropout = config.model.dropout if config.model.dropout is not None else {"paper": 0.5}.get(head, 0.0)
    with isolated(generator(seed, "init")):
        encoder = _build_encoder(config.model, tasks[0])
        groups, only_seen = [task.classes for task in tasks], config.scenario.active_classes == "seen"
        learner = Learner(encoder, HEADS[head](dropout), config.scenario.type, groups, only_seen)
    return learner.to(tasks[0].train.y.device)


def build_method(
    config: Config, learner: Learner, stream: torch.Generator, augmentation: torch.Generator | None = None
) -> Method:
    """The method, drawing from `stream` only; the other stream is that of `train.augment`."""
    make, _ = methods.find(config.method.name)
    got = "images" if len(learner.encoder.shape) == 3 else "features"
    if make.works_on not in ("all", got):
        mend = {
            "images": "set model.frozen: no, and give it images",
            "features": "set model.frozen to after_first_task, or to yes with an encoder that is trained already",
        }[make.works_on]
        raise BadInput(f"method: {config.method.name} works on {make.works_on}, and gets {got}; {mend}")
    try:
        with isolated(stream):
            method = make(config.method, learner, stream)
    except ValueError as error:
        raise BadInput(f"method: {error}") from error
    if config.train.augment != "none" and got == "images":
        method.augmentation = Augmentation(config.train.augment, augmentation or torch.Generator(stream.device))
    return method


def build_optimizer(config: TrainConfig, learner: Learner) -> torch.optim.Optimizer:
    """A new optimizer of the whole classifier; the momentum is for sgd."""
    options: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.optimizer == "adam":
        return torch.optim.Adam(learner.parameters(), fused=True, **options)
    # a fused step cannot begin the momentum of a head while that of others is there
    return torch.optim.SGD(learner.parameters(), momentum=config.momentum, fused=config.momentum == 0, **options)


SCHEDULES: dict[str, Callable[[torch.optim.Optimizer, int], LRScheduler]] = {
    "constant": lambda optimizer, steps: ConstantLR(optimizer, factor=1.0),
    "cosine": CosineAnnealingLR,
}
"""`train.schedule` -> the learning rate over the steps of a task."""
