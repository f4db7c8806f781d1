"""`--compare`: finished runs -> tables on the screen and in files, and a page with figures."""

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from utils.config.yaml_text import flatten
from utils.report import figures
from utils.report.find import find
from utils.report.groups import Group, Row, few, grouped, groups, protocol, shown
from utils.report.statistics import LEVEL
from utils.settings import BadInput
from utils.store import metrics
from utils.store.files import write_text
from utils.store.metrics import plus_minus

ESCAPED = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": "\\textbackslash{}", "~": "\\~{}", "^": "\\^{}", "±": "$\\pm$"}
)
Table = list[list[str]]  # rows of cells, the header first


class Column(NamedTuple):
    """A column of a table with a row per run; `value` takes the `Row`. Without it, the score of this title."""

    title: str
    meaning: str
    value: Callable[[Any], Any] | None = None
    form: str = ".4f"

    def of(self, row: Row) -> Any:
        """A number, a `metrics.Summary`, text, or None."""
        return self.value(row) if self.value else row.run.score.scores.get(self.title)


RUN = Column("run", "the method, and the settings in which its runs differ", lambda row: row.name)
OWN = {"FinalAccuracy", "BWT", "Forgetting", "FWT", "TotalAccuracy", "BackwardTransfer", "LastBackwardTransfer", "F1"}
"""The program's own scores, of which the tables have four; of those that a user adds they have all."""
SCORES = (
    RUN,
    Column("seeds", "number of seeds", lambda row: len(row.run.score.seeds)),
    Column("FinalAccuracy", "mean accuracy on all tasks after the last"),
    Column("± 95%", "half-width of its 95% confidence interval", lambda row: row.run.score.final["ci95"]),
    Column("normalised", "FinalAccuracy between naive (0) and joint (1)", lambda row: row.normalised),
    Column("BWT", "backward transfer: final accuracy minus that right after a task"),
    Column("Forgetting", "best earlier accuracy minus final accuracy of a task"),
    Column("FWT", "forward transfer: accuracy before a task minus initial accuracy"),
    *(Column(name, str(f.__doc__).splitlines()[0]) for name, f in metrics.SCORES.items() if name not in OWN),
    Column("seconds", "total time per seed", lambda row: row.run.score.seconds, ".1f"),
    Column("memory", "numbers that the method stores between tasks", lambda row: row.run.score.memory),
    Column("stored", "real samples that the method stores", lambda row: row.run.score.stored),
)
TESTS = (
    RUN,
    Column("the best is", f"by the Holm-corrected t-test, p < {LEVEL}", lambda row: row.paired.verdict),
    Column("pairs", "number of seeds that both runs have", lambda row: row.paired.seeds),
    Column("difference", "mean FinalAccuracy of the best minus that of the run", lambda row: row.paired.difference),
    Column("± 95%", "half-width of its 95% confidence interval", lambda row: row.paired.ci95),
    Column("d_z", "effect size: mean over standard deviation of the differences", lambda row: row.paired.effect, ".2f"),
    Column("t-test p", "paired t-test, two-sided", lambda row: row.paired.t, ".2g"),
    Column("t-test p, Holm", "the same, corrected for the number of comparisons", lambda row: row.paired.t_holm, ".2g"),
    Column("Wilcoxon p", "Wilcoxon signed-rank test, two-sided", lambda row: row.paired.wilcoxon, ".2g"),
    Column("Wilcoxon p, Holm", "the same, corrected", lambda row: row.paired.wilcoxon_holm, ".2g"),
)


