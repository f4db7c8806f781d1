"""Continual learning with invertible generative models: `python main.py files/prer_digits.yaml`."""

import gc
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # where `python -P` does not look

from utils.options import interrupted, parse
from utils.queue.screen import outlive_readers
from utils.run.signals import interruptible


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Modules are imported when they are needed: --help is quick."""
    options = parse(arguments)
    # Runs in parallel get much slower with more threads. A value set by the user wins; torch reads it on import.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    ended = partial(interrupted, sys.argv if arguments is None else ["main.py", *arguments])
    try:
        with interruptible(ended):
            return _run(options)
    except ModuleNotFoundError as error:
        if (Path(__file__).parent / str(error.name).partition(".")[0]).exists():  # one of ours
            raise
        hint = "activate its environment, or pip install -r requirements.txt"
        print(f"{sys.executable} has no package {error.name}: {hint}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        return ended(interruption)


def _run(options: Namespace) -> int:
    from utils.settings import BadInput

    try:
        if options.compare:
            from utils.report.compare import compare

            return compare(options.compare, options.out, options.columns)
        if options.verify:
            from utils.report.verify import verify

            return verify(options)
        from utils.queue.launch import launch

        return launch(options)
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    gc.set_threshold(20_000)  # imports make many objects and no garbage: collecting as often as usual costs a second
    outlive_readers()
    sys.exit(main())
