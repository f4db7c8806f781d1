"""metrics.csv, which holds all numbers of a seed in long format, and TensorBoard's events of the same."""

import csv
import io
from pathlib import Path
from typing import Any

from utils.store.files import write_text
from utils.store.metrics import scores, splits

Number = tuple[int | None, int | None, int | None, str, str, float]
"""task (None: untrained), epoch (None: after it), step (None: after task or epoch), split, metric, value"""


def write_metrics(folder: Path, results: dict[str, Any], tensorboard: bool) -> None:
    """Write all numbers of the results so far: metrics.csv, and with `tensorboard` an event file.

    Events are written anew each time, with `purge_step` 0 for a TensorBoard that has read the old file: an interrupted
    run may have left events of a task that the resumed run repeats. Steps are epochs over all tasks for what is
    measured after each epoch, training steps for what is measured inside a task, otherwise tasks.
    """
    rows, text = _rows(results), io.StringIO()
    header = ("method", "seed", "task", "epoch", "step", "split", "metric", "value")
    of_run = (results["config"]["method"]["name"], results["seed"])
    csv.writer(text, lineterminator="\n").writerows([header, *((*of_run, *row) for row in rows)])
    write_text(folder / "metrics.csv", text.getvalue())
    if tensorboard:
        from torch.utils.tensorboard import SummaryWriter  # needs an optional package

        for path in folder.glob("events.out.tfevents.*"):
            path.unlink()
        epochs = 0
        with SummaryWriter(str(folder), purge_step=0) as events:
            for task, epoch, step, split, metric, value in rows:
                epochs += metric == "loss"
                at = task or 0 if epoch is None else epochs - 1
                inside = "" if step is None else "inside_tasks/"
                events.add_scalar(f"{split or 'method'}/{inside}{metric}", value, at if step is None else step)


def _rows(results: dict[str, Any]) -> list[Number]:
    """In the order in which the numbers became known: a task only appends rows."""
    parts, rows = splits(results), list[Number]()
    watched = "dev" if results["config"]["scenario"]["dev_split"] > 0 else "train"  # of the accuracy after each epoch
    for part in parts:
        initial = results[part]["initial_accuracy"]
        rows += [(None, None, None, part, f"initial_accuracy/{j}", value) for j, value in enumerate(initial)]
    for task, diagnostics in enumerate(results["diagnostics"]):
        for epoch, values in enumerate(results["epochs"][task]):
            for name, value in values.items():
                rows.append((task, epoch, None, watched if name == "accuracy" else "train", name, value))
        for part in parts:
            for measured in (results[part].get("anytime") or {task: ()})[task]:
                step, known = measured["step"], enumerate(measured["accuracy"])
                rows += [(task, None, step, part, f"accuracy/{j}", value) for j, value in known]
        for part in parts:
            row = results[part]["accuracy_matrix"][task]
            counts = results[part]["confusion"] if task + 1 == len(results["tasks"]) else None  # kept of the last task
            found = {f"accuracy/{j}": value for j, value in enumerate(row)}
            found |= scores(results[part], task + 1, counts)
            rows += [(task, None, None, part, name, value) for name, value in found.items() if value is not None]
        rows += [(task, None, None, "", *number) for number in diagnostics.items()]
    return rows
