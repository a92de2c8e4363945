"""Curvature as an instrument: right numbers, at its cadence, without a trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from optiscope import EmpiricalRisk
from optiscope.errors import OptiscopeError
from optiscope.monitor.curvature import CurvatureInstrument
from optiscope.monitor.instrument import StepView


def test_figures_of_a_quadratic_and_the_cadence() -> None:
    torch.manual_seed(0)
    x = (torch.randn(64, 6) * torch.tensor([3.0, 2, 1, 1, 1, 1])).double()
    y = torch.randn(64).double()
    model = nn.Linear(6, 1, bias=False).double()

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs.squeeze(1) - targets).square().mean() / 2

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    risk = EmpiricalRisk(model, loss, (x, y))
    hessian = x.T @ x / 64
    values = torch.linalg.eigvalsh(hessian).flip(0)
    instrument = CurvatureInstrument(every=3, k=2, probes=10, tol=1e-6)
    for step in range(1, 8):
        before = [p.detach().clone() for p in model.parameters()], torch.get_rng_state()
        view = StepView(step, 0.0, loss(model(x), y), x, y, model, optimizer,
                        list(model.parameters()), make_risk=lambda: risk)  # fmt: skip
        figures = instrument.on_step(view)
        assert torch.equal(before[0][0], next(model.parameters()))
        assert torch.equal(before[1], torch.get_rng_state())
        assert next(model.parameters()).grad is None
        assert (figures is None) == (step not in (1, 4, 7))
    assert figures is not None
    assert figures["top_1"] == pytest.approx(float(values[0]))
    assert figures["top_2"] == pytest.approx(float(values[1]))
    assert figures["trace"] == pytest.approx(float(hessian.trace()))  # ten probes of six rows
    assert figures["trace_error"] == 0
    assert figures["sharpness_ratio"] == pytest.approx(float(values[0]) * 0.05)
    vectors = torch.linalg.eigh(hessian)[1][:, -2:]
    gradient = risk.gradient()
    share = float((vectors.T @ gradient).square().sum() / gradient.square().sum())
    assert figures["gradient_share"] == pytest.approx(share)
    assert figures["gradients"] > 1
    with pytest.raises(OptiscopeError, match="probes"):
        CurvatureInstrument(probes=1)


def test_in_a_run_its_numbers_are_recorded() -> None:
    from optiscope import run

    result = run("digits_logreg", "sgd", hyperparameters={"lr": 0.1}, epochs=1,
                 instruments=[CurvatureInstrument(every=20, k=1, probes=0)])  # fmt: skip
    rows = [m for m in result.metrics if m.split == "curvature"]
    assert {m.name for m in rows} >= {"top_1", "gradient_share", "sharpness_ratio"}
    assert len({m.step for m in rows}) >= 1
