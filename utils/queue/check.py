"""`--check`: explain each experiment, and estimate time and disk from a few timed steps and one short generator fit."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import accumulate, groupby
from math import ceil

import torch
from pydantic import BaseModel

from datasets.data import Split, Task
from methods import Method, MethodConfig
from methods.cumulative import Cumulative
from models.captured import WARM_UP, Captured, capturing
from utils.config.schema import Config, TrainConfig
from utils.config.yaml_text import as_yaml
from utils.queue.plan import Experiment, build
from utils.run.build import build_learner, build_method, build_optimizer, build_tasks, class_names
from utils.run.evaluation import SCORED_TRAINING_IMAGES, evaluating, memory, predict
from utils.run.features import features
from utils.run.streams import generator, isolated
from utils.run.training import train_step

TIMED_STEPS, MAX_IMAGES, FIT_SHARE = 10, 512, 0.1
CONTEXT = 600 * 2**20  # bytes that a process takes on a CUDA device besides its tensors
NOTE = f"""Extrapolated from {TIMED_STEPS} steps and {FIT_SHARE:.0%} of a generator fit on up to {MAX_IMAGES} images, \
for a sweep from its first point: usually within a factor of 2.
Evaluation is timed after the first task; too little where its time grows with the classes seen, as with flows.
Not counted: reading the data, figures, diagnostics, memories that grow."""


def describe(experiments: Sequence[Experiment], at_once: int) -> Iterator[str]:
    """The text that `--check` prints, part by part: each file, of a sweep the first point; then the estimates."""
    rows, total, size = list[str](), 0.0, 0.0
    for _, group in groupby(experiments, lambda experiment: experiment.folder):
        points = list(group)
        yield f"# {points[0].where}{f', the first of {len(points)} points' if points[0].sweep else ''}"
        yield _explain(points[0])
        try:
            seconds, disk = estimate(points[0])
            yield f"estimate per seed: {_duration(seconds)}, {disk / 1e6:,.1f} MB on disk\n"
        except (ArithmeticError, MemoryError, RuntimeError) as error:  # a flow without samples; out of memory
            seconds = disk = 0.0
            yield f"no estimate, counted as 0 s ({type(error).__name__}: {error})\n"
        count = sum(len(point.seeds) for point in points)
        total, size = total + count * seconds, size + count * disk
        rows.append(
            f"{_duration(count * seconds):>10} {count * disk / 1e6:>12,.1f} MB {count:>6} runs  {points[0].folder}"
        )
    runs = sum(len(experiment.seeds) for experiment in experiments)
    at_once = min(at_once, runs)
    parallel = f", {_duration(total / at_once)} with {at_once} in parallel" if at_once > 1 else ""
    if len(rows) > 1:
        yield "\n".join([*rows, ""])
    yield f"total of runs: {runs}, about {_duration(total)}{parallel}, {size / 1e6:,.1f} MB on disk\n{NOTE}"


def _explain(experiment: Experiment) -> str:
    """The resolved configuration, tasks, sizes and steps of an experiment."""
    config, data, seeds = experiment.config, experiment.data, experiment.seeds
    tasks, method = build(config, data, seeds[0], torch.device("cpu"))
    named = class_names(config, data)
    lines, held, total = [as_yaml(config.dump()), f"tasks of seed {seeds[0]}:"], memory(method), 0
    for task in tasks:
        steps = _steps(config.train, len(task.train))
        total += steps
        images = f"{len(task.train):,} train, {len(task.dev or ()):,} dev, {len(task.test):,} test images"
        names = ", ".join(named[label] for label in task.classes)
        lines.append(f"  {task.index}: {names} ({images}, {steps:,} steps on its own data)")
    lines += [
        f"images: {' x '.join(map(str, data.shape))}, classes: {len(named)}",
        f"classifier: {held['learner_parameters']:,} parameters",
        f"method: {sum(p.numel() for p in method.parameters() if p.requires_grad):,} parameters of its own",
        f"memory before the first task: {held['method_floats']:,} numbers",
        f"seeds: {', '.join(map(str, seeds))}, {total:,} steps each, on {experiment.device}",
        f"results: {config.save_path}",
    ]
    if advice := method.advice.get(config.scenario.type):
        lines.append(f"note: {advice}")
    return "\n".join(lines)


def estimate(experiment: Experiment) -> tuple[float, float]:
    """Seconds of one seed on its device, and bytes on disk; draws from random streams of its own."""
    config, device, seed, train = experiment.config, experiment.device, experiment.seeds[0], experiment.config.train
    shortened, share = _shortened(config.method)
    graphs = capturing(config.train.cuda_graphs is not False)
    with graphs, isolated(generator(seed, "estimate", device)):
        tasks = build_tasks(config, experiment.data, seed, device)
        learner = build_learner(config, tasks, seed)

        def made(method: BaseModel) -> Method:
            own = config.model_copy(update={"method": method})
            return build_method(own, learner, generator(seed, "method", device))

        pretraining = per_feature = per_task = per_image = 0.0
        if config.model.frozen == "after_first_task":
            naive = made(MethodConfig(name="naive"))
            per_step = _seconds_per_step(naive, build_optimizer(train, learner), tasks[0], train.batch_size)
            pretraining = _steps(train, len(tasks[0].train)) * per_step
        extractor = learner.freeze() if config.model.is_frozen else None
        method = made(shortened)
        optimizer = build_optimizer(train, learner)
        for whole in tasks[:2]:  # the second is the first with a past
            part = whole.train.take(torch.arange(0, len(whole.train), max(1, len(whole.train) // MAX_IMAGES)))
            if extractor:
                start = _now(device)
                part = Split(features(extractor, part.x, device), part.y)
                per_feature = (_now(device) - start) / len(part)
            with evaluating(learner):
                training = method.begin_task(replace(whole, train=part))
            learner.train()
            per_step = _seconds_per_step(method, optimizer, training, train.batch_size)
            start = _now(device)
            if whole is tasks[0]:
                with evaluating(learner):
                    method.end_task(training)
                per_task = (_now(device) - start) / share
                start = _now(device)
                predict(method, part, 0, scored=True)
                per_image = (_now(device) - start) / len(part)
    own = [len(task.train) for task in tasks]
    images = _trained_on(method, own, past=len(training.train) > len(part))
    steps = method.trains * sum(_steps(train, count) for count in images)
    held = memory(method)
    weights = 4 * held["learner_parameters"]
    images_in_all = sum(len(task.train) + len(task.dev or ()) + len(task.test) for task in tasks)
    timed_ends = len(own) if _fits_in_steps(config.method) else sum(images) / len(part)  # how many times the timed one
    seconds = pretraining + steps * per_step + per_task * timed_ends + per_feature * images_in_all
    seconds += per_image * _evaluated(config, tasks)
    return seconds, train.save * (len(own) * weights + 4 * (3 * weights + held["method_bytes"]))


def most_at_once(experiments: Sequence[Experiment], cores: int) -> int:
    """How many seeds may run in parallel: one per core, on CUDA as many as fit into the memory that is free."""
    on_cuda = [experiment for experiment in experiments if experiment.device.type == "cuda"]
    if len(experiments) == 1 == len(experiments[0].seeds) or not on_cuda:
        return cores
    needed = CONTEXT
    for _, points in groupby(on_cuda, lambda experiment: experiment.folder):
        first = next(points)
        torch.cuda.reset_peak_memory_stats(first.device)
        estimate(first)
        needed = max(needed, CONTEXT + torch.cuda.max_memory_reserved(first.device))
        torch.cuda.empty_cache()
    return max(1, min(cores, torch.cuda.mem_get_info(on_cuda[0].device)[0] // needed))


def _seconds_per_step(method: Method, optimizer: torch.optim.Optimizer, task: Task, batch_size: int) -> float:
    """Measured on the first batch of the task, which is trained on."""
    device, why_not = task.train.y.device, None if method.static else "not static"
    step = Captured(partial(_step, method, optimizer, task), optimizer, batch_size, method.stream, why_not)
    index = torch.arange(len(task.train), device=device)[:batch_size]
    for _ in range(WARM_UP + 1 if device.type == "cuda" else 1):  # not timed: the first ones are slow
        step(index)
    start = _now(device)
    for _ in range(TIMED_STEPS):
        step(index)
    return (_now(device) - start) / TIMED_STEPS


def _step(method: Method, optimizer: torch.optim.Optimizer, task: Task, index: torch.Tensor) -> None:
    train_step(method, optimizer, *task.train.batch(index), task)


def _steps(train: TrainConfig, images: int) -> int:
    """The number of steps of a task with this number of images."""
    return train.steps or train.epochs * ceil(images / train.batch_size)


def _trained_on(method: Method, own: Sequence[int], past: bool) -> list[int]:
    """The number of images that each task trains on, from its own; with `past`, those of past tasks, too."""
    seen, stored = list(accumulate(own)), getattr(method.config, "memory_size", sum(own))
    if isinstance(method, Cumulative):  # gdumb on what it stores alone
        return [min(count, stored) for count in seen]
    return [new + past * min(count - new, stored) for new, count in zip(own, seen, strict=True)]


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))  # h:mm:ss


def _now(device: torch.device) -> float:
    if device.type != "cuda":
        return time.thread_time()  # without other processes' share
    torch.cuda.synchronize(device)
    return time.perf_counter()


def _evaluated(config: Config, tasks: Sequence[Task]) -> int:
    """The number of images that are evaluated after all tasks."""

    def of(task: Task) -> int:
        train, dev = min(len(task.train), SCORED_TRAINING_IMAGES), len(task.dev or ())
        return len(task.test) + config.measures("train") * train + config.measures("dev") * dev

    seen = list(accumulate(map(of, tasks)))  # after each task
    return len(tasks) * seen[-1] if config.train.evaluate == "all" else sum(seen)


def _fits_in_steps(settings: BaseModel) -> bool:
    """Whether a fit takes a given number of steps, whatever the number of images."""
    parts = [value for _, value in settings if isinstance(value, BaseModel)]
    asked = getattr(settings, "steps", None) and (
        getattr(settings, "epochs", None) is None or "steps" in settings.model_fields_set
    )
    return bool(asked) or any(map(_fits_in_steps, parts))


def _shortened(settings: BaseModel) -> tuple[BaseModel, float]:
    """Settings with the epochs of all fits cut down, and the share that is left."""
    changes, shares = {}, [1.0]
    for name, value in settings:
        if isinstance(value, BaseModel):
            changes[name], share = _shortened(value)
            shares.append(share)
        elif name in ("epochs", "steps") and value:
            changes[name] = max(1, round(FIT_SHARE * value))
            shares.append(changes[name] / value)
    return settings.model_copy(update=changes), min(shares)
