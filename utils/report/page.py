"""A comparison as one HTML page that refers to no other file: the template report.html, filled in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.config.yaml_text import flatten
from utils.report import drawing, figures, tables
from utils.report.groups import REFERENCES, Group, differing, few, shown


def report(groups: Sequence[Group]) -> tuple[str, list[str]]:
    """The page, and a note about each file that could not be used."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    settings: dict[str, Any] = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, **settings)
    with drawing.style():
        sections = [_section(group) for group in groups]
    notes = [note for section in sections for note in section["unread"]]
    template = environment.get_template("report.html")
    total = sum(len(group.runs) for group in groups)
    page = template.render(sections=sections, notes=notes, total=total, columns=(tables.SCORES, tables.TESTS))
    return page, notes


def _section(group: Group) -> dict[str, Any]:
    """What the template needs to know of a group."""
    read = [run.results() for run in group.runs]
    results, unread = [found for found, _ in read], [note for _, notes in read for note in notes]
    absent = [name for name, (found, notes) in zip(group.names, read, strict=True) if not found and not notes]
    if absent:
        unread.append(f"{group.title}: no learning curves without final_results.pkl: {few(absent)}")
    samples, left_out = figures.samples(group)
    looks = figures.looks(group)
    others = [i for i, test in enumerate(group.tests) if test is not None]
    return {
        "group": group,
        "badges": [_badge(group, i) for i in range(len(group.runs))],
        "scores": [[tables.cell(column, group, i) for column in tables.SCORES] for i in range(len(group.runs))],
        "tests": [[tables.cell(column, group, i) for column in tables.TESTS] for i in others],
        "legend": [(name, drawing.swatch(look)) for name, look in zip(group.names, looks, strict=True)],
        "figures": figures.scores(group),
        "matrices": figures.matrices(group),
        "tasks": len(group.runs[0].score.test.accuracy_matrix.mean),
        "learning": figures.learning(group, results),
        "diagnostics": figures.diagnostics(group, results),
        "samples": samples,
        "settings": _settings(group),
        "unread": unread + left_out,
    }


def _badge(group: Group, i: int) -> str:
    if i == group.best:
        return "significantly best" if group.best_stands_out else "best"
    return "reference" if group.runs[i].method in REFERENCES else ""


def _settings(group: Group) -> dict[str, Any]:
    """The settings that differ: a column for those that all runs have; the others only where not at their default."""
    keys = [key for key in differing(group.runs) if key != "method.name"]
    shared = [key for key in keys if all(key in run.settings for run in group.runs)]
    rows = []
    for name, run in zip(group.names, group.runs, strict=True):
        varied = differing([other for other in group.runs if other.method == run.method])
        defaults = flatten({"method": type(run.config.method).model_construct().model_dump(mode="json")})
        own = [
            f"{key.removeprefix('method.')}={shown(value)}"
            for key, value in run.settings.items()
            if key in keys and key not in shared and (key in varied or value != defaults.get(key))
        ]
        rows.append((name, [shown(run.settings[key]) for key in shared], own, str(run.folder)))
    return {"columns": shared, "rows": rows}
