"""Seeds in parallel: how many times the throughput of one after the other, and whether the results are the same bits.

python bench/jobs.py files/naive_mnist.yaml --set train.epochs=2                4 seeds, --jobs 1 and 2, 5 rounds
"""

import os
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from statistics import median

if __name__ == "__main__":  # not bench/, whose profile.py would hide the standard library's
    sys.path[0] = str(Path(__file__).parent.parent)

from bench.kill import left_by
from bench.measuring import machine, markdown, run_ours, spread


def main() -> int:
    """Measure what the command line names; returns 1 if any bits differ."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="as main.py has it")
    parser.add_argument("--seeds", type=int, default=4, help="how many (4)")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2], help="at once (1 2)")
    parser.add_argument("--rounds", type=int, default=5, help="how often, alternating (5)")
    parser.add_argument("--data-root", type=Path, default=Path(os.environ.get("DATA_ROOT", "data")))
    options, on = parser.parse_args(), machine()  # the commit as it is now: another may come meanwhile
    seconds: dict[int, list[float]] = {jobs: [] for jobs in options.jobs}
    with tempfile.TemporaryDirectory() as temporary:
        folders = []
        for number in range(options.rounds):
            for jobs in options.jobs:
                folders.append(Path(temporary) / f"{number}-{jobs}")
                chosen = [
                    "--seeds",
                    f"0-{options.seeds - 1}",
                    "--jobs",
                    jobs,
                    "--data-root",
                    options.data_root.resolve(),
                ]
                measured = run_ours(options.config.resolve(), folders[-1], options.set, chosen)
                seconds[jobs].append(measured["end_to_end_s"])
        first = left_by(folders[0])
        same = all(left_by(folder) == first for folder in folders[1:])
    slowest = median(seconds[options.jobs[0]])
    rows = [[str(jobs), spread(s), f"{slowest / median(s):.2f}"] for jobs, s in seconds.items()]
    print(f"{on}\n")
    print(markdown(["--jobs", f"{options.seeds} seeds end to end, s", "throughput"], rows))
    print(f"\n{'the same bits' if same else 'BITS DIFFER'} in all {len(folders)} runs")
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
