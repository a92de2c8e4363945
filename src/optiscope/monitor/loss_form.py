"""The form of a loss, its labels and weights, recovered from the gradient of the model's output.

For cross-entropy the gradient of the logits of a sample is w (softmax(o) - onehot(y)): w and y
follow from it alone, without access to loss, labels or loader. Indices: r rows
(samples, tokens, pixels), C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["NO_FORM", "LossForm", "class_rows", "recover_form"]

MAX_ROWS = 512
Kind = Literal["cross_entropy", "nll", "bce", "other"]


@dataclass(frozen=True)
class LossForm:
    """What the gradient of the output says about the loss.

    ``labels`` [r] (cross_entropy, nll: class; bce: 0 or 1), ``weights`` [r] the factor of each
    row's loss (negative: the loss is maximized), ``total_weight`` their sum over all rows of the
    batch, ``loss`` the weighted mean of the rows' losses,
    ``logits`` [r, C] (bce: [r, 1]).
    """

    kind: Kind
    labels: Tensor
    weights: Tensor
    total_weight: float
    loss: float
    logits: Tensor
    gradient: Tensor
    rows: int


_EMPTY = torch.empty(0, dtype=torch.float64)
NO_FORM = LossForm("other", _EMPTY, _EMPTY, float("nan"), float("nan"), _EMPTY, _EMPTY, 0)
"""The form of a loss of which nothing can be said."""


def class_rows(output: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, int] | None:
    """Logits and gradient as rows [r, C] (at most MAX_ROWS of them), and how many rows there are.

    The class dimension is that along which the gradient of every row sums to zero or has one
    entry: dimension 1, else the last. None if there are fewer than two classes.
    """
    if output.ndim < 2 or output.shape != gradient.shape:
        return None
    dims = [1] if output.ndim == 2 else [1, output.ndim - 1]
    best = None
    for dim in dims:
        if output.shape[dim] < 2:
            continue
        logits = _rows(output, dim)
        grads = _rows(gradient, dim)
        scale = grads.abs().sum(1)
        slack = float((grads.sum(1).abs() / scale.clamp_min(1e-300)).where(scale > 0, 0).max())
        if best is None or slack < best[0]:
            best = (slack, logits, grads, output.numel() // output.shape[dim])
    return best and best[1:]


def _rows(tensor: Tensor, dim: int) -> Tensor:
    flat = tensor.detach().movedim(dim, -1).reshape(-1, tensor.shape[dim])
    if len(flat) > MAX_ROWS:
        flat = flat[:: -(-len(flat) // MAX_ROWS)]
    return flat.to("cpu", torch.float64)


def recover_form(output: Tensor, gradient: Tensor) -> LossForm:
    """The form of the loss behind ``gradient``, the derivative of the loss by ``output``."""
    tolerance = 4e-2 if output.dtype in (torch.float16, torch.bfloat16) else 2e-3
    rows = class_rows(output, gradient)
    if rows is not None:
        logits, grads, count = rows
        form = _cross_entropy(logits, grads, count, tolerance)
        if form is None:
            form = _nll(logits, grads, count)
        if form is not None:
            return form
    form = _bce(output, gradient, tolerance)
    if form is not None:
        return form
    return NO_FORM


def _cross_entropy(logits: Tensor, grads: Tensor, count: int, tolerance: float) -> LossForm | None:
    if not (torch.isfinite(grads).all() and torch.isfinite(logits).all()):
        return None
    classes = logits.shape[1]
    largest = grads.abs().amax(1)
    active = largest > 1e-9 * largest.max().clamp_min(1e-300)
    if int(active.sum()) < max(1, len(grads) // 4):
        return None
    logits, grads, share = logits[active], grads[active], int(active.sum()) / len(grads)
    probabilities = logits.softmax(1)
    # the entry of the label has the other sign than all others: minus for a loss that is minimized
    fits = [_fit(grads, probabilities, grads.argmin(1))]
    if classes > 2:
        fits.append(_fit(grads, probabilities, grads.argmax(1)))
    labels, own, weights, relative = min(fits, key=lambda fit: float(fit[3].quantile(0.9)))
    resolved = own < 1 - 1e-4  # a label that is certain leaves a gradient of rounding errors
    if int(resolved.sum()) == 0:
        return None
    if float(relative[resolved].quantile(0.9)) > tolerance:
        return None
    losses = -own.clamp_min(1e-300).log()
    usual = weights[resolved]
    return LossForm(
        "cross_entropy",
        labels[resolved],
        usual,
        float(usual.mean()) * count * share,
        float((losses * weights.abs()).sum() / weights.abs().sum().clamp_min(1e-300)),
        logits,
        grads,
        round(count * share),
    )


def _fit(
    grads: Tensor, probabilities: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Labels, their probabilities, the weights that fit best and the relative errors, by row."""
    at = labels[:, None]
    direction = probabilities - torch.zeros_like(grads).scatter_(1, at, 1.0)
    weights = (grads * direction).sum(1) / direction.square().sum(1).clamp_min(1e-300)
    error = (grads - weights[:, None] * direction).abs().amax(1)
    relative = error / grads.abs().amax(1).clamp_min(1e-300)
    return labels, probabilities.gather(1, at)[:, 0], weights, relative


