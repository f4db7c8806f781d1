"""From a configuration to the parts of one seed: tasks, classifier, method, optimizer."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler

import methods
from datasets.data import Data, Task
from datasets.tasks import class_groups, split_by_class
from methods import Method
from models.learner import HEADS, Learner
from utils.config.schema import ENCODER, Config, TrainConfig
from utils.run.streams import generator, isolated
from utils.settings import BadInput


def check_data(config: Config, data: Data) -> None:
    """BadInput if the configuration is bound to other data."""
    expected = config.scenario.fingerprint
    if expected not in (None, data.fingerprint):
        name = config.scenario.dataset.name
        raise BadInput(
            f"scenario.fingerprint: expected {expected}, got {data.fingerprint}: images, labels or classes of {name} "
            "have changed; restore them, or choose another save_path"
        )


def build_tasks(config: Config, data: Data, seed: int, device: torch.device) -> list[Task]:
    """The sequence of tasks of one seed; the same on every device. BadInput: the data are not the configuration's."""
    check_data(config, data)
    order = list(range(len(data.classes)))
    if config.scenario.shuffle_labels:
        order = torch.randperm(len(order), generator=generator(seed, "classes")).tolist()
    groups = class_groups(order, config.scenario.labels_per_task)
    return split_by_class(data, groups, config.scenario.dev_split, generator(seed, "dev"), device)


def build_learner(config: Config, data: Data, tasks: list[Task], seed: int) -> Learner:
    """The untrained classifier of one seed; the same weights on every device."""
    head = config.model.head or ("paper" if config.model.encoder.name == "paper" else "linear")
    dropout = config.model.dropout if config.model.dropout is not None else {"paper": 0.5}.get(head, 0.0)
    with isolated(generator(seed, "init")):
        try:
            encoder = ENCODER.builder_of(config.model.encoder)(data.image_shape, config.model.embedding)
        except ValueError as error:
            raise BadInput(f"model.encoder: {error}") from error
        groups, only_seen = [task.classes for task in tasks], config.scenario.active_classes == "seen"
        learner = Learner(encoder, HEADS[head](dropout), config.scenario.type, groups, only_seen)
    return learner.to(tasks[0].train.y.device)


def build_method(config: Config, learner: Learner, stream: torch.Generator) -> Method:
    """The method, drawing from `stream` only."""
    make, _ = methods.find(config.method.name)
    try:
        with isolated(stream):
            return make(config.method, learner, stream)
    except ValueError as error:
        raise BadInput(f"method: {error}") from error


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
