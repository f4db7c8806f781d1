"""One CUDA device: its tests, and how fast steps, fits and whole runs are, eager and captured as CUDA graphs.

python bench/gpu.py --data-root data         prints all tables; `--out FILE` writes them, too; 6 min on an H200
python bench/gpu.py --parts steps fits       a choice

Steps and fits are measured on random images and codes. Whole runs use MNIST if it is under the data root, else random
images of its shape. Nothing is downloaded. On a machine with torch but without network, the packages that it lacks
(often pydantic, pydantic-core, annotated-types, typing-inspection and zuko) can be carried as wheels:
`pip download --no-deps -d wheels NAME` with network, `pip install --no-index --no-deps wheels/*.whl` without.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # not bench/, whose profile.py would hide the standard library's
    sys.path[0] = str(Path(__file__).parent.parent)

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import methods
from bench.measuring import ROOT, machine, markdown
from datasets.data import Data, Split, as_floats
from flows import realnvp
from models.autoencoder import Autoencoder
from models.captured import CUDAGraph, capturing
from models.code_flow import CodeFlow, Condition
from models.encoders import paper
from models.learner import HEADS
from utils.config.schema import Config
from utils.run.runner import Run
from utils.run.streams import reproducible

GPU = torch.device("cuda", 0)
SHAPES = {"grey": (1, 28, 28), "colour": (3, 32, 32)}
STEPPED: dict[str, dict[str, Any]] = {
    "naive": {},
    "ewc": {},
    "lwf": {},
    "replay": {},
    "der": {},
    "prer": {"weights": {"er": 10}, "autoencoder": {"steps": 8}, "flow": {"steps": 8}},
    "prer_features": {"predict": "head", "weights": {"er": 0, "replay": 2}, "flow": {"steps": 8}},
}
"""Methods whose steps are measured -> options; short fits, since only steps are."""
FLOWS = {
    "flow, 32 dimensions, 4 blocks x 2 levels, 512 codes": ({"blocks": 4, "levels": 2, "hidden_size": 128}, 32, 512),
    "flow, 100 dimensions, 8 x 1, hidden 256, 256 codes": ({"blocks": 8, "levels": 1, "hidden_size": 256}, 100, 256),
    "flow, 100 dimensions, 20 x 2, 256 codes": ({"blocks": 20, "levels": 2, "hidden_size": 128}, 100, 256),
}
WARM, MEASURED, BATCH, PER_CLASS = 60, 100, 64, 12_000
SHORT_PRER = ["train.epochs=2", "method.autoencoder.epochs=5", "method.flow.epochs=5"]
RUNS: list[tuple[str, int, list[str]]] = [  # method, seeds at once, settings
    ("prer_features", 1, []),
    *(("prer", seeds, SHORT_PRER) for seeds in (1, 4, 8)),
]


def timed(step: Callable[[], object]) -> float:
    """Milliseconds per call."""
    for _ in range(WARM):
        step()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(MEASURED):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / MEASURED * 1e3


def random_data(shape: tuple[int, int, int], classes: int = 4) -> Data:
    """Random uint8 images, as many of each class."""
    y = torch.arange(classes).repeat_interleave(PER_CLASS)
    x = torch.randint(0, 256, (len(y), *shape), dtype=torch.uint8)
    part = Split(x, y)
    return Data(part, part.take(torch.arange(0, len(y), 100)), tuple(map(str, range(classes))))


def step_of(name: str, options: dict[str, Any], data: Data, captured: bool, deterministic: bool = False) -> float:
    """Milliseconds per step of the second task of a run."""
    _, config = methods.find(name)
    train = {"steps": WARM + MEASURED, "batch_size": BATCH, "save": False, "cuda_graphs": captured}
    settings = {
        "method": config.model_validate({"name": name, "plot": False, **options}),
        "scenario": {"dataset": "digits", "labels_per_task": 2, "type": "class" if name == "prer_features" else "task"},
    }
    at = dict[int, float]()

    def after_step(_: bool) -> None:
        at[run.training.step] = time.perf_counter()
        if run.training.step in (WARM, WARM + MEASURED):
            torch.cuda.synchronize()
            at[run.training.step] = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        run = Run(Config.model_validate({**settings, "train": {**train, "save_path": folder}}), data, 0, GPU)
        run.folder.path.mkdir(parents=True, exist_ok=True)
        run._checkpoint_if_due = after_step  # type: ignore[method-assign]
        with capturing(captured), reproducible(deterministic):
            if run.checkpoint.phase == "pretraining":
                run._pretrain()
            for task in run.tasks[:2]:
                run._learn(task)
    return (at[WARM + MEASURED] - at[WARM]) / MEASURED * 1e3


def bare_step(data: Data, captured: bool) -> float:
    """Milliseconds per step of the same network in a loop written by hand."""
    x, y = data.train.x.to(GPU), data.train.y.to(GPU) % 2
    encoder = paper.build(data.shape)
    network = nn.Sequential(encoder, HEADS["paper"](0.5)(encoder.embedding_dim, 2)).to(GPU)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, fused=True, capturable=captured)
    batches = iter(torch.randperm(len(y), device=GPU).split(BATCH))
    index, total = torch.zeros(BATCH, dtype=torch.long, device=GPU), torch.zeros((), device=GPU)

    def step() -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(network(as_floats(x[index])), y[index])
        loss.backward()
        optimizer.step()
        total.add_(loss.detach())

    def one(run: Callable[[], None]) -> None:
        index.copy_(next(batches))
        run()

    if not captured:
        return timed(partial(one, step))
    graph = CUDAGraph(torch.Generator(GPU))
    for _ in range(3):
        graph.warm_up(step)
    graph.capture(step)
    return timed(partial(one, graph.replay))


def steps_table() -> str:
    """Steps of training, grey and colour."""
    rows = []
    for kind, shape in SHAPES.items():
        data = random_data(shape)
        rows.append([f"{kind}, written by hand", *ratio(*(bare_step(data, on) for on in (False, True)))])
        for name, options in STEPPED.items():
            rows.append([f"{kind}, {name}", *ratio(*(step_of(name, options, data, on) for on in (False, True)))])
        kept = (step_of("naive", {}, data, on, deterministic=True) for on in (False, True))
        rows.append([f"{kind}, naive, train.deterministic: yes", *ratio(*kept)])
    return markdown(["step, 64 images", "eager, ms", "captured, ms", "ratio"], rows)


def ratio(eager: float, captured: float) -> list[str]:
    """The cells of a row: both times in milliseconds, and how many times faster captured is."""
    return [f"{eager:.3f}", f"{captured:.3f}", f"{eager / captured:.1f}"]


def fit_time(fit: Callable[[int], object], captured: bool) -> float:
    """Milliseconds per step of a fit: the difference of a long and a short one."""
    seconds = []
    for steps in (20, 20, 20 + MEASURED):  # the first of all is slow
        torch.cuda.synchronize()
        start = time.perf_counter()
        with capturing(captured):
            fit(steps)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return (seconds[2] - seconds[1]) / MEASURED * 1e3


def flow_fit(options: dict[str, Any], z: Tensor, y: Tensor, batch: int, steps: int) -> None:
    """Fit a new flow to codes z (N, d) of classes y (N,)."""
    flow = CodeFlow(z.shape[1], Condition(10), partial(realnvp.build, **options), steps=steps, batch_size=batch).to(GPU)
    flow.fit(z, y, torch.ones_like(y, dtype=torch.bool), torch.Generator(GPU).manual_seed(0))


def decoder_fit(images: Split, steps: int) -> None:
    """Fit a new decoder of 32 codes to random features of images."""
    shape, condition = images.x.shape[1:], Condition(10)
    encoder = paper.build(tuple(shape))
    features = torch.randn(len(images), encoder.feature_dim, device=GPU)
    decoder = partial(encoder.mirror, 32 + condition.size, shape)
    projection = nn.Linear(encoder.feature_dim, 32)
    autoencoder = Autoencoder(projection, condition, decoder, steps=steps, batch_size=256).to(GPU)
    autoencoder.fit(features, images, torch.Generator(GPU).manual_seed(0))


def fits_table() -> str:
    """Steps of the generators' fits."""
    y = torch.randint(0, 10, (20_000,), device=GPU)
    fits: dict[str, Callable[[int], object]] = {}
    for name, (options, dimension, batch) in FLOWS.items():
        fits[name] = partial(flow_fit, options, torch.randn(len(y), dimension, device=GPU), y, batch)
    for kind, shape in SHAPES.items():
        images = torch.randint(0, 256, (len(y), *shape), dtype=torch.uint8, device=GPU)
        fits[f"decoder, {kind}, 256 images"] = partial(decoder_fit, Split(images, y))
    rows = [[name, *ratio(*(fit_time(fit, captured) for captured in (False, True)))] for name, fit in fits.items()]
    return markdown(["step of a fit", "eager, ms", "captured, ms", "ratio"], rows)


