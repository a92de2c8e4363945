"""The published program: mended, it is the paper's algorithm; each defect is a choice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from optiscope.optim import registry
from optiscope.reproduction.layer_rates import LayerwiseAdaptiveSGD
from optiscope.reproduction.published_program import DEFECTS, PublishedPreconditioner

ALL = tuple(DEFECTS)


def quadratic(hessian: Tensor) -> tuple[list[nn.Parameter], object]:
    """Two tensors of parameters and a closure for w'Bw/2 with a fixed gradient noise."""
    generator = torch.Generator().manual_seed(0)
    size = len(hessian)
    start = torch.randn(size, dtype=hessian.dtype, generator=generator)
    parameters = [nn.Parameter(start[:2].clone()), nn.Parameter(start[2:].clone())]

    def closure() -> Tensor:
        for p in parameters:
            p.grad = None
        w = torch.cat(parameters)
        noise = 0.3 * torch.randn(size, dtype=hessian.dtype, generator=generator)
        loss: Tensor = w @ hessian @ w / 2 + noise @ w
        loss.backward()
        return loss

    return parameters, closure


def random_hessian(size: int) -> Tensor:
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return root @ root.mT / size + 0.5 * torch.eye(size, dtype=torch.float64)


def test_mended_it_inverts_the_posterior_mean() -> None:
    hessian = random_hessian(6)
    parameters, closure = quadratic(hessian)
    opt = PublishedPreconditioner(parameters, num_observations=3, estimate_every=50, mend=ALL)
    for _ in range(12):
        opt.step(closure)
    x, s = opt._factor(0)
    mean = torch.eye(6, dtype=torch.float64) / opt.alpha + opt.scale**2 * x @ s.mT
    g = torch.randn(6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    torch.testing.assert_close(mean @ opt._inverse_times(g, 0), g)


def test_mended_the_posterior_mean_is_ridge_regression() -> None:
    hessian = random_hessian(6)
    parameters, closure = quadratic(hessian)
    opt = PublishedPreconditioner(parameters, num_observations=4, estimate_every=50, mend=ALL)
    for _ in range(13):
        opt.step(closure)
    x, s = opt._factor(0)
    noise_free = hessian @ s
    ratio = opt.noise / opt.scale**2
    ridge = torch.linalg.solve(
        s.mT @ s + ratio * torch.eye(s.shape[1], dtype=torch.float64),
        (noise_free - s / opt.alpha).mT,
    ).mT
    torch.testing.assert_close(s.norm(dim=0), torch.ones_like(s[0]))
    torch.testing.assert_close(opt.scale**2 * x @ s.mT, ridge @ s.mT)


def test_on_an_isotropic_hessian_the_rate_is_its_inverse() -> None:
    parameters, closure = quadratic(4.0 * torch.eye(5, dtype=torch.float64))
    opt = PublishedPreconditioner(parameters, estimate_every=50)
    for _ in range(10):
        opt.step(closure)
    assert opt.alpha == pytest.approx(0.25)
    assert opt.scale == pytest.approx(4.0)


def test_the_published_gram_matrix_is_indefinite() -> None:
    """Cosines of nearly parallel directions beside squared lengths far below one."""
    parameters, _ = quadratic(30 * random_hessian(6))
    opt = PublishedPreconditioner(parameters, estimate_every=50)
    opt.noise, opt.scale, opt.alpha = 0.0, 1.0, 0.01
    base = torch.randn(4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    directions = [0.1 * base + 0.01 * torch.eye(4, dtype=torch.float64)[i] for i in range(3)]
    opt._directions = [[d] for d in directions]
    opt._products = [[2.0 * d] for d in directions]
    s = torch.stack(directions, 1)
    unit, squares = s / s.norm(dim=0), s.square().sum(0)
    gram = unit.mT @ unit
    gram = gram - gram.diag().diag() + squares.diag()
    assert float(torch.linalg.eigvalsh(gram)[0]) < 0
    x, _ = opt._factor(0)
    torch.testing.assert_close(x @ gram, (2.0 - 0.01) * unit)


@pytest.mark.parametrize("defect", ALL)
def test_every_defect_can_be_mended_by_itself(defect: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    x, y = torch.randn(16, 5, dtype=torch.float64), torch.randint(3, (16,))
    opt = PublishedPreconditioner(
        model.parameters(), 2, 3, 4, estimate_every=12, momentum=0.5, mend=(defect,)
    )

    def closure() -> Tensor:
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    losses = [float(opt.step(closure).detach()) for _ in range(30)]
    moved_while_estimating = losses[6] != losses[0]
    assert moved_while_estimating is False or defect == "pause"
    assert opt.hessian_products == 7 * 2 + 6


def test_words_that_are_no_defect_are_refused() -> None:
    parameters, _ = quadratic(random_hessian(4))
    with pytest.raises(ValueError, match="mend must name defects of gram"):
        PublishedPreconditioner(parameters, mend=("gramm",))
    with pytest.raises(ValueError, match="pass lr"):
        PublishedPreconditioner(parameters, construct_rate=False)


def test_nothing_in_the_package_imports_it() -> None:
    bound = registry.bind("optiscope.reproduction.published_program:adaptive_sgd", {})
    assert bound.closure
    assert "published_adaptive_sgd" not in registry.names()


def test_layer_rates_are_inverse_curvatures_of_the_blocks() -> None:
    blocks = torch.diag(torch.tensor([2.0, 2.0, 8.0, 8.0, 8.0], dtype=torch.float64))
    parameters, closure = quadratic(blocks)
    opt = LayerwiseAdaptiveSGD(parameters, prior_iterations=3, estimate_every=50)
    for _ in range(3):
        opt.step(closure)
    assert opt.rates == pytest.approx([0.5, 0.125])
    assert opt.hessian_products == 6
    halved = LayerwiseAdaptiveSGD(parameters, 3, 50, divide=True)
    for _ in range(3):
        halved.step(closure)
    assert halved.rates == pytest.approx([0.25, 0.0625])


def test_layer_rates_from_a_common_product_count_what_other_layers_do() -> None:
    hessian = random_hessian(5)
    parameters, closure = quadratic(hessian)
    opt = LayerwiseAdaptiveSGD(parameters, prior_iterations=1, estimate_every=50, split=True)
    opt.step(closure)
    gradients = [p.grad for p in parameters if p.grad is not None]
    products = (hessian @ torch.cat(gradients)).split([len(g) for g in gradients])
    pairs = zip(gradients, products, strict=True)
    expected = [float(g @ y / (y @ y)) for g, y in pairs]
    assert opt.hessian_products == 1
    for found, rate in zip(opt.rates, expected, strict=True):
        assert found == pytest.approx(rate if rate > 0 else 0.0)
