"""`--compare`: finished runs -> tables on the screen and in files, and a page with figures."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.config.yaml_text import flatten
from utils.report import figures, tables
from utils.report.find import find
from utils.report.groups import Group, few, groups, protocol, shown
from utils.settings import BadInput
from utils.store.files import write_text


def compare(folders: Sequence[Path], out: Path) -> int:
    """Compare the finished runs in the folders: print the tables, write all files into `out`. Returns 0."""
    compared = groups(find(folders))
    print("\n\n".join(tables.section(group) for group in compared))
    page, notes = _page(compared)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    files = {
        "comparison.csv": tables.as_csv(compared),
        "comparison.md": tables.markdown(compared),
        "comparison.tex": tables.latex(compared),
        "comparison.json": json.dumps({"groups": [*map(tables.plain, compared)]}, indent=1, allow_nan=False) + "\n",
        "report.html": page,
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_text(out / name, text)
    except OSError as error:
        raise BadInput(f"--out {out}: cannot be written ({error}); choose another") from None
    print(f"\nwritten into {out}: {', '.join(files)}")
    return 0


def _page(compared: Sequence[Group]) -> tuple[str, list[str]]:
    """report.html, from the template of this name, and a note about each file that could not be used."""
    from jinja2 import StrictUndefined, Template
    from matplotlib import rc_context

    sections, notes = list[dict[str, Any]](), list[str]()
    for group in compared:
        read = [run.results() for run in group.runs]
        notes += [note for _, notes_of_run in read for note in notes_of_run]
        absent = [name for name, (found, damaged) in zip(group.names, read, strict=True) if not (found or damaged)]
        if absent:
            notes.append(f"{group.title}: no learning curves without final_results.pkl: {few(absent)}")
        settings = []  # those of the protocol that differ, and the method's that are not at their default
        for run in group.runs:
            own = run.config.method.model_dump(mode="json", exclude_defaults=True, exclude={"name", "plot"})
            differing = {key: run.settings.get(key) for key in protocol(group.runs)}
            settings.append([f"{key}={shown(value)}" for key, value in (differing | flatten(own)).items()])
        drawn = {"looks": figures.looks(group), "results": [found for found, _ in read]}
        sections.append({"group": group, "settings": settings, **drawn})
    text = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    template = Template(text, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    with rc_context(figures.STYLE):
        return template.render(sections=sections, notes=notes, figures=figures, tables=tables), notes
