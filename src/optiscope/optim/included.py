"""Our own optimizers by name."""

from __future__ import annotations

from optiscope.optim.lark.optimizer import Lark
from optiscope.optim.preconditioner.variants import (
    AdaptiveSGD,
    OnlyAdaptiveSGD,
    PreconditionedSGD,
    PreconditionedTunedMomentum,
    PreconditionedTunedSGD,
)
from optiscope.optim.spec import OptimizerSpec, Range

__all__ = ["SPECS"]

SOURCE = "Roos & Hennig 2019; Bald 2019"

SPECS: tuple[OptimizerSpec, ...] = (
    OptimizerSpec(
        "lark",
        Lark,
        horizon="total_steps",
        former={"horizon": "total_steps"},
        source="optiscope, docs/lark.md",
        version=3,
    ),
    OptimizerSpec(
        "preconditioned_sgd",
        PreconditionedSGD,
        closure=True,
        steps_per_epoch="estimate_every",
        source=SOURCE,
        version=2,
    ),
    OptimizerSpec(
        "adaptive_sgd",
        AdaptiveSGD,
        closure=True,
        steps_per_epoch="estimate_every",
        source=SOURCE,
        version=2,
    ),
    OptimizerSpec(
        "only_adaptive_sgd",
        OnlyAdaptiveSGD,
        closure=True,
        steps_per_epoch="estimate_every",
        source=SOURCE,
        version=2,
    ),
    OptimizerSpec(
        "preconditioned_tuned_sgd",
        PreconditionedTunedSGD,
        space={"lr": Range(1e-3, 1e1)},
        closure=True,
        steps_per_epoch="estimate_every",
        source=SOURCE,
        version=2,
    ),
    OptimizerSpec(
        "preconditioned_tuned_momentum",
        PreconditionedTunedMomentum,
        space={"lr": Range(1e-4, 1e0)},
        closure=True,
        steps_per_epoch="estimate_every",
        source=SOURCE,
        version=2,
    ),
)
