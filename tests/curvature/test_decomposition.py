"""H = G + R against the matrices written out, and the exact statements about R."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import dense, hinge, risk_of_network, squared_error, squared_hinge
from torch import nn

from optiscope import EmpiricalRisk
from optiscope.curvature import decompose, top_eigenpairs

LOSSES: dict[str, Any] = {
    "cross-entropy": F.cross_entropy,
    "squared error": squared_error,
    "hinge": hinge,
    "squared hinge": squared_hinge,
}
SIZES = (4, 4, 10)


@pytest.mark.parametrize("name", LOSSES)
def test_exact_numbers_and_words(name: str) -> None:
    risk = risk_of_network(nn.ReLU, LOSSES[name], SIZES)
    split = decompose(risk, k=3)
    for part, operator in [
        (split.hessian, risk.hessian()),
        (split.gauss_newton, risk.gauss_newton()),
        (split.residual, risk.residual()),
    ]:
        matrix = dense(operator)
        values = torch.linalg.eigvalsh(matrix)
        assert part.trace.value == pytest.approx(float(matrix.trace()), abs=1e-12)
        assert part.frobenius.value == pytest.approx(float(matrix.norm()), rel=1e-9, abs=1e-12)
        assert part.trace.exact
        gap = (part.top.values - values.flip(0)[:3]).abs()
        assert bool((gap <= part.top.residuals + 1e-12).all())
    trace_h, trace_g = split.hessian.trace.value, split.gauss_newton.trace.value
    assert abs(trace_h - trace_g) <= 1e-10 * max(abs(trace_g), split.hessian.frobenius.value)
    if name == "hinge":
        assert split.gauss_newton.frobenius.value == 0
        assert split.finding.startswith("G = 0")
        assert split.share.value == pytest.approx(1)
    else:
        assert "tr R = 0" in split.finding
        assert 0 < split.share.value < 1
    assert str(split) == split.finding


@pytest.mark.parametrize("name", LOSSES)
def test_two_layers_give_the_residual_a_symmetric_spectrum(name: str) -> None:
    residual = risk_of_network(nn.ReLU, LOSSES[name], SIZES).residual()
    high = top_eigenpairs(residual, k=4, tol=1e-9).values
    low = top_eigenpairs(residual, k=4, tol=1e-9, which="smallest").values
    torch.testing.assert_close(high, -low, atol=1e-10 * float(high[0]), rtol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_probes_of_one_layer_make_the_residual_traceless_exactly(name: str) -> None:
    risk = risk_of_network(nn.ReLU, LOSSES[name], SIZES)
    split = decompose(risk, k=1, exact=False, probes=6)
    exact = decompose(risk, k=1)
    assert not split.hessian.trace.exact
    scale = split.hessian.frobenius.value
    assert abs(split.residual.trace.value) <= 1e-12 * scale
    assert split.hessian.trace.value == pytest.approx(split.gauss_newton.trace.value, abs=1e-10)
    for mine, right in [(split.hessian, exact.hessian), (split.residual, exact.residual)]:
        gap = abs(mine.frobenius.value - right.frobenius.value)
        assert gap <= 5 * mine.frobenius.standard_error + 1e-9
        gap = abs(mine.trace.value - right.trace.value)
        assert gap <= 5 * mine.trace.standard_error + 1e-9
    assert abs(split.share.value - exact.share.value) <= 5 * split.share.standard_error + 1e-9


def test_smooth_activations_have_no_such_rule() -> None:
    split = decompose(risk_of_network(nn.Tanh, F.cross_entropy, SIZES), k=1)
    assert "tr R = 0" not in split.finding
    assert split.hessian.trace.value == pytest.approx(
        split.gauss_newton.trace.value + split.residual.trace.value
    )


def test_a_linear_model_has_no_residual_and_a_flat_loss_nothing() -> None:
    x, y = torch.randn(20, 3).double(), torch.randn(20, 2).double()
    model = nn.Linear(3, 2).double()
    assert decompose(EmpiricalRisk(model, F.mse_loss, (x, y))).finding.startswith("R = 0")
    flat = EmpiricalRisk(model, lambda o, t: 0 * o.sum(1), (x, y), reduction="mean")
    assert decompose(flat).finding.startswith("H = 0")
