"""`--compare`: finished runs -> a table on the screen, and files of it for papers, programs and people."""

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
