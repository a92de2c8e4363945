"""The figures of one problem: which panels there are, what each shows, and its legend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np

from optiscope.records import higher_is_better
from optiscope.report.appearance import DASHES, INK, Look
from optiscope.report.draw_curves import draw_curves
from optiscope.report.draw_final import draw_final, row_label
from optiscope.report.draw_time import RelativeTime, draw_time
from optiscope.report.legend import MEAN, STOPPED_RUN, Key
from optiscope.report.number_text import point_text
from optiscope.report.panels import (
    FigureGroup,
    Panel,
    file_name,
    in_lines,
    label_width,
    rows_height,
)
from optiscope.report.tuning_panels import budget_panels, map_panels, sensitivity_panels
from optiscope.stats.curves import curve, measured
from optiscope.stats.goals import Goal, goals_of
from optiscope.stats.published import PublishedSetting, published_settings
from optiscope.stats.sensitivity import Tried
from optiscope.stats.study_table import StudyTables
from optiscope.stats.summary import Cost, Result
from optiscope.stats.tuning_curve import TuningSummary

__all__ = ["panels_of_problem"]

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
        budget_panels(tables, problem, slug, points, tuned, looks),
        _times(tables, problem, slug, costs, looks),
        sensitivity_panels(tables, problem, slug, points, looks),
        map_panels(tables, problem, slug, points, looks),
    ]
    return [group for group in groups if group is not None]


def _shown_settings(tables: StudyTables, problem: str) -> tuple[list[PublishedSetting], int]:
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


def _published_key(setting: PublishedSetting, number: int) -> Key:
    """Legend entry of a published setting: grey, told apart by its dashes."""
    point = f" ({point_text(setting.hyperparameters)})" if setting.hyperparameters else ""
    label = f"{setting.optimizer}{point}, published"
    return Key(label, PUBLISHED_GREYS[number % 2], DASHES[(number // 2 + 1) % len(DASHES)])


def _goal_key(goal: Goal) -> Key:
    """Legend entry of a goal: a dotted line."""
    return Key(f"goal: {goal.meaning}", INK, dashes=(1.0, 1.6))


def _learning_curves(
    tables: StudyTables, problem: str, slug: str, looks: Mapping[str, Look]
) -> FigureGroup | None:
    panels = []
    keys = [Key.of(look) for look in looks.values()]
    settings, left_out = _shown_settings(tables, problem)
    beside = [(_published_key(setting, n), setting) for n, setting in enumerate(settings)]
    keys += [key for key, _ in beside]
    goals = [(_goal_key(goal), goal.value) for goal in goals_of(tables) if goal.problem == problem]
    keys += [key for key, _ in goals]
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
                    goals=goals if (split, name) == ("test", tables.metric(problem)) else (),
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
    if any(tables.algorithm(label).early_stopping for label in looks):
        note += " A run that stopped early keeps its last value."
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
        left=label_width([in_lines(t.label) for t in times]),
        keys=keys,
    )
    note = (
        f"Bar: median over seeds of the ratio to {reference} with the same seed; line: from the "
        "lowest to the highest. Without evaluation. The runs shared a machine and were not "
        "interleaved: optiscope time measures speed with less disturbance."
    )
    return FigureGroup(f"{slug}-time", "time", "Time", note, (panel,), keys)
