"""Transformers with normalisation before each sublayer: a language model and an image classifier.

Index legend: B sequences, T tokens, D width, A attention heads, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["AttentionBlock", "LanguageTransformer", "VisionTransformer"]


class AttentionBlock(nn.Module):
    """x + attention(norm(x)), then x + perceptron(norm(x)) with GELU.

    Args:
        width: D.
        heads: A, a divisor of ``width``.
        hidden: units of the perceptron.
        dropout: of both sublayers' outputs.
        causal: a token attends to itself and to what came before it.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, causal: bool) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got {width} and {heads}")
        self.heads, self.causal = heads, causal
        self.attention_norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.perceptron_norm = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
        )
        self.dropout = nn.Dropout(dropout)

    def _attend(self, tokens: Tensor) -> Tensor:
        projected = self.queries_keys_values(tokens)
        split = projected.unflatten(-1, (3, self.heads, -1)).transpose(1, 3)  # [B, A, 3, T, D/A]
        queries, keys, values = split.unbind(2)
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=self.causal)
        out: Tensor = self.mix(mixed.transpose(1, 2).flatten(2))
        return out

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, T, D] -> the same shape."""
        tokens = tokens + self.dropout(self._attend(self.attention_norm(tokens)))
        out: Tensor = tokens + self.dropout(self.perceptron(self.perceptron_norm(tokens)))
        return out


def _initialise(model: nn.Module, std: float) -> None:
    """Weights and embeddings from N(0, std²), biases 0 (Radford et al. 2019 with std 0.02)."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Embedding):
            nn.init.normal_(layer.weight, std=std)
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _blocks(count: int, width: int, heads: int, dropout: float, causal: bool) -> nn.Sequential:
    return nn.Sequential(
        *(AttentionBlock(width, heads, 4 * width, dropout, causal) for _ in range(count))
    )


class LanguageTransformer(nn.Module):
    """Decoder-only transformer: the logits of each next token from all tokens up to it.

    Args:
        vocabulary: number of different tokens.
        context: longest window T.
        std: standard deviation of weights and embeddings at the start.
    """

    def __init__(
        self,
        vocabulary: int,
        context: int = 128,
        width: int = 128,
        heads: int = 4,
        blocks: int = 6,
        dropout: float = 0.1,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = _blocks(blocks, width, heads, dropout, causal=True)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, vocabulary, bias=False)
        _initialise(self, std)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, T] -> logits [B, T, vocabulary]."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        embedded = self.dropout(self.token(tokens) + self.position(positions))
        logits: Tensor = self.output(self.norm(self.blocks(embedded)))
        return logits


class VisionTransformer(nn.Module):
    """Square patches as tokens, blocks without mask, mean over tokens, linear layer.

    Args:
        pixels: side of the images.
        patch: side of a patch, a divisor of ``pixels``.
        std: standard deviation of weights and embeddings at the start.
    """

    def __init__(
        self,
        *,
        pixels: int,
        patch: int,
        channels: int,
        width: int,
        heads: int,
        blocks: int,
        classes: int = 10,
        dropout: float = 0.0,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        self.patches = nn.Unfold(patch, stride=patch)
        self.embed = nn.Linear(channels * patch**2, width)
        self.position = nn.Embedding((pixels // patch) ** 2, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = _blocks(blocks, width, heads, dropout, causal=False)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, classes)
        _initialise(self, std)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, pixels, pixels] -> logits [B, K]."""
        patches = self.patches(images).transpose(1, 2)
        embedded = self.dropout(self.embed(patches) + self.position.weight)
        logits: Tensor = self.output(self.norm(self.blocks(embedded)).mean(1))
        return logits
