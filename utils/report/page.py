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
    from matplotlib import rc_context

    settings: dict[str, Any] = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, **settings)
    with rc_context(drawing.STYLE):
        sections = [_section(group) for group in groups]
    notes = [note for section in sections for note in section["unread"]]
    template = environment.get_template("report.html")
    total = sum(len(group.runs) for group in groups)
    page = template.render(
        sections=sections, notes=notes, total=total, references=REFERENCES, columns=(tables.SCORES, tables.TESTS)
    )
    return page, notes


def _section(group: Group) -> dict[str, Any]:
    """What the template needs to know of a group."""
    read = [run.results() for run in group.runs]
    results, unread = [found for found, _ in read], [note for _, notes in read for note in notes]
    absent = [name for name, (found, notes) in zip(group.names, read, strict=True) if not found and not notes]
    if absent:
        unread.append(f"{group.title}: no learning curves without final_results.pkl: {few(absent)}")
    looks = figures.looks(group)
    return {
        "group": group,
        "scores": [[tables.cell(column, row) for column in tables.SCORES] for row in group.rows],
        "tests": [[tables.cell(column, row) for column in tables.TESTS] for row in group.rows if row.paired],
        "legend": [(name, drawing.swatch(look)) for name, look in zip(group.names, looks, strict=True)],
        "figures": figures.scores(group, looks),
        "matrices": figures.matrices(group),
        "tasks": len(group.runs[0].test.accuracy_matrix.mean),
        "learning": figures.learning(looks, results),
        "diagnostics": figures.diagnostics(group, looks, results),
        "samples": figures.samples(group),
        "settings": _settings(group),
        "unread": unread,
    }


def _settings(group: Group) -> dict[str, Any]:
    """The settings that differ: a column for those that all runs have; the others only where not at their default."""
    keys = [key for key in differing(group.runs) if key != "method.name"]
    shared = [key for key in keys if all(key in run.settings for run in group.runs)]
    rows = []
    for name, run, *_ in group.rows:
        varied = differing([other for other in group.runs if other.method == run.method])
        defaults = flatten({"method": type(run.config.method).model_construct(name=run.method).model_dump(mode="json")})
        own = [
            f"{key.removeprefix('method.')}={shown(value)}"
            for key, value in run.settings.items()
            if key in keys and key not in shared and (key in varied or value != defaults.get(key))
        ]
        rows.append((name, [shown(run.settings[key]) for key in shared], own, str(run.folder)))
    return {"columns": shared, "rows": rows}
