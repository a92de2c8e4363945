"""The density of a symmetric matrix's eigenvalues, with three errors apart.

Stochastic Lanczos quadrature: from a random vector z, m steps of Lanczos's iteration give nodes and
weights whose sum approximates z' f(A) z for every f. Here f is a Gaussian about each grid point.

The errors are the spread over probes (Monte Carlo), the largest change from 3m/4 to m steps within
two widths (Krylov: nodes that have not converged move about), and the first-order change with the
samples (data), which is tr(f'(A) (A_g - A)) for group g and comes from products that are there
anyway.

Index legend: N rows, P probes, m steps, G groups of samples, L grid points.

Source: Lin, Saad, Yang 2016, Approximating spectral densities of large matrices; Ghorbani et al.
2019, An investigation into neural net optimization via Hessian eigenvalue density.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from optiscope.curvature.eigenpairs import Eigenpairs
from optiscope.curvature.hutchinson import cross_probe_error, deflated_basis, outside, rademacher
from optiscope.curvature.linear_map import as_linear_map, cost_of, groups_of
from optiscope.errors import OptiscopeError
from optiscope.linalg.lanczos import KrylovSpace
from optiscope.objective.cost import Cost

__all__ = ["Curve", "Density", "DensityError", "LanczosRun", "spectral_density"]


_REMAINDER = 2.0  # what more steps would change, over the last quarter's change


class DensityError(OptiscopeError, ValueError):
    """What was asked of the density cannot be done."""


@dataclass(frozen=True)
class LanczosRun:
    """One probe: the projected matrix, and z' A_g Q for each group.

    Attributes:
        projected: T [m, m].
        group_rows: [G, m], or None where the matrix has no groups.
    """

    projected: Tensor
    group_rows: Tensor | None


@dataclass(frozen=True)
class Curve:
    """A density on a grid: its values and three standard errors, [L] each.

    Attributes:
        grid: eigenvalues.
        density: mass per unit; the total with atoms is 1.
        monte_carlo: standard error from the random probes.
        krylov: largest change, within two widths, from three quarters of the steps to all.
        data: standard error to first order from the spread over groups of samples, at these
            weights; None where there are no groups.
    """

    grid: Tensor
    density: Tensor
    monte_carlo: Tensor
    krylov: Tensor
    data: Tensor | None


@dataclass(frozen=True)
class Density:
    """Density of eigenvalues, smoothed by a Gaussian; exact outliers apart, as atoms.

    Attributes:
        curve: on the default grid.
        width: standard deviation of the Gaussian.
        atoms: [k], deflated eigenvalues; each has the mass ``atom_mass`` = 1/N and is not part of
            the curve.
        atom_errors: [k], their errors from the data, or None.
        atom_mass: 1/N.
        runs: what the curve is made of; `on` draws another one without further products.
        shares: [G], of the groups of samples.
        size: N.
        cost: of all probes.
    """

    curve: Curve
    width: float
    atoms: Tensor
    atom_errors: Tensor | None
    atom_mass: float
    runs: tuple[LanczosRun, ...] = field(repr=False)
    shares: tuple[float, ...]
    size: int
    cost: Cost

    @property
    def grid(self) -> Tensor:
        """[L], eigenvalues at which the density is known."""
        return self.curve.grid

    @property
    def density(self) -> Tensor:
        """[L], mass per unit of eigenvalue."""
        return self.curve.density

    @property
    def monte_carlo(self) -> Tensor:
        """[L], standard error from the random probes."""
        return self.curve.monte_carlo

    @property
    def krylov(self) -> Tensor:
        """[L], change from three quarters of the steps to all."""
        return self.curve.krylov

    @property
    def data(self) -> Tensor | None:
        """[L], standard error from the spread over groups of samples."""
        return self.curve.data

    @property
    def nodes(self) -> list[Tensor]:
        """Eigenvalues [m] of each probe's projected matrix."""
        return [_quadrature(run.projected)[0] for run in self.runs]

    @property
    def weights(self) -> list[Tensor]:
        """Weights [m] of each probe's nodes; they sum to the mass outside the atoms."""
        mass = 1 - self.atom_mass * len(self.atoms)
        return [mass * _quadrature(run.projected)[1] for run in self.runs]

    def half_width(self, level: float = 0.95) -> Tensor:
        """[L], t-interval's half-width from the probes, plus twice the Krylov error.

        Twice, because the change from three quarters of the steps to all is not all that is left:
        see ``benchmarks/density_coverage.py`` for how often such bars hold the dense density.
        """
        return self.half_width_of(self.curve, level)

    def half_width_of(self, curve: Curve, level: float = 0.95) -> Tensor:
        """The same of a curve on another grid."""
        reach = float(stats.t.ppf((1 + level) / 2, len(self.runs) - 1))
        return reach * curve.monte_carlo + _REMAINDER * curve.krylov

    def mass_above(self, value: float) -> float:
        """Share of eigenvalues above ``value``, atoms included, without smoothing."""
        atoms = self.atom_mass * int((self.atoms > value).sum())
        nodes = zip(self.nodes, self.weights, strict=True)
        return atoms + sum(float(w[x > value].sum()) for x, w in nodes) / len(self.runs)

    def resolution(self) -> float:
        """Magnitude below which so many steps tell eigenvalues apart only roughly."""
        steps = max(len(run.projected) for run in self.runs)
        nodes = torch.cat(self.nodes)
        reach = float(nodes.max() - nodes.min()) or float(nodes.abs().max()) or 1.0
        return 3 * reach / steps

    def on(
        self, grid: Tensor, width: float | None = None, *, linear_below: float | None = None
    ) -> Curve:
        """The density on another grid or with another width.

        Args:
            grid: [L], eigenvalues.
            width: of the Gaussian.
            linear_below: smooth in asinh(value / linear_below), which is linear below it and
                logarithmic beyond; the width, and the density's unit, are then of that.
        """
        own = self.width if width is None else width
        mass = 1 - self.atom_mass * len(self.atoms)
        return _curve(self.runs, self.shares, grid, own, mass, linear_below)


