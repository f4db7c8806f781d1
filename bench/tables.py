"""Markdown tables for README.md and REPRODUCIBILITY.md, from finished results folders.

python bench/tables.py results/digits/*                       FinalAccuracy, BWT and seconds
python bench/tables.py --side-by-side study/*/*/              FinalAccuracy: a row a method, a column a folder
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
    if abs(ours - published) <= ALLOWED[scenario]:
        return "matches"
    return "better" if ours > published else "misses"


def split_mnist(scores: list[dict]) -> list[str]:
    """Rows beside the published figures, in their order, then methods for which there is none, best first.

    Scenarios without published figures are left out.
    """
    rows = ["| method | scenario | seeds | ours | published | difference | verdict |", "| --- " * 7 + "|"]
    scenarios, methods = list(ALLOWED), list(PUBLISHED)

    def place(score: dict) -> tuple[int, int, float]:
        known = methods.index(score["method"]) if score["method"] in methods else len(methods)
        return scenarios.index(score["scenario"]), known, -score["test"]["FinalAccuracy"]["mean"]

    for score in sorted((score for score in scores if score["scenario"] in scenarios), key=place):
        method, scenario, final = score["method"], score["scenario"], score["test"]["FinalAccuracy"]
        cells = [method, scenario, str(len(score["seeds"])), percent(final), "none", "", ""]
        if method in PUBLISHED:
            figure = PUBLISHED[method][scenarios.index(scenario)]
            ours, published = 100 * final["mean"], float(figure.removeprefix("~").split()[0])
            cells[4:] = [figure, f"{ours - published:+.1f}", verdict(method, scenario, ours, published)]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def plain(scores: list[dict]) -> list[str]:
    """A row each, best first within a scenario."""
    rows = ["| scenario | method | seeds | FinalAccuracy | BWT | s a seed |", "| --- " * 6 + "|"]
    for score in sorted(scores, key=lambda s: (s["scenario"], -s["test"]["FinalAccuracy"]["mean"])):
        final, bwt = score["test"]["FinalAccuracy"], score["test"]["BWT"]
        cells = [score["scenario"], score["method"], str(len(score["seeds"])), percent(final)]
        cells += [f"{100 * bwt['mean']:+.2f}", f"{score['time']['total_s']['mean']:.0f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def side_by_side(scores: list[dict], problems: list[str]) -> list[str]:
    """FinalAccuracy in %: a row a method, best first by its last problem, those that store real images at the end.

    Args:
        scores: one for each run.
        problems: the name of each run's problem, a column each.
    """
    columns, methods = list(dict.fromkeys(problems)), list(dict.fromkeys(score["method"] for score in scores))
    runs = {(score["method"], problem): score for score, problem in zip(scores, problems, strict=True)}
    stores = {score["method"]: score["memory"]["stored_real_samples"] > 0 for score in scores}
    last = {method: [runs[method, column] for column in columns if (method, column) in runs][-1] for method in methods}
    rows = [f"| method | stores images | {' | '.join(columns)} |", "| --- " * (2 + len(columns)) + "|"]
    for method in sorted(methods, key=lambda name: (stores[name], -last[name]["test"]["FinalAccuracy"]["mean"])):
        found = [runs.get((method, column)) for column in columns]
        cells = [percent(run["test"]["FinalAccuracy"]) if run else "" for run in found]
        rows.append(f"| `{method}` | {'yes' if stores[method] else 'no'} | {' | '.join(cells)} |")
    return rows


def percent(final: dict) -> str:
    """A score in %: mean ± standard deviation over seeds."""
    return f"{100 * final['mean']:.2f} ± {100 * (final['std'] or 0):.2f}"


def main() -> int:
    """Print the table of the folders named on the command line."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--split-mnist", action="store_true")
    kinds.add_argument("--side-by-side", action="store_true")
    options = parser.parse_args()
    files = [folder / "final_score.json" for folder in options.folders]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        print(f"no finished results: {', '.join(missing)}; run main.py first", file=sys.stderr)
        return 2
    scores = [json.loads(file.read_text()) for file in files]
    if options.side_by_side:
        rows = side_by_side(scores, [folder.resolve().parent.name for folder in options.folders])
    else:
        rows = split_mnist(scores) if options.split_mnist else plain(scores)
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
