"""Random labels: what is memorized, what is not, and what the loss does meanwhile.

A share of the labels is drawn anew. One network is trained with the log loss (classification) and
one with the squared error to the one-hot labels (regression), from the same weights, and one with
the labels as they were, for comparison. An example is memorized where the network gives the label
that it was shown.

Index legend: n samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import Tensor

from optiscope.problems.models.dense import multilayer_perceptron
from optiscope.problems.models.initialise import he_normal
from optiscope.report.appearance import PALETTE
from optiscope.report.figures.panel import Panel
from optiscope.report.legend import Key
from optiscope.report.tables.data_table import Cell as TableCell
from optiscope.report.tables.data_table import DataTable, Row
from optiscope.reproduction.experiments import Scale
from optiscope.reproduction.sections import Section
from optiscope.reproduction.talk.beside import plain_ticks
from optiscope.reproduction.talk.experiment import Cell, Measured, TalkExperiment
from optiscope.reproduction.talk.split import LOSSES
from optiscope.reproduction.talk.training import loaded

__all__ = ["MEMORIZATION"]

SMALL = {"problem": "digits_mlp", "samples": 400, "hidden": 60, "batch": 20, "epochs": 300}
FULL = {"problem": "mnist_mlp", "samples": 5000, "hidden": 500, "batch": 50, "epochs": 1000}
RATES = {"log loss": 0.05, "squared error": 0.02}
SHARES = (0.0, 0.5, 1.0)
SEEDS = {"small": 3, "full": 5}
PLATEAU, STRETCH = 0.005, 3
"""Training accuracy that moves by no more than this over the last so many looks stands still."""


def cells(scale: Scale) -> list[Cell]:
    """Both losses at every share of random labels with every seed."""
    settings = SMALL if scale == "small" else FULL
    return [
        {**settings, "loss": loss, "rate": RATES[loss], "random": share, "seed": seed}
        for loss in RATES
        for share in SHARES
        for seed in range(SEEDS[scale])
    ]


def measure(cell: Cell, data_dir: Path | None) -> Mapping[str, Any]:
    """Train; curves, and which examples are memorized at the end."""
    _, (inputs, targets), _ = loaded(cell["problem"], data_dir, cell["samples"])
    generator = torch.Generator().manual_seed(7)  # the same labels whatever the seed
    count = len(targets)
    replaced = torch.randperm(count, generator=generator)[: round(cell["random"] * count)]
    labels = targets.clone()
    labels[replaced] = torch.randint(10, (len(replaced),), generator=generator)
    torch.manual_seed(cell["seed"])
    model = multilayer_perceptron((inputs[0].numel(), cell["hidden"], 10), he_normal)
    loss = LOSSES[cell["loss"]]
    order = torch.Generator().manual_seed(cell["seed"])
    optimizer = torch.optim.SGD(model.parameters(), lr=cell["rate"], momentum=0.9)
    looks = sorted({round(cell["epochs"] ** (k / 24)) for k in range(25)})
    rows: list[tuple[float, float, float]] = []
    first = torch.full((count,), math.inf)
    for epoch in range(1, cell["epochs"] + 1):
        for chosen in torch.randperm(count, generator=order).split(cell["batch"]):
            optimizer.zero_grad()
            loss(model(inputs[chosen]), labels[chosen]).mean().backward()
            optimizer.step()
        if epoch in looks:
            with torch.no_grad():
                outputs = model(inputs)
                hit = outputs.argmax(1) == labels
                rows.append((
                    float(loss(outputs, labels).mean()),
                    float(hit.float().mean()),
                    float(F.cross_entropy(outputs, labels)),
                ))  # fmt: skip
            first = torch.where(hit & (first > epoch), torch.tensor(float(epoch)), first)
            first = torch.where(hit, first, torch.tensor(math.inf))
    wrong = labels != targets
    return {
        "epochs": looks,
        "loss": [r[0] for r in rows],
        "accuracy": [r[1] for r in rows],
        "log_loss": [r[2] for r in rows],
        "missed": [int(i) for i in (~hit).nonzero()[:, 0]],
        "missed_wrong": _share(~hit & wrong, wrong),
        "missed_right": _share(~hit & ~wrong, ~wrong),
        "epoch_right": _median(first[~wrong]),
        "epoch_wrong": _median(first[wrong]),
    }


def _share(part: Tensor, whole: Tensor) -> float | None:
    return float(part.sum()) / float(whole.sum()) if bool(whole.any()) else None


def _median(epochs: Tensor) -> float | None:
    """Median epoch from which on examples were given their label; None where most never were."""
    if not len(epochs):
        return None
    value = float(epochs.median())
    return value if math.isfinite(value) else None


def sections(measured: Sequence[Measured]) -> tuple[Section, ...]:
    """Verdicts, curves, table."""
    cell = measured[0].cell
    keys = list(dict.fromkeys((m.cell["loss"], m.cell["random"]) for m in measured))
    rows = {
        key: [m.result for m in measured if (m.cell["loss"], m.cell["random"]) == key]
        for key in keys
    }
    shares = sorted({share for _, share in keys})
    return (
        Section(
            "Random labels",
            f"{cell['problem']}'s data, {cell['samples']:,} samples, one hidden layer of "
            f"{cell['hidden']} units, SGD with momentum 0.9 and batches of {cell['batch']}, "
            f"{cell['epochs']:,} epochs, {len(rows[keys[0]])} seeds with the same labels.",
            conclusions=tuple(_conclusions(rows)),
            panels=tuple(
                Panel(
                    f"memorization-{loss.replace(' ', '-')}",
                    partial(_draw, loss=loss, rows={s: rows[loss, s] for s in shares
                                                    if (loss, s) in rows}),
                    f"Training loss and accuracy against the epoch, {loss}",
                    keys=tuple(
                        Key(f"{share:.0%} random labels", color)
                        for share, color in zip(shares, PALETTE, strict=False)
                    ),
                )
                for loss in dict.fromkeys(loss for loss, _ in keys)
            ),
            tables=(_table(rows),),
        ),
    )  # fmt: skip


Rows = Mapping[tuple[str, float], Sequence[Mapping[str, Any]]]


def _conclusions(rows: Rows) -> list[tuple[str, str, str]]:
    found = []
    random = {key: results for key, results in rows.items() if key[1] > 0}
    ends = {key: [r["accuracy"][-1] for r in results] for key, results in random.items()}
    classification = [v for (loss, _), values in ends.items() if loss == "log loss" for v in values]
    if classification:
        found.append(
            (
                "A network that is wide enough memorizes random labels",
                "holds here" if min(classification) == 1.0 else "not all of them here",
                f"log loss: {min(classification):.1%} of the labels at least; "
                + _never({k: r for k, r in random.items() if k[0] == "log loss"}),
            )
        )
    falls = [f for results in random.values() for r in results if (f := _fall(r)) is not None]
    found.append(
        (
            "While the accuracy stands still the loss goes on falling",
            "undecided" if not falls
            else "holds here" if all(f < 0.9 for f in falls)
            else "holds in some runs" if any(f < 0.9 for f in falls)
            else "does not hold here",
            f"in {len(falls)} of {sum(map(len, random.values()))} runs the accuracy stood still "
            f"for the last {STRETCH} looks or more (to {PLATEAU:.1%})"
            + (
                f"; meanwhile the loss fell to {min(falls):.2g} to {max(falls):.2g} of its value"
                if falls
                else ""
            ),
        )
    )  # fmt: skip
    regression = [v for (loss, _), values in ends.items() if loss == "squared error"
                  for v in values]  # fmt: skip
    if regression and classification:
        pairs = list(zip(classification, regression, strict=True))
        slower = sum(b < a for a, b in pairs)
        found.append(
            (
                "Regression memorizes random labels less readily than classification",
                "holds here" if slower == len(pairs) else "does not hold here" if not slower
                else "undecided",
                f"fewer labels with the squared error in {slower} of {len(pairs)} pairs (mean "
                f"{fmean(regression):.1%} against {fmean(classification):.1%}); at one rate each, "
                "not tuned; " + _never({k: r for k, r in random.items() if k[0] != "log loss"}),
            )
        )  # fmt: skip
    return found


def _never(rows: Rows) -> str:
    """How many examples no run of a setting memorized, beside what chance would leave."""
    words = []
    for (loss, share), results in rows.items():
        sets = [set(r["missed"]) for r in results]
        common = set.intersection(*sets)
        words.append(f"{len(common)} examples in no seed ({loss}, {share:.0%} random; "
                     f"{' '.join(str(len(s)) for s in sets)} in each)")  # fmt: skip
    return "never memorized: " + ", ".join(words)


def _fall(result: Mapping[str, Any]) -> float | None:
    """Last loss over that where the last stretch of equal accuracy began; None without one."""
    accuracy, loss = result["accuracy"], result["loss"]
    begin = len(accuracy) - 1
    while begin > 0 and abs(accuracy[begin - 1] - accuracy[-1]) <= PLATEAU:
        begin -= 1
    if len(accuracy) - begin < STRETCH:
        return None
    return float(loss[-1] / loss[begin])


def _table(rows: Rows) -> DataTable:
    def shown(values: Sequence[float | None], form: str = ".1%") -> str:
        known = [v for v in values if v is not None]
        return f"{fmean(known):{form}}" if known else "-"

    return DataTable(
        ["loss, random labels", "#labels memorized, each seed", "#training loss", "#never, random",
         "#never, right", "#epoch, right", "#epoch, random"],
        [
            Row(
                [
                    TableCell(f"{loss}, {share:.0%}"),
                    TableCell(" ".join(f"{100 * r['accuracy'][-1]:.1f}" for r in found)),
                    TableCell(f"{fmean(r['loss'][-1] for r in found):.2g}"),
                    TableCell(shown([r["missed_wrong"] for r in found])),
                    TableCell(shown([r["missed_right"] for r in found])),
                    TableCell(shown([r["epoch_right"] for r in found], ".0f")),
                    TableCell(shown([r["epoch_wrong"] for r in found], ".0f")),
                ]
            )
            for (loss, share), found in rows.items()
        ],
        "Labels memorized in per cent. Never: share of the examples whose label is wrong, or "
        "right, that the network does not give at the end. Epoch: median from which on it does.",
    )  # fmt: skip


def _draw(axes: Axes, loss: str, rows: Mapping[float, Sequence[Mapping[str, Any]]]) -> None:
    for (_, found), color in zip(rows.items(), PALETTE, strict=False):
        for r in found:
            axes.plot(r["epochs"], [max(v, 1e-6) for v in r["loss"]], color=color, alpha=0.8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain_ticks(axes.xaxis, axes.yaxis)
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss")
    axes.set_title(f"{loss}, every seed")


MEMORIZATION = TalkExperiment(
    "memorization",
    "Random labels: what is memorized?",
    "The talk asks which examples are never memorized when labels are random, what the loss does "
    "while the accuracy stands still, and whether regression differs from classification. No "
    "figures were published there; networks fit random labels of CIFAR-10 perfectly (Zhang et al. "
    "2017).",
    "L. Sagun 2018, An Empirical Look at the Loss Landscape (talk); Zhang et al. 2017",
    cells,
    measure,
    sections,
    {"small": "digits in place of CIFAR-10; one rate for each loss."},
)
