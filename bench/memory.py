"""The memory of methods as a figure: numbers held after each task (classifier, method, stored pixels), from results.

python bench/memory.py results/digits/* --out memory.png
"""

import sys
from argparse import ArgumentParser
from pathlib import Path

if __name__ == "__main__":  # not bench/, whose profile.py would hide the standard library's
    sys.path[0] = str(Path(__file__).parent.parent)

from utils.run.figures import over_tasks
from utils.store.files import write_bytes
from utils.store.folder import finished_runs


def held(folder: Path) -> tuple[str, list[tuple[int, float]]] | None:
    """The method's name, and (task, millions of numbers held after it) of its first finished seed."""
    runs = finished_runs(folder)
    if not runs:
        return None
    results = next(iter(runs.values()))
    sums = [memory["learner_parameters"] + memory["method_floats"] for memory in results["memory_by_task"]]
    return results["config"]["method"]["name"], [(task, value / 1e6) for task, value in enumerate(sums)]


def main() -> int:
    """Draw the figure of the folders named on the command line."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("memory.png"))
    options = parser.parse_args()
    lines = dict(line for folder in options.folders if (line := held(folder)))
    if not lines:
        print("no finished results in these folders; run main.py first", file=sys.stderr)
        return 2
    meaning = "numbers held: classifier, method, stored pixels (millions)"
    write_bytes(options.out, over_tasks(lines, "Memory held between tasks", meaning, scale="log"))
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
