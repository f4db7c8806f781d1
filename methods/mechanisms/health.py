"""Diagnostics and pictures of a generator: does it still generate the classes it was fitted to?"""

from collections.abc import Callable, Sequence
from math import ceil

import torch
from torch import Tensor

from datasets.data import Split, Task, as_floats, mapped
from methods import Diagnostic, ImageGrid
from methods.mechanisms.distance import frechet
from methods.mechanisms.rehearsal import Rehearsing, cycle_labels

PER_ROW, MAX_ROWS = 10, 20
"""Images per row of a figure, and rows; of more classes, an even selection is drawn."""
JUDGED, MIN_JUDGED = 2000, 50
"""Generated samples for the agreement: of all classes together, and at least of each."""
MEASURED = 1000
"""Samples of a task for its likelihood."""
DIAGNOSED = {
    "agreement": Diagnostic("generated samples classified as their class (share)", 0.8, 1.0),
    "flow_nll": Diagnostic("negative log-likelihood of the codes of the fit (nats per dimension)"),
    "redrawn": Diagnostic("samples drawn again, out of reach or not finite (number)"),
    "dev_nll": Diagnostic("negative log-likelihood of dev codes (nats per dimension)"),
    "round_trip": Diagnostic("error of dev codes through the flow and back (share of their norm)", 0.0, 1e-2),
    "frechet": Diagnostic("Fréchet distance of generated to dev embeddings (share of the latter's variance)", 0.0, 1.0),
}
"""Group of diagnostics -> its meaning."""


@torch.no_grad()
def health(method: Rehearsing, task: Task, replayed: tuple[Tensor, Tensor] | None) -> dict[str, float]:
    """Diagnostics of a generator that was just fitted: agreement per class; likelihood of the fitted codes per task.

    Args:
        method: its learner judges the samples.
        task: the one that is over.
        replayed: the samples (M, ...) of the classes (M,) before it in the fit; None on the first task.
    """
    learner, flow = method.learner, method.flow
    found = {"redrawn": float(flow.redrawn)}
    seen = learner.classes_before(task.index + 1)
    asked = cycle_labels(seen, max(JUDGED, MIN_JUDGED * len(seen)), method.stream.device)
    as_asked = (learner.predict_mixed(method.embed_all(method.generate(asked)[0]), asked) == asked).float()
    found |= {f"agreement/class {c}": float(as_asked[asked == c].mean()) for c in seen}
    if replayed is not None:
        x, y = replayed
        for t in range(task.index):
            some = (learner.task_of[y] == t).nonzero()[:MEASURED, 0]
            found[f"flow_nll/task {t}"] = flow.negative_log_likelihood(method.codes_of(x[some]), y[some])
    real = task.train.take(slice(0, MEASURED))
    found[f"flow_nll/task {task.index}"] = flow.negative_log_likelihood(mapped(method.codes, real.x), real.y)
    return found


@torch.no_grad()
def health_on_dev(method: Rehearsing, dev: Sequence[Split]) -> dict[str, float]:
    """Diagnostics on held-out images of each task so far: likelihood, round trip, Fréchet distance."""
    flow, found = method.flow, {}
    for t, split in enumerate(dev):
        z = mapped(method.codes, split.x)
        found[f"dev_nll/task {t}"] = flow.negative_log_likelihood(z, split.y)
        found[f"round_trip/task {t}"] = float(flow.round_trip(z, split.y).max())
        asked = cycle_labels(method.learner.groups[t], max(len(split), 2 * flow.dimension), method.stream.device)
        generated = method.embed_all(method.generate(asked)[0])
        real = mapped(method.embed, split.x)
        found[f"frechet/task {t}"] = frechet(generated, real) / max(float(real.var(dim=0).sum()), 1e-12)
    return found


def samples_of(classes: Sequence[int], generate: Callable[[Tensor], Tensor], task: Task) -> ImageGrid:
    """A row of generated images per class; of many classes, for an even selection.

    Args:
        classes: global class ids.
        generate: labels (N,) -> images, uint8 (N, C, H, W).
        task: the one after which they are generated.
    """
    shown = sorted(classes)[:: ceil(len(classes) / MAX_ROWS)]
    y = cycle_labels(shown, PER_ROW * len(shown), task.train.y.device)
    x = generate(y)
    rows = [(f"class {c}", as_floats(x[y == c])) for c in shown]
    return ImageGrid(f"Images generated after task {task.index}", rows)


def reconstructions(task: Task, decoded: Callable[[Tensor, Tensor], Tensor]) -> ImageGrid:
    """Images of each class of a task, and below them their reconstructions by an autoencoder.

    Args:
        task: the one that was just learned.
        decoded: images (N, C, H, W) in [0, 1] and their classes (N,) -> the same, encoded and decoded.
    """
    rows = []
    for c in task.classes:
        x, y = task.train.take((task.train.y == c).nonzero()[:PER_ROW, 0]).batch(slice(None))
        rows += [(f"class {c}, real", x), (f"class {c}, decoded", decoded(x, y))]
    return ImageGrid(f"Images of task {task.index} and their reconstructions", rows)
