"""Whether algorithms reach a figure known from elsewhere, such as a published mean.

A goal is one number, taken as exact; each algorithm's seeds are held against it by Student's t.
Nothing but an assumption says how seeds lie about a number from elsewhere, so that the test's is
stated: final values are normally distributed over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from optiscope.records import higher_is_better
from optiscope.stats.curves import curve
from optiscope.stats.study_table import NO_OUTCOME, StudyTables
from optiscope.stats.summary import Result

__all__ = ["Goal", "GoalResult", "goal_results", "goals_of"]


_Verdict = Literal["reached", "missed", "undecided", "failed", "unfinished"]


@dataclass(frozen=True)
class Goal:
    """A figure to reach.

    Attributes:
        problem: on which.
        value: of the problem's reported test metric, accuracies as fractions.
        meaning: what the figure is and where it comes from, in words.
    """

    problem: str
    value: float
    meaning: str


@dataclass(frozen=True)
class GoalResult:
    """An algorithm beside a goal.

    Attributes:
        goal: the figure.
        algorithm: label.
        metric: that it is a figure of.
        mean: of the algorithm's final values; NaN without any.
        interval: of the mean, at the corrected level.
        level: probability of a false verdict, Bonferroni over all goals, algorithms and, of a study
            that adds seeds until it is decided, stages.
        p_value: two-sided, of the hypothesis that the mean is the goal; NaN below two seeds.
        verdict: ``reached`` or ``missed`` where the interval leaves the goal out, else
            ``undecided``; ``failed`` where a run failed, ``unfinished`` where one is still to come.
        epoch: first at which the mean over seeds was there; infinite where it never was or curves
            were not read.
    """

    goal: Goal
    algorithm: str
    metric: str
    mean: float
    interval: tuple[float, float]
    level: float
    p_value: float
    verdict: _Verdict
    epoch: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def goals_of(tables: StudyTables) -> list[Goal]:
    """The goals a study declares, in its order."""
    return [Goal(**values) for values in tables.declaration.get("goals", ())]


def goal_results(tables: StudyTables, results: Sequence[Result]) -> list[GoalResult]:
    """Every result of the study beside the goals of its problem."""
    goals = goals_of(tables)
    pairs = [(g, r) for g in goals for r in results if r.problem == g.problem]
    stages = (tables.declaration.get("until_decided") or {}).get("stages") or (0,)
    looks = len(goals) * len(tables.labels) * len(stages)
    level = float(tables.declaration["level"]) / max(1, looks)
    return [_compare(tables, goal, result, level) for goal, result in pairs]


def _compare(tables: StudyTables, goal: Goal, result: Result, level: float) -> GoalResult:
    values = np.array(list(result.values.values()))
    p_value, interval = math.nan, (math.nan, math.nan)
    if len(values) > 1 and np.ptp(values) > 0:
        test = stats.ttest_1samp(values, goal.value)
        p_value = float(test.pvalue)
        found = test.confidence_interval(1 - level)
        interval = (float(found.low), float(found.high))
    verdict: _Verdict = "undecided"
    if not result.all_complete:
        verdict = "unfinished" if set(result.failed) <= {*NO_OUTCOME} else "failed"
    elif p_value < level:
        above = result.mean > goal.value
        verdict = "reached" if above == higher_is_better(result.metric) else "missed"
    epoch = math.inf
    measured = curve(tables, goal.problem, result.algorithm, "test", result.metric)
    if measured is not None:
        sign = 1 if higher_is_better(result.metric) else -1
        there = measured.epochs[sign * measured.mean >= sign * goal.value]
        epoch = float(there[0]) if len(there) else math.inf
    return GoalResult(
        goal, result.algorithm, result.metric, result.mean, interval, level, p_value, verdict, epoch
    )
