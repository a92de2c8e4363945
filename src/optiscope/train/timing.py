"""Seconds of training by several optimizers, interleaved in one session."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from optiscope.problems.problem import Problem
from optiscope.records import Seconds, Trial
from optiscope.train.clock import PHASES
from optiscope.train.device import synchronize
from optiscope.train.isolation import isolated
from optiscope.train.loop import OptimizerFactory, Training, check_device, load_splits

__all__ = ["TimedChunk", "time_interleaved"]


@dataclass(frozen=True)
class TimedChunk:
    """Some steps of one optimizer.

    Attributes:
        position: of the optimizer in the list that was timed.
        repetition: number of the round, from 0; round 0 comes after the warm-up.
        steps: how many were taken.
        steps_per_epoch: how many an epoch has.
        seconds: per phase; evaluation is no part of it.
        gradient_evaluations: in these steps.
        hessian_products: in these steps.
    """

    position: int
    repetition: int
    steps: int
    steps_per_epoch: int
    seconds: dict[str, Seconds]
    gradient_evaluations: int
    hessian_products: int

    @property
    def total(self) -> Seconds:
        """All phases together."""
        spent = self.seconds.values()
        return Seconds(sum(s.wall for s in spent), sum(s.cpu for s in spent))


def time_interleaved(
    trials: Sequence[Trial],
    problem: Problem,
    factories: Sequence[OptimizerFactory],
    *,
    repetitions: int,
    steps: int | None = None,
    data_dir: Path | None = None,
) -> Generator[TimedChunk, None, None]:
    """Chunks of training steps, one optimizer after the other in each round.

    A first round warms up and is not reported. Rounds run forwards and backwards in turn, so that
    a slow drift of the machine's speed favours nobody.

    Args:
        trials: one per optimizer, all with the same device and threads.
        problem: what they train.
        factories: their optimizers.
        repetitions: rounds after the warm-up.
        steps: per chunk; by default an epoch, so that what an optimizer does once an epoch is in
            every chunk.
        data_dir: where the data sets are.

    Raises:
        ValueError: trials on different devices or with different threads.
    """
    places = {(t.device, t.threads) for t in trials}
    if len(places) != 1:
        raise ValueError(f"expected trials with one device and thread count, got {sorted(places)}")
    device = torch.device(trials[0].device)
    check_device(device)
    splits = load_splits(problem.data, data_dir, device)
    with isolated(trials[0].threads, device):
        trainings = [  # a step costs what it costs, also once it has diverged
            Training(trial, problem, factory, splits, device, ends_when_diverged=False)
            for trial, factory in zip(trials, factories, strict=True)
        ]
        for repetition in range(-1, repetitions):
            order = range(len(trainings))
            for position in order if repetition % 2 == 0 else reversed(order):
                chunk = _chunk(trainings[position], position, repetition, steps)
                if repetition >= 0:
                    yield chunk


def _chunk(training: Training, position: int, repetition: int, steps: int | None) -> TimedChunk:
    before, seconds_before = (training.step, training.counts()), training.clock.seconds()
    training.clock.restart()
    training.train_epoch(steps)
    if training.device.type != "cpu":
        synchronize(training.device)
        training.clock.mark("forward_backward")
    after, seconds_after = (training.step, training.counts()), training.clock.seconds()
    zero = Seconds(0.0, 0.0)
    spent = {}
    for phase in PHASES:
        if phase in seconds_after:
            new, old = seconds_after[phase], seconds_before.get(phase, zero)
            spent[phase] = Seconds(new.wall - old.wall, new.cpu - old.cpu)
    counts = {name: count - before[1][name] for name, count in after[1].items()}
    return TimedChunk(
        position,
        repetition,
        after[0] - before[0],
        training.steps_per_epoch,
        spent,
        counts["gradient_evaluations"],
        counts["hessian_products"],
    )
