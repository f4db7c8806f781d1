"""Groups of comparable runs: their names, the best run, and whether its lead is significant."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import numpy as np

from utils.config.schema import ScenarioConfig
from utils.report.find import FinishedRun, printable
from utils.report.statistics import (
    LEVEL,
    MIN_GAP,
    MIN_PAIRS_FOR_T,
    POWER,
    Paired,
    against_best,
    detectable,
    intransigence,
    normalised,
    seeds_for_wilcoxon,
)
from utils.store.metrics import UNKNOWN, Summary, plus_minus

REFERENCES = ("naive", "joint")  # methods that give the lower and the upper reference score
ON_ALL_DATA = ("joint", "cumulative")  # methods that do not compete
WORDS = {  # verdict of a test -> its words in a sentence
    "better": "significantly better than",
    "worse": "significantly worse than",
    "not significant": "not significantly different from",
    "not tested": "not tested against",
}
MAX_IN_NAME = 3  # settings in the name of a run; a run that differs in more is named by its folder
MAX_NAMED = 6  # runs that a sentence lists by name; more are counted


class Row(NamedTuple):
    """A run in a table of its group, with the best run's test against it, which the best itself has not."""

    name: str
    run: FinishedRun
    normalised: float | None  # between naive (0) and joint (1), if there is one run of each and joint is better
    intransigence: Summary  # against the only run of joint, on common seeds
    paired: Paired | None


@dataclass(frozen=True)
class Group:
    """Runs of the same learning problem, best mean FinalAccuracy over the seeds they have in common first."""

    runs: list[FinishedRun]
    apart: str = ""  # ends the title, if another group's would be the same

    @property
    def title(self) -> str:
        """The learning problem in words."""
        scenario = self.runs[0].config.scenario
        where = f" {path}" if (path := getattr(scenario.dataset, "path", None)) else ""
        of_seed = f"seed {scenario.class_order_seed}" if scenario.class_order_seed is not None else "seed"
        order = {"natural": "", "shuffled": f", class order shuffled by {of_seed}"}
        ordered = ", class order given" if isinstance(scenario.class_order, list) else order[scenario.class_order]
        what = f"{scenario.dataset.label}{where}, {scenario.type} scenario, {_sizes(scenario)}"
        return printable(f"{self.runs[0].study and f'{self.runs[0].study}: '}{what}{ordered}{self.apart}")

    @property
    def heading(self) -> str:
        """The name of the study, else the title."""
        return self.runs[0].study or self.title

    @cached_property
    def names(self) -> list[str]:
        """Unique names of the runs: the method's title and the settings in which its runs differ, or the folder."""
        names = []
        for run in self.runs:
            keys = differing([other for other in self.runs if other.method == run.method])
            own = [f"{key.rpartition('.')[2]}={shown(run.settings.get(key))}" for key in keys]
            names.append(" ".join([run.title, *(own if len(own) <= MAX_IN_NAME else ())]))
        folders = [run.folder.resolve() for run in self.runs]
        above = os.path.commonpath(folders)
        return [
            name if names.count(name) == 1 else printable(f"{run.title} ({os.path.relpath(folder, above)})")
            for name, run, folder in zip(names, self.runs, folders, strict=True)
        ]

    @property
    def seeds(self) -> list[int]:
        """The seeds that any run has."""
        return sorted({seed for run in self.runs for seed in run.score.seeds})

    @cached_property
    def best(self) -> int:
        """Index of the run that the others are tested against: none that trains on all data at once."""
        return next((i for i, run in enumerate(self.runs) if run.method not in ON_ALL_DATA), 0)

    @cached_property
    def rows(self) -> list[Row]:
        """The runs with their names, normalised scores and tests."""
        others = [run.accuracy for i, run in enumerate(self.runs) if i != self.best]
        tests: list[Paired | None] = [*against_best(self.runs[self.best].accuracy, others)]
        tests.insert(self.best, None)
        lower, upper = ([run.accuracy for run in self.runs if run.method == method] for method in REFERENCES)
        one_each = len(lower) == len(upper) == 1
        scores = [normalised(run.accuracy, lower[0], upper[0]) if one_each else None for run in self.runs]
        joint = [run for run in self.runs if run.method == "joint"]
        alone = joint[0] if len(joint) == 1 else None
        rigid = [
            intransigence(run.learned, alone.learned) if alone and run is not alone else UNKNOWN for run in self.runs
        ]
        return [Row(*row) for row in zip(self.names, self.runs, scores, rigid, tests, strict=True)]

    @property
    def verdicts(self) -> list[str]:
        """Of the tests of the best run against every other that competes."""
        return [row.paired.verdict for row in self.rows if row.paired and row.run.method not in ON_ALL_DATA]

    @property
    def best_stands_out(self) -> bool:
        """Whether the best is significantly better than every other run that competes."""
        return {*self.verdicts} == {"better"}

    @property
    def verdict(self) -> str:
        """The result of the tests in one or two sentences."""
        final = plus_minus(self.runs[self.best].score.final)
        opening = f"Best: {self.names[self.best]}, FinalAccuracy {final}."
        tests = [(row.name, row.paired) for row in self.rows if row.paired]
        if all(test.t is None for _, test in tests):
            return opening
        tested = {words: [name for name, test in tests if test.verdict == verdict] for verdict, words in WORDS.items()}
        parts = [f"{words} {few(names)}" for words, names in tested.items() if names]
        return f"{opening} Paired t-test, Holm-corrected, p < {LEVEL}: {'; '.join(parts)}."

    @property
    def notes(self) -> list[str]:
        """Limits of the comparison, one per line."""
        settings = {key: [run.settings.get(key) for run in self.runs] for key in protocol(self.runs)}
        notes = [f"the protocol differs in {key}: {self._by_value(values)}" for key, values in settings.items()]
        seeds = [", ".join(map(str, run.score.seeds)) for run in self.runs]
        if len(set(seeds)) > 1:
            common = ", ".join(map(str, common_seeds(self.runs)))
            rank = f"on the seeds that all runs have ({common})" if common else "by mean, without a common seed"
            tests = "means are over all seeds of a run; the tests use the seeds that both runs have"
            notes.append(f"the seeds differ: {self._by_value(seeds)}; ranked {rank}; {tests}")
        if all(row.normalised is None for row in self.rows):
            need = f"a run of naive and one of joint at least {MIN_GAP} above it, with common seeds"
            notes.append(f"no normalised score: it needs {need}")
        pairs = [row.paired.seeds for row in self.rows if row.paired]
        for test, needed in (("t-test", MIN_PAIRS_FOR_T), ("Wilcoxon test", seeds_for_wilcoxon(max(1, len(pairs))))):
            if pairs and max(pairs) < needed:
                notes.append(f"too few seeds for a significant paired {test}: {max(pairs)}; this table needs {needed}")
        spreads = [row.paired.spread for row in self.rows if row.paired and row.paired.spread is not None]
        if spreads and max(pairs) >= MIN_PAIRS_FOR_T:
            least = detectable(max(pairs), len(pairs))
            size = f"{least:.1f} standard deviations of the paired differences"
            low, median, high = (f"{least * float(np.quantile(spreads, q)):.2g}" for q in (0, 0.5, 1))
            here = f"here from {low} to {high}, in the median run {median}"
            notes.append(f"{POWER:.0%} power needs a true difference of {size} ({here})")
        return notes

    def _by_value(self, values: Sequence[object]) -> str:
        having: dict[str, list[str]] = {}
        for name, value in zip(self.names, values, strict=True):
            having.setdefault(shown(value), []).append(name)
        return "; ".join(f"{value} ({few(names)})" for value, names in having.items())


