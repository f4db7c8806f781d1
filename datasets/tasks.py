"""From a data set to a sequence of tasks: groups of its classes, or all its classes in changed images."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from datasets.data import Data, Split, Task, held_out
from utils.settings import BadInput

Change = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) -> the same images changed, uint8 and of the same shape."""


def class_groups(order: Sequence[int], sizes: int | Sequence[int]) -> list[tuple[int, ...]]:
    """Cut the classes, in `order`, into groups.

    Args:
        sizes: of each group; or one size for all, and a lone last class joins the group before.

    Example:
        >>> class_groups(range(7), 3)
        [(0, 1, 2), (3, 4, 5, 6)]
        >>> class_groups(range(7), [4, 2, 1])
        [(0, 1, 2, 3), (4, 5), (6,)]
    """
    count = len(order)
    if count < 2:
        raise BadInput(f"scenario.dataset: {count} class only; a classifier needs at least 2")
    if not isinstance(sizes, int):
        _check_sizes(sizes, count)
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        return [tuple(order[end - size : end]) for end, size in zip(ends, sizes, strict=True)]
    if sizes > count:
        problem = f"{sizes} is more than the data set's {count} classes"
        raise BadInput(f"scenario.labels_per_task: {problem}; set it to {count} or less")
    groups = [tuple(order[i : i + sizes]) for i in range(0, count, sizes)]
    if len(groups) > 1 and len(groups[-1]) == 1 < sizes:
        groups[-2:] = [groups[-2] + groups[-1]]
    return groups


def _check_sizes(sizes: Sequence[int], count: int) -> None:
    """BadInput unless the sizes of the tasks add up to the number of classes."""
    if (total := sum(sizes)) == count:
        return
    kept = list[int]()
    for size in sizes:
        if sum(kept) < count:
            kept.append(min(size, count - sum(kept)))
    mended = [*kept, count - total] if total < count else kept
    problem = f"the {len(sizes)} sizes add up to {total}, and the data set has {count} classes"
    raise BadInput(f"scenario.labels_per_task: {problem}; write e.g. {mended}")


def check_order(order: Sequence[int], count: int) -> None:
    """BadInput unless the order has every class id, 0 to count - 1, once."""
    odd = {
        "unknown": sorted({*order} - {*range(count)}),
        "twice": sorted({c for c in order if order.count(c) > 1}),
        "missing": sorted({*range(count)} - {*order}),
    }
    if wrong := [f"{what}: {', '.join(map(str, ids[:5]))}" for what, ids in odd.items() if ids]:
        problem = f"expected each of the {count} class ids, 0 to {count - 1}, once; {'; '.join(wrong)}"
        raise BadInput(f"scenario.class_order: {problem}")


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
            mask = held_out(train.y, classes, dev_split, generator, "scenario.dev_split")
            train, dev = train.take(~mask), train.take(mask).to(device)
        tasks.append(Task(index, tuple(classes), train.to(device), dev, test.to(device)))
    return tasks


def changed(
    data: Data,
    order: Sequence[int],
    changes: Sequence[Change],
    dev_split: float,
    generator: torch.Generator,
    device: torch.device,
) -> list[Task]:
    """One task per change, each with all K classes of the data in `order` and all their images, changed.

    Class c is class t * K + c in the task of index t, so that the domain scenario has a column per c. The images of
    all tasks are on `device`: as many times the data set as there are tasks. Other arguments are as in
    `split_by_class`.
    """
    (whole,) = split_by_class(data, [order], dev_split, generator, torch.device("cpu"))
    tasks, k = [], len(data.classes)
    for index, change in enumerate(changes):

        def of(split: Split, change: Change = change, first: int = index * k) -> Split:
            return Split(change(split.x), split.y + first).to(device)

        classes = tuple(index * k + c for c in order)
        tasks.append(Task(index, classes, of(whole.train), whole.dev and of(whole.dev), of(whole.test)))
    return tasks


def permutations(shape: Sequence[int], tasks: int, generator: torch.Generator) -> list[Change]:
    """A change per task: its pixels in another order, the same in all channels; the first task has them as they are.

    Source: Kirkpatrick et al., PNAS 2017.

    Args:
        shape: of an image, (C, H, W).
    """
    size = shape[-1] * shape[-2]
    orders = [torch.arange(size), *(torch.randperm(size, generator=generator) for _ in range(tasks - 1))]
    return [partial(permute, order) for order in orders]


def permute(order: Tensor, x: Tensor) -> Tensor:
    """Images (N, C, H, W) in the CPU's memory with the pixels of each channel in this order (H * W)."""
    # `python bench/choices.py permuted` compares NumPy's take with indexing
    return torch.from_numpy(np.take(x.flatten(2).numpy(), order.numpy(), axis=2)).view_as(x)


def rotations(tasks: int) -> list[Change]:
    """A change per task: turned by 180 t / tasks degrees counter-clockwise, bilinear, with black corners.

    Source: Lopez-Paz and Ranzato, NeurIPS 2017. *Deviation*: they draw the angle of each task from its part of
    [0, 180]; here it is the lower end of that part, the same for all seeds.
    """
    return [partial(_rotated, 180 * task / tasks) for task in range(tasks)]


def _rotated(angle: float, x: Tensor) -> Tensor:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import rotate

    # in parts: they are floats inside
    return torch.cat([rotate(part, angle, InterpolationMode.BILINEAR) for part in x.split(1024)]) if angle else x
