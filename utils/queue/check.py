"""What `--check` says: each experiment, and what the whole queue takes, from a rehearsal of which nothing is kept."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from datasets.data import Split, Task
from methods import Method
from models.fitting import Journal, Stateful, recorded
from utils.queue.plan import Experiment, explain, steps_of
from utils.run.build import build_learner, build_method, build_optimizer, build_tasks
from utils.run.evaluation import accuracy, evaluating, scored_part
from utils.run.streams import generator, isolated
from utils.run.training import train_step

LEAST_IMAGES = 64
"""Ends of tasks are rehearsed on so many images, or on a batch of them, and on four times as many: what they take on
all images is on the line through both."""
FIRST_FIT_SECONDS = 0.3
"""For so long each fit of a generator goes on after the first task, since one that learnt next to nothing is slow to
draw from, or cannot be; afterwards, an epoch."""
LONG_SECONDS = 10
"""Where the end of a task takes so long on few images, it is not rehearsed on more."""
TIMED_STEPS = 10
SECONDS = 1.5
"""After so long, the points of a sweep are no longer rehearsed each, but take what the last one took a step."""


@dataclass(frozen=True)
class Cost:
    """Of one seed: seconds, bytes at most on disk, and the steps of training."""

    seconds: float
    size: int
    steps: int


class _FirstEpochs(Journal):
    """Does the first epochs of each fit, and adds up what the others would take."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self.now, self.left_out, self.least_seconds = now, 0.0, 0.0

    def run(
        self, epoch: Callable[[int], bool | None], count: int, parts: Mapping[str, Stateful], stream: torch.Generator
    ) -> None:
        begin, done, took = self.now(), 0, 0.0
        while done < count and (done == 0 or took < self.least_seconds):
            epoch(done)
            done, took = done + 1, self.now() - begin
        self.left_out += (count - done) * took / max(1, done)


class _Rehearsal:
    """The parts of one seed, and what they take. Methods do nothing in the first task: the second is measured."""

    def __init__(self, experiment: Experiment) -> None:
        self.config, self.device, seed = experiment.config, experiment.device, experiment.seeds[0]
        self.tasks = build_tasks(self.config, experiment.data, seed, self.device)
        self.learner = build_learner(self.config, experiment.data, self.tasks, seed)
        self.stream = generator(seed, "method", self.device)
        self.method: Method = build_method(self.config, self.learner, self.stream)
        self.optimizer = build_optimizer(self.config.train, self.learner)
        self.journal = _FirstEpochs(self.now)

    def now(self) -> float:
        """Seconds; on CPU, where it can be told, those that this process had, however busy the machine is."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        alone = self.device.type == "cpu" and torch.get_num_threads() == 1
        return time.process_time() if alone else time.perf_counter()

    def __call__(self) -> Cost:
        """Do it. What a method does at the beginning and the end of a task is on a line over the number of images."""
        images = max(LEAST_IMAGES, self.config.train.batch_size)
        second = self.tasks[min(1, len(self.tasks) - 1)]
        self.journal.least_seconds = FIRST_FIT_SECONDS
        before = self._hooks(self.tasks[0], 8 * images, 1)  # not timed: the first use of anything takes longer
        self.journal.least_seconds = 0.0
        held, begin = [size(self.method.state_dict())], self.now()
        less = self._hooks(second, images, TIMED_STEPS)
        held.append(size(self.method.state_dict()))
        more = self._hooks(second, 4 * images, 0) if self.now() - begin < LONG_SECONDS else less
        slope = (more.seconds - less.seconds) / max(1, more.images - less.images)
        past = (less.images - less.own) / before.own  # share of the past tasks' images that are trained on again
        trained_on, own = [], [len(task.train) for task in self.tasks]
        for index, count in enumerate(own):
            trained_on.append(count + round(past * sum(own[:index])))
        steps = [steps_of(self.config.train, count) for count in trained_on]
        hooks = sum(less.seconds + max(0.0, slope) * (count - less.images) for count in trained_on)
        seconds = sum(steps) * less.step + hooks + self._evaluation()
        growth = (held[1] - held[0]) * (sum(own[1:]) / less.own if past else len(own) - 1)
        return Cost(seconds, self._size(held[0] + round(max(0, growth))), sum(steps))

    def _hooks(self, task: Task, images: int, steps: int) -> "_Measured":
        """Begin and end a task cut down to so many images, with a few steps between."""
        task = replace(task, train=_cut(task.train, images))
        begin, self.journal.left_out = self.now(), 0.0
        with isolated(self.stream), evaluating(self.learner):
            training = self.method.begin_task(task)
        in_hooks = self.now() - begin
        step = self._step(training, steps) if steps else 0.0
        begin = self.now()
        with isolated(self.stream), evaluating(self.learner), recorded(self.journal):
            self.method.end_task(training)
        in_hooks += self.now() - begin + self.journal.left_out
        return _Measured(in_hooks, len(training.train), len(task.train), step)

    def _step(self, task: Task, count: int) -> float:
        """Seconds of a step, but for the first."""
        batch = task.train.batch(slice(0, self.config.train.batch_size))
        self.learner.train()
        train_step(self.method, self.optimizer, *batch, task)
        begin = self.now()
        for _ in range(count):
            train_step(self.method, self.optimizer, *batch, task)
        return (self.now() - begin) / count

    def _evaluation(self) -> float:
        """Seconds of all accuracies that a run measures: after each epoch on one split, after each task on all."""
        split = _cut(self.tasks[0].test, 500)
        begin = self.now()
        accuracy(self.method, split, 0)
        an_image = (self.now() - begin) / len(split)
        scored = sum(len(t.test) + len(scored_part(t.train)) + len(t.dev or ()) for t in self.tasks)
        train, watched = self.config.train, 0.0
        for task in self.tasks:
            epochs = train.steps * train.batch_size / len(task.train) if train.steps else train.epochs
            watched += epochs * len(task.dev or scored_part(task.train))
        return an_image * (watched + scored * (len(self.tasks) + 1))

    def _size(self, method: int) -> int:
        """Bytes on disk: weights after each task; two checkpoints, each with what the task began with and what is."""
        if not self.config.train.save:
            return 0
        weights = size(self.learner.state_dict())
        snapshot = weights + size(self.optimizer.state_dict()) + method
        return len(self.tasks) * weights + 4 * snapshot


@dataclass(frozen=True)
class _Measured:
    seconds: float
    """of both hooks"""
    images: int
    """that were trained on"""
    own: int
    """of these, those of the task"""
    step: float


def _cut(split: Split, images: int) -> Split:
    """So many samples of a split, from all over it."""
    return split.take(slice(None, None, max(1, len(split) // images)))


def size(state: Any) -> int:
    """Bytes of all tensors in a state."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    parts: Iterable[Any] = state.values() if isinstance(state, dict) else state if isinstance(state, list) else ()
    return sum(size(part) for part in parts)


