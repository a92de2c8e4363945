"""How many times fewer steps and seconds an optimizer needs than a baseline, to the same loss.

The baseline trains over a horizon T at its best hyperparameters and ends at a validation loss. An
optimizer that anneals must be told its own, shorter horizon, and is trained once for each of
several shares of T. The smallest share at which it ends at the baseline's loss, interpolated, is
what it needs; one over it is its speed.

Index legend: S seeds, H horizons (shares of T, ascending), R resamples of the seeds, P problems.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["MeanSpeed", "Race", "Share", "Speed", "mean_speed", "share_needed", "speed"]

Bound = Literal["", "at least", "at most"]
Array = NDArray[np.float64]

DRAWS: Final = 10_000
"""Resamples, where there are too many to take each of them."""

ENUMERATED: Final = 5
"""Most seeds of which every resample is taken: 5⁵ = 3,125."""

SEED: Final = 20_261_130
"""Of the resamples that are drawn, so that a page says the same every time."""


@dataclass(frozen=True)
class Share:
    """The share of the baseline's horizon that is needed.

    Attributes:
        value: the share; where it is not known, the nearest that was tried.
        bound: of the speed 1 / value: ``at least`` where the shortest horizon did already, ``at
            most`` where the longest did not, empty where it lies between two.
    """

    value: float
    bound: Bound = ""


def share_needed(shares: ArrayLike, losses: ArrayLike, goal: float) -> Share:
    """The smallest share of T at which the loss is at most ``goal``.

    Between the first horizon that reaches it and the one before, the loss is taken as linear in
    the logarithm of the horizon. Longer horizons do not matter, whether they reach it or not.

    Args:
        shares: [H] positive, ascending.
        losses: [H] at the end of each horizon; NaN where the run failed, which reaches nothing.
        goal: the baseline's loss at T.

    Raises:
        ValueError: no horizons, not ascending, not as many losses, or a goal that is not finite.
    """
    tried, ends = np.asarray(shares, dtype=float), np.asarray(losses, dtype=float)
    if tried.shape != ends.shape or tried.ndim != 1 or not len(tried):
        raise ValueError(
            f"expected a loss for each of one or more horizons, got {tried.shape} horizons and "
            f"{ends.shape} losses"
        )
    if tried[0] <= 0 or (np.diff(tried) <= 0).any():
        raise ValueError(f"expected positive shares in ascending order, got {tried.tolist()}")
    if not math.isfinite(goal):
        raise ValueError(f"expected a finite loss to reach, got {goal}")
    ends = np.where(np.isnan(ends), np.inf, ends)
    there = np.flatnonzero(ends <= goal)
    if not len(there):
        return Share(float(tried[-1]), "at most")
    first = int(there[0])
    if first == 0:
        return Share(float(tried[0]), "" if ends[0] == goal else "at least")
    before, after = ends[first - 1], ends[first]
    if math.isinf(before):
        return Share(float(tried[first]))
    weight = (before - goal) / (before - after)
    low, high = math.log(tried[first - 1]), math.log(tried[first])
    return Share(math.exp(low + weight * (high - low)))


@dataclass(frozen=True)
class Race:
    """What one optimizer and the baseline did on one problem.

    Attributes:
        problem: its name.
        algorithm: label of the optimizer.
        baseline: label of the baseline.
        shares: [H] of T, ascending.
        losses: [S, H] at the end of each horizon, NaN where a run failed.
        seconds: [S, H] of training, likewise.
        goals: [S] the baseline's losses at T, seed by seed.
        goal_seconds: [S] the baseline's seconds of training.
    """

    problem: str
    algorithm: str
    baseline: str
    shares: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]
    seconds: tuple[tuple[float, ...], ...]
    goals: tuple[float, ...]
    goal_seconds: tuple[float, ...]


@dataclass(frozen=True)
class Speed:
    """How much faster than the baseline an optimizer is on one problem.

    Attributes:
        problem, algorithm, baseline: as in the race.
        steps: the baseline's steps over those needed.
        seconds: the same of seconds of training.
        bound: ``at least`` or ``at most`` where ``steps`` (and ``seconds``) is a bound only.
        steps_interval, seconds_interval: percentile bootstrap over paired seeds.
        ends: of both intervals, which of their ends are bounds only: the lower one ``at most`` and
            the upper one ``at least`` its value, or empty.
        share: of T that is needed.
        seeds: S.
        logarithms: [R, 2] of steps and seconds in each resample.
        bounds: [R] which of them are bounds.
    """

    problem: str
    algorithm: str
    baseline: str
    steps: float
    seconds: float
    bound: Bound
    steps_interval: tuple[float, float]
    seconds_interval: tuple[float, float]
    ends: tuple[Bound, Bound]
    share: float
    seeds: int
    logarithms: Array = field(repr=False, compare=False)
    bounds: NDArray[np.str_] = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the resamples."""
        values = asdict(self)
        del values["logarithms"], values["bounds"]
        return values


