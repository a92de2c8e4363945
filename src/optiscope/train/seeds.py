"""The sources of randomness of a trial, all from its seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from optiscope.train.device import backend

__all__ = ["Generators", "preserved_generators", "seed_global_generators"]


@dataclass(frozen=True)
class Generators:
    """Independent sources of randomness, all from the trial's seed.

    Attributes:
        weights: seed of the initial weights.
        noise: seed of what the model draws while it trains (dropout).
        order: generator of the samples' order, on the CPU.
        augmentation: generator of changes to samples, on the run's device.
    """

    weights: int
    noise: int
    order: torch.Generator
    augmentation: torch.Generator

    @classmethod
    def of(cls, seed: int, device: torch.device) -> Generators:
        """Those of a trial's seed, for a run on ``device``."""
        words = np.random.SeedSequence(seed).generate_state(4, np.uint64)
        weights, noise, order, augmentation = (int(w) >> 1 for w in words)
        return cls(
            weights,
            noise,
            torch.Generator().manual_seed(order),
            torch.Generator(device).manual_seed(augmentation),
        )


def seed_global_generators(seed: int, device: torch.device) -> None:
    """Seed what dropout, initialization and anybody's optimizer draw from without asking.

    Torch's generators on the CPU and on the run's device, NumPy's and Python's. torch.manual_seed
    would also queue a call for every other kind of device, each time with a formatted stack: a
    millisecond, and memory that is never given back.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        backend(device).manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def preserved_generators(device: torch.device) -> Iterator[None]:
    """Leave torch's global generators (CPU and ``device``), NumPy's and Python's as they were."""
    forked = [torch.cuda.current_device()] if device.type == "cuda" else []
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=forked):
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
