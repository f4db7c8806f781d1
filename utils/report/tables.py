"""Comparisons as tables: one list of columns per table, one writer for text, Markdown, LaTeX and CSV."""

import csv
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

from utils.config.yaml_text import flatten
from utils.report.find import Summary
from utils.report.groups import Group, Row, by_protocol, protocol, shown
from utils.report.statistics import LEVEL
from utils.store.metrics import plus_minus

Table = list[list[Any]]
"""Rows of cells, the header first."""
MAX_SIDE_BY_SIDE = 8
"""Columns up to which the side-by-side table is written."""


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
    Column("FinalAccuracy", "mean accuracy over all tasks after the last task", lambda row: row.run.test.FinalAccuracy),
    Column("± 95%", "half-width of its 95% confidence interval", lambda row: row.run.test.FinalAccuracy.ci95),
    Column("normalised", "FinalAccuracy between naive (0) and joint (1)", lambda row: row.normalised),
    Column("BWT", "backward transfer: final accuracy minus that right after a task", lambda row: row.run.test.BWT),
    Column("Forgetting", "best earlier accuracy minus final accuracy of a task", lambda row: row.run.test.Forgetting),
    Column(
        "FWT", "forward transfer: accuracy before a task minus that at initialisation", lambda row: row.run.test.FWT
    ),
    Column("seconds", "total time per seed", lambda row: row.run.score.time["total_s"], ".1f"),
    Column("memory", "numbers that the method stores between tasks", lambda row: row.run.score.memory["method_floats"]),
    Column("stored", "real samples that the method stores", lambda row: row.run.score.memory["stored_real_samples"]),
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


def table(columns: Sequence[Column], rows: Sequence[Row]) -> Table:
    """The table with these columns and a row per run."""
    return [[column.title for column in columns], *([cell(column, row)[0] for column in columns] for row in rows)]


def side_by_side(groups: Sequence[Group]) -> Table:
    """FinalAccuracy: a row per method, a column per learning problem and protocol; empty if there is only one column.

    Methods that store real images come last; in each part, the highest of the lowest scores comes first.
    """
    parts = [part for group in groups for part in by_protocol(group)]
    if not 1 < len(parts) <= MAX_SIDE_BY_SIDE:
        return []
    scores = [{row.name: row.run for row in part.rows} for part in parts]
    found = {name: [column[name] for column in scores if name in column] for part in parts for name in part.names}
    lowest = {name: min(run.final for run in some) for name, some in found.items()}
    stores = {name: any(run.score.memory["stored_real_samples"] for run in some) for name, some in found.items()}
    rows: Table = [["method", "stores images", *_headings(parts)]]
    for name in sorted(found, key=lambda name: (stores[name], -lowest[name])):
        finals = [column[name].test.FinalAccuracy.model_dump() if name in column else None for column in scores]
        rows.append([name, "yes" if stores[name] else "no", *(plus_minus(final) if final else "" for final in finals)])
    return rows


def _headings(parts: Sequence[Group]) -> list[str]:
    """The folder that holds each part's runs; where these are not different, the problem and what tells it apart."""
    names = [Path(os.path.commonpath([run.folder.resolve().parent for run in part.runs])).name for part in parts]
    if len(set(names)) == len(names):
        return names
    keys = protocol([part.runs[0] for part in parts])
    return [", ".join([p.title, *(f"{key}={shown(p.runs[0].settings.get(key))}" for key in keys)]) for p in parts]