def compare(folders: Sequence[Path], out: Path) -> int:
    """Compare the finished runs in the folders: print the tables, write all files into `out`. Returns 0."""
    compared = groups(find(folders))
    print("\n\n".join(section(group) for group in compared))
    page, notes = _page(compared)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    beside = side_by_side(compared)
    first = ["FinalAccuracy\n=============", _as_markdown(beside)] if beside else []
    files = {
        "comparison.csv": as_csv(compared),
        "comparison.md": "\n\n".join([*first, *(section(group, _as_markdown) for group in compared)]) + "\n",
        "comparison.tex": latex(compared),
        "comparison.json": json.dumps({"groups": [*map(plain, compared)]}, indent=1, allow_nan=False) + "\n",
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
        samples, damaged = figures.samples(group)
        notes += [note for _, of_run in read for note in of_run] + damaged
        absent = [row.name for row, (found, unusable) in zip(group.rows, read, strict=True) if not (found or unusable)]
        if absent:
            notes.append(f"{group.title}: no learning curves without final_results.pkl: {few(absent)}")
        settings = []  # those of the protocol that differ, and the method's that are not at their default
        for run in group.runs:
            own = run.config.method.model_dump(mode="json", exclude_defaults=True, exclude={"name", "plot"})
            differing = {key: run.settings.get(key) for key in protocol(group.runs)}
            settings.append([f"{key}={shown(value)}" for key, value in (differing | flatten(own)).items()])
        drawn = {"looks": figures.looks(group), "samples": samples, "results": [found for found, _ in read]}
        sections.append({"group": group, "settings": settings, **drawn})
    text = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    template = Template(text, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    tables = {"scores": SCORES, "tests": TESTS, "cell": cell}
    with rc_context(figures.STYLE):
        return template.render(sections=sections, notes=notes, figures=figures, tables=tables), notes


def cell(column: Column, row: Row) -> tuple[str, float | str | None]:
    """A cell's text and its sort key."""
    value = column.of(row)
    if isinstance(value, dict):
        return plus_minus(value, digits=int(column.form[1])), value["mean"]
    if isinstance(value, float):
        return f"{value:{column.form}}", value
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else value, value


def _table(columns: Sequence[Column], rows: Sequence[Row]) -> Table:
    return [[column.title for column in columns], *([cell(column, row)[0] for column in columns] for row in rows)]


def _as_text(rows: Table) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return "\n".join("  ".join(row) for row in aligned)


def _as_markdown(rows: Table) -> str:
    ruled = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(text.replace('|', '/') for text in row)} |" for row in ruled)


def section(group: Group, render: Callable[[Table], str] = _as_text) -> str:
    """A group as printed and as in comparison.md: scores, tests, verdict, notes."""
    parts = [f"{group.title}\n{'=' * len(group.title)}", render(_table(SCORES, group.rows))]
    if others := [row for row in group.rows if row.paired]:
        parts += [f"{group.names[group.best]} minus the others, paired by seed:", render(_table(TESTS, others))]
    notes = "\n".join(f"- note: {note}" for note in group.notes)
    return "\n\n".join(part for part in (*parts, group.verdict, notes) if part)


def side_by_side(groups: Sequence[Group]) -> Table:
    """FinalAccuracy: a row per method, a column per learning problem and protocol; empty if there is only one column.

    Methods that store real images come last; in each part, the highest of the lowest scores comes first.
    """
    columns = {}
    for group in groups:
        keys = protocol(group.runs)
        for part in grouped(group.runs, keys):
            heading = [group.title, *(f"{key}={shown(part.runs[0].settings.get(key))}" for key in keys)]
            columns[", ".join(heading)] = {row.name: row.run.score for row in part.rows}
    if len(columns) < 2:
        return []
    lines = list[tuple[bool, float, list[str]]]()
    for name in dict.fromkeys(name for column in columns.values() for name in column):
        scores = [column.get(name) for column in columns.values()]
        stores = any(score.stored for score in scores if score)
        cells = [plus_minus(score.final) if score else "" for score in scores]
        lines.append((stores, -min(score.mean for score in scores if score), [name, "yes" if stores else "no", *cells]))
    return [["method", "stores images", *columns], *(cells for _, _, cells in sorted(lines, key=lambda line: line[:2]))]


def latex(groups: Sequence[Group]) -> str:
    """comparison.tex: a tabular per group; the best is bold only if it is significantly better than all others."""
    text = f"% needs \\usepackage{{booktabs}}; bold: better than all but joint (paired t-test, Holm, p < {LEVEL})\n"
    for group in groups:
        cells = [[*map(_as_latex, row)] for row in _table(SCORES, group.rows)]
        if group.best_stands_out:
            best = cells[1 + group.best]
            best[2] = f"$\\mathbf{{{best[2].strip('$')}}}$"
        head, *body = (" & ".join(row) + " \\\\" for row in cells)
        begin = [f"% {group.title}", f"\\begin{{tabular}}{{l{'r' * (len(SCORES) - 1)}}}", "\\toprule"]
        text += "\n".join([*begin, head, "\\midrule", *body, "\\bottomrule", "\\end{tabular}", ""])
    return text


def _as_latex(text: str) -> str:
    if re.match(r"-?\d", text):
        marked = text.replace("±", "\\pm").replace(",", "{,}")
        return f"${marked}$"
    return "--" if text == "-" else text.translate(ESCAPED)


def plain(group: Group) -> dict[str, Any]:
    """Everything known of a group, as in comparison.json."""
    runs = []
    for row in group.rows:
        about = {"name": row.name, "method": row.run.method, "folder": str(row.run.folder)}
        known = {column.title: column.of(row) for column in SCORES[1:] if column.title != "± 95%"}
        known |= {"seeds": row.run.score.seeds, "best_minus_this": row.paired and row.paired._asdict()}
        runs.append(about | known)
    summary = {"title": group.title, "problem": group.runs[0].problem, "best": group.names[group.best]}
    verdict = {"best_stands_out": group.best_stands_out, "verdict": group.verdict}
    return {**summary, **verdict, "notes": group.notes, "runs": runs}


def as_csv(groups: Sequence[Group]) -> str:
    """comparison.csv: a row per run, the columns with dotted names: FinalAccuracy.mean, best_minus_this.t_holm."""
    runs = [(group.title, run) for group in groups for run in plain(group)["runs"]]
    flat = [{"group": group, **flatten(run), "seeds": " ".join(map(str, run["seeds"]))} for group, run in runs]
    keys = dict.fromkeys(key for row in flat for key in row if not key.endswith((".values", "best_minus_this")))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[*keys], *([row.get(key) for key in keys] for row in flat)])
    return text.getvalue()
