"""What a watched step costs over the same step without a watch.

Three networks (the MLP of ``mnist_mlp``, a convolutional network of two convolutions and two linear
layers, a tiny transformer) train with and without a watch, on data that can be learned. Both runs
are alive at once and take turns in blocks of steps, in alternating order. Reported are the ratio of
the processor time of all steps (the early looks included) and median and quartiles of the ratios of
the blocks of the last half (the steady state). Nothing else should run meanwhile.

Run with ``python benchmarks/watch_overhead.py``; ``--out`` keeps the figures with the machine.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
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


def images(*shape: int) -> list[tuple[Tensor, Tensor]]:
    means = 0.3 * torch.randn(10, *shape)
    labels = [torch.randint(0, 10, (128,)) for _ in range(64)]
    return [(means[y] + torch.randn(128, *shape), y) for y in labels]


def words() -> list[tuple[Tensor, Tensor]]:
    """Each token names the next: (3 t + 1) mod 64."""
    tokens = [torch.randint(0, 64, (32, 32)) for _ in range(64)]
    return [(t, (3 * t + 1) % 64) for t in tokens]


Data = list[tuple[Tensor, Tensor]]
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Data], int]] = {
    "mlp": (mlp, lambda: images(784), 1000),
    "convolution": (convolutional, lambda: images(1, 28, 28), 160),
    "transformer": (TinyTransformer, words, 600),
}
WATCHES: dict[str, dict[str, Any]] = {
    "structure": {"instruments": []},
    "light": {"instruments": "light"},
    "gradient tests, every step": {
        "instruments": ["gradient tests"], "every": 1, "budget": 1.0, "rules": "none",
    },
}  # fmt: skip


class Training:
    """One run that goes on block by block."""

    def __init__(self, name: str, options: dict[str, Any] | None) -> None:
        torch.manual_seed(0)
        make, draw, _ = NETWORKS[name]
        self.model, self.criterion, self.batches = make(), nn.CrossEntropyLoss(), draw()
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.05)
        self.order = torch.Generator().manual_seed(1)
        self.watch = None
        if options is not None:
            self.watch = optiscope.watch(
                self.model, self.optimizer, self.criterion, on_finding="log", **options
            )

    def block(self, steps: int) -> float:
        """Processor seconds of some steps."""
        picked = torch.randint(len(self.batches), (steps,), generator=self.order).tolist()
        start = time.process_time()
        for place in picked:
            x, y = self.batches[place]
            self.optimizer.zero_grad()
            self.criterion(self.model(x), y).backward()
            self.optimizer.step()
        return time.process_time() - start


def compare(name: str, options: dict[str, Any], steps: int, block: int) -> dict[str, Any]:
    """Ratios of a watched run to a bare one."""
    bare, watched = Training(name, None), Training(name, options)
    spent: list[tuple[float, float]] = []
    for turn in range(steps // block):
        first = bare.block(block) if turn % 2 else watched.block(block)
        second = watched.block(block) if turn % 2 else bare.block(block)
        spent.append((first, second) if turn % 2 else (second, first))
    ratios = [b / a for a, b in spent[len(spent) // 2 :]]
    low, middle, high = statistics.quantiles(ratios, n=4)
    watch = watched.watch
    assert watch is not None
    watch.close()
    return {
        "steps": steps,
        "pairs": len(spent),
        "step_ms": 1000 * sum(a for a, _ in spent) / steps,
        "all_steps": sum(b for _, b in spent) / sum(a for a, _ in spent),
        "second_half": [low, middle, high],
        "looks": watch.budget.looks,
        "findings": [finding.rule for finding in watch.findings if finding.is_alarm],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--steps", type=int, help="of every network [default: its own]")
    parser.add_argument("--block", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, Any] = {
        "machine": {"processor": platform.processor() or platform.machine(),
                    "torch": torch.__version__, "threads": 1},
    }  # fmt: skip
    for name in arguments.networks.split(","):
        for label, options in WATCHES.items():
            every = label.startswith("gradient")
            if every and name != "mlp":
                continue
            steps = arguments.steps or (200 if every else NETWORKS[name][2])
            figure = compare(name, options, steps, arguments.block)
            figures[f"{name}, {label}"] = figure
            low, middle, high = figure["second_half"]
            print(
                f"{name:12s} {label:27s} {figure['step_ms']:7.2f} ms a step, {steps} steps "
                f"{figure['all_steps']:.3f}, second half {middle:.3f} [{low:.3f}, {high:.3f}], "
                f"{figure['looks']} looks {figure['findings'] or ''}",
                flush=True,
            )
            if arguments.out is not None:
                arguments.out.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