def main_py(config: str, root: Path, folder: Path, *options: str) -> tuple[float, dict[str, Any]]:
    """Seconds of `main.py` on the device from start to exit, and its final_score.json."""
    overrides = [option for option in options if "=" in option]
    rest = [option for option in options if "=" not in option]
    command = [sys.executable, "main.py", config, "--device", "cuda", "--data-root", str(root), *rest]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, "--set", f"train.save_path={folder}", *overrides], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return time.perf_counter() - start, json.loads((folder / "final_score.json").read_text())


def runs_table(root: Path, folder: Path) -> str:
    """Whole runs on MNIST, captured; eager ones take minutes."""
    rows = []
    for method, count, settings in RUNS:
        options = ["--seeds", f"0-{count - 1}" if count > 1 else "0", "--jobs", str(count), *settings]
        seconds, score = main_py(f"files/{method}_mnist.yaml", root, folder / f"{method}-{count}", *options)
        parts = [score["time"][part]["mean"] for part in ("train_s", "method_s", "eval_s")]
        times = [f"{value:.1f}" for value in (seconds, seconds / count, *parts)]
        rows.append(
            [f"{method} {' '.join(settings)}", str(count), *times, f"{score['test']['FinalAccuracy']['mean']:.4f}"]
        )
        print(rows[-1], file=sys.stderr, flush=True)
    times_of = ["end to end", "end to end per seed", "training per seed", "method per seed", "evaluation per seed"]
    return markdown(["MNIST", "seeds at once", *(f"{part}, s" for part in times_of), "FinalAccuracy"], rows)


