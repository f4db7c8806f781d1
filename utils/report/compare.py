"""`--compare`: finished runs -> tables on the screen and in files, and a page with figures."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.report import tables
from utils.report.find import find
from utils.report.groups import groups
from utils.report.page import report
from utils.settings import BadInput
from utils.store.files import write_text


def compare(folders: Sequence[Path], out: Path) -> int:
    """Compare the finished runs in the folders: print the tables and write all files into `out`. Returns the exit code.

    Raises:
        BadInput: a folder has no finished run, a run cannot be read, or `out` cannot be written.
    """
    compared = groups(find(folders))
    print("\n\n".join(tables.section(group, "text") for group in compared))
    page, notes = report(compared)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    plain = {"groups": [tables.plain(group) for group in compared]}
    files = {
        "comparison.csv": tables.as_csv(compared),
        "comparison.md": tables.markdown(compared),
        "comparison.tex": tables.latex(compared),
        "comparison.json": json.dumps(plain, indent=1, allow_nan=False) + "\n",
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
