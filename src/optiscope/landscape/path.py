"""A path between two solutions along which the loss stays as low as can be, and its barrier.

The barrier of a path is the height of its highest point above its higher end. Every path gives an
upper bound of the lowest possible barrier; it is one from below only where the path has converged
to a saddle, and then only among paths near it.

Index legend: M images, N parameters, P points along the path.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from optiscope.hints import did_you_mean
from optiscope.landscape.bezier import bezier
from optiscope.landscape.elastic_band import elastic_band
from optiscope.landscape.evaluations import Evaluations
from optiscope.landscape.ground import (
    DESCENT,
    Checkpoint,
    Ground,
    LandscapeError,
    NotConvergedError,
    Statistics,
    state_of,
    still_falling,
)
from optiscope.landscape.growing_path import growing_path
from optiscope.landscape.matching import UnitMatch, match_units
from optiscope.landscape.polyline import Profile, arc_length, evenly_spaced, point_at, profile
from optiscope.landscape.string_method import string_method
from optiscope.landscape.way_down import MOST_GRADIENTS, lower_point
from optiscope.objective.cost import Cost
from optiscope.objective.risk import EmpiricalRisk

__all__ = ["METHODS", "Method", "Path", "connect"]

Method = Literal["grow", "string", "band", "bezier"]
METHODS: tuple[Method, ...] = ("grow", "string", "band", "bezier")

CONVERGED = 0.25
"""An end is no minimum where the loss falls from it by this share of the straight line's range."""

SADDLE = 1e-3
"""A fall of the highest point by less than this share of the barrier is none."""

ROUNDING = 1e-6
"""Share of the barrier by which two paths through one saddle may differ."""

CURVE_IMAGES = 61
"""Points by which a Bézier curve is handed on."""

OnProgress = Callable[[int, int], None]
"""Told of the gradients spent and allowed."""


@dataclass(frozen=True)
class Path:
    """A path of straight segments between two solutions.

    Attributes:
        images: parameters [M, N]; the first and last are the solutions, bit for bit.
        positions: arc length over the whole length at each point [P], images included.
        losses: there [P].
        barrier: highest loss minus the higher end's.
        line_barrier: the same on the straight line.
        where: position of the highest point.
        highest: loss there; infinite where a loss is not finite.
        line: losses along the straight line.
        method: ``grow``, ``string``, ``band`` or ``bezier``.
        ends: the two solutions, with their losses, gradients' norms and how far each can fall.
        ends_exact: whether the first and last image equal the solutions' parameters.
        converged: whether no point is above the higher end, or the highest point is a saddle
            that this method cannot lower. Otherwise the gradients ran out.
        cost: gradients and forward passes over all samples, checks included.
        match: how the second solution's units were permuted first; None where they were not.
    """

    images: Tensor = field(repr=False)
    positions: Tensor = field(repr=False)
    losses: Tensor = field(repr=False)
    barrier: float
    line_barrier: float
    where: float
    highest: float
    line: Profile = field(repr=False)
    method: Method
    ends: tuple[Checkpoint, Checkpoint]
    ends_exact: bool
    converged: bool
    cost: Cost
    match: UnitMatch | None

    @property
    def length(self) -> float:
        """Euclidean length."""
        return arc_length(self.images)[-1]

    @property
    def straight_length(self) -> float:
        """Distance of the two ends."""
        return float(torch.linalg.vector_norm(self.images[-1] - self.images[0]))

    def point(self, position: float) -> Tensor:
        """Parameters [N] at a share of the length from 0 to 1."""
        return point_at(self.images, position)

    @property
    def caption(self) -> str:
        """What was computed, at what cost, and what limits it, in words."""
        state = (
            "it has converged"
            if self.converged
            else "the gradients ran out, so that the lowest barrier may be lower"
        )
        falls = " and ".join(f"{end.fall:.2g}" for end in self.ends)
        matched = "" if self.match is None else " after the units of the second were matched"
        return (
            f"Path by method {self.method}{matched}: {len(self.images)} images, barrier "
            f"{self.barrier:.3g} against {self.line_barrier:.3g} on the straight line, length "
            f"{self.length:.3g} against {self.straight_length:.3g}. Cost: {self.cost}. A barrier "
            f"is an upper bound; {state}. The loss can still fall by {falls} from the ends."
        )


