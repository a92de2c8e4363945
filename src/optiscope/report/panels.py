"""The figures of a study: which panels there are, what each shows, and its legend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from optiscope.report.appearance import Look
from optiscope.report.draw_budget import BudgetCurve, draw_budget
from optiscope.report.draw_curves import draw_curves
from optiscope.report.draw_final import draw_final
from optiscope.report.draw_sensitivity import draw_map, draw_sensitivity, span_of_results
from optiscope.report.draw_time import RelativeTime, draw_time
from optiscope.report.legend import (
    CHOSEN,
    FAILED_REGION,
    FAILED_TRIAL,
    MEAN,
    STOPPED_RUN,
    Key,
)
from optiscope.stats.curves import curve
from optiscope.stats.sensitivity import (
    Sensitivity,
    numeric_names,
    selection_metric,
    sensitivity,
    tried,
)
from optiscope.stats.study_table import StudyTables
from optiscope.stats.summary import Cost, Result, higher_is_better
from optiscope.stats.tuning_budget import best_of_n, best_so_far

__all__ = ["FigureGroup", "Panel", "leading_sensitivities", "panels_of_problem"]

CURVES = [(split, name) for name in ("loss", "accuracy") for split in ("train", "valid", "test")]


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        name: unique in the study, fit for a file name.
        draw: puts title, labels and artists on the axes.
        description: read out by screen readers.
        height: of the figure over its width.
        keys: legend.
        algorithm: number of the only algorithm shown, or None.
    """

    name: str
    draw: Callable[[Axes], None]
    description: str
    height: float = 0.72
    keys: tuple[Key, ...] = ()
    algorithm: int | None = None


@dataclass(frozen=True)
class FigureGroup:
    """Panels that belong together under one heading and one legend.

    Attributes:
        name: unique in the study.
        kind: ``curves``, ``final``, ``sensitivity``, ``map``, ``budget``, ``time`` or ``profile``.
        heading: above the panels.
        note: what the marks mean.
        panels: in reading order.
        keys: legend.
    """

    name: str
    kind: str
    heading: str
    note: str
    panels: tuple[Panel, ...]
    keys: tuple[Key, ...] = field(default=())


def panels_of_problem(
    tables: StudyTables,
    problem: str,
    results: Sequence[Result],
    costs: Sequence[Cost],
    looks: Mapping[str, Look],
) -> list[FigureGroup]:
    """Every group of figures of one problem that has something to show, in reading order."""
    slug = file_name(problem)
    groups = [
        _learning_curves(tables, problem, slug, looks),
        _final_values(problem, slug, results, looks),
        _sensitivities(tables, problem, slug, looks),
        _maps(tables, problem, slug, looks),
        _budgets(tables, problem, slug, looks),
        _times(tables, problem, slug, costs, looks),
    ]
    return [group for group in groups if group is not None]


