"""Figures from plain arrays: what is drawn is what was given, and nothing hides it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.figure import Figure

from optiscope.report.figures.samples import sample_figure
from optiscope.report.figures.signal_propagation import Spread, spread_figure
from optiscope.report.figures.textbook import Curve, Ground, Walk, curve_figure, landscape_figure


def bowl() -> Ground:
    u, v = np.linspace(-2, 2, 21), np.linspace(-1, 1, 11)
    losses = u[None, :] ** 2 + v[:, None] ** 2
    return Ground(u, v, losses, names=("a", "b"), minima=[(0.0, 0.0)], lines={"edge": np.eye(2)})


def spiral(steps: int) -> Walk:
    points = np.stack([0.9 ** np.arange(steps), (-0.5) ** np.arange(steps)], 1)
    return Walk(points, (points**2).sum(1))


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def drawn(figure: Figure, axes: int) -> list[np.ndarray]:
    return [np.asarray(line.get_xydata()) for line in figure.axes[axes].lines]


def test_every_path_is_drawn_over_the_ground_and_named() -> None:
    walks = {"one": spiral(30), "two": spiral(100)}
    figure = landscape_figure("paths", bowl(), walks)
    assert legend_of(figure) == ["one", "two", "edge", "minimum"]
    for walk in walks.values():
        assert any(np.array_equal(line, walk.points) for line in drawn(figure, 0))
        assert any(np.array_equal(line[:, 1], walk.losses) for line in drawn(figure, 1))
    assert figure.axes[0].get_xlim() == (-2, 2)
    assert figure.axes[1].get_yscale() == "log"


def test_title_and_legend_do_not_overlap_the_axes() -> None:
    figure = landscape_figure("a title", bowl(), {"one": spiral(10), "two": spiral(20)})
    figure.savefig(io.BytesIO(), format="png")
    (legend,) = figure.legends
    title = figure._suptitle  # type: ignore[attr-defined]
    below, above = legend.get_window_extent(), title.get_window_extent()
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert box is not None
        assert box.y0 >= below.y1 - 1
        assert box.y1 <= above.y0 + 1


def test_a_path_that_is_thrown_away_does_not_set_the_scale() -> None:
    thrown = Walk(np.zeros((3, 2)), np.array([1.0, 1e9, 1e12]))
    figure = landscape_figure("", bowl(), {"thrown": thrown, "held": spiral(30)})
    bottom, top = figure.axes[1].get_ylim()
    assert 0 < bottom < 0.5 * spiral(30).losses[-1] * 1.01
    assert top <= 2 * 100 * 2


def test_losses_below_zero_are_on_a_linear_scale() -> None:
    walk = Walk(np.zeros((3, 2)), np.array([1.0, 0.0, -1.0]))
    figure = landscape_figure("", bowl(), {"one": walk}, reference=-1.0)
    assert figure.axes[1].get_yscale() == "linear"


def test_curves_of_one_label_share_an_entry_and_a_colour() -> None:
    x = np.arange(1.0, 5.0)
    panels = {
        "left": [Curve("a", x, x), Curve("theory", x, 2 * x, theory=True)],
        "right": [Curve("b", x, x), Curve("a", x, 3 * x), Curve("theory", x, x, theory=True)],
    }
    figure = curve_figure("curves", panels, x="k", y="value", log="xy")
    assert legend_of(figure) == ["a", "b", "theory"]
    left, right = figure.axes
    assert left.lines[0].get_color() == right.lines[1].get_color()
    assert left.get_xscale() == right.get_yscale() == "log"
    assert len(curve_figure("one", {"": panels["left"]}, x="k", y="v").axes) == 1


def test_spread_has_a_line_for_each_rule_and_leaves_out_what_is_not_positive() -> None:
    spreads = {
        "he": Spread(["a", "b"], [1.0, 0.5], [0.1, float("nan")]),
        "zeros": Spread(["a", "b"], [1.0, 0.0], [0.1, 0.2]),
    }
    figure = spread_figure("spread", spreads)
    assert legend_of(figure) == ["he", "zeros"]
    left, right = figure.axes
    np.testing.assert_array_equal(left.lines[0].get_xdata(), [1.0, 0.5])
    assert np.isnan(np.asarray(left.lines[1].get_xdata(), dtype=float)[1])
    assert np.isnan(np.asarray(right.lines[0].get_xdata(), dtype=float)[1])
    assert [t.get_text() for t in left.get_yticklabels()] == ["a", "b"]
    assert left.yaxis_inverted(), "the first layer stands on top"


def test_an_axis_of_spread_has_numbers_however_narrow() -> None:
    spreads = {"he": Spread(["a", "b"], [0.29, 0.56], [0.02, 0.3])}
    figure = spread_figure("spread", spreads)
    figure.canvas.draw()
    for axes in figure.axes:
        low, high = axes.get_xlim()
        ticks = [t for t in axes.get_xticklabels() if low <= t.get_position()[0] <= high]
        assert len([tick for tick in ticks if tick.get_text()]) >= 2


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_drawn_with_their_labels(channels: int) -> None:
    images = np.random.default_rng(0).uniform(size=(4, channels, 5, 6))
    figure = sample_figure("images", images, ["a", "b", "c", "d"], columns=3)
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == ["a", "b", "c", "d"]
    array = np.asarray(shown[2].images[0].get_array())
    np.testing.assert_allclose(array, images[2].transpose(1, 2, 0).squeeze())
