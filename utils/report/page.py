"""report.html, from the template of this name, and the counts of confusion as CSV."""

import csv
import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.config.yaml_text import flatten
from utils.report import figures, svg
from utils.report.find import FinishedRun, Results, printable, total_confusion
from utils.report.groups import Group, differing, few, protocol, shown
from utils.report.tables import MORE, SCORES, TESTS, cell, filled
from utils.settings import BadInput
from utils.store.folder import provenance_of
from utils.store.metrics import plus_minus

Read = Mapping[Path, tuple[list[Results], list[str]]]  # folder of a run -> its `results()`
TYPES = {".csv": "text/csv", ".md": "text/markdown", ".tex": "application/x-tex"}


def render(
    compared: Sequence[Group], results: Read, left_out: Sequence[str], files: Mapping[str, str]
) -> tuple[str, list[str]]:
    """The page, and a note about each file that could not be used; `files` can be downloaded from it.

    `left_out`: notes on runs that could not be read, which the page has too.
    """
    from jinja2 import StrictUndefined, Template
    from matplotlib import rc_context

    sections, notes = list[dict[str, Any]](), list[str]()
    for group in compared:
        read = [results[run.folder] for run in group.runs]
        samples, damaged = figures.samples(group)
        notes += [note for _, of_run in read for note in of_run] + damaged
        absent = [row.name for row, (found, unusable) in zip(group.rows, read, strict=True) if not (found or unusable)]
        if absent:
            notes.append(f"{group.title}: no learning curves without final_results.pkl: {few(absent)}")
        made, unknown = _provenance(group)
        notes += unknown
        settings = {"shared": _shared(group.runs), "own": [_own(group, run) for run in group.runs], "made": made}
        drawn = {"looks": figures.looks(group), "samples": samples, "results": [found for found, _ in read]}
        sections.append({"group": group, "settings": settings, **drawn})
    text = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    template = Template(text, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    links = {
        name: f"data:{TYPES[Path(name).suffix]};base64,{b64encode(t.encode()).decode()}" for name, t in files.items()
    }
    tables = {
        "scores": SCORES,
        "more": MORE,
        "tests": TESTS,
        "cell": cell,
        "score": plus_minus,
        "filled": filled,
        "shown": shown,
        "links": links,
    }
    told = [printable(note) for note in (*left_out, *notes)]
    with rc_context(svg.STYLE):
        return template.render(sections=sections, notes=told, figures=figures, svg=svg, tables=tables), notes


def _shared(runs: Sequence[FinishedRun]) -> list[str]:
    """The settings that all runs share and that are no options of the method."""
    varied = differing(runs)
    shared = {key: value for key, value in runs[0].settings.items() if key not in varied and value is not None}
    return [f"{key}={shown(value)}" for key, value in shared.items() if not key.startswith("method.")]


def _own(group: Group, run: FinishedRun) -> list[str]:
    """The run's values of the protocol where it differs in the group, and of its method's options not at default."""
    own = run.config.method.model_dump(mode="json", exclude_defaults=True, exclude={"name", "plot", "plot_format"})
    varied = {key: run.settings.get(key) for key in protocol(group.runs)}
    return [f"{key}={shown(value)}" for key, value in (varied | flatten(own)).items() if value != {}]


def _provenance(group: Group) -> tuple[list[tuple[str, str]], list[str]]:
    """What the seeds were made with, in words, and the runs of it; and notes on files that are damaged."""
    made, notes = dict[str, list[str]](), list[str]()
    for row in group.rows:
        for seed in row.run.score.seeds:
            try:
                words = str(provenance_of(row.run.folder, seed) or "unknown versions (no provenance.yml)")
            except BadInput as error:
                notes.append(str(error))
                words = "unknown versions (provenance.yml is damaged)"
            having = made.setdefault(printable(words), [])
            having += [row.name] * (row.name not in having)
    notes = [*dict.fromkeys(notes)]
    return [(words, few(names) if len(names) < len(group.runs) else "all runs") for words, names in made.items()], notes


def confusion_csv(compared: Sequence[Group], results: Read) -> str:
    """Test images by run, true and predicted class, added over seeds; empty if no run has its final results."""
    text = io.StringIO()
    writer, rows = csv.writer(text, lineterminator="\n"), 0
    writer.writerow(["group", "run", "true", "predicted", "count"])
    for group in compared:
        for name, run in zip(group.names, group.runs, strict=True):
            counts, classes = total_confusion(results[run.folder][0])
            names = [printable(label) for label in classes]
            for (true, predicted), count in np.ndenumerate(counts):
                writer.writerow([group.title, name, names[true], names[predicted], count])
            rows += counts.size
    return text.getvalue() if rows else ""
