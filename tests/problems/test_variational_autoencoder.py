"""The autoencoder's loss against torch.distributions, and the noise of its code."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from optiscope.problems.models.variational_autoencoder import (
    Reconstruction,
    VariationalAutoencoder,
    negative_elbo,
)


@pytest.fixture
def pictures() -> torch.Tensor:
    levels = torch.randint(256, (500, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    return levels / 255.0


def test_the_loss_is_squared_error_plus_divergence() -> None:
    pixels, targets = torch.rand(5, 1, 28, 28), torch.rand(5, 1, 28, 28)
    mean, log_std = torch.randn(5, 8), 0.3 * torch.randn(5, 8)
    code = torch.distributions.Normal(mean, log_std.exp())
    prior = torch.distributions.Normal(0.0, 1.0)
    divergence = torch.distributions.kl_divergence(code, prior).sum(1)
    gaussian = torch.distributions.Normal(pixels, 0.5**0.5)
    constant = torch.distributions.Normal(0.0, 0.5**0.5).log_prob(torch.tensor(0.0))
    errors = -(gaussian.log_prob(targets) - constant).flatten(1).sum(1)
    found = negative_elbo(Reconstruction(pixels, mean, log_std), targets)
    torch.testing.assert_close(found, errors + divergence, rtol=1e-5, atol=1e-4)


def noise_in_evaluation(model: VariationalAutoencoder, images: torch.Tensor) -> torch.Tensor:
    """The noise that evaluation uses, read off the decoder's input."""
    seen: list[torch.Tensor] = []
    handle = model.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        out = model.eval()(images)
    handle.remove()
    return (seen[0] - out.mean) / out.log_std.exp()


def test_evaluation_noise_is_standard_normal(pictures: torch.Tensor) -> None:
    noise = noise_in_evaluation(VariationalAutoencoder(), pictures)
    assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > 0.01
    correlations = torch.corrcoef(noise.T) - torch.eye(8)
    assert correlations.abs().max() < 5 / 500**0.5


def test_evaluation_noise_depends_on_the_image_alone(pictures: torch.Tensor) -> None:
    model = VariationalAutoencoder()
    whole = noise_in_evaluation(model, pictures[:10])
    reversed_ = noise_in_evaluation(VariationalAutoencoder(), pictures[:10].flip(0)).flip(0)
    torch.testing.assert_close(whole, reversed_, rtol=1e-3, atol=1e-3)
    double = noise_in_evaluation(model.double(), pictures[:10].double())
    torch.testing.assert_close(whole.double(), double, rtol=1e-3, atol=1e-3)


def test_training_noise_is_fresh(pictures: torch.Tensor) -> None:
    model = VariationalAutoencoder().train()
    with torch.no_grad():
        first, second = model(pictures[:2]).pixels, model(pictures[:2]).pixels
    assert not torch.equal(first, second)
