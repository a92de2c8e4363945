"""Krylov spaces of a symmetric matrix, fully reorthogonalized, grown in rounds.

A round is Lanczos's iteration from a new vector on the complement of everything before it. One
round finds each distinct eigenvalue once; further rounds find further copies. All rounds share
one projected matrix, so that every Ritz pair is the best in their common span.

With a metric (a positive definite M) the matrix is M A, which is symmetric in the inner product of
M's inverse; M itself is all that is needed.

Index legend: N rows of the matrix, m vectors in the basis, p closed rounds, G groups of samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from optiscope.linalg.orthonormal import vector_length

__all__ = ["KrylovSpace", "RitzPairs"]

_ROWS = 16  # vectors in one block of memory
_BREAKDOWN = 16.0  # multiples of the rounding error below which a remainder is nothing

_SMALL = 1e-3  # of the matrix: a remainder this small is orthogonalized once more

Multiply = Callable[[Tensor], Iterable[tuple[float, Tensor]]]
"""Share and product of each group of samples; the shares sum to 1."""


@dataclass(frozen=True)
class RitzPairs:
    """Eigenpairs of the projected matrix.

    Attributes:
        values: [m] in float64, ascending.
        coefficients: [m, m], columns in the basis of the Krylov space.
        residuals: [m], norms of A u - value u.
    """

    values: Tensor
    coefficients: Tensor
    residuals: Tensor


class KrylovSpace:
    """Orthonormal basis Q of a Krylov space with A Q = Q T + R B', R orthogonal to Q.

    Args:
        multiply: the matrix, as products of groups of samples.
        size: number of rows N.
        dtype: type of the vectors.
        device: device of the vectors.
        metric: product with a positive definite matrix M; None: the identity.
    """

    def __init__(
        self,
        multiply: Multiply,
        size: int,
        dtype: torch.dtype,
        device: torch.device,
        metric: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._multiply, self._metric = multiply, metric
        self.size, self.dtype, self.device = size, dtype, device
        self._basis = _Rows(size, dtype, device)
        self._duals = self._basis if metric is None else _Rows(size, dtype, device)
        self.projected = torch.zeros(0, 0, dtype=torch.float64)  # T
        self.group_projected: list[Tensor] = []  # Q' A_g Q, one [m, m] for each of G groups
        self.shares: list[float] = []
        self._closed: list[tuple[Tensor, Tensor, Tensor]] = []  # dual and primal remainder, B's row
        self._open: tuple[Tensor, Tensor, Tensor] | None = None
        self.products = 0
        self.asymmetry = 0.0  # largest |u'A v - v'A u| seen, relative to the matrix
        self._compressed = False  # since the last vector, so that it has no single predecessor
        self.round_start = 0
        self._pairs: RitzPairs | None = None

    def __len__(self) -> int:
        return len(self._basis)

    def start_round(self, vector: Tensor) -> bool:
        """Begin a round with ``vector`` [N]; False where nothing of it is new.

        With a metric, ``vector`` is a dual one: the first direction is M times it.
        """
        if self._open is not None:
            self._closed.append(self._open)
        length = vector_length(vector)
        self._open = None
        if not length > 0 or len(self) >= self.size:
            return False
        dual, primal = self._outside(vector / length)
        norm = self._norm(dual, primal)
        if not norm > _BREAKDOWN * torch.finfo(self.dtype).eps:
            return False
        coefficients = torch.zeros(len(self), dtype=torch.float64)
        self._open = (dual, primal, coefficients)
        self.round_start = len(self)
        return True

    def advance(self) -> bool:
        """Extend the basis by one vector, at the cost of one product; False where none is left."""
        if self._open is None or len(self) >= self.size:
            return False
        dual, primal, _ = self._open
        norm = self._norm(dual, primal)
        first = len(self) == self.round_start
        if not first and not norm > _BREAKDOWN * torch.finfo(self.dtype).eps * self._scale():
            self._closed.append(self._open)
            self._open = None
            return False
        dual, primal = dual / norm, primal / norm
        coupling = None if first or self._compressed else norm
        self._compressed = False
        if not first and norm < _SMALL * self._scale():
            coupling = None
            # What is left is mostly rounding: its share along the basis grew with it.
            dual, primal = self._outside(dual)
            norm = self._norm(dual, primal)
            if not norm > 0:
                self._open = None
                return False
            dual, primal = dual / norm, primal / norm
        self._basis.append(primal)
        if self._metric is not None:
            self._duals.append(dual)
        m = len(self)
        self._clean_closed(dual, primal)
        image = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        columns = []
        shares = []
        for share, product in self._multiply(primal):
            image.add_(product, alpha=share)
            shares.append(share)
            columns.append(self._basis.dot(product))
        self.products += 1
        self._extend_groups(shares, columns, m)
        column, remainder = self._orthogonalize(image)
        self._note_asymmetry(coupling, column)
        projected = torch.zeros(m, m, dtype=torch.float64)
        projected[:-1, :-1] = self.projected
        projected[:, -1] = projected[-1, :] = column
        self.projected = projected
        self._pairs = None
        row = torch.zeros(m, dtype=torch.float64)
        row[-1] = 1.0
        primal = remainder if self._metric is None else self._metric(remainder)
        self._open = (remainder, primal, row)
        self._closed = [(d, p, torch.cat([b, b.new_zeros(1)])) for d, p, b in self._closed]
        return True

    def resume(self, coefficients: Tensor) -> bool:
        """Begin a round with the residual of a Ritz vector, unless it lies in the open round.

        Args:
            coefficients: [m], of the Ritz vector.

        Returns:
            Whether there is a new round; the open one may go on where there is none.
        """
        if not self._closed:
            return False
        parts = [(d, float(b @ coefficients)) for d, _, b in self._closed]
        residual = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        for dual, factor in parts:
            residual.add_(dual, alpha=factor)
        outside = vector_length(residual)
        if self._open is not None:
            dual, _, row = self._open
            inside = vector_length(dual) * abs(float(row @ coefficients))
            if inside >= outside:
                return False
            residual.add_(dual, alpha=float(row @ coefficients))
        return self.start_round(residual)

    def ritz(self) -> RitzPairs:
        """All Ritz pairs of the space so far."""
        if self._pairs is None:
            self._pairs = self._ritz()
        return self._pairs

    def _ritz(self) -> RitzPairs:
        values, coefficients = torch.linalg.eigh(self.projected)
        remainders = [*self._closed, *([self._open] if self._open is not None else [])]
        if not remainders:
            return RitzPairs(values, coefficients, torch.zeros_like(values))
        if len(remainders) == 1:
            dual, primal, row = remainders[0]
            return RitzPairs(
                values, coefficients, (row @ coefficients).abs() * self._norm(dual, primal)
            )
        lengths = [vector_length(d) or 1.0 for d, _, _ in remainders]  # squares may overflow
        duals = torch.stack([d / s for s, (d, _, _) in zip(lengths, remainders, strict=True)])
        primals = duals
        if self._metric is not None:
            primals = torch.stack([p / s for s, (_, p, _) in zip(lengths, remainders, strict=True)])
        gram = (duals @ primals.T).double().cpu()
        unit = max(lengths)
        sizes = torch.tensor(lengths, dtype=torch.float64).unsqueeze(1) / unit
        rows = sizes * (torch.stack([b for _, _, b in remainders]) @ coefficients)
        squares = torch.einsum("pm,pq,qm->m", rows, gram, rows)
        return RitzPairs(values, coefficients, unit * squares.clamp_min(0).sqrt())

    def vectors(self, coefficients: Tensor) -> Tensor:
        """Vectors [k, N] of the space with ``coefficients`` [m, k]."""
        return self._basis.combine(coefficients)

    def group_quotients(self, coefficients: Tensor) -> Tensor:
        """u' A_g u for each group and each column of ``coefficients`` [m, k]: [G, k]."""
        return torch.stack(
            [(coefficients * (t @ coefficients)).sum(0) for t in self.group_projected]
        )

    def compress(self, keep: Tensor, pairs: RitzPairs) -> None:
        """Restart thickly: go on with the Ritz vectors at the indices ``keep`` alone.

        The relation A Q = Q T + R B' stays exact.
        """
        chosen = pairs.coefficients[:, keep]
        self._pairs = None
        self._compressed = True
        self._basis.replace(chosen)
        if self._metric is not None:
            self._duals.replace(chosen)
        self.projected = torch.diag(pairs.values[keep])
        self.group_projected = [chosen.T @ t @ chosen for t in self.group_projected]
        self._closed = [(d, p, b @ chosen) for d, p, b in self._closed]
        if self._open is not None:
            dual, primal, row = self._open
            self._open = (dual, primal, row @ chosen)
        self.round_start = min(self.round_start, len(self) - 1)

    def _scale(self) -> float:
        return float(self.projected.abs().max()) if len(self.projected) else 0.0

    def _norm(self, dual: Tensor, primal: Tensor) -> float:
        if self._metric is None:
            return vector_length(dual)
        return math.sqrt(max(float(dual.double() @ primal.double()), 0.0))

    def _note_asymmetry(self, coupling: float | None, column: Tensor) -> None:
        """Compare q'A p with p'A q for the newest vector q and the one before it, p.

        Args:
            coupling: q'A p, which is the length that the remainder of A p had; None where q has
                another origin.
            column: Q'A q [m].
        """
        scale = max(self._scale(), float(column.abs().max()))
        if coupling is not None and 0 < scale < math.inf:
            self.asymmetry = max(self.asymmetry, abs(float(column[-2]) - coupling) / scale)

    def _outside(self, dual: Tensor) -> tuple[Tensor, Tensor]:
        """The part of a dual vector outside the basis, and M times it."""
        _, dual = self._orthogonalize(dual)
        return dual, dual if self._metric is None else self._metric(dual)

    def _orthogonalize(self, dual: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients [m] in the basis and what is left, by two passes of Gram-Schmidt."""
        first = self._basis.dot(dual)
        rest = self._duals.subtract(dual, first)
        second = self._basis.dot(rest)
        return first + second, self._duals.subtract(rest, second)

    def _clean_closed(self, dual: Tensor, primal: Tensor) -> None:
        """Take the newest basis vector out of the remainders of closed rounds."""
        cleaned = []
        nothing = _BREAKDOWN * torch.finfo(self.dtype).eps * self._scale()
        for d, p, b in self._closed:
            share = d @ primal
            d_rest = d - share * dual
            p_rest = d_rest if self._metric is None else p - share * primal
            if self._norm(d_rest, p_rest) > nothing:
                cleaned.append((d_rest, p_rest, b))
        self._closed = cleaned

    def _extend_groups(self, shares: list[float], columns: list[Tensor], m: int) -> None:
        if len(shares) < 2:
            return
        if not self.group_projected:
            self.group_projected = [torch.zeros(m - 1, m - 1, dtype=torch.float64) for _ in shares]
        self.shares = shares
        extended = []
        for old, column in zip(self.group_projected, columns, strict=True):
            new = torch.zeros(m, m, dtype=torch.float64)
            new[:-1, :-1] = old
            new[:, -1] = new[-1, :] = column
            extended.append(new)
        self.group_projected = extended


class _Rows:
    """A growing stack of vectors [N], in blocks so that growth copies nothing."""

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self._size, self._dtype, self._device = size, dtype, device
        self._blocks: list[Tensor] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, vector: Tensor) -> None:
        place = self._count % _ROWS
        if place == 0:
            block = torch.empty(_ROWS, self._size, dtype=self._dtype, device=self._device)
            self._blocks.append(block)
        self._blocks[-1][place] = vector
        self._count += 1

    def _used(self) -> list[Tensor]:
        counts = [min(_ROWS, self._count - i * _ROWS) for i in range(len(self._blocks))]
        return [block[:count] for block, count in zip(self._blocks, counts, strict=True)]

    def dot(self, vector: Tensor) -> Tensor:
        """Inner products [m] with all rows, in float64 on the CPU."""
        if not self._blocks:
            return torch.zeros(0, dtype=torch.float64)
        return torch.cat([block @ vector for block in self._used()]).double().cpu()

    def subtract(self, vector: Tensor, coefficients: Tensor) -> Tensor:
        """``vector`` less the combination of the rows with ``coefficients`` [m]."""
        rest = vector.clone()
        cast = coefficients.to(self._device, self._dtype)
        for i, block in enumerate(self._used()):
            rest.addmv_(block.T, cast[i * _ROWS : i * _ROWS + len(block)], alpha=-1)
        return rest

    def combine(self, coefficients: Tensor) -> Tensor:
        """Combinations [k, N] with ``coefficients`` [m, k]."""
        cast = coefficients.T.to(self._device, self._dtype)
        out = torch.zeros(len(cast), self._size, dtype=self._dtype, device=self._device)
        for i, block in enumerate(self._used()):
            out.addmm_(cast[:, i * _ROWS : i * _ROWS + len(block)], block)
        return out

    def replace(self, coefficients: Tensor) -> None:
        """Keep the combinations with ``coefficients`` [m, k] in place of the rows."""
        kept = self.combine(coefficients)
        self._blocks, self._count = [], 0
        for row in kept:
            self.append(row)
