"""The figures of one problem's tuning: sensitivity, maps of two hyperparameters, budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

from optiscope.report.appearance import Look
from optiscope.report.draw_budget import draw_budget
from optiscope.report.draw_sensitivity import draw_map, draw_sensitivity, span_of_results
from optiscope.report.legend import CHOSEN, FAILED_REGION, FAILED_TRIAL, PRUNED_TRIAL, Key
from optiscope.report.panels import FigureGroup, Panel, file_name
from optiscope.stats.sensitivity import (
    Sensitivity,
    Tried,
    numeric_names,
    selection_metric,
    sensitivity,
)
from optiscope.stats.study_table import PRUNED, StudyTables
from optiscope.stats.tuning_curve import TuningSummary

__all__ = ["budget_panels", "leading_sensitivities", "map_panels", "sensitivity_panels"]


def leading_sensitivities(
    tables: StudyTables, points: Mapping[str, Sequence[Tried]], looks: Mapping[str, Look]
) -> list[tuple[Look, Sensitivity]]:
    """Sensitivity of each tuned algorithm to its learning rate, or else its first number."""
    found = []
    for label, look in looks.items():
        for name in numeric_names(tables.algorithm(label).space)[:1]:
            against = sensitivity(tables, label, name, points[label])
            if against is not None:
                found.append((look, against))
    return found


def sensitivity_panels(
    tables: StudyTables,
    problem: str,
    slug: str,
    points: Mapping[str, Sequence[Tried]],
    looks: Mapping[str, Look],
) -> FigureGroup | None:
    """Result against the leading hyperparameter, a panel per tuned algorithm."""
    found = leading_sensitivities(tables, points, looks)
    if not found:
        return None
    span = span_of_results([c for _, c in found])
    failed = any(not math.isfinite(r) for _, c in found for r in c.results)
    region = any(c.failed_below is not None or c.failed_above is not None for _, c in found)
    pruned = any(PRUNED in p.statuses for of_label in points.values() for p in of_label)
    trial = PRUNED_TRIAL if pruned else FAILED_TRIAL
    keys = (CHOSEN,) + (trial,) * failed + (FAILED_REGION,) * region
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


def map_panels(
    tables: StudyTables,
    problem: str,
    slug: str,
    points: Mapping[str, Sequence[Tried]],
    looks: Mapping[str, Look],
) -> FigureGroup | None:
    """Result in the plane of two hyperparameters, a panel per algorithm that tunes two."""
    panels = []
    metric = selection_metric(tables)
    for label, look in looks.items():
        names = numeric_names(tables.algorithm(label).space)[:2]
        mine = [
            p
            for p in points[label]
            if len(names) == 2 and all(n in p.hyperparameters for n in names)
        ]
        if not mine:
            continue
        panels.append(
            Panel(
                name=f"{slug}-map-{file_name(label)}",
                draw=partial(
                    draw_map,
                    points=mine,
                    names=(names[0], names[1]),
                    metric=metric,
                    look=look,
                ),
                description=f"result against {names[0]} and {names[1]} of {label} on {problem}",
                left=0.75,
                right=0.62,
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


def budget_panels(
    tables: StudyTables,
    problem: str,
    slug: str,
    points: Mapping[str, Sequence[Tried]],
    tuned: Sequence[TuningSummary],
    looks: Mapping[str, Look],
) -> FigureGroup | None:
    """Expected best result against budget, all tuned algorithms in one panel."""
    metric = selection_metric(tables)
    curves = {
        t.algorithm: t.expected
        for t in tuned
        if t.problem == problem and t.algorithm in looks and t.expected and len(t.expected) > 1
    }
    if not curves:
        return None
    span = span_of_results([s for _, s in leading_sensitivities(tables, points, looks)])
    keys = tuple(Key.of(looks[label]) for label in curves)
    panel = Panel(
        name=f"{slug}-budget",
        draw=partial(draw_budget, curves=curves, looks=looks, metric=metric, span=span),
        description=f"expected best result of n trials against n on {problem}",
        keys=keys,
    )
    note = (
        "Mean of the best of n trials over all subsets of n of those stored. A failed trial is "
        "charged: it takes its place and counts as the worst result of any trial on this problem."
    )
    learns = [t.algorithm for t in tuned if t.algorithm in curves and not t.resampled]
    if learns:
        names = ", ".join(dict.fromkeys(learns))
        note += f" For {names}, whose sampler learns, the best so far in the order tried."
    return FigureGroup(
        f"{slug}-budget", "budget", "Result against tuning budget", note, (panel,), keys
    )
