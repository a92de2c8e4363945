"""Spread of activations and gradients against autograd and against the theory of variances."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from optiscope.data.samples import Batch
from optiscope.problems import get
from optiscope.problems.initialisation import initialise
from optiscope.problems.losses import cross_entropy, squared_error
from optiscope.problems.model_summary import model_summary
from optiscope.problems.signal_spread import signal_spread


def _deep(width: int, depth: int, activation: type[nn.Module]) -> nn.Sequential:
    layers = [layer for _ in range(depth) for layer in (nn.Linear(width, width), activation())]
    return nn.Sequential(*layers)


def test_spread_is_that_of_dense_autograd() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    batch = Batch(torch.randn(20, 6).double(), torch.randint(3, (20,)))
    first, active, last = signal_spread(model, cross_entropy, batch)
    hidden = model[0](batch.inputs)
    relu = hidden.relu()
    logits = model[2](relu)
    losses = cross_entropy(logits, batch.targets)
    by_hidden, by_relu, by_logits = torch.autograd.grad(
        losses.sum(), (hidden, relu, logits), retain_graph=True
    )
    by_weight = torch.autograd.grad(losses.mean(), model[0].weight)[0]
    for spread, values, gradient in (
        (first, hidden, by_hidden),
        (active, relu, by_relu),
        (last, logits, by_logits),
    ):
        assert spread.mean == pytest.approx(values.mean().item())
        assert spread.std == pytest.approx(values.std(correction=0).item())
        assert spread.zeros == (values == 0).double().mean().item()
        assert spread.gradient == pytest.approx(gradient.square().mean().sqrt().item())
    assert first.weight_gradient == pytest.approx(by_weight.square().mean().sqrt().item())
    assert active.weight_gradient is None
    assert [s.name for s in (first, active, last)] == ["0", "1", "2"]


def test_the_model_and_the_global_generator_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.random.get_rng_state()
    batch = Batch(torch.zeros(8, 4), torch.zeros(8, 2))
    spreads = signal_spread(model.eval(), squared_error, batch)
    assert [s.kind for s in spreads] == ["Linear", "BatchNorm1d", "Linear"]
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def _random_direction(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """A loss whose gradient by the outputs does not depend on them, as the theory assumes."""
    return (outputs * targets).sum(1)


# Factor on the second moment of activations from one linear layer to the next, by the theory.
FACTORS = [
    (nn.ReLU, {"name": "he_normal"}, 1.0),  # He et al. 2015
    (nn.ReLU, {"name": "glorot_normal"}, 0.5),
    (nn.Identity, {"name": "glorot_uniform"}, 1.0),
    (nn.Identity, {"name": "orthogonal"}, 1.0),
    (nn.Identity, {"name": "uniform"}, 1 / 3),
    (nn.Identity, {"name": "sparse", "nonzero": 15, "std": 15**-0.5}, 1.0),
]


@pytest.mark.parametrize(("activation", "rule", "factor"), FACTORS)
def test_variance_from_layer_to_layer(
    activation: type[nn.Module], rule: dict[str, object], factor: float
) -> None:
    model = _deep(400, 6, activation)
    initialise(model, rule, generator=torch.Generator().manual_seed(0))
    batch = Batch(torch.randn(200, 400), torch.randn(200, 400))
    spreads = [s for s in signal_spread(model, _random_direction, batch) if s.kind == "Linear"]
    assert len(spreads) == 6
    second = [s.std**2 + s.mean**2 for s in spreads]
    assert (second[-1] / second[0]) ** (1 / 5) == pytest.approx(factor, rel=0.08)
    gradients = [s.gradient**2 for s in spreads if s.gradient is not None]
    assert (gradients[0] / gradients[-1]) ** (1 / 5) == pytest.approx(factor, rel=0.12)


def test_calls_of_a_recurrent_layer_are_summed_up() -> None:
    problem = get("digits_rnn")
    torch.manual_seed(0)
    model = problem.make_model()
    data = problem.data(None).train
    spreads = {s.name: s for s in signal_spread(model, problem.loss, data.select(torch.arange(64)))}
    assert set(spreads) == {"read", "recur", "output"}
    assert all(math.isfinite(s.gradient or math.nan) for s in spreads.values())


def test_summary_of_a_convolutional_model() -> None:
    model = get("digits_conv").make_model()
    rows = model_summary(model, torch.zeros(2, 1, 8, 8))
    assert sum(row.parameters for row in rows) == get("digits_conv").parameters
    assert rows[0].kind == "SameConv2d(1, 16, 3×3)"
    assert rows[0].output_shape == (16, 8, 8)
    assert rows[0].parameters == 16 * 9 + 16
    assert rows[0].weight_std == pytest.approx(model[0].weight.std(correction=0).item())
    assert rows[1].parameters == 0
    assert rows[-1].output_shape == (10,)


def test_summary_counts_calls_parameters_of_its_own_and_shared_ones_once() -> None:
    rnn = {
        row.name: row
        for row in model_summary(get("digits_rnn").make_model(), torch.zeros(2, 1, 8, 8))
    }
    assert rnn["recur"].calls == 7
    attention = get("digits_attention").make_model()
    rows = {row.name: row for row in model_summary(attention, torch.zeros(2, 1, 8, 8))}
    assert rows["position"].output_shape is None, "its weight is read without a call"
    assert sum(row.parameters for row in rows.values()) == get("digits_attention").parameters
    tied = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    tied[1].weight = tied[0].weight
    assert [row.parameters for row in model_summary(tied)] == [16, 0]
    (surface,) = model_summary(get("two_d_beale").make_model(), torch.zeros(2, 2))
    assert (surface.name, surface.parameters, surface.output_shape) == ("", 2, ())


def test_summary_of_a_layer_with_several_outputs() -> None:
    model = nn.Sequential(nn.LSTM(5, 6, 2, batch_first=True))
    (row,) = model_summary(model, torch.zeros(3, 7, 5))
    assert row.output_shape == (7, 6)
    assert row.kind == "LSTM(5, 6, 2 layers)"
