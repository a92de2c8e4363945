"""Features in which near samples are alike, and distances to the nearest.

Index legend: n samples, q queries, r references, f features, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["FeatureMap", "distances", "is_image", "nearest", "nearest_by_class"]

MOST_FEATURES = 48
LARGEST_SIDE = 16  # pixels to which images are averaged before the projection
CHUNK = 1024  # queries at once: 1024 x 60,000 float32 are 245 MB


def is_image(inputs: Tensor) -> bool:
    """Whether samples [n, ...] are images: [n, C, H, W] or [n, H, W], of 5 pixels a side."""
    if inputs.ndim == 4:
        return inputs.shape[1] in (1, 2, 3, 4) and min(inputs.shape[2:]) >= 5
    return inputs.ndim == 3 and min(inputs.shape[1:]) >= 5 and inputs.is_floating_point()


class FeatureMap:
    """Linear features of samples: averaged pixels or standardized columns, then principal axes.

    Principal axes damp white noise by the share of dimensions that is left out, and keep what
    tells samples apart. Fitted on reference samples only.
    """

    def __init__(
        self, references: Tensor, seed: int = 0, *, standardize: bool | None = None
    ) -> None:
        flat = self._flat(references)
        self.mean = flat.mean(0)
        self.scale = None
        if not is_image(references) if standardize is None else standardize:
            deviation = flat.std(0)
            self.scale = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
        self.axes: Tensor | None = None
        if flat.shape[1] > MOST_FEATURES:
            chosen = torch.randperm(len(flat), generator=torch.Generator().manual_seed(seed))
            few = self._centred(flat[chosen[:3000]])
            covariance = few.T @ few / max(len(few) - 1, 1)
            self.axes = torch.linalg.eigh(covariance).eigenvectors[:, -MOST_FEATURES:]

    def __call__(self, samples: Tensor) -> Tensor:
        """Features [n, f] of samples [n, ...]."""
        centred = self._centred(self._flat(samples))
        return centred if self.axes is None else centred @ self.axes

    def _centred(self, flat: Tensor) -> Tensor:
        return (flat - self.mean) if self.scale is None else (flat - self.mean) / self.scale

    def _flat(self, samples: Tensor) -> Tensor:
        samples = samples.float()
        if is_image(samples):
            images = samples if samples.ndim == 4 else samples[:, None]
            side = max(images.shape[2:])
            if side > LARGEST_SIDE:
                factor = -(-side // LARGEST_SIDE)
                images = functional.avg_pool2d(images, factor, ceil_mode=True)
            samples = images
        flat = samples.flatten(1)
        if flat.shape[1] > 4096:  # a fixed random projection, before principal axes
            generator = torch.Generator().manual_seed(0)
            chosen = torch.randperm(flat.shape[1], generator=generator)[:4096].sort().values
            flat = flat[:, chosen]
        return torch.nan_to_num(flat)


def distances(queries: Tensor, references: Tensor) -> Tensor:
    """Euclidean distances [q, r] of features [q, f] and [r, f]."""
    lengths = (references * references).sum(1)
    halves = torch.addmm(lengths, queries, references.T, alpha=-2.0)
    return halves.add_((queries * queries).sum(1, keepdim=True)).clamp_min_(0).sqrt_()


def nearest(queries: Tensor, references: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Distances and places [q, count] of the nearest references, nearest first."""
    count = min(count, len(references))
    lengths = (references * references).sum(1)
    values, places = [], []
    for part in queries.split(CHUNK):
        partial = torch.addmm(lengths, part, references.T, alpha=-2.0)  # without |query|^2
        least = partial.topk(count, largest=False)
        square = least.values + (part * part).sum(1, keepdim=True)
        values.append(square.clamp_min(0).sqrt())
        places.append(least.indices)
    return torch.cat(values), torch.cat(places)


def nearest_by_class(
    queries: Tensor, references: Tensor, labels: Tensor, classes: int, count: int
) -> tuple[Tensor, Tensor]:
    """Distances and places [q, C, count] of the nearest references of each class.

    A class with fewer references repeats its last; one without has infinite distances.
    """
    far = torch.full((len(queries), classes, count), float("inf"))
    places = torch.zeros(len(queries), classes, count, dtype=torch.int64)
    for c in range(classes):
        members = (labels == c).nonzero().flatten()
        if len(members):
            values, inner = nearest(queries, references[members], count)
            pad = count - values.shape[1]
            if pad > 0:
                values = torch.cat([values, values[:, -1:].expand(-1, pad)], 1)
                inner = torch.cat([inner, inner[:, -1:].expand(-1, pad)], 1)
            far[:, c], places[:, c] = values, members[inner]
    return far, places
