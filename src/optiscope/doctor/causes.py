"""Which finding explains which: causes stand before their symptoms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from optiscope.doctor.finding import Finding

__all__ = ["EXPLAINS", "rank"]

# In the order of a step: what is wrong earlier explains what looks wrong later.
ORDER = (
    "ownership",
    "gradient_flow",
    "loss_form",
    "labels",
    "inputs",
    "data",
    "modes",
    "initialization",
    "precision",
    "distributed",
    "decay",
    "rate",
    "units",
    "evaluation",
    "memory",
    "overlap",
    "augmentation",
    "speed",
)

# Findings that say what is seen and not why: they come last whatever their family.
SYMPTOMS = (
    "loss_at_prior",
    "not_finite",
    "rate_too_large",
    "dead_units",
    "saturated_units",
    "gradient_vanishes",
    "gradient_explodes",
    "zero_gradient",
    "weights_unchanged",
    "initial_loss_high",
    "clipping_always",
    "loss_does_not_fall",
    "outputs_all_equal",
    "evaluation_unlike_training",
)

_LEARNS_NOTHING = (
    "loss_at_prior",
    "dead_units",
    "saturated_units",
    "gradient_vanishes",
    "zero_gradient",
    "loss_does_not_fall",
    "rate_too_small",
    "outputs_all_equal",
)
_DIVERGES = (
    "rate_too_large",
    "not_finite",
    "gradient_explodes",
    "dead_units",
    "saturated_units",
    "clipping_always",
    "loss_at_prior",
    "zero_gradient",
    "gradient_vanishes",
    "loss_does_not_fall",
    "decay_dominates",
)
_NO_UPDATE = ("weights_unchanged", "rate_too_small", "zero_gradient", *_LEARNS_NOTHING)

_WORSE_IN_EVALUATION = ("evaluation_unlike_training",)

EXPLAINS: dict[str, tuple[str, ...]] = {
    "targets_repeated": (
        "labels_change",
        "labels_unrelated_to_inputs",
        "targets_unrelated",
        *_WORSE_IN_EVALUATION,
        *_LEARNS_NOTHING,
    ),
    "targets_sorted": (
        "same_order_every_epoch",
        "targets_differ_train_eval",
        *_WORSE_IN_EVALUATION,
        *_DIVERGES,
    ),
    "labels_change": ("labels_unrelated_to_inputs", *_WORSE_IN_EVALUATION, *_LEARNS_NOTHING),
    "loss_arguments_swapped": (
        "nll_of_non_log_probabilities",
        "target_out_of_range",
        "loss_ascends",
        *_DIVERGES,
    ),
    "cross_entropy_of_one_class": (
        "loss_is_zero",
        "step_without_gradient",
        "output_cannot_reach_target",
        *_NO_UPDATE,
    ),
    "loss_is_zero": ("step_without_gradient", *_NO_UPDATE),
    "label_smoothing_too_high": _LEARNS_NOTHING,
    "view_exchanges_axes": ("future_visible", "samples_mix", "past_invisible", *_LEARNS_NOTHING),
    "softmax_over_queries": ("future_visible", *_LEARNS_NOTHING),
    "softmax_over_batch": ("samples_mix", "log_softmax_over_batch", *_LEARNS_NOTHING),
    "image_axes_mixed": (*_LEARNS_NOTHING, *_WORSE_IN_EVALUATION),
    "adam_eps_too_large": _LEARNS_NOTHING,
    "group_rates_far_apart": _LEARNS_NOTHING,
    "accumulation_cleared": _LEARNS_NOTHING,
    "gradient_explodes": ("not_finite", "clipping_always", "rate_too_large", "initial_loss_high"),
    "outputs_all_equal": ("loss_at_prior", "loss_does_not_fall"),
    "inputs_differ_train_eval": _WORSE_IN_EVALUATION,
    "labels_differ_train_eval": _WORSE_IN_EVALUATION,
    "targets_differ_train_eval": _WORSE_IN_EVALUATION,
    "features_reordered": ("inputs_differ_train_eval", *_WORSE_IN_EVALUATION),
    "evaluated_in_train": _WORSE_IN_EVALUATION,
    "dropout_in_evaluation": _WORSE_IN_EVALUATION,
    "batch_norm_statistics_unused": _WORSE_IN_EVALUATION,
    "batch_norm_momentum_confused": ("batch_norm_statistics_unused", *_WORSE_IN_EVALUATION),
    "batch_norm_of_one": _WORSE_IN_EVALUATION,
    "weights_changed_by_evaluation": _WORSE_IN_EVALUATION,
    "gradient_not_cleared": (*_DIVERGES, "update_ascends", "stale_gradient", "momentum_too_large"),
    "gradient_cleared_before_step": _NO_UPDATE,
    "step_without_gradient": _NO_UPDATE,
    "never_stepped": ("step_without_gradient", "scheduler_never_stepped", *_NO_UPDATE),
    "stale_gradient": _DIVERGES,
    "optimizer_holds_foreign": (
        "trainable_not_in_optimizer",
        "step_without_gradient",
        *_NO_UPDATE,
    ),
    "trainable_not_in_optimizer": (
        *_LEARNS_NOTHING,
        "step_without_gradient",
        "optimizer_holds_foreign",
        "symmetric_units",
    ),
    "optimizer_param_unused": ("zero_gradient", *_LEARNS_NOTHING),
    "frozen_at_random_init": _LEARNS_NOTHING,
    "optimizer_recreated": ("optimizer_state_lost", *_LEARNS_NOTHING),
    "optimizer_state_lost": _LEARNS_NOTHING,
    "weights_reset": (*_LEARNS_NOTHING, "loss_does_not_fall"),
    "softmax_before_cross_entropy": (*_LEARNS_NOTHING, "batches_sorted"),
    "squashed_before_cross_entropy": _LEARNS_NOTHING,
    "rectified_logits": ("dead_units", "zero_gradient", *_LEARNS_NOTHING),
    "nll_of_non_log_probabilities": (*_LEARNS_NOTHING, *_DIVERGES, "initial_loss_high"),
    "log_softmax_over_batch": (
        "nll_of_non_log_probabilities",
        "samples_mix",
        *_LEARNS_NOTHING,
        "initial_loss_high",
    ),
    "loss_broadcasts": (*_LEARNS_NOTHING, "targets_unrelated"),
    "loss_ascends": (*_DIVERGES, "update_ascends"),
    "update_ascends": _DIVERGES,
    "loss_summed": (*_DIVERGES, "initial_loss_high"),
    "accumulation_not_divided": _DIVERGES,
    "target_out_of_range": (*_LEARNS_NOTHING, "initial_loss_high", *_DIVERGES),
    "output_cannot_reach_target": _LEARNS_NOTHING,
    "labels_unrelated_to_inputs": _LEARNS_NOTHING,
    "batches_sorted": (
        "same_order_every_epoch",
        "output_never_a_label",
        "rate_too_large",
        "loss_does_not_fall",
        "loss_at_prior",
        "evaluated_in_train",
        "batches_repeated",
    ),
    "samples_duplicated": ("batches_sorted", "output_never_a_label", "same_batch_every_step"),
    "batches_repeated": ("same_order_every_epoch",),
    "same_batch_every_step": ("same_order_every_epoch", "batches_repeated"),
    "inputs_not_normalized": (
        *_DIVERGES,
        "initial_loss_high",
        "inputs_differ_train_eval",
        "labels_unrelated_to_inputs",
        "update_lost",
        "rate_too_small",
    ),
    "inputs_not_finite": ("not_finite", *_DIVERGES),
    "inputs_constant": ("labels_unrelated_to_inputs", "samples_duplicated", *_LEARNS_NOTHING),
    "inputs_drift": ("inputs_not_normalized", "inputs_differ_train_eval", *_DIVERGES),
    "input_changed_in_place": ("inputs_drift", "inputs_not_normalized", *_DIVERGES),
    "trained_in_eval": (),
    "dropout_too_high": (*_LEARNS_NOTHING, "initial_loss_high", "rate_too_large"),
    "symmetric_units": ("outputs_all_equal", "rate_too_large", *_LEARNS_NOTHING),
    "zero_weights": ("symmetric_units", "rate_too_large", *_LEARNS_NOTHING),
    "dead_units": (
        "outputs_all_equal",
        "loss_at_prior",
        "zero_gradient",
        "gradient_vanishes",
        "rate_too_small",
        "loss_does_not_fall",
    ),
    "saturated_units": ("gradient_vanishes", "loss_at_prior", "initial_loss_high"),
    "initial_loss_high": (
        "gradient_explodes",
        "dead_units",
        "loss_at_prior",
        "zero_gradient",
        "rate_too_large",
        "not_finite",
    ),
    "decay_dominates": (
        "outputs_all_equal",
        "loss_at_prior",
        "rate_too_small",
        "loss_does_not_fall",
        "dead_units",
        "gradient_vanishes",
    ),
    "rate_too_large": (
        "outputs_all_equal",
        "not_finite",
        "dead_units",
        "saturated_units",
        "loss_at_prior",
        "decay_dominates",
        "gradient_explodes",
        "gradient_vanishes",
        "zero_gradient",
        "loss_does_not_fall",
        "clipping_always",
    ),
    "rate_rising": (
        "rate_too_small",
        "rate_too_large",
        "not_finite",
        "dead_units",
        "loss_at_prior",
    ),
    "rate_collapsed": ("rate_too_small", "loss_at_prior", "weights_unchanged"),
    "schedule_in_wrong_unit": (
        "rate_collapsed",
        "rate_rising",
        "rate_too_small",
        "warmup_never_ends",
        "loss_at_prior",
    ),
    "warmup_never_ends": ("rate_too_small", "rate_rising", "loss_at_prior", "loss_does_not_fall"),
    "scheduler_never_stepped": ("rate_too_small",),
    "rate_zero": ("weights_unchanged", *_LEARNS_NOTHING),
    "update_lost": ("weights_unchanged", "loss_at_prior"),
    "clipping_always": ("rate_too_small", "loss_at_prior", "loss_does_not_fall"),
    "loss_scale_left_in": ("rate_too_large", "not_finite", "gradient_explodes", "clipping_always"),
    "samples_mix": ("evaluated_in_train", "loss_at_prior"),
    "adam_betas_confused": _DIVERGES,
    "momentum_too_large": _DIVERGES,
    "inputs_scaled_by_batch": _WORSE_IN_EVALUATION,
    "place_in_batch_matters": (*_LEARNS_NOTHING, *_WORSE_IN_EVALUATION),
    "argument_ignored": _LEARNS_NOTHING,
    "targets_not_scaled": (
        "gradient_explodes",
        "initial_loss_high",
        "clipping_always",
        "output_cannot_reach_target",
        *_LEARNS_NOTHING,
    ),
    "divergence_of_non_log_probabilities": ("target_out_of_range", *_LEARNS_NOTHING, *_DIVERGES),
    "loss_divided_twice": _LEARNS_NOTHING,
    "update_undone": _NO_UPDATE,
    "frozen_batch_norm_moves": _WORSE_IN_EVALUATION,
    "dropout_of_output": (*_LEARNS_NOTHING, *_WORSE_IN_EVALUATION),
    "module_repeated": _LEARNS_NOTHING,
    "schedule_factor_is_a_rate": ("rate_collapsed", "warmup_never_ends", *_NO_UPDATE),
    "ranks_see_same_data": (),
    "model_bypassed": ("ranks_differ",),
}


def _place(finding: Finding) -> tuple[int, int, int, int]:
    severity = {"error": 0, "warning": 1, "note": 2}[finding.severity]
    symptom = int(finding.rule in SYMPTOMS)
    order = SYMPTOMS.index(finding.rule) if symptom else ORDER.index(finding.family)
    return (int(severity == 2), symptom, order, finding.step)


def rank(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings with causes first, each told what explains it and what it explains.

    A note explains nothing: it says that something is as meant.
    """
    ordered = sorted(findings, key=_place)
    present = {finding.rule for finding in ordered}
    alarms = [finding.rule for finding in ordered if finding.is_alarm]
    cause: dict[str, str] = {}
    for rule in alarms:
        for symptom in EXPLAINS.get(rule, ()):
            if symptom in present and symptom != rule and cause.get(rule) != symptom:
                cause.setdefault(symptom, rule)
    ranked = [
        replace(
            finding,
            explained_by=cause.get(finding.rule),
            explains=tuple(
                s for s in EXPLAINS.get(finding.rule, ()) if cause.get(s) == finding.rule
            ),
        )
        for finding in ordered
    ]
    return tuple(sorted(ranked, key=lambda f: (f.severity == "note", f.explained_by is not None)))
