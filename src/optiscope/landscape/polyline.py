"""A path of straight segments through images, and the loss along it.

Index legend: M images, N parameters, P points along the path.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Profile", "arc_length", "evenly_spaced", "point_at", "profile"]

REFINEMENTS = 14
"""Golden-section steps around the highest point: its place to a thousandth of a spacing."""

_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Profile:
    """Losses along a path.

    Attributes:
        positions: arc length from the start over the whole length, ascending [P]; images included.
        losses: there [P].
        highest: largest loss; infinite where one is not finite.
        where: its position.
    """

    positions: tuple[float, ...] = field(repr=False)
    losses: tuple[float, ...] = field(repr=False)
    highest: float
    where: float


def arc_length(images: Tensor) -> list[float]:
    """Distance of every image [M, N] from the first along the path, M numbers."""
    steps = torch.linalg.vector_norm(images[1:] - images[:-1], dim=1).double()
    return [0.0, *torch.cumsum(steps, 0).tolist()]


def point_at(images: Tensor, position: float) -> Tensor:
    """Point [N] at a share of the whole length; 0 and 1 and images give their own tensors."""
    lengths = arc_length(images)
    at = position * lengths[-1]
    for k in range(len(images) - 1):
        if at <= lengths[k + 1]:
            span = lengths[k + 1] - lengths[k]
            share = (at - lengths[k]) / span if span > 0 else 0.0
            return between(images[k], images[k + 1], share)
    return images[-1].clone()


def between(a: Tensor, b: Tensor, share: float) -> Tensor:
    """a + share (b - a) [N]; exactly a at 0 and b at 1."""
    if share <= 0.0:
        return a.clone()
    if share >= 1.0:
        return b.clone()
    return a + share * (b - a)


def evenly_spaced(images: Tensor, count: int) -> Tensor:
    """``count`` images [count, N] at equal distances along the path; the ends stay as they are."""
    lengths = torch.tensor(arc_length(images), dtype=torch.float64)
    targets = torch.linspace(0.0, float(lengths[-1]), count, dtype=torch.float64)
    right = torch.searchsorted(lengths, targets).clamp(1, len(images) - 1)
    span = (lengths[right] - lengths[right - 1]).clamp_min(1e-300)
    share = ((targets - lengths[right - 1]) / span).clamp(0.0, 1.0).to(images.dtype)
    share = share[:, None].to(images.device)
    left, right = images[(right - 1).to(images.device)], images[right.to(images.device)]
    spaced = left + share * (right - left)
    spaced[0], spaced[-1] = images[0], images[-1]
    return spaced


def profile(
    images: Tensor,
    value: Callable[[Tensor], float],
    *,
    points: int = 201,
    ends: tuple[float, float] | None = None,
) -> Profile:
    """Loss at the images and at points between them, the highest point refined.

    Args:
        images: [M, N].
        value: loss at a point [N].
        points: about so many, spread by length.
        ends: losses at the first and last image, where they are known.
    """
    lengths = arc_length(images)
    total = lengths[-1]
    positions: list[float] = []
    losses: list[float] = []
    for k in range(len(images) - 1):
        span = lengths[k + 1] - lengths[k]
        pieces = max(2, round(points * span / total)) if total > 0 else 1
        for i in range(pieces):
            positions.append((lengths[k] + span * i / pieces) / total if total > 0 else 0.0)
            if k == i == 0 and ends is not None:
                losses.append(ends[0])
            else:
                losses.append(value(between(images[k], images[k + 1], i / pieces)))
    positions.append(1.0)
    losses.append(ends[1] if ends is not None else value(images[-1]))
    if not all(map(math.isfinite, losses)):
        bad = next(i for i, loss in enumerate(losses) if not math.isfinite(loss))
        return Profile(tuple(positions), tuple(losses), math.inf, positions[bad])
    top = max(range(len(losses)), key=losses.__getitem__)
    highest, where = losses[top], positions[top]
    if 0 < top < len(losses) - 1:
        highest, where = _refined(images, value, positions[top - 1 : top + 2], highest)
    return Profile(tuple(positions), tuple(losses), highest, where)


def _refined(
    images: Tensor, value: Callable[[Tensor], float], around: list[float], highest: float
) -> tuple[float, float]:
    """Largest loss between two positions and its place, by golden section."""
    low, where, high = around
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = value(point_at(images, left)), value(point_at(images, right))
    for _ in range(REFINEMENTS):
        best, place = max((at_left, left), (at_right, right))
        if best > highest:
            highest, where = best, place
        if at_left > at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = value(point_at(images, left))
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = value(point_at(images, right))
    return highest, where
