"""MLP-mixer: perceptrons across patches and across channels in turn (Tolstikhin et al. 2021).

Index legend: B images, T patches, D channels of a patch, K classes.
"""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["MLPMixer"]


def _perceptron(width: int, hidden: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class _MixerBlock(nn.Module):
    """x + perceptron over patches of norm(x), then x + perceptron over channels of norm(x)."""

    def __init__(self, tokens: int, width: int, across: int, hidden: int) -> None:
        super().__init__()
        self.token_norm, self.channel_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = _perceptron(tokens, across)
        self.channels = _perceptron(width, hidden)

    def forward(self, patches: Tensor) -> Tensor:
        """Patches [B, T, D] -> the same shape."""
        mixed = self.tokens(self.token_norm(patches).transpose(1, 2)).transpose(1, 2)
        patches = patches + mixed
        out: Tensor = patches + self.channels(self.channel_norm(patches))
        return out


class MLPMixer(nn.Module):
    """Square patches, mixer blocks, mean over patches, linear layer that starts at zero.

    Other weights start as PyTorch draws them.

    Args:
        pixels: side of the images.
        patch: side of a patch, a divisor of ``pixels``.
        width: D.
        across: hidden units of the perceptrons over patches.
        hidden: hidden units of the perceptrons over channels.
    """

    def __init__(
        self,
        *,
        pixels: int,
        patch: int,
        channels: int,
        width: int,
        across: int,
        hidden: int,
        blocks: int,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.patches = nn.Unfold(patch, stride=patch)
        self.embed = nn.Linear(channels * patch**2, width)
        tokens = (pixels // patch) ** 2
        self.blocks = nn.Sequential(
            *(_MixerBlock(tokens, width, across, hidden) for _ in range(blocks))
        )
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, classes)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, pixels, pixels] -> logits [B, K]."""
        embedded = self.embed(self.patches(images).transpose(1, 2))
        logits: Tensor = self.output(self.norm(self.blocks(embedded)).mean(1))
        return logits
