"""Ending a trial early: when a validation figure stands still, or falls behind earlier trials.

Early stopping is declared as ``{metric = "valid_loss", patience = 5, min_delta = 0.0}``. A tuning's
pruner, one of Optuna's, compares a trial with those that were told before it. To keep a trial a
value whose result depends on nothing but itself, the earlier trials' curves are part of it:
``{pruner = {name = "MedianPruner", ...}, metric = "valid_loss", past = [...]}`` with one table
``{values = [...], complete = true}`` per earlier trial, one value per epoch.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optiscope.hints import did_you_mean
from optiscope.monitor.instrument import EndRun, EpochView, Instrument
from optiscope.records import Status
from optiscope.records.run import PRUNED_BY, higher_is_better

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner

__all__ = ["EarlyStopping", "Pruning", "check_pruner", "make_pruner", "pruner_names"]


# Base classes, wrappers, and those that look at more of earlier trials than their curves.
_NEEDS_MORE = {
    "BasePruner",
    "HyperbandPruner",
    "NopPruner",
    "PatientPruner",
    "SuccessiveHalvingPruner",
}


class EarlyStopping(Instrument):
    """Stops after ``patience`` evaluations without an improvement by more than ``min_delta``.

    ``metric`` is ``valid_loss`` or another ``valid_`` figure; what is not a loss should rise.

    Raises:
        ValueError: a metric that is not of the validation split, or a patience below one.
    """

    name = "early stopping"

    def __init__(self, metric: str = "valid_loss", patience: int = 5, min_delta: float = 0.0):
        if not str(metric).startswith("valid_"):
            raise ValueError(
                f"early stopping watches the validation split ('valid_loss', ...), got {metric!r}"
            )
        if not (isinstance(patience, int) and not isinstance(patience, bool) and patience >= 1):
            raise ValueError(f"patience must be a positive integer, got {patience!r}")
        if not (isinstance(min_delta, int | float) and 0 <= min_delta < math.inf):
            raise ValueError(f"min_delta must be a number of at least 0, got {min_delta!r}")
        self.metric, self.patience, self.min_delta = metric, patience, min_delta
        self._sign = 1.0 if higher_is_better(metric) else -1.0
        self._best = float("-inf")
        self._since = 0

    @classmethod
    def of(cls, declared: Mapping[str, Any] | None) -> EarlyStopping | None:
        """The declared criterion, or None; raises ValueError on unknown words."""
        if declared is None:
            return None
        try:
            return cls(**declared)
        except TypeError:
            raise ValueError(
                "early stopping takes 'metric', 'patience' and 'min_delta', "
                f"got {', '.join(declared)}"
            ) from None

    def state(self) -> list[float]:
        """Best value so far, and evaluations since."""
        return [self._best, self._since]

    def restore(self, state: list[float]) -> None:
        """Inverse of :meth:`state`."""
        self._best, self._since = state[0], int(state[1])

    def update(self, latest: Mapping[str, float]) -> str | None:
        """Take in the latest values; return the reason to stop, or None to go on."""
        value = self._sign * latest[self.metric]
        if value > self._best + self.min_delta:
            self._best, self._since = value, 0
        else:
            self._since += 1
        if self._since < self.patience:
            return None
        return f"{self.metric} has not improved for {self.patience} evaluations"

    def on_evaluation(self, view: EpochView) -> None:
        """End the run where the figure has not improved, unless its horizon is reached."""
        if view.last or view.epoch == 0:
            return
        reason = self.update(view.latest)
        if reason is not None:
            raise EndRun(Status.STOPPED, f"{reason} at step {view.step}")


def pruner_names() -> list[str]:
    """Optuna's pruners that decide from a trial's own curve and those before it."""
    import optuna  # here and below: few trials are pruned, and each process would pay for it

    return sorted(
        name
        for name in optuna.pruners.__all__
        if name.endswith("Pruner") and name not in _NEEDS_MORE
    )


def make_pruner(declared: Mapping[str, Any]) -> BasePruner:
    """Optuna's pruner of a declared ``{name = "MedianPruner", n_startup_trials = 2}``.

    Raises:
        ValueError: unknown name or settings.
    """
    import optuna

    settings = dict(declared)
    name = settings.pop("name", None)
    if name not in pruner_names():
        raise ValueError(f"unknown pruner {name!r}; {did_you_mean(name, pruner_names())}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            pruner: BasePruner = getattr(optuna.pruners, name)(**settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"pruner {name}: {error}") from None
    return pruner


def check_pruner(declared: Mapping[str, Any]) -> None:
    """Raise ValueError with one line where a declared pruner cannot be built."""
    make_pruner(declared)


class Pruning(Instrument):
    """A pruner at work in one trial.

    Args:
        pruner: declared, as for :func:`make_pruner`.
        metric: the validation figure that is compared.
        past: ``values`` per epoch of each earlier trial, epoch 1 first, and whether it was
            ``complete``.
    """

    name = "pruning"

    def __init__(
        self, pruner: Mapping[str, Any], metric: str, past: Sequence[Mapping[str, Any]]
    ) -> None:
        import optuna

        self.pruner, self.metric = str(pruner["name"]), metric
        self._reported: list[tuple[int, float]] = []
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

    def state(self) -> list[tuple[int, float]]:
        """Epochs and figures so far."""
        return self._reported

    def restore(self, state: Sequence[tuple[int, float]]) -> None:
        """Inverse of :meth:`state`."""
        for epoch, value in state:
            self._report(epoch, value)

    def _report(self, epoch: int, value: float) -> None:
        self._reported.append((epoch, value))
        self._trial.report(value, epoch)

    def update(self, epoch: int, latest: Mapping[str, float]) -> str | None:
        """Take in the figure after an epoch; return the reason to stop, or None to go on."""
        self._report(epoch, latest[self.metric])
        if not self._trial.should_prune():
            return None
        return f"{PRUNED_BY} {self.pruner}: {self.metric} fell behind earlier trials"

    def on_evaluation(self, view: EpochView) -> None:
        """End the run where the figure fell behind, unless its horizon is reached."""
        if view.last or view.epoch == 0:
            return
        reason = self.update(view.epoch, view.latest)
        if reason is not None:
            raise EndRun(Status.STOPPED, f"{reason} at step {view.step}")
