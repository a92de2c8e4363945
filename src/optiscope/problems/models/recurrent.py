"""Recurrent networks: a character LSTM, a character GRU, and a tanh network that reads images.

Index legend: B sequences, T steps, D features of a step, H hidden units, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["CharacterGRU", "CharacterLSTM", "RowReader"]


class CharacterLSTM(nn.Module):
    """Embedding, two LSTM layers with dropout between them, and a linear layer at every step.

    The state starts at zero in every window, so that a sample's loss depends on that sample alone.
    Weights start as PyTorch draws them.
    """

    def __init__(
        self, vocabulary: int, width: int = 128, layers: int = 2, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, layers, dropout=dropout, batch_first=True)
        self.output = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, T] -> logits of each next token [B, T, vocabulary]."""
        states, _ = self.lstm(self.embedding(tokens))
        logits: Tensor = self.output(states)
        return logits


class CharacterGRU(nn.Module):
    """Embedding, one GRU layer, and a linear layer at every step; the state starts at zero.

    Weights start as PyTorch draws them.
    """

    def __init__(self, vocabulary: int, embedding: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.gru = nn.GRU(embedding, width, batch_first=True)
        self.output = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, T] -> logits of each next token [B, T, vocabulary]."""
        states, _ = self.gru(self.embedding(tokens))
        logits: Tensor = self.output(states)
        return logits


class RowReader(nn.Module):
    """h ← tanh(U·row + V·h + b) over an image's rows from top to bottom, then a linear layer.

    U and the output start Glorot-uniform, V orthogonal, biases at zero.
    """

    def __init__(self, row: int = 8, hidden: int = 64, classes: int = 10) -> None:
        super().__init__()
        self.read = nn.Linear(row, hidden)
        self.recur = nn.Linear(hidden, hidden, bias=False)
        self.output = nn.Linear(hidden, classes)
        for layer in (self.read, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.orthogonal_(self.recur.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 1, T, D] -> logits [B, K]."""
        driven = self.read(images.squeeze(1))
        state = torch.tanh(driven[:, 0])
        for step in range(1, driven.shape[1]):
            state = torch.tanh(driven[:, step] + self.recur(state))
        logits: Tensor = self.output(state)
        return logits
