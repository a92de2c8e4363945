"""Whether an augmentation breaks labels, loses content or leaves the range of the data.

Labels. Let T be the random transformation. It breaks the labels of classes a and b where T makes
samples of a resemble samples of b that they did not resemble before. For a query x of class a and
one draw T, the distance from T(x) to class b (over many draws of T on references of b) is held
against the distance to class a. The latter includes references of a under *the same* draw T, so
that a sample's own class is always as near as it was without augmentation: a larger space of poses
alone changes nothing. A sample is *in doubt* between a and b where the first distance is less than
`DOUBT` times the second. The share of samples in doubt is compared, sample by sample, with and
without T; doubt that was there before (shirt and pullover) counts for nothing.

A first pass looks at all pairs of classes on some of the queries; the pairs that rose most are
tested on samples that the first pass did not use, or on all of theirs where samples are few.

Index legend: q queries, r references, C classes, k partners.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optiscope.doctor.nearest import FeatureMap, distances, nearest_by_class
from optiscope.doctor.unchanged import generators_in, seeded

__all__ = ["AugmentFailed", "Augmenter", "BrokenPair", "broken_labels", "content_left"]

DOUBT = 1.2  # of the distance to its own class; fitted on MNIST and Fashion-MNIST
TOLERATED_RISE = 1.5  # of the share in doubt without augmentation
TOLERATED_SHARE = 0.01
Z_THRESHOLD = 3.0


class AugmentFailed(Exception):
    """The augmentation raised, or returned something that is no batch of inputs."""


class Augmenter:
    """A user's augmentation, applied to batches with a seed, whatever its signature.

    It may take a batch or one sample, with or without a ``torch.Generator``. Generators that it
    holds itself are restored after each call, so that equal seeds give equal draws.
    """

    def __init__(self, augment: Callable[..., Any], example: Tensor) -> None:
        self.augment = augment
        self.generators = generators_in(augment)
        self.wants_generator = _wants_generator(augment)
        self.by_sample = False
        try:
            copies = example[:1].expand(8, *example.shape[1:]).contiguous()
            batch = self(copies, 0)
            again = self(copies, 1)
            alike = bool((batch == batch[:1]).all())
            self.one_draw = alike and not torch.equal(batch, again)
        except AugmentFailed:
            self.one_draw = False
            self.by_sample = True
            self(example[:2], 0)
        self.by_sample = self.by_sample or self.one_draw

    def __call__(self, inputs: Tensor, seed: int) -> Tensor:
        """Augmented inputs [q, ...]; ``inputs`` are not changed.

        Raises ``AugmentFailed``.
        """
        with seeded(seed, *self.generators):
            generator = torch.Generator().manual_seed(seed)
            if not self.by_sample:
                return self._call(inputs.clone(), generator, len(inputs))
            return torch.stack([self._call(x.clone(), generator, None) for x in inputs])

    def changes_its_argument(self, inputs: Tensor) -> bool:
        """Whether the tensor passed in is altered in place."""
        passed = inputs.clone()
        with seeded(0, *self.generators):
            self._raw(passed[0] if self.by_sample else passed, torch.Generator().manual_seed(0))
        return not torch.equal(passed, inputs)

    def _raw(self, inputs: Tensor, generator: torch.Generator) -> Any:
        return self.augment(inputs, generator) if self.wants_generator else self.augment(inputs)

    def _call(self, inputs: Tensor, generator: torch.Generator, count: int | None) -> Tensor:
        try:
            result = self._raw(inputs, generator)
        except Exception as error:
            raise AugmentFailed(f"{type(error).__name__}: {error}") from error
        if not isinstance(result, Tensor):
            raise AugmentFailed(f"it returned {type(result).__name__}, no tensor")
        if count is not None and (result.ndim == 0 or len(result) != count):
            raise AugmentFailed(f"it turned {count} samples into {tuple(result.shape)}")
        return result.detach()


@dataclass(frozen=True)
class BrokenPair:
    """Two classes that the augmentation makes hard to tell apart.

    ``clean`` and ``augmented`` are shares of samples in doubt, ``z`` the excess over what is
    tolerated in standard errors, ``samples`` the number tested, ``examples`` places [m, 2] of
    (query, nearest reference of the other class) with the seeds of their draws.
    """

    first: int
    second: int
    clean: float
    augmented: float
    z: float
    samples: int
    example_query: Tensor
    example_reference: Tensor


@dataclass(frozen=True)
class LabelTest:
    """What `broken_labels` measured: all tested pairs, largest ``z`` first."""

    pairs: tuple[BrokenPair, ...]
    queries: int
    seconds: float

    @property
    def broken(self) -> tuple[BrokenPair, ...]:
        """Pairs beyond the threshold."""
        return tuple(p for p in self.pairs if p.z >= Z_THRESHOLD)


def broken_labels(
    inputs: Tensor,
    labels: Tensor,
    augmenter: Augmenter,
    *,
    seconds: float = 10.0,
    seed: int = 0,
    most_queries: int = 2000,
    most_references: int = 8000,
) -> LabelTest:
    """Pairs of classes whose samples an augmentation makes alike.

    Args:
        inputs: [n, ...] without augmentation.
        labels: [n] int64, 0..C-1.
        augmenter: the augmentation.
        seconds: about how long it may take.
        seed: of the choice of samples and of the draws.
        most_queries: in the first pass.
        most_references: in the first pass.
    """
    start = time.perf_counter()
    classes = int(labels.max()) + 1
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    queries = min(most_queries, len(inputs) // 3)
    references = min(most_references, len(inputs) // 2)
    q, r = order[:queries], order[queries : queries + references]
    rest = order[queries + references :]
    began = time.perf_counter()
    first = _doubts(inputs, labels, q, r, augmenter, classes, draws=2, seed=seed + 1)
    one_pass = time.perf_counter() - began
    rises: list[tuple[float, int, int]] = []
    for a in range(classes):
        for b in range(a + 1, classes):
            clean, augmented, _, _ = first.pair(a, b)
            if len(clean) >= 10:
                rises.append((_excess(clean.float(), augmented.float()), a, b))
    rises.sort(reverse=True)
    left = seconds - (time.perf_counter() - start)
    count = max(4, min(6, int(left / max(one_pass, 0.05) * 2)))
    pairs = []
    for _, a, b in rises[:count]:
        clean, augmented, query, reference = _pair(
            inputs, labels, a, b, rest, order, augmenter, seed + 100
        )
        doubtful = (augmented - clean).argsort(descending=True)[:6]
        doubtful = doubtful[augmented[doubtful] > clean[doubtful]]
        worst, places = query[doubtful], reference[doubtful]
        pairs.append(
            BrokenPair(
                a,
                b,
                float(clean.mean()),
                float(augmented.mean()),
                _excess(clean, augmented),
                len(clean),
                worst,
                places,
            )
        )
    pairs.sort(key=lambda p: -p.z)
    return LabelTest(tuple(pairs), queries, time.perf_counter() - start)


def _pair(
    inputs: Tensor,
    labels: Tensor,
    a: int,
    b: int,
    rest: Tensor,
    order: Tensor,
    augmenter: Augmenter,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Doubt [q] of samples of two classes without and with augmentation, and whom it concerns.

    Samples that the first pass did not use, where these are enough; else all of both classes, each
    half against the other, and several draws for each sample.
    """
    members = rest[(labels[rest] == a) | (labels[rest] == b)]
    if len(members) < 1000:
        members = order[(labels[order] == a) | (labels[order] == b)]
    half = min(len(members) // 2, 1500)
    folds = [(members[:half], members[half : 2 * half])]
    if half < 1500:
        folds.append((members[half:], members[:half]))
    repeats = max(1, min(8, 2000 // max(len(members), 1)))
    second = (labels == b).long()
    parts = []
    for queries, references in folds:
        total: Tensor | None = None
        for repeat in range(repeats):
            doubts = _doubts(
                inputs, second, queries, references, augmenter, 2, draws=4, seed=seed + 10 * repeat
            )
            clean, augmented, query, reference = doubts.pair(0, 1)
            total = augmented.float() if total is None else total + augmented.float()
            if repeat == 0:
                first = (clean.float(), query, reference)
        assert total is not None
        parts.append((first[0], total / repeats, first[1], first[2]))
    kept = [torch.cat(column) for column in zip(*parts, strict=True)]
    return kept[0], kept[1], kept[2], kept[3]


def _excess(clean: Tensor, augmented: Tensor) -> float:
    """Standard errors by which the share in doubt exceeds what is tolerated."""
    n = len(clean)
    per_sample = augmented - TOLERATED_RISE * clean
    excess = float(per_sample.mean()) - TOLERATED_SHARE
    error = math.sqrt((float(per_sample.var()) * n + 1) / n) / math.sqrt(n)
    return excess / error


@dataclass(frozen=True)
class _Doubts:
    labels: Tensor  # [q]
    queries: Tensor  # [q] places in the data
    clean: Tensor  # [q, C] whether in doubt with that class
    augmented: Tensor  # [q, C]
    reference: Tensor  # [q, C] place of the nearest reference of that class

    def pair(self, a: int, b: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rows, other = [], []
        for own, rival in ((a, b), (b, a)):
            members = (self.labels == own).nonzero().flatten()
            rows.append(members)
            other.append(torch.full_like(members, rival))
        i, j = torch.cat(rows), torch.cat(other)
        return self.clean[i, j], self.augmented[i, j], self.queries[i], self.reference[i, j]


def _doubts(
    inputs: Tensor,
    labels: Tensor,
    queries: Tensor,
    references: Tensor,
    augmenter: Augmenter,
    classes: int,
    *,
    draws: int,
    seed: int,
    partners: int = 3,
) -> _Doubts:
    """Who is in doubt with which class, with and without augmentation."""
    x, own = inputs[queries], labels[queries]
    features = FeatureMap(inputs[references])
    refs, ref_labels = features(inputs[references]), labels[references]
    clean, places = nearest_by_class(features(x), refs, ref_labels, classes, partners)
    rows = torch.arange(len(x))
    augmented_x = features(augmenter(x, seed))
    near = torch.full((len(x), classes), float("inf"))
    nearest_place = references[places[:, :, 0]]

    def consider(distance: Tensor, place: Tensor, c: int | Tensor) -> None:
        closer = distance < near[rows, c]
        near[rows, c] = torch.where(closer, distance, near[rows, c])
        nearest_place[rows, c] = torch.where(closer, place, nearest_place[rows, c])

    for k in range(partners):  # of the own class, and of the nearest rival, under the same draw
        place = references[places[rows, own, k]]
        same_draw = features(augmenter(inputs[place], seed))
        consider((same_draw - augmented_x).norm(dim=1), place, own)
    rivals = clean[:, :, 0].scatter(1, own[:, None], float("inf"))
    for c in range(classes) if classes == 2 else ():
        place = references[places[:, c, 0]]
        consider((features(augmenter(inputs[place], seed)) - augmented_x).norm(dim=1), place, c)
    if classes > 2:
        rival = rivals.argmin(1)
        place = references[places[rows, rival, 0]]
        same_draw = features(augmenter(inputs[place], seed))
        consider((same_draw - augmented_x).norm(dim=1), place, rival)
    for draw in range(draws):
        drawn = features(augmenter(inputs[references], seed + 1 + draw))
        for c in range(classes):
            members = (ref_labels == c).nonzero().flatten()
            if len(members):
                best = [distances(part, drawn[members]).min(1) for part in augmented_x.split(1024)]
                place = references[members[torch.cat([b.indices for b in best])]]
                consider(torch.cat([b.values for b in best]), place, c)
    other = torch.ones(len(x), classes, dtype=torch.bool)
    other[rows, own] = False
    before = clean[:, :, 0] < DOUBT * clean[rows, own, :1]
    after = near < DOUBT * near[rows, own][:, None]
    return _Doubts(own, queries, before & other, after & other, nearest_place)


@dataclass(frozen=True)
class ContentLeft:
    """How much of the ink of images is left: mean share, and share of images that lost half."""

    mean: float
    lost_half: float


def content_left(inputs: Tensor, augmented: Tensor) -> ContentLeft | None:
    """Ink left after augmentation, for images on a plain background; else None.

    Ink is the sum of absolute differences from the background, the commonest value of the border.
    """
    if inputs.ndim < 3 or inputs.shape != augmented.shape:
        return None
    border = torch.cat(
        [
            inputs[..., 0, :].flatten(),
            inputs[..., -1, :].flatten(),
            inputs[..., :, 0].flatten(),
            inputs[..., :, -1].flatten(),
        ]
    )
    background = border.median()
    if float((border == background).float().mean()) < 0.8:
        return None
    before = (inputs - background).abs().flatten(1).sum(1)
    after = (augmented - background).abs().flatten(1).sum(1)
    drawn = before > 0
    if not bool(drawn.any()):
        return None
    left = after[drawn] / before[drawn]
    return ContentLeft(float(left.mean()), float((left < 0.5).float().mean()))


def _wants_generator(augment: Callable[..., Any]) -> bool:
    try:
        parameters = list(inspect.signature(augment).parameters.values())
    except (TypeError, ValueError):
        return False
    needed = [
        p
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return len(needed) >= 2 or (len(parameters) >= 2 and parameters[1].name == "generator")
