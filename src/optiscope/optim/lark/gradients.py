"""Which gradients count in a step of Lark, and the warning of those that are not finite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from optiscope.optim.checks import end_if_hopeless, warn_caller
from optiscope.optim.lark import factors
from optiscope.optim.lark.settings import check_parameter
from optiscope.optim.lark.sharded import whole
from optiscope.optim.lark.weights import LOW_PRECISION

__all__ = ["GradientScreen", "LiveGradient", "dense_gradients"]


class LiveGradient(NamedTuple):
    """A gradient and its weight.

    Attributes:
        value: finite, of its parameter's shape.
        live: one, or zero where it is to change nothing.
    """

    value: Tensor
    live: Tensor

    def as_matrix(self, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """The gradient in the shape (M, N) or (S, M, N), and its weight: [] or [S], each matrix's.

        A matrix of a stack has the weight zero where its own gradient is zero (an expert at rest).
        """
        value = self.value.reshape(shape)
        if len(shape) == 2:
            return value, self.live
        return value, self.live * value.flatten(1).any(dim=1).to(value)


class Screened(NamedTuple):
    """The gradients of a step that count.

    Attributes:
        gradients: with their weights, by parameter; none where the step is skipped.
        taken: one, or zero where the step is skipped.
        moves: whether any gradient is other than zero; True where that cannot be asked.
    """

    gradients: dict[Tensor, LiveGradient]
    taken: float | Tensor
    moves: bool


def dense_gradients(params: Iterable[Tensor]) -> dict[Tensor, Tensor]:
    """Dense, whole gradients, in float32 at least, of the parameters that have one.

    Raises:
        TypeError: a parameter is flat with others, or not real.
    """
    gradients = {}
    for p in params:
        if p.grad is None or p.numel() == 0:
            continue
        check_parameter(p)
        gradient = p.grad.to_dense() if p.grad.layout != torch.strided else whole(p.grad)
        gradients[p] = gradient.float() if gradient.dtype in LOW_PRECISION else gradient
    return gradients


class GradientScreen:
    """Leaves out the steps in which a gradient is not finite, and counts them."""

    def __init__(self) -> None:
        self._skipped: Tensor | None = None  # on the device: steps not yet reported
        self._skipped_in_row = 0  # on a CPU

    def screen(self, gradients: Mapping[Tensor, Tensor], *, ask: bool = False) -> Screened:
        """Gradients with their weights, and whether the step is taken: one, or zero if skipped.

        A gradient's weight is one, or zero where it is zero or the step is skipped. On a CPU asking
        is free, and a step is skipped by leaving everything. Elsewhere the answer stays on the
        device: gradients become zeros there and all they enter is weighted by it.

        Args:
            gradients: dense, by parameter.
            ask: wait for a device to tell whether any gradient is other than zero.

        Raises:
            FloatingPointError: the tenth step in a row is skipped, on a CPU.
        """
        if not gradients:
            return Screened({}, 1.0, moves=False)
        taken: float | Tensor = 1.0
        values = list(gradients.values())
        home = values[0].device
        widest = max((value.dtype for value in values), key=lambda dtype: dtype.itemsize)
        sizes = torch.stack([norm.to(home, widest) for norm in torch._foreach_norm(values)])
        finite = sizes.isfinite().all()
        if factors.asking_is_free(home):
            if not bool(finite):
                self._skipped_in_row += 1
                end_if_hopeless(self._skipped_in_row)
                _report_skipped(1)
                return Screened({}, 0.0, moves=True)
            self._skipped_in_row = 0
        else:
            taken = finite.to(torch.float32)
            missed = 1 - taken
            before = self._skipped
            self._skipped = missed if before is None else before.to(home) + missed
            values = [torch.where(finite.to(v.device), v, torch.zeros_like(v)) for v in values]
        free = ask or factors.asking_is_free(home)
        moves = not free or bool((sizes != 0).any())
        live = (finite & (sizes > 0)).to(torch.float32).unbind()
        screened = {
            p: LiveGradient(value, alive.to(value))
            for p, value, alive in zip(gradients, values, live, strict=True)
        }
        return Screened(screened, taken, moves)

    def tell(self) -> None:
        """Warn of the steps skipped on a device since this was last asked; waits for it."""
        if self._skipped is not None:
            skipped, self._skipped = int(self._skipped), None
            if skipped:
                _report_skipped(skipped)


def _report_skipped(steps: int) -> None:
    warn_caller(
        f"expected finite gradients, got inf or nan in {steps} step(s), which changed no "
        "parameter: lower the loss scale or look at the data"
    )
