"""Two weights where one would do: w^2 against (w1 w2)^2, measured with this package's own tools.

Both represent the same functions. With one weight there is one minimum; with two, minima fill both
axes, of any sharpness, parted on straight lines and connected by paths. Every number has a closed
form, which stands beside it.

Index legend: N weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from optiscope import curvature, landscape
from optiscope.objective.risk import EmpiricalRisk
from optiscope.problems.textbook.redundancy import destination
from optiscope.report.appearance import PALETTE
from optiscope.report.figures.panel import Panel
from optiscope.reproduction.experiments import Scale
from optiscope.reproduction.sections import Section
from optiscope.reproduction.talk.beside import beside
from optiscope.reproduction.talk.experiment import Cell, Measured, TalkExperiment

__all__ = ["REDUNDANCY"]

STARTS = ([1.5, 1.2], [1.2, 1.5], [0.6, -1.4], [-1.3, 0.4])
RATE, STEPS = 0.01, 20_000
OTHER_END = 1.2
"""The minimum (0, OTHER_END) on the other axis, to which every end is joined."""
CLOSE = 0.02
"""Relative difference up to which a number agrees with its closed form."""


class _Product(nn.Module):
    """The square of the product of the weights, whatever the input."""

    def __init__(self, start: Sequence[float]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self, _: Tensor) -> Tensor:
        """(w1 w2 ... wN)^2."""
        return self.w.prod().square()


def cells(scale: Scale) -> list[Cell]:
    """Every start, and one weight alone; the scale makes no difference."""
    starts = [*STARTS, [1.8]]
    return [{"start": list(start), "rate": RATE, "steps": STEPS} for start in starts]


def measure(cell: Cell, data_dir: Path | None) -> Mapping[str, Any]:
    """Descend; curvature at the end, and the line and path to a minimum on the other axis."""
    model = _Product(cell["start"])
    trajectory = [list(cell["start"])]
    for step in range(1, cell["steps"] + 1):
        (slope,) = torch.autograd.grad(model(model.w), model.w)
        with torch.no_grad():
            model.w.sub_(cell["rate"] * slope)
        if step & (step - 1) == 0 or step == cell["steps"]:
            trajectory.append(model.w.tolist())
    nothing = torch.zeros(1)
    risk = EmpiricalRisk(model, lambda outputs, _: outputs, [(nothing, nothing)])
    pairs = curvature.top_eigenpairs(risk.hessian(), k=len(cell["start"]), tol=1e-10)
    found: dict[str, Any] = {
        "trajectory": trajectory,
        "loss": float(risk.value()),
        "eigenvalues": pairs.values.tolist(),
        "converged": bool(pairs.converged.all()),
    }
    if len(cell["start"]) == 2:
        end = model.w.detach()
        on_first = bool(end[0].abs() > end[1].abs())
        other = [0.0, OTHER_END] if on_first else [OTHER_END, 0.0]
        states = {"w": end.clone()}, {"w": torch.tensor(other, dtype=torch.float64)}
        line = landscape.line(risk, *states, low=0.0, high=1.0, points=201)
        path = landscape.connect(risk, *states, gradients=400, points=101)
        found |= {"line_barrier": line.barrier, "path_barrier": path.barrier}
    return found


def _end(start: Sequence[float]) -> float:
    """The weight that is left where an infinitely slow descent ends."""
    return max(map(abs, destination(start[0], start[1])))


def sections(measured: Sequence[Measured]) -> tuple[Section, ...]:
    """Verdicts, the picture, numbers beside their closed forms."""
    two = [m for m in measured if len(m.cell["start"]) == 2]
    one = [m for m in measured if len(m.cell["start"]) == 1]
    rows, agree = [], []
    for m in two:
        start, r = m.cell["start"], m.result
        left, size = max(map(abs, r["trajectory"][-1])), _end(start)
        figures = (
            ("where descent ends", size, left),
            ("largest eigenvalue there", 2 * size**2, r["eigenvalues"][0]),
            ("barrier of the line", (left * OTHER_END / 4) ** 2, r["line_barrier"]),
        )
        for what, exact, found in figures:
            agree.append(math.isclose(exact, found, rel_tol=CLOSE))
            rows.append((f"{what}, from ({start[0]:g}, {start[1]:g})", f"{exact:.4g}",
                         f"{found:.4g}", ""))  # fmt: skip
        rows.append((f"barrier of the path, from ({start[0]:g}, {start[1]:g})", "0",
                     f"{max(0.0, r['path_barrier']):.1g}", ""))  # fmt: skip
    flat = [abs(m.result["eigenvalues"][1]) / m.result["eigenvalues"][0] for m in two]
    sharp = [m.result["eigenvalues"][0] for m in two]
    paths = [m.result["path_barrier"] / m.result["line_barrier"] for m in two]
    settings = measured[0].cell
    return (
        Section(
            "One function, two parametrizations",
            f"Descent with rate {settings['rate']:g} for {settings['steps']:,} steps from "
            f"{len(two)} starts; closed forms are of an infinitely small rate, and agree within "
            f"{CLOSE:.0%} in {sum(agree)} of {len(agree)} figures.",
            conclusions=(
                (
                    "Redundant weights turn one minimum into a valley of minima",
                    "holds here" if max(flat) < 1e-2 and all(agree) else "does not hold here",
                    f"the second eigenvalue at the ends is {max(flat):.1g} of the first at most; "
                    f"with one weight the only eigenvalue is "
                    f"{one[0].result['eigenvalues'][0] if one else math.nan:.4g} everywhere",
                ),
                (
                    "Sharpness of a minimum says nothing of the function it represents",
                    "holds here" if max(sharp) > 1.5 * min(sharp) else "does not hold here",
                    f"the same function, 0, with largest eigenvalues from {min(sharp):.3g} to "
                    f"{max(sharp):.3g}, by where descent began",
                ),
                (
                    "Solutions that a straight line parts are connected",
                    "holds here" if max(paths) < 0.05 else "does not hold here",
                    f"the path's barrier is {max(0.0, *paths):.1g} of the line's at most",
                ),
            ),
            panels=(
                Panel(
                    "redundancy",
                    partial(_draw, measured=two),
                    "Level lines of (w1 w2)^2 with the ways that descent took",
                    height=0.9,
                ),
            ),
            tables=(beside(rows),),
        ),
    )


def _draw(axes: Axes, measured: Sequence[Measured]) -> None:
    reach = np.linspace(-1.8, 1.8, 181)
    x, y = np.meshgrid(reach, reach)
    axes.contourf(x, y, (x * y) ** 2, levels=[0, 0.01, 0.05, 0.2, 0.5, 1, 2, 4, 11], cmap="cividis")
    for m in measured:
        way = np.array(m.result["trajectory"])
        axes.plot(way[:, 0], way[:, 1], "-", color="white", linewidth=2.4)
        axes.plot(way[:, 0], way[:, 1], "-", color=PALETTE[1], linewidth=1.2)
        axes.plot(*way[-1], "o", color=PALETTE[1], markeredgecolor="white")
    axes.set_aspect("equal")
    axes.set_xlabel("w1")
    axes.set_ylabel("w2")
    axes.set_title("(w1 w2)²: both axes are minima")


REDUNDANCY = TalkExperiment(
    "redundancy",
    "Two weights where one would do",
    "The talk sets (w1 w2)^2 beside w^2: a redundant parametrization changes the landscape, not "
    "the functions. No figures were published; the right ones have closed forms, and stand in "
    "their place.",
    "L. Sagun 2018, An Empirical Look at the Loss Landscape (talk)",
    cells,
    measure,
    sections,
)
