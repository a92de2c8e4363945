"""Development problems on generated data: classes of a graph's nodes, and clicks of users on items.

Index legend: S samples, N nodes of a graph, F features of a node, K classes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from optiscope.data.samples import Splits, TensorSamples
from optiscope.problems.development.parts import RandomParts
from optiscope.problems.losses import TOKEN_ACCURACY, token_cross_entropy
from optiscope.problems.models.graph import GraphNetwork
from optiscope.problems.models.recommender import Recommender
from optiscope.problems.problem import Metric, Problem

__all__ = ["dev_graph", "dev_recommender"]

NODES, FEATURES, CLASSES = 16, 8, 5
GRAPHS, GRAPHS_VALID, GRAPHS_TEST, GRAPHS_TRAIN_EVAL = 8_000, 500, 250, 250
USERS, ITEMS, TASTES = 1_500, 800, 6
PAIRS, PAIRS_VALID, PAIRS_TEST, PAIRS_TRAIN_EVAL = 120_000, 6_000, 3_000, 2_000


def propagation(edges: Tensor) -> Tensor:
    """D^(-1/2) (A + I) D^(-1/2) of symmetric adjacency matrices A [S, N, N] without loops."""
    looped = edges + torch.eye(edges.shape[-1])
    scale = looped.sum(-1).rsqrt()
    return scale.unsqueeze(-1) * looped * scale.unsqueeze(-2)


def _graphs(data_dir: Any, *, epoch: int) -> Splits:
    """Random graphs whose nodes belong to the class that a random network of two steps says."""
    draw = torch.Generator().manual_seed(42)
    count = GRAPHS + GRAPHS_VALID + GRAPHS_TEST
    upper = (torch.rand(count, NODES, NODES, generator=draw) < 0.2).float().triu(1)
    spread = propagation(upper + upper.transpose(1, 2))
    nodes = torch.randn(count, NODES, FEATURES, generator=draw)
    first = torch.randn(FEATURES, 16, generator=draw) * (2.0 / FEATURES**0.5)
    second = torch.randn(16, CLASSES, generator=draw)
    logits = spread @ torch.tanh(spread @ nodes @ first) @ second
    logits = logits + 0.3 * torch.randn(logits.shape, generator=draw)
    samples = TensorSamples(torch.cat([spread, nodes], dim=-1), logits.argmax(-1))
    return _parts(
        samples, (GRAPHS, GRAPHS_VALID, GRAPHS_TEST), evaluated=GRAPHS_TRAIN_EVAL, epoch=epoch
    )


def _clicks(data_dir: Any, *, epoch: int) -> Splits:
    """Pairs of a user and an item and whether there was a click; some items are asked for often.

    The probability follows the product of tastes of rank six and an item's own appeal. No pair
    occurs twice.
    """
    draw = torch.Generator().manual_seed(42)
    tastes = torch.randn(USERS, TASTES, generator=draw)
    items = torch.randn(ITEMS, TASTES, generator=draw)
    appeal = 0.5 * torch.randn(ITEMS, generator=draw)
    popularity = 1.0 / torch.arange(10, ITEMS + 10).float()
    count = PAIRS + PAIRS_VALID + PAIRS_TEST
    user = torch.randint(USERS, (3 * count,), generator=draw)
    item = torch.multinomial(popularity, 3 * count, replacement=True, generator=draw)
    pairs = torch.unique(user * ITEMS + item)
    pairs = pairs[torch.randperm(len(pairs), generator=draw)[:count]]
    user, item = pairs // ITEMS, pairs % ITEMS
    logits = 1.5 * (tastes[user] * items[item]).sum(1) / TASTES**0.5 + appeal[item]
    clicked = torch.rand(count, generator=draw) < logits.sigmoid()
    samples = TensorSamples(torch.stack([user, item], dim=1), clicked.long())
    return _parts(
        samples, (PAIRS, PAIRS_VALID, PAIRS_TEST), evaluated=PAIRS_TRAIN_EVAL, epoch=epoch
    )


def _parts(
    samples: TensorSamples, sizes: tuple[int, int, int], *, evaluated: int, epoch: int
) -> Splits:
    train, valid, test = torch.arange(sum(sizes)).split(list(sizes))
    return Splits(
        train=RandomParts(samples.subset(train), epoch),
        train_eval=samples.subset(train[:evaluated]),
        valid=samples.subset(valid),
        test=samples.subset(test),
    )


def click_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """-log probability of what happened: logits [B], targets 0 or 1 [B] -> [B], in nats."""
    wanted = targets.to(outputs.dtype)
    return F.binary_cross_entropy_with_logits(outputs, wanted, reduction="none")


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 where the likelier of both happened, else 0; [B]."""
    return ((outputs > 0) == (targets > 0)).to(outputs.dtype)


_generated = partial(
    Problem,
    epochs=24,
    dataset="synthetic",
    source="this package, to develop optimizers on",
    licence="none needed (generated)",
)

dev_graph = _generated(
    name="dev_graph",
    make_model=partial(GraphNetwork, FEATURES, 48, 3, CLASSES),
    loss=token_cross_entropy,
    data=partial(_graphs, epoch=1_024),
    batch_size=32,
    metric=TOKEN_ACCURACY,
    parameters=5_381,
    notes="An epoch is 1,024 graphs, a fresh random part of 8,000. Labels come from a random "
    "network of two steps with noise, so that no network reaches a loss of zero.",
)

dev_recommender = _generated(
    name="dev_recommender",
    make_model=partial(Recommender, USERS, ITEMS, 24, 64),
    loss=click_loss,
    data=partial(_clicks, epoch=7_680),
    batch_size=128,
    metric=Metric("accuracy", accuracy, higher_is_better=True),
    parameters=58_401,
    notes="An epoch is 7,680 pairs, a fresh random part of 120,000.",
)
