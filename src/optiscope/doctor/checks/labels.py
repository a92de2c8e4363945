"""Checks of the labels: their classes, and whether they belong to their inputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from optiscope.doctor.context import Context, Skipped
from optiscope.doctor.finding import Finding
from optiscope.doctor.nearest import is_image
from optiscope.doctor.neighbors import label_agreement, regression_agreement

__all__ = ["class_balance", "labels_and_neighbors"]


def class_balance(context: Context) -> list[Finding]:
    """Class counts, missing classes, labels out of the output's range."""
    labels = context.labels("train")
    counts = torch.bincount(labels)
    present = counts[counts > 0]
    largest = float(present.max()) / float(counts.sum())
    context.measured |= {"classes": float(len(present)), "largest class": largest}
    if len(present) == 1 and len(labels) > 1:
        return [
            Finding(
                "one_class",
                "labels",
                "error",
                f"All {len(labels):,} labels are {int(labels[0])}.",
                "Look at how labels are read.",
                where=("train",),
                measured={"classes": 1.0},
                threshold={"classes": 2.0},
            )
        ]
    findings = _against_outputs(context, labels, counts)
    for name in context.splits:
        if name != "train":
            findings += _against_train(context, name, labels, counts)
    if largest > 0.9 and not findings:
        findings.append(
            Finding(
                "class_imbalance",
                "labels",
                "note",
                f"One class has {largest:.0%} of the training samples.",
                "Read balanced accuracy too, or weight the classes.",
                where=("train",),
                measured={"share": largest},
                threshold={"share": 0.9},
                confidence=0.9,
            )
        )
    return findings


def _against_outputs(context: Context, labels: Tensor, counts: Tensor) -> list[Finding]:
    classes, top = context.classes, int(labels.max())
    if classes is None:
        return []
    if top >= classes:
        return [
            Finding(
                "label_out_of_range",
                "labels",
                "error",
                f"Labels reach {top}, the model has {classes} outputs (0 to {classes - 1}).",
                "Start labels at 0, or give the model more outputs.",
                where=("train",),
                measured={"label": top},
                threshold={"label": classes - 1},
            )
        ]
    if top >= 200 or classes > 1000 or len(labels) <= 20 * classes:
        return []
    absent = [c for c in range(classes) if c >= len(counts) or counts[c] == 0]
    if absent == [0]:
        return [
            Finding(
                "labels_start_at_one",
                "labels",
                "warning",
                f"Labels are 1 to {top}, and the model has {classes} outputs: none is 0.",
                "Subtract 1 from the labels and drop an output.",
                where=("train",),
                measured={"smallest label": 1.0},
                threshold={"smallest label": 0.0},
                confidence=0.9,
            )
        ]
    if absent:
        some = ", ".join(map(str, absent[:8]))
        return [
            Finding(
                "class_missing",
                "labels",
                "warning",
                f"{len(absent)} of {classes} outputs have no training sample: {some}.",
                "Check label coding and the split.",
                where=("train",),
                measured={"missing": len(absent)},
                threshold={"missing": 0.0},
                confidence=0.9,
            )
        ]
    return []


def _against_train(context: Context, name: str, labels: Tensor, counts: Tensor) -> list[Finding]:
    other = context.labels(name)
    there = torch.bincount(other, minlength=len(counts))
    unseen = (there[: len(counts)] > 0) & (counts == 0)
    if int(other.max()) >= len(counts) or bool(unseen.any()):
        return [
            Finding(
                "class_not_in_train",
                "labels",
                "error",
                f"{name} has classes that train has not (labels {int(other.min())} to "
                f"{int(other.max())}, in train {int(labels.min())} to {int(labels.max())}).",
                "Split by samples, not by classes, and use one label coding.",
                where=("train", name),
                confidence=0.9,
            )
        ]
    if len(other) < 100:
        return []
    distance = float((counts / counts.sum() - there / there.sum()).abs().sum() / 2)
    limit = 0.25 + 2 * math.sqrt(int((counts > 0).sum()) / len(other))
    if distance <= limit:
        return []
    return [
        Finding(
            "class_shares_differ",
            "labels",
            "warning",
            f"Class shares of {name} and train differ by {distance:.0%}.",
            "Shuffle before splitting, or stratify.",
            where=("train", name),
            measured={"distance": distance},
            threshold={"distance": limit},
            confidence=0.9,
        )
    ]


