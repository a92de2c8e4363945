"""Figure of the spread of activations and gradients from layer to layer, one line for each rule.

Index legend: L layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from optiscope.report.appearance import Look, looks
from optiscope.report.axis_scale import set_log
from optiscope.report.figure_style import figure_style
from optiscope.report.legend import Key

__all__ = ["Spread", "spread_figure"]


@dataclass(frozen=True)
class Spread:
    """What one initialisation gives.

    Attributes:
        layers: names of the L layers, in the model's order.
        activations: standard deviation of each layer's outputs, [L].
        gradients: root mean square of a sample's loss's gradient by them, [L]; NaN where none.
    """

    layers: Sequence[str]
    activations: Sequence[float]
    gradients: Sequence[float]


def spread_figure(title: str, spreads: Mapping[str, Spread]) -> Figure:
    """Activations and gradients per layer on logarithmic scales; a level line is a good sign.

    Args:
        title: of the figure.
        spreads: by initialisation; all of the same layers.
    """
    layers = list(next(iter(spreads.values())).layers)
    styles = looks(list(spreads))
    with figure_style():
        height = max(3.2, 0.2 * len(layers) + 1.4)
        figure = Figure(figsize=(8.4, height), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for label, spread in spreads.items():
            _draw(left, spread.activations, styles[label])
            _draw(right, spread.gradients, styles[label])
        _fit(left, [spread.activations for spread in spreads.values()])
        _fit(right, [spread.gradients for spread in spreads.values()])
        left.set_yticks(range(len(layers)), layers)
        left.invert_yaxis()
        left.set_title("activations")
        left.set_xlabel("standard deviation of outputs")
        right.set_title("gradients")
        right.set_xlabel("gradient of a sample's loss by an output, RMS")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        figure.legend(
            handles=[
                Key(label, look.color, look.dashes, look.marker).handle()
                for label, look in styles.items()
            ],
            loc="outside lower left",
            ncols=min(len(spreads), 4),
            handlelength=2.6,
        )
    return figure


def _draw(axes: Axes, values: Sequence[float], look: Look) -> None:
    shown = np.array(values, dtype=np.float64)
    shown[~(shown > 0)] = np.nan
    axes.plot(
        shown,
        np.arange(len(shown)),
        color=look.color,
        linestyle=look.linestyle,
        marker=look.marker,
        markersize=4.5,
    )


def _fit(axes: Axes, columns: Sequence[Sequence[float]]) -> None:
    """A logarithmic axis with labels, from the least positive value to the largest."""
    positive = [value for values in columns for value in values if 0 < value < math.inf]
    if not positive:
        axes.set_xscale("log")
        return
    low, high = min(positive), max(positive)
    margin = max((high / low) ** 0.05, 1.1)
    set_log(axes, "x", low / margin, high * margin)