def spectral_density(
    operator: Any,
    *,
    probes: int = 10,
    steps: int = 40,
    deflate: Eigenpairs | None = None,
    width: float | None = None,
    points: int = 1000,
    seed: int = 0,
    size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Density:
    """Density of the eigenvalues of a symmetric matrix, as mass per unit of eigenvalue.

    Args:
        operator: as for `top_eigenpairs`.
        probes: random vectors; at least 2.
        steps: products for each of them; at least 4.
        deflate: eigenpairs of the same operator, with vectors; they become exact atoms.
        width: of the Gaussian; None: a hundredth of the range.
        points: of the grid.
        seed: of the probes; no global generator is used.
        size: rows of a function.
        progress: told the products done and all of them.

    Raises:
        DensityError: too few probes or steps, or a width that is not positive.
        TraceError: pairs without vectors, or of another matrix.
    """
    started = time.perf_counter()
    matrix = as_linear_map(operator, size)
    if probes < 2 or steps < 4:
        raise DensityError(
            f"expected at least 2 probes and 4 steps, got {probes} and {steps}: fewer have no error"
        )
    if width is not None and not width > 0:
        raise DensityError(f"expected a positive width, got {width!r}")
    n = matrix.size
    basis = deflated_basis(deflate, n)
    builds = float(getattr(matrix, "builds", 0.0))
    generator = torch.Generator().manual_seed(seed)
    multiply = groups_of(matrix)
    runs, shares, products = [], [1.0], 0
    for probe in range(probes):
        space = KrylovSpace(
            lambda v: ((share, outside(basis, product)) for share, product in multiply(v)),
            n,
            matrix.dtype,
            matrix.device,
        )
        z = rademacher(n, generator).to(matrix.device, matrix.dtype)
        space.start_round(outside(basis, z))
        for step in range(steps):
            if not space.advance():
                break
            if progress is not None:
                progress(probe * steps + step + 1, probes * steps)
        products += space.products
        rows = None
        if space.group_projected:
            rows = torch.stack([t[0] for t in space.group_projected])
            shares = space.shares
        runs.append(LanczosRun(space.projected, rows))
        if not bool(space.projected.isfinite().all()):
            raise DensityError("expected finite products, got one that is not: has it diverged?")
    deflated = 0 if deflate is None else len(deflate)
    nodes = torch.cat([_quadrature(run.projected)[0] for run in runs])
    low, high = float(nodes.min()), float(nodes.max())
    if width is None:
        width = (high - low) / 100 or max(abs(high), 1.0) / 100
    grid = torch.linspace(low - 4 * width, high + 4 * width, points, dtype=torch.float64)
    return Density(
        curve=_curve(tuple(runs), tuple(shares), grid, width, 1 - deflated / n, None),
        width=width,
        atoms=torch.zeros(0, dtype=torch.float64) if deflate is None else deflate.values.double(),
        atom_errors=None if deflate is None else deflate.data_errors,
        atom_mass=1 / n,
        runs=tuple(runs),
        shares=tuple(shares),
        size=n,
        cost=cost_of(matrix, products, builds, time.perf_counter() - started),
    )


def _quadrature(projected: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes [m] and weights [m]; the weights are the squared first row of the eigenvectors."""
    values, vectors = torch.linalg.eigh(projected)
    return values, vectors[0].square()


def _curve(
    runs: tuple[LanczosRun, ...],
    shares: tuple[float, ...],
    grid: Tensor,
    width: float,
    mass: float,
    linear_below: float | None,
) -> Curve:
    place = grid.double() if linear_below is None else torch.asinh(grid.double() / linear_below)
    samples = mass * torch.stack([_smooth(r.projected, place, width, linear_below) for r in runs])
    krylov = torch.zeros_like(place)
    for shift in torch.linspace(-2, 2, 9).tolist():
        moved = place + shift * width
        changes = [
            _smooth(t, moved, width, linear_below)
            - _smooth(t[:part, :part], moved, width, linear_below)
            for t in (run.projected for run in runs)
            for part in (max(1, 3 * len(t) // 4),)
        ]
        krylov = torch.maximum(krylov, mass * torch.stack(changes).mean(0).abs())
    data = None
    influences = [
        _influence(r, place, width, linear_below) for r in runs if r.group_rows is not None
    ]
    if influences:
        weights = torch.tensor(shares, dtype=torch.float64)
        data = mass * cross_probe_error(torch.stack(influences), weights)
    error = samples.std(0) / math.sqrt(len(runs))
    return Curve(grid, samples.mean(0), error, krylov, data)


def _smooth(projected: Tensor, place: Tensor, width: float, linear_below: float | None) -> Tensor:
    nodes, weights = _quadrature(projected)
    if linear_below is not None:
        nodes = torch.asinh(nodes / linear_below)
    return _gaussian((place.unsqueeze(1) - nodes) / width) @ weights / width


def _influence(run: LanczosRun, place: Tensor, width: float, linear_below: float | None) -> Tensor:
    """First-order change [G, L] of the density with the weight of each group."""
    assert run.group_rows is not None
    nodes, vectors = torch.linalg.eigh(run.projected)
    stretch = torch.ones_like(nodes)
    points = nodes
    if linear_below is not None:
        points = torch.asinh(nodes / linear_below)
        stretch = 1 / (nodes.square() + linear_below**2).sqrt()
    distance = (place.unsqueeze(1) - points) / width
    slopes = distance * _gaussian(distance) / width**2 * stretch  # d f / d node, [L, m]
    coefficients = (slopes * vectors[0]) @ vectors.T  # rows f'(T) e1
    changes: Tensor = run.group_rows @ coefficients.T
    return changes


def _gaussian(x: Tensor) -> Tensor:
    return (-x.square() / 2).exp() / math.sqrt(2 * math.pi)
