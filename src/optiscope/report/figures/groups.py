"""Every figure of a study, in reading order."""

from __future__ import annotations

from collections.abc import Iterator

from optiscope.report.content import ProblemContent, ReportContent
from optiscope.report.figures.budget import budget_panels
from optiscope.report.figures.final_values import final_values
from optiscope.report.figures.forest import forest_panel
from optiscope.report.figures.learning_curves import learning_curves
from optiscope.report.figures.map import map_panels
from optiscope.report.figures.panel import FigureGroup, Panel
from optiscope.report.figures.profile import profile_panels
from optiscope.report.figures.ranks import rank_panels
from optiscope.report.figures.sensitivity import sensitivity_panels
from optiscope.report.figures.step_time import step_times

__all__ = ["differences_of", "groups_of_problem", "groups_of_study", "panels"]


def differences_of(content: ReportContent, problem: str) -> Panel | None:
    """Differences to the study's baseline on one problem, where the baseline is shown."""
    baseline = str(content.tables.declaration["reference"])
    if baseline not in content.looks:
        return None
    metric = content.tables.metric(problem)
    return forest_panel(problem, metric, content.claims, content.looks, baseline)


def groups_of_problem(content: ReportContent, problem: ProblemContent) -> list[FigureGroup]:
    """Figures of one problem that have something to show."""
    tables, looks, name = content.tables, content.looks, problem.problem
    tuned = list(problem.tuned.values())
    groups = [
        learning_curves(tables, name, looks),
        final_values(name, problem.results, looks),
        budget_panels(tables, name, problem.tried, tuned, looks),
        step_times(tables, name, problem.costs, looks),
        sensitivity_panels(tables, name, problem.tried, looks),
        map_panels(tables, name, problem.tried, looks),
    ]
    return [group for group in groups if group is not None]


def groups_of_study(content: ReportContent) -> list[FigureGroup]:
    """Figures over all problems; none for a single problem or algorithm."""
    tables, looks = content.tables, content.looks
    if len(tables.problems) < 2 or len(looks) < 2:
        return []
    groups = [
        profile_panels(tables, content.targets, looks),
        rank_panels(tables, content.targets, looks),
    ]
    return [group for group in groups if group is not None]


def panels(content: ReportContent) -> Iterator[Panel]:
    """Every panel of every figure."""
    for problem in content.problems:
        if (forest := differences_of(content, problem.problem)) is not None:
            yield forest
        for group in groups_of_problem(content, problem):
            yield from group.panels
    for group in groups_of_study(content):
        yield from group.panels
