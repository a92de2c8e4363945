"""Figure of the step lengths that Lark finds: several times apart on two problems.

Trains ``mnist_logreg`` (3 epochs) and ``fmnist_mlp`` on its first 10,000 images (4 epochs) with the
defaults and draws each layer's length, before annealing, against the share of the horizon done.
Run with ``python benchmarks/lark_lengths.py --data FOLDER --figure FILE``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from optiscope import problems
from optiscope.optim.lark.optimizer import Lark

RUNS = {"mnist_logreg": (3, None), "fmnist_mlp": (4, 10_000)}
LABELS = {"mnist_logreg": "MNIST, logistic regression", "fmnist_mlp": "Fashion-MNIST, 4 layers"}


def lengths(name: str, data: Path) -> dict[str, list[float]]:
    """Length of every step of every layer, by the layer's parameter."""
    epochs, images = RUNS[name]
    problem = problems.get(name)
    samples = problem.data(data).train
    if images is not None:
        samples = samples.subset(torch.arange(images))
    torch.manual_seed(0)
    model = problem.make_model()
    batches = len(samples) // problem.batch_size
    optimizer = Lark(model.named_parameters(), total_steps=epochs * batches)
    found: dict[str, list[float]] = {}
    for _ in range(epochs):
        for part in torch.randperm(len(samples))[: batches * problem.batch_size].chunk(batches):
            x, y = samples.select(part)
            optimizer.zero_grad()
            problem.loss(model(x), y).mean().backward()
            optimizer.step()
            for layer in optimizer.get_log():
                found.setdefault(layer.name, []).append(layer.length)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with MNIST, FashionMNIST")
    parser.add_argument("--figure", type=Path, required=True, help="file to write")
    given = parser.parse_args()
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
    for ax, name in zip(axes, RUNS, strict=True):
        for place, steps in enumerate(lengths(name, given.data).values()):
            share = [(step + 1) / len(steps) for step in range(len(steps))]
            ax.plot(share, steps, label=f"layer {place + 1}")
        ax.set(title=LABELS[name], xlabel="share of the horizon", yscale="log")
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    axes[0].set_ylabel("step length / orthogonal matrix's step")
    figure.savefig(given.figure, dpi=150)


if __name__ == "__main__":
    main()
