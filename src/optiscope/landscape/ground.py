"""The loss between checkpoints: parameters from a path, statistics that fit them.

At a checkpoint itself its own buffers are used, so that its loss comes out as it was; everywhere
else the running statistics of batch norm are computed anew.

Index legend: N parameters.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor, nn

from optiscope.errors import OptiscopeError
from optiscope.landscape.batch_norm import (
    has_statistics,
    recomputed_statistics,
    with_batch_statistics,
)
from optiscope.landscape.evaluations import Evaluations
from optiscope.objective.risk import EmpiricalRisk

__all__ = [
    "Checkpoint",
    "Ground",
    "LandscapeError",
    "NotConvergedError",
    "NotReproducedError",
    "Statistics",
    "state_of",
    "still_falling",
]

Statistics = Literal["recompute", "keep"]

SAME_LOSS = 1e-6
"""Relative difference up to which a checkpoint's loss counts as reproduced."""

STALE = 0.3
"""A checkpoint's statistics are stale where new ones change its loss by this share of it."""

DESCENT = 20
"""Gradients of the descent that shows how far the loss can still fall from a checkpoint."""


class LandscapeError(OptiscopeError):
    """A question about the landscape that has no trustworthy answer as it was asked."""


class NotReproducedError(LandscapeError):
    """A checkpoint's loss does not come out on the path."""


class NotConvergedError(LandscapeError):
    """A checkpoint is no minimum, so that a barrier above it would mean nothing."""


@dataclass(frozen=True)
class Checkpoint:
    """A solution as it stands on the landscape.

    Attributes:
        theta: parameters [N].
        loss: with its own buffers.
        recomputed: with batch norm's statistics computed anew; the same where there are none.
        gradient_norm: Euclidean norm of the gradient; NaN where it was not asked for.
        fall: by how much `DESCENT` gradients of L-BFGS lower the loss; NaN where it
            was not measured.
    """

    theta: Tensor = field(repr=False)
    loss: float
    recomputed: float
    gradient_norm: float = math.nan
    fall: float = math.nan


def state_of(given: object, name: str) -> Mapping[str, Tensor]:
    """The state dict that a module has, or that was given.

    Raises:
        LandscapeError: it is neither.
    """
    if isinstance(given, nn.Module):
        return {k: v.clone() for k, v in given.state_dict().items() if isinstance(v, Tensor)}
    if isinstance(given, Mapping):
        return given
    raise LandscapeError(
        f"expected {name} as a state dict, got {type(given).__name__}: pass model.state_dict(), or "
        "risk.state_dict(theta) for flat parameters"
    )


