"""The columns of a comparison, and its tables as text, Markdown, LaTeX and CSV; each escapes what it must."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from utils.config.yaml_text import flatten
from utils.report.find import printable
from utils.report.groups import Group, Row, grouped, protocol, shown
from utils.report.statistics import LEVEL
from utils.settings import BadInput, nearest
from utils.store import metrics
from utils.store.metrics import UNKNOWN, fixed, plus_minus

LATEX: dict[str, str | int | None] = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"},
    **{"<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}", "±": "$\\pm$"},
}
HEADS = {"FinalAccuracy": "Accuracy", "CI95": "95% interval", "normalised": "Normalised", "seeds": "Seeds"}
HEADS |= {"run": "Method", "seconds": "Seconds", "memory": "Memory", "stored": "Stored", "ImageAccuracy": "By images"}
"""The title of a column -> its head in LaTeX, if that is another."""
Table = list[list[str]]  # rows of cells, the header first


class Column(NamedTuple):
    """A column of a table with a row per run; `value` takes the `Row`. Without it, the score of this title."""

    title: str
    meaning: str
    value: Callable[[Any], Any] | None = None
    form: str = ".4f"  # of fractions; LaTeX gives these in percent

    def of(self, row: Row) -> Any:
        """A number, a `metrics.Summary`, an `Interval`, text, or None."""
        return self.value(row) if self.value else row.run.score.scores.get(self.title, UNKNOWN)


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def interval(row: Row) -> Interval | None:
    """The 95% confidence interval of the mean FinalAccuracy, within [0, 1]."""
    mean, half = row.run.score.mean, row.run.score.final["ci95"]
    return None if half is None else Interval(max(0.0, mean - half), min(1.0, mean + half))


RUN = Column("run", "the method, and the settings in which its runs differ", lambda row: row.name)
OWN = {
    "FinalAccuracy": "final mean accuracy on all tasks",
    "BWT": "backward transfer: final accuracy minus that right after a task",
    "Forgetting": "best earlier accuracy minus final accuracy of a task",
    "FWT": "forward transfer: accuracy before a task minus initial accuracy",
}
BY_CHOICE = ["TotalAccuracy", "BackwardTransfer", "LastBackwardTransfer", "F1", "ImageAccuracy", "Plasticity", "AAA"]
BY_CHOICE += ["AverageIncrementalAccuracy", "Intransigence", "Forgetting"]  # only with --columns, or in MORE
COLUMNS = (
    Column("seeds", "number of seeds", lambda row: len(row.run.score.seeds)),
    Column("FinalAccuracy", OWN["FinalAccuracy"]),
    Column("CI95", "95% confidence interval of the mean FinalAccuracy", interval),
    Column("normalised", "FinalAccuracy between naive (0) and joint (1)", lambda row: row.normalised),
    *(Column(name, meaning) for name, meaning in OWN.items() if name != "FinalAccuracy"),
    *(Column(name, str(f.__doc__).splitlines()[0]) for name, f in metrics.SCORES.items() if name not in OWN),
    Column("Intransigence", "joint's accuracy minus the run's right after a task", lambda row: row.intransigence),
    Column("seconds", "total time per seed", lambda row: row.run.score.seconds, ".1f"),
    Column("memory", "bytes that the method holds between tasks", lambda row: row.run.score.memory),
    Column("stored", "real samples that the method stores", lambda row: row.run.score.stored),
)
SCORES = (RUN, *(column for column in COLUMNS if column.title not in BY_CHOICE))
MORE = (RUN, *(column for column in COLUMNS if column.title in BY_CHOICE))
IN_LATEX = (RUN, *(column for column in COLUMNS if column.title in ("FinalAccuracy", "Forgetting", "stored")))
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


def choose(names: str) -> tuple[Column, ...]:
    """The columns of `--columns A,B`, after that of the run; in any case. BadInput names the known ones."""
    known = {column.title.lower(): column for column in COLUMNS}
    wanted = dict.fromkeys(name.strip() for name in names.split(","))
    titles = [column.title for column in COLUMNS]
    for name in wanted:
        if name.lower() not in known:
            hint = " ".join(filter(None, [nearest(name, titles), f"known: {', '.join(titles)}"]))
            raise BadInput(f"--columns: unknown column {name!r}; {hint}")
    return (RUN, *dict.fromkeys(known[name.lower()] for name in wanted))


def cell(column: Column, row: Row) -> tuple[str, float | str | None]:
    """A cell's text and its sort key."""
    value = column.of(row)
    if isinstance(value, dict):
        return plus_minus(value, digits=int(column.form[1])), value["mean"]
    if isinstance(value, Interval):
        return f"[{fixed(value[0], 4)}, {fixed(value[1], 4)}]", value[0]
    if isinstance(value, float):
        return fixed(value, int(column.form[1])) if column.form.endswith("f") else f"{value:{column.form}}", value
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else value, value


