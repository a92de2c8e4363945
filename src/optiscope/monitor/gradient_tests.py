"""What the spread of per-sample gradients says about batch size, signal and stopping.

Pure functions of per-sample quantities. Indices: n samples, D parameters. Sources: norm test (Byrd
et al. 2012), inner product and orthogonality test (Bollapragada et al. 2018), noise scale
(McCandlish et al. 2018), CABS (Balles et al. 2017), EB criterion (Mahsereci et al. 2017), GSNR (Liu
et al. 2020), TIC (Thomas et al. 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from optiscope.monitor.per_sample import PerSample, SampleGram

__all__ = ["GradientTests", "gradient_tests", "takeuchi_diagonal", "takeuchi_trace"]

EPSILON = 1e-30


@dataclass(frozen=True)
class GradientTests:
    """Figures of one batch of n samples.

    ``norm``, ``inner_product`` and ``orthogonality`` are the smallest tolerance with which each
    test accepts n samples (below 1: the gradient's direction is known). ``noise_scale`` is the
    batch size at which noise equals signal (None where the signal cannot be told from noise),
    ``suggested_batch`` the next power of two. ``gsnr`` is
    the mean signal-to-noise ratio of the parameters, ``early_stopping`` the EB criterion (above 0:
    the gradient is noise), ``cabs`` the batch size that CABS proposes (None without rate and loss).
    """

    samples: int
    gradient_norm: float
    variance: float
    norm: float
    inner_product: float
    orthogonality: float
    noise_scale: float | None
    suggested_batch: int | None
    gsnr: float | None
    early_stopping: float | None
    cabs: float | None

    def values(self) -> dict[str, float]:
        """The figures that are known, by name."""
        return {k: float(v) for k, v in vars(self).items() if v is not None}


def _total(values: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([v.double() for v in values.values()]).sum(0)


def gradient_tests(
    quantities: PerSample | SampleGram, *, rate: float | None = None
) -> GradientTests:
    """The tests from per-sample quantities; ``rate`` is for CABS.

    A Gram matrix alone says nothing of single parameters: ``gsnr`` and ``early_stopping`` are None.
    Raises ``ValueError`` for fewer than two samples: there is no spread to see.
    """
    n = quantities.samples
    if n < 2:
        raise ValueError(f"expected at least 2 samples, got {n}")
    if isinstance(quantities, SampleGram):
        gram = quantities.gram.double()
        squared, inner, mean = gram.diagonal(), gram.mean(1), max(float(gram.mean()), 0.0)
    else:
        squared = _total(quantities.squared_norms)  # [n]
        inner = _total(quantities.inner_products)  # [n]
        mean = sum(float(g.double().square().sum()) for g in quantities.gradient.values())
    scale = max(mean, EPSILON)
    spread = max(float(squared.sum()) - n * mean, 0.0) / (n - 1)  # trace of the covariance
    cosine = inner.square() / scale**2
    pairs = n * (n - 1)
    signal = mean - spread / n  # unbiased ||gradient||^2 of the whole set
    noise_scale = spread / signal if signal > EPSILON else None
    gsnr = stopping = None
    if isinstance(quantities, PerSample) and quantities.sum_of_squares:
        variance, gradient = [], []
        for name, sums in quantities.sum_of_squares.items():
            g = quantities.gradient[name].double()
            variance.append(((sums.double() - n * g.square()) / (n - 1)).clamp_min(0).flatten())
            gradient.append(g.flatten())
        v, g = torch.cat(variance), torch.cat(gradient)
        known = v > EPSILON
        ratio = g[known].square() / v[known]
        if len(ratio):
            gsnr = float(ratio.mean())
            stopping = 1 - n * gsnr
    cabs = None
    if rate is not None and quantities.loss > 0:
        cabs = rate * spread / quantities.loss
    return GradientTests(
        samples=n,
        gradient_norm=scale**0.5,
        variance=spread,
        norm=(spread / n / scale) ** 0.5,
        inner_product=max((float(cosine.sum()) - n) / pairs, 0.0) ** 0.5,
        orthogonality=max(float((squared / scale - cosine).sum()) / pairs, 0.0) ** 0.5,
        noise_scale=noise_scale,
        suggested_batch=None if noise_scale is None else _power_of_two(noise_scale),
        gsnr=gsnr,
        early_stopping=stopping,
        cabs=cabs,
    )


def _power_of_two(value: float) -> int:
    size = 1
    while size < value and size < 2**24:
        size *= 2
    return size


def takeuchi_trace(quantities: PerSample, curvature_trace: float) -> float:
    """Trace of the second moment of the gradients over the trace of the curvature.

    ``curvature_trace`` is the trace of the Hessian or Gauss-Newton matrix of the mean loss.
    """
    moment = float(_total(quantities.squared_norms).sum()) / quantities.samples
    return moment / max(abs(curvature_trace), EPSILON)


def takeuchi_diagonal(
    quantities: PerSample, diagonal: Mapping[str, Tensor], damping: float = 1e-7
) -> float:
    """Sum over parameters of their second moment over the curvature's diagonal (plus damping)."""
    total = 0.0
    for name, sums in quantities.sum_of_squares.items():
        moment = sums.double() / quantities.samples
        total += float((moment / (diagonal[name].double().abs() + damping)).sum())
    return total
