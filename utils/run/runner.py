"""One seed: for each task begin, train, end, evaluate, record and save. A run from its beginning to its end."""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datasets.data import Data, Task
from methods import MethodConfig
from models.captured import capturing
from models.fitting import Journal
from utils.config.schema import Config
from utils.run.build import build_learner, build_method, build_optimizer, build_tasks, check_data, with_frozen
from utils.run.checkpoint import Checkpoint, Snapshot
from utils.run.evaluation import evaluating, scored_part
from utils.run.features import frozen
from utils.run.recording import Recording
from utils.run.signals import Interrupted, Stop
from utils.run.stopwatch import Stopwatch
from utils.run.streams import Streams, isolated, preserved, reproducible
from utils.run.training import Training
from utils.store.folder import RunFolder, State, check_run
from utils.store.log import FitProgress, bar, log


class Run:
    """One seed of an experiment, built from its configuration and data; a call starts or resumes it."""

    def __init__(
        self,
        config: Config,
        data: Data,
        seed: int,
        device: torch.device,
        stop: Stop | None = None,
        cache: Path | None = None,
    ) -> None:
        check_data(config, data)
        self.config = config = with_frozen(config, data)
        self.data, self.seed, self.device, self.stop = data, seed, device, stop or Stop()
        self.cache = cache  # folder of features on disk, for model.frozen: yes
        self.streams = Streams(seed, device)
        self.tasks = build_tasks(config, data, seed, device)
        self.learner = build_learner(config, self.tasks, seed)
        self.extractor: nn.Module | None = None  # the frozen part of the encoder
        self.fit_progress = FitProgress()
        self.journal = Journal(self._checkpoint_if_due, self.fit_progress)
        self.folder = RunFolder(config.save_path, seed, config.train.tensorboard)
        self.stopwatch = Stopwatch("train_s", "method_s", "eval_s", "total_s")
        self.steps = 0
        pretrains = config.model.frozen == "after_first_task"
        self.checkpoint, self.saved_at = Checkpoint("pretraining" if pretrains else "between", 0), time.monotonic()
        if config.model.frozen == "yes":
            self._freeze()
        else:
            self._assemble(MethodConfig(name="naive") if pretrains else config.method)

    def __call__(self, tasks: int | None = None) -> dict[str, Any]:
        """Run what is left of the seed, or of its first `tasks` tasks; returns its results.

        Raises:
            Interrupted: it was asked to stop, and has saved a checkpoint.
            TrainingFailed: a loss or a weight is not finite.
            OSError: the results folder cannot be written.
        """
        config = self.config.train
        graphs, kernels = capturing(config.cuda_graphs is not False), reproducible(config.deterministic)
        with self.stopwatch.timing("total_s"), graphs, kernels:
            resumed = self._resume()
            if self.checkpoint.phase == "pretraining":
                self._pretrain()
            if not resumed:
                self.recording.begin(self.method, self.device)
                self._save(tasks_done=0)
            start = self.checkpoint.tasks_done
            with bar(len(self.tasks), f"seed {self.seed}", 1, "task", done=start) as progress:
                for task in self.tasks[start:tasks]:
                    self._learn(task)
                    self._evaluate(task)
                    self._save(tasks_done=task.index + 1)
                    progress.update()
            self.recording.draw_scores(self.method)
            results = self.recording.finish(self.stopwatch.so_far(), self.steps)
            self.folder.save_final(results)
        log.info("done in %.1f s", results["time"]["total_s"])
        return results

    def _assemble(self, method: MethodConfig) -> None:
        """Build what depends on the samples that the classifier learns on: images, or features."""
        config = self.config.model_copy(update={"method": method})
        stream = self.streams["method" if method is self.config.method else "pretraining"]
        self.method = build_method(config, self.learner, stream, self.streams["augment"])
        self.optimizer = build_optimizer(self.config.train, self.learner)
        frozen = sum(p.numel() for p in self.extractor.parameters()) if self.extractor else 0
        self.recording = Recording(self.config, self.data, self.tasks, self.seed, self.folder, frozen)

    def _pretrain(self) -> None:
        """Train an encoder on the first task's images, as fine-tuning does; then freeze it."""
        task, saved = self.tasks[0], self.checkpoint
        self.learner.see(1)
        watched = task.dev or scored_part(task.train)
        self.training = Training(
            self.config.train, self.method, self.optimizer, task, watched, self.streams["order"], name="pretraining"
        )
        if saved.position:
            self._restore(saved.training)
            self.training.load_state_dict(saved.position)
        with self.stopwatch.timing("train_s"):
            epochs = self.training.run(self._checkpoint_if_due)
        self.steps += self.training.steps
        self._freeze(self.learner.encoder.features.state_dict())
        self.recording.results["pretraining"] = epochs

    def _freeze(self, trained: State | None = None) -> None:
        """Go on with a new classifier on the features of the encoder with these weights; None: those it begins with."""
        cache = self.cache if trained is None else None  # of one seed alone: quickly computed again
        self.learner, self.extractor, self.tasks = frozen(
            self.config, self.data, self.tasks, self.seed, trained, cache, self._stop_if_requested
        )
        self.checkpoint = Checkpoint("between", 0, features=trained or {})
        self._assemble(self.config.method)

    def restore_encoder(self) -> None:
        """Load the encoder that a finished run trained on its first task and froze, if it did."""
        if self.config.model.frozen == "after_first_task":
            self._freeze(torch.load(self.folder.encoder, map_location=self.device, weights_only=True))

    def _learn(self, task: Task) -> None:
        """The hooks and the steps of one task; of an interrupted one, those that are left."""
        config, checkpoint = self.config.train, self.checkpoint
        self.learner.see(task.index)
        with self._hook():
            training_task = self.method.begin_task(task)
        self.learner.see(task.index + 1)
        if config.reset_optimizer:
            self.optimizer = build_optimizer(config, self.learner)
        watched = task.dev or scored_part(task.train)
        probe, order = partial(self.recording.accuracies, self.method, task), self.streams["order"]
        self.training = Training(config, self.method, self.optimizer, training_task, watched, order, probe, self.steps)
        if checkpoint.phase != "between":
            self._restore(checkpoint.training)
            self.training.load_state_dict(checkpoint.position)
        with self.stopwatch.timing("train_s"):
            epochs = self.training.run(self._checkpoint_if_due)
        if config.save:
            self.checkpoint = replace(checkpoint, phase="consolidation", **copy.deepcopy(self._now()))
        with self._hook(), self.journal.recording(checkpoint.fits), closing(self.fit_progress):
            self.method.end_task(training_task)
        self.steps += self.training.steps
        self.recording.results["epochs"].append(epochs)
        if config.evaluate_every:
            self.recording.results["test"].setdefault("anytime", []).append(self.training.anytime)

    def _evaluate(self, task: Task) -> None:
        """Scores, diagnostics and figures after a task; nothing of it changes what is learned later."""
        with self.stopwatch.timing("eval_s"):
            self.recording.evaluate(self.method, task)
        for what, record in (("diagnostics", self.recording.diagnose), ("figures", self.recording.draw)):
            try:
                with self._hook(preserved):
                    record(self.method, task)
            except (ArithmeticError, RuntimeError, ValueError) as error:  # a flow without samples, for example
                log.warning("task %d: no %s (%s: %s)", task.index, what, type(error).__name__, error)

    @contextmanager
    def _hook(self, guard: Callable[[torch.Generator], AbstractContextManager[None]] = isolated) -> Iterator[None]:
        """Time a method's hook; inside, it may draw any random number and finds the learner in evaluation mode."""
        with self.stopwatch.timing("method_s"), guard(self.streams["method"]), evaluating(self.learner):
            yield

    def _save(self, tasks_done: int) -> None:
        """Between two tasks: save the results, and what the next task begins with."""
        self.checkpoint = Checkpoint("between", tasks_done, features=self.checkpoint.features)
        if self.config.train.save:
            before = copy.deepcopy(self._snapshot())
            if self.checkpoint.features and not tasks_done:
                self.folder.save_encoder(self.checkpoint.features)
            if tasks_done:  # before the checkpoint says that the task is done
                results = self.recording.results
                self.folder.save_task(tasks_done - 1, before["learner"], before["method"], results)
            self._write_checkpoint(before=before)
        self._stop_if_requested()

    def _checkpoint_if_due(self, epoch_over: bool = True) -> None:
        """After a training step, and after an epoch of a generator's fit."""
        config, minutes = self.config.train, (time.monotonic() - self.saved_at) / 60
        due = minutes >= config.checkpoint_minutes if config.checkpoint_minutes else epoch_over
        if config.save and (due or self.stop.requested):
            if self.checkpoint.phase == "consolidation":
                self._write_checkpoint(fits=self.journal.state())
            else:
                self.training.check_weights()
                phase = "pretraining" if self.checkpoint.phase == "pretraining" else "training"
                self._write_checkpoint(phase=phase, **self._now())
        self._stop_if_requested()

    def _stop_if_requested(self) -> None:
        if self.stop.requested:
            raise Interrupted(f" by {self.stop.requested}")

    def _write_checkpoint(self, **changes: Any) -> None:
        known: dict[str, Any] = {
            "results": self.recording.results,
            "steps": self.steps,
            "seconds": self.stopwatch.so_far(),
        }
        self.checkpoint = replace(self.checkpoint, **known, **changes)
        self.folder.save_state(self.checkpoint.to_dict())
        self.saved_at = time.monotonic()

    def _now(self) -> dict[str, Any]:
        return {"training": self._snapshot(), "position": self.training.state_dict()}

    def _snapshot(self) -> Snapshot:
        """The state of everything that learns or draws; tensors are not copied."""
        return {name: getattr(self, name).state_dict() for name in ("learner", "method", "optimizer", "streams")}

    def _restore(self, snapshot: Snapshot) -> None:
        """Undo everything since the snapshot."""
        for name, state in snapshot.items():
            getattr(self, name).load_state_dict(state)

    def _resume(self) -> bool:
        """Return to the last checkpoint; False if there is none in the sequence of tasks."""
        state = self.folder.load_state(self.device)
        if state is None:
            return False
        saved = Checkpoint.from_dict(state)
        check_run(self.config, self.seed, saved.results)
        if saved.features and self.extractor is None:
            self._freeze(saved.features)
        self.checkpoint = saved
        self.recording.results, self.steps = saved.results, saved.steps
        self.stopwatch.seconds.update(saved.seconds)
        self._restore(saved.before)
        within = f", epoch {saved.position['epoch']}, step {saved.position['step']}" if saved.position else ""
        within = ", after its last step" if saved.phase == "consolidation" else within
        where = "the training of the encoder" if saved.phase == "pretraining" else f"task {saved.tasks_done}"
        log.info("resuming in %s%s", where, within)
        return saved.phase != "pretraining"
