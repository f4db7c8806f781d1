"""From a data set to a sequence of tasks with classes of their own."""

from collections.abc import Sequence

import torch

from datasets.data import Data, Split, Task
from utils.settings import BadInput


def class_groups(order: Sequence[int], labels_per_task: int) -> list[tuple[int, ...]]:
    """Cut the classes, in `order`, into groups of `labels_per_task`; a lone last class joins the group before.

    Example:
        >>> class_groups(range(7), 3)
        [(0, 1, 2), (3, 4, 5, 6)]
    """
    if len(order) < 2:
        raise BadInput(f"scenario.dataset: {len(order)} class only; a classifier needs at least 2")
    if labels_per_task > len(order):
        raise BadInput(
            f"scenario.labels_per_task: {labels_per_task} is more than the data set's {len(order)} classes; "
            f"set it to {len(order)} or less"
        )
    groups = [tuple(order[i : i + labels_per_task]) for i in range(0, len(order), labels_per_task)]
    if len(groups) > 1 and len(groups[-1]) == 1 < labels_per_task:
        groups[-2:] = [groups[-2] + groups[-1]]
    return groups


def split_by_class(
    data: Data,
    groups: Sequence[Sequence[int]],
    dev_split: float,
    generator: torch.Generator,
    device: torch.device,
) -> list[Task]:
    """One task per group of classes, its tensors on `device`.

    Args:
        dev_split: share of each class's training samples held out as dev set, in [0, 1); 0 for none.
        generator: draws the held-out samples; a CPU generator, so that they are the same on every device.
    """
    tasks = []
    for index, classes in enumerate(groups):
        wanted = torch.tensor(tuple(classes))
        train, test = (split.take(torch.isin(split.y, wanted)) for split in (data.train, data.test))
        for c in classes:
            for name, split in (("training", train), ("test", test)):
                if not (split.y == c).any():
                    raise BadInput(f"scenario.dataset: class {data.classes[c]!r} has no {name} images")
        dev = None
        if dev_split > 0:
            held_out = _stratified(train, classes, dev_split, generator)
            train, dev = train.take(~held_out), train.take(held_out).to(device)
        tasks.append(Task(index, tuple(classes), train.to(device), dev, test.to(device)))
    return tasks


def _stratified(split: Split, classes: Sequence[int], share: float, generator: torch.Generator) -> torch.Tensor:
    """A mask (N,) of a random `share` of the samples of every class, at least one and never all."""
    mask = torch.zeros(len(split), dtype=torch.bool)
    for c in classes:
        members = (split.y == c).nonzero().squeeze(1)
        if len(members) < 2:
            raise BadInput("scenario.dev_split: a class with one training image has none to hold out; set it to 0")
        count = min(max(1, round(share * len(members))), len(members) - 1)
        mask[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return mask
