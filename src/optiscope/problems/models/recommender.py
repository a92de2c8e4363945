"""A recommender: embeddings of users and items, and a perceptron on both.

Index legend: B pairs, D width of an embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from optiscope.problems.models.initialise import he_normal, initialise

__all__ = ["Recommender"]


class Recommender(nn.Module):
    """Product of a user's and an item's embedding, beside a perceptron on both: one logit.

    Embeddings start from N(0, 0.01²), so that every logit starts near zero; He weights, biases 0.
    """

    def __init__(self, users: int, items: int, width: int, hidden: int) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(users, width), nn.Embedding(items, width)
        self.perceptron = nn.Sequential(
            nn.Linear(2 * width, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )
        initialise(self, linear=he_normal)
        for embedding in (self.users, self.items):
            nn.init.normal_(embedding.weight, std=0.01)

    def forward(self, pairs: Tensor) -> Tensor:
        """Numbers of user and item, int64 [B, 2] -> logits [B]."""
        user, item = self.users(pairs[:, 0]), self.items(pairs[:, 1])
        rest = self.perceptron(torch.cat([user, item], dim=1)).squeeze(1)
        logits: Tensor = (user * item).sum(1) + rest
        return logits
