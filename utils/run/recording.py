"""Recording one seed: scores and diagnostics after each task, as results, log lines and figures."""

from typing import Any

import torch

from datasets.data import Data, Split, Task
from methods import Method
from utils.config.schema import Config
from utils.config.yaml_text import flatten
from utils.run import figures
from utils.run.build import class_names
from utils.run.evaluation import accuracy, auroc, calibration, confusion, memory, predict, scored_part
from utils.store import metrics
from utils.store.files import write_bytes
from utils.store.folder import RunFolder
from utils.store.log import log

MAX_WORST = 3  # values outside of their expected range that a warning names


class Recording:
    """The results of a seed as plain data, `results`, and their log lines and figures; figures go to `folder`.

    `frozen` is the number of parameters of the encoder below the features, if the tasks have features.
    """

    def __init__(
        self, config: Config, data: Data, tasks: list[Task], seed: int, folder: RunFolder, frozen: int = 0
    ) -> None:
        self.config, self.tasks, self.folder, self.frozen = config, tasks, folder, frozen
        self.parts = ["test", *(part for part in ("train", "dev") if config.measures(part))]
        self.results: dict[str, Any] = {
            "seed": seed,
            "config": config.dump(),
            "class_names": class_names(config, data),
            "tasks": [list(task.classes) for task in tasks],
            "epochs": [],
            "diagnostics": [],
            "memory_by_task": [],
        }

    def begin(self, method: Method, device: torch.device) -> None:
        """Log everything that decides the numbers, and measure the accuracy of the untrained classifier."""
        log.debug("torch %s on %s, %d threads", torch.__version__, device, torch.get_num_threads())
        for key, value in flatten(self.results["config"]).items():
            log.debug("%s: %s", key, value)
        for task in self.tasks:
            names = ", ".join(self.results["class_names"][c] for c in task.classes)
            sizes = len(task.train), len(task.dev) if task.dev else 0, len(task.test)
            log.debug("task %d: classes %s; %d train, %d dev, %d test images", task.index, names, *sizes)
        for part in self.parts:
            has_fwt = self.config.scenario.type != "class" and self.config.train.evaluate == "all"
            known = self.tasks if has_fwt else []
            initial = [accuracy(method, _split(task, part), task.index) for task in known]
            self.results[part] = {"initial_accuracy": initial, "accuracy_matrix": []}

    def evaluate(self, method: Method, task: Task) -> None:
        """Scores after a task, on every task, future ones included unless `evaluate` is seen."""
        classes, t = len(self.results["class_names"]), task.index + 1
        scenario, evaluate = self.config.scenario.type, self.config.train.evaluate
        measured = self.tasks if evaluate == "all" else self.tasks[:t]
        scored = scenario != "task" and t < len(measured)  # the task index tells seen from unseen classes
        for part in self.parts:
            found = [predict(method, _split(other, part), other.index, scored and part == "test") for other in measured]
            results = self.results[part]
            unknown = [None] * (len(self.tasks) - len(found))
            results["accuracy_matrix"].append([one.accuracy for one in found] + unknown)
            results["confusion"] = confusion(found, classes).tolist()
            results["images"] = [len(one.y) for one in found]
            for name, value in (("calibration", calibration(found[:t])), ("auroc", auroc(found[:t], found[t:]))):
                results.setdefault(name, [None] * task.index).append(value)  # an older version resumed: None
            scores = metrics.scores(results, t, confusion(found[:t], classes))
            values = ", ".join(f"{name} {value:.4f}" for name, value in scores.items() if value is not None)
            log.debug("task %d %s scores: %s", task.index, part, values)
        frozen = {"frozen_parameters": self.frozen} if self.config.model.is_frozen else {}
        self.results["memory_by_task"].append(memory(method) | frozen)
        row = self.results["test"]["accuracy_matrix"][-1][: task.index + 1]
        values = " ".join(f"{value:.4f}" for value in row)
        log.info("task %d learned: test accuracy %.4f, by task %s", task.index, sum(row) / len(row), values)

    def accuracies(self, method: Method, task: Task) -> list[float]:
        """Test accuracy on each task so far, the current one included; for measuring inside a task."""
        return [accuracy(method, other.test, other.index) for other in self.tasks[: task.index + 1]]

    def diagnose(self, method: Method, task: Task) -> None:
        """The method's diagnostics after a task; those outside their expected range are logged in one line."""
        self.results["diagnostics"].append({})
        named = method.diagnostics([other.dev for other in self.tasks[: task.index + 1] if other.dev is not None])
        found = {name: float(value) for name, value in named.items()}  # NumPy's numbers could not be read again
        self.results["diagnostics"][-1] = found
        outside: dict[str, list[tuple[float, str]]] = {}  # how far, and what
        for name, value in found.items():
            log.debug("task %d %s: %.4f", task.index, name, value)
            group, _, series = name.partition("/")
            expected = method.diagnosed.get(group)
            if expected and not expected.low <= value <= expected.high:
                far = max(expected.low - value, value - expected.high)
                outside.setdefault(group, []).append((far, f"{series} {value:.3g}".strip()))
        lines = []
        for group, values in outside.items():
            meaning, low, high, remedy = method.diagnosed[group]
            worst = [text for _, text in sorted(values, key=lambda value: -value[0])]
            more = f" and {len(worst) - MAX_WORST} more" if len(worst) > MAX_WORST else ""
            told = f"{', '.join(worst[:MAX_WORST])}{more}, expected {low:g} to {high:g}"
            lines.append(f"{meaning}: {told}{remedy and '; '}{remedy}")
        if lines:
            log.warning("task %d: outside of the expected range: %s", task.index, ". ".join(lines))

    def draw(self, method: Method, task: Task) -> None:
        """The method's pictures after a task."""
        if self.config.method.plot:
            for name, grid in method.pictures(task).items():
                self._write(f"{name}_task_{task.index}", figures.image_grid(grid, self.config.method.plot_format))

    def draw_scores(self, method: Method) -> None:
        """The figures of a finished seed."""
        if self.config.method.plot:
            meaning = {name: diagnosed.meaning for name, diagnosed in method.diagnosed.items()}
            for name, figure in figures.of_results(self.results, meaning, self.config.method.plot_format):
                self._write(name, figure)

    def _write(self, name: str, figure: bytes) -> None:
        write_bytes(self.folder.plot(name, self.config.method.plot_format), figure)

    def finish(self, seconds: dict[str, float], steps: int) -> dict[str, Any]:
        """The final results, after `steps` training steps."""
        self.results["time"] = seconds | {"steps_per_s": steps / max(seconds["train_s"], 1e-9)}
        self.results["memory"] = self.results["memory_by_task"][-1]
        return self.results


def _split(task: Task, part: str) -> Split:
    return scored_part(task.train) if part == "train" else getattr(task, part)
