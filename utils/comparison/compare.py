"""`--compare`: finished runs -> a table on the screen, and files of it for papers, programs and people."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.comparison import tables
from utils.comparison.finished import find
from utils.comparison.groups import groups
from utils.comparison.report import report
from utils.files import write_text
from utils.settings import BadInput


def compare(folders: Sequence[Path], out: Path) -> int:
    """Compare the finished runs in the folders, print what comes out, and write it into `out`; returns the exit code.

    Raises:
        BadInput: no finished run there, one that cannot be read, or `out` cannot be written.
    """
    together = groups(find(folders))
    print("\n\n".join(tables.as_text(group) for group in together))
    page, notes = report(together)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    plain = {"groups": [tables.plain(group) for group in together]}
    files = {
        "comparison.csv": tables.as_csv(together),
        "comparison.tex": tables.as_latex(together),
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
