"""Mean loss and metric over a whole evaluation set, and what may be watched of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from optiscope.data.samples import Samples, TensorSamples
from optiscope.hints import did_you_mean
from optiscope.problems.problem import Problem
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
        ValueError: the problem's loss or metric is not one value per sample.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    totals = {"loss": torch.zeros((), dtype=torch.float64, device=device)}
    if problem.metric is not None:
        totals[problem.metric.name] = torch.zeros((), dtype=torch.float64, device=device)
    for inputs, targets in _batches(samples, device):
        outputs, count = model(in_fast_layout(inputs)), len(inputs)
        losses = problem.loss(outputs, targets)
        totals["loss"] += _of_each(losses, count, f"the loss of {problem.name}").sum()
        if problem.metric is not None:
            name, values = problem.metric.name, problem.metric.compute(outputs, targets)
            totals[name] += _of_each(values, count, f"the {name} of {problem.name}").sum()
    for module, training in modes:
        module.training = training
    return {name: total.item() / len(samples) for name, total in totals.items()}


def _of_each(values: Tensor, count: int, what: str) -> Tensor:
    """``values`` [B] in float64, one for each of ``count`` samples."""
    if values.shape != (count,):
        raise ValueError(
            f"{what} must be one value per sample, shape ({count},), got {tuple(values.shape)}: "
            "use reduction='none' and take the mean over all other dimensions"
        )
    return values.double()


def _batches(samples: Samples, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """All samples in order, as copies: a model may write into its input."""
    if isinstance(samples, TensorSamples):
        inputs, targets = (t.split(EVALUATION_BATCH) for t in (samples.inputs, samples.targets))
        yield from ((x.clone(), y.clone()) for x, y in zip(inputs, targets, strict=True))
        return
    for indices in torch.arange(len(samples), device=device).split(EVALUATION_BATCH):
        yield samples.select(indices)


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
