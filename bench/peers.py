"""Ours, Avalanche and a loop written by hand on the same work, one after the other in one session, several times.

python bench/peers.py --data-root data --out peers.json            everything, 5 rounds: about half an hour on one core
python bench/peers.py --methods naive --programs ours bare         a choice

The work: MNIST if it is under the data root, else digits; 5 tasks of 2 classes with a head each, the paper's network,
Adam 1e-3, batches of 64. A round runs every method by every program once, so that a machine that slows down slows all
of them; medians are compared. Ours is the real command line with files/<method>_<data>.yaml, everything that it writes
and draws included; Avalanche gets an environment of its own, made here, with the same torch; all get the same number of
threads: one by default, as main.py takes it, since two are hardly faster with networks of this size.

Ours does more than the others: it scores up to 2,000 training images of each task as well, the untrained classifier,
and after each epoch the current task's. Only the last is in its seconds of training, all are in those end to end.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

if __name__ == "__main__":  # not bench/, whose profile.py would hide the standard library's
    sys.path[0] = str(Path(__file__).parent.parent)

from bench.measuring import ROOT, Failed, machine, markdown, run, run_ours, seen, spread

SETTINGS: dict[str, dict[str, float]] = {
    "naive": {},
    "ewc": {"importance": 1e4},
    "lwf": {"alpha": 1, "temperature": 2},
    "replay": {"memory_size": 1000},
    "gem": {"memory_per_task": 200, "margin": 0},
    "prer": {"autoencoder.epochs": 5, "flow.epochs": 5},
}
"""What is set of each method, for all programs that have it."""
PROGRAMS = {"ours": list(SETTINGS), "avalanche": [m for m in SETTINGS if m != "prer"], "bare": ["naive"]}
"""Which methods each program can run, in the order of a round."""
AVALANCHE = ("avalanche-lib==0.6.0", "quadprog==0.1.14")
"""Installed together with the torch and torchvision that ours runs with; quadprog is what its GEM asks for."""
Record = dict[str, Any]
"""One run: program, method, round, and what was measured."""
MEASURES: dict[str, Callable[[Record], float]] = {
    "end to end, s": lambda r: r["end_to_end_s"],
    "training, s": lambda r: r["train_s"] + r["method_s"],
    "of it between tasks, s": lambda r: r["method_s"],
    "evaluation, s": lambda r: r["eval_s"],
    "CPU, s": lambda r: r["cpu_s"],
    "peak MB": lambda r: r["peak_mb"],
    "FinalAccuracy": lambda r: r["accuracy"],
}
"""Columns. Training: the steps, and what a method does between tasks (ours tells the two apart, Avalanche does not)."""
COMPARED = ("end to end, s", "training, s", "CPU, s")
DIGITS = {"peak MB": 0, "FinalAccuracy": 4}


def main() -> int:
    """Measure what the command line names."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--methods", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--programs", nargs="+", default=list(PROGRAMS), choices=list(PROGRAMS))
    parser.add_argument("--data-root", type=Path, default=Path(os.environ.get("DATA_ROOT", "data")))
    parser.add_argument("--epochs", type=int, default=2, help="passes over each task (2)")
    parser.add_argument("--rounds", type=int, default=5, help="how often (5)")
    parser.add_argument("--threads", type=int, default=1, help="of every program (1)")
    parser.add_argument("--environment", type=Path, default=ROOT / ".bench" / "avalanche", help="made if missing")
    parser.add_argument("--out", type=Path, help="JSON of every single run, written after each")
    options, on = parser.parse_args(), machine()  # the commit as it is now: another may come meanwhile
    options.python = avalanche(options.environment) if "avalanche" in options.programs else None
    options.dataset = "mnist" if (options.data_root / "MNIST" / "raw").is_dir() else "digits"
    records: list[Record] = []
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        export(options)
        pairs = [(m, p) for m in options.methods for p in options.programs if m in PROGRAMS[p]]
        for number, (method, program) in product(range(options.rounds), pairs):
            measured = measure(program, method, number, options)
            records.append({"program": program, "method": method, "round": number, **measured})
            print(f"round {number} {method} {program}: {measured['end_to_end_s']:.1f} s", file=sys.stderr)
            if options.out:
                options.out.write_text(json.dumps(records, indent=1) + "\n")
    print(f"{options.dataset}, {options.epochs} epochs per task, {options.rounds} rounds, {options.threads} threads")
    print(f"{on}\n\n{table(records)}\n\n{ratios(records)}")
    return 0


