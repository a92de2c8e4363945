"""A model layer by layer: output shapes, parameters and the spread of its weights.

Index legend: B samples in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LayerSummary", "layers_of", "model_summary", "watching"]

Watcher = Callable[[str, nn.Module, Tensor], None]
"""Told of a layer's name, the layer, and its output [B, ...], at every call."""


@dataclass(frozen=True)
class LayerSummary:
    """One layer of a model.

    Attributes:
        name: path within the model; empty for the model itself.
        kind: its class, with its settings where they say more than the parameters.
        output_shape: of one sample; None where the layer was not called.
        parameters: trainable ones that no earlier layer has.
        weight_std: standard deviation of its parameters of two or more dimensions; None without.
        calls: how often one forward pass calls it.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...] | None
    parameters: int
    weight_std: float | None
    calls: int


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """Modules without modules of their own, and modules with parameters of their own, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if not any(module.children()) or any(True for _ in module.parameters(recurse=False))
    }


def _tensor_in(output: Any) -> Tensor | None:
    """The output, or the first tensor of a tuple such as a recurrent layer's."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple):
        return next((found for part in output if (found := _tensor_in(part)) is not None), None)
    return None


@contextmanager
def watching(model: nn.Module, watcher: Watcher) -> Iterator[None]:
    """Within this context ``watcher`` sees the output of every layer at every call."""

    def hook_of(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            tensor = _tensor_in(output)
            if tensor is not None:
                watcher(name, module, tensor)

        return hook

    handles = [
        layer.register_forward_hook(hook_of(name)) for name, layer in layers_of(model).items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def model_summary(model: nn.Module, inputs: Tensor | None = None) -> list[LayerSummary]:
    """The layers of ``model`` in its own order.

    Args:
        model: put in evaluation mode for one forward pass and left in the mode it had.
        inputs: a batch [B, ...]; without it output shapes and calls are not known.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    calls: dict[str, int] = {}

    def note(name: str, _: nn.Module, output: Tensor) -> None:
        shapes[name] = tuple(output.shape[1:])
        calls[name] = calls.get(name, 0) + 1

    if inputs is not None:
        was_training = model.training
        model.eval()
        with torch.no_grad(), watching(model, note):
            model(inputs)
        model.train(was_training)
    counted: set[int] = set()
    rows = []
    for name, layer in layers_of(model).items():
        own = [p for p in layer.parameters(recurse=False) if id(p) not in counted]
        counted.update(id(p) for p in own)
        weights = [p.detach().flatten() for p in own if p.ndim > 1]
        rows.append(
            LayerSummary(
                name=name,
                kind=_kind(layer),
                output_shape=shapes.get(name),
                parameters=sum(p.numel() for p in own if p.requires_grad),
                weight_std=float(torch.cat(weights).std(correction=0)) if weights else None,
                calls=calls.get(name, 0),
            )
        )
    return rows


def _kind(layer: nn.Module) -> str:
    """The layer's class with the first of its settings: ``Conv2d(3, 64, 5×5, stride 2)``."""
    name = type(layer).__name__
    if isinstance(layer, nn.Linear):
        return f"{name}({layer.in_features}, {layer.out_features})"
    if isinstance(layer, nn.modules.conv._ConvNd):
        window = "×".join(str(side) for side in layer.kernel_size)
        stride = f", stride {layer.stride[0]}" if layer.stride[0] != 1 else ""
        return f"{name}({layer.in_channels}, {layer.out_channels}, {window}{stride})"
    if isinstance(layer, nn.RNNBase):
        return f"{name}({layer.input_size}, {layer.hidden_size}, {layer.num_layers} layers)"
    if isinstance(layer, nn.Embedding):
        return f"{name}({layer.num_embeddings}, {layer.embedding_dim})"
    if isinstance(layer, nn.Dropout):
        return f"{name}({layer.p:g})"
    return name
