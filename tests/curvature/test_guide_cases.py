"""Cases in which other tools raise, warn of nothing or give another number; the right values.

The first network is tanh 64-8-10 from seed 0 on 60 digits in batches of 25, 25 and 10.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import dense, digits, risk_of_network
from torch import Tensor, nn

from optiscope import EmpiricalRisk, problems
from optiscope.curvature import decompose, spectral_density, top_eigenpairs, trace
from optiscope.objective.risk import RiskError
from optiscope.problems.risk import risk_of


def first(**words: Any) -> EmpiricalRisk:
    return risk_of_network(sizes=(64, 8, 10), **words)


def test_uneven_batches_weigh_by_their_samples() -> None:
    """The mean of the batches' means would be off by far more than rounding."""
    right = float(torch.linalg.eigvalsh(dense(first(batches=(60,)).hessian()))[-1])
    for batches in ((25, 25, 10), (60,), (1, 59), (20, 20, 20)):
        pairs = top_eigenpairs(first(batches=batches).hessian(), k=1, tol=1e-9)
        assert pairs.value == pytest.approx(right, rel=1e-10)


def test_a_negative_trace_does_not_stop_the_probes() -> None:
    def minus(outputs: Tensor, targets: Tensor) -> Tensor:
        return -F.cross_entropy(outputs, targets)

    estimate = trace(first(loss=minus).hessian(), probes=40)
    low, high = estimate.interval
    right = -float(dense(first().hessian()).trace())
    assert right < -4
    assert float(trace(first(loss=minus).hessian(), probes=10_000)) == pytest.approx(right)
    assert low <= right <= high
    assert estimate.standard_error > 0
    assert estimate.cost.products == 40


def test_a_density_weighs_nodes_by_the_first_row() -> None:
    density = spectral_density(first().hessian(), probes=4, steps=20)
    for nodes, weights in zip(density.nodes, density.weights, strict=True):
        assert nodes.shape == weights.shape == (20,)
        assert not nodes.is_complex()
        assert float(weights.sum()) == pytest.approx(1)
    assert float(torch.trapezoid(density.density, density.grid)) == pytest.approx(1, abs=1e-3)


def test_dropout_is_off_one_mask_or_refused() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 10)).double()
    batch = digits(60)

    def value(**words: Any) -> float:
        return top_eigenpairs(EmpiricalRisk(model, F.cross_entropy, [batch], **words).hessian(),
                              k=1, tol=1e-8).value  # fmt: skip

    off, one = value(), value(dropout="fixed")
    assert (value(), value(dropout="fixed")) == (off, one)  # twice the same, in training mode
    assert one != pytest.approx(off, rel=1e-3)
    assert value(dropout="fixed", seed=1) != pytest.approx(one, rel=1e-3)
    with pytest.raises(RiskError, match="dropout"):
        value(dropout="refuse")


@pytest.mark.parametrize("kind", ["unused", "frozen"])
def test_what_the_loss_never_sees_has_zero_rows(kind: str) -> None:
    model = first().model
    if kind == "unused":
        model.register_parameter("unused", nn.Parameter(torch.ones(7, dtype=torch.float64)))
    else:
        model[0].bias.requires_grad_(False)
    risk = EmpiricalRisk(model, F.cross_entropy, [digits(60)])
    pairs = top_eigenpairs(risk.hessian(), k=3)
    assert pairs.converged.all()
    assert pairs.vectors is not None
    unseen = "unused" if kind == "unused" else "0.bias"
    image = risk.hessian() @ torch.ones(risk.size, dtype=torch.float64)
    assert not risk.unflatten(image)[unseen].any()
    assert float(risk.unflatten(pairs.vectors[0])[unseen].abs().max()) < 1e-9


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_batch_norm_is_in_the_stated_mode_whatever_the_models(
    training: bool, statistics: Any
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10)).double()
    x, y = digits(60)
    with torch.no_grad():
        model(x)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train(training)
    risk = EmpiricalRisk(model, F.cross_entropy, [(x, y)], batch_norm=statistics)
    value = top_eigenpairs(risk.hessian(), k=1, tol=1e-8).value
    assert value > 0
    assert all(torch.equal(before[name], v) for name, v in model.state_dict().items())
    assert all(module.training == training for module in model.modules())
    other = EmpiricalRisk(model.train(not training), F.cross_entropy, [(x, y)],
                          batch_norm=statistics)  # fmt: skip
    assert top_eigenpairs(other.hessian(), k=1, tol=1e-8).value == value


@pytest.mark.parametrize("name", ["digits_conv", "digits_attention"])
def test_where_linearize_under_vmap_fails(name: str) -> None:
    """Views of strides and fused attention; H v = G v + R v there as everywhere."""
    risk = risk_of(problems.get(name), "valid", samples=16)
    v = torch.linspace(-1, 1, risk.size)
    whole = risk.hessian() @ v
    parts = risk.gauss_newton() @ v + risk.residual() @ v
    assert float((whole - parts).norm()) <= 1e-4 * float(whole.norm())


def test_the_split_of_a_recurrent_network_adds_up() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells, self.output = nn.LSTM(4, 2, batch_first=True), nn.Linear(2, 10)

        def forward(self, images: Tensor) -> Tensor:
            out: Tensor = self.output(self.cells(images.view(-1, 2, 4))[0][:, -1])
            return out

    torch.manual_seed(0)
    x, y = digits(12, 8)
    split = decompose(EmpiricalRisk(Recurrent().double(), F.cross_entropy, [(x, y)]), k=1)
    assert split.hessian.trace.exact
    whole = split.gauss_newton.trace.value + split.residual.trace.value
    assert split.hessian.trace.value == pytest.approx(whole, rel=1e-9)
