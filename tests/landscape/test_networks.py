"""Paths, lines and basins of trained networks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from trained_networks import Solutions, everything_about, same

from optiscope import EmpiricalRisk, landscape
from optiscope.landscape.batch_norm import recomputed_statistics
from optiscope.landscape.ground import NotConvergedError, NotReproducedError
from optiscope.landscape.path import Path
from optiscope.objective.risk import RiskError
from optiscope.problems import digits
from optiscope.problems.risk import risk_of


@pytest.fixture(scope="module")
def grown(perceptrons: Solutions) -> Path:
    risk, (a, b, _) = perceptrons
    return landscape.connect(risk, a, b, gradients=400, points=61)


def test_two_seeds_of_a_perceptron_are_connected(perceptrons: Solutions, grown: Path) -> None:
    risk, (a, b, _) = perceptrons
    assert grown.barrier <= 0.005
    assert grown.cost.gradients <= 400
    assert grown.line_barrier > 0.2
    assert grown.barrier <= grown.line_barrier / 50
    assert torch.equal(grown.images[0], risk.flatten(a))
    assert torch.equal(grown.images[-1], risk.flatten(b))
    assert grown.ends_exact
    assert grown.losses[0] == pytest.approx(float(risk.value(a)), rel=1e-6)
    assert grown.losses[-1] == pytest.approx(float(risk.value(b)), rel=1e-6)
    assert grown.length > grown.straight_length
    assert f"{grown.barrier:.3g}" in grown.caption


@pytest.mark.slow
def test_two_seeds_are_connected_on_all_samples(perceptrons: Solutions) -> None:
    """Guide, bar 10."""
    risk, (a, b, _) = perceptrons
    path = landscape.connect(risk_of(digits.digits_mlp, model=risk.model), a, b)
    assert path.barrier <= 0.005
    assert path.cost.gradients <= 1000
    assert path.barrier <= path.line_barrier / 50


def test_matching_lowers_the_line(perceptrons: Solutions) -> None:
    """Guide, bar 11."""
    risk, (a, b, _) = perceptrons
    match = landscape.match_units(risk.model, a, b)
    before = landscape.line(risk, a, b, low=0.0, high=1.0, points=31)
    after = landscape.line(risk, a, match.state_dict, low=0.0, high=1.0, points=31)
    assert after.barrier <= before.barrier / 10
    assert match.distance < match.distance_before
    assert after.distance == pytest.approx(match.distance, rel=1e-6)
    assert after.losses[-1] == pytest.approx(float(before.losses[-1]), rel=1e-5)
    path = landscape.connect(risk, a, b, gradients=60, match=True, points=31)
    assert path.match is not None
    assert path.line_barrier == pytest.approx(after.barrier, abs=0.01)
    assert torch.equal(path.images[-1], risk.flatten(path.match.state_dict))


def test_a_line_goes_on_beyond_its_ends(perceptrons: Solutions) -> None:
    risk, (a, b, _) = perceptrons
    line = landscape.line(risk, a, b, points=13, others={"half": risk})
    assert line.coefficients[0] == -1.0
    assert line.coefficients[-1] == 2.0
    for coefficient, state in ((0.0, a), (1.0, b)):
        here = int((line.coefficients == coefficient).nonzero())
        assert float(line.losses[here]) == pytest.approx(float(risk.value(state)), rel=1e-6)
        assert line.accuracies is not None
        assert float(line.accuracies[here]) == pytest.approx(risk.evaluate(state)["accuracy"])
    assert torch.equal(line.others["half"].losses, line.losses)
    assert line.barrier == pytest.approx(float(line.losses[4:9].max() - line.losses[[4, 8]].max()))


def test_both_ends_are_on_a_line_whatever_its_points(perceptrons: Solutions) -> None:
    risk, (a, b, _) = perceptrons
    line = landscape.line(risk, a, b, low=-0.3, high=1.2, points=4)
    assert {0.0, 1.0} <= set(line.coefficients.tolist())
    assert sorted(line.coefficients.tolist()) == line.coefficients.tolist()


def test_statistics_are_recomputed_between_networks_with_batch_norm(
    residual_networks: Solutions,
) -> None:
    """Guide, trap 2: with stale statistics the barrier is nonsense."""
    risk, (a, b) = residual_networks
    line = landscape.line(risk, a, b, low=0.0, high=1.0, points=11)
    losses = line.losses.tolist()
    assert losses[0] == pytest.approx(float(risk.value(a)), rel=1e-6)
    assert losses[-1] == pytest.approx(float(risk.value(b)), rel=1e-6)
    stale = landscape.line(risk, a, b, low=0.0, high=1.0, points=11, statistics="keep")
    assert stale.losses[1] > 5 * losses[1]
    middle = risk.unflatten((risk.flatten(a) + risk.flatten(b)) / 2)
    oracle = copy.deepcopy(risk.model)
    oracle.load_state_dict(middle, strict=False)
    for module in oracle.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    oracle.train()
    batches = [each.batch for each in risk.passes(risk.leaves(risk.point()))]
    inputs = torch.cat([batch.args[0] for batch in batches])
    targets = torch.cat([batch.targets for batch in batches])
    with torch.no_grad():
        oracle(inputs)
        loss = nn.functional.cross_entropy(oracle.eval()(inputs), targets)
    assert losses[5] == pytest.approx(float(loss), rel=0.02)


def test_pooled_statistics_do_not_depend_on_the_batches_of_a_first_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    inputs, targets = torch.randn(50, 3), torch.randint(2, (50,))
    found = []
    for sizes in ((50,), (25, 25), (31, 19)):
        batches = list(zip(inputs.split(sizes), targets.split(sizes), strict=True))
        risk = EmpiricalRisk(model, nn.CrossEntropyLoss(), batches)
        found.append(recomputed_statistics(risk, risk.parameters))
    hidden = model[0](inputs).detach()
    for statistics in found:
        assert set(statistics) == {"1.running_mean", "1.running_var"}
        assert torch.allclose(statistics["1.running_mean"], hidden.mean(0), atol=1e-6)
        assert torch.allclose(statistics["1.running_var"], hidden.var(0), rtol=0.05)


@pytest.mark.slow
def test_a_path_between_networks_with_batch_norm(residual_networks: Solutions) -> None:
    risk, (a, b) = residual_networks
    path = landscape.connect(risk, a, b, gradients=50, points=11)
    assert path.losses[0] == pytest.approx(float(risk.value(a)), rel=1e-6)
    assert path.losses[-1] == pytest.approx(float(risk.value(b)), rel=1e-6)
    assert path.barrier < path.line_barrier / 3
    assert path.line_barrier > 1.0


def test_stale_statistics_are_refused(residual_networks: Solutions) -> None:
    """Guide, bar 14: the weights of one checkpoint with the statistics of another."""
    risk, (a, b) = residual_networks
    stale = {**a, **{k: v for k, v in b.items() if "running" in k}}
    for ask in (landscape.connect, landscape.line):
        with pytest.raises(NotReproducedError, match="statistics of the first"):
            ask(risk, stale, b)  # type: ignore[operator]
    with pytest.raises(NotReproducedError, match="statistics of solution 1"):
        landscape.same_basin(
            risk, [a, {**b, **{k: a[k] for k in a if "running" in k}}], tolerance=1
        )
    without = {k: v for k, v in a.items() if "running" not in k}
    with pytest.raises(NotReproducedError, match="running statistics"):
        landscape.connect(risk, without, b)


def test_ends_that_the_risk_cannot_reach_are_refused(perceptrons: Solutions) -> None:
    """A risk of one layer holds the others at the model's values, not the checkpoint's."""
    risk, (a, b, _) = perceptrons
    with pytest.raises(NotReproducedError, match="checkpoint's loss"):
        landscape.connect(risk.restrict("5"), a, b)
    with pytest.raises(RiskError, match="of shape"):
        landscape.connect(risk, {**a, "1.weight": a["1.weight"][:5]}, b)


def test_ends_that_are_not_converged_are_refused(perceptrons: Solutions) -> None:
    """Guide, trap 1 and bar 14."""
    risk, (a, *_) = perceptrons
    torch.manual_seed(9)
    start = {k: v + 0.2 * torch.randn_like(v) for k, v in a.items()}
    with pytest.raises(NotConvergedError, match=r"second end .* require_converged=False"):
        landscape.connect(risk, a, start)
    with pytest.raises(NotConvergedError, match=r"solution 1 .* raise the tolerance"):
        landscape.same_basin(risk, [a, start], tolerance=0.01)
    path = landscape.connect(risk, a, start, gradients=40, points=21, require_converged=False)
    assert path.ends[1].fall > path.ends[0].fall


def test_solutions_of_a_perceptron_share_a_basin(perceptrons: Solutions) -> None:
    risk, solutions = perceptrons
    told: list[tuple[int, int]] = []
    result = landscape.same_basin(
        risk,
        solutions,
        tolerance=0.05,
        gradients=100,
        points=15,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert result.same
    assert result.basins == ((0, 1, 2),)
    assert result.verdict.startswith("same basin: 3 solutions")
    assert "0.05" in result.verdict
    assert torch.equal(result.barriers, result.barriers.T)
    assert result.barriers.diagonal().tolist() == [0.0] * 3
    assert len(result.tree) == 2
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert result.line_barriers[0, 1] > 0.2
    assert result.cost.gradients <= 3 * 100 + 60 + 6


def calls(risk: EmpiricalRisk, a: Any, b: Any) -> dict[str, Callable[[], object]]:
    return {
        "line": lambda: landscape.line(risk, a, b, points=3),
        "connect": lambda: landscape.connect(risk, a, b, gradients=6, points=5),
        "match": lambda: landscape.match_units(risk.model, a, b),
        "same_basin": lambda: landscape.same_basin(
            risk, [a, b], tolerance=10.0, gradients=4, points=3
        ),
    }


@pytest.mark.parametrize("name", ["line", "connect", "match", "same_basin"])
@pytest.mark.parametrize("kind", ["perceptrons", "residual_networks"])
def test_nothing_is_changed(name: str, kind: str, request: pytest.FixtureRequest) -> None:
    """Guide, bar 12."""
    risk, solutions = request.getfixturevalue(kind)
    risk.model.train()
    for p in risk.model.parameters():
        p.grad = torch.full_like(p, 0.5)
    before = everything_about(risk)
    calls(risk, *solutions[:2])[name]()
    assert same(before, everything_about(risk))


@pytest.mark.parametrize("name", ["line", "connect", "same_basin"])
def test_nothing_is_changed_when_a_call_raises(
    name: str, residual_networks: Solutions, monkeypatch: pytest.MonkeyPatch
) -> None:
    risk, (a, b) = residual_networks
    counted = 0
    forward = type(risk.model).forward

    def failing(self: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        nonlocal counted
        counted += 1
        if counted == 12:
            raise RuntimeError("in the middle")
        return forward(self, inputs)

    before = everything_about(risk)
    monkeypatch.setattr(type(risk.model), "forward", failing)
    with pytest.raises(RuntimeError, match="in the middle"):
        calls(risk, a, b)[name]()
    monkeypatch.undo()
    assert same(before, everything_about(risk))
