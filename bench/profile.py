"""Where the time of a run goes, from the start of the process to its exit: seconds and shares that add up to it.

python bench/profile.py files/naive_mnist.yaml files/prer_mnist.yaml --set train.epochs=2 --data-root data

Every file is one run of seed 0 of the real program in a process of its own, in which functions are wrapped with a
clock. Time belongs to the innermost of them that is running, so that nothing is counted twice; what no function here
claims is `other`. Modules are imported where they are first needed: all of that is start-up.

`forward` has the classifier's passes in training mode, also those of replayed images, and cross-entropies; `method`
what a method does in a step besides them (penalties, teachers, gradients of memories) and between tasks; the backward
pass of a penalty is in `backward`. What a method costs in all is the difference to naive. CPU only: on CUDA the clock
would not see what runs there.
"""

import importlib
import json
import os
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # not this folder: this file has the name of a module of the standard library
    sys.path[0] = str(Path(__file__).parent.parent)

from bench.measuring import ROOT, machine, markdown, run

PARTS = {
    "start-up": "the interpreter, and all imports",
    "input": "settings, reading the data, cutting it into tasks",
    "building": "classifier, method, optimizers",
    "batches": "drawing and indexing them, pixels to floats",
    "forward": "the classifier in training mode, cross-entropies",
    "backward": "of everything in the loss",
    "optimizer": "its steps, zeroing gradients, the schedule",
    "checks": "that losses and weights are finite",
    "method": "in a step besides the classifier, and between tasks",
    "generator": "fitting and sampling it",
    "evaluation": "accuracies, and what is logged of a task",
    "writing": "results, checkpoints, figures",
    "other": "the loop itself, log, progress",
    "exit": "of the interpreter",
}
"""The rows, and what is in them."""
STEP = {"batches", "forward", "backward", "optimizer"}
"""Parts of a training step; inside those of `WHOLE` they are counted as one."""
WHOLE = {"input", "building", "generator", "evaluation", "writing"}
WRAPPED = {
    "input": "utils.config.load:load_points datasets:load utils.run.build:build_tasks",
    "building": "utils.run.build:build_learner utils.run.build:build_method utils.run.build:build_optimizer",
    "batches": "torch:randperm datasets.data:Split.batch methods.mechanisms.memory:Memory.draw",
    "forward": "methods:Method.loss methods:Method.cross_entropy models.learner:Learner.embed "
    "models.learner:Learner.logits models.learner:Learner.mixed_logits models.learner:Learner.cross_entropy",
    "backward": "torch:Tensor.backward",
    "optimizer": "torch.optim:Adam.step torch.optim:SGD.step torch.optim:Optimizer.zero_grad "
    "torch.optim.lr_scheduler:LRScheduler.step",
    "checks": "utils.run.training:Training._check utils.run.training:Training.check_weights",
    "generator": "models.fitting:fit models.autoencoder:Autoencoder.fit models.autoencoder:Autoencoder.images "
    "models.code_flow:CodeFlow.fit models.code_flow:CodeFlow.sample "
    "models.vae:VAE.fit models.vae:VAE.sample models.gan:FeatureGAN.fit models.gan:FeatureGAN.sample",
    "evaluation": "utils.run.recording:Recording.begin utils.run.recording:Recording.evaluate "
    "utils.run.recording:Recording.diagnose utils.run.evaluation:accuracy",
    "writing": "utils.run.runner:Run._save utils.run.runner:Run._write_checkpoint "
    "utils.run.recording:Recording.draw utils.run.recording:Recording.draw_scores "
    "utils.store.files:write_pickle utils.store.final_score:write_final_score "
    "utils.store.folder:make_folder",
}
"""Part -> the functions, module:name, whose time it is."""
HOOKS = ("begin_task", "loss", "after_backward", "end_task")
"""Of any method: their time is the part `method`."""


