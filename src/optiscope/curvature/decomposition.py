"""H = G + R: how much of the Hessian is Gauss-Newton, and how much the model's own curvature.

G = J' L'' J is the Hessian of the loss with the model linearized; R is the sum of the outputs'
second derivatives, weighted by the loss's slope. G is positive semi-definite where the loss is
convex in the outputs, so that negative curvature comes from R.

Traces are estimated layer by layer, with probes that are zero outside one layer: an output that is
linear in the weights of any one layer (as with ReLU) then gives tr R = 0 exactly, not on average.

Index legend: N parameters, k pairs, P probes for each layer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from optiscope.curvature.eigenpairs import Eigenpairs, top_eigenpairs
from optiscope.curvature.hutchinson import Estimate, estimate_of, rademacher
from optiscope.curvature.linear_map import OperatorError
from optiscope.objective.cost import Cost
from optiscope.objective.risk import EmpiricalRisk
from optiscope.objective.risk_operator import RiskOperator

__all__ = ["GaussNewtonSplit", "MatrixSummary", "decompose"]

EXACT_SIZE = 1000  # parameters up to which the matrices are written out
_PROBES = 30  # in all, where none are asked for; at least 3 for each layer
_NOTHING = 1e-10  # share of the Hessian below which a part is zero


@dataclass(frozen=True)
class MatrixSummary:
    """One of the three matrices.

    Attributes:
        trace: sum of the eigenvalues.
        frobenius: root of the sum of their squares.
        top: the k largest eigenpairs.
    """

    trace: Estimate
    frobenius: Estimate
    top: Eigenpairs


@dataclass(frozen=True)
class GaussNewtonSplit:
    """The Hessian H, its Gauss-Newton part G and the residual R = H - G.

    Attributes:
        hessian: H.
        gauss_newton: G.
        residual: R.
        share: |R| / |H| in the Frobenius norm.
        finding: what this means, in words.
        cost: of everything.
    """

    hessian: MatrixSummary
    gauss_newton: MatrixSummary
    residual: MatrixSummary
    share: Estimate
    finding: str
    cost: Cost

    def __str__(self) -> str:
        return self.finding


def decompose(
    risk: EmpiricalRisk,
    theta: Tensor | Mapping[str, Tensor] | None = None,
    *,
    k: int = 5,
    probes: int | None = None,
    tol: float = 1e-3,
    seed: int = 0,
    exact: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> GaussNewtonSplit:
    """Trace, Frobenius norm and top eigenpairs of H, G and R, and what they say.

    Args:
        risk: with outputs and loss apart.
        theta: parameters; None: the model's.
        k: eigenpairs of each.
        probes: for each layer; None: 30 in all, at least 3 for each layer.
        tol: of the eigenpairs, relative to the largest magnitude.
        seed: of probes and starting vectors.
        exact: write the matrices out, at N products each; None: up to 1,000 parameters.
        progress: told the probes done and all of them.

    Raises:
        SecondDerivativeError: the model returns its own loss, or cannot be differentiated twice.
        OperatorError: what was given is no risk.
    """
    started = time.perf_counter()
    if not isinstance(risk, EmpiricalRisk):
        raise OperatorError(
            f"expected a risk, of which H, G and R are taken, got {type(risk).__name__}: pass "
            "optiscope.EmpiricalRisk(model, loss, batches)"
        )
    gauss_newton, residual = risk.gauss_newton(theta), risk.residual(theta)
    if exact is None:
        exact = risk.size <= EXACT_SIZE
    if exact:
        traces, squares = _exact_sums(gauss_newton, residual, progress)
    else:
        traces, squares = _probed_sums(risk, gauss_newton, residual, probes, seed, progress)
    operators = {"G": gauss_newton, "R": residual, "H": risk.hessian(theta)}
    tops = {}
    for name, operator in operators.items():
        tops[name] = top_eigenpairs(operator, min(k, risk.size), tol=tol, seed=seed)
        operator.release()
    cost = Cost(
        gradients=sum(op.builds for op in operators.values()),
        products=sum(op.products for op in operators.values()),
        seconds=time.perf_counter() - started,
    )
    summaries = {
        name: MatrixSummary(
            trace=_summed(traces[name], cost),
            frobenius=_root(_summed(squares[name], cost)),
            top=tops[name],
        )
        for name in operators
    }
    share = _ratio(squares["R"], squares["H"], cost)
    return GaussNewtonSplit(
        hessian=summaries["H"],
        gauss_newton=summaries["G"],
        residual=summaries["R"],
        share=share,
        finding=_in_words(summaries, share),
        cost=cost,
    )


Sums = dict[str, list[Tensor]]
"""For H, G and R: samples [P] of each layer, or one exact number [1]."""


def _exact_sums(
    gauss_newton: RiskOperator,
    residual: RiskOperator,
    progress: Callable[[int, int], None] | None,
) -> tuple[Sums, Sums]:
    traces = dict.fromkeys("HGR", 0.0)
    squares = dict(traces)
    for i in range(gauss_newton.size):
        unit = torch.zeros(gauss_newton.size, dtype=gauss_newton.dtype, device=gauss_newton.device)
        unit[i] = 1.0
        g, r = gauss_newton @ unit, residual @ unit
        for name, column in (("G", g), ("R", r), ("H", g + r)):
            traces[name] += float(column[i])
            squares[name] += float(column.double() @ column.double())
        if progress is not None:
            progress(i + 1, gauss_newton.size)
    return _as_samples(traces), _as_samples(squares)


def _as_samples(numbers: dict[str, float]) -> Sums:
    return {name: [torch.tensor([value], dtype=torch.float64)] for name, value in numbers.items()}


def _probed_sums(
    risk: EmpiricalRisk,
    gauss_newton: RiskOperator,
    residual: RiskOperator,
    probes: int | None,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[Sums, Sums]:
    layers = _layers(risk)
    count = max(3, math.ceil(_PROBES / len(layers))) if probes is None else max(2, probes)
    generator = torch.Generator().manual_seed(seed)
    traces: Sums = {name: [] for name in "HGR"}
    squares: Sums = {name: [] for name in "HGR"}
    for number, (start, stop) in enumerate(layers):
        samples: dict[str, list[tuple[float, float]]] = {name: [] for name in "HGR"}
        for probe in range(count):
            z = torch.zeros(risk.size, dtype=risk.dtype, device=risk.device)
            z[start:stop] = rademacher(stop - start, generator).to(risk.device, risk.dtype)
            g, r = gauss_newton @ z, residual @ z
            for name, image in (("G", g), ("R", r), ("H", g + r)):
                wide = image.double()
                samples[name].append((float(z.double() @ wide), float(wide @ wide)))
            if progress is not None:
                progress(number * count + probe + 1, count * len(layers))
        for name, pairs in samples.items():
            values = torch.tensor(pairs, dtype=torch.float64)
            traces[name].append(values[:, 0])
            squares[name].append(values[:, 1])
    return traces, squares


def _layers(risk: EmpiricalRisk) -> list[tuple[int, int]]:
    """First and last place in theta of the parameters of each module."""
    places: list[tuple[str, int, int]] = []
    start = 0
    for name, tensor in risk.unflatten(risk.parameters).items():
        owner, stop = name.rpartition(".")[0], start + tensor.numel()
        if places and places[-1][0] == owner:
            places[-1] = (owner, places[-1][1], stop)
        else:
            places.append((owner, start, stop))
        start = stop
    return [(a, b) for _, a, b in places]


def _summed(layers: list[Tensor], cost: Cost) -> Estimate:
    """The sum over layers of the means of their samples."""
    if len(layers[0]) == 1:
        value = float(sum(float(s) for s in layers))
        return Estimate(value, 0.0, (value, value), None, True, cost)
    return estimate_of(torch.stack(layers).sum(0), cost)


def _root(estimate: Estimate) -> Estimate:
    value = math.sqrt(max(estimate.value, 0.0))
    error = estimate.standard_error / (2 * value) if value else 0.0
    low, high = (math.sqrt(max(x, 0.0)) for x in estimate.interval)
    return Estimate(value, error, (low, high), None, estimate.exact, estimate.cost)


def _ratio(part: list[Tensor], whole: list[Tensor], cost: Cost) -> Estimate:
    """Root of the ratio of two sums of squares, its error by the delta method."""
    a, b = torch.stack(part).sum(0), torch.stack(whole).sum(0)
    total = float(b.mean())
    value = math.sqrt(float(a.mean()) / total) if total else 0.0
    if len(a) == 1 or not value:
        return Estimate(value, 0.0, (value, value), None, len(a) == 1, cost)
    scaled = (a - value**2 * b) / (2 * value * total)
    spread = estimate_of(scaled, cost)
    low, high = (max(0.0, value + x - spread.value) for x in spread.interval)
    return Estimate(value, spread.standard_error, (low, high), None, False, cost)


def _in_words(parts: dict[str, MatrixSummary], share: Estimate) -> str:
    h, g, r = (parts[name] for name in "HGR")
    scale = max(h.frobenius.value, g.frobenius.value, r.frobenius.value)
    if not scale:
        return "H = 0: the loss is flat here, to second order."
    if g.frobenius.value <= _NOTHING * scale:
        return (
            "G = 0: the loss is piecewise linear in the outputs (as the hinge is), so that the "
            "Gauss-Newton matrix vanishes and the whole Hessian is the model's own curvature R. "
            "Methods that use G in place of H see no curvature at all here."
        )
    if r.frobenius.value <= _NOTHING * scale:
        return "R = 0: the outputs are linear in the parameters here, so that H = G exactly."
    sentences = [
        f"R holds {share.value:.1%} of the Hessian (|R| / |H|, Frobenius): "
        + (
            "the Gauss-Newton matrix stands for the Hessian."
            if share.value < 0.15
            else "the Gauss-Newton matrix is a rough picture of the Hessian."
            if share.value < 0.5
            else "most of the Hessian is the model's own curvature, which G leaves out."
        ),
        f"The largest eigenvalue is {h.top.value:.4g} of H, {g.top.value:.4g} of G and "
        f"{r.top.value:.4g} of R.",
    ]
    if abs(r.trace.value) <= _TRACELESS[r.top.values.dtype] * max(abs(g.trace.value), scale):
        sentences.append(
            "tr R = 0, so tr H = tr G: the outputs are linear in the weights of each layer taken "
            "alone, as with piecewise-linear activations."
        )
    return " ".join(sentences)


_TRACELESS = {torch.float64: 1e-10, torch.float32: 1e-5}
