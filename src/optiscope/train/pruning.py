"""Stopping a trial of a tuning that falls behind those before it, by Optuna's pruners.

A pruner compares a trial with those that were told before it. To keep a trial a value whose result
depends on nothing but itself, the earlier trials' curves are part of it:
``{pruner = {name = "MedianPruner", ...}, metric = "valid_loss", past = [...]}`` with one table
``{values = [...], complete = true}`` per earlier trial, one value per epoch.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution

from optiscope.hints import did_you_mean
from optiscope.records.run import PRUNED_BY, higher_is_better

__all__ = ["Pruning", "check_pruner", "make_pruner", "pruner_names"]

# Base classes, wrappers, and those that look at more of earlier trials than their curves.
_NEEDS_MORE = {
    "BasePruner",
    "HyperbandPruner",
    "NopPruner",
    "PatientPruner",
    "SuccessiveHalvingPruner",
}


def pruner_names() -> list[str]:
    """Optuna's pruners that decide from a trial's own curve and those before it."""
    return sorted(
        name
        for name in optuna.pruners.__all__
        if name.endswith("Pruner") and name not in _NEEDS_MORE
    )


def make_pruner(declared: Mapping[str, Any]) -> optuna.pruners.BasePruner:
    """Optuna's pruner of a declared ``{name = "MedianPruner", n_startup_trials = 2}``.

    Raises:
        ValueError: unknown name or settings.
    """
    settings = dict(declared)
    name = settings.pop("name", None)
    if name not in pruner_names():
        raise ValueError(f"unknown pruner {name!r}; {did_you_mean(name, pruner_names())}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            pruner: optuna.pruners.BasePruner = getattr(optuna.pruners, name)(**settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"pruner {name}: {error}") from None
    return pruner


def check_pruner(declared: Mapping[str, Any]) -> None:
    """Raise ValueError with one line where a declared pruner cannot be built."""
    make_pruner(declared)


class Pruning:
    """A pruner at work in one trial.

    Args:
        pruner: declared, as for :func:`make_pruner`.
        metric: the validation figure that is compared.
        past: ``values`` per epoch of each earlier trial, epoch 1 first, and whether it was
            ``complete``.
    """

    def __init__(
        self, pruner: Mapping[str, Any], metric: str, past: Sequence[Mapping[str, Any]]
    ) -> None:
        self.name, self.metric = str(pruner["name"]), metric
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(
            direction="maximize" if higher_is_better(metric) else "minimize",
            pruner=make_pruner(pruner),
        )
        empty: dict[str, BaseDistribution] = {}
        states = optuna.trial.TrialState
        for earlier in past:
            values = earlier["values"]
            study.add_trial(
                optuna.trial.create_trial(
                    params={},
                    distributions=empty,
                    value=values[-1] if earlier["complete"] else None,
                    intermediate_values=dict(enumerate(values, start=1)),
                    state=states.COMPLETE if earlier["complete"] else states.PRUNED,
                )
            )
        self._trial = study.ask()

    @classmethod
    def of(cls, declared: Mapping[str, Any] | None) -> Pruning | None:
        """The pruning that a trial carries, or None."""
        return None if declared is None else cls(**declared)

    def update(self, epoch: int, latest: Mapping[str, float]) -> str | None:
        """Take in the figure after an epoch; return the reason to stop, or None to go on."""
        self._trial.report(latest[self.metric], epoch)
        if not self._trial.should_prune():
            return None
        return f"{PRUNED_BY} {self.name}: {self.metric} fell behind earlier trials"