def labels_and_neighbors(context: Context) -> list[Finding]:
    """Whether labels fit the inputs: shuffled, partly random, shifted, coded differently."""
    samples = context.samples("train")
    x, y = samples.inputs, samples.targets
    if not x.is_floating_point() and not is_image(x):
        raise Skipped("inputs are no numbers whose distances mean something")
    if samples.lengths is not None or not bool(torch.isfinite(x.float()).all()):
        raise Skipped("samples differ in length or are not finite")
    if len(x) < 300 or y is None:
        raise Skipped("fewer than 300 samples with targets")
    if y.is_floating_point():
        return _regression(context, x, y)
    labels = context.labels("train")
    if len(labels.unique()) < 2 or int(labels.max()) > 1000:
        raise Skipped("too few or too many classes")
    result = label_agreement(x, labels, seed=context.seed)
    context.measured |= {"neighbors agree": result.accuracy, "labels at random": result.noise}
    if result.z < 3:
        fits = " They fit when the labels are moved by one sample." if result.shift else ""
        return [
            Finding(
                "labels_unrelated",
                "labels",
                "error",
                f"Neither neighbors nor a linear fit predict the labels better than chance "
                f"({max(result.accuracy, result.linear):.1%}, chance {result.chance:.1%}).{fits}",
                "Check that inputs and labels are shuffled together and read in one order.",
                where=("train",),
                measured={"z": result.z},
                threshold={"z": 3.0},
                confidence=0.9,
                explains=("loss_at_prior",),
            )
        ]
    findings = []
    if result.noise > 0.06 and result.noise_samples >= 100:
        findings.append(
            Finding(
                "labels_partly_random",
                "labels",
                "warning",
                f"About {result.noise:.0%} of the labels look drawn at random: neighbors of "
                "samples of every class carry the labels of all other classes.",
                "Look at the pairing of inputs and labels, and at the source of the labels.",
                where=("train",),
                measured={"share": result.noise},
                threshold={"share": 0.06},
                confidence=0.9,
            )
        )
    for name in context.splits:
        other = context.samples(name)
        alike = other.inputs.shape[1:] == x.shape[1:] and len(other) >= 200
        if name == "train" or result.z < 10 or not alike:
            continue
        across = label_agreement(
            x,
            labels,
            query_inputs=other.inputs,
            query_labels=context.labels(name),
            seed=context.seed,
            most_queries=600,
        )
        lost = (result.accuracy - across.accuracy) / max(result.accuracy - result.chance, 0.01)
        if across.z < 3 or lost > 0.5:
            findings.append(
                Finding(
                    "labels_differ_between_splits",
                    "labels",
                    "error",
                    f"Neighbors in train predict the labels of train ({result.accuracy:.0%}) and "
                    f"not those of {name} ({across.accuracy:.0%}).",
                    "Check label coding, order and preprocessing of that split.",
                    where=("train", name),
                    measured={"accuracy": across.accuracy},
                    threshold={"accuracy": (result.accuracy + result.chance) / 2},
                    confidence=0.9,
                )
            )
    return findings


def _regression(context: Context, x: Tensor, y: Tensor) -> list[Finding]:
    if y.reshape(len(y), -1).shape[1] > 64 or not bool(torch.isfinite(y).all()):
        raise Skipped("targets are images, sequences or not finite")
    if float(y.float().std()) == 0:
        return [
            Finding(
                "targets_constant",
                "labels",
                "error",
                f"All targets equal {float(y.flatten()[0]):.4g}.",
                "Look at how targets are read.",
                where=("train",),
            )
        ]
    correlation, error = regression_agreement(x, y, seed=context.seed)
    context.measured["neighbors explain"] = correlation
    if correlation >= 3 * error:
        return []
    return [
        Finding(
            "labels_unrelated",
            "labels",
            "error",
            "Neither neighbors nor a linear fit predict the targets better than chance "
            f"(correlation {correlation:.3f}).",
            "Check that inputs and targets are shuffled together and read in one order.",
            where=("train",),
            measured={"correlation": correlation},
            threshold={"correlation": 3 * error},
            confidence=0.85,
        )
    ]
