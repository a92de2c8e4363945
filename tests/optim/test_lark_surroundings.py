"""Lark whatever the process around it has chosen: precision of products, autocast, device."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optiscope.linalg.precision import full_precision
from optiscope.optim.lark.optimizer import Lark


@pytest.fixture
def reduced_products() -> Iterator[None]:
    """Products of float32 that may be made in bfloat16 or TF32."""
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


def precisions() -> list[str]:
    backends = (torch.backends.mkldnn, torch.backends.cuda)
    return [backend.matmul.fp32_precision for backend in backends]


def weights_after(steps: int, size: int = 96) -> torch.Tensor:
    """Weights of a square layer after gradients that do not depend on how products are made."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Parameter(torch.zeros(size, size))
    optimizer = Lark([layer], total_steps=steps)
    for _ in range(steps):
        factors = torch.randn(2, size, 8, generator=generator, dtype=torch.float64)
        layer.grad = (factors[0] @ factors[1].mT).float()
        optimizer.step()
    assert all(log.left_share <= 1 + 1e-5 for log in optimizer.get_log())
    return layer.detach()


def test_reduced_precision_of_products_changes_no_bit(reduced_products: None) -> None:
    weights = weights_after(30)
    assert torch.get_float32_matmul_precision() == "medium"
    torch.set_float32_matmul_precision("highest")
    assert torch.equal(weights, weights_after(30))


def test_the_chosen_precision_comes_back_after_an_error(reduced_products: None) -> None:
    seen: list[str] = []

    def fail_after_looking() -> None:
        with full_precision({"cpu"}):
            seen.extend(precisions())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_after_looking()
    assert seen == ["ieee", "ieee"]
    assert precisions() == ["bf16", "tf32"]
    assert torch.get_float32_matmul_precision() == "medium"


def test_a_precision_that_is_the_whole_processs_stays_so() -> None:
    try:
        for backend in (torch.backends.mkldnn, torch.backends.cuda):
            backend.matmul.fp32_precision = "none"
        torch.backends.fp32_precision = "tf32"
        with full_precision({"cpu"}):
            assert precisions() == ["ieee", "ieee"]
        assert precisions() == ["tf32", "tf32"]
        torch.backends.fp32_precision = "ieee"
        assert precisions() == ["ieee", "ieee"]
    finally:
        torch.backends.fp32_precision = "none"
        torch.set_float32_matmul_precision("highest")


def test_a_step_inside_autocast_is_one_outside_it() -> None:
    layers = []
    for inside in (True, False):
        torch.manual_seed(0)
        layer = nn.Linear(50, 60)
        optimizer = Lark(layer.parameters(), total_steps=20)
        for _ in range(12):
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.mse_loss(layer(torch.randn(8, 50)), torch.zeros(8, 60))
            optimizer.zero_grad()
            loss.backward()
            with torch.autocast("cpu", torch.bfloat16, enabled=inside):
                optimizer.step()
        layers.append(layer)
    assert torch.equal(layers[0].weight, layers[1].weight)
    assert torch.equal(layers[0].bias, layers[1].bias)


def test_the_default_device_may_be_another() -> None:
    layer = nn.Linear(40, 50)
    optimizer = Lark(layer.parameters())
    gradients = [torch.randn_like(p) for p in layer.parameters()]
    with torch.device("meta"):
        for _ in range(3):
            for p, gradient in zip(layer.parameters(), gradients, strict=True):
                p.grad = gradient
            optimizer.step()
    assert all(bool(p.isfinite().all()) for p in layer.parameters())


def test_a_rate_may_be_a_tensor_of_one_element() -> None:
    scalar, matrix = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(3, 4))
    optimizer = Lark([scalar, matrix], lr=torch.tensor([1.0]))
    scalar.grad, matrix.grad = torch.ones(()), torch.ones(3, 4)
    optimizer.step()
    assert scalar < 1
    assert bool((matrix < 1).all())
