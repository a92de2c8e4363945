"""One step of Lark on matrices of equal shape, as arithmetic on tensors.

Index legend: M rows (outputs) and N columns (inputs, a kernel's windows flattened) of a layer, K
kept pairs of a factor. ``...`` are layers of equal shape, treated at once, or nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from optiscope.optim.lark import factors
from optiscope.optim.lark.factors import Block, FactorPowers, ThinParts
from optiscope.optim.lark.settings import LarkSettings

__all__ = [
    "LayerState",
    "advance",
    "first_length",
    "first_state",
    "gather",
    "kept_pairs",
    "least_log_length",
    "lengthen",
    "renew",
    "unit_length",
    "update",
]

# Lengths in units of `unit_length`, chosen on digits, MNIST and Fashion-MNIST: see docs/lark.md.
_FIRST_DISTANCE = 1 / 3
_LEAST_LENGTH, _MOST_LENGTH = 0.01, 0.5
_MOST_PAIRS = 8  # kept of a factor, for each row of the other one
_MOST_STEPS = 10  # that a correction of the length may count for


@dataclass(frozen=True)
class LayerState:
    """What is remembered of layers of equal shape.

    Attributes:
        momentum: average gradient [..., M, N].
        left: eigenvectors of L [..., M, K].
        left_image: L times them [..., M, K].
        left_values: eigenvalues of L when last renewed [..., K].
        left_gains: c in f(L) = I + U diag(c) U' [..., K].
        right: eigenvectors of R [..., N, K].
        right_image: R times them [..., N, K].
        right_values: eigenvalues of R when last renewed [..., K].
        right_gains: c in f(R) [..., K].
        trace: of L and of R [...].
        log_length: logarithm of the step's length in units of :func:`unit_length` [...].
    """

    momentum: Tensor
    left: Tensor
    left_image: Tensor
    left_values: Tensor
    left_gains: Tensor
    right: Tensor
    right_image: Tensor
    right_values: Tensor
    right_gains: Tensor
    trace: Tensor
    log_length: Tensor

    @property
    def by(self) -> FactorPowers:
        """The factors as they are applied."""
        return FactorPowers(self.left, self.left_gains, self.right, self.right_gains)


def unit_length(m: int, n: int) -> float:
    """Frobenius norm of a unit step: an orthogonal M x N matrix's, times sqrt(M / N) if M > N.

    Source: Jordan et al. 2024 (Muon); Bernstein and Newhouse 2024 (the norm behind it).
    """
    return math.sqrt(min(m, n) * max(1.0, m / n))


def kept_pairs(side: int, other: int, rank: int, full_up_to: int) -> int:
    """Eigenpairs kept of a factor of ``side`` rows: all up to ``full_up_to``, none at rank 0.

    At most eight times as many as the ``other`` side has rows, so that eigenvectors and images
    together hold no more than sixteen numbers for each of the layer's.
    """
    pairs = side if rank and side <= full_up_to else min(rank, side)
    return min(pairs, _MOST_PAIRS * other)


def first_length(horizon: int | None) -> float:
    """Length of the first step: short horizons get longer steps, of one reach at random."""
    if horizon is None:
        return _LEAST_LENGTH
    return max(_LEAST_LENGTH, _FIRST_DISTANCE / math.sqrt(horizon))


def least_log_length(lr: float | Tensor) -> float | Tensor:
    """Logarithm of a length that is not shortened further, where steps are ``lr`` times as long.

    Above one ``lr`` lowers it, so that a step that ``lr`` makes too long can come down to what it
    is without.
    """
    least = math.log(_LEAST_LENGTH)
    if isinstance(lr, Tensor):
        return least - lr.reshape(()).clamp(min=1.0).log()
    return least - math.log(max(lr, 1.0))


def first_state(gradient: Tensor, pairs: tuple[int, int], length: float) -> LayerState:
    """State of a layer, or of a stack of them, before its first gradient [..., M, N] is taken in.

    ``pairs`` are those kept of L and of R; ``length`` is in units of :func:`unit_length`.
    """
    left = factors.first_block(gradient, pairs[0])
    right = factors.first_block(gradient.mT, pairs[1])
    stack = gradient.shape[:-2]
    left_zeros = gradient.new_zeros(*stack, left.basis.shape[-1])
    right_zeros = gradient.new_zeros(*stack, right.basis.shape[-1])
    return LayerState(
        momentum=torch.zeros_like(gradient),
        left=left.basis,
        left_image=left.image,
        left_values=left_zeros,
        left_gains=left_zeros.clone(),
        right=right.basis,
        right_image=right.image,
        right_values=right_zeros,
        right_gains=right_zeros.clone(),
        trace=gradient.new_zeros(stack),
        log_length=gradient.new_full(stack, math.log(length)),
    )


def update(
    state: LayerState,
    gradient: Tensor,
    settings: LarkSettings,
    *,
    gather_now: bool,
    elapsed: int,
    live: Tensor,
    out: Tensor | None = None,
) -> tuple[LayerState, Tensor, Tensor]:
    """Lark's step on matrices of equal shape: the state after it, the direction, and its scale.

    In this order, where it is due: the length is corrected by the new gradient, which the momentum
    has not yet taken in; the gradient enters the second moments; the factors are renewed; momentum
    takes the gradient in, and is whitened by the factors.

    Args:
        state: of the layers [...].
        gradient: of the layers [..., M, N].
        settings: of their group.
        gather_now: whether the gradient enters the second moments.
        elapsed: gradients since length and factors were last renewed, zero where they are not now.
        live: one, or zero for layers to leave as they are [...].
        out: memory for the direction [..., M, N].
    """
    if elapsed or gather_now:
        thin = factors.thin_parts(gradient, state.by)
    if elapsed:
        state = lengthen(state, gradient, thin, settings, elapsed, live)
    if gather_now:
        state = gather(state, gradient, thin, settings, live)
    if elapsed and state.left.shape[-1]:
        state = renew(state, settings)
    direction, scale = advance(state, gradient, settings, live, out)
    return state, direction, scale


def gather(
    state: LayerState, gradient: Tensor, thin: ThinParts, settings: LarkSettings, live: Tensor
) -> LayerState:
    """State after the moments have taken in a gradient, given with its ``thin`` parts.

    ``live`` [...] is one, or zero for layers to leave as they are.
    """
    weight = settings.forget * live
    wide = weight[..., None, None]
    return replace(
        state,
        left_image=factors.gather(state.left_image, gradient, thin.rows.mT, wide),
        right_image=factors.gather(state.right_image, gradient.mT, thin.columns, wide),
        trace=torch.lerp(state.trace, factors.inner(gradient, gradient), weight),
    )


def lengthen(
    state: LayerState,
    gradient: Tensor,
    thin: ThinParts,
    settings: LarkSettings,
    steps: int,
    live: Tensor,
) -> LayerState:
    """State with the step's length corrected by a gradient that the momentum has not yet taken in.

    The gradient comes with its ``thin`` parts. The length's logarithm grows by ``growth`` a step
    times the cosine, in the factors' own metric, of the gradient with the momentum: positive while
    steps fall short of what lies ahead, negative once they overshoot. ``steps`` is the number since
    the last correction, of which ten count. It ends at :func:`least_log_length`.
    """
    by, momentum = state.by, state.momentum
    past = factors.thin_parts(momentum, by)
    own = factors.inner_product(factors.inner(gradient, gradient), thin, thin, by)
    kept = factors.inner_product(factors.inner(momentum, momentum), past, past, by)
    both = factors.inner_product(factors.inner(gradient, momentum), thin, past, by)
    size = own.clamp(min=0).sqrt() * kept.clamp(min=0).sqrt()
    cosine = torch.where(size > 0, both / torch.where(size > 0, size, 1.0), 0.0).clamp(-1, 1)
    change = settings.growth * min(steps, _MOST_STEPS) * live * cosine
    longer = (state.log_length + change).clamp(max=math.log(_MOST_LENGTH))
    least = least_log_length(settings.lr)
    shortest = least.to(longer) if isinstance(least, Tensor) else longer.new_full((), least)
    return replace(state, log_length=longer.maximum(shortest))


def renew(state: LayerState, settings: LarkSettings) -> LayerState:
    """State with factors that fit the moments gathered so far."""
    m, n = state.momentum.shape[-2:]
    left, left_values = factors.renew(Block(state.left, state.left_image))
    right, right_values = factors.renew(Block(state.right, state.right_image))
    return replace(
        state,
        left=left.basis,
        left_image=left.image,
        left_values=left_values,
        left_gains=factors.gains(left_values, state.trace, m, settings.power)[0],
        right=right.basis,
        right_image=right.image,
        right_values=right_values,
        right_gains=factors.gains(right_values, state.trace, n, settings.power)[0],
    )


def advance(
    state: LayerState,
    gradient: Tensor,
    settings: LarkSettings,
    live: Tensor,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Momentum takes in a gradient, in place; then the direction and the factor that it needs.

    ``out`` [..., M, N] is memory for the direction: fresh pages cost a CPU more than the products.

    Returns:
        D [..., M, N] and the number [...] that makes it ``exp(log_length)`` units long, zero where
        the direction or ``live`` is.
    """
    state.momentum.lerp_(gradient, ((1 - settings.momentum) * live)[..., None, None])
    ahead = torch.lerp(gradient, state.momentum, settings.momentum, out=out)
    direction = factors.precondition_(ahead, state.by) if state.left.shape[-1] else ahead
    size = torch.linalg.matrix_norm(direction)
    length = state.log_length.exp() * unit_length(*gradient.shape[-2:])
    factor = torch.where(size > 0, length / torch.where(size > 0, size, 1.0), 0.0)
    return direction, factor * live
