"""Growing path: a new image is put where the path is highest, and falls perpendicular to it.

As AutoNEB (Kolsbjerg et al. 2016; Draxler et al. 2018) it starts from few images and adds more
where they are needed. It goes further: gradients are spent on the highest image alone, because the
barrier is the height of the highest point and of nothing else. Springs are not needed, for images
that are not highest stay where they are.

Index legend: M images, N parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from optiscope.landscape.evaluations import Evaluations
from optiscope.landscape.images import tangent
from optiscope.landscape.relaxation import Relaxation
from optiscope.landscape.way_down import beside, lower_point

__all__ = ["growing_path"]

STEPS = 24
"""Gradients spent on an image before the path is looked at again."""

SAMPLES = 3
"""Points looked at on each segment; more before the path counts as converged."""

FINE_SAMPLES = 12

REACH = 0.5
"""An image moves at most so many distances to its nearer neighbor in one step."""

WORTHWHILE = 1e-4
"""The highest point is no saddle where it can be lowered by this share of the barrier."""

TOLERANCE = 1e-6
"""A fall of less than this share of the straight line's rise is not worth a gradient."""


@dataclass
class _Image:
    """A point of the path with its loss and its state of motion."""

    point: Tensor
    loss: float
    motion: Relaxation | None = None
    rate: float = 0.0  # its first step length, stable for the curvature there
    settled: bool = False  # cannot fall any more


@dataclass
class _Segment:
    """Losses at evenly spaced points between two images."""

    losses: list[float]

    @property
    def highest(self) -> float:
        return max(self.losses)

    def top(self, left: float, right: float) -> float:
        """Share of the segment at which a parabola through the highest three points peaks."""
        every = [left, *self.losses, right]
        k = 1 + self.losses.index(self.highest)
        step = 1.0 / (len(every) - 1)
        a, b, c = every[k - 1 : k + 2]
        bend = a - 2 * b + c
        shift = 0.5 * (a - c) / bend if math.isfinite(bend) and bend < 0 else 0.0
        return (k + min(0.5, max(-0.5, shift))) * step


def growing_path(
    objective: Evaluations, a: Tensor, b: Tensor, *, gradients: int, most_images: int = 60
) -> tuple[Tensor, bool]:
    """Images [M, N] of a path from ``a`` to ``b`` [N], and whether its top cannot be lowered.

    The path has converged where no point is higher than the higher end, or where its highest point
    is a saddle: on the path nothing beside it is higher, and perpendicular to the path a quadratic
    picture shows no lower point.

    Args:
        objective: the loss.
        a, b: ends; they do not move.
        gradients: evaluations allowed.
        most_images: images at most, ends included.
    """
    images = [_Image(a.clone(), objective.value(a)), _Image(b.clone(), objective.value(b))]
    if bool((a == b).all()):
        return torch.stack([a, b]), True
    ends = max(images[0].loss, images[1].loss)
    segments = [_sampled(objective, images[0], images[1], SAMPLES)]
    tolerance = TOLERANCE * max(_rise(images, segments), 1e-12)
    used = objective.gradients
    converged = False
    while objective.gradients - used < gradients:
        inside = max(range(len(segments)), key=lambda k: _height(segments[k].highest))
        inner = range(1, len(images) - 1)
        at = max(inner, key=lambda k: _height(images[k].loss), default=0)
        above_segments = at > 0 and _height(images[at].loss) >= _height(segments[inside].highest)
        top = images[at].loss if above_segments else segments[inside].highest
        if top <= ends and _refine(objective, images, segments):
            converged = True
            break
        if top <= ends:
            continue
        if above_segments and images[at].settled:
            around = (at - 1, at)
            if all(len(segments[k].losses) >= FINE_SAMPLES for k in around):
                remaining = gradients - (objective.gradients - used)
                if remaining < 2:  # too few to tell a saddle
                    break
                if not _lowered(objective, images, at, ends, tolerance, remaining):
                    converged = True
                    break
            for k in around:
                segments[k] = _sampled(objective, images[k], images[k + 1], FINE_SAMPLES)
            continue
        if not above_segments:
            if len(images) >= most_images:
                break
            left, right = images[inside], images[inside + 1]
            share = segments[inside].top(left.loss, right.loss)
            point = left.point + share * (right.point - left.point)
            count = len(segments[inside].losses)
            images.insert(inside + 1, _Image(point, math.nan))
            segments[inside : inside + 1] = [_Segment([])] * 2
            at = inside + 1
        else:
            count = SAMPLES
        _fall(
            objective, images[at - 1], images[at], images[at + 1], used + gradients, tolerance
        )  # fmt: skip
        for k in (at - 1, at):
            segments[k] = _sampled(objective, images[k], images[k + 1], count)
    return torch.stack([image.point for image in images]), converged


