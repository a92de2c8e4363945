"""Long-term dependencies: one matrix applied many times makes gradients vanish or explode.

After t steps a gradient has grown by λᵗ, λ the matrix's largest eigenvalue in absolute value. The
problem turns and scales a plane by the same (a, b) twenty times and wants a quarter turn in all:
inside the circle a² + b² = 1 lies a plateau, outside it a wall, and the 20 minima lie on it.

Index legend: N samples, B samples in a batch, D dimensions of the state, T steps.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from optiscope.data.samples import Splits, TensorSamples
from optiscope.problems.losses import squared_error
from optiscope.problems.problem import Problem

__all__ = [
    "RepeatedTurn",
    "gradient_norms_back",
    "largest_eigenvalue",
    "minima",
    "textbook_repeated_matrix",
]

STEPS = 20
SAMPLES = 64


def largest_eigenvalue(matrix: Tensor, iterations: int = 1000) -> float:
    """Largest absolute eigenvalue of ``matrix`` [D, D] by the power method.

    The mean growth over the second half of the iterations, so that a complex pair, which makes the
    growth of each single iteration oscillate, is measured too; its error falls with their number.
    """
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(len(matrix), generator=generator, dtype=torch.float64)
    growths = []
    for _ in range(iterations):
        direction = matrix.double() @ direction
        growth = direction.norm()
        direction = direction / growth
        growths.append(growth.log())
    return float(torch.stack(growths[iterations // 2 :]).mean().exp())


def gradient_norms_back(matrix: Tensor, gradient: Tensor, steps: int) -> Tensor:
    """Norms of a loss's gradients by the states 0, 1, ... ``steps`` before the last, [T + 1].

    Args:
        matrix: W [D, D] of h ← W h.
        gradient: by the last state, [D].
        steps: T.
    """
    norms = [gradient.norm()]
    for _ in range(steps):
        gradient = matrix.T @ gradient
        norms.append(gradient.norm())
    return torch.stack(norms)


class RepeatedTurn(nn.Module):
    """Wᵀ x with W = [[a, -b], [b, a]], which turns by atan2(b, a) and scales by √(a² + b²).

    Args:
        start: initial (a, b).
        steps: T.
    """

    def __init__(self, start: tuple[float, float], steps: int = STEPS) -> None:
        super().__init__()
        self.turn = nn.Parameter(torch.tensor(start))
        self.steps = steps

    def matrix(self) -> Tensor:
        """W [2, 2]; its eigenvalues are a ± ib."""
        a, b = self.turn.unbind()
        return torch.stack([torch.stack([a, -b]), torch.stack([b, a])])

    def forward(self, states: Tensor) -> Tensor:
        """States [B, 2] -> states after T steps [B, 2]."""
        matrix = self.matrix()
        for _ in range(self.steps):
            states = states @ matrix.T
        return states


def minima(steps: int = STEPS) -> list[tuple[float, float]]:
    """The (a, b) whose ``steps``-fold turn is a quarter turn, counter-clockwise from the first."""
    angles = [(0.5 * math.pi + 2 * math.pi * k) / steps for k in range(steps)]
    return [(math.cos(angle), math.sin(angle)) for angle in angles]


def _splits(data_dir: Any) -> Splits:
    """States of length 1 in random directions, and the same a quarter turn further."""
    generator = torch.Generator().manual_seed(0)

    def drawn() -> TensorSamples:
        angles = 2 * math.pi * torch.rand(SAMPLES, generator=generator)
        states = torch.stack([angles.cos(), angles.sin()], 1)
        return TensorSamples(states, torch.stack([-states[:, 1], states[:, 0]], 1))

    train = drawn()
    return Splits(train=train, train_eval=train, valid=drawn(), test=drawn())


def loss_at(a: float, b: float, steps: int = STEPS) -> float:
    """|(a + ib)ᵀ - i|², the loss of every sample."""
    return abs(complex(a, b) ** steps - 1j) ** 2


START = (0.8, 0.2)

textbook_repeated_matrix = Problem(
    name="textbook_repeated_matrix",
    make_model=partial(RepeatedTurn, START),
    loss=squared_error,
    data=_splits,
    batch_size=SAMPLES,
    epochs=300,
    metric=None,
    dataset="synthetic",
    parameters=2,
    source="Hochreiter 1991; Goodfellow, Bengio & Courville 2016, section 8.2.5",
    licence="none needed: drawn from fixed seeds",
    first_loss=loss_at(*START),
    notes="Starts at |λ| = 0.82, where twenty steps leave 0.02 of a state and of a gradient. "
    "20 minima of 0 on the unit circle.",
    tags=("textbook",),
)
