"""Finished runs that may be compared: what each is called, which is the best, and whether that is more than chance."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from utils.report.find import FinishedRun
from utils.report.statistics import (
    FEWEST_FOR_T,
    LEVEL,
    Paired,
    against_best,
    least_wilcoxon,
    normalised,
    seeds_for_wilcoxon,
)
from utils.store.metrics import plus_minus

REFERENCES = ("naive", "joint")
"""Methods that the others are measured by, the lower and the upper."""
MOST_IN_NAME = 3
"""Settings that the name of a run tells; one that differs in more is called by its folder."""
MOST_NAMED = 6
"""Runs that a sentence names; more are counted."""


@dataclass(frozen=True)
class Group:
    """Runs that learn the same tasks, best mean FinalAccuracy first."""

    runs: list[FinishedRun]

    @cached_property
    def title(self) -> str:
        """What all of them learn."""
        scenario = self.runs[0].config.scenario
        where = f" {path}" if (path := getattr(scenario.dataset, "path", None)) else ""
        classes = f"{scenario.labels_per_task} class{'es' if scenario.labels_per_task > 1 else ''} a task"
        shuffled = ", order of the classes by seed" if scenario.shuffle_labels else ""
        return f"{scenario.dataset.name}{where}, {scenario.type} scenario, {classes}{shuffled}"

    @cached_property
    def names(self) -> list[str]:
        """A name for each run, unlike the others': its method, and what tells it from other runs of that method."""
        names = []
        for run in self.runs:
            rivals = [other for other in self.runs if other.method == run.method]
            own = [f"{key.rpartition('.')[2]}={shown(run.settings.get(key))}" for key in differing(rivals)]
            names.append(" ".join([run.method, *own]) if len(own) <= MOST_IN_NAME else "")
        folders = [run.folder.resolve() for run in self.runs]
        above = os.path.commonpath(folders)
        return [
            name if name and names.count(name) == 1 else f"{run.method} ({os.path.relpath(folder, above)})"
            for name, run, folder in zip(names, self.runs, folders, strict=True)
        ]

    @cached_property
    def ranked(self) -> list[int]:
        """Indices of the runs that compete, best first: all but joint, which is no method for a sequence of tasks."""
        return [i for i, run in enumerate(self.runs) if run.method != "joint"] or list(range(len(self.runs)))

    @property
    def best(self) -> int:
        """Index of the run that the others are tested against."""
        return self.ranked[0]

    @cached_property
    def tests(self) -> list[Paired | None]:
        """The best against each run; None in its own place."""
        others = [run.accuracy for i, run in enumerate(self.runs) if i != self.best]
        tests: list[Paired | None] = list(against_best(self.runs[self.best].accuracy, others))
        tests.insert(self.best, None)
        return tests

    @property
    def best_stands_out(self) -> bool:
        """Whether the best is significantly better than the second, and than all others that compete."""
        others = self.ranked[1:]
        return bool(others) and all(self.tests[i].verdict == "better" for i in others)

    @cached_property
    def references(self) -> tuple[FinishedRun, FinishedRun] | None:
        """The run of naive and that of joint, where there is one of each."""
        naive, joint = ([run for run in self.runs if run.method == name] for name in REFERENCES)
        return (naive[0], joint[0]) if len(naive) == len(joint) == 1 else None

    @cached_property
    def normalised(self) -> list[float | None]:
        """Score of each run between naive (0) and joint (1), on the seeds that all three have."""
        scores: list[float | None] = []
        for run in self.runs:
            three = [score.accuracy for score in (run, *(self.references or ()))]
            shared = set.intersection(*(set(accuracy) for accuracy in three))
            means = [sum(accuracy[seed] for seed in shared) / len(shared) for accuracy in three] if shared else []
            scores.append(normalised(*means) if len(means) == 3 else None)
        return scores

    @cached_property
    def verdict(self) -> str:
        """What the tests come to, in a sentence or two."""
        final = self.runs[self.best].score.test.FinalAccuracy
        opening = f"Best: {self.names[self.best]}, FinalAccuracy {plus_minus(final.model_dump())}."
        if all(test is None or test.t is None for test in self.tests):
            return opening
        having: dict[str, list[str]] = {}
        for name, test in zip(self.names, self.tests, strict=True):
            if test is not None:
                having.setdefault(test.verdict, []).append(name)
        words = {"better": "significantly better than", "worse": "significantly worse than"}
        words |= {"not told apart": "not told apart from", "not tested": "not tested against"}
        parts = [(said, having[verdict]) for verdict, said in words.items() if verdict in having]
        told = "; ".join(f"{said} {_few(names)}" for said, names in parts)
        return f"{opening} By the paired t-test, Holm-corrected, at {LEVEL}: {told}."

    @cached_property
    def notes(self) -> list[str]:
        """What a reader has to know before believing the table, a line each."""
        keys = [key for key in differing(self.runs) if not key.startswith("method.")]
        notes = [
            f"the protocol differs in {key}: {'; '.join(self._named(lambda run, k=key: shown(run.settings.get(k))))}"
            for key in keys
        ]
        by_seeds = self._named(lambda run: ", ".join(map(str, run.score.seeds)))
        if len(by_seeds) > 1:
            notes.append(f"the seeds differ: {'; '.join(by_seeds)}; the tests use those that both runs have")
        if self.references is None:
            notes.append("no normalised score: it takes one run of naive and one of joint")
        elif all(score is None for score in self.normalised):
            notes.append("no normalised score: joint is not better than naive")
        comparisons, pairs = len(self.runs) - 1, max((test.seeds for test in self.tests if test), default=0)
        if comparisons and pairs < (needed := seeds_for_wilcoxon(comparisons)):
            notes.append(
                f"too few seeds for Wilcoxon: with {pairs}, p is at least {least_wilcoxon(pairs):.4g} before Holm, "
                f"whatever the scores; for p < {LEVEL} after it, {needed} are needed with this many runs"
            )
        if comparisons and pairs < FEWEST_FOR_T:
            notes.append(f"too few seeds for a paired t-test: {pairs}, and {FEWEST_FOR_T} are needed")
        return notes

    def _named(self, of: Callable[[FinishedRun], str]) -> list[str]:
        """ "value (runs that have it)" of something that runs have."""
        having: dict[str, list[str]] = {}
        for name, run in zip(self.names, self.runs, strict=True):
            having.setdefault(of(run), []).append(name)
        return [f"{value} ({_few(names)})" for value, names in having.items()]


def shown(value: object) -> str:
    """A setting's value as a reader would write it."""
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= MOST_NAMED else f"{len(names)} runs"


def differing(runs: Sequence[FinishedRun]) -> list[str]:
    """The dotted keys in which the settings of some runs differ."""
    keys: dict[str, Any] = dict.fromkeys(key for run in runs for key in run.settings)
    return [key for key in keys if any(run.settings.get(key) != runs[0].settings.get(key) for run in runs)]


def groups(runs: Sequence[FinishedRun]) -> list[Group]:
    """Runs put together by what they learn, in the order in which they were found."""
    by_problem: dict[str, list[FinishedRun]] = {}
    for run in runs:
        by_problem.setdefault(repr(sorted(run.problem.items())), []).append(run)
    return [
        Group(sorted(group, key=lambda run: (-run.score.test.FinalAccuracy.mean, run.method)))
        for group in by_problem.values()
    ]
