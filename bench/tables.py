"""Markdown tables for REPRODUCIBILITY.md, from finished results folders.

python bench/tables.py results/digits/*                       FinalAccuracy, BWT and seconds
python bench/tables.py --split-mnist results/split_mnist/*/*  beside the published figures, with a verdict
"""

import json
import sys
from argparse import ArgumentParser
from pathlib import Path

PUBLISHED = {
    "naive": ("84.32 ± .99", "19.89 ± .02"),
    "joint": ("99.67 ± .03", "98.17 ± .04"),
    "ewc": ("99.06 ± .15", "20.64 ± .52"),
    "si": ("~99.2", "21.20 ± .57"),
    "lwf": ("99.60 ± .03", "21.89 ± .32"),
    "replay": ("~99.0", "88.79 ± .20"),
    "gem": ("98.42 ± .10", "92.20 ± .12"),
    "agem": ("98.54 ± .10", "65.10 ± 3.64"),
    "dgr": ("~99.5", "~90.4"),
}
"""Task and class scenario, %: van de Ven, Tuytelaars and Tolias, Nature Machine Intelligence 2022, Table 2 (± standard
error of 20 seeds; ~ from memory); gem: Hsu et al., 2018, arXiv 1810.12488."""
ALLOWED = {"task": 3.0, "class": 5.0}
"""Points between ours and the published figure."""


def verdict(method: str, scenario: str, ours: float, published: float) -> str:
    """What a row comes to, in words."""
    if (method, scenario) == ("agem", "class"):
        return "report only"
    if (method, scenario) == ("dgr", "class"):
        return "reaches 85" if ours >= 85 else "misses 85"
    return "matches" if abs(ours - published) <= ALLOWED[scenario] else "misses"


def split_mnist(scores: list[dict]) -> list[str]:
    """Rows beside the published figures, in their order."""
    rows = ["| method | scenario | seeds | ours | published | difference | verdict |", "| --- " * 7 + "|"]
    for column, scenario in enumerate(ALLOWED):
        for method, figures in PUBLISHED.items():
            for score in scores:
                if (score["method"], score["scenario"]) != (method, scenario):
                    continue
                final = score["test"]["FinalAccuracy"]
                ours, spread = 100 * final["mean"], 100 * (final["std"] or 0)
                published = float(figures[column].removeprefix("~").split()[0])
                cells = [method, scenario, str(len(score["seeds"])), f"{ours:.2f} ± {spread:.2f}", figures[column]]
                cells += [f"{ours - published:+.1f}", verdict(method, scenario, ours, published)]
                rows.append(f"| {' | '.join(cells)} |")
    return rows


def plain(scores: list[dict]) -> list[str]:
    """A row each, best first within a scenario."""
    rows = ["| scenario | method | seeds | FinalAccuracy | BWT | s a seed |", "| --- " * 6 + "|"]
    for score in sorted(scores, key=lambda s: (s["scenario"], -s["test"]["FinalAccuracy"]["mean"])):
        final, bwt = score["test"]["FinalAccuracy"], score["test"]["BWT"]
        spread = 100 * (final["std"] or 0)
        cells = [
            score["scenario"],
            score["method"],
            str(len(score["seeds"])),
            f"{100 * final['mean']:.2f} ± {spread:.2f}",
        ]
        cells += [f"{100 * bwt['mean']:+.2f}", f"{score['time']['total_s']['mean']:.0f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def main() -> int:
    """Print the table of the folders named on the command line."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--split-mnist", action="store_true")
    options = parser.parse_args()
    files = [folder / "final_score.json" for folder in options.folders]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        print(f"no finished results: {', '.join(missing)}; run main.py first", file=sys.stderr)
        return 2
    scores = [json.loads(file.read_text()) for file in files]
    print("\n".join(split_mnist(scores) if options.split_mnist else plain(scores)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
