"""Equivalent minima by weight symmetry: units can change places, and tanh units can change sign.

A network of m tanh units, y = Σ vⱼ tanh(wⱼ x), computes the same function after any permutation of
its units and any change of sign of both weights of a unit: 2ᵐ m! points share every loss.

Index legend: N samples, B samples in a batch, M units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import permutations, product
from typing import Any

import torch
from torch import Tensor, nn

from optiscope.data.samples import Splits, TensorSamples
from optiscope.problems.losses import squared_error
from optiscope.problems.problem import Problem

__all__ = [
    "TanhUnits",
    "equivalent_points",
    "textbook_symmetry",
    "textbook_symmetry_of_order",
    "textbook_symmetry_of_sign",
]

HIDDEN, OUTPUT = (2.0, 0.5), (1.0, 1.0)
"""Weights of the network that made the targets."""

SAMPLES = 64


class TanhUnits(nn.Module):
    """y = Σ vⱼ tanh(wⱼ x).

    Args:
        hidden: initial w [M].
        output: initial v [M].
        train_output: whether v is trained; it is fixed otherwise.
    """

    def __init__(
        self, hidden: Sequence[float], output: Sequence[float], train_output: bool = True
    ) -> None:
        super().__init__()
        self.hidden = nn.Parameter(torch.tensor(hidden))
        self.output = nn.Parameter(torch.tensor(output), requires_grad=train_output)

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs [B, 1] -> outputs [B, 1]."""
        return torch.tanh(inputs * self.hidden) @ self.output.unsqueeze(1)


def equivalent_points(
    hidden: Sequence[float], output: Sequence[float]
) -> Iterator[tuple[tuple[float, ...], tuple[float, ...]]]:
    """All 2ᵐ m! weights (w, v) that compute the same function as the given ones."""
    units = list(zip(hidden, output, strict=True))
    for order in permutations(units):
        for signs in product((1.0, -1.0), repeat=len(units)):
            flipped = [(s * w, s * v) for s, (w, v) in zip(signs, order, strict=True)]
            yield tuple(w for w, _ in flipped), tuple(v for _, v in flipped)


def _splits(data_dir: Any, *, hidden: tuple[float, ...], output: tuple[float, ...]) -> Splits:
    """Inputs uniform within ±3, and the targets of the network with the given weights."""
    generator = torch.Generator().manual_seed(0)
    teacher = TanhUnits(hidden, output)

    def drawn() -> TensorSamples:
        inputs = 6.0 * torch.rand(SAMPLES, 1, generator=generator) - 3.0
        with torch.no_grad():
            return TensorSamples(inputs, teacher(inputs))

    train = drawn()
    return Splits(train=train, train_eval=train, valid=drawn(), test=drawn())


_symmetry = partial(
    Problem,
    loss=squared_error,
    batch_size=SAMPLES,
    epochs=300,
    metric=None,
    dataset="synthetic",
    source="Goodfellow, Bengio & Courville 2016, section 8.2.2",
    licence="none needed: drawn from fixed seeds",
    tags=("textbook",),
)

textbook_symmetry = _symmetry(
    name="textbook_symmetry",
    make_model=partial(TanhUnits, (1.0, 0.2), (0.3, 0.6)),
    data=partial(_splits, hidden=HIDDEN, output=OUTPUT),
    parameters=4,
    notes="Two units with both weights trained: eight minima of 0.",
)

textbook_symmetry_of_order = _symmetry(
    name="textbook_symmetry_of_order",
    make_model=partial(TanhUnits, (1.4, -0.8), OUTPUT, train_output=False),
    data=partial(_splits, hidden=HIDDEN, output=OUTPUT),
    parameters=2,
    notes="Output weights fixed at 1, so that the units can only change places: two minima of 0, "
    "at (2, 0.5) and (0.5, 2).",
)

textbook_symmetry_of_sign = _symmetry(
    name="textbook_symmetry_of_sign",
    make_model=partial(TanhUnits, (0.2,), (-0.5,)),
    data=partial(_splits, hidden=(1.0,), output=(1.0,)),
    parameters=2,
    notes="One unit, which can only change sign: two minima of 0, at (1, 1) and (-1, -1).",
)
