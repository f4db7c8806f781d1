"""One seed: build, then for each task train, evaluate, save. The whole story of a run is on this page."""

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from datasets.data import Data, Split, Task
from models.fitting import Journal, recorded
from utils.config.schema import Config
from utils.config.yaml_text import flatten
from utils.run import figures as plots
from utils.run.build import build_learner, build_method, build_optimizer, build_tasks
from utils.run.evaluation import accuracy, confusion, evaluating, memory, scored_part
from utils.run.signals import Interrupted, Stop
from utils.run.stopwatch import Stopwatch
from utils.run.streams import Streams, isolated, preserved
from utils.run.training import Training
from utils.store import metrics
from utils.store.files import write_bytes
from utils.store.folder import RunFolder
from utils.store.log import bar, log


class Run:
    """One seed of an experiment: its parts, and its results so far (plain data)."""

    def __init__(self, config: Config, data: Data, seed: int, device: torch.device, stop: Stop | None = None) -> None:
        self.config, self.seed, self.device, self.stop = config, seed, device, stop or Stop()
        self.streams = Streams(seed, device)
        self.tasks = build_tasks(config, data, seed, device)
        self.learner = build_learner(config, data, self.tasks, seed)
        self.method = build_method(config, self.learner, self.streams["method"])
        self.journal = Journal(self._keep_if_due)
        self.optimizer = build_optimizer(config.train, self.learner)
        self.folder = RunFolder(config.save_path, seed, config.train.tensorboard)
        self.saved: dict[str, Any] = {"tasks_done": 0, "before": None, "training": None, "position": None, "fits": None}
        self.saved_at = time.monotonic()
        self.training: Training | None = None  # while it goes on
        self.stopwatch = Stopwatch("train_s", "method_s", "eval_s", "total_s")
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

    def __call__(self, tasks: int | None = None) -> dict[str, Any]:
        """Run what is left of the seed, or of its first so many tasks; returns its results.

        Raises:
            Interrupted: it was asked to stop, and has saved where it is.
            TrainingFailed: something is not finite.
            OSError: the results folder cannot be written any more.
        """
        with self.stopwatch.timing("total_s"):
            if not self._resume():
                self._describe()
                self.results |= self._initial_scores()
                self._task_is_over(0)
            start = self.saved["tasks_done"]
            progress = bar(len(self.tasks), f"seed {self.seed}", 1, "task")
            progress.update(start)
            for task in self.tasks[start:tasks]:
                self._learn(task)
                self._score(task)
                self._draw(task)
                self._task_is_over(task.index + 1)
                progress.update()
            progress.close()
            self._draw_scores()
        self.results |= self._totals()
        self.folder.save_final(self.results)
        log.info("done in %.1f s", self.results["time"]["total_s"])
        return self.results

    def _learn(self, task: Task) -> None:
        """Hooks and steps of one task; of an interrupted one, what had not been done."""
        config = self.config.train
        with self.stopwatch.timing("method_s"), self._hook():
            training_task = self.method.begin_task(task)
        if config.reset_optimizer:
            self.optimizer = build_optimizer(config, self.learner)
        watched = task.dev or scored_part(task.train)
        self.training = Training(config, self.method, self.optimizer, training_task, watched, self.streams["order"])
        if self.saved["training"] is not None:
            self._restore(self.saved["training"])
            self.training.load_state_dict(self.saved["position"])
        with self.stopwatch.timing("train_s"):
            history = self.training.run(self._keep_if_due)
        steps = self.training.steps
        self._training_is_over()
        with self.stopwatch.timing("method_s"), self._hook():
            self.journal.begin(self.saved["fits"])
            with recorded(self.journal):
                self.method.end_task(training_task)
        self.steps += steps
        self.results["epochs"].append(history)

    @contextmanager
    def _hook(self) -> Iterator[None]:
        """Inside, the method may draw any random number, and finds the learner in evaluation mode."""
        with isolated(self.streams["method"]), evaluating(self.learner):
            yield

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
        with self.stopwatch.timing("eval_s"):
            for part in self.parts:
                counts = [confusion(self.method, self._split(other, part), other.index) for other in self.tasks]
                self.results[part]["accuracy_matrix"].append([float(c.trace() / c.sum()) for c in counts])
                self.results[part]["confusion"] = sum(counts).tolist()
                self._log_scores(task, part, sum(counts[: task.index + 1]))
        with self.stopwatch.timing("method_s"), preserved(self.streams["method"]), evaluating(self.learner):
            dev = [other.dev for other in self.tasks[: task.index + 1] if other.dev is not None]
            self.results["diagnostics"].append(self.method.diagnostics(dev))
        self.results["memory_by_task"].append(memory(self.method))
        row = self.results["test"]["accuracy_matrix"][-1]
        seen = row[: task.index + 1]
        values = " ".join(f"{value:.4f}" for value in seen)
        log.info("task %d learnt: test accuracy %.4f, by task %s", task.index, sum(seen) / len(seen), values)
        for name, value in self.results["diagnostics"][-1].items():
            log.debug("task %d %s: %.4f", task.index, name, value)
            expected = self.method.diagnosed.get(name.partition("/")[0])
            if expected and not expected.low <= value <= expected.high:
                bounds = expected.low, expected.high
                log.info("task %d: %s is %.4g, outside of %g to %g", task.index, name, value, *bounds)

    def _log_scores(self, task: Task, part: str, seen: np.ndarray) -> None:
        """Every score as it stands after a task: those of the tasks seen, as if there were no others."""
        scores = metrics.scores(self.results[part]["accuracy_matrix"], self.results[part]["initial_accuracy"], seen)
        values = ", ".join(f"{name} {value:.4f}" for name, value in scores.items() if value is not None)
        log.debug("task %d %s scores: %s", task.index, part, values)

    @property
    def parts(self) -> list[str]:
        """The splits that are scored: test, train, and dev where there is one."""
        return ["test", "train"] + ["dev"] * (self.config.scenario.dev_split > 0)

    @staticmethod
    def _split(task: Task, part: str) -> Split:
        return scored_part(task.train) if part == "train" else getattr(task, part)

    def _totals(self) -> dict[str, Any]:
        seconds = self.stopwatch.so_far()
        speed = {"steps_per_s": self.steps / max(seconds["train_s"], 1e-9)}
        return {"time": seconds | speed, "memory": self.results["memory_by_task"][-1]}

    def _snapshot(self) -> dict[str, Any]:
        """Everything that is learnt or drawn from, as it is now."""
        parts = {"learner": self.learner, "method": self.method, "optimizer": self.optimizer, "streams": self.streams}
        return {name: part.state_dict() for name, part in parts.items()}

    def _restore(self, snapshot: dict[str, Any]) -> None:
        """Let everything be as it was when the snapshot was taken."""
        self.learner.load_state_dict(snapshot["learner"])
        self.method.load_state_dict(snapshot["method"])
        self.optimizer.load_state_dict(snapshot["optimizer"])
        self.streams.load_state_dict({name: value.cpu() for name, value in snapshot["streams"].items()})

    def _keep_if_due(self, epoch_over: bool = True) -> None:
        """After a step, or an epoch of a generator's fit: save if it is time; save and end if that was asked for."""
        config, minutes = self.config.train, (time.monotonic() - self.saved_at) / 60
        due = minutes >= config.checkpoint_minutes if config.checkpoint_minutes else epoch_over
        if config.save and (due or self.stop.requested):
            if self.training is None:
                self.saved["fits"] = self.journal.state()
            else:
                self.training.check_weights()  # what is saved is sound
                self.saved |= {"training": self._snapshot(), "position": self.training.state_dict()}
            self._write_state()
        if self.stop.requested:
            raise Interrupted(f" by {self.stop.requested}")

    def _training_is_over(self) -> None:
        """From now on the end of the task goes on; what it began with is kept for a run that resumes in it."""
        if self.config.train.save:
            self.saved |= copy.deepcopy({"training": self._snapshot(), "position": self.training.state_dict()})
        self.training = None

    def _task_is_over(self, tasks_done: int) -> None:
        """Save what the next task begins with."""
        self.saved = {"tasks_done": tasks_done, "before": None, "training": None, "position": None, "fits": None}
        if self.config.train.save:
            self.saved["before"] = copy.deepcopy(self._snapshot())
            if tasks_done:  # before the state says that the task is over
                self.folder.save_task(tasks_done - 1, self.saved["before"]["learner"], self.results)
            self._write_state()
        if self.stop.requested:
            raise Interrupted(f" by {self.stop.requested}")

    def _write_state(self) -> None:
        """Save everything that a run needs to go on from here."""
        done = {"steps": self.steps, "seconds": self.stopwatch.so_far(), "results": self.results}
        self.folder.save_state(self.saved | done)
        self.saved_at = time.monotonic()

    def _resume(self) -> bool:
        """Go back to where the last state was saved; returns whether there was one."""
        state = self.folder.load_state(self.device)
        if state is None:
            return False
        self.steps, self.results = state.pop("steps"), state.pop("results")
        self.stopwatch.seconds.update(state.pop("seconds"))
        self.saved = state
        self._restore(state["before"])
        position = state["position"]
        within = f", epoch {position['epoch']}, step {position['step']}" if position else ""
        log.info("going on in task %d%s", state["tasks_done"], within)
        return True

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
            with self.stopwatch.timing("method_s"), preserved(self.streams["method"]), evaluating(self.learner):
                for name, grid in self.method.pictures(task).items():
                    write_bytes(self.folder.plot(f"{name}_task_{task.index}"), plots.image_grid(grid))

    def _draw_scores(self) -> None:
        if self.config.method.plot:
            for name, figure in plots.of_results(
                self.results, {name: d.meaning for name, d in self.method.diagnosed.items()}
            ):
                write_bytes(self.folder.plot(name), figure)