def shown(value: object) -> str:
    """A setting's value as written in YAML, on one line."""
    words = {None: "null", True: "yes", False: "no"}
    if value is None or isinstance(value, bool):
        return words[value]
    return f"{value:.12g}" if isinstance(value, float) else printable(str(value))


def few(names: Sequence[str]) -> str:
    """The names in a sentence, or how many there are."""
    return ", ".join(names) if len(names) <= MAX_NAMED else f"{len(names)} runs"


def differing(runs: Sequence[FinishedRun]) -> list[str]:
    """The dotted keys whose settings differ between the runs."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    return [key for key in keys if any(run.settings.get(key) != runs[0].settings.get(key) for run in runs)]


def protocol(runs: Sequence[FinishedRun]) -> list[str]:
    """The keys among them that are no options of the method."""
    return [key for key in differing(runs) if not key.startswith("method.")]


def common_seeds(runs: Sequence[FinishedRun]) -> list[int]:
    """The seeds that all runs have."""
    return sorted(set.intersection(*(set(run.score.seeds) for run in runs)))


def _ranked(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """Best first, on common seeds: a run is not better for lacking a seed. Of equals, the one with more seeds."""
    seeds = common_seeds(runs)
    return sorted(runs, key=lambda run: (-run.mean(seeds), -len(run.score.seeds), run.method))


def grouped(runs: Sequence[FinishedRun], keys: Sequence[str]) -> list[Group]:
    """Runs of the same study with the same values of these settings, in the order in which they were found."""
    found: dict[str, list[FinishedRun]] = {}
    for run in runs:
        found.setdefault(repr([run.study, *(run.settings.get(key) for key in keys)]), []).append(run)
    return [Group(_ranked(some)) for some in found.values()]


def groups(runs: Sequence[FinishedRun]) -> list[Group]:
    """Runs grouped by their learning problem, with unique titles."""
    keys, data = sorted({key for run in runs for key in run.problem}), "scenario.fingerprint"
    if any(run.settings.get(data) is None for run in runs):  # runs of older versions have none
        keys = [key for key in keys if key != data]
    found, unique = grouped(runs, keys), list[Group]()
    for group in found:
        alike = [other.runs[0] for other in found if other.title == group.title]
        own = [f", {key}={shown(group.runs[0].settings.get(key))}" for key in differing(alike) if key in keys]
        unique.append(replace(group, apart="".join(own)))
    return unique


def _sizes(scenario: ScenarioConfig) -> str:
    """The classes of each task in words."""
    labels = scenario.labels_per_task
    if scenario.tasks:
        return f"{scenario.tasks} {scenario.stream} tasks"
    if labels is None:
        return "one task per data set"
    if isinstance(labels, list):
        runs = [(size, len(list(same))) for size, same in groupby(labels)]  # 50, 5 x 10
        return f"{', '.join(f'{count} x {size}' if count > 1 else str(size) for size, count in runs)} classes per task"
    return f"{labels} class{'es' if labels != 1 else ''} per task"