def rehearse(experiment: Experiment) -> Cost:
    """What a seed of an experiment takes on its device; no random number of the program's is drawn."""
    with isolated(generator(experiment.seeds[0], "rehearsal", experiment.device)):
        return _Rehearsal(experiment)()


def describe(experiments: Sequence[Experiment], at_once: int) -> Iterator[str]:
    """What a run would do: each file, with a sweep's first point for all of them; then what the queue takes."""
    firsts = {experiment.folder: experiment for experiment in reversed(experiments)}
    for experiment in reversed(firsts.values()):
        if experiment.sweep:
            yield f"# the first of {len(experiment.sweep.points)} points"
        yield f"{explain(experiment)}\n"
    yield "\n".join(_table(experiments, at_once))


def _table(experiments: Sequence[Experiment], at_once: int) -> list[str]:
    costs, notes = _costs(experiments)
    width = max(len(str(experiment.config.save_path)) for experiment in experiments)
    lines = [f"{'results folder':{width}} {'seeds':>6} {'steps a seed':>13} {'time a seed':>12} {'disk a seed':>12}"]
    seconds, room = 0.0, 0
    for experiment, cost in zip(experiments, costs, strict=True):
        name, seeds = f"{experiment.config.save_path!s:{width}} {len(experiment.seeds):>6}", len(experiment.seeds)
        if cost is None:
            lines.append(f"{name} {'-':>13} {'-':>12} {'-':>12}")
            continue
        lines.append(f"{name} {cost.steps:>13,} {_duration(cost.seconds):>12} {_megabytes(cost.size):>12}")
        seconds, room = seconds + seeds * cost.seconds, room + seeds * cost.size
    runs = sum(len(experiment.seeds) for experiment in experiments)
    side_by_side = f", {_duration(seconds / at_once)} with {at_once} side by side" if at_once > 1 else ""
    without = "" if None not in costs else ", without those marked -"
    return [
        *lines,
        f"in all {runs} run{'s' if runs > 1 else ''}: about {_duration(seconds)}{side_by_side}; "
        f"at most {_megabytes(room)} on disk{without}",
        "Time: training with the method's own part, and evaluation, from a rehearsal of some steps on this machine; "
        "without figures, diagnostics and the reading of data. Disk: without figures.",
        *notes,
    ]


def _costs(experiments: Sequence[Experiment]) -> tuple[list[Cost | None], list[str]]:
    """What a seed of each takes, None where the rehearsal failed, and what is to be said of that."""
    begin, costs, notes = time.perf_counter(), list[Cost | None](), list[str]()
    last: dict[Path, tuple[Experiment, Cost]] = {}  # rehearsed, of the same file
    for experiment in experiments:
        cost = None
        if experiment.folder in last and time.perf_counter() - begin > SECONDS:
            like, cost = last[experiment.folder]
            ratio = _steps_about(experiment) / _steps_about(like)
            cost = Cost(cost.seconds * ratio, cost.size, round(cost.steps * ratio))
        else:
            try:
                cost = rehearse(experiment)
                last[experiment.folder] = experiment, cost
            except (ArithmeticError, MemoryError, RuntimeError) as error:  # a flow without samples, out of memory
                notes.append(f"{experiment.path}: a rehearsal failed ({type(error).__name__}: {error})")
        costs.append(cost)
    return costs, notes


def _steps_about(experiment: Experiment) -> float:
    """Steps of a seed, from the configuration alone."""
    train, images = experiment.config.train, len(experiment.data.train)
    tasks = max(1, len(experiment.data.classes) // experiment.config.scenario.labels_per_task)
    return train.steps * tasks if train.steps else train.epochs * images / train.batch_size


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def _megabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