class Clock:
    """Seconds of the part that is running, innermost first."""

    def __init__(self, begun: float) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.running, self.since = ["start-up"], begun

    def _tick(self) -> None:
        now = time.monotonic()
        self.seconds[self.running[-1]] += now - self.since
        self.since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Inside, time is that of the part `name`."""
        self._tick()
        self.running.append(name)
        try:
            yield
        finally:
            self._tick()
            self.running.pop()

    def wrap(self, function: Callable, name: str) -> Callable:
        """The function, on the clock."""

        @wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            here = self.running[-1]
            within = name in STEP and here in WHOLE
            not_training = name == "forward" and not getattr(arguments[0], "learner", arguments[0]).training
            if name == here or within or not_training:
                return function(*arguments, **options)
            with self.part(name):
                return function(*arguments, **options)

        return timed


def instrument(clock: Clock) -> None:
    """Wrap the functions of `WRAPPED` wherever their names are known, the hooks of methods to come, and imports."""
    importing = importlib._bootstrap
    importing._find_and_load = clock.wrap(importing._find_and_load, "start-up")
    for part, names in WRAPPED.items():
        for name in names.split():
            _wrap(clock, part, name)
    from methods import Method

    def on_the_clock(method: type) -> None:
        for hook in HOOKS:
            if hook in vars(method):
                setattr(method, hook, clock.wrap(vars(method)[hook], "method"))

    Method.__init_subclass__ = classmethod(on_the_clock)


def _wrap(clock: Clock, part: str, name: str) -> None:
    module, _, path = name.partition(":")
    *outer, last = path.split(".")
    owner = importlib.import_module(module)
    for attribute in outer:
        owner = getattr(owner, attribute)
    original = vars(owner)[last]
    wrapped = clock.wrap(original, part)
    setattr(owner, last, wrapped)
    for other in list(sys.modules.values()):  # whoever imported it by its name
        if getattr(other, last, None) is original:
            setattr(other, last, wrapped)


def inside(report: str, begun: float, arguments: Sequence[str]) -> None:
    """The life of a process that is measured: run main.py with these arguments and report the seconds."""
    clock = Clock(begun)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as main.py does it, before torch is imported
    instrument(clock)
    from main import main

    with clock.part("other"):
        code = main(arguments)
    clock._tick()
    Path(report).write_text(json.dumps({"parts": clock.seconds, "until": time.monotonic()}))
    sys.exit(code)


def profile(config: Path, options: Namespace) -> dict[str, float]:
    """Seconds of each part of one run; their sum is the wall time from the process's start to its exit."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        settings = [*options.set, f"train.save_path={folder}/run"]
        arguments = [str(config.resolve()), "--seeds", "0", "--device", "cpu", "--set", *settings]
        arguments += ["--data-root", str(options.data_root.resolve())]
        begun = time.monotonic()
        path = f"import sys; sys.path.insert(0, {str(ROOT)!r})"
        call = f"inside({str(report)!r}, {begun!r}, {arguments!r})"
        ran = run([sys.executable, "-c", f"{path}; from bench.profile import inside; {call}"], options.threads)
        said = json.loads(report.read_text())
    return {**said["parts"], "exit": begun + ran.seconds - said["until"]}


def table(profiles: dict[str, dict[str, float]]) -> str:
    """Seconds and share of each part (rows), by run (columns)."""
    totals = {name: sum(parts.values()) for name, parts in profiles.items()}
    rows = []
    for part, meaning in PARTS.items():
        cells = [(parts.get(part, 0.0), totals[name]) for name, parts in profiles.items()]
        rows.append([part, *(f"{seconds:.2f} s, {seconds / total:.1%}" for seconds, total in cells), meaning])
    rows.append(["end to end", *(f"{total:.2f} s" for total in totals.values()), "from start to exit"])
    return markdown(["part", *profiles, "what is in it"], rows)


def main() -> int:
    """Profile what the command line names."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("configs", nargs="+", type=Path)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="as main.py has it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data-root", type=Path, default=Path(os.environ.get("DATA_ROOT", "data")))
    options, on = parser.parse_args(), machine()  # the commit as it is now: another may come meanwhile
    print(f"{on}\n")
    print(table({config.stem: profile(config, options) for config in options.configs}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
