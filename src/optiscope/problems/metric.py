"""Metrics: figures of merit of each sample, by name or as a function of outputs and targets.

Index legend: B samples, K classes, T places of a sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from optiscope.errors import shorten
from optiscope.hints import did_you_mean
from optiscope.objective.own_loss import loss_among
from optiscope.records.run import FALLING, higher_is_better

__all__ = ["METRICS", "Metric", "logits_of"]


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
        if self.higher_is_better != higher_is_better(self.name):
            should = "rise" if self.higher_is_better else "fall"
            raise ValueError(
                f"metric {self.name!r} should {should}, but its name says otherwise: names of "
                f"figures that should fall end in {', '.join(map(repr, FALLING))}, and no others do"
            )

    @classmethod
    def of(cls, metric: Metric | str | Callable[[Any, Any], Tensor]) -> Metric:
        """A metric by name, or a function ``metric(outputs, targets)`` -> values [B].

        A function's own name says whether it should fall: see ``optiscope.records.run.FALLING``.

        Raises:
            ValueError: no metric has that name, or the function has none.
        """
        if isinstance(metric, Metric):
            return metric
        if isinstance(metric, str):
            if metric not in METRICS:
                raise ValueError(f"unknown metric {metric!r}: {did_you_mean(metric, METRICS)}")
            return cls(metric, METRICS[metric], higher_is_better(metric))
        name = getattr(metric, "__name__", "")
        if not name.isidentifier():
            raise ValueError(
                "expected a metric's name or a function with a name, got "
                f"{shorten(metric)}: use Metric(name, function, higher_is_better)"
            )
        return cls(name, metric, higher_is_better(name))


def _over_rest(values: Tensor) -> Tensor:
    """Mean over all dimensions but the first: [B, ...] -> [B]."""
    return values if values.ndim < 2 else values.flatten(1).mean(1)


def _class_dimension(outputs: Any, targets: Tensor) -> tuple[Tensor, int]:
    """Logits, and where their classes stand: second for [B, K, ...], last for [B, T, K]."""
    logits = logits_of(outputs)
    at_second = logits.ndim > 1 and logits.shape[0] == targets.shape[0]
    at_second = at_second and logits.shape[2:] == targets.shape[1:]
    return logits, 1 if at_second else -1


def _accuracy(outputs: Any, targets: Tensor) -> Tensor:
    logits, dimension = _class_dimension(outputs, targets)
    return _over_rest((logits.argmax(dimension) == targets).to(logits.dtype))


def _top5_accuracy(outputs: Any, targets: Tensor) -> Tensor:
    logits, dimension = _class_dimension(outputs, targets)
    best = logits.topk(min(5, logits.shape[dimension]), dimension).indices
    hits = (best == targets.unsqueeze(dimension)).any(dimension)
    return _over_rest(hits.to(logits.dtype))


def _mse(outputs: Any, targets: Tensor) -> Tensor:
    return _over_rest((_of_shape(outputs, targets) - targets).square())


def _mae(outputs: Any, targets: Tensor) -> Tensor:
    return _over_rest((_of_shape(outputs, targets) - targets).abs())


def _of_shape(outputs: Any, targets: Tensor) -> Tensor:
    values = logits_of(outputs)
    if values.shape != targets.shape:
        raise ValueError(
            f"expected outputs of the targets' shape {tuple(targets.shape)}, got "
            f"{tuple(values.shape)}: a difference of the two would broadcast"
        )
    return values


METRICS: Mapping[str, Callable[[Any, Any], Tensor]] = {
    "accuracy": _accuracy,
    "top5_accuracy": _top5_accuracy,
    "mse": _mse,
    "mae": _mae,
}
"""Metrics by name, each [B]: classes in the second dimension, or in the last of sequences."""


def logits_of(outputs: Any) -> Tensor:
    """The tensor to judge: the outputs, or their ``logits`` where they hold several things."""
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, Mapping):
        found = outputs.get("logits")
    else:
        found = getattr(outputs, "logits", None)
    if found is None and isinstance(outputs, tuple | list) and len(outputs) > 1:
        found = outputs[1] if loss_among(outputs) is not None else None  # (loss, logits, ...)
    if isinstance(found, Tensor):
        return found
    raise ValueError(
        f"expected a tensor or outputs with 'logits', got {type(outputs).__name__}: give a "
        "function of (outputs, targets) as the metric"
    )
