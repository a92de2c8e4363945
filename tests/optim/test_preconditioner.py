"""The preconditioner as an optimizer: against its dense reference, driven each way, and saved."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_network import F64, SMALL, batches, closure_for, net, run, weights
from torch import Tensor, nn
from torch.nn import functional

from optiscope.optim.preconditioner.optimizer import Preconditioner
from optiscope.optim.preconditioner.variants import (
    AdaptiveSGD,
    OnlyAdaptiveSGD,
    PreconditionedSGD,
    PreconditionedTunedMomentum,
    PreconditionedTunedSGD,
)
from reference.preconditioner import DensePreconditioner

VARIANTS = [
    PreconditionedSGD,
    AdaptiveSGD,
    OnlyAdaptiveSGD,
    lambda p, **k: PreconditionedTunedSGD(p, lr=0.05, **k),
    lambda p, **k: PreconditionedTunedMomentum(p, lr=0.02, **k),
]


@pytest.mark.parametrize("preconditions", [True, False])
def test_fifty_steps_equal_the_dense_reference(preconditions: bool) -> None:
    n, steps = 12, 50
    g = torch.Generator().manual_seed(5)
    q = torch.linalg.qr(torch.randn(n, n, generator=g, dtype=F64)).Q
    spectrum = torch.logspace(0.3, -1, n, dtype=F64)
    w = torch.randn(n, generator=g, dtype=F64).requires_grad_()
    make = PreconditionedSGD if preconditions else AdaptiveSGD
    opt = make([w], 3, 6, 5, check_every=0)
    dense = DensePreconditioner(w.detach().clone(), 3, 6, 5, preconditions)
    for t in range(steps):
        if t == 24:
            opt.start_estimate()
            dense.restart()
        noise = 0.02 * torch.randn(n, n, generator=g, dtype=F64)
        hessian = q @ (spectrum.unsqueeze(1) * q.mT) + noise @ noise.mT
        shift = 0.05 * torch.randn(n, generator=g, dtype=F64)
        loss = 0.5 * w @ hessian @ w + shift @ w
        opt.zero_grad()
        opt.backward(loss)
        dense.step(hessian @ dense.weights + shift, hessian)
        opt.step()
        torch.testing.assert_close(w.detach(), dense.weights, rtol=1e-8, atol=1e-10)
    assert opt.get_log()["estimates"] == dense.estimates == 2
    assert opt.get_log()["step_size"] == pytest.approx([dense.rate], rel=1e-8)


@pytest.mark.parametrize("make", VARIANTS)
def test_all_ways_of_driving_give_the_same_weights(make: Callable[..., Preconditioner]) -> None:
    expected, _ = run(make, hessian="exact")
    near, opt = run(make, hessian="difference")
    torch.testing.assert_close(near, expected, rtol=1e-3, atol=1e-5)
    for create_graph in (False, True):
        model = net()
        opt = make(model.parameters(), **SMALL)
        for x, y in batches(25):
            loss = functional.cross_entropy(model(x), y)
            opt.zero_grad()
            if create_graph:
                loss.backward(create_graph=True)
            else:
                opt.backward(loss)
            opt.step()
        torch.testing.assert_close(weights(model), expected, rtol=1e-9, atol=1e-11)


def test_a_plain_backward_is_explained_where_curvature_is_needed() -> None:
    model = net()
    opt = PreconditionedSGD(model.parameters(), **SMALL)
    model(batches(1)[0][0]).square().mean().backward()
    with pytest.raises(RuntimeError, match=r"opt\.backward\(loss\)"):
        opt.step()


def test_the_graph_is_kept_in_estimation_steps_only() -> None:
    model = net()
    opt = PreconditionedSGD(model.parameters(), **SMALL, check_every=0)
    products = []
    for x, y in batches(20):
        opt.zero_grad()
        opt.backward(functional.cross_entropy(model(x), y))
        assert not any(p.grad is not None and p.grad.requires_grad for p in model.parameters())
        opt.step()
        products.append(opt.get_log()["hessian_products"])
    assert products == [*range(1, 12), *[11] * 9]


class PublishedAdaptiveSGD(Preconditioner):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, optim_class=torch.optim.SGD, **kwargs)

    def _apply_preconditioner(self):
        return


class PublishedOnlyAdaptiveSGD(PublishedAdaptiveSGD):
    def _setup_estimated_hessian(self):
        return

    def _apply_estimated_inverse(self):
        return

    def _hessian_vector_product(self):
        return

    def _update_estimated_hessian(self):
        return

    def _create_low_rank(self):
        return


@pytest.mark.parametrize(
    ("published", "ours"),
    [(PublishedAdaptiveSGD, AdaptiveSGD), (PublishedOnlyAdaptiveSGD, OnlyAdaptiveSGD)],
)
def test_published_subclasses_work_unchanged(published: Any, ours: Any) -> None:
    found, opt = run(published)
    expected, ours_opt = run(ours)
    assert torch.equal(found, expected)
    assert opt.get_log()["step_size"] == ours_opt.get_log()["step_size"]


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("make", [PreconditionedSGD, AdaptiveSGD, OnlyAdaptiveSGD])
def test_the_loss_scale_does_not_matter(make: Any, scale: float) -> None:
    expected, reference = run(make, hessian="exact")
    found, opt = run(make, scale=scale, hessian="exact")
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    rate, reference_rate = opt.get_log()["step_size"][0], reference.get_log()["step_size"][0]
    assert rate * scale == pytest.approx(reference_rate, rel=1e-7)


@pytest.mark.parametrize("stop", [2, 4, 6, 9, 12, 15])
@pytest.mark.parametrize("hessian", ["exact", "difference"])
def test_resumes_bit_for_bit_in_any_phase(stop: int, hessian: str) -> None:
    settings = {**SMALL, "hessian": hessian, "estimate_every": 14, "momentum": 0.5}
    data = batches(24)

    def steps(model: nn.Module, opt: Preconditioner, part: list[tuple[Tensor, Tensor]]) -> None:
        for batch in part:
            opt.step(closure_for(model, opt, batch))

    model = net()
    opt = Preconditioner(model.parameters(), **settings)
    steps(model, opt, data)

    first = net()
    saving = Preconditioner(first.parameters(), **settings)
    steps(first, saving, data[:stop])
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "opt": saving.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    second = net(seed=1)
    resumed = Preconditioner(second.parameters(), **settings)
    second.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["opt"])
    steps(second, resumed, data[stop:])
    assert torch.equal(weights(second), weights(model))
    assert resumed.get_log() == opt.get_log()


@pytest.mark.parametrize("how", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_and_pickles_go_on_alone(how: Callable[[Any], Any]) -> None:
    model = net()
    opt = PreconditionedSGD(model.parameters(), **SMALL)
    data = batches(14)
    for batch in data[:6]:
        opt.step(closure_for(model, opt, batch))
    other_model, other = how((model, opt))
    for batch in data[6:]:
        opt.step(closure_for(model, opt, batch))
        other.step(closure_for(other_model, other, batch))
    assert torch.equal(weights(other_model), weights(model))


def test_groups_have_their_own_rates_and_settings() -> None:
    model = net()
    layers = [model[0], model[2]]
    opt = PreconditionedSGD(
        [
            {"params": layers[0].parameters(), "lr_scale": 0.5, "momentum": 0.9},
            {"params": layers[1].parameters(), "weight_decay": 0.1},
        ],
        **SMALL,
    )
    for batch in batches(12):
        opt.step(closure_for(model, opt, batch))
    low, high = opt.get_log()["step_size"]
    assert low == pytest.approx(high / 2)
    assert [g["momentum"] for g in opt.param_groups] == [0.9, 0]


def test_weight_decay_is_part_of_the_objective() -> None:
    def with_term(decay: float, term: float) -> Tensor:
        model = net()
        opt = PreconditionedSGD(model.parameters(), **SMALL, weight_decay=decay, hessian="exact")
        for x, y in batches(20):
            opt.zero_grad()
            squares = sum(p.square().sum() for p in model.parameters())
            opt.backward(functional.cross_entropy(model(x), y) + 0.5 * term * squares)
            opt.step()
        return weights(model)

    torch.testing.assert_close(with_term(0.3, 0.0), with_term(0.0, 0.3), rtol=1e-8, atol=1e-10)


def test_schedulers_scale_the_constructed_rate() -> None:
    model = net()
    opt = AdaptiveSGD(model.parameters(), **SMALL, check_every=0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(opt, lambda t: 0.5**t)
    rates = []
    for batch in batches(10):
        opt.step(closure_for(model, opt, batch))
        rates.append(opt.get_log()["step_size"][0])
        scheduler.step()
    assert rates[-1] == pytest.approx(rates[-2] / 2)


def test_cycled_momentum_reaches_the_inner_optimizer() -> None:
    model = net()
    opt = AdaptiveSGD(model.parameters(), **SMALL, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=1.0, total_steps=20)
    for batch in batches(12):
        opt.step(closure_for(model, opt, batch))
        scheduler.step()
    inner = opt._inner.optimizer
    assert inner is not None
    assert inner.param_groups[0]["momentum"] != 0.9


def test_the_first_rate_holds_until_the_second_estimate() -> None:
    model = net()
    opt = AdaptiveSGD(model.parameters(), **SMALL, lr=0.01, estimate_every=10, check_every=0)
    rates = []
    for batch in batches(20):
        opt.step(closure_for(model, opt, batch))
        rates.append(opt.get_log()["step_size"][0])
    assert rates[:16] == [0.01] * 16
    assert rates[-1] != 0.01


def test_any_inner_optimizer_gets_the_preconditioned_gradient() -> None:
    for inner in (torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop):
        model = net()
        opt = Preconditioner(model.parameters(), **SMALL, optim_class=inner)
        for batch in batches(10):
            opt.step(closure_for(model, opt, batch))
        assert bool(weights(model).isfinite().all())


def test_added_groups_are_estimated_anew() -> None:
    model = net()
    opt = PreconditionedSGD(model[0].parameters(), **SMALL)
    data = batches(30)
    for batch in data[:10]:
        opt.step(closure_for(model, opt, batch))
    opt.add_param_group({"params": model[2].parameters()})
    assert opt.get_log()["phase"] == "prior"
    before = model[2].weight.detach().clone()
    for batch in data[10:]:
        opt.step(closure_for(model, opt, batch))
    assert opt.get_log()["phase"] == "ready"
    assert not torch.equal(model[2].weight, before)


def test_parameters_without_gradient_stay() -> None:
    model = net()
    idle = nn.Parameter(torch.ones(3, dtype=F64))
    opt = PreconditionedSGD([*model.parameters(), idle], **SMALL, weight_decay=0.1)
    for batch in batches(12):
        opt.step(closure_for(model, opt, batch))
    assert torch.equal(idle, torch.ones(3, dtype=F64))


def test_more_batches_than_an_epoch_are_no_obstacle() -> None:
    model = net()
    opt = AdaptiveSGD(model.parameters())  # 15 batches an estimation, 4 an epoch
    data = batches(4)
    with torch.no_grad():
        first = float(functional.cross_entropy(model(data[0][0]), data[0][1]))
    for _ in range(40):
        opt.start_estimate()
        for batch in data:
            opt.step(closure_for(model, opt, batch))
    assert opt.get_log()["estimates"] >= 8
    with torch.no_grad():
        assert float(functional.cross_entropy(model(data[0][0]), data[0][1])) < first


def test_a_wrong_estimate_is_rejected_and_renewed() -> None:
    w = torch.tensor([1.0, 1.0, 1.0], requires_grad=True)
    opt = PreconditionedSGD([w], 2, 3, 4, check_every=10)
    curvature = torch.tensor([10.0, 3.0, 1.0])
    g = torch.Generator().manual_seed(0)
    logs = []
    for t in range(60):
        if t == 30:
            curvature = torch.tensor([40.0, 3.0, 1.0])
        noise = 0.01 * torch.randn(3, generator=g)
        opt.zero_grad()
        opt.backward(0.5 * (curvature * w.square()).sum() + (w * noise).sum())
        opt.step()
        logs.append(opt.get_log())
    assert logs[29]["estimates"] == 1
    assert logs[-1]["estimates"] >= 2
    assert logs[-1]["eigenvalues"][0][0] == pytest.approx(40, rel=0.01)


def test_a_step_that_has_become_too_long_is_shortened() -> None:
    w = torch.tensor([1.0, 1.0], requires_grad=True)
    opt = OnlyAdaptiveSGD([w], prior_iterations=3)
    factor = 1.0
    for t in range(40):
        if t == 12:
            factor = 1000.0
        opt.zero_grad()
        opt.backward(0.5 * factor * (torch.tensor([2.0, 1.0]) * w.square()).sum())
        opt.step()
    assert float(w.detach().norm()) < 1
    assert opt.get_log()["step_size"][0] <= 1e-3


def test_non_finite_batches_are_left_out_and_hopeless_training_stops() -> None:
    model = net()
    opt = PreconditionedSGD(model.parameters(), **SMALL)
    x, y = batches(1)[0]
    for t in range(30):
        bad = t in (1, 5, 12)
        batch = (x * float("nan"), y) if bad else (x, y)
        before = weights(model)
        if bad:
            with pytest.warns(RuntimeWarning, match="non-finite") as warned:
                opt.step(closure_for(model, opt, batch))
            assert warned[0].filename == __file__
            assert torch.equal(weights(model), before)
        else:
            opt.step(closure_for(model, opt, batch))
    log = opt.get_log()
    assert log["skipped_batches"] == 3
    assert log["phase"] == "ready"
    broken = closure_for(model, opt, (x * float("inf"), y))
    with pytest.warns(RuntimeWarning, match="non-finite"):
        opt.step(broken)
    for _ in range(8):
        opt.step(broken)
    with pytest.raises(FloatingPointError, match="10 batches in a row"):
        opt.step(broken)


@pytest.mark.parametrize("kind", ["linear", "zero", "negative"])
def test_degenerate_losses_give_positive_finite_rates(kind: str) -> None:
    w = torch.ones(5, requires_grad=True)
    opt = PreconditionedSGD([w], **SMALL)
    for _ in range(30):

        def closure() -> Tensor:
            opt.zero_grad()
            value = {"linear": w.sum(), "zero": 0 * w.sum(), "negative": -w.square().sum()}[kind]
            value.backward()
            return value

        opt.step(closure)
    assert bool(w.isfinite().all())
    assert all(0 <= r < 1e3 for r in opt.get_log()["step_size"])


def test_the_log_says_what_a_person_wants_to_see() -> None:
    _, opt = run(PreconditionedSGD)
    log = opt.get_log()
    assert log["phase"] == "ready"
    assert log["age"] == 14
    assert log["estimates"] == 1
    assert all(low <= value <= high for value, low, high in log["eigenvalues"])
    assert log["step_size"][0] > 0
    assert log["prior_mean"] > 0
    assert log["hessian_products"] >= 11


def test_memory_outside_estimation_is_rank_plus_one_vectors() -> None:
    model = nn.Linear(100, 100)
    opt = PreconditionedSGD(model.parameters(), **SMALL)
    x = torch.randn(16, 100)
    for _ in range(14):
        opt.zero_grad()
        opt.backward(model(x).square().mean())
        opt.step()
    state = opt.state_dict()
    assert state["estimate"]["phase"] == "ready"
    held = [v for v in state["estimate"].values() if isinstance(v, Tensor)]
    numbers = sum(v.untyped_storage().nbytes() / 4 for v in held)
    assert numbers <= (SMALL["est_rank"] + 1) * 10_100 + 100


def test_a_rate_is_lowered_by_the_first_product_that_is_too_large_for_it() -> None:
    w = torch.nn.Parameter(torch.randn(6, dtype=torch.float64))
    scales = 0.5 + torch.rand(6, dtype=torch.float64)
    opt = PreconditionedSGD([w], prior_iterations=3, num_observations=4)
    lengths = []
    for step in range(30):
        curvature = 0.1 if step < 3 else 100.0  # sharpness that rises while observing
        opt.zero_grad()
        loss = curvature * (scales * w.square()).sum() / 2
        opt.backward(loss)
        opt.step()
        lengths.append(float(w.detach().norm()))
        if step == 2:
            assert opt.get_log()["step_size"][0] > 5
        if step == 3:
            assert opt.get_log()["step_size"][0] <= 1 / (50 * 0.5)
            assert "rate lowered" in opt.get_log()["note"]
    assert lengths[-1] < lengths[3]
