"""Expected best result against tuning budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from optiscope.records import higher_is_better
from optiscope.report.appearance import Look
from optiscope.report.axis_scale import set_linear
from optiscope.report.content import leading_sensitivities
from optiscope.report.figures.panel import FigureGroup, Panel, file_name
from optiscope.report.figures.sensitivity import (
    SpanOfResults,
    span_of_results,
)
from optiscope.report.legend import Key
from optiscope.report.number_text import axis_name
from optiscope.stats.sensitivity import (
    Tried,
    selection_metric,
)
from optiscope.stats.study_table import StudyTables
from optiscope.stats.tuning_curve import TuningSummary

__all__ = ["budget_panels", "draw_budget"]


def budget_panels(
    tables: StudyTables,
    problem: str,
    points: Mapping[str, Sequence[Tried]],
    tuned: Sequence[TuningSummary],
    looks: Mapping[str, Look],
) -> FigureGroup | None:
    """Expected best result against budget, all tuned algorithms in one panel."""
    slug = file_name(problem)
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


def draw_budget(
    axes: Axes,
    curves: Mapping[str, Sequence[float]],
    looks: Mapping[str, Look],
    metric: str,
    span: SpanOfResults | None,
) -> None:
    """Expected best result of n trials against n, by label; beyond ``span`` the lines leave."""
    split, _, name = metric.partition("_")
    scale = 100.0 if name == "accuracy" else 1.0
    for label, expected in curves.items():
        look = looks[label]
        (line,) = axes.plot(
            np.arange(1, len(expected) + 1),
            scale * np.array(expected),
            color=look.color,
            linestyle=look.linestyle,
            marker=look.marker,
            markersize=look.size,
            markevery=max(1, len(expected) // 6),
            markeredgecolor="white",
            markeredgewidth=0.5,
        )
        line.set_gid(f"{look.group}-budget")
    if span is not None:
        bottom, top = axes.get_ylim()
        if higher_is_better(name):
            axes.set_ylim(bottom=max(bottom, scale * span[0]))
        else:
            axes.set_ylim(top=min(top, scale * span[1]))
    axes.set_title("Expected best against budget")
    axes.set_xlabel("tuning budget (trials)")
    axes.set_ylabel(axis_name(split, name))
    set_linear(axes, "x", integer=True)
