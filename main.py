"""Continual learning with invertible generative models: `python main.py files/prer_digits.yaml`."""

import os
import shlex
import sys
from collections.abc import Sequence

from utils.options import parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parse(arguments)
    # The networks are small: one thread is as fast as two, and two runs side by side, whose waiting threads spin, took
    # several times as long as with one thread each. Whoever sets the variable decides. Read when torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from utils.settings import BadInput  # only now: --help answers at once

    try:
        if options.compare:
            from utils.comparison.compare import compare

            return compare(options.compare, options.out)
        from utils.launch import launch

        return launch(options)
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        command = shlex.join(["python", "main.py", *(sys.argv[1:] if arguments is None else arguments)])
        print(f"\ninterrupted{interruption}; to go on: {command}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
