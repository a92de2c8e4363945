"""What a model does, layer by layer: the label, output shape and parameters of each leaf module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from optiscope.problems.models.input_layers import CentreCrop, Standardise
from optiscope.problems.models.same_padding import SameMaxPool2d


def trace(model: nn.Module, inputs: Tensor) -> list[str]:
    """One line per call of a leaf module, in order: ``label shape parameters`` of one sample."""
    lines: list[str] = []

    def record(layer: nn.Module, _: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        shape = "x".join(str(side) for side in first.shape[1:])
        count = sum(parameter.numel() for parameter in layer.parameters())
        lines.append(f"{_label(layer)} {shape}" + (f" {count}" if count else ""))

    leaves = [layer for layer in model.modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(record) for layer in leaves]
    model(inputs)
    for hook in hooks:
        hook.remove()
    return lines


def meta_trace(make_model: Any, shape: tuple[int, ...], dtype: torch.dtype) -> list[str]:
    """Trace of a model that is built and called without memory for its numbers."""
    with torch.device("meta"):
        return trace(make_model(), torch.zeros(2, *shape, dtype=dtype))


def _label(layer: nn.Module) -> str:
    match layer:
        case nn.Conv2d() | nn.ConvTranspose2d():
            kind = "conv" if isinstance(layer, nn.Conv2d) else "deconv"
            return f"{kind}{layer.kernel_size[0]}x{layer.kernel_size[1]}/{layer.stride[0]}"
        case nn.MaxPool2d():
            return f"maxpool{layer.kernel_size}/{layer.stride}"
        case SameMaxPool2d():
            return f"maxpool{layer.kernel}/{layer.stride}"
        case nn.AvgPool2d():
            return f"avgpool{layer.kernel_size}/{layer.stride}"
        case nn.Dropout():
            return f"dropout{layer.p}"
        case nn.LeakyReLU():
            return f"leaky{layer.negative_slope}"
        case nn.BatchNorm2d() | nn.LayerNorm():
            return "norm"
        case nn.Flatten() | nn.Unflatten():
            return "reshape"
        case nn.Upsample():
            return f"upsample-{layer.mode}"
        case CentreCrop():
            return "crop"
        case Standardise():
            return "standardise"
        case nn.LSTM():
            return f"lstm-{layer.num_layers}-dropout{layer.dropout}"
        case _:
            return type(layer).__name__.lower()
