"""The adding problem: a recurrent network must carry two numbers to the end of a long sequence.

Every step shows a number from 0 to 1 and a mark; two steps are marked, one in each half, and the
target is the sum of their numbers. A network that remembers nothing does best by answering 1
always, at a loss of 1/6, the variance of the sum of two uniform numbers.

Index legend: N sequences, B sequences in a batch, T steps, H hidden units.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from optiscope.data.samples import Splits, TensorSamples
from optiscope.problems.losses import squared_error
from optiscope.problems.problem import Problem

__all__ = [
    "MEMORYLESS_LOSS",
    "SequenceReader",
    "adding",
    "state_gradient_norms",
    "textbook_adding",
]

MEMORYLESS_LOSS = 1.0 / 6.0


class SequenceReader(nn.Module):
    """h ← tanh(U x + V h + c) over a sequence, then a linear layer on the last h.

    V starts as ``gain`` times an orthogonal matrix, so that all its eigenvalues have that absolute
    value; the other weights start Glorot-uniform and biases at zero.

    Args:
        hidden: H.
        gain: of V; a gradient shrinks at least by this factor at every step back while it is the
            largest singular value of V.
    """

    def __init__(self, hidden: int = 32, gain: float = 1.0) -> None:
        super().__init__()
        self.read = nn.Linear(2, hidden)
        self.recur = nn.Linear(hidden, hidden, bias=False)
        self.output = nn.Linear(hidden, 1)
        nn.init.orthogonal_(self.recur.weight, gain=gain)
        for layer in (self.read, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def states(self, sequences: Tensor) -> list[Tensor]:
        """Sequences [B, T, 2] -> the T states, each [B, H]."""
        driven = self.read(sequences)
        found = [torch.tanh(driven[:, 0])]
        for step in range(1, driven.shape[1]):
            found.append(torch.tanh(driven[:, step] + self.recur(found[-1])))
        return found

    def forward(self, sequences: Tensor) -> Tensor:
        """Sequences [B, T, 2] -> sums [B, 1]."""
        sums: Tensor = self.output(self.states(sequences)[-1])
        return sums


def state_gradient_norms(model: SequenceReader, sequences: Tensor, targets: Tensor) -> Tensor:
    """Norm over a batch of the loss's gradient by each of the T states, [T], first state first."""
    states = model.states(sequences)
    loss = squared_error(model.output(states[-1]), targets).sum()
    return torch.stack([g.norm() for g in torch.autograd.grad(loss, states)])


def _sequences(count: int, length: int, generator: torch.Generator) -> TensorSamples:
    """``count`` sequences [N, T, 2] of numbers and marks, and the sums of the marked numbers."""
    numbers = torch.rand(count, length, generator=generator)
    half = length // 2
    first = torch.randint(half, (count, 1), generator=generator)
    second = torch.randint(half, length, (count, 1), generator=generator)
    marks = torch.zeros(count, length).scatter_(1, torch.cat([first, second], 1), 1.0)
    sums = (numbers * marks).sum(1, keepdim=True)
    return TensorSamples(torch.stack([numbers, marks], 2), sums)


def _splits(data_dir: Any, *, length: int, counts: tuple[int, int, int]) -> Splits:
    generator = torch.Generator().manual_seed(0)
    train, valid, test = (_sequences(count, length, generator) for count in counts)
    evaluated = train.subset(torch.arange(len(valid)))
    return Splits(train=train, train_eval=evaluated, valid=valid, test=test)


def adding(length: int, *, hidden: int = 32, gain: float = 1.0, name: str = "adding") -> Problem:
    """The adding problem on sequences of ``length`` steps (T ≥ 2).

    Args:
        length: T.
        hidden: H.
        gain: of the recurrent weights at the start.
        name: of the problem.
    """
    return Problem(
        name=name,
        make_model=partial(SequenceReader, hidden, gain),
        loss=squared_error,
        data=partial(_splits, length=length, counts=(8000, 1000, 1000)),
        batch_size=50,
        epochs=30,
        metric=None,
        dataset="synthetic",
        parameters=3 * hidden + hidden**2 + hidden + 1,
        source="Hochreiter & Schmidhuber 1997, experiment 4",
        licence="none needed: drawn from fixed seeds",
        notes=f"Sequences of {length} steps, all of one length (the original's vary), marks of 0 "
        "and 1. Answering 1 always has a loss of 0.1667.",
        tags=("textbook",),
    )


textbook_adding = adding(20, name="textbook_adding")