def speed(race: Race, *, level: float = 0.05) -> Speed:
    """The optimizer's speed on one problem, from means over seeds.

    Every resample takes whole seeds with replacement, the baseline's run and all of the
    optimizer's together. With five seeds or fewer every resample is taken once. Three seeds are
    few: the interval says how far the seeds differ, and not more.

    Args:
        race: what was measured.
        level: probability that the interval leaves out, half on each side.

    Raises:
        ValueError: no seeds, or shapes that do not agree.
    """
    shares = np.asarray(race.shares, dtype=float)
    losses, seconds = np.asarray(race.losses, dtype=float), np.asarray(race.seconds, dtype=float)
    goals = np.asarray(race.goals, dtype=float)
    spent = np.asarray(race.goal_seconds, dtype=float)
    count = len(goals)
    expected = (count, len(shares))
    if not count or losses.shape != expected or seconds.shape != expected or len(spent) != count:
        raise ValueError(
            f"expected losses and seconds of {count} seeds at {len(shares)} horizons, got "
            f"{losses.shape} and {seconds.shape}"
        )
    whole, bound = _of(shares, losses, seconds, goals, spent)
    resamples = [
        _of(shares, losses[chosen], seconds[chosen], goals[chosen], spent[chosen])
        for chosen in _resamples(count)
    ]
    logs = np.log(np.array([values for values, _ in resamples]))
    bounds = np.array([kind for _, kind in resamples])
    (low_steps, low_seconds), (high_steps, high_seconds) = np.exp(
        np.quantile(logs, [level / 2, 1 - level / 2], axis=0)
    )
    return Speed(
        race.problem,
        race.algorithm,
        race.baseline,
        whole[0],
        whole[1],
        bound,
        (float(low_steps), float(high_steps)),
        (float(low_seconds), float(high_seconds)),
        _ends(bounds == "at most", bounds == "at least", level),
        1.0 / whole[0],
        count,
        logs,
        bounds,
    )


def _ends(below: NDArray[np.bool_], above: NDArray[np.bool_], level: float) -> tuple[Bound, Bound]:
    """Which ends of an interval are bounds: so many resamples may lie beyond them.

    Args:
        below, above: [R] resamples whose value is an upper bound, and those of a lower bound.
        level: probability that the interval leaves out, half on each side.
    """
    tail = math.floor((len(below) - 1) * level / 2)  # resamples beyond each end
    return "at most" if below.sum() > tail else "", "at least" if above.sum() > tail else ""


def _of(
    shares: Array, losses: Array, seconds: Array, goals: Array, spent: Array
) -> tuple[tuple[float, float], Bound]:
    """Speeds in steps and seconds of means over these seeds, and of which kind they are.

    A horizon at which one seed's run failed has no mean, and reaches nothing.
    """
    needed = share_needed(shares, losses.mean(0), float(goals.mean()))
    took = seconds.mean(0)
    known = np.isfinite(took)
    time = float(np.interp(needed.value, shares[known], took[known])) if known.any() else math.nan
    return (1.0 / needed.value, float(spent.mean()) / time), needed.bound