def file_name(text: str) -> str:
    """The text with everything but letters, digits and hyphens replaced by hyphens."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text).strip("-").lower()


def _learning_curves(
    tables: StudyTables, problem: str, slug: str, looks: Mapping[str, Look]
) -> FigureGroup | None:
    panels = []
    keys = [Key.of(look) for look in looks.values()]
    any_failed = False
    for split, name in CURVES:
        found = {label: curve(tables, problem, label, split, name) for label in looks}
        curves = {label: c for label, c in found.items() if c is not None}
        if not curves:
            continue
        failed = any(c.failed for c in curves.values())
        any_failed |= failed
        panels.append(
            Panel(
                name=f"{slug}-{split}-{name}",
                draw=partial(draw_curves, curves=curves, looks=looks, split=split, name=name),
                description=f"{split} {name} of each algorithm against epochs on {problem}",
                keys=(*keys, STOPPED_RUN) if failed else tuple(keys),
            )
        )
    if not panels:
        return None
    seeds = len(tables.declaration["seeds"])
    note = (
        f"Line: mean over the seeds that reached their end (of {seeds}); "
        "band: from the lowest to the highest of them."
        if seeds > 1
        else "One seed: no spread is known."
    )
    if any_failed:
        note += " A run that failed is drawn by itself as a thin line that ends in a cross."
    return FigureGroup(
        f"{slug}-curves",
        "curves",
        "Learning curves",
        note,
        tuple(panels),
        (*keys, STOPPED_RUN) if any_failed else tuple(keys),
    )


def _final_values(
    problem: str, slug: str, results: Sequence[Result], looks: Mapping[str, Look]
) -> FigureGroup | None:
    if not any(r.values for r in results):
        return None
    keys = (*(Key.of(look, line=False) for look in looks.values()), MEAN)
    panel = Panel(
        name=f"{slug}-final",
        draw=partial(draw_final, results=results, looks=looks),
        description=f"final test {results[0].metric} of every seed on {problem}",
        height=_rows_height(len(results)),
        keys=keys,
    )
    note = "One point per seed; the bar is their mean. Failed runs have no final value."
    return FigureGroup(f"{slug}-final", "final", "Final values", note, (panel,), keys)


def leading_sensitivities(
    tables: StudyTables, problem: str, looks: Mapping[str, Look]
) -> list[tuple[Look, Sensitivity]]:
    """Sensitivity of each tuned algorithm to its learning rate, or else its first number."""
    found = []
    for label, look in looks.items():
        points = tried(tables, problem, label)
        for name in numeric_names(tables.algorithm(label).space)[:1]:
            against = sensitivity(tables, problem, label, name, points)
            if against is not None:
                found.append((look, against))
    return found


def _sensitivities(
    tables: StudyTables, problem: str, slug: str, looks: Mapping[str, Look]
) -> FigureGroup | None:
    found = leading_sensitivities(tables, problem, looks)
    if not found:
        return None
    span = span_of_results([c for _, c in found])
    keys = (CHOSEN, FAILED_TRIAL, FAILED_REGION)
    panels = tuple(
        Panel(
            name=f"{slug}-sensitivity-{file_name(look.label)}",
            draw=partial(draw_sensitivity, curve=c, look=look, span=span),
            description=f"result against {c.name} of {look.label} on {problem}",
            keys=keys,
            algorithm=look.number,
        )
        for look, c in found
    )
    note = (
        "One point per trial of the tuning, mean over its tuning seeds; results beyond the axis "
        "stand at its edge. The axis spans the search space."
    )
    return FigureGroup(f"{slug}-sensitivity", "sensitivity", "Sensitivity", note, panels, keys)


def _maps(
    tables: StudyTables, problem: str, slug: str, looks: Mapping[str, Look]
) -> FigureGroup | None:
    panels = []
    metric = selection_metric(tables)
    for label, look in looks.items():
        names = numeric_names(tables.algorithm(label).space)[:2]
        points = [
            p
            for p in tried(tables, problem, label)
            if len(names) == 2 and all(n in p.hyperparameters for n in names)
        ]
        if not points:
            continue
        panels.append(
            Panel(
                name=f"{slug}-map-{file_name(label)}",
                draw=partial(
                    draw_map,
                    points=points,
                    names=(names[0], names[1]),
                    metric=metric,
                    look=look,
                ),
                description=f"result against {names[0]} and {names[1]} of {label} on {problem}",
                keys=(FAILED_TRIAL,),
                algorithm=look.number,
            )
        )
    if not panels:
        return None
    note = "One point per trial, its result as colour; the ring marks the chosen one."
    keys = (FAILED_TRIAL,)
    return FigureGroup(
        f"{slug}-map", "map", "Two hyperparameters at once", note, tuple(panels), keys
    )


def _budgets(
    tables: StudyTables, problem: str, slug: str, looks: Mapping[str, Look]
) -> FigureGroup | None:
    metric = selection_metric(tables)
    better = higher_is_better(metric)
    curves = {}
    in_order = []
    for label in looks:
        values = [point.value for point in tried(tables, problem, label)]
        if len(values) < 2:
            continue
        if tables.algorithm(label).sampler == "tpe":
            in_order.append(label)
            curves[label] = BudgetCurve(best_so_far(values, higher_is_better=better), None, None)
        else:
            best = best_of_n(values, higher_is_better=better)
            curves[label] = BudgetCurve(best.median, best.lower, best.upper)
    if not curves:
        return None
    keys = tuple(Key.of(looks[label]) for label in curves)
    panel = Panel(
        name=f"{slug}-budget",
        draw=partial(draw_budget, curves=curves, looks=looks, metric=metric),
        description=f"best result of n trials against n on {problem}",
        keys=keys,
    )
    note = (
        "Line: median of the best of n trials, drawn without replacement from those stored; band: "
        "quartiles. Failed trials take their draw and count as worst: a line starts where "
        "most draws hold a trial that worked."
    )
    if in_order:
        note += f" Best so far in the order tried for {', '.join(in_order)} (the sampler learns)."
    return FigureGroup(
        f"{slug}-budget", "budget", "Result against tuning budget", note, (panel,), keys
    )


def _times(
    tables: StudyTables,
    problem: str,
    slug: str,
    costs: Sequence[Cost],
    looks: Mapping[str, Look],
) -> FigureGroup | None:
    reference = str(tables.declaration["reference"])
    times = [
        RelativeTime(
            c.algorithm, float(np.median(c.ratios)), float(min(c.ratios)), float(max(c.ratios))
        )
        for c in costs
        if c.ratios
    ]
    if not times:
        return None
    keys = tuple(Key.of(looks[t.label], area=True) for t in times)
    panel = Panel(
        name=f"{slug}-time",
        draw=partial(draw_time, times=times, looks=looks, reference=reference),
        description=f"time per training step relative to {reference} on {problem}",
        height=_rows_height(len(times)),
        keys=keys,
    )
    note = (
        f"Bar: median over seeds of the ratio to {reference} with the same seed; line: from the "
        "lowest to the highest. Without evaluation. The runs shared a machine and were not "
        "interleaved: optiscope time measures speed with less disturbance."
    )
    return FigureGroup(f"{slug}-time", "time", "Time", note, (panel,), keys)


def _rows_height(rows: int) -> float:
    return 0.26 + 0.075 * max(rows, 4)