def _height(loss: float) -> float:
    """A loss that is not finite is higher than every other."""
    return loss if math.isfinite(loss) else math.inf


def _rise(images: list[_Image], segments: list[_Segment]) -> float:
    """Range of the losses seen so far."""
    losses = [image.loss for image in images] + [x for s in segments for x in s.losses]
    finite = [x for x in losses if math.isfinite(x)]
    return max(finite) - min(finite) if finite else 0.0


def _sampled(objective: Evaluations, left: _Image, right: _Image, count: int) -> _Segment:
    step = right.point - left.point
    shares = (k / (count + 1) for k in range(1, count + 1))
    return _Segment([objective.value(left.point + share * step) for share in shares])


def _refine(objective: Evaluations, images: list[_Image], segments: list[_Segment]) -> bool:
    """Look more closely at segments not yet seen so; whether there was none left."""
    seen = True
    for k, segment in enumerate(segments):
        if len(segment.losses) < FINE_SAMPLES:
            segments[k] = _sampled(objective, images[k], images[k + 1], FINE_SAMPLES)
            seen = False
    return seen


def _lowered(
    objective: Evaluations,
    images: list[_Image],
    at: int,
    ends: float,
    tolerance: float,
    gradients: int,
) -> bool:
    """Whether a settled image could be lowered after all; it is no saddle then."""
    before, image, after = images[at - 1 : at + 2]
    found = lower_point(
        objective,
        image.point,
        tangent(before.point, image.point, after.point, (before.loss, image.loss, after.loss)),
        _reach(before, image, after),
        loss=image.loss,
        least=max(tolerance, WORTHWHILE * (image.loss - ends)),
        gradients=gradients,
    )
    if found is None:
        return False
    image.point, image.loss = found
    image.settled, image.motion = False, None
    return True


def _reach(before: _Image, image: _Image, after: _Image) -> float:
    """How far an image moves at most in one step."""
    distances = (torch.linalg.vector_norm(o.point - image.point) for o in (before, after))
    return REACH * float(min(distances))


def _fall(
    objective: Evaluations,
    before: _Image,
    image: _Image,
    after: _Image,
    last: int,
    tolerance: float,
) -> None:
    """Move an image perpendicular to the path to the lowest point that `STEPS` gradients find.

    Args:
        objective: the loss.
        before, image, after: three images in a row.
        last: count of the objective's gradients at which there are no more.
        tolerance: fall in one step that is not worth a gradient.
    """
    point, best = image.point, image
    reach = _reach(before, image, after)
    limit = torch.full((1,), reach, dtype=point.dtype, device=point.device)
    lowest, lowest_point = math.inf, point
    gain = math.inf
    for _ in range(STEPS):
        if objective.gradients >= last:
            break
        loss, gradient = objective.value_and_gradient(point)
        if math.isfinite(loss) and loss < lowest:
            lowest, lowest_point = loss, point
        if not math.isfinite(loss) or not bool(torch.isfinite(gradient).all()):
            if image.motion is None or not math.isfinite(lowest):
                way = tangent(before.point, point, after.point, (before.loss, loss, after.loss))
                found = beside(objective, point, way, reach, below=_height(loss))
                if found is None:
                    break
                point, image.motion = found[0], None
                continue
            image.motion.halt(torch.ones(1, dtype=torch.bool, device=point.device))
            point = lowest_point
            continue
        along = tangent(before.point, point, after.point, (before.loss, loss, after.loss))
        force = (gradient @ along) * along - gradient
        if image.motion is None:
            if objective.gradients >= last:
                break
            curvature = objective.curvature_along(point, gradient, force)
            rate = 0.5 / math.sqrt(curvature) if curvature > 0 else 0.1
            image.rate = rate
            rates = torch.full((1,), rate, dtype=point.dtype, device=point.device)
            image.motion = Relaxation(point[None], rates)
        strength = float(force @ force)
        gain = strength * image.rate**2  # about what one step without momentum gains
        if gain < tolerance:
            break
        point = point + image.motion.step(force[None], limit)[0]
    best.point = lowest_point
    best.loss = lowest if math.isfinite(lowest) else objective.value(lowest_point)
    best.settled = gain < tolerance
