"""A seed's numbers in long format, one a row: metrics.csv, and the same as events for TensorBoard."""

import csv
import io
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from utils.store import metrics


class Row(NamedTuple):
    """One number of a run. `task` is the task that had been learnt last, empty before the first."""

    seed: int
    task: int | None
    epoch: int | None
    """of the task; empty for what is measured after it"""
    split: str
    """test, train or dev; empty for what the method says of itself"""
    metric: str
    """`name`, or `name/series`: `accuracy/3` is the accuracy on task 3"""
    value: float


def rows(results: dict[str, Any]) -> list[Row]:
    """All numbers of a run's results so far, in the order in which they became known.

    Those known after a task are the beginning of those known after a later one.
    """
    seed, parts = results["seed"], [part for part in ("test", "train", "dev") if part in results]
    watched = "dev" if "dev" in parts else "train"  # what accuracy is measured on after an epoch
    found = [
        Row(seed, None, None, part, f"initial_accuracy/{j}", value)
        for part in parts
        for j, value in enumerate(results[part]["initial_accuracy"])
    ]
    for task, diagnostics in enumerate(results["diagnostics"]):  # of each task that is over
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
    """Scores after a task, of the tasks so far as if there were no others; F1 is known after the last only."""
    scored, last = results[part], task + 1 == len(results["tasks"])
    found = metrics.scores(scored["accuracy_matrix"][: task + 1], scored["initial_accuracy"], scored["confusion"])
    return [(name, value) for name, value in found.items() if value is not None and (last or name != "F1")]


def as_csv(found: list[Row]) -> str:
    """The text of metrics.csv; numbers are as exact as they were."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows(found)
    return text.getvalue()


def append_events(path: Path, found: list[Row]) -> None:
    """Write the rows that are not yet in a file of TensorBoard's events behind those that are.

    The steps of what is measured after each epoch are epochs, counted over all tasks; else they are tasks.

    Raises:
        OSError: the file cannot be written.
    """
    from tensorboard.compat.proto.event_pb2 import Event  # an extra dependency
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    missing, now, epochs = io.BytesIO(), time.time(), 0
    writer = RecordWriter(missing)
    path.touch()
    with path.open("r+b") as file:
        count = _seek_end(file)
        if not count:
            writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        for index, row in enumerate(found):
            epochs += row.metric == "loss"
            if index + 1 < count:  # the file begins with a record that is no row
                continue
            step = row.task or 0 if row.epoch is None else epochs - 1
            summary = Summary(
                value=[Summary.Value(tag=f"{row.split or 'method'}/{row.metric}", simple_value=row.value)]
            )
            writer.write(Event(wall_time=now, step=step, summary=summary).SerializeToString())
        file.truncate()
        file.write(missing.getvalue())
        file.flush()
        os.fsync(file.fileno())


def _seek_end(file: io.BufferedRandom) -> int:
    """Go behind the last record that is whole, if a kill left half a one; returns how many there are."""
    size, end, count = file.seek(0, os.SEEK_END), 0, 0
    while True:  # a record: its length in 8 bytes, 4 of checksum, itself, 4 of checksum
        file.seek(end)
        header = file.read(12)
        following = end + 12 + int.from_bytes(header[:8], "little") + 4
        if len(header) < 12 or following > size:
            file.seek(end)
            return count
        end, count = following, count + 1
