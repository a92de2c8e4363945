"""The empirical risk against dense float64 autograd, and what it leaves untouched."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

from optiscope import EmpiricalRisk
from optiscope.objective import FlatParameters, graph_product
from optiscope.objective.evaluation import second_order_backward
from optiscope.objective.risk import RandomLossError, RiskError
from optiscope.objective.selection import SelectionError


def dense(model: nn.Module, loss: Any, x: Any, y: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Value, gradient [N] and Hessian [N, N] of the loss on all samples at once."""
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for _, p in model.named_parameters()]
    sizes = [p.numel() for p in model.parameters()]

    def risk(theta: Tensor) -> Tensor:
        pieces = [t.view(s) for t, s in zip(theta.split(sizes), shapes, strict=True)]
        return loss(functional_call(model, dict(zip(names, pieces, strict=True)), (x,)), y)

    theta = torch.cat([p.detach().flatten() for p in model.parameters()])
    theta.requires_grad_()
    value = risk(theta)
    (gradient,) = torch.autograd.grad(value, theta)
    return value.detach(), gradient, torch.autograd.functional.hessian(risk, theta.detach())


def materialized(operator: Any) -> Tensor:
    return operator @ torch.eye(operator.size, dtype=operator.dtype)


def mlp(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 2, padding=1), nn.ELU(), nn.Flatten(),
        nn.Linear(18, 3),
    ).double()  # fmt: skip


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(1, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(x.unsqueeze(-1))
        return self.out(self.attention(h, h, h, need_weights=False)[0].mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(1, 3, batch_first=True)
        self.out = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x.unsqueeze(-1))[0][:, -1])


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Linear(4, 3)
        self.b = nn.Linear(4, 3)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x).tanh() + self.b(x)


def weight_normalized() -> nn.Module:
    torch.manual_seed(0)
    first, second = nn.Linear(4, 5), nn.Linear(5, 3)
    torch.nn.utils.parametrizations.weight_norm(first)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old form, by a hook
        torch.nn.utils.weight_norm(second)
    return nn.Sequential(first, nn.Tanh(), second).double()


@pytest.mark.parametrize("kind", ["risk", "closure"])
def test_weight_norm_has_the_hessian_of_finite_differences(kind: str) -> None:
    """torch's fused kernel has another one, which is not symmetric."""
    x, y = CASES["mlp"].data()
    model = weight_normalized()
    risk = EmpiricalRisk(model, F.cross_entropy, divided(x, y, (10, 13)))
    theta, h = risk.parameters, 1e-5
    differences = torch.stack([
        (risk.gradient(theta + h * e) - risk.gradient(theta - h * e)) / (2 * h)
        for e in torch.eye(risk.size).double()
    ])  # fmt: skip
    if kind == "risk":
        hessian = materialized(risk.hessian())
    else:
        flat = FlatParameters.of(model.parameters())
        with second_order_backward():
            F.cross_entropy(model(x), y).backward()
        gradients = [p.grad for p in model.parameters()]
        hessian = torch.stack(
            [graph_product(gradients, flat, e) for e in torch.eye(flat.size).double()]
        )
    torch.testing.assert_close(hessian, differences, rtol=1e-6, atol=1e-7)


def normalized() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).double()
    model(torch.randn(20, 4, dtype=torch.float64))
    return model.eval()


@dataclass
class Case:
    model: Callable[[], nn.Module]
    loss: Callable[..., Tensor]
    targets: str = "classes"

    def data(self, n: int = 23) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(n, 4, generator=generator, dtype=torch.float64)
        if self.targets == "classes":
            return x, torch.randint(3, (n,), generator=generator)
        if self.targets == "signs":
            return x, torch.randint(2, (n, 3), generator=generator).double() * 2 - 1
        return x, torch.randn(n, 3, generator=generator, dtype=torch.float64)


