"""Leading eigenpairs of a symmetric matrix known by its products, multiplicities verified.

A Lanczos run from one vector finds one copy of each eigenvalue, however often it occurs, and
reports convergence. So after convergence a new run starts from a fresh random vector on the
complement of everything before. It goes on until it would have shown a missed pair with
probability 0.99; if it shows one, there is another run, and so on.

Index legend: N rows, k pairs, m vectors in the basis, G groups of samples.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from optiscope.curvature.linear_map import LinearMap, as_linear_map, cost_of, groups_of
from optiscope.errors import OptiscopeError
from optiscope.hints import did_you_mean
from optiscope.linalg.lanczos import KrylovSpace, RitzPairs
from optiscope.objective.cost import Cost

__all__ = ["Eigenpairs", "EigenpairsError", "Progress", "Which", "top_eigenpairs"]

Which = Literal["largest", "smallest", "magnitude"]

VERIFICATION_STEPS = 16  # at least, in the last round, which shows nothing new
_MISS = 0.01  # probability that a pair by _ABOVE above the k-th is missed
_ABOVE = 0.1
_NEAREST = 0.03
_RISE = 3.0  # tolerances by which a value must rise for a pair to have been missed
_OFTEN, _SELDOM = 64, 4  # a basis this large is only looked at after every so many steps
_ASYMMETRIC = 0.05  # of the largest magnitude: more than rounding in any type
_MEMORY = 2 * 2**30  # bytes of basis vectors, where no number of vectors is given


class EigenpairsError(OptiscopeError, ValueError):
    """What was asked of the eigenpairs cannot be done."""


@dataclass(frozen=True)
class Progress:
    """How far a search for eigenpairs is.

    Attributes:
        products: so far.
        converged: pairs within the tolerance.
        wanted: pairs in all.
        verifying: whether the pairs are being checked for missed copies.
    """

    products: int
    converged: int
    wanted: int
    verifying: bool


@dataclass(frozen=True)
class Eigenpairs:
    """k eigenpairs of a symmetric matrix, the one asked for first in front.

    Attributes:
        values: [k], in the operator's type.
        residuals: [k], norms of A u - value u. An eigenvalue lies within each of its value.
        converged: [k] of bool: the residual is within the tolerance *and* the list was verified to
            miss no copy. Never true without verification.
        data_errors: [k], standard errors from the spread of u'Au over groups of samples: how much
            the value would vary with another sample of the same size at these weights. It does not
            cover held-out data. None for a matrix that has no samples, or a single batch of them.
        group_values: [G, k], u'A_g u of each group of samples, or None.
        shares: [G], of the groups.
        vectors: [k, N], orthonormal rows; None where they were not kept.
        multiplicity_checked: whether a fresh run on the complement found nothing that is missing.
        missed_above: a pair beyond this value would have been seen with probability 0.99; NaN
            without verification.
        tolerance: largest residual that counts as converged.
        which: what the pairs were selected by.
        spectral_radius: largest magnitude of an eigenvalue seen.
        search_products: products until the residuals were small, before verification.
        cost: of everything.
    """

    values: Tensor
    residuals: Tensor
    converged: Tensor
    data_errors: Tensor | None
    group_values: Tensor | None = field(repr=False)
    shares: tuple[float, ...] = field(repr=False)
    vectors: Tensor | None = field(repr=False)
    multiplicity_checked: bool
    missed_above: float
    tolerance: float
    which: Which
    spectral_radius: float
    search_products: int
    cost: Cost

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Tensor:
        return self.values[index]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.values)

    def __float__(self) -> float:
        return self.value

    @property
    def value(self) -> float:
        """The first eigenvalue."""
        return float(self.values[0])

    @property
    def standard_error(self) -> float:
        """Error of the first eigenvalue from the data; NaN where it is not known."""
        return math.nan if self.data_errors is None else float(self.data_errors[0])

    @property
    def within_tolerance(self) -> Tensor:
        """[k] of bool: the residual is small, whether or not copies are missing."""
        return self.residuals <= self.tolerance


def top_eigenpairs(
    operator: Any,
    k: int = 10,
    *,
    which: Which = "largest",
    tol: float = 1e-4,
    budget: int | None = None,
    verify: bool = True,
    seed: int = 0,
    keep_vectors: bool = True,
    max_vectors: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    size: int | None = None,
    inverse: Callable[[Tensor], Tensor] | None = None,
) -> Eigenpairs:
    """The k largest (smallest, largest by magnitude) eigenpairs of a symmetric matrix.

    Lanczos's iteration with full reorthogonalization, done twice; see this module for how missed
    copies are looked for. Memory: the basis, which is at most ``max_vectors`` vectors [N].

    Args:
        operator: ``risk.hessian()``, ``risk.gauss_newton()``, ``risk.residual()``, a symmetric
            tensor [N, N], or a function v -> A v with ``size``.
        k: pairs; at most N.
        which: ``largest`` and ``smallest`` with sign, or largest ``magnitude``.
        tol: residual that counts as converged, relative to the largest magnitude.
        budget: most products; None: 100 + 20 k.
        verify: look for missed copies. Without, no pair counts as converged.
        seed: of the starting vectors; no global generator is used.
        keep_vectors: whether the result has the eigenvectors.
        max_vectors: vectors in memory, after which the run restarts from its best ones; at least
            k + 8. None: what fits into 2 GiB.
        progress: called after each product.
        size: rows of a function.
        inverse: product with a positive definite P^-1; the pairs are then those of P^-1 A.

    Raises:
        EigenpairsError: k, tol, budget, max_vectors or which makes no sense; or the products are
            not finite, or not those of a symmetric matrix.
        OperatorError: the operator is none.
    """
    started = time.perf_counter()
    matrix = as_linear_map(operator, size)
    n = matrix.size
    if which not in ("largest", "smallest", "magnitude"):
        words = ("largest", "smallest", "magnitude")
        raise EigenpairsError(
            f"expected which to be one of {', '.join(words)}, got {str(which)[:80]!r}: "
            f"{did_you_mean(which, words)}"
        )
    if not isinstance(k, int) or k < 1:
        raise EigenpairsError(f"expected k to be a positive integer, got {k!r}")
    if not tol > 0:
        raise EigenpairsError(f"expected tol to be positive, got {tol!r}: such as 1e-3")
    if budget is not None and budget < 1:
        raise EigenpairsError(f"expected a budget of at least one product, got {budget!r}")
    if max_vectors is not None and max_vectors < min(k + 8, n):
        raise EigenpairsError(
            f"expected max_vectors to be at least k + 8 = {k + 8}, got {max_vectors}: ask for "
            "fewer pairs"
        )
    search = _Search(
        matrix=matrix,
        k=min(k, n),
        which=which,
        tol=tol,
        budget=100 + 20 * k if budget is None else budget,
        capacity=_capacity(matrix, k) if max_vectors is None else max_vectors,
        seed=seed,
        progress=progress,
        inverse=inverse,
    )
    builds = float(getattr(matrix, "builds", 0.0))
    search.run(verify=verify)
    return search.result(
        keep_vectors=keep_vectors,
        cost=cost_of(matrix, search.space.products, builds, time.perf_counter() - started),
    )


def _capacity(matrix: LinearMap, k: int) -> int:
    bytes_each = matrix.size * matrix.dtype.itemsize
    return max(k + 24, min(_MEMORY // max(bytes_each, 1), 1000))


def verification_steps(size: int, gap: float = _ABOVE / (1 + _ABOVE)) -> int:
    """Steps of a run from a random vector that show a missed pair with probability 0.99.

    Solves 1.648 sqrt(N) exp(-(2 s - 1) sqrt(gap)) = 0.01 for s.

    Args:
        size: N.
        gap: distance from the k-th pair to the missed one, relative to that from the other end of
            the spectrum to the missed one. By default, the missed one is 10 % above.

    Source: Kuczynski, Wozniakowski 1992, Estimating the largest eigenvalue by the power and Lanczos
    algorithms with a random start, Theorem 4.2 b.
    """
    steps = (math.log(1.648 * math.sqrt(size) / _MISS) / math.sqrt(gap) + 1) / 2
    return max(VERIFICATION_STEPS, math.ceil(steps))


class _Search:
    """One search: rounds of Lanczos's iteration in one Krylov space."""

    def __init__(
        self,
        *,
        matrix: LinearMap,
        k: int,
        which: Which,
        tol: float,
        budget: int,
        capacity: int,
        seed: int,
        progress: Callable[[Progress], None] | None,
        inverse: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self.matrix, self.k, self.which, self.tol = matrix, k, which, tol
        self.budget, self.capacity, self.progress = budget, capacity, progress
        self.space = KrylovSpace(
            groups_of(matrix), matrix.size, matrix.dtype, matrix.device, metric=inverse
        )
        self.generator = torch.Generator().manual_seed(seed)
        self.verified = False
        self.search_products = 0
        self.missed_above = math.nan

    def run(self, *, verify: bool) -> None:
        """Search until converged; verify; search on where verification has shown something."""
        if not self._search():
            return
        self.search_products = self.space.products
        while verify:
            before = self._top(self.space.ritz())
            if not self._start():  # nothing is left in which a copy could hide
                self.missed_above = float(before.values[-1])
                self.verified = True
                return
            outcome = self._verify(before)
            if outcome == "budget" or not self._search(new=False):
                return
            if outcome == "nothing" and not self._moved(before):
                self.verified = True
                return

    def _moved(self, before: RitzPairs) -> bool:
        """Whether a value of the list has risen by more than its tolerance explains."""
        rise = self._keys(self._top(self.space.ritz()).values) - self._keys(before.values)
        return bool((rise > _RISE * self._limit()).any())

    def _start(self) -> bool:
        """Begin a round from a fresh random vector."""
        vector = torch.randn(self.matrix.size, generator=self.generator, dtype=torch.float64)
        return self.space.start_round(vector.to(self.matrix.device, self.matrix.dtype))

    def _step(self, *, verifying: bool) -> bool | None:
        """One product; False where the round has exhausted its space, None without budget."""
        if self.space.products >= self.budget:
            return None
        if len(self.space) >= self.capacity:
            self._restart()
        went = self.space.advance()
        if went and not bool(self.space.projected[-1, -1].isfinite()):
            raise EigenpairsError(
                "expected finite products, got one that is not: has training diverged?"
            )
        if self.space.asymmetry > _ASYMMETRIC:
            raise EigenpairsError(
                "expected a symmetric matrix, got products whose u'Av and v'Au differ by "
                f"{self.space.asymmetry:.0%} of its largest eigenvalue: a kernel of the model may "
                "have wrong second derivatives; compare a product with a difference of gradients"
            )
        if went and self.progress is not None:
            pairs = self._top(self.space.ritz())
            small = int((pairs.residuals <= self._limit()).sum())
            self.progress(Progress(self.space.products, small, self.k, verifying))
        return went

    def _search(self, *, new: bool = True) -> bool:
        """Extend the space until k residuals are small."""
        if new and not self._start():
            return False
        while True:
            m = len(self.space)
            if m >= self.k and (m <= _OFTEN or m % _SELDOM == 0 or not new):
                pairs = self._top(self.space.ritz())
                if bool((pairs.residuals <= self._limit()).all()):
                    return True
                # A residual that an earlier round left is followed from where that round ended.
                self.space.resume(pairs.coefficients[:, int(pairs.residuals.argmax())])
            went = self._step(verifying=False)
            if went is None:
                return False
            if not went and not self._start():  # the basis spans everything: all pairs are exact
                return len(self.space) >= self.k

    def _verify(self, before: RitzPairs) -> str:
        """Run on the complement: ``missed`` something, ``nothing``, or out of ``budget``."""
        gap = self._gap(before)
        steps = verification_steps(self.matrix.size, gap)
        done = 0
        while True:
            went = self._step(verifying=True)
            if went is None:
                return "budget"
            done += int(went)
            if self._moved(before):
                return "missed"
            if not went or done >= steps:
                self.missed_above = self._level(before, gap if went else None)
                return "nothing"

    def _gap(self, pairs: RitzPairs) -> float:
        """Relative distance to the missed pair that verification is sure to see.

        Where an eigenvalue in the list occurs more than once, copies of all that are resolved from
        the k-th are looked for, however near it they are (down to 3 %).
        """
        gap = _ABOVE / (1 + _ABOVE)
        keys = self._keys(pairs.values)
        limit = self._limit()
        above = keys[keys > keys[-1] + _RISE * limit]
        if len(above) and bool((above[:-1] - above[1:] <= 2 * limit).any()):
            low = float(self._keys(self.space.ritz().values).min())
            nearest = float(above[-1])
            gap = min(gap, (nearest - float(keys[-1])) / (nearest - low))
        return max(gap, _NEAREST)

    def _level(self, before: RitzPairs, gap: float | None) -> float:
        """Value beyond which a missed pair would have shown, with probability 0.99.

        Two errors add up. The round's best Ritz value falls short of the missed pair by up to
        ``gap`` of the spectrum's width. And a Ritz value shows only where it lifts one of the list
        by more than ``_moved`` forgives, less what the residuals of the list couple to it.

        Args:
            before: the list that verification started from.
            gap: relative shortfall of the Ritz value; None where the complement is exhausted, so
                that there is none.
        """
        hidden = _RISE * self._limit() + float(torch.linalg.vector_norm(before.residuals))
        reach = -math.inf  # the highest Ritz value that shifts the list without showing
        for key in self._keys(before.values).flip(0).tolist():
            if reach > -math.inf and key > reach:
                break
            reach = key + hidden
        if gap is None:
            level = reach
        elif self.which == "magnitude":
            level = reach / (1 - 2 * gap)
        else:
            pairs = self.space.ritz()
            keys = self._keys(pairs.values)
            lowest = int(keys.argmin())
            low = float(keys[lowest] - pairs.residuals[lowest])
            level = reach + gap / (1 - gap) * (reach - low)
        return -level if self.which == "smallest" else level

    def _restart(self) -> None:
        """Keep the best half of the Ritz vectors."""
        pairs = self.space.ritz()
        keep = min(max(self.k + 4, self.capacity // 2), self.capacity - 4)
        order = self._keys(pairs.values).argsort(descending=True, stable=True)[:keep]
        self.space.compress(order.sort().values, pairs)

    def result(self, *, keep_vectors: bool, cost: Cost) -> Eigenpairs:
        """The pairs as they are now."""
        dtype = self.matrix.dtype
        if not len(self.space):
            raise EigenpairsError("expected a matrix with at least one row and finite products")
        pairs = self._top(self.space.ritz())
        limit = self._limit()
        errors = quotients = None
        if self.space.group_projected:
            quotients = self.space.group_quotients(pairs.coefficients)
            errors = spread_error(quotients, self.space.shares, pairs.values).to(dtype)
        return Eigenpairs(
            values=pairs.values.to(dtype),
            residuals=pairs.residuals.to(dtype),
            converged=(pairs.residuals <= limit) & self.verified,
            data_errors=errors,
            group_values=quotients,
            shares=tuple(self.space.shares),
            vectors=self.space.vectors(pairs.coefficients) if keep_vectors else None,
            multiplicity_checked=self.verified,
            missed_above=self.missed_above,
            tolerance=limit,
            which=self.which,
            spectral_radius=self._radius(),
            search_products=self.search_products or self.space.products,
            cost=cost,
        )

    def _keys(self, values: Tensor) -> Tensor:
        if self.which == "magnitude":
            return values.abs()
        return values if self.which == "largest" else -values

    def _limit(self) -> float:
        """Residual that counts as converged: relative to the largest magnitude seen."""
        return self.tol * self._radius()

    def _radius(self) -> float:
        return float(self.space.ritz().values.abs().max())

    def _top(self, pairs: RitzPairs) -> RitzPairs:
        """The k best Ritz pairs, best first."""
        order = self._keys(pairs.values).argsort(descending=True, stable=True)[: self.k]
        return RitzPairs(pairs.values[order], pairs.coefficients[:, order], pairs.residuals[order])


def spread_error(parts: Tensor, shares: list[float], whole: Tensor) -> Tensor:
    """Standard error [k] of means of which the parts [G, k] are known, with their shares."""
    weights = torch.tensor(shares, dtype=parts.dtype).unsqueeze(1)
    count = len(shares)
    deviations = weights * (parts - whole)
    error: Tensor = math.sqrt(count / (count - 1)) * torch.linalg.vector_norm(deviations, dim=0)
    return error
