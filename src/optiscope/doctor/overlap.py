"""Whether samples of one split are in another: exactly, nearly, shifted, mirrored or noisy.

Exact copies are found by hashes of all samples that were read and verified value by value. Where
samples of the smaller split equal one another as well (few distinct values, blank samples), equal
values prove nothing: then the share of matches among equally many samples of the other split is
held against the share within the split itself.

Near copies. The nearest references of a query are candidates: by low frequencies of the samples, of
mirrored ones, and by the spectrum, which no shift changes. The score is the distance to the closest
candidate divided by the distance to those farther off (for images: after the best shift of each).
The ratio needs no scale, and hardly depends on the number of references. The share of queries with
a score below each of several limits is held against the smaller of two baselines: queries of the
reference split against the rest of it, and queries against the rest of their own split. So copies
*within* a split are no leak, and data whose samples are naturally alike are no leak either.

Sequences. A sample of tokens is in another split where half of its n-grams are there.

Index legend: n samples, q queries, r references, f features, L tokens.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import binom, norm
from torch import Tensor

from optiscope.doctor.nearest import FeatureMap, is_image, nearest

__all__ = ["ExactOverlap", "NearOverlap", "exact_overlap", "near_overlap", "sequence_overlap"]

NEIGHBOR = 30  # the local scale: farther than a handful of copies of the nearest
LIMITS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
Z_THRESHOLD = 4.0  # seven limits and up to three pairs of splits: 1e-3 altogether
MOST_QUERIES = 700
MOST_BYTES = 1 << 31


@dataclass(frozen=True)
class ExactOverlap:
    """Samples of one split that are equal to samples of another.

    ``matches`` [m, 2] are places of (sample, equal sample in the other split), ``share`` of the
    samples, ``z`` the excess over chance in standard errors (infinite where chance has no part),
    ``other_target`` the share of matches whose targets differ.
    """

    matches: Tensor
    share: float
    z: float
    other_target: float


@dataclass(frozen=True)
class NearOverlap:
    """Near copies of samples of one split in another.

    ``share`` of queries with a score below ``limit``, ``baseline`` the share by chance; ``z`` the
    significance in standard errors; ``pairs`` [m, 2] places of (query, reference), ``kinds`` [m]
    how the query was changed.
    """

    share: float
    baseline: float
    limit: float
    z: float
    queries: int
    pairs: Tensor
    kinds: tuple[str, ...]

    @property
    def leaked(self) -> bool:
        """Whether the excess is beyond the threshold, and at least half a percent."""
        return self.z >= Z_THRESHOLD and self.share - self.baseline >= 0.005


def hashes(samples: Tensor) -> Tensor:
    """A 64-bit number [n] per sample, equal for equal samples (0.0 and -0.0 alike)."""
    flat = samples.reshape(len(samples), -1)
    if flat.is_floating_point():
        flat = flat.float() + 0.0 if flat.dtype != torch.float64 else flat + 0.0
    rows = np.ascontiguousarray(flat.numpy())
    return torch.tensor([hash(row.tobytes()) for row in rows], dtype=torch.int64)


def exact_overlap(
    queries: Tensor,
    references: Tensor,
    query_targets: Tensor | None = None,
    reference_targets: Tensor | None = None,
    seed: int = 0,
) -> ExactOverlap:
    """Samples among ``queries`` [q, ...] that equal one of ``references`` [r, ...]."""
    none = ExactOverlap(torch.zeros(0, 2, dtype=torch.int64), 0.0, 0.0, 0.0)
    if queries.shape[1:] != references.shape[1:]:
        return none
    if queries.dtype != references.dtype:
        common = torch.promote_types(queries.dtype, references.dtype)
        queries, references = queries.to(common), references.to(common)
    a, b = hashes(queries), hashes(references)
    match = _partner(a, b)
    places = (match >= 0).nonzero().flatten()
    if len(places):
        equal = (queries[places] == references[match[places]]).flatten(1).all(1)
        places = places[equal]
    matches = torch.stack([places, match[places]], 1)
    if not len(matches):
        return none
    share = len(matches) / len(queries)
    other = 0.0
    if query_targets is not None and reference_targets is not None:
        pair = query_targets[matches[:, 0]], reference_targets[matches[:, 1]]
        if pair[0].shape == pair[1].shape:
            other = (
                float((pair[0] != pair[1]).flatten(1).any(1).float().mean())
                if (pair[0].ndim > 1)
                else float((pair[0] != pair[1]).float().mean())
            )
    within = _twins(a)
    z = math.inf
    if within:
        generator = torch.Generator().manual_seed(seed)
        size = min(len(a), len(b))
        few = torch.randperm(len(b), generator=generator)[:size]
        hits = float((_partner(a, b[few]) >= 0).sum())
        expected = within * (size / len(a))
        z = (hits - expected) / math.sqrt(hits + expected + 1)
        rare = within <= 0.002 * len(a)
        if rare and share > 5 * within / len(a) + 0.002:  # a few blank samples explain a few
            z = max(z, math.inf)
    return ExactOverlap(matches, share, z, other)


def _partner(a: Tensor, b: Tensor) -> Tensor:
    """For each of a [q], the place of an equal number in b [r], else -1."""
    ordered, order = b.sort()
    place = torch.searchsorted(ordered, a).clamp_max(len(b) - 1)
    return torch.where(ordered[place] == a, order[place], -1)


def _twins(a: Tensor) -> int:
    """How many have an equal among the others."""
    _, inverse, counts = a.unique(return_inverse=True, return_counts=True)
    return int((counts[inverse] > 1).sum())


def near_overlap(
    queries: Tensor,
    references: Tensor,
    *,
    seed: int = 0,
    most_queries: int = MOST_QUERIES,
    most_references: int = 60_000,
    seconds: float = 20.0,
) -> NearOverlap | None:
    """Near copies among ``queries`` [q, ...] of ``references`` [r, ...]; None with too few samples.

    Exact copies count too. Inputs that are not numbers of a continuous kind have no near copies.
    """
    if queries.shape[1:] != references.shape[1:] or not queries.dtype.is_floating_point:
        return None
    if len(queries) < 50 or len(references) < 3 * NEIGHBOR:
        return None
    generator = torch.Generator().manual_seed(seed)
    references, places = _distinct(references, most_references, generator)
    if is_image(queries) and queries.ndim == 3:
        queries, references = queries[:, None], references[:, None]
    known = _Known(references)
    ways = (False, True) if is_image(queries) else (False,)
    began = time.process_time()
    trial = min(32, len(references))
    for aligned in ways:
        _scores(references[:trial], known, known.known, references, aligned=aligned)
    each = (time.process_time() - began) / trial / torch.get_num_threads()
    most_queries = max(250, min(most_queries, int(seconds / (2 * each))))  # baselines cost as much
    chosen = torch.randperm(len(queries), generator=generator)[:most_queries]
    own = torch.randperm(len(references), generator=generator)[: most_queries // 2]
    inside, _ = _distinct(queries, most_references, generator)
    mine = torch.randperm(len(inside), generator=generator)[: most_queries // 2]
    best: tuple[float, float, float, float, tuple[Tensor, Tensor, Tensor]] | None = None
    for aligned in ways:
        result = _scores(queries[chosen], known, known.known, references, aligned=aligned)
        baselines = [
            _scores(references[own], known, known.known, references, own, aligned=aligned)[0]
        ]
        if len(inside) >= 3 * NEIGHBOR:
            within = known.of(inside)
            baselines.append(_scores(inside[mine], known, within, inside, mine, aligned=aligned)[0])
        for limit in LIMITS:
            hits = int((result[0] < limit).sum())
            rate = min(_chance(b, limit) for b in baselines)
            tail = max(float(binom.sf(hits - 1, len(chosen), rate)), 1e-300)
            z = float(norm.isf(tail)) if hits else 0.0
            if best is None or z > best[0]:
                best = (z, hits / len(chosen), rate, limit, result)
    assert best is not None
    z, share, rate, limit, (scores, nearest_place, kind) = best
    hit = (scores < limit).nonzero().flatten()
    hit = hit[scores[hit].argsort()][:12]
    pairs = torch.stack([chosen[hit], places[nearest_place[hit]]], 1)
    kinds = tuple(_KINDS[int(k)] for k in kind[hit])
    return NearOverlap(share, rate, limit, z, len(scores), pairs, kinds)


def _chance(baseline: Tensor, limit: float) -> float:
    """Share of scores below ``limit`` by chance, at the upper end of its uncertainty.

    Where no baseline score is that low, the lower tail is continued as a power law (Hill's
    estimator on the lowest tenth): distances to neighbors follow one, with the intrinsic dimension
    of the data as its exponent.
    """
    count = len(baseline)
    hits = int((baseline < limit).sum())
    if hits:
        share = hits / count
        return min(1.0, share + 2 * math.sqrt(share * (1 - share) / count) + 1 / count)
    ordered = baseline.sort().values
    tail = max(10, count // 10)
    top = float(ordered[tail])
    logs = torch.log(top / ordered[:tail].clamp_min(1e-9)).mean()
    exponent = min(max(1 / max(float(logs), 1e-3), 1.0), 20.0)
    return min(1 / count, max(tail / count * math.pow(limit / top, exponent), 1e-5))


def _distinct(samples: Tensor, most: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Samples without exact copies, at most ``most``, and their places."""
    _, inverse = hashes(samples).unique(return_inverse=True)
    first = torch.full((int(inverse.max()) + 1,), len(samples), dtype=torch.int64)
    first.scatter_reduce_(0, inverse, torch.arange(len(samples)), "amin")
    if len(first) > most:
        first = first[torch.randperm(len(first), generator=generator)[:most]]
    first = first.sort().values
    return samples[first], first