def connect(
    risk: EmpiricalRisk,
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    *,
    method: Method = "grow",
    images: int = 11,
    gradients: int = 1000,
    match: bool = False,
    points: int = 201,
    statistics: Statistics = "recompute",
    require_converged: bool = True,
    on_progress: OnProgress | None = None,
) -> Path:
    """Find a path from ``a`` to ``b`` whose highest loss is low.

    Args:
        risk: loss, model and samples.
        a: state dict of the first end, buffers included.
        b: that of the second.
        method: ``grow`` puts images where the path is highest; ``string`` and ``band`` relax a
            fixed number; ``bezier`` bends one curve so that its mean loss is least.
        images: of string and band, ends included; a growing path has at most six times as many.
        gradients: evaluations allowed, over all samples each; checks of the ends included.
        match: permute the units of ``b`` towards ``a`` first.
        points: at which the loss is looked at along the path afterwards.
        statistics: of batch norm along the path.
        require_converged: refuse ends from which the loss falls by a quarter of the straight
            line's range within twenty gradients of L-BFGS.
        on_progress: told of gradients spent and allowed.

    Raises:
        NotReproducedError: an end does not have its checkpoint's loss.
        NotConvergedError: an end is no minimum.
        LandscapeError: an argument is not understood.
    """
    _check(method, images, gradients, points)
    begun = time.perf_counter()
    ground = Ground(risk, statistics)
    a, b = state_of(a, "the first end"), state_of(b, "the second end")
    matched = None
    if match:
        matched = match_units(risk.model, a, b, inputs=_example(risk))
        b = matched.state_dict
    ends = [ground.checkpoint(a, "the first end"), ground.checkpoint(b, "the second end")]
    first, last = ends[0].theta, ends[1].theta
    losses = (ends[0].loss, ends[1].loss)
    straight = torch.stack([first, last])
    line = profile(straight, ground.value, points=points, ends=losses)
    objective = _counted(ground.evaluations(), gradients, on_progress)
    equal = bool(torch.equal(first, last))
    if equal:
        ends = [Checkpoint(e.theta, e.loss, e.recomputed, math.nan, math.nan) for e in ends]
    else:
        checks = max(2, min(DESCENT, gradients // 10))
        ends = [ground.descended_from(end, objective, checks) for end in ends]
        if require_converged:
            _refuse_unconverged(ends, line)
    checked = 0 if method == "grow" else MOST_GRADIENTS
    left = max(0, gradients - objective.gradients - checked)
    found, stationary = _relaxed(objective, straight, line, method, images, left)
    found[0], found[-1] = first, last
    along = profile(found, ground.value, points=points, ends=losses)
    higher = max(losses)
    if method != "bezier" and along.highest > line.highest:  # not worse than doing nothing
        rounding = along.highest - line.highest <= ROUNDING * (line.highest - higher)
        found, along, stationary = straight, line, stationary and rounding
    if method != "grow" and higher < along.highest < math.inf and not equal:
        stationary = _is_saddle(objective, found, along, higher)
    return Path(
        images=found,
        positions=torch.tensor(along.positions, dtype=torch.float64),
        losses=torch.tensor(along.losses, dtype=torch.float64),
        barrier=along.highest - higher,
        line_barrier=line.highest - higher,
        where=along.where,
        highest=along.highest,
        line=line,
        method=method,
        ends=(ends[0], ends[1]),
        ends_exact=bool(torch.equal(found[0], first) and torch.equal(found[-1], last)),
        converged=along.highest <= higher or stationary,
        cost=Cost(
            gradients=objective.gradients,
            forwards=objective.forwards + ground.forwards,
            seconds=time.perf_counter() - begun,
        ),
        match=matched,
    )


def _check(method: str, images: int, gradients: int, points: int) -> None:
    if method not in METHODS:
        raise LandscapeError(
            f"expected a method, got {str(method)[:80]!r}: {did_you_mean(method, METHODS)}"
        )
    for name, value, least in (
        ("images", images, 3), ("gradients", gradients, 1), ("points", points, 3)
    ):  # fmt: skip
        if value < least:
            raise LandscapeError(f"expected {name} of at least {least}, got {value}")


def _example(risk: EmpiricalRisk) -> tuple[object, ...] | Mapping[str, object]:
    """Arguments of the model from a few samples of the risk."""
    batch = next(iter(risk.passes(risk.leaves(risk.point())))).batch
    few = batch.select(torch.arange(min(3, batch.samples)))
    return few.kwargs if few.kwargs and not few.args else few.args


def _refuse_unconverged(ends: list[Checkpoint], line: Profile) -> None:
    finite = [loss for loss in line.losses if math.isfinite(loss)]
    spread = max(finite) - min(finite)
    for k in still_falling(ends, CONVERGED * spread):
        name = ("first", "second")[k]
        raise NotConvergedError(
            f"expected ends that are minima, got a {name} end of loss {ends[k].loss:.4g} with "
            f"gradient norm {ends[k].gradient_norm:.2g}, from which the loss falls by "
            f"{ends[k].fall:.2g} in a few gradients where the straight line's losses span "
            f"{spread:.2g}: train it further, or pass require_converged=False"
        )


def _relaxed(
    objective: Evaluations,
    straight: Tensor,
    line: Profile,
    method: str,
    images: int,
    gradients: int,
) -> tuple[Tensor, bool]:
    """Images of the path, and whether its top is known to be a saddle."""
    first, last = straight[0].clone(), straight[1].clone()
    if method == "grow":
        return growing_path(objective, first, last, gradients=gradients, most_images=6 * images)
    used = objective.gradients
    bow = _off_the_ridge(objective, straight, line) if gradients > MOST_GRADIENTS else None
    gradients = max(0, gradients - (objective.gradients - used))
    if method == "bezier":
        curve = bezier(
            objective, first, last, gradients=gradients, images=CURVE_IMAGES, bow=bow
        )  # fmt: skip
        return curve, False
    start = evenly_spaced(straight, images)
    if bow is not None:
        start[1:-1] += torch.linspace(0, math.pi, images).sin()[1:-1, None].to(bow) * bow
    relax = string_method if method == "string" else elastic_band
    return relax(objective, start, gradients=gradients), False


def _off_the_ridge(objective: Evaluations, straight: Tensor, line: Profile) -> Tensor | None:
    """Way [N] off the straight line's highest point, where the line balances on a ridge."""
    length = arc_length(straight)[-1]
    rise = line.highest - max(line.losses[0], line.losses[-1])
    if not 0 < rise < math.inf or not length > 0:
        return None
    top, along = point_at(straight, line.where), (straight[1] - straight[0]) / length
    loss, gradient = objective.value_and_gradient(top)
    force = gradient - (gradient @ along) * along
    if float(torch.linalg.vector_norm(force)) > SADDLE * rise / length:
        return None
    lower = lower_point(objective, top, along, 0.25 * length, loss=loss, least=SADDLE * rise)
    return None if lower is None else lower[0] - top


def _is_saddle(objective: Evaluations, images: Tensor, along: Profile, higher: float) -> bool:
    """Whether nothing beside the path's highest point is notably lower."""
    top = point_at(images, along.where)
    nearby = 1e-3
    ahead = point_at(images, min(1.0, along.where + nearby))
    behind = point_at(images, max(0.0, along.where - nearby))
    direction = (ahead - behind) / torch.linalg.vector_norm(ahead - behind).clamp_min(1e-30)
    span = min(along.where, 1.0 - along.where, 1.0 / len(images)) * arc_length(images)[-1]
    lower = lower_point(
        objective,
        top,
        direction,
        0.5 * span,
        loss=objective.value(top),
        least=SADDLE * (along.highest - higher),
    )
    return lower is None


def _counted(objective: Evaluations, total: int, on_progress: OnProgress | None) -> Evaluations:
    """The same evaluations, with progress told after each gradient."""
    if on_progress is None:
        return objective
    inner = objective.value_and_gradient

    def told(theta: Tensor) -> tuple[float, Tensor]:
        pair = inner(theta)
        on_progress(objective.gradients, total)
        return pair

    counted = Evaluations(objective.value, told)
    return counted
