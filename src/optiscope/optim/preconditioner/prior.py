"""Rate and prior from products along gradients: what is known of a Hessian before it is observed.

Source: F. de Roos, P. Hennig 2019, Active Probabilistic Inference on Matrices for Pre-Conditioning
in Stochastic Optimization.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = [
    "CurvatureSums",
    "Prior",
    "add_cross_pair",
    "add_pair",
    "construct_rate",
    "estimate_prior",
    "safe_dot",
]


def safe_dot(a: Tensor, b: Tensor) -> float:
    """a' b of vectors [N]; repeated in float64 where float32 over- or underflows."""
    result = float(torch.dot(a, b))
    if math.isfinite(result) and abs(result) > 1e-30:
        return result
    return float(torch.dot(a.double(), b.double()))


@dataclass(frozen=True)
class CurvatureSums:
    """Sums over pairs of a direction s and its product y = Hs, each pair from one batch.

    ``ss``, ``sy``, ``yy`` are sums of inner products; ``quotients`` and ``squared_quotients`` those
    of s'y / s's and its square; ``cross_sy`` and ``cross_yy`` those of s'y1 and y1'y2, with y1 and
    y2 products of one direction on two batches.
    """

    count: int = 0
    ss: float = 0.0
    sy: float = 0.0
    yy: float = 0.0
    quotients: float = 0.0
    squared_quotients: float = 0.0
    cross_sy: float = 0.0
    cross_yy: float = 0.0


def add_pair(sums: CurvatureSums, s: Tensor, y: Tensor) -> CurvatureSums:
    """Sums that include one more pair s, y [N]."""
    ss, sy = safe_dot(s, s), safe_dot(s, y)
    quotient = sy / ss if ss > 0 else 0.0
    return replace(
        sums,
        count=sums.count + 1,
        ss=sums.ss + ss,
        sy=sums.sy + sy,
        yy=sums.yy + safe_dot(y, y),
        quotients=sums.quotients + quotient,
        squared_quotients=sums.squared_quotients + quotient**2,
    )


def add_cross_pair(sums: CurvatureSums, s: Tensor, y1: Tensor, y2: Tensor) -> CurvatureSums:
    """Sums that include products y1, y2 [N] of one direction s [N] on two batches."""
    return replace(
        sums,
        cross_sy=sums.cross_sy + (safe_dot(s, y1) + safe_dot(s, y2)) / 2,
        cross_yy=sums.cross_yy + safe_dot(y1, y2),
    )


def construct_rate(sums: CurvatureSums) -> float | None:
    """Learning rate alpha = sum s'y / sum y'y, positive and finite, or None without curvature.

    In [1/lambda_max, 1/lambda_min] for a positive Hessian. With pairs of products from two batches
    (``cross_yy``) their sums are used, whose denominator noise does not inflate. Where the sums are
    not positive (negative curvature, or noise), the geometric mean sqrt(sum s's / sum y'y) of the
    two Barzilai-Borwein steps.
    """
    candidates = [(sums.cross_sy, sums.cross_yy), (sums.sy, sums.yy)]
    for numerator, denominator in candidates:
        if numerator > 0 and denominator > 0:
            rate = numerator / denominator
            if math.isfinite(rate) and rate > 0:
                return rate
    if sums.ss > 0 and sums.yy > 0:
        rate = math.sqrt(sums.ss) / math.sqrt(sums.yy)
        if math.isfinite(rate) and rate > 0:
            return rate
    return None


@dataclass(frozen=True)
class Prior:
    """What is believed of the Hessian before any direction has been observed.

    Attributes:
        base: b0 > 0, its mean is base times I.
        scale: w0 > 0, standard deviation of its entries.
        noise: lambda0 >= 0, standard deviation of a product's entries along a unit direction.
        spread: relative standard deviation over batches of a curvature s'Hs / s's.
    """

    base: float
    scale: float
    noise: float
    spread: float = 0.0

    @property
    def ratio(self) -> float:
        """Noise ratio rho^2 = (lambda0 / w0)^2."""
        return (self.noise / self.scale) ** 2


def estimate_prior(sums: CurvatureSums, gradient_sum_square: float, n: int) -> Prior | None:
    """Prior from gradients used as directions; None where they show no curvature.

    Args:
        sums: over ``count`` batches, with s the batch's gradient.
        gradient_sum_square: squared norm of the sum of the gradients.
        n: number of parameters.

    b0 is the inverse of the constructed rate, w0 = |sum s'y| / sum s's (b0 where that vanishes),
    lambda0^2 the variance per coordinate of the gradient over batches.
    """
    rate = construct_rate(sums)
    if rate is None:
        return None
    base = 1 / rate
    scale = abs(sums.sy) / sums.ss if sums.ss > 0 else 0.0
    noise, spread = 0.0, 0.0
    if sums.count > 1:
        left = sums.count - 1
        noise = math.sqrt(max(sums.ss - gradient_sum_square / sums.count, 0.0) / (left * n))
        mean = sums.quotients / sums.count
        variance = max(sums.squared_quotients - sums.count * mean**2, 0.0) / left
        spread = math.sqrt(variance) / abs(mean) if mean else 0.0
    return Prior(base, scale if scale > 0 else base, noise, spread)
