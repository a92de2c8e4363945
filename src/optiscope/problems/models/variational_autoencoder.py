"""The convolutional variational autoencoder of DeepOBS, its outputs and its loss.

Index legend: B images of 28×28 pixels, Z = 8 latent coordinates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
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

    The code is drawn around its mean. In training the noise comes from torch's global generator;
    in evaluation it is a fixed function of the image, so that an image's loss depends on nothing
    else and its mean over a set still estimates the bound. Dropout follows every convolution.

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
        self.keys: Tensor
        self.register_buffer("keys", _hash_keys(28 * 28, latent), persistent=False)

    def forward(self, images: Tensor) -> Reconstruction:
        """Images [B, 1, 28, 28] in [0, 1] -> their reconstruction and the code's distribution."""
        features = self.encoder(images)
        mean, log_std = self.to_mean(features), 0.5 * self.to_log_variance(features)
        noise = torch.randn_like(mean) if self.training else _noise_of(images, self.keys)
        return Reconstruction(self.decoder(mean + noise * log_std.exp()), mean, log_std)


def _hash_keys(pixels: int, latent: int) -> Tensor:
    """Fixed random integers below 2²⁴, one for each pixel and latent coordinate; [pixels, Z]."""
    drawn = np.random.PCG64(0).random_raw(pixels * latent) % 2**24
    return torch.tensor(drawn.astype(np.int64).tolist()).view(pixels, latent)


def _noise_of(images: Tensor, keys: Tensor) -> Tensor:
    """Standard normal numbers [B, Z] that depend on each image's 256 grey levels alone.

    A hash of the pixels, uniform on 2²⁴ values, through the normal quantile function.
    """
    levels = (images.detach().flatten(1) * 255.0).round().double()
    words = (levels @ keys.double()) % 2**24  # exact: sums of 784 products stay below 2⁵³
    uniform = (words.to(images.dtype) + 0.5) / 2**24
    noise: Tensor = torch.special.ndtri(uniform.clamp(max=1.0 - 2.0**-24))
    return noise


def negative_elbo(outputs: Reconstruction, targets: Tensor) -> Tensor:
    """Squared pixel errors plus KL(code || N(0, I)) in nats: targets [B, 1, 28, 28] -> [B].

    The squared errors are those of a Gaussian with variance ½ per pixel, constants left out.
    """
    errors = (outputs.pixels - targets).square().flatten(1).sum(1)
    mean, log_std = outputs.mean, outputs.log_std
    divergence = 0.5 * (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(1)
    return errors + divergence
