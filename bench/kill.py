"""Kill runs at random moments, go on until they are done, and compare what they leave with uninterrupted runs.

python bench/kill.py                                  every method in each of its scenarios, 5 kills each
python bench/kill.py --methods prer si --kills 20     a choice
"""

import contextlib
import io
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
if __name__ == "__main__":  # not bench/, whose profile.py would hide the standard library's
    sys.path[0] = str(ROOT)

SMALL = {
    "prer": "method.autoencoder.epochs=3 method.flow.epochs=3 method.flow.blocks=1 "
    "method.regularization.fixed_replay=200",
    "prer_features": "method.flow.steps=40 method.regularization.fixed_replay=200",
    "dgr": "method.vae.epochs=3",
    "bir": "method.vae.epochs=3",
    "gfr": "method.gan.epochs=6",
}
"""What makes the methods with generators quick enough to be killed often."""
COMMON = "method.plot=no train.epochs=3 train.checkpoint_minutes=0 train.device=cpu"
NOT_COMPARED = ("time", "config")
"""Results that differ between two runs: seconds, and the folder's name."""


PRELOADED = ["bench.kill", "main", "utils.queue.launch", "torch._dynamo", "sklearn.datasets"]
"""Imported once, so that what is killed is the run and not its imports."""


class Outcome(NamedTuple):
    """What became of one run."""

    kills: int
    same: bool


def command(method: str, scenario: str, folder: Path) -> list[str]:
    """The arguments of main.py for one small run on digits."""
    settings = f"method={method} {COMMON} scenario.type={scenario} train.save_path={folder} {SMALL.get(method, '')}"
    return [str(ROOT / "files" / "naive_digits.yaml"), "--seeds", "0", "--set", *settings.split()]


def quietly(arguments: Sequence[str]) -> None:
    """Run the program in this process, saying nothing; exits with its code."""
    from main import main

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = main(arguments)
    sys.exit(code)


def left_by(folder: Path) -> dict[str, Any]:
    """Everything in a results folder that two runs of the same seed must have alike."""
    import torch

    from utils.store.files import read_pickle

    found: dict[str, Any] = {}
    for path in sorted(folder.glob("exp_*/**/*.pt")):
        if path.parent.name == "models":
            state = torch.load(path, weights_only=True)
            found[str(path.relative_to(folder))] = {
                name: value.numpy().tobytes() if isinstance(value, torch.Tensor) else value
                for name, value in state.items()
            }
    for path in sorted(folder.glob("exp_*/**/*.pkl")):
        plain = read_pickle(path)
        found[str(path.relative_to(folder))] = {k: v for k, v in plain.items() if k not in NOT_COMPARED}
    for path in sorted(folder.glob("exp_*/metrics.csv")):
        found[str(path.relative_to(folder))] = path.read_text()
    return found


def survive(method: str, scenario: str, kills: int, chance: random.Random, folder: Path) -> Outcome:
    """Run once without a kill, and once killed `kills` times and then left alone; compare.

    Raises:
        RuntimeError: a run that nobody killed failed.
    """
    context = multiprocessing.get_context("forkserver")  # children start with everything imported
    context.set_forkserver_preload(PRELOADED)

    def start(name: str) -> Any:
        process = context.Process(target=quietly, args=(command(method, scenario, folder / name),))
        process.start()
        return process

    begin = time.monotonic()
    whole = start("whole")
    whole.join()
    length, done = time.monotonic() - begin, 0
    while done < kills:
        process = start("killed")
        process.join(timeout=chance.uniform(0, length))
        if process.is_alive():
            process.kill()
            process.join()
            done += 1
        elif process.exitcode == 0:  # quicker than the kill: another one begins
            if left_by(folder / "killed") != left_by(folder / "whole"):
                return Outcome(done, False)
            shutil.rmtree(folder / "killed")
        else:
            raise RuntimeError(f"{method}, {scenario}: a resumed run ended with {process.exitcode}")
    last = start("killed")
    last.join()
    if whole.exitcode or last.exitcode:
        raise RuntimeError(f"{method}, {scenario}: exit codes {whole.exitcode} and {last.exitcode}")
    return Outcome(done, left_by(folder / "whole") == left_by(folder / "killed"))


def main() -> int:
    """Kill what the command line names; returns 1 if anything differed."""
    from methods import find, known

    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=known(), choices=known())
    parser.add_argument("--scenarios", nargs="+", default=["task", "class", "domain"])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--chance", type=int, default=0, help="seed of the moments")
    options = parser.parse_args()
    chance, total, different = random.Random(options.chance), 0, []
    for method in options.methods:
        for scenario in (name for name in find(method)[0].scenarios if name in options.scenarios):
            with tempfile.TemporaryDirectory() as folder:
                outcome = survive(method, scenario, options.kills, chance, Path(folder))
            total += outcome.kills
            different += [] if outcome.same else [f"{method} {scenario}"]
            print(f"{method:13} {scenario:7} {outcome.kills} kills: {'same bits' if outcome.same else 'DIFFERS'}")
    print(f"{total} kills survived; runs that differ from uninterrupted ones: {', '.join(different) or 'none'}")
    return bool(different)


if __name__ == "__main__":
    sys.exit(main())