_KINDS = ("near", "mirrored", "upside down", "near", "mirrored")
LOW = 8  # lowest spatial frequencies of each axis


def _variants(images: Tensor) -> list[tuple[int, bool, Tensor]]:
    """Changed samples: place of their kind in ``_KINDS``, and whether their spectra
    are compared."""
    made = [(0, False, images)]
    if is_image(images):
        mirrored = images.flip(-1)
        made += [(1, False, mirrored), (2, False, images.flip(-2))]
        made += [(3, True, images), (4, True, mirrored)]
    return made


def _spectrum(images: Tensor) -> Tensor:
    """Root magnitudes [n, f] of low spatial frequencies: the same wherever the content stands."""
    magnitude = torch.fft.rfft2(images.float()).abs().sqrt()
    rows = torch.cat([magnitude[..., :LOW, :LOW], magnitude[..., -LOW + 1 :, :LOW]], -2)
    return rows.flatten(1)


class _Known:
    """Feature maps fitted on references: of the samples, and of spectra where they are images."""

    def __init__(self, references: Tensor) -> None:
        self.maps = {False: FeatureMap(references)}
        if is_image(references):
            self.maps[True] = FeatureMap(_spectrum(references), standardize=False)
        self.known = self.of(references)

    def of(self, references: Tensor) -> dict[bool, Tensor]:
        """Features of other references in the same spaces."""
        known = {False: self.maps[False](references)}
        if True in self.maps:
            known[True] = self.maps[True](_spectrum(references))
        return known


