"""`--compare`: finished runs -> tables on the screen and in files, and a page with figures."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.report.find import find_readable, printable
from utils.report.groups import groups
from utils.report.page import confusion_csv, render
from utils.report.tables import IN_LATEX, as_csv, as_markdown, choose, latex, plain, section, side_by_side
from utils.settings import BadInput
from utils.store.files import write_text


def compare(folders: Sequence[Path], out: Path, columns: str | None = None) -> int:
    """Compare the finished runs in the folders: print the tables, write all files into `out`. Returns 0.

    `columns` names those of the tables. A run that cannot be read is left out with a note on stderr.

    Raises:
        BadInput: an unknown column; no run can be read; `out` cannot be written.
    """
    chosen = choose(columns) if columns is not None else None
    runs, notes = find_readable(folders)
    compared = groups(runs)
    print("\n\n".join(section(group, chosen) for group in compared))
    beside = side_by_side(compared)
    first = ["FinalAccuracy\n=============", as_markdown(beside)] if beside else []
    markdown = [*first, *(section(group, chosen, as_markdown) for group in compared)]
    tables = {
        "comparison.csv": as_csv(compared, chosen),
        "comparison.md": "\n\n".join(markdown) + "\n",
        "comparison.tex": latex(compared, chosen or IN_LATEX),
    }
    results = {run.folder: run.results() for run in runs}
    page, of_page = render(compared, results, notes, tables)
    for note in [*notes, *of_page]:
        print(f"note: {printable(note)}", file=sys.stderr)
    known = {"groups": [*map(plain, compared)]}
    files = {**tables, "comparison.json": json.dumps(known, indent=1, allow_nan=False) + "\n", "report.html": page}
    if confusion := confusion_csv(compared, results):
        files["confusion.csv"] = confusion
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "confusion.csv").unlink(missing_ok=True)  # of an earlier comparison
        for name, text in files.items():
            write_text(out / name, text)
    except OSError as error:
        raise BadInput(f"--out {out}: cannot be written ({error}); choose another") from None
    print(f"\nwritten into {printable(str(out))}: {', '.join(files)}")
    return 0