class Ground:
    """Losses at any parameters between some checkpoints.

    Args:
        risk: loss, model and samples.
        statistics: of batch norm away from the checkpoints: ``recompute``, or ``keep`` those of the
            model, which is wrong and shows how wrong.
    """

    def __init__(self, risk: EmpiricalRisk, statistics: Statistics = "recompute") -> None:
        if not isinstance(risk, EmpiricalRisk):
            raise LandscapeError(
                f"expected a risk, got {type(risk).__name__}: pass "
                "optiscope.EmpiricalRisk(model, loss, batches)"
            )
        if statistics not in ("recompute", "keep"):
            raise LandscapeError(
                f"expected statistics to be 'recompute' or 'keep', got {statistics!r:.80}"
            )
        self.risk = risk
        self.descended = with_batch_statistics(risk) if statistics == "recompute" else risk
        self.recomputes = statistics == "recompute" and has_statistics(risk)
        self.forwards = 0

    def state(self, theta: Tensor) -> dict[str, Tensor]:
        """Parameters at ``theta`` [N] by name, and statistics that fit them."""
        state = self.risk.unflatten(theta)
        if self.recomputes:
            self.forwards += 1
            state |= recomputed_statistics(self.risk, theta)
        return state

    def value(self, theta: Tensor) -> float:
        """Loss at ``theta`` [N]."""
        self.forwards += 1
        if not self.recomputes:
            return float(self.risk.value(theta))
        return float(self.risk.value(self.state(theta)))

    def evaluations(self) -> Evaluations:
        """The loss to descend: by the statistics of each batch, as in training."""
        risk = self.descended

        def value_and_gradient(theta: Tensor) -> tuple[float, Tensor]:
            loss, gradient = risk.value_and_gradient(theta)
            return float(loss), gradient

        return Evaluations(lambda theta: float(risk.value(theta)), value_and_gradient)

    def checkpoint(self, state: Mapping[str, Tensor], name: str) -> Checkpoint:
        """A checkpoint whose loss was compared with that of a model which has loaded it.

        Args:
            state: its state dict, buffers included.
            name: by which errors speak of it.

        Raises:
            NotReproducedError: the two differ by more than 1e-6, or statistics are stale.
        """
        state = state_of(state, name)
        theta = self.risk.flatten(state)
        own = {key: value for key, value in state.items() if isinstance(value, Tensor)}
        own |= self.risk.unflatten(theta)
        loss = float(self.risk.value(own))
        self.forwards += 2
        loaded = _loss_of_loaded_model(self.risk, state, name)
        if not _same(loss, loaded):
            raise NotReproducedError(
                f"expected {name} to have its checkpoint's loss {loaded:.6g}, got {loss:.6g}: "
                "tensors that the risk holds constant, or of another type, differ from the "
                "checkpoint's; build the risk over all parameters of a model of the same type"
            )
        if not math.isfinite(loss):
            raise NotReproducedError(
                f"expected a finite loss at {name}, got {loss}: choose another checkpoint"
            )
        recomputed = self.value(theta) if self.recomputes else loss
        larger = max(abs(loss), abs(recomputed))
        if not abs(recomputed - loss) <= STALE * larger:
            raise NotReproducedError(
                f"expected batch norm's statistics of {name} to fit its weights, got loss "
                f"{loss:.4g} with them and {recomputed:.4g} with statistics of these samples: "
                "pass the checkpoint with its own buffers, or samples like those it was trained on"
            )
        return Checkpoint(theta, loss, recomputed)

    def descended_from(
        self, checkpoint: Checkpoint, objective: Evaluations, gradients: int = DESCENT
    ) -> Checkpoint:
        """The checkpoint with its gradient's norm and how far the loss falls from it."""
        first: list[tuple[float, float]] = []
        lowest = math.inf

        def shifted(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            nonlocal lowest
            theta = torch.from_numpy(point).to(checkpoint.theta)
            loss, gradient = objective.value_and_gradient(theta)
            if not first:
                first.append((loss, float(torch.linalg.vector_norm(gradient))))
            lowest = min(lowest, loss) if math.isfinite(loss) else lowest
            return loss, gradient.double().cpu().numpy()

        start = checkpoint.theta.double().cpu().numpy()
        optimize.minimize(
            shifted,
            start,
            jac=True,
            method="L-BFGS-B",
            options={"maxfun": gradients, "maxiter": gradients, "ftol": 0.0, "gtol": 1e-12},
        )
        loss, norm = first[0]
        return Checkpoint(
            checkpoint.theta, checkpoint.loss, checkpoint.recomputed, norm, max(0.0, loss - lowest)
        )


def still_falling(checkpoints: Sequence[Checkpoint], allowed: float) -> list[int]:
    """Numbers of the checkpoints from which the loss falls by more than ``allowed``."""
    return [
        k
        for k, each in enumerate(checkpoints)
        if each.fall > max(allowed, SAME_LOSS * max(1.0, abs(each.loss)))
    ]


def _same(left: float, right: float) -> bool:
    if not (math.isfinite(left) and math.isfinite(right)):
        return repr(left) == repr(right)
    return abs(left - right) <= SAME_LOSS * max(abs(left), abs(right), 1e-12)


def _loss_of_loaded_model(risk: EmpiricalRisk, state: Mapping[str, Tensor], name: str) -> float:
    """Loss of a copy of the model that has loaded the whole state dict."""
    twin: nn.Module = copy.deepcopy(risk.model)
    own = set(twin.state_dict())
    values = {_stripped(key, own): value for key, value in state.items()}
    try:
        loaded = twin.load_state_dict(values, strict=False)
    except RuntimeError as error:
        words = " ".join(str(error).split())
        raise NotReproducedError(
            f"expected {name} to be a state dict of {type(twin).__name__}, got one that does not "
            f"fit: {words[:160]}"
        ) from None
    statistics = [key for key in loaded.missing_keys if key.endswith(("running_mean", "_var"))]
    if statistics and risk.batch_norm == "running":
        raise NotReproducedError(
            f"expected {name} with batch norm's running statistics, got none for "
            f"{statistics[0]!r}: pass model.state_dict(), not the parameters alone"
        )
    other = copy.copy(risk)
    other.model = twin
    other._operators = {}
    return float(other.value())


def _stripped(key: str, known: set[str]) -> str:
    """A name without the prefixes of wrappers, where that makes it known."""
    for prefix in ("module.", "_orig_mod."):
        if key not in known and key.startswith(prefix):
            return _stripped(key[len(prefix) :], known)
    return key
