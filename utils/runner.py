"""One seed: build, then for each task train, evaluate, save. The whole story of a run is on this page."""

import copy
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.data import Data, Split, Task
from methods import Method
from utils import metrics, plots
from utils.build import SCHEDULES, build_learner, build_method, build_optimizer, build_tasks
from utils.config import Config, flatten
from utils.evaluation import accuracy, confusion, evaluating, numbers_held, scored_part
from utils.progress import EPOCH, bar, log
from utils.results import RunFolder, write_bytes, write_pickle
from utils.seeding import Streams, isolated, preserved


class TrainingFailed(Exception):
    """A seed cannot go on; the message says where and why."""


def train_step(method: Method, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, task: Task) -> Tensor:
    """One step on images x (B, C, H, W) in [0, 1] with labels y (B,); returns the loss, not waiting for its value."""
    optimizer.zero_grad()
    loss = method.loss(x, y, task)
    loss.backward()
    method.after_backward()
    optimizer.step()
    return loss.detach()


def batches(split: Split, size: int, stream: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over a split in random order: images (B, C, H, W) in [0, 1] and labels (B,)."""
    order = torch.randperm(len(split), generator=stream, device=split.y.device)
    for index in order.split(size):
        yield split.batch(index)


class Run:
    """One seed of an experiment: its parts, and its results so far (plain data)."""

    def __init__(self, config: Config, data: Data, seed: int, device: torch.device) -> None:
        self.config, self.seed, self.device = config, seed, device
        self.streams = Streams(seed, device)
        self.tasks = build_tasks(config, data, seed, device)
        self.learner = build_learner(config, data, self.tasks, seed)
        self.method = build_method(config, self.learner, self.streams["method"])
        self.optimizer = build_optimizer(config.train, self.learner)
        self.folder = RunFolder(config.save_path, seed)
        self.seconds: dict[str, float] = defaultdict(float)
        self.steps = 0
        self.results: dict[str, Any] = {
            "seed": seed,
            "config": config.dump(),
            "class_names": list(data.classes),
            "tasks": [list(task.classes) for task in self.tasks],
            "epochs": [],
            "diagnostics": [],
            "memory_by_task": [],
        }

    def __call__(self) -> dict[str, Any]:
        """Run what is left of the seed; returns its results."""
        with self._timed("total_s"):
            start = self._resume()
            if start == 0:
                self._describe()
                self.results |= self._initial_scores()
            tasks = bar(len(self.tasks), f"seed {self.seed}", 1, "task")
            tasks.update(start)
            for task in self.tasks[start:]:
                self._learn(task)
                self._score(task)
                self._draw(task)
                self._save(task)
                tasks.update()
            tasks.close()
            self._draw_scores()
        self.results |= self._totals()
        write_pickle(self.folder.final, self.results)
        log.info("done in %.1f s", self.results["time"]["total_s"])
        return self.results

    def _learn(self, task: Task) -> None:
        with self._timed("method_s"), self._hook():
            training = self.method.begin_task(task)
        with self._timed("train_s"):
            self.results["epochs"].append(self._train(training, task.dev or scored_part(task.train)))
        with self._timed("method_s"), self._hook():
            self.method.end_task(training)

    @contextmanager
    def _hook(self) -> Iterator[None]:
        """Inside, the method may draw any random number, and finds the learner in evaluation mode."""
        with isolated(self.streams["method"]), evaluating(self.learner):
            yield

    def _train(self, task: Task, watched: Split) -> list[dict[str, float]]:
        """Train on one task; returns each epoch's mean loss, and accuracy on the split `watched` after it."""
        config = self.config.train
        if config.reset_optimizer:
            self.optimizer = build_optimizer(config, self.learner)
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr  # the last task's schedule may have brought it down
        per_epoch = ceil(len(task.train) / config.batch_size)
        steps = config.steps or config.epochs * per_epoch
        schedule = SCHEDULES[config.schedule](self.optimizer, steps)
        best, best_state, history = -1.0, None, []
        progress = bar(ceil(steps / per_epoch), f"task {task.index}", 2, "epoch")
        self.learner.train()
        for epoch in range(ceil(steps / per_epoch)):
            total, count = torch.zeros((), device=self.device), min(per_epoch, steps - epoch * per_epoch)
            for x, y in islice(batches(task.train, config.batch_size, self.streams["order"]), count):
                total += train_step(self.method, self.optimizer, x, y, task)
                schedule.step()
            self.steps += count
            loss = float(total) / count
            if not np.isfinite(loss):
                raise TrainingFailed(
                    f"task {task.index}, epoch {epoch}: the loss is {loss}; lower train.lr or the method's weights"
                )
            history.append({"loss": loss, "accuracy": accuracy(self.method, watched, task.index)})
            progress.set_postfix_str(f"loss {loss:.4f}, accuracy {history[-1]['accuracy']:.4f}")
            progress.update()
            log.log(
                EPOCH, "task %d epoch %d: loss %.4f, accuracy %.4f", task.index, epoch, loss, history[-1]["accuracy"]
            )
            if config.selection == "dev" and history[-1]["accuracy"] > best:
                best, best_state = history[-1]["accuracy"], copy.deepcopy(self.learner.state_dict())
        progress.close()
        if best_state is not None:
            self.learner.load_state_dict(best_state)
        return history

    def _initial_scores(self) -> dict[str, Any]:
        """Accuracy of the untrained classifier on every task, and room for what follows."""
        return {
            part: {
                "initial_accuracy": [accuracy(self.method, self._split(task, part), task.index) for task in self.tasks],
                "accuracy_matrix": [],
            }
            for part in self.parts
        }

    def _score(self, task: Task) -> None:
        """Evaluate on every task, those to come too."""
        with self._timed("eval_s"):
            for part in self.parts:
                counts = [confusion(self.method, self._split(other, part), other.index) for other in self.tasks]
                self.results[part]["accuracy_matrix"].append([float(c.trace() / c.sum()) for c in counts])
                self.results[part]["confusion"] = sum(counts).tolist()
                self._log_scores(task, part, sum(counts[: task.index + 1]))
        with self._timed("method_s"), preserved(self.streams["method"]), evaluating(self.learner):
            dev = [other.dev for other in self.tasks[: task.index + 1] if other.dev is not None]
            self.results["diagnostics"].append(self.method.diagnostics() | self.method.examine(dev))
        self.results["memory_by_task"].append(self._memory())
        row = self.results["test"]["accuracy_matrix"][-1]
        seen = row[: task.index + 1]
        values = " ".join(f"{value:.4f}" for value in seen)
        log.info("task %d learnt: test accuracy %.4f, by task %s", task.index, sum(seen) / len(seen), values)
        for name, value in self.results["diagnostics"][-1].items():
            log.debug("task %d %s: %.4f", task.index, name, value)
            least, largest = self.method.healthy.get(name.partition("/")[0], (-np.inf, np.inf))
            if not least <= value <= largest:
                log.info("task %d: %s is %.4g, not between %g and %g", task.index, name, value, least, largest)

    def _log_scores(self, task: Task, part: str, seen: np.ndarray) -> None:
        """Every score as it stands after a task: those of the tasks seen, as if there were no others."""
        count = task.index + 1
        r = np.array(self.results[part]["accuracy_matrix"])[:, :count]
        initial = np.array(self.results[part]["initial_accuracy"])[:count]
        known = {name: value for name, value in metrics.scores(r, initial, seen).items() if value is not None}
        values = ", ".join(f"{name} {value:.4f}" for name, value in known.items())
        log.debug("task %d %s scores: %s", task.index, part, values)

    @property
    def parts(self) -> list[str]:
        """The splits that are scored: test, train, and dev where there is one."""
        return ["test", "train"] + ["dev"] * (self.config.scenario.dev_split > 0)

    @staticmethod
    def _split(task: Task, part: str) -> Split:
        return scored_part(task.train) if part == "train" else getattr(task, part)

    def _memory(self) -> dict[str, int]:
        """Numbers held between tasks: the classifier's, the method's, and real samples kept by the method."""
        return {
            "learner_parameters": sum(p.numel() for p in self.learner.parameters()),
            "method_floats": numbers_held(self.method),
            "stored_real_samples": self.method.stored_real_samples,
        }

    def _totals(self) -> dict[str, Any]:
        seconds = {name: self.seconds[name] for name in ("train_s", "method_s", "eval_s", "total_s")}
        return {
            "time": {**seconds, "steps_per_s": self.steps / max(self.seconds["train_s"], 1e-9)},
            "memory": self.results["memory_by_task"][-1],
        }

    def _save(self, task: Task) -> None:
        if not self.config.train.save:
            return
        state = {
            "tasks_done": task.index + 1,
            "learner": self.learner.state_dict(),
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "streams": self.streams.state_dict(),
            "steps": self.steps,
            "seconds": dict(self.seconds),
            "results": self.results,
        }
        self.folder.save_task(task.index, state)

    def _resume(self) -> int:
        """Go back to where the last finished task was saved; returns how many tasks are done."""
        state = self.folder.load_state(self.device)
        if state is None:
            return 0
        self.learner.load_state_dict(state["learner"])
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.streams.load_state_dict({name: value.cpu() for name, value in state["streams"].items()})
        self.steps, self.results = state["steps"], state["results"]
        self.seconds.update(state["seconds"])
        log.info("going on after task %d", state["tasks_done"] - 1)
        return state["tasks_done"]

    def _describe(self) -> None:
        """Everything that decides the numbers, into the log."""
        log.debug("torch %s on %s, %d threads", torch.__version__, self.device, torch.get_num_threads())
        for key, value in flatten(self.config.dump()).items():
            log.debug("%s: %s", key, value)
        for task in self.tasks:
            names = ", ".join(self.results["class_names"][c] for c in task.classes)
            sizes = len(task.train), len(task.dev) if task.dev else 0, len(task.test)
            log.debug("task %d: classes %s; %d train, %d dev, %d test images", task.index, names, *sizes)

    def _draw(self, task: Task) -> None:
        if self.config.method.plot:
            with self._timed("method_s"), preserved(self.streams["method"]), evaluating(self.learner):
                for name, grid in self.method.pictures(task).items():
                    write_bytes(self.folder.plot(f"{name}_task_{task.index}"), plots.image_grid(grid))

    def _draw_scores(self) -> None:
        if not self.config.method.plot:
            return
        matrix = np.array(self.results["test"]["accuracy_matrix"])
        scenario = self.config.scenario
        title = f"{self.config.method.name} on {scenario.dataset.name} ({scenario.type}, seed {self.seed})"
        write_bytes(self.folder.plot("accuracy_matrix"), plots.accuracy_matrix(matrix, title))
        write_bytes(self.folder.plot("accuracy_over_tasks"), plots.accuracy_over_tasks(matrix, title))
        groups: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
        for task, numbers in enumerate(self.results["diagnostics"]):
            for name, value in numbers.items():
                group, _, series = name.partition("/")
                groups[group][series or group].append((task, value))
        for group, series in groups.items():
            meaning = self.method.meaning.get(group, group)
            write_bytes(self.folder.plot(group), plots.over_tasks(series, title, meaning))

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - begin
