"""A user's model and loss, run on copies of the weights so that nothing of theirs changes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from optiscope.objective.functional import functional_call

__all__ = ["Probe", "class_entropy", "has_class_axis", "logits_of"]


class Probe:
    """The model at copies of its parameters and buffers.

    ``weights`` holds the copies by name, ``model(x, training=...)`` runs them. Modes are set for
    each call and restored by `unchanged`, inside of which a probe is to be used.
    """

    def __init__(self, model: nn.Module, loss: Callable[..., Any]) -> None:
        for name in ("_orig_mod", "module"):  # torch.compile, data parallel wrappers
            inner = getattr(model, name, None)
            if isinstance(inner, nn.Module) and len(list(model.children())) == 1:
                model = inner
        if isinstance(model, torch.jit.ScriptModule):
            model = copy.deepcopy(model)
        self.model, self.loss = model, loss
        parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
        self.trainable = tuple(n for n, p in parameters.items() if p.requires_grad)
        self.weights: dict[str, Tensor] = {
            name: p.detach().clone().requires_grad_(p.requires_grad)
            for name, p in parameters.items()
        }
        self.buffers: dict[str, Tensor] = {n: b.detach().clone() for n, b in buffers.items()}
        first = next(iter(parameters.values()), None)
        self.device = torch.device("cpu") if first is None else first.device

    def copy(self) -> Probe:
        """Another probe that starts from the model's own weights."""
        return Probe(self.model, self.loss)

    def to_device(self, value: Any) -> Any:
        """Tensors, also inside of lists and dictionaries, on the model's device."""
        if isinstance(value, Tensor):
            return value.to(self.device)
        if isinstance(value, Mapping):
            return {key: self.to_device(item) for key, item in value.items()}
        if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor):
            return type(value)(self.to_device(item) for item in value)
        return value

    def set_mode(self, training: bool, *, dropout: bool = True) -> None:
        """Training or evaluation mode; ``dropout=False`` leaves dropout off in training."""
        for module in self.model.modules():
            off = not dropout and isinstance(module, _DropoutNd)
            module.training = training and not off
            if not dropout and isinstance(module, nn.RNNBase | nn.MultiheadAttention):
                module.training = training and not getattr(module, "dropout", 0)

    def __call__(self, inputs: Any, *, training: bool, dropout: bool = True) -> Any:
        """The model's output at the copies."""
        self.set_mode(training, dropout=dropout)
        state = {**self.weights, **self.buffers}
        return functional_call(self.model, state, (inputs,))

    def has(self, *kinds: str) -> bool:
        """Whether the model holds batch normalization (``"batch_norm"``) or ``"dropout"``."""
        for module in self.model.modules():
            if "batch_norm" in kinds and isinstance(module, _BatchNorm | _InstanceNorm):
                return True
            if "dropout" in kinds and isinstance(module, _DropoutNd) and module.p > 0:
                return True
        return False


def logits_of(output: Any) -> Tensor | None:
    """The tensor that a loss would look at: the output, or its logits, or its first tensor."""
    if isinstance(output, Tensor):
        return output
    for name in ("logits", "out", "output", "prediction", "predictions"):
        inner = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(inner, Tensor):
            return inner
    if isinstance(output, list | tuple):
        return next((item for item in output if isinstance(item, Tensor)), None)
    return None


def class_entropy(labels: Tensor) -> float | None:
    """Entropy in nats of the class shares of labels [N]; None where one is negative."""
    if int(labels.min()) < 0:
        return None
    counts = torch.bincount(labels).float()
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * shares.log()).sum())


def has_class_axis(output: Tensor | None, targets: Any) -> bool:
    """Whether targets are whole numbers that may choose along axis 1 of outputs [B, C, ...]."""
    if output is None or not isinstance(targets, Tensor) or targets.is_floating_point():
        return False
    if targets.is_complex() or targets.dtype == torch.bool or output.ndim < 2:
        return False
    return output.shape[0] == targets.shape[0] and output.shape[2:] == targets.shape[1:]
