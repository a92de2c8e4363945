"""The figures of one problem: which panels there are, what each shows, and its legend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np

from optiscope.report.appearance import DASHES, Look
from optiscope.report.draw_budget import draw_budget
from optiscope.report.draw_curves import draw_curves
from optiscope.report.draw_final import draw_final, row_label
from optiscope.report.draw_sensitivity import draw_map, draw_sensitivity, span_of_results
from optiscope.report.draw_time import RelativeTime, draw_time
from optiscope.report.legend import (
    CHOSEN,
    FAILED_REGION,
    FAILED_TRIAL,
    MEAN,
    PRUNED_TRIAL,
    STOPPED_RUN,
    Key,
)
from optiscope.report.number_text import point_text
from optiscope.report.panels import FigureGroup, Panel, file_name, label_width, rows_height
from optiscope.stats.curves import curve, measured
from optiscope.stats.published import PublishedSetting, published_settings
from optiscope.stats.sensitivity import (
    Sensitivity,
    Tried,
    numeric_names,
    selection_metric,
    sensitivity,
)
from optiscope.stats.study_table import PRUNED, StudyTables
from optiscope.stats.summary import Cost, Result, higher_is_better
from optiscope.stats.tuning_curve import TuningSummary

__all__ = ["leading_sensitivities", "panels_of_problem"]

SHOWN_PUBLISHED: Final = 6
"""Published settings drawn beside a study's own; more cannot be told apart."""

PUBLISHED_GREYS: Final = ("#4d4d4d", "#999999")

SPLITS: Final = ("train", "valid", "test")
"""Splits that have learning curves, in the order of their panels."""


def panels_of_problem(
    tables: StudyTables,
    problem: str,
    results: Sequence[Result],
    costs: Sequence[Cost],
    points: Mapping[str, Sequence[Tried]],
    tuned: Sequence[TuningSummary],
    looks: Mapping[str, Look],
) -> list[FigureGroup]:
    """Every group of figures of one problem that has something to show, in reading order."""
    slug = file_name(problem)
    groups = [
        _learning_curves(tables, problem, slug, looks),
        _final_values(problem, slug, results, looks),
        _budgets(tables, problem, slug, points, tuned, looks),
        _times(tables, problem, slug, costs, looks),
        _sensitivities(tables, problem, slug, points, looks),
        _maps(tables, problem, slug, points, looks),
    ]
    return [group for group in groups if group is not None]


def shown_settings(tables: StudyTables, problem: str) -> tuple[list[PublishedSetting], int]:
    """Published settings to draw, and the number left out: those that did worse in validation."""
    found = published_settings(tables.published, problem)
    if len(found) <= SHOWN_PUBLISHED:
        return found, 0
    metric = tables.metric(problem)
    sign = -1 if higher_is_better(metric) else 1

    def place(setting: PublishedSetting) -> float:
        value = sign * setting.final(f"valid_{metric}")
        return math.inf if math.isnan(value) else value

    return sorted(found, key=place)[:SHOWN_PUBLISHED], len(found) - SHOWN_PUBLISHED


def published_key(setting: PublishedSetting, number: int) -> Key:
    """Legend entry of a published setting: grey, told apart by its dashes."""
    point = f" ({point_text(setting.hyperparameters)})" if setting.hyperparameters else ""
    label = f"{setting.optimizer}{point}, published"
    return Key(label, PUBLISHED_GREYS[number % 2], DASHES[(number // 2 + 1) % len(DASHES)])


def _learning_curves(
    tables: StudyTables, problem: str, slug: str, looks: Mapping[str, Look]
) -> FigureGroup | None:
    panels = []
    keys = [Key.of(look) for look in looks.values()]
    settings, left_out = shown_settings(tables, problem)
    beside = [(published_key(setting, n), setting) for n, setting in enumerate(settings)]
    keys += [key for key, _ in beside]
    any_failed = False
    names = dict.fromkeys(name for split, name in measured(tables, problem) if split in SPLITS)
    order = sorted(names, key=lambda name: (name != "loss", name != "accuracy", name))
    for split, name in ((split, name) for name in order for split in SPLITS):
        found = {label: curve(tables, problem, label, split, name) for label in looks}
        curves = {label: c for label, c in found.items() if c is not None}
        if not curves:
            continue
        published = [(key, c) for key, s in beside if (c := s.curve(split, name)) is not None]
        failed = any(c.failed for c in curves.values())
        any_failed |= failed
        panels.append(
            Panel(
                name=f"{slug}-{split}-{name}",
                draw=partial(
                    draw_curves,
                    curves=curves,
                    looks=looks,
                    split=split,
                    name=name,
                    published=published,
                ),
                description=f"{split} {name} of each algorithm against epochs on {problem}",
                keys=(*keys, STOPPED_RUN) if failed else tuple(keys),
            )
        )
    if not panels:
        return None
    seeds = len(tables.declaration["seeds"])
    note = (
        f"Line: mean over the seeds that reached their end (of {seeds}); "
        "band: from the lowest to the highest of them. "
        if seeds > 1
        else "One seed: no spread is known. "
    )
    note += "The value axis is fitted to what follows the first tenth of the epochs."
    if settings:
        note += (
            " Grey: published elsewhere, with the range or standard deviation of its source; its "
            "splits are others, so that it enters no claim."
        )
    if left_out:
        note += f" {left_out} more published settings, worse in validation, are not drawn."
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
        height=rows_height(len(results)),
        left=label_width([row_label(r) for r in results]),
        keys=keys,
    )
    note = "One point per seed; the bar is their mean. Failed runs have no final value."
    return FigureGroup(f"{slug}-final", "final", "Final values", note, (panel,), keys)


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


def _sensitivities(
    tables: StudyTables,
    problem: str,
    slug: str,
    points: Mapping[str, Sequence[Tried]],
    looks: Mapping[str, Look],
) -> FigureGroup | None:
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


def _maps(
    tables: StudyTables,
    problem: str,
    slug: str,
    points: Mapping[str, Sequence[Tried]],
    looks: Mapping[str, Look],
) -> FigureGroup | None:
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


def _budgets(
    tables: StudyTables,
    problem: str,
    slug: str,
    points: Mapping[str, Sequence[Tried]],
    tuned: Sequence[TuningSummary],
    looks: Mapping[str, Look],
) -> FigureGroup | None:
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
        height=rows_height(len(times)),
        left=label_width([t.label for t in times]),
        keys=keys,
    )
    note = (
        f"Bar: median over seeds of the ratio to {reference} with the same seed; line: from the "
        "lowest to the highest. Without evaluation. The runs shared a machine and were not "
        "interleaved: optiscope time measures speed with less disturbance."
    )
    return FigureGroup(f"{slug}-time", "time", "Time", note, (panel,), keys)
