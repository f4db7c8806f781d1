"""The command line's options. Imports nothing heavy: --help answers at once."""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from utils.paths import expanded


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage."""
        self.exit(2, f"{self.prog}: {message}; --help lists the options\n")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's options; exits with 2 on a mistake in them."""
    parser = _Parser(
        prog="main.py",
        allow_abbrev=False,
        description="Run continual-learning experiments written as YAML files; run the same line again to resume.",
        epilog="exit codes: 0 done, 1 a run failed, 2 bad input and nothing run, 130 interrupted and resumable",
    )
    try:
        os.getcwd()
    except OSError:
        parser.exit(2, "the working directory does not exist any more; change to another: cd DIR\n")
    add = parser.add_argument
    add("configs", nargs="*", default=[], metavar="CONFIG", type=path, help="YAML file, see files/")
    add("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="override, e.g. train.epochs=2")
    add("--seeds", type=seeds, help="0-4 or 0,3 instead of the config's `experiments`")
    add("--backend", choices=("local", "ray", "slurm"), default="local", help="where seeds run; see docs/cluster.md")
    add("--jobs", type=jobs, metavar="N|auto", help="run seeds and files in parallel; auto: as many as fit")
    add("--device", help="auto, cpu, cuda or cuda:1 instead of the config's")
    add("--cuda", "--gpu", dest="device", type="cuda:{}".format, metavar="N", help="the same as --device cuda:N")
    add("--name", type=run_name, metavar="TEXT", help="what {name} in the config's save_path stands for")
    add(
        "--data-root",
        type=path,
        metavar="DIR",
        help="where data sets are; else $DATA_ROOT, the config's data_root, ./data",
    )
    add("--check", action="store_true", help="validate and explain, run nothing")
    add("--restart", action="store_true", help="move an existing run aside instead of resuming it")
    add("--compare", nargs="+", type=path, metavar="PATH", help="run nothing: tables, tests, a report of finished runs")
    add("--out", type=path, metavar="DIR", default=Path("comparison"), help="where --compare writes; ./comparison")
    add("--columns", metavar="NAME,NAME", help="with --compare: the tables' columns, e.g. FinalAccuracy,Forgetting")
    add("--verify", nargs="+", type=path, metavar="PATH", help="repeat the first seed, or --seeds, of finished runs")
    add("--tasks", type=int, metavar="N", help="with --verify: only the first N tasks")
    options = parser.parse_intermixed_args(arguments)
    files = [text for text in options.set if os.path.isfile(text) or re.fullmatch(r"[^=]+\.ya?ml", text)]
    options.set = [text for text in options.set if text not in files]  # --set KEY=VALUE CONFIG: it took the CONFIG, too
    options.configs = [*options.configs, *map(path, files)]
    given = {name for name, value in vars(options).items() if value != parser.get_default(name)}
    for what, beside in (("compare", {"out", "columns"}), ("verify", {"tasks", "seeds", "device", "data_root"})):
        if what in given and (others := sorted(given - {what} - beside)):
            parser.error(f"--{what} runs no experiment: leave out {', '.join(others)}")
    if not given & {"configs", "compare", "verify"}:
        parser.error("what to do? give a CONFIG to run, --compare PATH, or --verify PATH")
    for name, what in (("out", "compare"), ("columns", "compare"), ("tasks", "verify")):
        if name in given and what not in given:
            parser.error(f"--{name} is for --{what}")
    if options.jobs is None:
        options.jobs = 1 if options.backend == "local" else 0
    if options.device and not re.fullmatch(r"auto|cpu|cuda(:\d+)?", options.device):
        parser.error(f"--device {options.device}: expected auto, cpu, cuda or cuda:N")
    if options.tasks is not None and options.tasks < 1:
        parser.error(f"--tasks {options.tasks}: expected 1 or more")
    return options


def interrupted(command: Sequence[str], interruption: KeyboardInterrupt) -> int:
    """Print how to resume or repeat this command line, the program first; returns the exit code."""
    python = sys.executable.removeprefix(f"{os.getcwd()}/")
    again = shlex.join([python, *(word for word in command if word != "--restart")])
    purpose = "run again" if "--verify" in command else "resume"
    print(f"\ninterrupted{interruption}; to {purpose}: {again}", file=sys.stderr, flush=True)
    return 130


def path(text: str) -> Path:
    """A path, with ~ and $VAR replaced: the shell leaves them in --out=~/x."""
    try:
        return Path(expanded(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run_name(text: str) -> str:
    """A name that can be part of a folder's."""
    if not re.fullmatch(r"\w[\w.+-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected letters, digits and . _ + - only")
    return text


def seeds(text: str) -> tuple[int, ...]:
    """Seeds written as "0-4", "0,3" or both, without repetition."""
    found: list[int] = []
    for part in text.split(","):
        if not (match := re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)):
            raise argparse.ArgumentTypeError(f"{text!r} is not like 0-4 or 0,3")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first > 10_000:
            raise argparse.ArgumentTypeError(f"{text!r}: {part} is not a range")
        found += [seed for seed in range(first, last + 1) if seed not in found]
    return tuple(found)


def jobs(text: str) -> int:
    """A number of jobs; 0 for "auto"."""
    if text != "auto" and not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of jobs, or auto")
    return 0 if text == "auto" else int(text)
