"""Fixed splits: index sets that are the same on every machine.

Index legend: n samples in all, n_k samples in set k.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["fixed_split"]


def fixed_split(n: int, sizes: Sequence[int], seed: int) -> list[Tensor]:
    """Disjoint random index sets of the given ``sizes`` out of ``n`` samples.

    Returns one ascending int64 tensor [n_k] per size. Sizes may add up to less than ``n``; the
    rest belongs to no set. The sets depend on nothing but the arguments: samples are ordered by the
    raw 64-bit output of PCG64, a stream that NumPy keeps fixed across versions and machines
    (its shuffles, like torch's, it does not), and cut into consecutive pieces.

    Raises:
        ValueError: a size is negative, or they add up to more than ``n``.
    """
    if any(size < 0 for size in sizes) or sum(sizes) > n:
        raise ValueError(
            f"sizes of a split must be non-negative and add up to at most {n}, got {list(sizes)}"
        )
    keys = np.random.PCG64(seed).random_raw(n)
    order = np.argsort(keys, kind="stable").astype(np.int64)
    ends = np.cumsum(sizes)
    return [
        torch.from_numpy(np.sort(order[end - size : end]))
        for end, size in zip(ends, sizes, strict=True)
    ]
