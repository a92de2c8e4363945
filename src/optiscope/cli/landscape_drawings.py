"""What the landscape commands draw, write and say of their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from optiscope.atomic_file import write_atomically
from optiscope.landscape.basins import BasinMatrix
from optiscope.landscape.lines import Line
from optiscope.landscape.matching import UnitMatch
from optiscope.landscape.path import Path as LandscapePath
from optiscope.landscape.planes import Plane
from optiscope.records import StoreError
from optiscope.records.store import explain
from optiscope.report.figures.landscape import (
    Curves,
    LineData,
    MatrixData,
    PathData,
    PlaneData,
    contour_figure,
    line_figure,
    matrix_figure,
    path_figure,
    surface_figure,
)
from optiscope.report.page.landscape_page import LandscapeSection, render_landscape_page

__all__ = [
    "Drawing",
    "draw_basins",
    "draw_line",
    "draw_match",
    "draw_path",
    "draw_plane",
    "write_drawings",
]

RESOLUTION = 200


@dataclass(frozen=True)
class Drawing:
    """A result with its figures.

    Attributes:
        name: of the files, and key in JSON.
        heading: in the page.
        summary: one line for the terminal.
        caption: what was computed, at what cost, with what error.
        numbers: plain values for JSON.
        figures: by file name, each drawn with a given caption.
        surface: a plane that can be turned in the page.
    """

    name: str
    heading: str
    summary: str
    caption: str
    numbers: dict[str, Any]
    figures: dict[str, Callable[[str], Figure]]
    surface: PlaneData | None = None


def draw_line(problem: str, line: Line) -> Drawing:
    """Loss and accuracy along a line."""
    curves = {"train": Curves(line.losses.numpy(), _numpy(line.accuracies))} | {
        name: Curves(curve.losses.numpy(), _numpy(curve.accuracies))
        for name, curve in line.others.items()
    }
    data = LineData(f"{problem}: the line through two solutions", line.coefficients.numpy(), curves)
    return Drawing(
        "line",
        "The straight line through both solutions",
        f"line: barrier {line.barrier:.3g} between the solutions, distance {line.distance:.3g}",
        line.caption,
        {
            "coefficients": line.coefficients.tolist(),
            "losses": {name: curve.losses.tolist() for name, curve in curves.items()},
            "accuracies": {
                name: curve.accuracies.tolist()
                for name, curve in curves.items()
                if curve.accuracies is not None
            },
            "barrier": line.barrier,
            "distance": line.distance,
            "seconds": line.cost.seconds,
        },
        {"line": lambda caption: line_figure(_captioned(data, caption))},
    )


def draw_path(problem: str, path: LandscapePath) -> Drawing:
    """Loss along a path, beside the straight line."""
    data = PathData(
        f"{problem}: a path between two solutions",
        path.positions.numpy(),
        path.losses.numpy(),
        np.array(path.line.positions),
        np.array(path.line.losses),
        path.barrier,
        path.line_barrier,
        path.where,
    )
    state = "converged" if path.converged else "gradients ran out"
    return Drawing(
        "path",
        "A path that stays low",
        f"path: barrier {path.barrier:.3g}, on the straight line {path.line_barrier:.3g} "
        f"({path.cost.gradients:.0f} gradients, {state})",
        path.caption,
        {
            "positions": path.positions.tolist(),
            "losses": path.losses.tolist(),
            "barrier": path.barrier,
            "line_barrier": path.line_barrier,
            "where": path.where,
            "converged": path.converged,
            "length": path.length,
            "straight_length": path.straight_length,
            "ends": [
                {"loss": e.loss, "gradient_norm": e.gradient_norm, "fall": e.fall}
                for e in path.ends
            ],
            "gradients": path.cost.gradients,
            "forwards": path.cost.forwards,
            "seconds": path.cost.seconds,
        },
        {"path": lambda caption: path_figure(_captioned(data, caption))},
    )


def draw_plane(problem: str, plane: Plane, path_losses: Sequence[float] = ()) -> Drawing:
    """A plane from above and as a surface."""
    directions = plane.directions
    data = PlaneData(
        f"{problem}: the loss on a plane",
        plane.x.numpy(),
        plane.y.numpy(),
        plane.losses.numpy(),
        directions.names,
        directions.marks,
        np.empty((0, 2)) if directions.path is None else directions.path.numpy(),
        np.array(path_losses),
        directions.share is not None,
    )
    holes = f", {plane.not_finite} not finite" if plane.not_finite else ""
    share = "" if directions.share is None else f", {sum(directions.share):.0%} of the variance"
    return Drawing(
        "plane",
        "The loss on a plane",
        f"plane: {len(plane.x)} x {len(plane.y)} points{share}, lowest "
        f"{float(plane.losses.nan_to_num(float('inf')).min()):.3g}{holes}",
        plane.caption,
        {
            "x": plane.x.tolist(),
            "y": plane.y.tolist(),
            "losses": plane.losses.tolist(),
            "share": directions.share,
            "not_finite": plane.not_finite,
            "seconds": plane.cost.seconds,
        },
        {
            "plane": lambda caption: contour_figure(_captioned(data, caption)),
            "surface": lambda caption: surface_figure(_captioned(data, caption)),
        },
        data,
    )


def draw_match(problem: str, match: UnitMatch, before: Line, after: Line) -> Drawing:
    """The lines before and after units were permuted."""
    data = LineData(
        f"{problem}: the line before and after matching units",
        before.coefficients.numpy(),
        {
            "as trained": Curves(before.losses.numpy(), _numpy(before.accuracies)),
            "matched": Curves(after.losses.numpy(), _numpy(after.accuracies)),
        },
    )
    groups = ", ".join(f"{g.size} in {g.places[0].tensor}" for g in match.groups) or "none"
    words = (
        f"{match.moved} of {match.units} units moved; distance {match.distance_before:.3g} -> "
        f"{match.distance:.3g}, barrier of the line {before.barrier:.3g} -> {after.barrier:.3g}"
    )
    return Drawing(
        "match",
        "Units matched",
        f"match: {words}",
        f"Units of the second network permuted towards the first: {words}. Units that can change "
        f"places: {groups}. The permuted network computes the same function (outputs differ by "
        f"{match.output_error:.0e} in float64). Cost: {match.seconds:.2g} s to match, "
        f"{before.cost + after.cost} for the lines.",
        {
            "distance": match.distance,
            "distance_before": match.distance_before,
            "units": match.units,
            "moved": match.moved,
            "barrier": after.barrier,
            "barrier_before": before.barrier,
            "same_function": match.same_function,
        },
        {"match": lambda caption: line_figure(_captioned(data, caption))},
    )


def draw_basins(problem: str, names: Sequence[str], result: BasinMatrix) -> Drawing:
    """Barriers of all pairs."""
    data = MatrixData(
        f"{problem}: barriers between solutions",
        names,
        result.barriers.numpy(),
        [(edge.first, edge.second) for edge in result.tree],
        result.tolerance,
    )
    falls = max(end.fall for end in result.ends)
    return Drawing(
        "basins",
        "Barriers of all pairs",
        result.verdict,
        f"{result.verdict[0].upper()}{result.verdict[1:]}. Numbers are the highest loss on the "
        "path minus the higher end's, bold within the tolerance; framed pairs are the minimum "
        f"spanning tree over the passes' heights. Cost: {result.cost}. Barriers are upper bounds; "
        f"the loss can still fall by at most {falls:.2g} from the solutions.",
        {
            "same": result.same,
            "verdict": result.verdict,
            "tolerance": result.tolerance,
            "barriers": result.barriers.tolist(),
            "line_barriers": result.line_barriers.tolist(),
            "basins": [list(group) for group in result.basins],
            "tree": [list(edge) for edge in result.tree],
            "converged": result.converged,
            "gradients": result.cost.gradients,
            "seconds": result.cost.seconds,
        },
        {"basins": lambda caption: matrix_figure(_captioned(data, caption))},
    )


def write_drawings(drawings: Sequence[Drawing], folder: Path) -> Path:
    """Write the page, and every figure as PDF and PNG; returns the page's path.

    Raises:
        StoreError: the folder cannot be written.
    """
    title = _title(drawings)
    sections = [
        LandscapeSection(
            d.heading, d.caption, next(iter(d.figures.values()))(""), d.summary, d.surface
        )
        for d in drawings
    ]
    page = folder / "landscape.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for drawing in drawings:
            for name, draw in drawing.figures.items():
                figure = draw(drawing.caption)
                figure.savefig(folder / f"{name}.png", dpi=RESOLUTION)
                figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
        summary = " ".join(f"{d.summary[0].upper()}{d.summary[1:]}." for d in drawings)
        write_atomically(page, render_landscape_page(title, summary, sections))
    except OSError as error:
        raise StoreError(explain(error, folder)) from error
    return page


def _captioned(data: Any, caption: str) -> Any:
    """The data with a caption; in the page, which has both beside the figure, without title too."""
    return replace(data, caption=caption, title=data.title if caption else "")


def _title(drawings: Sequence[Drawing]) -> str:
    return "Loss landscape" if len(drawings) > 1 else drawings[0].heading


def _numpy(values: Any) -> Any:
    return None if values is None else values.numpy()
