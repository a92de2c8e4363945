"""A problem with fewer training samples, written ``mnist_mlp@5000``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from optiscope.data.samples import Splits
from optiscope.problems.problem import Problem

__all__ = ["with_fewer_samples"]

SEED = 20_000_003  # of the choice of samples, the same for every trial


@dataclass(frozen=True)
class _Fewer:
    """Splits of ``load`` with ``train`` training samples, drawn once for all."""

    load: Callable[[Any], Splits]
    train: int
    problem: str

    def __call__(self, data_dir: Any) -> Splits:
        splits = self.load(data_dir)
        if self.train > len(splits.train):
            raise ValueError(
                f"expected at most the {len(splits.train)} training samples of {self.problem}, "
                f"got train = {self.train}"
            )
        order = torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(SEED))
        train = splits.train.subset(order[: self.train].sort().values)
        judged = splits.train_eval
        if len(judged) > self.train:
            judged = train  # where training loss is measured is part of what is trained on
        return replace(splits, train=train, train_eval=judged)


def with_fewer_samples(problem: Problem, train: int) -> Problem:
    """``problem`` with a fixed random subset of ``train`` training samples.

    Validation and test sets stay whole. The training loss is evaluated on the subset where that is
    smaller than the problem's own evaluation set.
    """
    name = f"{problem.name}@{train}"
    return replace(
        problem,
        name=name,
        data=_Fewer(problem.data, train, problem.name),
        first_loss=None,
        baselines=(),
    )
