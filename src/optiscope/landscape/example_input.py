"""An input that a model accepts, guessed from its first layers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from optiscope.errors import OptiscopeError

__all__ = ["NoExampleInputError", "example_input"]

USUAL = (8, 28, 32, 16, 64, 96, 128, 224, 4, 12, 20, 24, 48, 56)
SIDES = tuple(dict.fromkeys((*USUAL, *range(1, 65), 72, 80, 112, 160, 192, 227, 256, 299)))
"""Sides of images and lengths of sequences that are tried, likely ones first."""

_CONVOLUTIONS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}


class NoExampleInputError(OptiscopeError):
    """No input is at hand to run a model with, and none could be guessed."""


def example_input(model: nn.Module, *, samples: int = 3, seed: int = 0) -> Tensor:
    """Random inputs [samples, ...] that ``model`` accepts; no global generator is touched.

    Shapes that fit the first layers are tried in turn: features of a linear layer, images of
    usual sizes for convolutions, token numbers for an embedding.

    Args:
        model: in evaluation mode; it is run without gradients.
        samples: in the batch.
        seed: of the values.

    Raises:
        NoExampleInputError: the model accepts none of the shapes.
    """
    generator = torch.Generator().manual_seed(seed)
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    dtype = torch.get_default_dtype() if first is None else first.dtype
    device = torch.device("cpu") if first is None else first.device
    for shape, vocabulary in _candidates(model):
        size = (samples, *shape)
        if vocabulary:
            values = torch.randint(vocabulary, size, generator=generator)
        else:
            values = torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)
        values = values.to(device)
        try:
            with torch.no_grad():
                model(values)
        except Exception:  # whatever a model raises on a shape it does not accept
            continue
        return values
    raise NoExampleInputError(
        f"expected a model that takes one tensor of a usual shape, got {type(model).__name__}, "
        "which accepts none of those tried: pass inputs=, a batch that it accepts"
    )


def _candidates(model: nn.Module) -> Iterator[tuple[tuple[int, ...], int]]:
    """Shapes of a sample, and the number of tokens where they are integers."""
    for layer in model.modules():
        rank = next((n for kind, n in _CONVOLUTIONS.items() if isinstance(layer, kind)), 0)
        if rank:
            channels = int(str(layer.in_channels))
            yield from (((channels, *[side] * rank), 0) for side in SIDES)
            break
        if isinstance(layer, nn.Embedding):
            yield from (((side,), layer.num_embeddings) for side in SIDES)
            break
        if isinstance(layer, nn.RNNBase):
            yield (8, layer.input_size), 0
            break
        if isinstance(layer, nn.Linear):
            width = layer.in_features
            yield (width,), 0
            yield from (((side, width), 0) for side in (8, 4))
            yield from (((c, side, side), 0) for side in SIDES for c in (1, 3))
            break
    channels = next(
        (int(str(m.num_features)) for m in model.modules() if hasattr(m, "num_features")), 1
    )
    matrices = [p.shape for p in model.parameters() if p.ndim == 2]
    yield from (((n,), 0) for n in dict.fromkeys(n for shape in matrices for n in shape))
    yield from (((n, side, side), 0) for side in SIDES[:8] for n in {1, 3, channels})
    yield from (((n,), 0) for n in (1, 2, channels))
    yield (), 0
