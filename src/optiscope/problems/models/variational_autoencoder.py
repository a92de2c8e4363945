"""The convolutional variational autoencoder of DeepOBS, its outputs and its loss.

Index legend: B images of 28×28 pixels, Z = 8 latent coordinates.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from optiscope.problems.models.initialise import initialise
from optiscope.problems.models.same_padding import SameConv2d, SameConvTranspose2d

__all__ = ["Reconstruction", "VariationalAutoencoder", "negative_elbo"]


class Reconstruction(NamedTuple):
    """What the loss needs: pixels [B, 1, 28, 28], latent mean and log standard deviation [B, Z]."""

    pixels: Tensor
    mean: Tensor
    log_std: Tensor


class VariationalAutoencoder(nn.Module):
    """Encoder of three convolutions to a Gaussian code, decoder of three transposed ones.

    In training the code is drawn from torch's global generator (reparametrised); in evaluation
    it is the mean, so that an evaluation has no noise. Dropout follows every convolution.

    Args:
        latent: latent coordinates Z.
    """

    def __init__(self, latent: int = 8) -> None:
        super().__init__()

        def activated(convolution: nn.Module, activation: nn.Module) -> list[nn.Module]:
            return [convolution, activation, nn.Dropout(0.2)]

        self.encoder = nn.Sequential(
            *activated(SameConv2d(1, 64, 4, stride=2), nn.LeakyReLU(0.3)),
            *activated(SameConv2d(64, 64, 4, stride=2), nn.LeakyReLU(0.3)),
            *activated(SameConv2d(64, 64, 4), nn.LeakyReLU(0.3)),
            nn.Flatten(),
        )
        self.to_mean = nn.Linear(64 * 7 * 7, latent)
        self.to_log_variance = nn.Linear(64 * 7 * 7, latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, 24),
            nn.LeakyReLU(0.3),
            nn.Linear(24, 49),
            nn.LeakyReLU(0.3),
            nn.Unflatten(1, (1, 7, 7)),
            *activated(SameConvTranspose2d(1, 64, 4, stride=2), nn.ReLU()),
            *activated(SameConvTranspose2d(64, 64, 4), nn.ReLU()),
            *activated(SameConvTranspose2d(64, 64, 4), nn.ReLU()),
            nn.Flatten(),
            nn.Linear(64 * 14 * 14, 28 * 28),
            nn.Sigmoid(),
            nn.Unflatten(1, (1, 28, 28)),
        )
        initialise(self, linear=nn.init.xavier_uniform_)

    def forward(self, images: Tensor) -> Reconstruction:
        """Images [B, 1, 28, 28] in [0, 1] -> their reconstruction and the code's distribution."""
        features = self.encoder(images)
        mean, log_std = self.to_mean(features), 0.5 * self.to_log_variance(features)
        code = mean + torch.randn_like(mean) * log_std.exp() if self.training else mean
        return Reconstruction(self.decoder(code), mean, log_std)


def negative_elbo(outputs: Reconstruction, targets: Tensor) -> Tensor:
    """Squared pixel errors plus KL(code || N(0, I)) in nats: targets [B, 1, 28, 28] -> [B].

    The squared errors are those of a Gaussian with variance ½ per pixel, constants left out.
    """
    errors = (outputs.pixels - targets).square().flatten(1).sum(1)
    mean, log_std = outputs.mean, outputs.log_std
    divergence = 0.5 * (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(1)
    return errors + divergence
