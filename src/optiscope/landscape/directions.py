"""Two directions that span a plane of the parameter space, and what is worth marking on it.

Index legend: N parameters, T points of a trajectory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from optiscope.landscape.ground import LandscapeError, state_of
from optiscope.objective.risk import EmpiricalRisk

__all__ = [
    "Directions",
    "leading_eigenvectors",
    "random_directions",
    "through_solutions",
    "trajectory_directions",
]

Vectors = Literal["whole", "zero"]


@dataclass(frozen=True)
class Directions:
    """The plane origin + x axes[0] + y axes[1].

    Attributes:
        origin: parameters [N].
        axes: two directions [2, N].
        names: of the two axes.
        words: what the directions are, and how they are scaled.
        marks: points on the plane by name, such as solutions.
        path: a trajectory projected onto the plane [T, 2]; None where there is none.
        off_plane: distance of each of its points from the plane [T].
        share: share of the trajectory's variance along each axis; None in the same case.
    """

    origin: Tensor = field(repr=False)
    axes: Tensor = field(repr=False)
    names: tuple[str, str]
    words: str
    marks: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    path: Tensor | None = None
    off_plane: Tensor | None = field(default=None, repr=False)
    share: tuple[float, float] | None = None

    def point(self, x: float, y: float) -> Tensor:
        """Parameters [N] at (x, y); the origin itself at (0, 0)."""
        if x == 0.0 and y == 0.0:
            return self.origin.clone()
        return self.origin + x * self.axes[0] + y * self.axes[1]


def random_directions(
    risk: EmpiricalRisk,
    center: Mapping[str, Tensor],
    *,
    vectors: Vectors = "whole",
    seed: int = 0,
) -> Directions:
    """Two Gaussian directions, filter-normalized (Li et al. 2018).

    Each filter of a direction, a row of a weight of two or more dimensions, gets the norm of the
    center's filter; so a step of 1 changes every filter by its own size, however the network is
    scaled. A parameter of one dimension (bias, gain) counts as one filter, not entry by entry, or
    gets no step at all.

    Args:
        risk: which parameters there are.
        center: state dict.
        vectors: scale parameters of one dimension as a ``whole``, or leave them: ``zero``.
        seed: of the directions; no global generator is touched.
    """
    if vectors not in ("whole", "zero"):
        raise LandscapeError(f"expected vectors to be 'whole' or 'zero', got {vectors!r:.80}")
    generator = torch.Generator().manual_seed(seed)
    origin = risk.flatten(state_of(center, "the center"))
    weights = risk.unflatten(origin)
    axes = []
    for _ in range(2):
        scaled = {
            name: _filter_normalized(
                torch.randn(weight.shape, generator=generator).to(weight), weight, vectors
            )
            for name, weight in weights.items()
        }
        axes.append(risk.flatten(scaled))
    one_dimensional = "as a whole" if vectors == "whole" else "by zero"
    return Directions(
        origin,
        torch.stack(axes),
        ("random direction 1", "random direction 2"),
        "two Gaussian directions, every filter scaled to the norm of the weights' filter, biases "
        f"and gains {one_dimensional} (seed {seed})",
        {"solution": (0.0, 0.0)},
    )


def _filter_normalized(direction: Tensor, weight: Tensor, vectors: Vectors) -> Tensor:
    """The direction with the norm of the weight's filters, one for each index of axis 0."""
    if weight.ndim < 2:
        if vectors == "zero" and weight.ndim == 1:
            return torch.zeros_like(direction)
        norm = direction.norm()
        return direction * (weight.norm() / norm) if float(norm) > 0 else direction
    rows, norms = direction.flatten(1), weight.flatten(1).norm(dim=1, keepdim=True)
    scaled = rows * (norms / rows.norm(dim=1, keepdim=True).clamp_min(1e-30))
    shaped: Tensor = scaled.view(weight.shape)
    return shaped


