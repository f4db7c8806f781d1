"""A seed's numbers in long format, one per row: metrics.csv, and with `train.tensorboard` the same as events."""

import csv
import io
from pathlib import Path
from typing import Any, NamedTuple

from utils.store import metrics
from utils.store.files import write_text


class Row(NamedTuple):
    """One number of a run. `task` is the last task trained on; empty for the untrained classifier."""

    seed: int
    task: int | None
    epoch: int | None
    """of the task; empty for what is measured after the task"""
    split: str
    """test, train or dev; empty for the method's diagnostics"""
    metric: str
    """`name` or `name/series`: `accuracy/3` is the accuracy on task 3, `loss/replay` the term `replay` of the loss"""
    value: float


class MetricsWriter:
    """Writes the numbers of a seed into its folder: metrics.csv, and with `tensorboard` an event file.

    An interrupted run may have left events of a task that the resumed run repeats. So a new writer removes the old
    event file and writes every number again, with `purge_step` 0 for a TensorBoard that has read the old file.
    """

    def __init__(self, folder: Path, tensorboard: bool) -> None:
        self.folder, self.tensorboard = folder, tensorboard
        self._events: Any = None  # a SummaryWriter
        self._written = 0

    def write(self, results: dict[str, Any]) -> None:
        """Write all numbers of the results so far.

        Raises:
            OSError: a file cannot be written.
        """
        found, text = rows(results), io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([Row._fields, *found])
        write_text(self.folder / "metrics.csv", text.getvalue())
        if self.tensorboard:
            self._write_events(found)

    def _write_events(self, found: list[Row]) -> None:
        """Steps are epochs over all tasks for what is measured after each epoch, otherwise tasks."""
        if self._events is None:
            from torch.utils.tensorboard import SummaryWriter  # needs an optional package

            for path in self.folder.glob("events.out.tfevents.*"):
                path.unlink()
            self._events = SummaryWriter(str(self.folder), purge_step=0)
        epochs = sum(row.metric == "loss" for row in found[: self._written])
        for row in found[self._written :]:
            epochs += row.metric == "loss"
            step = row.task or 0 if row.epoch is None else epochs - 1
            self._events.add_scalar(f"{row.split or 'method'}/{row.metric}", row.value, step)
        self._events.flush()
        self._written = len(found)

    def close(self) -> None:
        """Close the event file."""
        if self._events is not None:
            self._events.close()


def rows(results: dict[str, Any]) -> list[Row]:
    """All numbers of the results so far, in the order in which they became known: a task only appends rows."""
    seed, parts = results["seed"], [part for part in ("test", "train", "dev") if part in results]
    watched = "dev" if "dev" in parts else "train"  # the split of the accuracy after each epoch
    found = [
        Row(seed, None, None, part, f"initial_accuracy/{j}", value)
        for part in parts
        for j, value in enumerate(results[part]["initial_accuracy"])
    ]
    for task, diagnostics in enumerate(results["diagnostics"]):
        for epoch, values in enumerate(results["epochs"][task]):
            found += [Row(seed, task, epoch, "train", *loss) for loss in values.items() if loss[0] != "accuracy"]
            found.append(Row(seed, task, epoch, watched, "accuracy", values["accuracy"]))
        for part in parts:
            row = results[part]["accuracy_matrix"][task]
            found += [Row(seed, task, None, part, f"accuracy/{j}", value) for j, value in enumerate(row)]
            found += [Row(seed, task, None, part, *score) for score in _scores(results, part, task)]
        found += [Row(seed, task, None, "", *number) for number in diagnostics.items()]
    return found


def _scores(results: dict[str, Any], part: str, task: int) -> list[tuple[str, float]]:
    """The scores that are defined after a task; the confusion matrix is kept for the last task only."""
    scored, last = results[part], task + 1 == len(results["tasks"])
    confusion = scored["confusion"] if last else None
    found = metrics.scores(scored["accuracy_matrix"][: task + 1], scored["initial_accuracy"], confusion)
    return [(name, value) for name, value in found.items() if value is not None]
