"""A comparison as one HTML page that needs no other file and no network: the template report.html, filled in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from utils.config.yaml_text import flatten
from utils.report import charts, figures, tables
from utils.report.find import Summary
from utils.report.groups import REFERENCES, Group, differing, shown


class Cell(NamedTuple):
    """A cell of a table that can be sorted: what is shown, what is sorted by, a second line."""

    text: str
    key: str | float | None
    below: str = ""


def report(groups: Sequence[Group]) -> tuple[str, list[str]]:
    """The page, and a line about everything that should be in it and could not be read."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections, notes = [], []
    for group in groups:
        section, of_group = _section(group)
        sections.append(section)
        notes += of_group
    runs = [run for group in groups for run in group.runs]
    page = environment.get_template("report.html").render(
        sections=sections, notes=notes, runs=runs, references=REFERENCES
    )
    return page, notes


def _section(group: Group) -> tuple[dict[str, Any], list[str]]:
    """What the template needs to know of a group, and notes about its files."""
    results, notes = [], []
    for run in group.runs:
        of_run, missing = run.results()
        results.append(of_run)
        notes += missing
    pictures, left_out = figures.pictures(group)
    looks = figures.looks(group)
    section = {
        "group": group,
        "columns": tables.COLUMNS,
        "rows": [_row(group, i) for i in range(len(group.runs))],
        "tests": _tests(group),
        "legend": [(name, charts.swatch(look)) for name, look in zip(group.names, looks, strict=True)],
        "scores": figures.scores(group),
        "matrices": figures.matrices(group),
        "tasks": len(group.runs[0].score.test.accuracy_matrix.mean),
        "learning": figures.learning(group, results),
        "health": figures.health(group, results),
        "pictures": pictures,
        "settings": _settings(group),
    }
    return section, notes + left_out


def _row(group: Group, i: int) -> list[Cell]:
    """A run's cells: the columns, the normalised score behind the first, the number of seeds at the end."""
    run, cells = group.runs[i], []
    for column in tables.COLUMNS:
        value = column.of(run)
        if isinstance(value, Summary):
            around = tables.interval(value, column.digits)
            cells.append(Cell(tables.cell(column, run), value.mean, "" if around == "-" else around))
        else:
            cells.append(Cell(tables.cell(column, run), value))
    seeds, between = len(run.score.seeds), group.normalised[i]
    return [cells[0], Cell(tables.number(between, 3), between), *cells[1:], Cell(str(seeds), seeds)]


def _tests(group: Group) -> list[tuple[list[str], str]]:
    """Rows of the paired tests, each with what it comes to."""
    verdicts = [test.verdict for test in group.tests if test is not None]
    return list(zip(tables.tests_table(group)[1:], verdicts, strict=True))


def _settings(group: Group) -> dict[str, Any]:
    """The settings that differ: those that all runs have, a column each; of a method's own, those that were chosen."""
    keys = [key for key in differing(group.runs) if key != "method.name"]
    shared = [key for key in keys if all(key in run.settings for run in group.runs)]
    rows = []
    for name, run in zip(group.names, group.runs, strict=True):
        varied = differing([other for other in group.runs if other.method == run.method])
        defaults = flatten({"method": type(run.config.method).model_construct().model_dump(mode="json")})
        own = [
            (key, shown(value))
            for key, value in run.settings.items()
            if key in keys and key not in shared and (key in varied or value != defaults.get(key))
        ]
        rows.append((name, str(run.folder), [shown(run.settings[key]) for key in shared], own))
    return {"columns": shared, "rows": rows}
