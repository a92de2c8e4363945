"""What each ingredient of a training is worth: momentum, weight decay, preprocessing.

A residual network is trained with all three, with each removed alone, and with none. Nothing is
tuned anew around what is removed, as in the published runs: a difference is that of the recipe,
not of the best that can be done without the ingredient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import Tensor, nn

from optiscope.problems.models.residual import residual_network
from optiscope.problems.registry import get
from optiscope.report.appearance import PALETTE
from optiscope.report.figures.panel import Panel
from optiscope.reproduction.experiments import Scale
from optiscope.reproduction.sections import Section
from optiscope.reproduction.talk.beside import Paired, beside, paired
from optiscope.reproduction.talk.experiment import Cell, Measured, TalkExperiment
from optiscope.reproduction.talk.training import Samples, loaded

__all__ = ["INGREDIENTS"]

REMOVED: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "momentum": ("momentum",),
    "weight decay": ("decay",),
    "preprocessing": ("preprocessing",),
    "all three": ("momentum", "decay", "preprocessing"),
}
PUBLISHED = {"nothing": 93.1, "momentum": -1.5, "weight decay": -3.2, "preprocessing": -6.3,
             "all three": -12.5}  # fmt: skip
"""Test accuracy in per cent of ResNet-56 on CIFAR-10, and changes of it in points."""

SMALL = {"problem": "digits_resnet", "samples": 600, "epochs": 50, "batch": 32, "rate": 0.05}
FULL = {"problem": "cifar10_resnet56", "samples": None, "epochs": 180, "batch": 128, "rate": 0.1}
NETWORKS: dict[str, dict[str, int]] = {
    "digits_resnet": {"units": 1, "channels": 1, "width": 8, "pixels": 8, "stages": 2},
    "cifar10_resnet56": {"units": 9},
}
SEEDS = {"small": 3, "full": 3}
MOMENTUM, DECAY = 0.9, 1e-3


def cells(scale: Scale) -> list[Cell]:
    """Every recipe with every seed."""
    settings = SMALL if scale == "small" else FULL
    return [
        {**settings, "removed": name, "seed": seed}
        for seed in range(SEEDS[scale])
        for name in REMOVED
    ]


def measure(cell: Cell, data_dir: Path | None) -> Mapping[str, Any]:
    """Train by one recipe, its rate a tenth from half and a hundredth from three quarters on."""
    removed = REMOVED[cell["removed"]]
    _, train, test = loaded(cell["problem"], data_dir, cell["samples"])
    augment = get(cell["problem"]).data(data_dir).augment
    places = (0, 2, 3)  # all but the channels
    mean = train[0].mean(places, keepdim=True)
    scale = train[0].std(places, keepdim=True)
    prepared = "preprocessing" not in removed

    def shown(inputs: Tensor) -> Tensor:
        return (inputs - mean) / scale if prepared else inputs

    torch.manual_seed(cell["seed"])
    model = residual_network(**NETWORKS[cell["problem"]])
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=cell["rate"],
        momentum=0.0 if "momentum" in removed else MOMENTUM,
        weight_decay=0.0 if "decay" in removed else DECAY,
    )
    generator = torch.Generator().manual_seed(cell["seed"])
    for epoch in range(cell["epochs"]):
        part = 4 * epoch // cell["epochs"]
        for group in optimizer.param_groups:
            group["lr"] = cell["rate"] * {2: 0.1, 3: 0.01}.get(part, 1.0)
        for chosen in torch.randperm(len(train[0]), generator=generator).split(cell["batch"]):
            if len(chosen) < 2:
                continue  # batch norm needs two
            inputs = train[0][chosen]
            if augment is not None:
                inputs = augment(inputs, generator)
            optimizer.zero_grad()
            F.cross_entropy(model(shown(inputs)), train[1][chosen]).backward()
            optimizer.step()
    return {
        f"{name}_{figure}": value
        for name, samples in (("train", train), ("test", test))
        for figure, value in _figures(model, (shown(samples[0]), samples[1])).items()
    }


@torch.no_grad()
def _figures(model: nn.Module, samples: Samples) -> dict[str, float]:
    model.eval()
    loss = hits = 0.0
    for inputs, targets in zip(samples[0].split(500), samples[1].split(500), strict=True):
        outputs = model(inputs)
        loss += float(F.cross_entropy(outputs, targets, reduction="sum"))
        hits += float((outputs.argmax(1) == targets).sum())
    return {"loss": loss / len(samples[1]), "accuracy": hits / len(samples[1])}


def sections(measured: Sequence[Measured]) -> tuple[Section, ...]:
    """Verdicts, changes of the accuracy by ingredient, table."""
    cell = measured[0].cell
    names = [n for n in REMOVED if any(m.cell["removed"] == n for m in measured)]
    accuracy = {
        n: [100 * m.result["test_accuracy"] for m in measured if m.cell["removed"] == n]
        for n in names
    }
    whole = accuracy["nothing"]
    changes = {n: paired(accuracy[n], whole) for n in names if n != "nothing"}
    same = cell["problem"] == FULL["problem"]
    count = "all" if cell["samples"] is None else f"{cell['samples']:,}"
    why = "" if same else "another network and data"
    return (
        Section(
            "One ingredient removed at a time",
            f"{cell['problem']}'s network and data, {count} samples, {cell['epochs']} epochs, "
            f"batch {cell['batch']}, rate {cell['rate']} (a tenth from half of the epochs on, a "
            f"hundredth from three quarters), momentum {MOMENTUM}, weight decay {DECAY:g}, each "
            f"channel standardized; {len(whole)} seeds.",
            conclusions=tuple(
                _conclusion(name, change, PUBLISHED[name]) for name, change in changes.items()
            ),
            panels=(
                Panel(
                    "ingredients",
                    partial(_draw, changes=changes),
                    "Change of the test accuracy by what is removed, here and published",
                    left=1.4,
                ),
            ),
            tables=(
                beside(
                    [
                        (
                            "test accuracy with all three (%)",
                            f"{PUBLISHED['nothing']}",
                            " ".join(f"{v:.1f}" for v in whole),
                            why,
                        ),
                        *(
                            (
                                f"without {name} (points)",
                                f"{PUBLISHED[name]:+.1f}",
                                f"{change.mean:+.2f} ({change.low:+.2f} to {change.high:+.2f})",
                                why,
                            )
                            for name, change in changes.items()
                        ),
                    ]
                ),
            ),
        ),
    )


def _conclusion(name: str, change: Paired, published: float) -> tuple[str, str, str]:
    claim = f"Without {name} the test accuracy falls ({published:+.1f} points published)"
    words = change.words("test accuracy in points")
    if change.undecided:
        return claim, "undecided", words
    return claim, "holds here" if change.mean < 0 else "does not hold here", words


def _draw(axes: Axes, changes: Mapping[str, Paired]) -> None:
    for row, (name, change) in enumerate(changes.items()):
        axes.plot(PUBLISHED[name], row, "s", color=PALETTE[1])
        axes.errorbar(
            change.mean, row, xerr=[[change.mean - change.low], [change.high - change.mean]],
            fmt="o", color=PALETTE[0], capsize=3,
        )  # fmt: skip
    axes.axvline(0.0, color="0.6", linewidth=0.8)
    axes.set_yticks(range(len(changes)), list(changes))
    axes.invert_yaxis()
    axes.set_xlabel("change of the test accuracy (points)")
    axes.set_title("Round: here, 95 % interval. Square: published")


INGREDIENTS = TalkExperiment(
    "ingredients",
    "What momentum, weight decay and preprocessing are worth",
    "Published: ResNet-56 on CIFAR-10 has 93.1 % test accuracy; without momentum 1.5 points less, "
    "without weight decay 3.2, without preprocessing 6.3, without all three 12.5.",
    "L. Sagun 2018, An Empirical Look at the Loss Landscape (talk)",
    cells,
    measure,
    sections,
    {
        "small": "A residual network of 6 layers on 600 digits in place of ResNet-56 on CIFAR-10: "
        "fifteen runs of 180 epochs of the latter are weeks on two cores, and were not run.",
        "full": "Runs are measured one after the other on the CPU.",
    },
)