def measure(program: str, method: str, number: int, options: Namespace) -> Record:
    """One run of one program; the seconds that Avalanche spends between tasks are in its train_s."""
    settings = SETTINGS[method]
    if program == "ours":
        chosen = [f"train.epochs={options.epochs}", *(f"method.{key}={value}" for key, value in settings.items())]
        config, folder = Path(f"files/{method}_{options.dataset}.yaml"), options.folder / f"{method}-{number}"
        where = ["--seeds", "0", "--data-root", options.data_root.resolve()]
        return run_ours(config, folder, chosen, where, options.threads)
    script = [sys.executable, "bench/bare_loop.py"]
    if program == "avalanche":
        script = [options.python, "bench/avalanche_run.py", "--method", method, "--settings", json.dumps(settings)]
    ran = run([*script, options.folder / "data.npz", "--epochs", str(options.epochs)], options.threads)
    said = json.loads([line for line in ran.output.splitlines() if line.startswith("{")][-1])
    accuracy = sum(said["accuracies"]) / len(said["accuracies"])
    seconds = {"train_s": said["train_s"], "method_s": 0.0, "eval_s": said["eval_s"]}
    return {**seen(ran), **seconds, "accuracy": accuracy}


def of(records: Sequence[Record], method: str, program: str, measure: str) -> list[float]:
    """One measured number in all rounds."""
    return [MEASURES[measure](r) for r in records if (r["method"], r["program"]) == (method, program)]


def table(records: Sequence[Record]) -> str:
    """Medians of every method by every program."""
    rows = []
    for method, program in dict.fromkeys((r["method"], r["program"]) for r in records):
        cells = [spread(of(records, method, program, name), DIGITS.get(name, 1)) for name in MEASURES]
        rows.append([method, program, *cells])
    return markdown(["method", "program", *MEASURES], rows)


def ratios(records: Sequence[Record]) -> str:
    """Ratios of medians, of those rows of which both sides were measured."""
    asked = {}
    for method in SETTINGS:
        ours = (method, "ours")
        asked[f"{method}: Avalanche / ours"] = (method, "avalanche"), ours
        asked[f"{method} / naive, both ours"] = ours, ("naive", "ours")
    asked["naive: ours / bare loop"] = ("naive", "ours"), ("naive", "bare")
    there = {(r["method"], r["program"]) for r in records}
    rows = []
    for name, (above, below) in asked.items():
        if above != below and {above, below} <= there:
            pairs = [[median(of(records, *side, measure)) for side in (above, below)] for measure in COMPARED]
            rows.append([name, *(f"{a / b:.2f}" for a, b in pairs)])
    return markdown(["ratio of medians", *(name.partition(",")[0] for name in COMPARED)], rows)


def avalanche(folder: Path) -> Path:
    """The Python of an environment that has Avalanche and the torch that ours runs with; made if it is not there."""
    wanted = [*AVALANCHE, *(f"{name}=={version(name).partition('+')[0]}" for name in ("torch", "torchvision"))]
    python, done = folder.absolute() / "bin" / "python", folder / "installed.txt"
    if not done.exists() or done.read_text().split() != wanted:
        print(f"installing {' '.join(wanted)} into {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)
        done.write_text("\n".join(wanted))
    return python


def export(options: Namespace) -> None:
    """The data as one file of arrays for the other programs, by a process of its own: this one is to stay small."""
    arguments = (options.dataset, options.data_root, options.folder / "data.npz")
    process = multiprocessing.get_context("spawn").Process(target=_export, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise Failed(f"{options.dataset} could not be read under {options.data_root}")


def _export(name: str, root: Path, file: Path) -> None:
    import numpy as np

    from datasets import DatasetConfig, load
    from utils.settings import BadInput

    try:
        data = load(DatasetConfig(name=name), root)
    except BadInput as error:
        sys.exit(str(error))
    np.savez(file, x_train=data.train.x, y_train=data.train.y, x_test=data.test.x, y_test=data.test.y)


if __name__ == "__main__":
    sys.exit(main())