def tests_line() -> str:
    """The last line of the CUDA tests; if one fails, nothing is measured."""
    command = [sys.executable, "-m", "pytest", "-p", "no:benchmark", "tests/test_cuda.py", "-n", str(os.cpu_count())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return f"`python {' '.join(command[1:])}`: {done.stdout.strip().splitlines()[-1].strip('= ')}"


def main() -> int:
    """Measure and print."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-root", type=Path, default=ROOT / "data")
    parser.add_argument("--parts", nargs="+", choices=["tests", "steps", "fits", "runs"])
    parser.add_argument("--out", type=Path, help="Markdown file to write the tables to")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("bench/gpu.py: no CUDA device; it measures one")
    root = options.data_root.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts: dict[str, Callable[[], str]] = {
            "tests": tests_line,
            "steps": steps_table,
            "fits": fits_table,
            "runs": partial(runs_table, root, folder),
        }
        where = f"{torch.cuda.get_device_name()}; {machine()}"
        found = [f"`python bench/gpu.py` on {where}."]
        for part in options.parts or parts:
            start = time.perf_counter()
            found.append(parts[part]())
            print(f"{found[-1]}\n\n{part}: {time.perf_counter() - start:.0f} s\n", flush=True)
            if options.out:
                options.out.write_text("# One GPU\n\n" + "\n\n".join(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