def _scores(
    queries: Tensor,
    known: _Known,
    features: dict[bool, Tensor],
    references: Tensor,
    drop: Tensor | None = None,
    *,
    aligned: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Score, place of the nearest reference and kind of variant for each query [q].

    Scores are of features, which damp noise, or of images ``aligned`` by their best shift.
    ``drop`` [q] are places of the queries among the references: not compared with themselves.
    """
    count = min(NEIGHBOR + 1, len(references))
    scores = torch.full((len(queries),), math.inf)
    place = torch.zeros(len(queries), dtype=torch.int64)
    kind = torch.zeros(len(queries), dtype=torch.int64)
    for number, spectral, changed in _variants(queries):
        asked = _spectrum(changed) if spectral else changed
        values, places = nearest(known.maps[spectral](asked), features[spectral], count)
        if aligned:
            values = _aligned(changed, references, places)
        elif spectral:
            continue
        if drop is not None:
            values = torch.where(places == drop[:, None], torch.inf, values)
        least = values.min(1)
        finite = torch.where(torch.isinf(values), torch.nan, values)
        usual = finite.nanquantile(0.9, 1)
        ratio = least.values / usual.clamp_min(1e-9)
        closer = ratio < scores
        scores = torch.where(closer, ratio, scores)
        place = torch.where(closer, places.gather(1, least.indices[:, None])[:, 0], place)
        kind = torch.where(closer, number, kind)
    return scores, place, kind


def _aligned(images: Tensor, references: Tensor, places: Tensor) -> Tensor:
    """Distances [q, k] of images to references at ``places`` [q, k], where they fit best.

    The distance is sqrt(2 - 2 c), c the largest correlation over shifts by up to a quarter of the
    image, so that neither a shift nor brightness or contrast counts. A blur of 2 x 2 pixels damps
    noise.
    """
    height, width = images.shape[-2:]
    down = torch.arange(height) < height // 4 + 1
    down |= torch.arange(height) >= height - height // 4
    right = torch.arange(width) < width // 4 + 1
    right |= torch.arange(width) >= width - width // 4
    allowed = down[:, None] & right
    rows = []
    for some, near in zip(images.split(64), places.split(64), strict=True):
        a = torch.fft.rfft2(_blurred(some))[:, None]
        b = torch.fft.rfft2(_blurred(references[near.flatten()])).unflatten(0, near.shape)
        together = torch.fft.irfft2((a * b.conj()).sum(2), s=(height, width))
        shift = torch.where(allowed, together, -torch.inf).flatten(2).argmax(2)
        rows.append(_where_they_overlap(some, references, near, shift))
    return torch.cat(rows)


def _where_they_overlap(
    images: Tensor, references: Tensor, places: Tensor, shift: Tensor
) -> Tensor:
    """Distances [q, k] over the pixels that an image and a reference share after a shift [q, k]."""
    height, width = images.shape[-2:]
    down, right = shift // width, shift % width
    down = torch.where(down > height // 2, down - height, down)
    right = torch.where(right > width // 2, right - width, right)
    i = torch.arange(height) - down[..., None]
    j = torch.arange(width) - right[..., None]
    inside = ((i >= 0) & (i < height))[..., :, None] & ((j >= 0) & (j < width))[..., None, :]
    x = _smooth(references)[places] if len(references) < 2048 else _smooth(references[places])
    x = x.gather(-2, (i % height)[:, :, None, :, None].expand(*x.shape))
    x = x.gather(-1, (j % width)[:, :, None, None, :].expand(*x.shape))
    mask = inside[:, :, None].float()
    a, b = (_standard(t, mask) for t in (_smooth(images)[:, None] * torch.ones_like(mask), x))
    correlation = (a * b).flatten(2).sum(2)
    return (2 - 2 * correlation).clamp_min(0).sqrt()


def _standard(images: Tensor, mask: Tensor) -> Tensor:
    """Images of mean 0 and norm 1 over the pixels of a mask."""
    count = mask.flatten(2).sum(2) * images.shape[2]
    mean = (images * mask).flatten(2).sum(2) / count
    centered = (images - mean[:, :, None, None, None]) * mask
    length: Tensor = centered.flatten(2).norm(dim=2).clamp_min(1e-9)
    return centered / length[:, :, None, None, None]


def _smooth(images: Tensor) -> Tensor:
    """Images [..., C, H, W], each pixel averaged with three neighbors."""
    x = images.float()
    x = (x + x.roll(1, -1)) / 2
    return (x + x.roll(1, -2)) / 2


def _blurred(images: Tensor) -> Tensor:
    """Smooth images [n, C, H, W] of mean 0 and norm 1."""
    x = _smooth(images)
    x = x - x.mean((1, 2, 3), keepdim=True)
    length: Tensor = x.flatten(1).norm(dim=1).clamp_min(1e-9)
    return x / length[:, None, None, None]


def sequence_overlap(
    queries: Tensor, references: Tensor, *, most_queries: int = 2000, seed: int = 0
) -> tuple[float, Tensor] | None:
    """Share of sequences [q, L] half of whose n-grams are in ``references`` [r, L], and examples.

    n is 12 for vocabularies beyond 1,000 tokens and 24 below, so that natural repetition is rare;
    None where sequences are shorter than n + 4.
    """
    if (
        queries.dtype.is_floating_point
        or queries.ndim != 2
        or queries.shape[1:] != (references.shape[1:])
    ):
        return None
    size = 12 if int(references.max()) > 1000 else 24
    length = queries.shape[1]
    if length < size + 4:
        return None
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(queries), generator=generator)[:most_queries]
    known = _grams(references, size, step=1)
    found_before = _grams(queries[chosen], size, step=max(1, size // 4))
    keys, order = known.flatten().sort()
    flat = found_before.flatten()
    place = torch.searchsorted(keys, flat).clamp_max(len(keys) - 1)
    present = (keys[place] == flat).view(found_before.shape)
    leaked = present.float().mean(1) >= 0.5
    rows = leaked.nonzero().flatten()[:12]
    first = present[rows].int().argmax(1)
    where = order[place.view(found_before.shape)[rows, first]] // known.shape[1]
    return float(leaked.float().mean()), torch.stack([chosen[rows], where], 1)


def _grams(tokens: Tensor, size: int, step: int) -> Tensor:
    """Hashes [n, g] of the n-grams of sequences [n, L]; varied tokens only."""
    generator = torch.Generator().manual_seed(21)
    bound = 2**62
    factors = torch.randint(-bound, bound, (size,), generator=generator) | 1
    total = torch.zeros(len(tokens), (tokens.shape[1] - size) // step + 1, dtype=torch.int64)
    for offset in range(size):
        last = tokens.shape[1] - size + offset + 1
        part = tokens[:, offset:last:step].to(torch.int64)
        total += (part ^ (part << 7)) * factors[offset]
    return total
