"""Per-sample quantities against ``vmap(grad)`` in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from optiscope.monitor.gradient_tests import gradient_tests, takeuchi_diagonal, takeuchi_trace
from optiscope.monitor.per_sample import PerSample, per_sample, sample_gram

Loss = Callable[[Any, Tensor], Tensor]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(9, 6), nn.LayerNorm(6)
        self.middle, self.head = nn.Linear(6, 6), nn.Linear(6, 9, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.middle(self.embed(x)).relu_())
        return self.head(h + self.middle(h)).transpose(1, 2)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(1, 1, 8))
        self.layer = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x + self.start
        return self.head((h + self.layer(h, h, h, need_weights=False)[0]).mean(1))


class Flat(nn.Module):
    """Tokens of all samples in one long batch."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 5), nn.Linear(5, 9)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embed(x).reshape(-1, 5)).reshape(*x.shape, 9).transpose(1, 2)


def images(*shape: int) -> Callable[[int], tuple[Tensor, Tensor]]:
    return lambda n: (torch.randn(n, *shape), torch.randint(0, 3, (n,)))


def words(n: int) -> tuple[Tensor, Tensor]:
    return torch.randint(0, 9, (n, 5)), torch.randint(0, 9, (n, 5))


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[int], tuple[Tensor, Tensor]]]] = {
    "linear": (
        lambda: nn.Sequential(nn.Linear(5, 7), nn.ReLU(inplace=True), nn.Linear(7, 3)),
        images(5),
    ),
    "sequence": (
        lambda: nn.Sequential(
            nn.Linear(5, 7), nn.Tanh(), nn.RMSNorm(7), nn.Flatten(), nn.Linear(28, 3)
        ),
        images(4, 5),
    ),
    "convolution": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2), nn.GroupNorm(3, 6), nn.ReLU(),
            nn.Conv2d(6, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3),
        ),
        images(4, 8, 8),
    ),
    "convolution_1d": (
        lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(24, 3)),
        images(3, 8),
    ),
    "convolution_3d": (
        lambda: nn.Sequential(nn.Conv3d(1, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)),
        images(1, 3, 3, 3),
    ),
    "transposed": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(2, 3, 3, stride=2), nn.BatchNorm2d(3), nn.Flatten(),
            nn.Linear(147, 3),
        ),
        images(2, 3, 3),
    ),
    "transposed_1d_and_3d": (
        lambda: nn.Sequential(
            nn.ConvTranspose1d(2, 4, 3, padding=1, groups=2), nn.Tanh(), nn.Unflatten(1, (2, 2)),
            nn.Unflatten(3, (1, 4)), nn.ConvTranspose3d(2, 2, (1, 1, 2)), nn.Flatten(),
            nn.Linear(20, 3),
        ),
        images(2, 4),
    ),
    "grouped_norms": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 4, 3, padding_mode="circular", padding=1), nn.GroupNorm(2, 4), nn.Tanh(),
            nn.RMSNorm(6), nn.Flatten(), nn.LayerNorm(24), nn.Linear(24, 3, bias=False),
        ),
        images(2, 6),
    ),
    "tied": (Tied, words),
    "flat_tokens": (Flat, words),
    "attention": (Attention, images(4, 8)),
}  # fmt: skip


