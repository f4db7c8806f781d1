"""Comparisons as text, CSV, LaTeX and plain data. Pure functions of groups of finished runs."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from utils.config.yaml_text import flatten
from utils.report.find import FinishedRun, Summary
from utils.report.groups import Group
from utils.report.statistics import LEVEL, Paired
from utils.store.metrics import plus_minus


class Column(NamedTuple):
    """A column of the comparison: a score over seeds, or one number."""

    title: str
    meaning: str
    of: Callable[[FinishedRun], Summary | int]
    digits: int = 4


COLUMNS = (
    Column("FinalAccuracy", "mean accuracy over all tasks after the last", lambda run: run.score.test.FinalAccuracy),
    Column("BWT", "backward transfer: what later tasks did to earlier ones", lambda run: run.score.test.BWT),
    Column("Forgetting", "best accuracy on a task so far, minus the last", lambda run: run.score.test.Forgetting),
    Column("FWT", "forward transfer: accuracy before a task is learnt, minus chance", lambda run: run.score.test.FWT),
    Column("seconds", "time a seed took", lambda run: run.score.time.total_s, digits=1),
    Column("memory", "numbers the method holds between tasks", lambda run: run.score.memory.method_floats),
    Column("stored", "real samples the method keeps", lambda run: run.score.memory.stored_real_samples),
)


def number(value: float | None, digits: int = 4) -> str:
    """A number, or a dash for what is undefined."""
    return "-" if value is None else f"{value:.{digits}f}"


def p_value(p: float | None) -> str:
    """A p-value with two digits that count."""
    return "-" if p is None else "<0.0001" if p < 1e-4 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def cell(column: Column, run: FinishedRun) -> str:
    """Mean ± standard deviation over seeds; or the number."""
    value = column.of(run)
    if isinstance(value, int):
        return f"{value:,}"
    return plus_minus(value.model_dump(), column.digits)


def interval(value: Summary, digits: int = 4) -> str:
    """The 95% confidence interval of the mean."""
    if value.mean is None or value.ci95 is None:
        return "-"
    return f"{value.mean - value.ci95:.{digits}f} to {value.mean + value.ci95:.{digits}f}"


def scores_table(group: Group) -> list[list[str]]:
    """The comparison, its header first: a row a run."""
    titles = ["run", "seeds", "FinalAccuracy", "95% CI", "normalised", *(column.title for column in COLUMNS[1:])]
    return [titles] + [
        [
            name,
            str(len(run.score.seeds)),
            cell(COLUMNS[0], run),
            interval(run.score.test.FinalAccuracy),
            number(between, 3),
            *(cell(column, run) for column in COLUMNS[1:]),
        ]
        for name, run, between in zip(group.names, group.runs, group.normalised, strict=True)
    ]


def tests_table(group: Group) -> list[list[str]]:
    """The paired tests, their header first: a row for each run but the best."""
    titles = ["against", "pairs", "difference", "95% CI", "d_z", "t-test p", "Holm", "Wilcoxon p", "Holm"]
    tests = [(name, test) for name, test in zip(group.names, group.tests, strict=True) if test is not None]
    return [titles] + [[name, *_test(test)] for name, test in tests]


def _test(test: Paired) -> list[str]:
    difference = "-" if test.difference is None else f"{test.difference:+.4f}"
    around = Summary(mean=test.difference, std=None, ci95=test.ci95, values=[])
    ps = (test.t, test.t_holm, test.wilcoxon, test.wilcoxon_holm)
    return [str(test.seeds), difference, interval(around), number(test.effect, 2), *map(p_value, ps)]


def as_text(group: Group) -> str:
    """What is printed: the table, the tests, what they say, what to be careful about."""
    parts = [group.title, "=" * len(group.title), "", _aligned(scores_table(group)), ""]
    if len(group.runs) > 1:
        name = group.names[group.best]
        parts += [f"{name} minus the others, paired by seed", "", _aligned(tests_table(group)), ""]
    return "\n".join([*parts, group.verdict, *(f"note: {note}" for note in group.notes)])


def _aligned(table: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(row[1:], widths[1:], strict=True))])
        for row in table
    )


def as_latex(groups: Sequence[Group]) -> str:
    """A tabular for each group, for the package booktabs."""
    return "% needs \\usepackage{booktabs}\n" + "\n".join(_tabular(group) for group in groups)


def _tabular(group: Group) -> str:
    header, *body = scores_table(group)
    lines = [
        f"% {group.title}: mean and standard deviation over seeds; the best is bold only if it is better",
        f"% than all others (paired t-test, Holm-corrected, p < {LEVEL}); joint is a reference and does not compete",
        f"\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        "\\toprule",
        " & ".join(map(_escaped, header)) + " \\\\",
        "\\midrule",
    ]
    for i, row in enumerate(body):
        cells = [_escaped(row[0]), *(_math(text) for text in row[1:])]
        if i == group.best and group.best_stands_out:
            cells[2] = f"$\\mathbf{{{cells[2].strip('$')}}}$"
        lines.append(" & ".join(cells) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _math(text: str) -> str:
    text = text.replace("±", "\\pm").replace(",", "{,}").replace(" to ", "$ to $")
    return "--" if text == "-" else f"${text}$"


SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": "\\textbackslash{}", "~": "\\~{}", "^": "\\^{}"}
"""What LaTeX would not print as it stands."""


def _escaped(text: str) -> str:
    return "".join(SPECIAL.get(character, character) for character in text)


def plain(group: Group) -> dict[str, Any]:
    """Everything that is known of a group, as plain data."""
    runs = [
        {
            "name": group.names[i],
            "method": run.method,
            "folder": str(run.folder),
            "seeds": run.score.seeds,
            **{c.title: v.model_dump() if isinstance(v := c.of(run), Summary) else v for c in COLUMNS},
            "normalised": group.normalised[i],
            "best_minus_this": asdict(test) if (test := group.tests[i]) else None,
        }
        for i, run in enumerate(group.runs)
    ]
    return {
        "title": group.title,
        "problem": group.runs[0].problem,
        "best": group.names[group.best],
        "best_stands_out": group.best_stands_out,
        "verdict": group.verdict,
        "notes": group.notes,
        "runs": runs,
    }


def as_csv(groups: Sequence[Group]) -> str:
    """A row a run, with dotted names of columns: FinalAccuracy.mean, best_minus_this.t_holm."""
    flat = [{"group": group.title, **flatten(run)} for group in groups for run in plain(group)["runs"]]
    unknown = ("best_minus_this",)  # of the best itself: its dotted columns are empty
    columns = dict.fromkeys(key for row in flat for key in row if key not in unknown and not key.endswith(".values"))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "seeds": " ".join(map(str, row["seeds"]))} for row in flat)
    return text.getvalue()
