"""Checks of the inputs: values, scale, repetition, one preprocessing for all splits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from optiscope.doctor.context import Context
from optiscope.doctor.finding import Finding
from optiscope.doctor.overlap import hashes

__all__ = ["inputs", "same_preprocessing"]


def inputs(context: Context) -> list[Finding]:
    """Values that are not finite, constant, not normalized, or the same for every sample."""
    findings: list[Finding] = []
    for name in context.splits:
        samples = context.samples(name)
        x, y = samples.inputs, samples.targets
        if x.is_floating_point():
            bad = ~torch.isfinite(x.reshape(len(x), -1)).all(1)
            if bool(bad.any()):
                share = float(bad.float().mean())
                findings.append(
                    Finding(
                        "inputs_not_finite",
                        "inputs",
                        "error",
                        f"{int(bad.sum()):,} of {len(x):,} samples of {name} hold NaN or infinity.",
                        "Remove or replace them before training.",
                        where=(name,),
                        measured={"share": share},
                        threshold={"share": 0.0},
                    )
                )
        if y is not None and y.is_floating_point() and not bool(torch.isfinite(y).all()):
            findings.append(
                Finding(
                    "targets_not_finite",
                    "labels",
                    "error",
                    f"Targets of {name} hold NaN or infinity.",
                    "Remove or replace them.",
                    where=(name,),
                )
            )
        findings += _repetition(context, name, x)
    if not findings:
        findings += _scale(context)
    return findings


def _repetition(context: Context, name: str, x: Tensor) -> list[Finding]:
    findings = []
    if len(x) >= 8:
        share = float(hashes(x).unique(return_counts=True)[1].max()) / len(x)
        if share > 0.5 and (x[0].numel() > 8 or share == 1.0):
            findings.append(
                Finding(
                    "same_sample",
                    "data",
                    "error",
                    f"{share:.0%} of the samples of {name} are one and the same.",
                    "Look at how the dataset uses its index.",
                    where=(name,),
                    measured={"share": share},
                    threshold={"share": 0.5},
                )
            )
    split = context.splits[name]
    if split.tensors is None and split.select is None and split.size >= 2:
        first, _ = split.sample(0)
        if isinstance(first, Tensor) or hasattr(first, "__array__"):
            before = torch.as_tensor(first).clone()
            split.sample(1)
            if not torch.equal(before, torch.as_tensor(first)):
                findings.append(
                    Finding(
                        "sample_overwritten",
                        "data",
                        "error",
                        f"Reading sample 1 of {name} changed sample 0: both share one buffer.",
                        "Return a copy from the dataset.",
                        where=(name,),
                    )
                )
    return findings


def _scale(context: Context) -> list[Finding]:
    batch, _ = context.batch
    train = context.samples("train").inputs
    x = batch if isinstance(batch, Tensor) else train
    if not x.is_floating_point():
        return []
    x = x.detach().float()
    mean, deviation, largest = float(x.mean()), float(x.std()), float(x.abs().max())
    context.measured |= {"input mean": mean, "input deviation": deviation}
    if deviation == 0:
        return [
            Finding(
                "inputs_constant",
                "inputs",
                "error",
                f"All inputs of a training batch equal {mean:.4g}.",
                "Look at the dataset and its transforms.",
                where=("train",),
                measured={"deviation": 0.0},
                threshold={"deviation": 0.0},
            )
        ]
    far = abs(mean) > 10 * deviation and abs(mean) > 3
    if (largest > 20 and deviation > 10) or far:
        return [
            Finding(
                "inputs_not_normalized",
                "inputs",
                "warning",
                f"Inputs have mean {mean:.3g}, standard deviation {deviation:.3g} and reach "
                f"{largest:.3g}.",
                "Divide bytes by 255 or standardize, with the same constants for every split.",
                where=("train",),
                measured={"deviation": deviation, "largest": largest},
                threshold={"deviation": 10.0, "largest": 20.0},
                confidence=0.9,
                explains=("initial_loss_high",),
            )
        ]
    if deviation < 1e-3 and largest < 0.02:
        return [
            Finding(
                "inputs_not_normalized",
                "inputs",
                "warning",
                f"Inputs hardly vary: standard deviation {deviation:.3g}, largest {largest:.3g}.",
                "Standardize the inputs; were they divided by 255 twice?",
                where=("train",),
                measured={"deviation": deviation},
                threshold={"deviation": 1e-3},
                confidence=0.9,
            )
        ]
    return _columns(train) if train.ndim == 2 and train.is_floating_point() else []


def _columns(train: Tensor) -> list[Finding]:
    """Columns [n, d] of tables that never change or dwarf the others."""
    if len(train) < 32 or not 2 <= train.shape[1] <= 10_000:
        return []
    spread = train.float().std(0)
    moving = spread[spread > 0]
    constant = int((spread == 0).sum())
    if len(moving) > 1 and float(moving.max() / moving.median()) > 1000:
        ratio = float(moving.max() / moving.median())
        return [
            Finding(
                "columns_differ_in_scale",
                "inputs",
                "warning",
                f"The widest column varies {ratio:,.0f} times as much as the median one.",
                "Standardize each column.",
                where=("train",),
                measured={"ratio": ratio},
                threshold={"ratio": 1000.0},
                confidence=0.9,
            )
        ]
    if constant > 0.9 * train.shape[1]:
        return [
            Finding(
                "columns_constant",
                "inputs",
                "warning",
                f"{constant} of {train.shape[1]} columns never change.",
                "Drop them, or look for a fault in reading.",
                where=("train",),
                measured={"share": constant / train.shape[1]},
                threshold={"share": 0.9},
            )
        ]
    return []


def same_preprocessing(context: Context) -> list[Finding]:
    """Whether other splits have the scale, shape and channel order of the training inputs."""
    findings = []
    train = context.samples("train")
    x = train.inputs
    for name in context.splits:
        if name == "train":
            continue
        other = context.samples(name).inputs
        if other.shape[1:] != x.shape[1:]:
            if train.lengths is None and x.is_floating_point():
                findings.append(
                    Finding(
                        "shapes_differ",
                        "inputs",
                        "warning",
                        f"Samples of {name} have shape {tuple(other.shape[1:])}, those of train "
                        f"{tuple(x.shape[1:])}.",
                        "Use one transform for both.",
                        where=("train", name),
                        confidence=0.9,
                    )
                )
            continue
        if not (x.is_floating_point() or other.is_floating_point()):
            continue
        a, b = _per_sample(x), _per_sample(other)
        typical = float(a[:, 1].mean())
        shift = abs(float(a[:, 0].mean() - b[:, 0].mean())) / max(typical, 1e-12)
        scale = max(typical, 1e-12) / max(float(b[:, 1].mean()), 1e-12)
        factor = max(scale, 1 / scale)
        errors = [float(part[:, 0].std()) / math.sqrt(len(part)) for part in (a, b)]
        z = abs(float(a[:, 0].mean() - b[:, 0].mean())) / max(math.hypot(*errors), 1e-12)
        if (shift > 0.5 and z > 8) or factor > 1.8:
            findings.append(
                Finding(
                    "inputs_differ",
                    "inputs",
                    "error",
                    f"Inputs of {name} have mean {float(b[:, 0].mean()):.3g} and deviation "
                    f"{float(b[:, 1].mean()):.3g}, those of train {float(a[:, 0].mean()):.3g} and "
                    f"{typical:.3g}.",
                    "Apply the same normalization to every split.",
                    where=("train", name),
                    measured={"shift": shift, "factor": factor},
                    threshold={"shift": 0.5, "factor": 1.8},
                    confidence=0.95,
                )
            )
        elif x.ndim == 4 and x.shape[1] == 3 and _reversed_channels(x, other):
            findings.append(
                Finding(
                    "channels_swapped",
                    "inputs",
                    "error",
                    f"Channels of {name} are in the reverse order of those of train (RGB, BGR).",
                    "Read the images of both splits with the same library.",
                    where=("train", name),
                    confidence=0.9,
                )
            )
    return findings


def _reversed_channels(x: Tensor, other: Tensor) -> bool:
    a, b = x.float().mean((0, 2, 3)), other.float().mean((0, 2, 3))
    spread = float((a - a.flip(0)).norm())
    wide = spread > 0.02 * float(x.float().std())
    return (
        wide
        and float((a - b.flip(0)).norm()) < 0.25 * spread
        and float((a - b).norm()) > 0.75 * spread
    )


def _per_sample(x: Tensor) -> Tensor:
    """Mean and deviation [n, 2] of each sample; around the common mean for few values each."""
    flat = torch.nan_to_num(x.reshape(len(x), -1).float())
    if flat.shape[1] < 8:
        distance = (flat - flat.mean(0)).norm(dim=1) / flat.shape[1] ** 0.5
        return torch.stack([flat.mean(1), distance], 1)
    return torch.stack([flat.mean(1), flat.std(1)], 1)
