"""Continual learning with invertible generative models: `python main.py files/prer_digits.yaml`."""

import gc
import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial

from utils.options import parse
from utils.queue.screen import outlive_readers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parse(arguments)
    # The networks are small: one thread is as fast as two, and two runs side by side, whose waiting threads spin, took
    # several times as long as with one thread each. Whoever sets the variable decides. Read when torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from utils.settings import BadInput

    try:
        run = _imported(options)
        if not gc.isenabled():  # this program was started, not called: see below
            gc.freeze()
            gc.enable()
        return run()
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        command = shlex.join(["python", "main.py", *(sys.argv[1:] if arguments is None else arguments)])
        print(f"\ninterrupted{interruption}; to go on: {command}", file=sys.stderr)
        return 130


def _imported(options: Namespace) -> Callable[[], int]:
    """What the options ask for. Imported only now: --help answers at once."""
    if options.compare:
        from utils.report.compare import compare

        return partial(compare, options.compare, options.out)
    if options.verify:
        from utils.report.verify import verify

        return partial(verify, options)
    from utils.queue.launch import launch

    return partial(launch, options)


if __name__ == "__main__":
    # Importing torch makes hundreds of thousands of objects. None is garbage, then or at the end: a second less in all.
    gc.disable()
    outlive_readers()
    code = main()
    gc.freeze()
    sys.exit(code)
