"""Whether labels belong to their inputs, judged by the labels of the nearest neighbors.

Index legend: n samples, q queries, K neighbors, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from optiscope.doctor.nearest import FeatureMap, nearest

__all__ = ["LabelAgreement", "label_agreement", "regression_agreement"]

NEIGHBORS = 5
REGION = 50  # neighbors that describe the region of a query
FEW = 8  # classes apart from the first that a floor needs


@dataclass(frozen=True)
class LabelAgreement:
    """How labels agree with those of neighbors.

    ``accuracy`` of 5 neighbors' vote, ``chance`` what the class counts alone would give (the best
    guess from counts), ``linear`` accuracy of a linear classifier, ``z`` the larger excess over
    chance in standard errors, ``noise`` the estimated share of labels drawn at random, ``shift``
    the offset in the order of samples at which labels do fit, or 0.
    """

    accuracy: float
    linear: float
    chance: float
    z: float
    noise: float
    noise_samples: int
    shift: int
    queries: int


def label_agreement(
    inputs: Tensor,
    labels: Tensor,
    *,
    query_inputs: Tensor | None = None,
    query_labels: Tensor | None = None,
    seed: int = 0,
    most_queries: int = 1500,
    most_references: int = 10_000,
) -> LabelAgreement:
    """Agreement of labels [n] in 0..C-1 with inputs [n, ...]; queries from another split if given.

    The order of samples must be that of the data: a shift by one sample is looked for.
    """
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    if query_inputs is None or query_labels is None:
        count = min(most_queries, len(inputs) // 3)
        q, r = order[:count], order[count : count + most_references]
        query_inputs, query_labels = inputs[q], labels[q]
    else:
        r = order[:most_references]
        pick = torch.randperm(len(query_inputs), generator=torch.Generator().manual_seed(seed))
        query_inputs, query_labels = (
            query_inputs[pick[:most_queries]],
            query_labels[pick[:most_queries]],
        )
        q = None
    classes = int(max(labels.max(), query_labels.max())) + 1
    features = FeatureMap(inputs[r])
    known, asked = features(inputs[r]), features(query_inputs)
    region = max(12, min(REGION, len(r) // (4 * classes)))
    _, places = nearest(asked, known, region)

    def accuracy(of: Tensor, truth: Tensor) -> float:
        votes = torch.nn.functional.one_hot(of[r][places[:, :NEIGHBORS]], classes).sum(1)
        return float((votes.argmax(1) == truth).float().mean())

    counts = torch.bincount(labels[r], minlength=classes).float()
    chance = float((query_labels == counts.argmax()).float().mean())
    chance = max(chance, float((counts / counts.sum()).square().sum()))
    near = accuracy(labels, query_labels)
    linear = _linear_accuracy(known, labels[r], asked, query_labels, classes)
    error = math.sqrt(max(chance * (1 - chance), 1e-4) / len(query_labels))
    z = (max(near, linear) - chance) / error
    noise, among = _noise_floor(labels[r][places], classes)
    noise = max(0.0, noise - 1.5 / math.sqrt(len(r)))  # small regions reach across classes
    shift = 0
    if q is not None and z < 6:
        for offset in (1, -1):
            rolled = labels.roll(offset)
            if (accuracy(rolled, rolled[q]) - chance) / error > 8:
                shift = offset
    return LabelAgreement(near, linear, chance, z, noise, among, shift, len(query_labels))


def _linear_accuracy(
    known: Tensor, labels: Tensor, asked: Tensor, truth: Tensor, classes: int
) -> float:
    """Accuracy of ridge regression on one-hot labels."""
    target = torch.nn.functional.one_hot(labels, classes).float()
    one = torch.ones(len(known), 1)
    x = torch.cat([known / known.std().clamp_min(1e-12), one], 1)
    gram = x.T @ x + 1e-2 * len(x) * torch.eye(x.shape[1])
    weights = torch.linalg.solve(gram, x.T @ target)
    ask = torch.cat([asked / known.std().clamp_min(1e-12), torch.ones(len(asked), 1)], 1)
    return float(((ask @ weights).argmax(1) == truth).float().mean())


def _noise_floor(neighbors: Tensor, classes: int) -> tuple[float, int]:
    """Estimated share of random labels, from neighbors' labels [q, K].

    Natural doubt lies between a few classes. Labels drawn at random reach all classes, also those
    that no sample of the region resembles: in each region (queries with the same commonest label)
    the lower quartile of the other classes' shares, times C, estimates the share of random labels.
    Only regions with a clear majority count. Data without such regions give 0.
    """
    if classes < FEW:
        return 0.0, 0
    shares = torch.nn.functional.one_hot(neighbors, classes).float().mean(1)  # [q, C]
    top = shares.max(1)
    clear = top.values >= 0.4
    floors, weights = [], []
    for c in range(classes):
        rows = clear & (top.indices == c)
        if int(rows.sum()) >= 15:
            mean = shares[rows].mean(0)
            others = torch.cat([mean[:c], mean[c + 1 :]])
            floors.append(float(others.quantile(0.25)) * classes)
            weights.append(float(rows.sum()))
    if not floors or sum(weights) < 0.3 * len(shares):
        return 0.0, 0
    total = sum(f * w for f, w in zip(floors, weights, strict=True)) / sum(weights)
    return total, int(sum(weights))


def regression_agreement(inputs: Tensor, targets: Tensor, *, seed: int = 0) -> tuple[float, float]:
    """Correlation of targets with neighbors' or a linear fit, and its error by chance.

    Inputs [n, ...], targets [n, ...] of real numbers.
    """
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    count = min(1500, len(inputs) // 3)
    q, r = order[:count], order[count : count + 10_000]
    y = targets.reshape(len(targets), -1).float()
    deviation = y[r].std(0)
    varies = deviation > 1e-3 * deviation.max()  # a column that hardly varies says nothing
    y = (y[:, varies] - y[r][:, varies].mean(0)) / deviation[varies]
    features = FeatureMap(inputs[r])
    known, asked = features(inputs[r]), features(inputs[q])
    _, places = nearest(asked, known, NEIGHBORS)
    near = y[r][places].mean(1)
    x = torch.cat([known / known.std().clamp_min(1e-12), torch.ones(len(known), 1)], 1)
    ask = torch.cat([asked / known.std().clamp_min(1e-12), torch.ones(len(asked), 1)], 1)
    gram = x.T @ x + 1e-2 * len(x) * torch.eye(x.shape[1])
    linear = ask @ torch.linalg.solve(gram, x.T @ y[r])
    best = 0.0
    for guess in (near, linear):
        a = guess - guess.mean(0)
        b = y[q] - y[q].mean(0)
        correlation = (a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-12)
        best = max(best, float(correlation))
    return best, 1 / math.sqrt(max(count, 1))
