"""Per-sample losses and figures of merit shared by the problems.

Index legend: B samples in a batch, T tokens in a window, K classes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from optiscope.problems.problem import Metric

__all__ = [
    "ACCURACY",
    "TOKEN_ACCURACY",
    "cross_entropy",
    "own_value",
    "squared_error",
    "token_cross_entropy",
]


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """-log probability of the target class, in nats: logits [B, K], targets [B] -> [B]."""
    return F.cross_entropy(outputs, targets, reduction="none")


def token_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over a window of -log probability of each token: [B, T, K], [B, T] -> [B], in nats."""
    return F.cross_entropy(outputs.movedim(-1, 1), targets, reduction="none").mean(1)


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Sum over a sample's values of the squared error: [B, ...], [B, ...] -> [B]."""
    return (outputs - targets).square().flatten(1).sum(1)


def own_value(outputs: Tensor, targets: Tensor) -> Tensor:
    """The outputs themselves [B]: for models whose output is the objective; targets are unused."""
    return outputs


def _hits(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 where the largest logit is the target, else 0, in the logits' dtype; [B]."""
    return (outputs.argmax(-1) == targets).to(outputs.dtype)


def _token_hits(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of a window's tokens that are predicted; [B]."""
    return _hits(outputs, targets).mean(1)


ACCURACY = Metric("accuracy", _hits, higher_is_better=True)
TOKEN_ACCURACY = Metric("accuracy", _token_hits, higher_is_better=True)
