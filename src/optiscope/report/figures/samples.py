"""Figure of a few images of a data set with their classes.

Index legend: N images, C channels, H × W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from optiscope.report.figure_style import figure_style

__all__ = ["sample_figure"]


def sample_figure(
    title: str, images: NDArray[np.float64], labels: Sequence[str], columns: int = 6
) -> Figure:
    """Images side by side, each under its label.

    Args:
        title: of the figure.
        images: [N, C, H, W] from 0 to 1, with one channel or three.
        labels: N words.
        columns: images in a row.
    """
    rows = -(-len(images) // columns)
    with figure_style():
        figure = Figure(figsize=(1.15 * columns, 1.38 * rows + 0.3), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid:
            axes.set_axis_off()
        for axes, image, label in zip(grid, images, labels, strict=False):
            axes.imshow(image.transpose(1, 2, 0).squeeze(), cmap="gray", vmin=0, vmax=1)
            axes.set_title(label, fontsize=8, fontweight="normal", loc="center", pad=2)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure
