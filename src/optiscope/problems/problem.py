"""What a problem is: a model, its loss, its data with fixed splits, a batch size and a horizon."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from optiscope.data.samples import Batch, Splits
from optiscope.errors import shorten
from optiscope.objective.own_loss import loss_among
from optiscope.problems.baseline import Baseline
from optiscope.problems.metric import METRICS, Metric, logits_of

__all__ = [
    "METRICS",
    "Baseline",
    "Metric",
    "ParamGroup",
    "Problem",
    "all_parameters",
    "l2_on_weights",
    "logits_of",
    "own_loss",
]

ParamGroup = dict[str, Any]
"""``params`` (list of parameters), and optionally ``l2`` (coefficient of 0.5·‖w‖² in the
objective),
``lr_scale`` (factor on the learning rate) and ``name``."""


def own_loss(outputs: Any, targets: Any) -> Tensor:
    """The loss that a model computed itself; the targets were among its inputs.

    Raises:
        ValueError: there is none.
    """
    loss = loss_among(outputs)
    if loss is None:
        raise ValueError(
            "a problem without a loss needs a model that returns its own, as outputs.loss: got "
            f"{type(outputs).__name__}; give the problem a loss or a training_loss, or the data "
            "set's batches 'labels'"
        )
    return loss


def all_parameters(model: nn.Module) -> list[ParamGroup]:
    """One group with every trainable parameter, no regularization."""
    return [{"params": [p for p in model.parameters() if p.requires_grad]}]


def l2_on_weights(coefficient: float) -> Callable[[nn.Module], list[ParamGroup]]:
    """Groups that put 0.5·coefficient·‖w‖² on weights and nothing on biases and gains.

    A weight is a parameter of two or more dimensions.
    """

    def groups(model: nn.Module) -> list[ParamGroup]:
        trainable = [p for p in model.parameters() if p.requires_grad]
        return [
            {"name": "weights", "params": [p for p in trainable if p.ndim > 1], "l2": coefficient},
            {"name": "biases", "params": [p for p in trainable if p.ndim <= 1]},
        ]

    return groups


def _no_model() -> Callable[[], nn.Module]:
    raise ValueError("a problem needs make_model, a function that builds its model")


def _no_data() -> Callable[[Any], Splits]:
    raise ValueError("a problem needs data, a function of data_dir that returns its Splits")


@dataclass(frozen=True)
class Problem:
    """A model, its loss, its data with fixed splits, a batch size and a horizon in epochs.

    Name, model, loss and data are needed; the rest has defaults that suit a private problem.

    Attributes:
        name: word by which studies name it; a problem at an import path may leave it out.
        make_model: builds the model with freshly drawn weights from torch's global generator.
        loss: ``loss(outputs, targets)`` -> per-sample losses [B], losses [B, ...] of which the mean
            over a sample is taken, or the batch's mean []; the objective is the mean over samples.
            By default the model computes its own: it is called with the batch's inputs, by name
            where these are a dictionary, and returns outputs with a ``loss``.
        data: ``data(data_dir)`` -> splits, the same in every call; ``data_dir`` is None for
            "look where the user's settings say".
        batch_size: samples per training step; an incomplete last batch of an epoch is dropped.
        epochs: horizon.
        metric: what accuracy is for a classifier; None where only the loss is meaningful. A name
            of ``METRICS`` or a function of (outputs, targets) is made a `Metric`.
        dataset: the data's name in ``optiscope data list``; empty for your own data.
        parameters: number of trainable parameters, checked by `ProblemConformance`; None where it
            is not stated.
        source: where architecture and setting come from.
        licence: licence of the data.
        param_groups: parameter groups of a model, for regularization and per-layer settings.
        version: raised whenever a change alters results; part of every trial's hash.
        first_loss: mean loss at initialisation, where it can be derived (else None).
        baselines: published tuned results.
        notes: differences from the source, in words.
        tags: words to list it by.
        training_loss: ``training_loss(model, batch)`` -> losses as for ``loss``: replaces the
            forward pass and the loss in training, and in evaluation where no ``loss`` is given.

    Raises:
        ValueError: a value that cannot be.
    """

    name: str = ""
    make_model: Callable[[], nn.Module] = field(default_factory=_no_model)
    loss: Callable[[Any, Any], Tensor] = own_loss
    data: Callable[[Any], Splits] = field(default_factory=_no_data)
    batch_size: int = 32
    epochs: int = 10
    metric: Metric | None = None
    dataset: str = ""
    parameters: int | None = None
    source: str = ""
    licence: str = ""
    param_groups: Callable[[nn.Module], list[ParamGroup]] = all_parameters
    version: int = 1
    first_loss: float | None = None
    baselines: Sequence[Baseline] = ()
    notes: str = ""
    tags: Iterable[str] = field(default=())
    training_loss: Callable[[nn.Module, Batch], Tensor] | None = None

    def __post_init__(self) -> None:
        for name in ("make_model", "data"):
            if not callable(getattr(self, name)):
                raise ValueError(
                    f"{name} of problem {self.name!r} must be a function, got "
                    f"{shorten(getattr(self, name))}"
                )
        for name in ("batch_size", "epochs", "parameters"):
            value = getattr(self, name)
            if name == "parameters" and value is None:
                continue
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"{name} of problem {self.name!r} must be a positive integer, got {value!r}"
                )
        if self.metric is not None:
            object.__setattr__(self, "metric", Metric.of(self.metric))
        declared: Any = self.loss
        if declared is None:  # says what the default says
            object.__setattr__(self, "loss", own_loss)
        if getattr(self.loss, "reduction", "mean") == "sum":
            raise ValueError(
                f"loss of problem {self.name!r} must be a mean or one value per sample, got "
                "reduction='sum': use 'none' or 'mean'"
            )

    def outputs(self, model: nn.Module, inputs: Any) -> Any:
        """What the model makes of a batch's inputs."""
        if self.loss is own_loss and isinstance(inputs, Mapping):
            return model(**inputs)
        return model(inputs)

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Losses of a training batch: [B], or the batch's mean []."""
        if self.training_loss is not None:
            return self.training_loss(model, batch)
        return self.loss(self.outputs(model, batch.inputs), batch.targets)


def regularization(groups: Sequence[ParamGroup]) -> Tensor | None:
    """Sum over groups of 0.5·l2·‖w‖², or None where no group is regularized."""
    terms = [
        0.5 * group["l2"] * torch.stack([p.square().sum() for p in group["params"]]).sum()
        for group in groups
        if group.get("l2", 0.0) and group["params"]
    ]
    return torch.stack(terms).sum() if terms else None