def hinge(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.relu(1 - targets * outputs).mean()


def squared_hinge(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.relu(1 - targets * outputs).square().mean()


CASES = {
    "mlp": Case(mlp, F.cross_entropy),
    "mlp, squared error": Case(mlp, nn.MSELoss(), "values"),
    "mlp, hinge": Case(mlp, hinge, "signs"),
    "mlp, squared hinge": Case(mlp, squared_hinge, "signs"),
    "convolution": Case(convolutional, F.cross_entropy),
    "attention": Case(lambda: Attention().double(), F.cross_entropy),
    "lstm": Case(lambda: Recurrent().double(), F.cross_entropy),
    "tied": Case(lambda: Tied().double(), F.cross_entropy),
    "batch norm": Case(normalized, F.cross_entropy),
}
DIVISIONS = [(23,), (10, 10, 3), (1, 22), (7, 5, 4, 7)]


def divided(x: Tensor, y: Tensor, sizes: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split(list(sizes)), y.split(list(sizes)), strict=True))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")
def test_everything_equals_dense_autograd(name: str) -> None:
    case = CASES[name]
    model, (x, y) = case.model(), case.data()
    with (
        torch.backends.mkldnn.flags(enabled=False),
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        value, gradient, hessian = dense(model, case.loss, x, y)
    risk = EmpiricalRisk(model, case.loss, divided(x, y, (10, 10, 3)))
    assert risk.size == len(gradient)
    assert risk.samples == 23
    torch.testing.assert_close(risk.value(), value, rtol=1e-12, atol=0)
    torch.testing.assert_close(risk.gradient(), gradient, rtol=1e-10, atol=1e-14)
    h = materialized(risk.hessian())
    torch.testing.assert_close(h, hessian, rtol=1e-10, atol=1e-13)
    g, r = materialized(risk.gauss_newton()), materialized(risk.residual())
    torch.testing.assert_close(g + r, hessian, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(g, g.T, rtol=1e-10, atol=1e-13)
    assert float(torch.linalg.eigvalsh(g)[0]) > -1e-12
    rows = risk.per_sample_gradients()
    torch.testing.assert_close(rows.mean(0), gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ["mlp", "mlp, squared error", "batch norm", "convolution"])
@pytest.mark.filterwarnings("ignore")
def test_the_gauss_newton_matrix_is_curvlinops_one(name: str) -> None:
    curvlinops = pytest.importorskip("curvlinops")
    case = CASES[name]
    model, (x, y) = case.model(), case.data()
    loss = nn.CrossEntropyLoss() if case.targets == "classes" else nn.MSELoss()
    batches = divided(x, y, (10, 10, 3))
    theirs = curvlinops.GGNLinearOperator(
        model, loss, list(model.parameters()), batches, check_deterministic=False
    )
    right = torch.as_tensor(theirs @ torch.eye(theirs.shape[1], dtype=torch.float64))
    ours = materialized(EmpiricalRisk(model, loss, batches).gauss_newton())
    torch.testing.assert_close(ours, right, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("memory", [None, 0, 30_000])
def test_any_division_and_any_memory_give_the_same(name: str, memory: int | None) -> None:
    case = CASES[name]
    model, (x, y) = case.model(), case.data()
    results = []
    for sizes in DIVISIONS:
        risk = EmpiricalRisk(model, case.loss, divided(x, y, sizes), graph_memory=memory)
        v = torch.linspace(-1, 1, risk.size, dtype=torch.float64)
        products = [op @ v for op in (risk.hessian(), risk.gauss_newton(), risk.residual())]
        again = risk.hessian()
        assert torch.equal(again @ v, again @ v)
        results.append([risk.value(), risk.gradient(), *products])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


def test_a_kept_product_is_computed_without_the_model() -> None:
    case = CASES["mlp"]
    calls = []
    model = case.model()
    risk = EmpiricalRisk(model, case.loss, divided(*case.data(), (10, 13)))
    operator = risk.hessian()
    v = torch.ones(risk.size, dtype=torch.float64)
    first = operator @ v
    model.register_forward_hook(lambda *_: calls.append(1))
    assert torch.equal(operator @ v, first)
    assert not calls
    assert operator.products == 2
    model[0].weight.data.mul_(2)
    assert torch.equal(operator @ v, first)  # an operator is a matrix: it does not move
    assert not torch.allclose(risk.hessian_product(v), first)
    assert torch.equal(risk.hessian_product(v), risk.hessian() @ v)


@dataclass
class Output:
    loss: Tensor


class OwnLoss(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.inner, self.how = mlp(), how

    def forward(self, pixels: Tensor, labels: Tensor) -> Any:
        loss = F.cross_entropy(self.inner(pixels), labels)
        return {"object": Output(loss), "mapping": {"loss": loss}, "tuple": (loss, 1)}.get(
            self.how, loss
        )


class Many(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.inner(torch.cat([left, right], 1))


def test_every_kind_of_batches_gives_the_same() -> None:
    x, y = CASES["mlp"].data()
    right = EmpiricalRisk(mlp(), F.cross_entropy, [(x, y)])
    batches = divided(x, y, (10, 10, 3))
    dataset = TensorDataset(x, y)
    kinds = {
        "pair": (mlp(), (x, y)),
        "list pair": (mlp(), [x, y]),
        "loader": (mlp(), DataLoader(dataset, batch_size=7)),
        "shuffled loader": (mlp(), DataLoader(dataset, batch_size=7, shuffle=True)),
        "own generator": (
            mlp(),
            DataLoader(dataset, batch_size=7, shuffle=True, generator=torch.Generator()),
        ),
        "one-shot": (mlp(), iter(batches)),
        "generator": (mlp(), (b for b in batches)),
        "mapping": (mlp(), [{"pixels": a, "labels": b} for a, b in batches]),
        "one mapping": (mlp(), {"pixels": x, "target": y}),
        "several inputs": (Many(), [((a[:, :2], a[:, 2:]), b) for a, b in batches]),
        "named inputs": (
            Many(),
            [{"right": a[:, 2:], "left": a[:, :2], "y": b} for a, b in batches],
        ),
    }
    for name, (model, source) in kinds.items():
        risk = EmpiricalRisk(model, F.cross_entropy, source)
        for _ in range(2):
            torch.testing.assert_close(risk.value(), right.value(), msg=name)
            torch.testing.assert_close(risk.gradient(), right.gradient(), msg=name)
    for how in ("object", "mapping", "tuple", "scalar"):
        own = EmpiricalRisk(OwnLoss(how), None, [{"pixels": a, "labels": b} for a, b in batches])
        torch.testing.assert_close(own.value(), right.value())
        torch.testing.assert_close(own.gradient(), right.gradient())
        v = torch.ones(own.size, dtype=torch.float64)
        torch.testing.assert_close(own.hessian() @ v, right.hessian() @ v)
        with pytest.raises(RuntimeError, match="outputs and the loss apart"):
            own.gauss_newton()
    assert right.evaluate()["accuracy"] == pytest.approx(
        float((mlp()(x).argmax(1) == y).double().mean())
    )


@pytest.mark.parametrize(
    ("batches", "match"),
    [
        ([], "at least one batch"),
        (3, "list of"),
        ([torch.zeros(3, 4)], "inputs, targets"),
        ([{"pixels": torch.zeros(3, 4)}], "target_key"),
        ([(1, 2, 3)], "3 elements"),
    ],
)
def test_batches_that_are_not_understood_are_refused(batches: Any, match: str) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        EmpiricalRisk(mlp(), F.cross_entropy, batches)


def test_a_sum_is_declared_or_refused() -> None:
    case = CASES["mlp"]
    x, y = case.data()
    mean = EmpiricalRisk(mlp(), nn.CrossEntropyLoss(), divided(x, y, (10, 13)))

    def total(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="sum")

    with pytest.raises(RiskError, match="reduction='sum'"):
        EmpiricalRisk(mlp(), total, divided(x, y, (10, 13)))
    for loss, words in [
        (total, {"reduction": "sum"}),
        (nn.CrossEntropyLoss(reduction="sum"), {}),
        (nn.CrossEntropyLoss(reduction="none"), {}),
    ]:
        risk = EmpiricalRisk(mlp(), loss, divided(x, y, (10, 13)), **words)
        torch.testing.assert_close(risk.gradient(), mean.gradient())


class Scaled(nn.Module):
    """Ignores its input and returns its parameters, each scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.ones(3, dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64) * self.point


@pytest.mark.parametrize("samples", [1, 3, 5])
@pytest.mark.parametrize("loss", [lambda o, t: o.square().sum() / 2,
                                  lambda o, t: (o - t.sum()).square().sum() / 2])  # fmt: skip
def test_a_sum_over_outputs_that_are_no_samples_is_as_it_is(samples: int, loss: Any) -> None:
    """As many outputs as samples are still none of theirs, where the input is ignored."""
    batch = torch.zeros(samples, 1), torch.zeros(samples)
    risk = EmpiricalRisk(Scaled(), loss, [batch, batch])
    hessian = materialized(risk.hessian())
    torch.testing.assert_close(hessian.diagonal(), torch.tensor([1.0, 4.0, 9.0]).double())
    assert float(risk.value()) == pytest.approx(7.0)


def test_batches_of_one_sample() -> None:
    x, y = CASES["mlp"].data()
    right = EmpiricalRisk(mlp(), F.cross_entropy, [(x, y)])
    for reduction in ("none", "mean"):

        def loss(o: Tensor, t: Tensor, how: str = reduction) -> Tensor:
            return F.cross_entropy(o, t, reduction=how)

        risk = EmpiricalRisk(mlp(), loss, divided(x, y, (1,) * 23))
        torch.testing.assert_close(risk.gradient(), right.gradient())


def test_class_weights_and_ignored_targets_are_weighted_as_in_one_batch() -> None:
    x, y = CASES["mlp"].data()
    y[::3] = -100
    for loss in (
        nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)),
        F.cross_entropy,
    ):
        right = dense(mlp(), loss, x, y)[0]
        for sizes in [*DIVISIONS, (1,) * 23]:
            risk = EmpiricalRisk(mlp(), loss, divided(x, y, sizes))
            torch.testing.assert_close(risk.value(), right, rtol=1e-12, atol=0)


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + torch.randn_like(x))


def test_dropout_is_off_fixed_or_refused() -> None:
    x, y = CASES["mlp"].data()
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    off = EmpiricalRisk(model, F.cross_entropy, [(x, y)])
    assert torch.equal(off.value(), F.cross_entropy(model.eval()(x), y).detach())
    model.train()
    assert torch.equal(off.value(), F.cross_entropy(model.eval()(x), y).detach())
    model.train()
    fixed = EmpiricalRisk(model, F.cross_entropy, divided(x, y, (10, 13)), dropout="fixed")
    v = torch.ones(off.size, dtype=torch.float64)
    assert float(fixed.value()) == float(fixed.value()) != float(off.value())
    assert torch.equal(fixed.hessian() @ v, fixed.hessian() @ v)
    again = EmpiricalRisk(model, F.cross_entropy, divided(x, y, (10, 13)), dropout="fixed", seed=1)
    assert float(again.value()) != float(fixed.value())
    with pytest.raises(RiskError, match="dropout"):
        EmpiricalRisk(model, F.cross_entropy, [(x, y)], dropout="refuse")
    with pytest.raises(RiskError, match="per-sample"):
        fixed.per_sample_gradients()


def test_noise_is_refused_or_fixed() -> None:
    x, y = CASES["mlp"].data()
    with pytest.raises(RandomLossError, match="noise='fixed'"):
        EmpiricalRisk(Noisy(), F.cross_entropy, [(x, y)])
    fixed = EmpiricalRisk(Noisy(), F.cross_entropy, divided(x, y, (10, 13)), noise="fixed")
    assert torch.equal(fixed.gradient(), fixed.gradient())
    EmpiricalRisk(Noisy(), F.cross_entropy, [(x, y)], check_deterministic=False)
    loader = DataLoader(TensorDataset(x, y), batch_size=5, shuffle=True, drop_last=True)
    with pytest.raises(RandomLossError):
        EmpiricalRisk(mlp(), F.cross_entropy, loader)

    class Counting(Noisy):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Counting.calls += 1
            return self.inner(x * Counting.calls)

    with pytest.raises(RandomLossError):
        EmpiricalRisk(Counting(), F.cross_entropy, [(x, y)], noise="fixed")


def test_batch_norm_in_both_modes() -> None:
    x, y = CASES["mlp"].data()
    model = normalized().train()
    before = copy.deepcopy(model.state_dict())
    running = EmpiricalRisk(model, F.cross_entropy, [(x, y)])
    batch = EmpiricalRisk(model, F.cross_entropy, [(x, y)], batch_norm="batch")
    expected = F.cross_entropy(copy.deepcopy(model)(x), y)
    torch.testing.assert_close(batch.value(), expected.detach())
    torch.testing.assert_close(
        running.value(), F.cross_entropy(copy.deepcopy(model).eval()(x), y).detach()
    )
    v = torch.ones(batch.size, dtype=torch.float64)
    assert not torch.allclose(batch.hessian() @ v, running.hessian() @ v)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    with pytest.raises(RiskError, match="per-sample"):
        batch.per_sample_gradients()
    other = copy.deepcopy(model)
    other(x * 3)
    moved = running.value(other.state_dict())  # a state dict brings its buffers
    torch.testing.assert_close(moved, F.cross_entropy(other.eval()(x), y).detach())


def test_unused_and_frozen_parameters_have_zero_rows() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.spare = mlp(), nn.Linear(2, 2).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    x, y = CASES["mlp"].data()
    model = Unused()
    model.inner[0].bias.requires_grad_(False)
    risk = EmpiricalRisk(model, F.cross_entropy, [(x, y)])
    right = materialized(EmpiricalRisk(mlp(), F.cross_entropy, [(x, y)]).hessian())
    right[20:25] = 0
    right[:, 20:25] = 0
    for operator in (risk.hessian(), risk.gauss_newton(), risk.residual()):
        h = materialized(operator)
        assert not h[-6:].any()
        assert not h[20:25].any()
        assert not h[:, 20:25].any()
    torch.testing.assert_close(materialized(risk.hessian())[:-6, :-6], right)
    assert not risk.gradient()[20:25].any()
    assert risk.size == 49


class Bowl(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.w[0] ** 2 * 3 + self.w[0] * self.w[1] + self.w[1] ** 4


@pytest.mark.parametrize(
    "batches",
    [[(torch.zeros(1), torch.zeros(1))], [(None, None)], [(torch.zeros(4, 2), torch.zeros(4))]],
)
def test_a_function_of_the_parameters_alone(batches: Any) -> None:
    risk = EmpiricalRisk(Bowl(), lambda out, target: out, batches)
    assert float(risk.value()) == 3 + 2 + 16
    assert risk.gradient().tolist() == [8, 33]
    right = torch.tensor([[6, 1], [1, 48]], dtype=torch.float64)
    assert torch.equal(materialized(risk.hessian()), right)
    assert not materialized(risk.gauss_newton()).any()
    assert torch.equal(materialized(risk.residual()), right)
    assert float(risk.value(torch.zeros(2, dtype=torch.float64))) == 0
    assert risk.evaluate() == {"loss": 21.0}


def test_part_of_the_parameters() -> None:
    x, y = CASES["mlp"].data()
    model = mlp()
    whole = EmpiricalRisk(model, F.cross_entropy, [(x, y)])
    h = materialized(whole.hessian())
    for selection in ("2", model[2], list(model[2].parameters()), ["2.weight", "2.bias"], "2.*",
                      {"params": list(model[2].parameters()), "lr": 1}):  # fmt: skip
        part = whole.restrict(selection)
        assert part.size == 18
        torch.testing.assert_close(materialized(part.hessian()), h[25:, 25:])
        torch.testing.assert_close(part.gradient(), whole.gradient()[25:])
    assert float(part.value(part.parameters)) == float(whole.value())
    with pytest.raises(SelectionError, match=r"did you mean '2\.weight'"):
        whole.restrict("2.weigth")
    with pytest.raises(SelectionError, match="same model"):
        whole.restrict(mlp()[2])


def test_state_dicts_go_in_and_out() -> None:
    x, y = CASES["mlp"].data()
    model = Tied().double()
    risk = EmpiricalRisk(model, F.cross_entropy, [(x, y)])
    theta = torch.randn(risk.size, dtype=torch.float64)
    state = risk.state_dict(theta)
    assert torch.equal(risk.flatten(state), theta)
    assert torch.equal(risk.flatten(risk.unflatten(theta)), theta)
    other = Tied().double()
    other.load_state_dict(state)
    torch.testing.assert_close(risk.value(theta), F.cross_entropy(other(x), y).detach())
    assert float(risk.value(state)) == float(risk.value(theta))
    assert float(risk.value({f"module.{k}": t for k, t in state.items()})) == float(
        risk.value(theta)
    )
    with pytest.raises(RiskError, match=r"a\.weight"):
        risk.flatten({"a.wieght": torch.zeros(3, 4)})
    with pytest.raises(RiskError, match="shape"):
        risk.flatten({**state, "a.weight": torch.zeros(2, 2)})
    with pytest.raises(RiskError, match="vector"):
        risk.value(torch.zeros(3))


class Everything(nn.Module):
    """Dropout, batch norm, a counter, and an order to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)
        self.dropout, self.last = nn.Dropout(0.3), nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.fails = False

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.fails:
            raise ArithmeticError("as asked")
        return self.last(self.dropout(self.norm(self.first(x)).tanh()))


def snapshot(model: nn.Module, generator: torch.Generator) -> list[Any]:
    return [
        [(n, p.detach().clone(), id(p), p._version) for n, p in model.named_parameters()],
        [(n, b.clone(), id(b)) for n, b in model.named_buffers()],
        [m.training for m in model.modules()],
        [p.grad.clone() for p in model.parameters() if p.grad is not None],
        [p.requires_grad for p in model.parameters()],
        torch.get_rng_state(),
        generator.get_state(),
        np.random.get_state()[1].tolist(),
        random.getstate(),
        torch.backends.cudnn.enabled,
        torch._C._get_mkldnn_enabled(),
        torch.backends.mha.get_fastpath_enabled(),
        torch.is_grad_enabled(),
    ]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def each_call(risk: EmpiricalRisk) -> Iterator[Callable[[], Any]]:
    v = torch.ones(risk.size)
    yield risk.value
    yield risk.gradient
    yield risk.evaluate
    yield risk.per_sample_gradients
    yield lambda: risk.hessian_product(v)
    yield lambda: risk.gauss_newton_product(v)
    yield lambda: risk.residual() @ v
    yield lambda: risk.value(v)


@pytest.mark.parametrize("words", [{}, {"dropout": "fixed"}, {"batch_norm": "batch"}])
def test_everything_is_as_before_also_after_an_exception(words: dict[str, Any]) -> None:
    x, y = CASES["mlp"].data()
    model = Everything()
    generator = torch.Generator()
    F.cross_entropy(model(x.float()), y).backward()
    model.norm.eval()
    loader = DataLoader(
        TensorDataset(x.float(), y), batch_size=10, shuffle=True, generator=generator
    )
    if words.get("batch_norm") == "batch":
        before = snapshot(model, generator)
        with pytest.raises(RandomLossError):  # another division, another loss
            EmpiricalRisk(model, F.cross_entropy, loader, **words)
        assert same(before, snapshot(model, generator))
    before = snapshot(model, generator)
    risk = EmpiricalRisk(model, F.cross_entropy, loader, check_deterministic=False, **words)
    assert same(before, snapshot(model, generator))
    for call in each_call(risk):
        with suppress(RiskError):  # per-sample gradients, where they are not defined
            call()
        assert same(before, snapshot(model, generator))
    model.fails = True
    risk.release()
    for call in each_call(risk):
        with pytest.raises((ArithmeticError, RiskError)):
            call()
        assert same(before, snapshot(model, generator))


def test_under_no_grad_and_with_float32_data() -> None:
    x, y = CASES["mlp"].data()
    risk = EmpiricalRisk(mlp(), F.cross_entropy, [(x.float(), y)])
    v = torch.ones(risk.size, dtype=torch.float64)
    right = risk.hessian() @ v
    assert right.dtype == torch.float64
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            assert torch.equal(risk.hessian() @ v.clone(), right)
            assert torch.equal(risk.gradient(), EmpiricalRisk(
                mlp(), F.cross_entropy, [(x.float(), y)]).gradient())  # fmt: skip


def test_wrong_words_and_wrong_losses_are_refused() -> None:
    x, y = CASES["mlp"].data()
    with pytest.raises(RiskError, match="did you mean 'fixed'"):
        EmpiricalRisk(mlp(), F.cross_entropy, [(x, y)], dropout="fixd")
    with pytest.raises(RiskError, match="scalar"):
        EmpiricalRisk(mlp(), lambda out, target: out.mean(0), [(x, y)])
    with pytest.raises(RiskError, match="item"):
        EmpiricalRisk(mlp(), lambda out, target: out.mean().item(), [(x, y)])

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.square()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return 2 * ctx.saved_tensors[0] * g

    risk = EmpiricalRisk(mlp(), lambda out, target: Once.apply(out).mean(), [(x, y)])
    with pytest.raises(RuntimeError, match="twice"):
        _ = risk.hessian() @ risk.parameters


class Branching(nn.Module):
    """Decides by values, which ``vmap`` cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) if bool((x[:, 0] > 0).all()) else self.linear(x.tanh())


class Centering(nn.Module):
    """Treats a batch by its mean, so that a sample by itself is something else."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x - x.mean(0))


@pytest.mark.parametrize(
    ("make", "batched"),
    [(mlp, True), (convolutional, True), (normalized, True), (Branching, False),
     (Centering, True)],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_gradients_of_samples_at_once_are_those_one_by_one(
    make: Callable[[], nn.Module], batched: bool
) -> None:
    torch.manual_seed(0)
    model = make()
    next(model.parameters()).requires_grad_(False)  # its columns are zero
    x, y = CASES["mlp"].data(9)
    risk = EmpiricalRisk(model, F.cross_entropy, divided(x, y, (5, 4)))
    state = torch.get_rng_state()
    rows = risk.per_sample_gradients()
    assert risk.sample_gradients_batched is batched
    assert torch.equal(torch.get_rng_state(), state)
    for i in range(9):
        alone = EmpiricalRisk(model, F.cross_entropy, [(x[i : i + 1], y[i : i + 1])]).gradient()
        torch.testing.assert_close(rows[i], alone, rtol=1e-10, atol=1e-14)
