"""Choosing hyperparameters through Optuna, so that the choice can be replayed from records.

Optuna proposes; the records remember. A tuning that was interrupted is replayed: the sampler is
seeded by the study, the problem and the space, is told the recorded values in order, and so
proposes again what it proposed before. Algorithms with one space are proposed the same points, so
that neither has more luck with them, whatever they are called.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from scipy.stats import qmc

from optiscope.optim.spec import Choice, Range
from optiscope.records.trial import canonical_json
from optiscope.study.study import Algorithm

__all__ = ["Tuning"]

WORST = 1e30  # told to the sampler for a diverged trial: finite, so that every sampler takes it


class Tuning:
    """The tuning of one algorithm on one problem.

    Args:
        algorithm: what is tuned.
        words: anything that should change the proposals: study and problem names.
        lower_is_better: whether the selecting figure is a loss.
    """

    def __init__(
        self, algorithm: Algorithm, words: Sequence[str], *, lower_is_better: bool
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.algorithm = algorithm
        self._sign = 1.0 if lower_is_better else -1.0
        self._distributions = {n: _distribution(d) for n, d in sorted(algorithm.space.items())}
        text = "\n".join([*words, canonical_json(algorithm.to_dict()["space"])])
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
        self._study = optuna.create_study(sampler=_sampler(algorithm.sampler, seed))
        if algorithm.sampler in ("grid", "qmc"):
            points = _grid(algorithm) if algorithm.sampler == "grid" else _halton(algorithm, seed)
            for point in points:
                self._study.enqueue_trial(dict(point))
        self._trials: list[optuna.Trial] = []
        self._values: dict[int, float] = {}

    @property
    def sequential(self) -> bool:
        """Whether a proposal depends on earlier values, so that trials must wait for each other."""
        return self.algorithm.sampler == "tpe" or self.algorithm.recipe.pruner is not None

    @property
    def done(self) -> bool:
        """Whether the whole budget has been told."""
        return len(self._values) == self.algorithm.budget

    def ask(self) -> tuple[int, dict[str, Any]] | None:
        """Number and point of the next proposal, or None if there is none to make now."""
        asked = len(self._trials)
        if asked == self.algorithm.budget or (self.sequential and asked > len(self._values)):
            return None
        trial = self._study.ask(self._distributions)
        self._trials.append(trial)
        return asked, self._point(trial)

    def tell(self, index: int, values: Sequence[float | None]) -> None:
        """Take in the selecting figure of a proposal, one value per tuning seed.

        None stands for a run that did not reach its end; it makes the proposal worse than any
        that did.
        """
        complete = [v for v in values if v is not None and math.isfinite(v)]
        failed = len(complete) < len(values)
        value = math.inf if failed else self._sign * float(np.mean(complete))
        self._values[index] = value
        self._study.tell(self._trials[index], min(value, WORST))

    def best(self) -> tuple[int, dict[str, Any]]:
        """Number and point of the best proposal; the first one where all failed."""
        index = min(self._values, key=lambda i: (self._values[i], i))
        return index, self._point(self._trials[index])

    def _point(self, trial: optuna.Trial) -> dict[str, Any]:
        """What Optuna proposes, with choices by value instead of by number."""
        space = self.algorithm.space
        return {
            name: dimension.values[value] if isinstance(dimension := space[name], Choice) else value
            for name, value in trial.params.items()
        }


def _distribution(dimension: Range | Choice) -> BaseDistribution:
    """Choices go by their number, because Optuna takes plain values only, and no lists."""
    if isinstance(dimension, Choice):
        return CategoricalDistribution(range(len(dimension.values)))
    if dimension.integer:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def _halton(algorithm: Algorithm, seed: int) -> list[Mapping[str, Any]]:
    """Scrambled Halton points.

    Optuna's own quasi-random sampler falls back to random points until a trial is complete, so
    that its proposals would depend on the order in which trials end.
    """
    space = sorted(algorithm.space.items())
    sequence = qmc.Halton(len(space), scramble=True, rng=np.random.default_rng(seed))
    points: list[Mapping[str, Any]] = []
    for row in sequence.random(algorithm.budget):
        dimensions = zip(space, row, strict=True)
        points.append({name: _at(dimension, float(u)) for (name, dimension), u in dimensions})
    return points


def _at(dimension: Range | Choice, u: float) -> float:
    """The value of a range, or the number of a choice, at a share ``u`` in [0, 1) of the way."""
    if isinstance(dimension, Choice):
        return int(u * len(dimension.values))
    return dimension.at(u)


def _grid(algorithm: Algorithm) -> list[Mapping[str, Any]]:
    """Every point of the grid: choices, and ranges evenly spaced with both ends (or the middle)."""
    axes: list[list[Any]] = []
    for dimension in algorithm.space.values():
        if isinstance(dimension, Choice):
            axes.append(list(range(len(dimension.values))))
            continue
        axes.append(list(dimension.grid(dimension.points or algorithm.budget)))
    return [dict(zip(algorithm.space, point, strict=True)) for point in itertools.product(*axes)]