def through_solutions(
    risk: EmpiricalRisk,
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    c: Mapping[str, Tensor],
) -> Directions:
    """The plane through three solutions: a at (0, 0), b at (1, 0), c beside them.

    Both axes have the length of b - a and are perpendicular (Garipov et al. 2018), so that the
    figure shows true proportions.

    Raises:
        LandscapeError: the three lie on one line.
    """
    origin, second, third = (
        risk.flatten(state_of(state, name)) for state, name in ((a, "a"), (b, "b"), (c, "c"))
    )
    first = second - origin
    length = torch.linalg.vector_norm(first)
    offset = third - origin
    along = float(offset @ first / length.square()) if float(length) > 0 else math.nan
    rest = offset - along * first
    height = torch.linalg.vector_norm(rest)
    if not float(height) > 1e-6 * float(torch.linalg.vector_norm(offset)):
        raise LandscapeError(
            "expected three solutions that span a plane, got three on one line: choose another, "
            "or use landscape.line"
        )
    return Directions(
        origin,
        torch.stack([first, rest * (length / height)]),
        ("towards solution 2", "towards solution 3"),
        f"through three solutions; a step of 1 is the distance of the first two, "
        f"{float(length):.3g}, along both axes",
        {
            "solution 1": (0.0, 0.0),
            "solution 2": (1.0, 0.0),
            "solution 3": (along, float(height / length)),
        },
    )


def trajectory_directions(
    risk: EmpiricalRisk, states: Sequence[Mapping[str, Tensor] | Tensor]
) -> Directions:
    """The two principal axes of a trajectory around its last point (Li et al. 2018).

    Args:
        risk: which parameters there are.
        states: T checkpoints in order, at least three; state dicts or flat parameters [N].

    Raises:
        LandscapeError: fewer than three, or they lie on one line.
    """
    points = [s if isinstance(s, Tensor) else risk.flatten(state_of(s, f"point {k}"))
              for k, s in enumerate(states)]  # fmt: skip
    if len(points) < 3:
        raise LandscapeError(f"expected a trajectory of at least 3 points, got {len(points)}")
    last = points[-1]
    offsets = torch.stack([point - last for point in points])
    # The Gram matrix is small: no [N, N] covariance is formed.
    gram = (offsets.double() @ offsets.double().T).cpu()
    values, vectors = torch.linalg.eigh(gram)
    total = float(values.clamp_min(0).sum())
    if not total > 0 or not float(values[-2]) > 1e-12 * total:
        raise LandscapeError(
            "expected a trajectory that spans a plane, got points on one line: keep more "
            "checkpoints, or use landscape.line"
        )
    axes = torch.stack([(vectors[:, -k] / values[-k].sqrt()).to(offsets) @ offsets for k in (1, 2)])
    for axis in axes:
        if float(offsets[0] @ axis) < 0:
            axis.neg_()
    path = offsets @ axes.T
    off_plane = torch.linalg.vector_norm(offsets - path @ axes, dim=1)
    share = (float(values[-1]) / total, float(values[-2]) / total)
    return Directions(
        last,
        axes,
        (f"principal axis 1 ({share[0]:.0%})", f"principal axis 2 ({share[1]:.0%})"),
        f"the principal axes of {len(points)} points of a trajectory around its last, unit length; "
        f"they hold {share[0] + share[1]:.0%} of its variance",
        {"start": (float(path[0, 0]), float(path[0, 1])), "end": (0.0, 0.0)},
        path.double(),
        off_plane.double(),
        share,
    )


def leading_eigenvectors(risk: EmpiricalRisk, center: Mapping[str, Tensor]) -> Directions:
    """The two eigenvectors of the Hessian with the largest eigenvalues, at ``center``.

    A step of 1 along an axis of eigenvalue lambda raises the loss by lambda / 2, to second order.

    Raises:
        LandscapeError: there is only one parameter.
    """
    from optiscope.curvature import top_eigenpairs

    center = state_of(center, "the center")
    origin = risk.flatten(center)
    if len(origin) < 2:
        raise LandscapeError("expected at least two parameters for a plane, got one: use a line")
    pairs = top_eigenpairs(risk.hessian(dict(center)), k=2)
    first, second = (float(value) for value in pairs.values)
    vectors = pairs.vectors
    if vectors is None:
        raise LandscapeError("expected eigenvectors, got eigenvalues alone")
    return Directions(
        origin,
        (vectors if len(vectors) == 2 else vectors.T).to(origin),
        (f"eigenvector of {first:.3g}", f"eigenvector of {second:.3g}"),
        f"the Hessian's leading eigenvectors, unit length, eigenvalues {first:.4g} and "
        f"{second:.4g} (residuals {float(pairs.residuals.max()):.1g} at most)",
        {"solution": (0.0, 0.0)},
    )
