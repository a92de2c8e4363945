"""FIRE: descent with momentum that lets its own step length grow, and stops where it goes uphill.

Bitzek et al. 2006, in the semi-implicit form. Each image has a velocity and a step length of its
own, so that flat and steep parts of a path relax at their own pace.

Index legend: M images, N parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Relaxation"]

PATIENCE = 3  # downhill steps before the step length grows (Bitzek et al. use 5)
GROWTH, SHRINK = 1.1, 0.5
MIXING, MIXING_DECAY = 0.1, 0.99


class Relaxation:
    """Velocities [M, N] and step lengths [M] of images that follow forces.

    Args:
        like: images [M, N], for shape and type.
        rates: first step lengths [M]; a quarter of 2 / sqrt(curvature) is stable at once.
    """

    def __init__(self, like: Tensor, rates: Tensor) -> None:
        self.velocities = torch.zeros_like(like)
        self.rates = rates.clone()
        self._mixing = torch.full_like(rates, MIXING)
        self._downhill = torch.zeros_like(rates)

    def step(self, forces: Tensor, limits: Tensor) -> Tensor:
        """Displacements [M, N] under ``forces`` [M, N], each no longer than ``limits`` [M]."""
        v = self.velocities
        downhill = (forces * v).sum(1) > 0
        moving = v.norm(dim=1) > 0
        along = forces * (v.norm(dim=1) / forces.norm(dim=1).clamp_min(1e-30))[:, None]
        mixing = self._mixing[:, None]
        v = torch.where(downhill[:, None], (1 - mixing) * v + mixing * along, torch.zeros_like(v))
        faster = downhill & (self._downhill >= PATIENCE)
        self.rates = torch.where(faster, self.rates * GROWTH, self.rates)
        self.rates = torch.where(~downhill & moving, self.rates * SHRINK, self.rates)
        self._mixing = torch.where(faster, self._mixing * MIXING_DECAY, self._mixing)
        self._mixing = torch.where(downhill, self._mixing, torch.full_like(mixing[:, 0], MIXING))
        self._downhill = torch.where(downhill, self._downhill + 1, torch.zeros_like(self.rates))
        v = v + self.rates[:, None] * forces
        moves = self.rates[:, None] * v
        lengths = moves.norm(dim=1)
        scale = (limits / lengths.clamp_min(1e-30)).clamp_max(1.0)
        self.velocities = v * scale[:, None]
        displacements: Tensor = moves * scale[:, None]
        return displacements

    def halt(self, images: Tensor) -> None:
        """Stop the images marked in ``images`` [M] (bool) and divide their step lengths by ten."""
        self.velocities[images] = 0.0
        self.rates[images] *= 0.1
        self._downhill[images] = 0.0
