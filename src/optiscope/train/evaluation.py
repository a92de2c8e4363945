"""Mean loss and metric over a whole evaluation set."""

from __future__ import annotations

import torch
from torch import nn

from optiscope.data.samples import Samples
from optiscope.problems.problem import Problem

__all__ = ["evaluate"]

EVALUATION_BATCH = 1000


@torch.no_grad()
def evaluate(
    problem: Problem, model: nn.Module, samples: Samples, device: torch.device
) -> dict[str, float]:
    """Mean per-sample loss, and metric where the problem has one, over all of ``samples``.

    The last batch may be smaller; every sample counts once. The model is put in evaluation mode
    and left in the mode it had. The reported loss never contains a regularization term.
    """
    was_training = model.training
    model.eval()
    totals = {"loss": torch.zeros((), dtype=torch.float64, device=device)}
    if problem.metric is not None:
        totals[problem.metric.name] = torch.zeros((), dtype=torch.float64, device=device)
    for indices in torch.arange(len(samples), device=device).split(EVALUATION_BATCH):
        inputs, targets = samples.select(indices)
        outputs = model(inputs)
        totals["loss"] += problem.loss(outputs, targets).sum(dtype=torch.float64)
        if problem.metric is not None:
            values = problem.metric.compute(outputs, targets)
            totals[problem.metric.name] += values.sum(dtype=torch.float64)
    model.train(was_training)
    return {name: total.item() / len(samples) for name, total in totals.items()}
