"""Every figure has title, labels and legend, and none of them covers anything."""

import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from optiscope.records import StudyFolder
from optiscope.report.appearance import looks
from optiscope.report.content import assemble
from optiscope.report.figure_style import figure_style
from optiscope.report.figures.groups import panels as all_panels
from optiscope.report.figures.optimizer_time import write_time_figure
from optiscope.report.figures.panel import Panel
from optiscope.report.page.page import page_figure
from optiscope.report.paper import paper_figure, text_scale, write_figures
from optiscope.stats.claims import claims_from
from optiscope.stats.study_table import read_study

LONG = "stochastic gradient descent with momentum, weight decay and a schedule of its own"


def _panels(folder: StudyFolder, rename: dict[str, str] | None = None) -> list[Panel]:
    tables = read_study(folder, rename=rename)
    content = assemble(tables, looks(tables.labels), claims_from(tables.evidence))
    return list(all_panels(content))


@pytest.fixture(scope="module")
def panels(crowded: StudyFolder, alone: StudyFolder) -> list[Panel]:
    """A panel of each kind, of studies of twelve algorithms and of one."""
    many = [p for p in _panels(crowded) if "digits-mlp" not in p.name]  # on the other, one fails
    alike = {p.name.split("-")[2]: p for p in many if p.algorithm is not None}
    curves = [p for p in _panels(alone) if p.name.endswith(("test-loss", "final", "time"))]
    long = [p for p in _panels(alone, {"SGD": LONG}) if not p.name.endswith(("loss", "accuracy"))]
    return [*(p for p in many if p.algorithm is None), *alike.values(), *curves, *long]


def _beyond(axes: Axes) -> Iterator[Text]:
    """Labels of ticks outside the limits, which are there but not drawn."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():
            if not low <= tick.get_loc() <= high:
                yield from (tick.label1, tick.label2)


def _texts(figure: Figure) -> Iterator[tuple[Text, Bbox]]:
    beyond = {id(text) for axes in figure.axes for text in _beyond(axes)}
    for text in figure.findobj(Text):
        if id(text) not in beyond and text.get_visible() and text.get_text().strip():
            yield text, text.get_window_extent()


def _drawn(figure: Figure) -> Figure:
    figure.draw_without_rendering()
    return figure


def _check_labels(figure: Figure, panel: Panel) -> None:
    axes = figure.axes[0]
    assert axes.get_title(loc="left") or panel.name.endswith("-differences"), panel.name
    assert axes.get_xlabel(), panel.name
    named = [tick.get_text() for tick in axes.get_yticklabels()]
    assert axes.get_ylabel() or any(any(c.isalpha() for c in name) for name in named), panel.name


def _check_texts(figure: Figure, panel: Panel) -> None:
    """All text lies inside the figure, and no two texts outside the axes cover each other."""
    frame = figure.bbox
    texts = list(_texts(figure))
    for text, box in texts:
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= frame.x1 + 1 and box.y1 <= frame.y1 + 1
        assert inside, f"{panel.name}: {text.get_text()!r} leaves the figure"
    ends = [(t, b) for t, b in texts if t.axes is None or not t.axes.bbox.contains(*b.min)]
    for (first, a), (second, b) in combinations(ends, 2):
        overlap = Bbox.intersection(a.padded(-1), b.padded(-1))
        words = f"{first.get_text()!r} and {second.get_text()!r}"
        assert overlap is None or overlap.width * overlap.height < 4, f"{panel.name}: {words}"


def test_panels_of_the_page(panels: list[Panel]) -> None:
    for panel in panels:
        with figure_style():
            figure = _drawn(page_figure(panel))
        _check_labels(figure, panel)
        _check_texts(figure, panel)


@pytest.mark.parametrize("width", [3.25, pytest.param(6.75, marks=pytest.mark.slow)])
def test_figures_for_a_paper(panels: list[Panel], width: float) -> None:
    for panel in panels:
        with figure_style(text_scale(width)):
            figure = _drawn(paper_figure(panel, width))
        assert figure.get_figwidth() == width
        _check_labels(figure, panel)
        _check_texts(figure, panel)
        (legend,) = figure.legends
        for axes in figure.axes:
            assert not legend.get_window_extent().overlaps(axes.bbox), panel.name
        shown = {text.get_text().replace("\n", " ") for text in legend.get_texts()}
        assert shown == {key.label for key in panel.keys}


def test_figures_are_written_with_their_fonts(alone: StudyFolder, tmp_path: Path) -> None:
    chosen = [p for p in _panels(alone) if p.name.endswith(("test-accuracy", "-final"))]
    write_figures(chosen, tmp_path / "figures", ("pdf", "png"), 3.25)
    written = sorted(path.name for path in (tmp_path / "figures").iterdir())
    stems = ["digits-mlp-final", "digits-mlp-test-accuracy"]
    assert written == [f"{stem}.{end}" for stem in stems for end in ("pdf", "png")]
    for stem in stems:
        pdf = (tmp_path / "figures" / f"{stem}.pdf").read_bytes()
        assert pdf.startswith(b"%PDF")
        assert b"/FontFile2" in pdf
        assert b"/Type3" not in pdf
        size = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", pdf)
        assert size is not None
        assert float(size[1]) == pytest.approx(3.25 * 72)
        assert (tmp_path / "figures" / f"{stem}.png").read_bytes().startswith(b"\x89PNG")


def test_the_figure_of_optiscope_time(tmp_path: Path) -> None:
    rows = [
        {"optimizer": "sgd", "ratio": {"median": 1.0, "low": 1.0, "high": 1.0}},
        {"optimizer": "adam", "ratio": {"median": 1.3, "low": 1.2, "high": 1.45}},
    ]
    content = {"problem": "mnist_mlp", "reference": "sgd", "rows": rows}
    written = write_time_figure(content, tmp_path)
    assert [path.name for path in written] == ["time.pdf", "time.png"]
    assert all(path.stat().st_size > 5000 for path in written)
