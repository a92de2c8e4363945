"""A few training samples of a problem, as images, text or numbers.

Index legend: N samples, C channels, H × W pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text
from torch import Tensor

from optiscope.cli.half_blocks import image_text, side_by_side, within
from optiscope.cli.show_definition import class_names, some_batch
from optiscope.data.samples import Batch, Splits, TextWindows
from optiscope.problems import Problem

__all__ = ["image_figure", "print_samples"]

LONGEST_SIDE = 32
"""Characters of an image on the terminal, across."""

IN_TERMINAL, IN_FIGURE = 4, 18
NUMBERS = 12


def print_samples(
    console: Console, problem: Problem, splits: Splits, data_dir: Path | None
) -> None:
    """Samples of the training set without augmentation."""
    console.print(Text("Samples", style="bold"))
    if isinstance(splits.train, TextWindows):
        console.print(_excerpt(problem, splits.train, data_dir), highlight=False, markup=False)
        return
    chosen = _varied(splits, IN_TERMINAL)
    if not _are_images(chosen):
        console.print(_numbers(some_batch(splits, 4)), highlight=False)
        return
    images, labels = _arrays(problem, splits, chosen)
    coloured = console.color_system is not None
    texts = [image_text(within(image, LONGEST_SIDE), colour=coloured) for image in images]
    console.print(side_by_side(texts, labels, console.width), highlight=False)


def image_figure(problem: Problem, splits: Splits) -> Figure:
    """Images with their classes.

    Raises:
        ValueError: the samples are not images.
    """
    from optiscope.report.figures.samples import sample_figure

    chosen = _varied(splits, IN_FIGURE)
    if not _are_images(chosen):
        raise ValueError(
            f"--figure draws images, got samples of shape {_shape_words(chosen)}: add "
            "--spread, or --trajectory for a problem with two parameters"
        )
    images, labels = _arrays(problem, splits, chosen)
    return sample_figure(problem.name, images, labels)


def _shape_words(batch: Batch) -> str:
    inputs = batch.inputs
    return str(tuple(inputs.shape[1:])) if isinstance(inputs, torch.Tensor) else "several tensors"


def _varied(splits: Splits, count: int) -> Batch:
    """Samples of different classes as far as there are any, else evenly spread ones."""
    targets = getattr(splits.train, "targets", None)
    if not isinstance(targets, Tensor) or targets.ndim != 1 or targets.is_floating_point():
        return some_batch(splits, count)
    place = torch.arange(len(targets))
    order = torch.argsort(targets, stable=True)
    starts = torch.searchsorted(targets[order], targets[order])
    rank = torch.empty_like(place)
    rank[order] = place - starts  # how many of its class come before a sample
    by_turns = torch.argsort(rank * (int(targets.max()) + 1) + targets, stable=True)
    return splits.train.select(by_turns[:count])


def _are_images(batch: Batch) -> bool:
    if not isinstance(batch.inputs, torch.Tensor):
        return False
    shape = batch.inputs.shape
    return len(shape) == 4 and shape[1] in (1, 3) and batch.inputs.is_floating_point()


def _arrays(
    problem: Problem, splits: Splits, batch: Batch
) -> tuple[NDArray[np.float64], list[str]]:
    """Images [N, C, H, W] as numbers, and their classes' names."""
    images = batch.inputs.double().numpy()
    if batch.targets.ndim != 1 or batch.targets.is_floating_point():
        return images, [""] * len(images)
    held = getattr(splits.train, "targets", batch.targets)
    names = class_names(problem, int(held.max()) + 1)
    return images, [names[k] for k in batch.targets.tolist()]


def _excerpt(problem: Problem, windows: TextWindows, data_dir: Path | None) -> str:
    tokens = windows.tokens[windows.starts[len(windows) // 2] :][: 8 * windows.length][:400]
    if problem.dataset == "tolstoi":
        from optiscope.problems.text import alphabet

        letters = alphabet(data_dir)
        return "".join(letters[t] for t in tokens.tolist())
    return " ".join(str(t) for t in tokens[: windows.length].tolist())


def _numbers(batch: Batch) -> str:
    lines = []
    for inputs, target in zip(*batch, strict=True):
        lines.append(f"{_some(inputs)} → {_some(target)}")
    return "\n".join(lines)


def _some(values: Tensor) -> str:
    flat = values.flatten()
    shown = ", ".join(f"{v:.4g}" for v in flat[:NUMBERS].tolist())
    more = f", … ({len(flat):,} in all)" if len(flat) > NUMBERS else ""
    return f"({shown}{more})"