def _nll(logits: Tensor, grads: Tensor, count: int) -> LossForm | None:
    """One entry a row: the loss picks the label's output and nothing else."""
    entries = (grads != 0).sum(1)
    active = entries == 1
    if logits.shape[1] < 3 or int(active.sum()) < max(2, len(grads) // 4) or (entries > 1).any():
        return None
    logits, grads, share = logits[active], grads[active], int(active.sum()) / len(grads)
    labels = grads.abs().argmax(1)
    picked = logits.gather(1, labels[:, None])[:, 0]
    weights = -grads.gather(1, labels[:, None])[:, 0]
    if not _same_by_label(weights, labels):
        return None  # another loss of picked outputs: values of actions, for one
    loss = float(-(picked * weights).sum() / weights.sum()) if float(weights.sum()) else 0.0
    total = float(weights.mean()) * count * share
    return LossForm("nll", labels, weights, total, loss, logits, grads, round(count * share))


def _same_by_label(weights: Tensor, labels: Tensor) -> bool:
    """Whether rows of one label have one weight, all of one sign, as a likelihood gives them."""
    if bool((weights > 0).any()) and bool((weights < 0).any()):
        return False
    for label in labels.unique():
        own = weights[labels == label].abs()
        if float(own.max() - own.min()) > 1e-2 * float(own.max()):
            return False
    return True


def _bce(output: Tensor, gradient: Tensor, tolerance: float) -> LossForm | None:
    """Independent logits with labels 0 and 1: w (sigmoid(o) - y) with one w for all."""
    o = output.detach().reshape(-1)[:MAX_ROWS].to("cpu", torch.float64)
    g = gradient.detach().reshape(-1)[:MAX_ROWS].to("cpu", torch.float64)
    if len(o) < 4 or not torch.isfinite(o).all() or not torch.isfinite(g).all():
        return None
    p = torch.sigmoid(o)
    ones = g < 0
    if not ones.any() or ones.all():
        return None  # a critic's constant gradient has one sign
    weights = torch.where(ones, -g / (1 - p), g / p)
    used = (o.abs() < 8) & (g != 0)
    if int(used.sum()) < 4:
        return None
    centre = weights[used].median()
    off = ((weights[used] - centre).abs() / centre.clamp_min(1e-300)).quantile(0.9)
    if float(off) > tolerance:
        return None
    labels = ones.to(torch.int64)
    own = torch.where(ones, p, 1 - p).clamp_min(1e-300)
    total = float(centre) * output.numel()
    return LossForm(
        "bce", labels, weights, total, float(-own.log().mean()), o[:, None], g[:, None],
        output.numel(),
    )  # fmt: skip
