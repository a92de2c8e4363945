"""Products against dense Hessians, and evaluations that leave no trace."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from optiscope.objective import (
    FlatParameters,
    NonDeterministicLossError,
    check_repeatable,
    difference_product,
    graph_product,
)
from optiscope.objective.evaluation import (
    RandomState,
    modules_called,
    second_order_backward,
    unchanged_buffers,
)


def smooth_net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def closure_of(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        model.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    return closure


def dense_hessian(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    names = [n for n, _ in model.named_parameters()]
    flat = FlatParameters.of(model.parameters())

    def loss(vector: Tensor) -> Tensor:
        weights = dict(zip(names, flat.split(vector), strict=True))
        return functional.cross_entropy(torch.func.functional_call(model, weights, (x,)), y)

    return torch.func.hessian(loss)(flat.join(flat.parameters))


def test_both_products_equal_the_dense_hessian() -> None:
    model, x, y = smooth_net(), torch.randn(7, 4).double(), torch.randint(3, (7,))
    flat = FlatParameters.of(model.parameters())
    v = torch.randn(flat.size, dtype=torch.float64)
    expected = dense_hessian(model, x, y) @ v
    closure = closure_of(model, x, y)
    with second_order_backward():
        closure()
    gradients = [p.grad for p in model.parameters()]
    torch.testing.assert_close(graph_product(gradients, flat, v), expected)
    closure()
    g = flat.gradient()
    found = difference_product(closure, flat, g, v, 1e-6, RandomState.now())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_frozen_parameters_do_not_move_in_either_product() -> None:
    model, x, y = smooth_net(), torch.randn(7, 4).double(), torch.randint(3, (7,))
    flat = FlatParameters.of(model.parameters())
    model[0].requires_grad_(False)
    v = torch.randn(flat.size, dtype=torch.float64)
    closure = closure_of(model, x, y)
    with second_order_backward():
        closure()
    exact = graph_product([p.grad for p in model.parameters()], flat, v)
    closure()
    found = difference_product(closure, flat, flat.gradient(), v, 1e-6, RandomState.now())
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-7)


def test_buffers_that_cannot_be_written_are_left_alone() -> None:
    model = smooth_net()
    model.register_buffer("expanded", torch.ones(1).expand(3))
    with torch.inference_mode():
        model.register_buffer("inferred", torch.ones(2))
    model.register_buffer("sparse", torch.eye(3).to_sparse_csr())
    with unchanged_buffers([model]):
        model.expanded = torch.zeros(3)
    assert model.expanded.tolist() == [1, 1, 1]
    assert model.inferred.tolist() == [1, 1]


def test_a_difference_leaves_no_trace() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))
    x, y = torch.randn(16, 4), torch.randint(3, (16,))
    flat, closure = FlatParameters.of(model.parameters()), closure_of(model, x, y)
    random = RandomState.now()
    with modules_called() as modules:
        closure()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    gradients = [p.grad for p in model.parameters()]
    values = [g.clone() for g in gradients if g is not None]
    state, g = torch.get_rng_state(), flat.gradient()
    v = torch.randn(flat.size, generator=torch.Generator().manual_seed(1))
    difference_product(closure, flat, g, v, 1e-2, random, modules)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    for p, gradient, value in zip(model.parameters(), gradients, values, strict=True):
        assert p.grad is gradient
        assert torch.equal(p.grad, value)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_difference_sees_the_same_dropout_mask() -> None:
    model = nn.Sequential(nn.Linear(4, 40), nn.Tanh(), nn.Dropout(0.5), nn.Linear(40, 3)).double()
    x, y = torch.randn(8, 4).double(), torch.randint(3, (8,))
    flat, closure = FlatParameters.of(model.parameters()), closure_of(model, x, y)
    v = torch.randn(flat.size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    random = RandomState.now()
    with second_order_backward():
        closure()
    exact = graph_product([p.grad for p in model.parameters()], flat, v)
    random.restore()
    closure()
    found = difference_product(closure, flat, flat.gradient(), v, 1e-6, random)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-6)


def test_parameters_come_back_when_the_closure_fails() -> None:
    model, x, y = smooth_net(), torch.randn(7, 4).double(), torch.randint(3, (7,))
    flat, closure = FlatParameters.of(model.parameters()), closure_of(model, x, y)
    closure()
    before, g = flat.join(flat.parameters), flat.gradient()

    def fails() -> None:
        raise KeyError("data")

    with pytest.raises(KeyError):
        difference_product(fails, flat, g, g, 1.0, RandomState.now())
    assert torch.equal(flat.join(flat.parameters), before)


def test_a_closure_that_draws_its_own_batch_is_found_out() -> None:
    model = smooth_net()
    flat = FlatParameters.of(model.parameters())
    batches = iter(torch.randn(9, 7, 4).double())

    def closure() -> Tensor:
        model.zero_grad()
        loss = model(next(batches)).square().mean()
        loss.backward()
        return loss

    random = RandomState.now()
    closure()
    with pytest.raises(NonDeterministicLossError, match="draw the batch outside"):
        check_repeatable(closure, flat, flat.gradient(), random)
    same = closure_of(model, torch.randn(7, 4).double(), torch.randint(3, (7,)))
    same()
    check_repeatable(same, flat, flat.gradient(), random)


def test_attention_has_second_derivatives_inside_the_guard() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    flat, x = FlatParameters.of(layer.parameters()), torch.randn(2, 5, 8)
    with second_order_backward():
        layer(x).square().mean().backward()
    product = graph_product([p.grad for p in layer.parameters()], flat, torch.ones(flat.size))
    assert bool(product.isfinite().all())
    assert float(product.norm()) > 0


def test_backward_arguments_survive_the_guard() -> None:
    w = torch.ones(3, requires_grad=True)
    with second_order_backward():
        (w**3).backward(torch.tensor([1.0, 2.0, 3.0]), False, inputs=[w])
    assert w.grad is not None
    assert w.grad.requires_grad
    torch.testing.assert_close(w.grad.detach(), torch.tensor([3.0, 6.0, 9.0]))


def test_flat_vectors_take_the_widest_type() -> None:
    parameters = [torch.ones(2, dtype=torch.bfloat16), torch.ones(3, dtype=torch.float64)]
    flat = FlatParameters.of(parameters)
    assert flat.dtype == torch.float64
    assert flat.size == 5
    assert FlatParameters.of(parameters[:1]).dtype == torch.float32
    torch.testing.assert_close(
        flat.join([None, torch.full((3,), 2.0)]), torch.tensor([0.0, 0, 2, 2, 2]).double()
    )


def test_complex_and_integer_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match=r"real floating-point parameters, got torch\.complex64"):
        FlatParameters.of([torch.ones(2, dtype=torch.complex64)])
    with pytest.raises(ValueError, match="real floating-point parameters"):
        FlatParameters.of([torch.ones(2, dtype=torch.int64)])


def test_sparse_gradients_are_refused() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="with sparse=False"):
        FlatParameters.of(table.parameters()).gradient()


def test_parameters_that_do_not_move_have_no_curvature() -> None:
    model, x, y = smooth_net(), torch.randn(7, 4).double(), torch.randint(3, (7,))
    model[0].weight.requires_grad_(False)
    flat = FlatParameters.of(model.parameters())
    with second_order_backward():
        closure_of(model, x, y)()
    v = torch.ones(flat.size, dtype=torch.float64)
    product = graph_product([p.grad for p in model.parameters()], flat, v)
    assert bool((product[:20] == 0).all())
    assert float(product.norm()) > 0
