"""The sources of randomness of a trial, all from its seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from optiscope.train.device import backend

__all__ = [
    "Generators",
    "generator_states",
    "preserved_generators",
    "restore_generators",
    "seed_global_generators",
]


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


def generator_states(device: torch.device) -> dict[str, Any]:
    """States of the global generators: torch's, NumPy's and Python's."""
    numpy_state: Any = np.random.get_state(legacy=True)
    version, words, gauss = random.getstate()
    own = None if device.type == "cpu" else backend(device).get_rng_state()
    key = torch.from_numpy(np.asarray(numpy_state[1], dtype=np.int64))
    return {
        "torch": torch.get_rng_state(),
        "device": own,
        "numpy": [str(numpy_state[0]), key, *(float(x) for x in numpy_state[2:])],
        "python": [version, torch.tensor(words), gauss],
    }


def restore_generators(states: dict[str, Any], device: torch.device) -> None:
    """Inverse of :func:`generator_states`."""
    torch.set_rng_state(states["torch"])
    if device.type != "cpu":
        backend(device).set_rng_state(states["device"])
    name, key, position, has_gauss, gauss = states["numpy"]
    words = key.numpy().astype(np.uint32)
    np.random.set_state((name, words, int(position), int(has_gauss), gauss))
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
