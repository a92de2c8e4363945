"""Rules while training, one file per family."""

from __future__ import annotations

from optiscope.doctor.rule import Rule
from optiscope.doctor.rules import (
    axes,
    data,
    decay,
    derivative,
    distributed,
    evaluation,
    gradient_flow,
    held_out,
    initialization,
    inputs,
    invariance,
    labels,
    loss_arguments,
    loss_form,
    modes,
    ownership,
    pairing,
    precision,
    rate,
    schedule,
    sequences,
    units,
    updates,
)

__all__ = ["RULES"]

RULES: tuple[type[Rule], ...] = (
    *ownership.RULES,
    *gradient_flow.RULES,
    *updates.RULES,
    *derivative.RULES,
    *loss_arguments.RULES,
    *loss_form.RULES,
    *axes.RULES,
    *labels.RULES,
    *pairing.RULES,
    *sequences.RULES,
    *inputs.RULES,
    *invariance.RULES,
    *data.RULES,
    *modes.RULES,
    *initialization.RULES,
    *decay.RULES,
    *rate.RULES,
    *schedule.RULES,
    *units.RULES,
    *precision.RULES,
    *distributed.RULES,
    *evaluation.RULES,
    *held_out.RULES,
)
"""Every rule, in the order of a training step."""