def render(rows: Table, form: Literal["text", "markdown", "latex", "csv"], bold: tuple[int, int] = (0, 0)) -> str:
    """The table as aligned text, Markdown, LaTeX (booktabs) or CSV; in LaTeX one cell of the body may be bold."""
    if form == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue()
    if form == "markdown":
        ruled = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
        return "\n".join(f"| {' | '.join(text.replace('|', '/') for text in row)} |" for row in ruled)
    if form == "latex":
        cells = [[*map(_escaped, rows[0])], *([_escaped(row[0]), *map(_math, row[1:])] for row in rows[1:])]
        if bold[0]:
            cells[bold[0]][bold[1]] = f"$\\mathbf{{{cells[bold[0]][bold[1]].strip('$')}}}$"
        lines = [" & ".join(row) + " \\\\" for row in cells]
        begin = f"\\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}"
        return "\n".join([begin, "\\toprule", lines[0], "\\midrule", *lines[1:], "\\bottomrule", "\\end{tabular}", ""])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return "\n".join("  ".join(row) for row in aligned)


def _math(text: str) -> str:
    marked = text.replace("±", "\\pm").replace(",", "{,}")
    return "--" if text == "-" else f"${marked}$"


def _escaped(text: str) -> str:
    special = {"\\": "\\textbackslash{}", "~": "\\~{}", "^": "\\^{}", "±": "$\\pm$"}
    return "".join(f"\\{c}" if c in "&%$#_{}" else special.get(c, c) for c in text)


def section(group: Group, form: Literal["text", "markdown"]) -> str:
    """A group as printed and as in comparison.md: scores, tests, verdict, notes."""
    parts = [f"{group.title}\n{'=' * len(group.title)}", render(table(SCORES, group.rows), form)]
    if others := [row for row in group.rows if row.paired]:
        parts += [f"{group.names[group.best]} minus the others, paired by seed:", render(table(TESTS, others), form)]
    notes = "\n".join(f"- note: {note}" for note in group.notes)
    return "\n\n".join(part for part in (*parts, group.verdict, notes) if part)


def markdown(groups: Sequence[Group]) -> str:
    """comparison.md: FinalAccuracy side by side where there are several columns, then a section per group."""
    beside = side_by_side(groups)
    first = ["FinalAccuracy\n=============", render(beside, "markdown")] if beside else []
    return "\n\n".join([*first, *(section(group, "markdown") for group in groups)]) + "\n"


def latex(groups: Sequence[Group]) -> str:
    """comparison.tex: a tabular per group; the best is bold only if it is significantly better than all others."""
    text = f"% needs \\usepackage{{booktabs}}; bold: better than all but joint (paired t-test, Holm, p < {LEVEL})\n"
    for group in groups:
        bold = (1 + group.best, 2) if group.best_stands_out else (0, 0)
        text += f"% {group.title}\n{render(table(SCORES, group.rows), 'latex', bold)}"
    return text


def plain(group: Group) -> dict[str, Any]:
    """Everything known of a group, as in comparison.json."""
    runs = []
    for row in group.rows:
        values = {column.title: column.value(row) for column in SCORES if column.title not in ("run", "± 95%")}
        scores = {title: value.model_dump() if isinstance(value, Summary) else value for title, value in values.items()}
        about = {"name": row.name, "method": row.run.method, "folder": str(row.run.folder)}
        tested = asdict(row.paired) if row.paired else None
        runs.append({**about, **scores, "seeds": row.run.score.seeds, "best_minus_this": tested})
    summary = {"title": group.title, "problem": group.runs[0].problem, "best": group.names[group.best]}
    stands_out = {"best_stands_out": group.best_stands_out}
    return {**summary, **stands_out, "verdict": group.verdict, "notes": group.notes, "runs": runs}


def as_csv(groups: Sequence[Group]) -> str:
    """comparison.csv: a row per run, the columns with dotted names: FinalAccuracy.mean, best_minus_this.t_holm."""
    flat = [{"group": group.title, **flatten(run)} for group in groups for run in plain(group)["runs"]]
    flat = [{**row, "seeds": " ".join(map(str, row["seeds"]))} for row in flat]
    keys = dict.fromkeys(key for row in flat for key in row if not key.endswith((".values", "best_minus_this")))
    return render([[*keys], *([row.get(key) for key in keys] for row in flat)], "csv")
