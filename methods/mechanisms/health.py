"""Whether a generator still makes up what it is asked for, measured between tasks, and drawn."""

from collections.abc import Callable, Sequence
from math import ceil

import torch
from torch import Tensor

from datasets.data import Split, Task, as_floats, mapped
from methods import Diagnostic, ImageGrid
from methods.mechanisms.distance import frechet
from models.generator import Generator
from models.learner import Learner

DRAWN, MOST_ROWS = 10, 20
"""Images a row in the figures, and rows: of more classes, some from all over them."""
JUDGED, LEAST_JUDGED = 2000, 50
"""Made-up samples for the agreement: of all classes together, but at least so many of each."""
MEASURED = 1000
"""Samples of a task, for their likelihood."""
DIAGNOSED = {
    "agreement": Diagnostic("generated samples classified as their class (share)", 0.8, 1.0),
    "flow_nll": Diagnostic("negative log-likelihood of the codes of the fit (nats per dimension)"),
    "redrawn": Diagnostic("samples drawn again, out of reach or not finite (number)"),
    "dev_nll": Diagnostic("negative log-likelihood of dev codes (nats per dimension)"),
    "round_trip": Diagnostic("error of dev codes through the flow and back (share of their norm)", 0.0, 1e-2),
    "frechet": Diagnostic("Fréchet distance of generated to dev embeddings (share of the latter's variance)", 0.0, 1.0),
}
"""Group of diagnostics -> what is measured, with its unit."""


def in_turns(classes: Sequence[int], n: int, device: torch.device) -> Tensor:
    """Labels (n,), the classes taking turns."""
    return torch.tensor(tuple(classes), device=device)[torch.arange(n, device=device) % len(classes)]


@torch.no_grad()
def health(
    learner: Learner,
    generator: Generator,
    task: Task,
    replayed: tuple[Tensor, Tensor] | None,
    stream: torch.Generator,
) -> dict[str, float]:
    """A generator that was just fitted: agreement by class; likelihood of what was fitted, by task.

    Args:
        learner: judges what is made up.
        generator: what is judged.
        task: the one that is over.
        replayed: what was made up of the classes before it for the fit, samples (M, ...) and classes (M,); None on the
            first task.
        stream: for what is made up here.
    """
    flow, found = generator.flow, {"redrawn": float(generator.flow.redrawn)}
    seen = learner.classes_before(task.index + 1)
    asked = in_turns(seen, max(JUDGED, LEAST_JUDGED * len(seen)), stream.device)
    made = generator.sample(asked, stream).x
    as_asked = (learner.predict_mixed(generator.embeddings(made), asked) == asked).float()
    found |= {f"agreement/class {c}": float(as_asked[asked == c].mean()) for c in seen}
    if replayed is not None:
        x, y = replayed
        for t in range(task.index):
            some = (learner.task_of[y] == t).nonzero()[:MEASURED, 0]
            found[f"flow_nll/task {t}"] = flow.negative_log_likelihood(generator.codes_of(x[some]), y[some])
    real = task.train.take(slice(0, MEASURED))
    found[f"flow_nll/task {task.index}"] = flow.negative_log_likelihood(mapped(generator.codes, real.x), real.y)
    return found


@torch.no_grad()
def health_on_dev(
    learner: Learner, generator: Generator, dev: Sequence[Split], stream: torch.Generator
) -> dict[str, float]:
    """The same generator beside held-out images of each task so far: likelihood, round trip, Fréchet distance."""
    flow, found = generator.flow, {}
    for t, split in enumerate(dev):
        z = mapped(generator.codes, split.x)
        found[f"dev_nll/task {t}"] = flow.negative_log_likelihood(z, split.y)
        found[f"round_trip/task {t}"] = float(flow.round_trip(z, split.y).max())
        asked = in_turns(learner.groups[t], max(len(split), 2 * flow.dimension), stream.device)
        made = generator.embeddings(generator.sample(asked, stream).x)
        real = mapped(learner.embed, split.x)
        found[f"frechet/task {t}"] = frechet(made, real) / max(float(real.var(dim=0).sum()), 1e-12)
    return found


def samples_of(classes: Sequence[int], make: Callable[[Tensor], Tensor], task: Task) -> ImageGrid:
    """A row of made-up images for each class; of many classes, for some from all over them.

    Args:
        classes: global class ids.
        make: labels (N,) -> images, uint8 (N, C, H, W).
        task: the one after which they are made up.
    """
    shown = sorted(classes)[:: ceil(len(classes) / MOST_ROWS)]
    y = in_turns(shown, DRAWN * len(shown), task.train.y.device)
    x = make(y)
    rows = [(f"class {c}", as_floats(x[y == c])) for c in shown]
    return ImageGrid(f"Images made up after task {task.index}", rows)


def reconstructions(task: Task, decoded: Callable[[Tensor, Tensor], Tensor]) -> ImageGrid:
    """Images of each class of a task, and below them what an autoencoder makes of them.

    Args:
        task: the one that was just learnt.
        decoded: images (N, C, H, W) in [0, 1] and their classes (N,) -> the same, encoded and decoded.
    """
    rows = []
    for c in task.classes:
        x, y = task.train.take((task.train.y == c).nonzero()[:DRAWN, 0]).batch(slice(None))
        rows += [(f"class {c}, real", x), (f"class {c}, decoded", decoded(x, y))]
    return ImageGrid(f"Images of task {task.index} and their reconstructions", rows)
