"""Mean loss and metric over a whole evaluation set, and what may be watched of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from optiscope.data.samples import Batch, Samples, TensorSamples
from optiscope.hints import did_you_mean
from optiscope.objective.sample_sums import SampleSums
from optiscope.problems.problem import Problem, own_loss
from optiscope.train.device import in_fast_layout

__all__ = ["check_watched", "evaluate", "validation_figures"]

EVALUATION_BATCH = 1000


@torch.no_grad()
def evaluate(
    problem: Problem, model: nn.Module, samples: Samples, device: torch.device
) -> dict[str, float]:
    """Mean per-sample loss, and metric where the problem has one, over all of ``samples``.

    The last batch may be smaller; every sample counts once. The model is put in evaluation mode,
    and each of its modules is left in the mode it had. The reported loss never contains a
    regularization term.

    Raises:
        ValueError: the problem's loss is neither a mean nor one value per sample, or its metric
            is not one value per sample.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    sums = SampleSums()
    for count, batch in _batches(samples, device):
        losses, outputs = _evaluated(problem, model, batch)
        what = f"the loss of {problem.name}"
        if losses.ndim == 0:
            _refuse_sum(problem, outputs, batch, losses, what)
        else:
            _refuse_other_shapes(losses, count, what, "use reduction='none'")
        sums.add("loss", losses, count)
        if problem.metric is not None:
            name, values = problem.metric.name, problem.metric.compute(outputs, batch.targets)
            ways = "take means over all but the samples' dimension, as in x.flatten(1).mean(1)"
            _refuse_other_shapes(values, count, f"the {name} of {problem.name}", ways)
            sums.add(name, values, count)
    for module, training in modes:
        module.training = training
    return sums.means()


def _evaluated(problem: Problem, model: nn.Module, batch: Batch) -> tuple[Tensor, Any]:
    """Losses of a batch, [B, ...] or [], and outputs where there is a metric to judge them."""
    if problem.loss is own_loss and problem.training_loss is not None:
        losses = problem.training_loss(model, batch)
        judged = problem.metric is not None
        return losses, problem.outputs(model, batch.inputs) if judged else None
    outputs = problem.outputs(model, batch.inputs)
    return problem.loss(outputs, batch.targets), outputs


def _refuse_sum(problem: Problem, outputs: Any, batch: Batch, loss: Tensor, what: str) -> None:
    """Refuse a scalar that doubles when every sample is given twice: a sum is no mean.

    Raises:
        ValueError: it does.
    """
    if problem.loss is own_loss or not all(
        isinstance(t, Tensor) and t.ndim for t in (outputs, batch.targets)
    ):
        return
    twice = problem.loss(torch.cat([outputs] * 2), torch.cat([batch.targets] * 2))
    if loss.abs() > 0 and bool((twice - 2 * loss).abs() < 0.1 * loss.abs()):
        raise ValueError(
            f"{what} must be a mean or one value per sample, got a sum over the batch: use "
            "reduction='none' or 'mean'"
        )


def _refuse_other_shapes(values: Tensor, count: int, what: str, remedy: str) -> None:
    """Raise ValueError unless there is a value, or several, for each of ``count`` samples."""
    if values.ndim == 0 or len(values) != count:
        raise ValueError(
            f"{what} must be one value per sample, shape ({count},), got {tuple(values.shape)}: "
            f"{remedy}"
        )


def _batches(samples: Samples, device: torch.device) -> Iterator[tuple[int, Batch]]:
    """All samples in order, each batch with its size; as copies: a model may write into them."""
    simple = isinstance(samples, TensorSamples) and isinstance(samples.inputs, Tensor)
    if isinstance(samples, TensorSamples) and simple and isinstance(samples.targets, Tensor):
        inputs, targets = (t.split(EVALUATION_BATCH) for t in (samples.inputs, samples.targets))
        for x, y in zip(inputs, targets, strict=True):
            yield len(x), Batch(in_fast_layout(x.clone()), y.clone())
        return
    for indices in torch.arange(len(samples), device=device).split(EVALUATION_BATCH):
        batch = samples.select(indices)
        yield len(indices), Batch(in_fast_layout(batch.inputs), batch.targets)


def validation_figures(problem: Problem) -> list[str]:
    """What is measured of ``problem`` on the validation split, by the names it has in records."""
    metric = [] if problem.metric is None else [problem.metric.name]
    return [f"valid_{name}" for name in ("loss", *metric)]


def check_watched(
    early_stopping: Mapping[str, Any] | None, schedule: Mapping[str, Any] | None, problem: Problem
) -> None:
    """Refuse early stopping, or a plateau schedule, that watches what is not measured.

    Raises:
        ValueError: one line with the figures there are.
    """
    known = validation_figures(problem)
    for what, declared in (("early stopping", early_stopping), ("the schedule", schedule)):
        watched = (declared or {}).get("metric", known[0])
        if watched not in known:
            raise ValueError(
                f"{what} watches {watched!r}, which is not measured on {problem.name}; "
                f"{did_you_mean(watched, known)}"
            )