def reference(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    model.eval()
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def loss(p: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, {**buffers, **p}, (x[None],)), y[None])

    parts = [vmap(grad(loss), (None, 0, 0))(parameters, x, y) for x, y in batches]
    return {n: torch.cat([part[n] for part in parts]) for n in parameters}


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_quantities_equal_those_of_vmap(name: str, reduction: str) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        make, draw = CASES[name]
        model = make()
        batches = [draw(6), draw(6), draw(3)]  # the last one is smaller

        def loss(out: Tensor, y: Tensor) -> Tensor:
            if reduction == "mean":
                return F.cross_entropy(out, y)
            tokens = y.numel() / y.shape[0]
            return F.cross_entropy(out, y, reduction="sum") / tokens

        modes = [m.training for m in model.modules()]
        result = per_sample(model, loss, batches, reduction=reduction)
        assert [m.training for m in model.modules()] == modes
        assert all(not m._forward_hooks for m in model.modules())
        assert all(p.grad is None for p in model.parameters())
        expected = reference(model, batches)
        assert result.samples == 15
        for key, g in expected.items():
            close(result.gradient[key], g.mean(0))
            close(result.squared_norms[key], g.flatten(1).square().sum(1))
            close(result.inner_products[key], g.flatten(1) @ g.mean(0).flatten())
            close(result.sum_of_squares[key], g.square().sum(0))
        assert result.fallback == (("start",) if name == "attention" else ())
        whole = sample_gram(model, loss, batches[-1], reduction=reduction)
        flat = torch.cat([g.flatten(1) for g in expected.values()], 1)[-3:]
        close(whole.gram, flat @ flat.T)
        assert whole.fallback == result.fallback
    finally:
        torch.set_default_dtype(torch.float32)


def quantities(n: int = 12) -> tuple[PerSample, Tensor]:
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x, y = torch.randn(n, 5).double(), torch.randint(0, 3, (n,))
    g = reference(model, [(x, y)])
    flat = torch.cat([v.flatten(1) for v in g.values()], 1)
    return per_sample(model, F.cross_entropy, [(x, y)]), flat


def test_gradient_tests_equal_their_definitions() -> None:
    result, g = quantities()
    n, mean = len(g), g.mean(0)
    tests = gradient_tests(result, rate=0.1)
    square = float(mean.square().sum())
    variance = float((g - mean).square().sum()) / (n - 1)
    along = g @ mean / square
    across = g - along[:, None] * mean
    assert tests.variance == pytest.approx(variance, rel=1e-10)
    assert tests.norm == pytest.approx((variance / n / square) ** 0.5, rel=1e-10)
    assert tests.inner_product == pytest.approx(
        float((along - 1).square().sum() / (n * (n - 1))) ** 0.5, rel=1e-9
    )
    assert tests.orthogonality == pytest.approx(
        float(across.square().sum() / square / (n * (n - 1))) ** 0.5, rel=1e-9
    )
    signal = square - variance / n
    if signal > 0:
        assert tests.noise_scale == pytest.approx(variance / signal, rel=1e-9)
    else:
        assert tests.noise_scale is None
    ratio = float((mean.square() / g.var(0)).mean())
    assert tests.gsnr == pytest.approx(ratio, rel=1e-9)
    assert tests.early_stopping == pytest.approx(1 - n * ratio, rel=1e-9)
    assert tests.cabs == pytest.approx(0.1 * variance / result.loss, rel=1e-9)
    moment = float(g.square().sum()) / n
    assert takeuchi_trace(result, 2.0) == pytest.approx(moment / 2, rel=1e-10)
    diagonal = {k: torch.full_like(v, 0.5) for k, v in result.gradient.items()}
    assert takeuchi_diagonal(result, diagonal, 0.0) == pytest.approx(2 * moment, rel=1e-10)


def test_a_subset_estimates_the_variance_without_bias() -> None:
    _, g = quantities(24)
    whole = float(g.var(0).sum())
    generator = torch.Generator().manual_seed(4)
    estimates = torch.stack(
        [g[torch.randperm(24, generator=generator)[:6]].var(0).sum() for _ in range(2000)]
    )
    error = float(estimates.std()) / 2000**0.5
    assert abs(float(estimates.mean()) - whole) < 3 * error


def test_wrong_arguments_are_refused() -> None:
    model = nn.Linear(2, 3)
    with pytest.raises(ValueError, match="reduction"):
        per_sample(model, F.cross_entropy, [], reduction="none")
    with pytest.raises(ValueError, match="batch"):
        per_sample(model, F.cross_entropy, [])
