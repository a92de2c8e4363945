"""What a watched step costs over the same step without a watch.

Three networks (an MLP of 1.3 million weights, a convolutional network, a tiny transformer) train
with and without a watch in turns; a round is a pair of runs that follow one another, in alternating
order.
Reported are median and quartiles of the ratio over the rounds. Nothing else should run meanwhile.

Run with ``python benchmarks/watch_overhead.py --rounds 30``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import optiscope


class TinyTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(64, 64), nn.Embedding(32, 64)
        layer = nn.TransformerEncoderLayer(64, 4, 128, 0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(64, 64)

    def forward(self, tokens: Tensor) -> Tensor:
        n = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(n)
        h = self.embed(tokens) + self.place(torch.arange(n))
        return self.head(self.body(h, mask=mask, is_causal=True)).transpose(1, 2)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 1000), nn.ReLU(), nn.Linear(1000, 500), nn.ReLU(),
                         nn.Linear(500, 100), nn.ReLU(), nn.Linear(100, 10))  # fmt: skip


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(3136, 1024), nn.ReLU(), nn.Linear(1024, 10))  # fmt: skip


def images(*shape: int) -> tuple[Tensor, Tensor]:
    return torch.randn(128, *shape), torch.randint(0, 10, (128,))


def words() -> tuple[Tensor, Tensor]:
    return torch.randint(0, 64, (32, 32)), torch.randint(0, 64, (32, 32))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, Tensor]], int]] = {
    "mlp": (mlp, lambda: images(784), 60),
    "convolution": (convolutional, lambda: images(1, 28, 28), 12),
    "transformer": (TinyTransformer, words, 60),
}
WATCHES: dict[str, dict[str, Any]] = {
    "structure": {"instruments": []},
    "light": {"instruments": "light"},
    "noise": {"instruments": "noise"},
}


def seconds(name: str, options: dict[str, Any] | None, steps: int) -> float:
    """Processor seconds of ``steps`` steps after ten that warm up."""
    torch.manual_seed(0)
    make, draw, _ = NETWORKS[name]
    model, criterion = make(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    watch = None
    if options is not None:
        watch = optiscope.watch(model, optimizer, criterion, on_finding="log", **options)
    batches = [draw() for _ in range(8)]
    start = 0.0
    for step in range(steps + 10):
        if step == 10:
            start = time.process_time()
        x, y = batches[int(torch.randint(8, ()))]
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
    spent = time.process_time() - start
    if watch is not None:
        watch.close()
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.networks.split(","):
        steps = NETWORKS[name][2]
        for label, options in WATCHES.items():
            ratios = []
            for turn in range(arguments.rounds):
                order = (None, options) if turn % 2 else (options, None)
                spent = {o is None: seconds(name, o, steps) for o in order}
                ratios.append(spent[False] / spent[True])
            low, middle, high = statistics.quantiles(ratios, n=4)
            print(f"{name:12s} {label:10s} {middle:.3f} [{low:.3f}, {high:.3f}]", flush=True)


if __name__ == "__main__":
    main()