def _resamples(count: int) -> list[NDArray[np.int64]]:
    """Indices of every resample of ``count`` seeds, or of many drawn ones."""
    if count <= ENUMERATED:
        every = itertools.product(range(count), repeat=count)
        return [np.array(chosen, dtype=np.int64) for chosen in every]
    return list(np.random.default_rng(SEED).integers(count, size=(DRAWS, count)))


@dataclass(frozen=True)
class MeanSpeed:
    """Speeds over problems.

    Attributes:
        algorithm: label.
        problems: how many are in the mean.
        steps, seconds: geometric means over the problems.
        steps_interval, seconds_interval: seeds resampled in each problem by itself. The problems
            are taken as they are: the interval says nothing of other problems.
        ends: which ends of both intervals are bounds only, see :class:`Speed`.
        smallest: the problem with the least speed in steps, and that speed.
        smallest_bound: what kind of bound that speed is.
        bound: what kind of bound the mean is, where problems are; ``bounds of both kinds`` where
            it is no estimate.
        upper_bounds, lower_bounds: number of problems whose speed is one.
    """

    algorithm: str
    problems: int
    steps: float
    seconds: float
    steps_interval: tuple[float, float]
    seconds_interval: tuple[float, float]
    ends: tuple[Bound, Bound]
    smallest: tuple[str, float]
    smallest_bound: Bound
    bound: Literal["", "at least", "at most", "bounds of both kinds"]
    upper_bounds: int
    lower_bounds: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def mean_speed(speeds: Sequence[Speed], *, level: float = 0.05) -> MeanSpeed:
    """The geometric mean of one optimizer's speeds over problems, and the smallest.

    Args:
        speeds: of one algorithm, a problem each.
        level: probability that the interval leaves out, half on each side.

    Raises:
        ValueError: no speeds, or of several algorithms.
    """
    names = {one.algorithm for one in speeds}
    if len(names) != 1:
        raise ValueError(f"expected speeds of one algorithm, got those of {sorted(names)}")
    steps = np.log([one.steps for one in speeds])
    seconds = np.log([one.seconds for one in speeds])
    draw = np.random.default_rng(SEED)
    picks = [draw.integers(len(one.logarithms), size=DRAWS) for one in speeds]
    drawn = np.mean([one.logarithms[pick] for one, pick in zip(speeds, picks, strict=True)], axis=0)
    bounds = np.array([one.bounds[pick] for one, pick in zip(speeds, picks, strict=True)])
    (low_steps, low_seconds), (high_steps, high_seconds) = np.exp(
        np.quantile(drawn, [level / 2, 1 - level / 2], axis=0)
    )
    least = min(speeds, key=lambda one: one.steps)
    kinds = [one.bound for one in speeds]
    return MeanSpeed(
        names.pop(),
        len(speeds),
        float(np.exp(steps.mean())),
        float(np.exp(seconds.mean())),
        (float(low_steps), float(high_steps)),
        (float(low_seconds), float(high_seconds)),
        _ends((bounds == "at most").any(0), (bounds == "at least").any(0), level),
        (least.problem, least.steps),
        least.bound,
        _kind(set(kinds) - {""}),
        kinds.count("at most"),
        kinds.count("at least"),
    )


def _kind(
    bounds: set[Bound] | set[str],
) -> Literal["", "at least", "at most", "bounds of both kinds"]:
    if bounds == {"at least"}:
        return "at least"
    if bounds == {"at most"}:
        return "at most"
    return "bounds of both kinds" if bounds else ""


def means(speeds: Sequence[Speed]) -> Mapping[str, MeanSpeed]:
    """The mean of each algorithm, in the order in which they occur."""
    labels = dict.fromkeys(one.algorithm for one in speeds)
    return {
        label: mean_speed([one for one in speeds if one.algorithm == label]) for label in labels
    }