def filled(columns: Sequence[Column], rows: Sequence[Row]) -> tuple[Column, ...]:
    """Those in which a run has a value: FWT is not defined in the class scenario, older results have no AUROC."""
    return tuple(column for column in columns if any(cell(column, row)[1] is not None for row in rows))


def table(columns: Sequence[Column], rows: Sequence[Row]) -> Table:
    """The header, and the cells of each run."""
    return [[column.title for column in columns], *([cell(column, row)[0] for column in columns] for row in rows)]


def as_text(rows: Table) -> str:
    """Aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return "\n".join("  ".join(row) for row in aligned)


def as_markdown(rows: Table) -> str:
    """A pipe table."""
    escaped = [[re.sub(r"([\\|<*`])", r"\\\1", text) for text in row] for row in rows]
    ruled = [escaped[0], ["---"] * len(escaped[0]), *escaped[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in ruled)


def section(group: Group, columns: Sequence[Column] | None = None, render: Callable[[Table], str] = as_text) -> str:
    """A group as printed and as in comparison.md: scores, tests, verdict, notes. By default the columns of `SCORES`."""
    scores = table(columns or filled(SCORES, group.rows), group.rows)
    parts = [f"{group.title}\n{'=' * len(group.title)}", render(scores)]
    if others := [row for row in group.rows if row.paired]:
        parts += [f"{group.names[group.best]} minus the others, paired by seed:", render(table(TESTS, others))]
    notes = "\n".join(f"- note: {printable(note)}" for note in group.notes)
    return "\n\n".join(part for part in (*parts, group.verdict, notes) if part)


def side_by_side(groups: Sequence[Group]) -> Table:
    """FinalAccuracy: a row per method, a column per learning problem and protocol; empty if there is only one column.

    Methods that store real images come last; in each part, the highest of the lowest scores comes first.
    """
    columns = {}
    for group in groups:
        keys = [] if group.runs[0].study else protocol(group.runs)
        for part in grouped(group.runs, keys):
            heading = [group.heading, *(f"{key}={shown(part.runs[0].settings.get(key))}" for key in keys)]
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


def latex(groups: Sequence[Group], columns: Sequence[Column] = IN_LATEX) -> str:
    """comparison.tex: a table per group, scores in percent; the best is bold only if it is better than all others."""
    text = f"% needs \\usepackage{{booktabs}}; bold: better than all that compete (paired t-test, Holm, p < {LEVEL})\n"
    labels = list[str]()
    for group in groups:
        cells = [[*row] for row in zip(*(_in_latex(column, group.rows) for column in columns), strict=True)]
        accuracy = [i for i, column in enumerate(columns) if column.title == "FinalAccuracy"]
        for i in accuracy if group.best_stands_out else ():
            best = cells[group.best]
            best[i] = f"$\\mathbf{{{best[i].strip('$')}}}$"
        seeds = sorted({len(run.score.seeds) for run in group.runs})
        caption = f"{group.title}: scores in %, mean ± standard deviation over {' or '.join(map(str, seeds))} seeds."
        labels.append(re.sub(r"\W+", "-", group.title.lower()))
        number = f"-{labels.count(labels[-1])}" if labels.count(labels[-1]) > 1 else ""
        begin = ["\\begin{table}[t]", "\\centering\\footnotesize\\setlength{\\tabcolsep}{4pt}"]
        begin += [f"\\caption{{{as_latex(caption)}}}", f"\\label{{tab:{labels[-1]}{number}}}"]
        begin += [f"\\begin{{tabular}}{{@{{}}l{'r' * (len(columns) - 1)}@{{}}}}", "\\toprule"]
        head = [as_latex(HEADS.get(column.title, column.title)) for column in columns]
        head_row, *body = (" & ".join(row) + " \\\\" for row in [head, *cells])
        text += "\n".join([*begin, head_row, "\\midrule", *body, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])
    return text


def as_latex(text: str) -> str:
    """Text in which LaTeX sees no command, comment or line break."""
    return printable(text).translate(str.maketrans(LATEX))


def _in_latex(column: Column, rows: Sequence[Row]) -> list[str]:
    """The cells of a column, with two decimals if a standard deviation would be 0.0 with one."""
    spreads = [value["std"] or 0 for row in rows if isinstance(value := column.of(row), dict)]
    digits = 2 if any(0 < spread < 0.0005 for spread in spreads) else 1
    return [as_latex(row.name) if column is RUN else _cell_in_latex(column, row, digits) for row in rows]


def _cell_in_latex(column: Column, row: Row, digits: int) -> str:
    value, percent, text = column.of(row), column.form == ".4f", cell(column, row)[0]
    if isinstance(value, dict) and value["mean"] is not None and percent:
        scaled: dict[str, Any] = {key: value[key] and 100 * value[key] for key in ("mean", "std")}
        text = plus_minus(scaled, digits)
    elif isinstance(value, Interval):
        return f"$[{fixed(100 * value.low, 1)}, {fixed(100 * value.high, 1)}]$"
    elif isinstance(value, float) and percent:
        text = fixed(100 * value, 1)
    in_math = text.replace(",", "{,}").replace("±", "\\pm")
    return "--" if text == "-" else f"${in_math}$"


def plain(group: Group) -> dict[str, Any]:
    """Everything known of a group, as in comparison.json."""
    runs = []
    for row in group.rows:
        about = {"name": row.name, "method": row.run.method, "folder": row.run.place}
        known = {column.title: column.of(row) for column in COLUMNS if column.title != "seeds"}
        known |= {
            "CI95": known["CI95"] and known["CI95"]._asdict(),
            "seeds": row.run.score.seeds,
            "best_minus_this": row.paired and row.paired._asdict(),
        }
        runs.append(about | known)
    summary = {"title": group.title, "problem": group.runs[0].problem, "best": group.names[group.best]}
    verdict = {"best_stands_out": group.best_stands_out, "verdict": group.verdict}
    return {**summary, **verdict, "notes": group.notes, "runs": runs}


def as_csv(groups: Sequence[Group], columns: Sequence[Column] | None = None) -> str:
    """comparison.csv: a row per run, the columns with dotted names: FinalAccuracy.mean, best_minus_this.t_holm."""
    runs = [(group.title, run) for group in groups for run in plain(group)["runs"]]
    flat = [{"group": group, **flatten(run), "seeds": " ".join(map(str, run["seeds"]))} for group, run in runs]
    keys = dict.fromkeys(key for row in flat for key in row if not key.endswith((".values", "best_minus_this")))
    if columns:
        wanted = {"group", "name", "method", "folder", "seeds", *(column.title for column in columns)}
        keys = dict.fromkeys(key for key in keys if key.partition(".")[0] in wanted)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(keys)
    for row in flat:
        writer.writerow([printable(value) if isinstance(value := row.get(key), str) else value for key in keys])
    return text.getvalue()
