"""Comparisons as tables: one list of columns per table, one writer for text, Markdown and LaTeX."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from utils.config.yaml_text import flatten
from utils.report.find import Summary
from utils.report.groups import Group, Row, grouped, protocol, shown
from utils.report.statistics import LEVEL
from utils.store.metrics import plus_minus

ESCAPED = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": "\\textbackslash{}", "~": "\\~{}", "^": "\\^{}", "±": "$\\pm$"}
)
Table = list[list[str]]  # rows of cells, the header first


class Column(NamedTuple):
    """A column of a table with a row per run; `value` takes the `Row`."""

    title: str
    meaning: str
    value: Callable[[Any], Summary | float | str | None]
    form: str = ".4f"


RUN = Column("run", "the method, and the settings in which its runs differ", lambda row: row.name)
SCORES = (
    RUN,
    Column("seeds", "number of seeds", lambda row: len(row.run.score.seeds)),
    Column("FinalAccuracy", "mean accuracy on all tasks after the last", lambda row: row.run.score.FinalAccuracy),
    Column("± 95%", "half-width of its 95% confidence interval", lambda row: row.run.score.FinalAccuracy.ci95),
    Column("normalised", "FinalAccuracy between naive (0) and joint (1)", lambda row: row.normalised),
    Column("BWT", "backward transfer: final accuracy minus that right after a task", lambda row: row.run.score.BWT),
    Column("Forgetting", "best earlier accuracy minus final accuracy of a task", lambda row: row.run.score.Forgetting),
    Column("FWT", "forward transfer: accuracy before a task minus initial accuracy", lambda row: row.run.score.FWT),
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


def cell(column: Column, row: Row) -> tuple[str, float | str | None]:
    """A cell's text and its sort key."""
    value = column.value(row)
    if isinstance(value, Summary):
        return plus_minus(value.model_dump(), digits=int(column.form[1])), value.mean
    if isinstance(value, float):
        return f"{value:{column.form}}", value
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else value, value


def _table(columns: Sequence[Column], rows: Sequence[Row]) -> Table:
    return [[column.title for column in columns], *([cell(column, row)[0] for column in columns] for row in rows)]


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
    names = dict.fromkeys(name for column in columns.values() for name in column)
    found = {name: [column[name] for column in columns.values() if name in column] for name in names}
    stores = {name: any(score.stored for score in scores) for name, scores in found.items()}
    rows = [["method", "stores images", *columns]]
    for name in sorted(found, key=lambda name: (stores[name], -min(score.FinalAccuracy.mean for score in found[name]))):
        scores = [column.get(name) for column in columns.values()]
        finals = [plus_minus(score.FinalAccuracy.model_dump()) if score else "" for score in scores]
        rows.append([name, "yes" if stores[name] else "no", *finals])
    return rows


def _as_text(rows: Table) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return "\n".join("  ".join(row) for row in aligned)


def _as_markdown(rows: Table) -> str:
    ruled = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(text.replace('|', '/') for text in row)} |" for row in ruled)


def _as_latex(text: str) -> str:
    if re.match(r"-?\d", text):
        marked = text.replace("±", "\\pm").replace(",", "{,}")
        return f"${marked}$"
    return "--" if text == "-" else text.translate(ESCAPED)


def section(group: Group, render: Callable[[Table], str] = _as_text) -> str:
    """A group as printed and as in comparison.md: scores, tests, verdict, notes."""
    parts = [f"{group.title}\n{'=' * len(group.title)}", render(_table(SCORES, group.rows))]
    if others := [row for row in group.rows if row.paired]:
        parts += [f"{group.names[group.best]} minus the others, paired by seed:", render(_table(TESTS, others))]
    notes = "\n".join(f"- note: {note}" for note in group.notes)
    return "\n\n".join(part for part in (*parts, group.verdict, notes) if part)


def markdown(groups: Sequence[Group]) -> str:
    """comparison.md: FinalAccuracy side by side where there are several columns, then a section per group."""
    beside = side_by_side(groups)
    first = ["FinalAccuracy\n=============", _as_markdown(beside)] if beside else []
    return "\n\n".join([*first, *(section(group, _as_markdown) for group in groups)]) + "\n"


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


def plain(group: Group) -> dict[str, Any]:
    """Everything known of a group, as in comparison.json."""
    runs = []
    for row in group.rows:
        scores = row.run.score.model_dump(exclude={"matrix", "matrices"})
        about = {"name": row.name, "method": row.run.method, "folder": str(row.run.folder)}
        first = {key: scores.pop(key) for key in ("seeds", "FinalAccuracy")}
        tested = row.paired and row.paired._asdict()
        runs.append({**about, **first, "normalised": row.normalised, **scores, "best_minus_this": tested})
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
