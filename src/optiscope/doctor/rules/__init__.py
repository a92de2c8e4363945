"""Rules while training, one file per family."""

from __future__ import annotations

from optiscope.doctor.rule import Rule
from optiscope.doctor.rules import (
    data,
    decay,
    distributed,
    evaluation,
    gradient_flow,
    initialization,
    inputs,
    labels,
    loss_form,
    modes,
    ownership,
    precision,
    rate,
    units,
)

__all__ = ["RULES"]

RULES: tuple[type[Rule], ...] = (
    *ownership.RULES,
    *gradient_flow.RULES,
    *loss_form.RULES,
    *labels.RULES,
    *inputs.RULES,
    *data.RULES,
    *modes.RULES,
    *initialization.RULES,
    *decay.RULES,
    *rate.RULES,
    *units.RULES,
    *precision.RULES,
    *distributed.RULES,
    *evaluation.RULES,
)
"""Every rule, in the order of a training step."""
