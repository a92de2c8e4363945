"""What a problem is: a model, its loss, its data with fixed splits, a batch size and a horizon."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from optiscope.data.samples import Splits
from optiscope.problems.baseline import Baseline

__all__ = ["Baseline", "Metric", "ParamGroup", "Problem", "all_parameters", "l2_on_weights"]

ParamGroup = dict[str, Any]
"""``params`` (list of parameters), and optionally ``l2`` (coefficient of 0.5·‖w‖² in the
objective),
``lr_scale`` (factor on the learning rate) and ``name``."""


@dataclass(frozen=True)
class Metric:
    """A per-sample figure of merit, averaged over an evaluation set.

    ``compute(outputs, targets)`` returns one value per sample, shape [B]. Records keep names only,
    so the name says which way is better: what ends in ``loss`` should fall, all else should rise.
    The bare name ``loss`` is the loss's own.

    Raises:
        ValueError: the name says otherwise, or is the loss's.
    """

    name: str
    compute: Callable[[Any, Tensor], Tensor]
    higher_is_better: bool
    unit: str = ""

    def __post_init__(self) -> None:
        if self.name == "loss":
            raise ValueError("a metric needs a name of its own, got 'loss': that of the loss")
        if self.higher_is_better == self.name.endswith("loss"):
            should = "rise" if self.higher_is_better else "fall"
            raise ValueError(
                f"metric {self.name!r} should {should}, but its name says otherwise: "
                "names of figures that should fall end in 'loss', and no others do"
            )


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


@dataclass(frozen=True)
class Problem:
    """A model, its loss, its data with fixed splits, a batch size and a horizon in epochs.

    Attributes:
        name: word by which studies name it.
        make_model: builds the model with freshly drawn weights from torch's global generator.
        loss: ``loss(outputs, targets)`` -> per-sample losses [B]; the objective is their mean.
        data: ``data(data_dir)`` -> splits, the same in every call; ``data_dir`` is None for
            "look where the user's settings say".
        batch_size: samples per training step; an incomplete last batch of an epoch is dropped.
        epochs: horizon.
        metric: what accuracy is for a classifier; None where only the loss is meaningful.
        param_groups: parameter groups of a model, for regularization and per-layer settings.
        dataset: the data's name in ``optiscope data list``.
        parameters: number of trainable parameters, checked by a test.
        source: where architecture and setting come from.
        licence: licence of the data.
        version: raised whenever a change alters results; part of every trial's hash.
        first_loss: mean loss at initialisation, where it can be derived (else None).
        baselines: published tuned results.
        notes: differences from the source, in words.
    """

    name: str
    make_model: Callable[[], nn.Module]
    loss: Callable[[Any, Tensor], Tensor]
    data: Callable[[Any], Splits]
    batch_size: int
    epochs: int
    metric: Metric | None
    dataset: str
    parameters: int
    source: str
    licence: str
    param_groups: Callable[[nn.Module], list[ParamGroup]] = all_parameters
    version: int = 1
    first_loss: float | None = None
    baselines: Sequence[Baseline] = ()
    notes: str = ""
    tags: Iterable[str] = field(default=())

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "parameters"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"{name} of problem {self.name!r} must be a positive integer, got {value!r}"
                )


def regularization(groups: Sequence[ParamGroup]) -> Tensor | None:
    """Sum over groups of 0.5·l2·‖w‖², or None where no group is regularized."""
    terms = [
        0.5 * group["l2"] * torch.stack([p.square().sum() for p in group["params"]]).sum()
        for group in groups
        if group.get("l2", 0.0) and group["params"]
    ]
    return torch.stack(terms).sum() if terms else None
