"""The empirical risk of a problem on one of its splits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from optiscope.data.samples import Samples
from optiscope.errors import OptiscopeError
from optiscope.hints import did_you_mean
from optiscope.objective.batches import ModelBatch, all_random_state
from optiscope.objective.risk import EmpiricalRisk, RiskError
from optiscope.problems.problem import Problem, own_loss

__all__ = ["SplitError", "risk_of"]

SPLITS = ("train", "train_eval", "valid", "test")
BATCH = 1000


class SplitError(OptiscopeError, ValueError):
    """A split that no problem has."""


class _SampleBatches:
    """Batches of some samples in order, selected anew in each pass, as `Problem.outputs` has it."""

    def __init__(self, problem: Problem, samples: Samples, size: int) -> None:
        self._problem, self._samples, self._size = problem, samples, size

    def __iter__(self) -> Iterator[ModelBatch]:
        for indices in torch.arange(len(self._samples)).split(self._size):
            batch = self._samples.select(indices)
            if self._problem.loss is own_loss and isinstance(batch.inputs, Mapping):
                yield ModelBatch((), batch.inputs, batch.targets, len(indices))
            else:
                yield ModelBatch((batch.inputs,), {}, batch.targets, len(indices))


def risk_of(
    problem: Problem,
    split: str = "train",
    model: nn.Module | None = None,
    *,
    data_dir: Any = None,
    seed: int = 0,
    batch_size: int = BATCH,
    samples: int | None = None,
    **options: Any,
) -> EmpiricalRisk:
    """Mean loss of a problem's model over a split, without regularization or augmentation.

    Args:
        problem: model, loss and data.
        split: ``train``, ``train_eval`` (its part on which the training loss is reported),
            ``valid`` or ``test``.
        model: trained or not; None: a new one whose weights are drawn with ``seed``.
        data_dir: folder of the data; None: where the user's settings say.
        seed: of the weights, and of noise that the model itself draws.
        batch_size: samples per forward pass.
        samples: use the first so many only.
        options: of `EmpiricalRisk`, such as ``batch_norm="batch"``.

    Raises:
        SplitError: there is no such split.
        DataError: the data are not here.
    """
    if split not in SPLITS:
        raise SplitError(f"expected a split, got {split[:80]!r}: {did_you_mean(split, SPLITS)}")
    if problem.loss is own_loss and problem.training_loss is not None:
        raise RiskError(
            f"expected {problem.name} to have a loss of outputs and targets, got training_loss "
            "alone: give the problem a loss"
        )
    if model is None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = problem.make_model()
    with all_random_state([], []):  # some libraries draw numbers when they are first imported
        chosen: Samples = getattr(problem.data(data_dir), split)
    if samples is not None:
        chosen = chosen.subset(torch.arange(min(samples, len(chosen))))
    if problem.metric is not None:
        options.setdefault("metrics", {problem.metric.name: problem.metric.compute})
    options.setdefault("noise", "fixed")
    options.setdefault("seed", seed)
    return EmpiricalRisk(
        model, problem.loss, _SampleBatches(problem, chosen, batch_size), **options
    )
