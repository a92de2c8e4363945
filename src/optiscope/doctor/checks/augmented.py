"""Checks of the augmentation: labels, content, range, and how it is applied."""

from __future__ import annotations

import torch

from optiscope.doctor.augmentation import (
    Z_THRESHOLD,
    Augmenter,
    AugmentFailed,
    broken_labels,
    content_left,
)
from optiscope.doctor.context import Context, Skipped
from optiscope.doctor.finding import Finding

__all__ = ["augmentation"]


def augmentation(context: Context) -> list[Finding]:
    """What the augmentation does to samples and to what their labels mean."""
    if context.augment is None:
        raise Skipped("no augmentation was passed")
    samples = context.samples("train")
    x = samples.inputs
    few = x[:256]
    try:
        augmenter = Augmenter(context.augment, few)
        after = augmenter(few, context.seed)
        again = augmenter(few, context.seed + 1)
    except AugmentFailed as error:
        return [
            Finding(
                "augmentation_fails",
                "augmentation",
                "error",
                f"The augmentation cannot be applied to training samples: {error}.",
                "It is called with a batch, else with one sample (and a torch.Generator if it "
                "takes two arguments).",
            )
        ]
    findings = _form(augmenter, few, after, again)
    show = [t for i in range(min(6, len(few))) for t in (few[i], after[i])]
    if not findings or all(f.severity != "error" for f in findings):
        captions = [c for i in range(len(show) // 2) for c in (_label(context, i), "augmented")]
        context.show("Before and after augmentation", show, captions)
        findings += _range(few, after)
        findings += _content(few, after)
        if few.shape == after.shape and few.is_floating_point():
            findings += _labels(context, augmenter)
    return findings


def _label(context: Context, place: int) -> str:
    targets = context.samples("train").targets
    return "" if targets is None or targets.ndim > 1 else f"label {targets[place].item():.4g}"


def _form(
    augmenter: Augmenter, few: torch.Tensor, after: torch.Tensor, again: torch.Tensor
) -> list[Finding]:
    findings = []
    if augmenter.changes_its_argument(few[:8]):
        findings.append(
            Finding(
                "augmentation_in_place",
                "augmentation",
                "error",
                "The augmentation writes into its argument: tensors in memory drift from epoch to "
                "epoch.",
                "Work on a copy (`x = x.clone()`).",
            )
        )
    if after.is_floating_point() and not bool(torch.isfinite(after).all()):
        findings.append(
            Finding(
                "augmentation_not_finite",
                "augmentation",
                "error",
                "Augmented samples hold NaN or infinity.",
                "Look for a division by a deviation of 0, or a logarithm.",
            )
        )
    if augmenter.one_draw:
        findings.append(
            Finding(
                "augmentation_one_draw",
                "augmentation",
                "note",
                "Applied to a batch, the augmentation draws once for all of its samples.",
                "Apply it to each sample if each should have its own draw.",
            )
        )
    if after.shape == few.shape and torch.equal(after, few) and torch.equal(again, few):
        findings.append(
            Finding(
                "augmentation_does_nothing",
                "augmentation",
                "warning",
                "Augmented samples equal the samples.",
                "Check probabilities and strengths.",
            )
        )
    return findings


def _range(few: torch.Tensor, after: torch.Tensor) -> list[Finding]:
    if not (few.is_floating_point() and after.is_floating_point()):
        return []
    low, high = float(few.min()), float(few.max())
    width = max(high - low, 1e-12)
    beyond = (after < low - 0.25 * width) | (after > high + 0.25 * width)
    share = float(beyond.float().mean())
    deviation = max(float(few.std()), 1e-12)
    shift = abs(float(after.mean() - few.mean())) / deviation
    scale = float(after.std()) / deviation
    factor = max(scale, 1 / max(scale, 1e-12))
    if share <= 0.01 and shift <= 1.0 and factor <= 2.0:
        return []
    severe = shift > 2.0 or factor > 3.0
    return [
        Finding(
            "augmentation_out_of_range",
            "augmentation",
            "error" if severe else "warning",
            f"{share:.1%} of augmented values lie outside of the data's range "
            f"({low:.3g} to {high:.3g}); the mean moves by {shift:.2g} deviations, the deviation "
            f"changes by a factor of {scale:.2g}.",
            "Augment before normalizing, clamp, and normalize once.",
            measured={"share": share, "shift": shift, "factor": factor},
            threshold={"share": 0.01, "shift": 1.0, "factor": 2.0},
            confidence=0.95,
        )
    ]


def _content(few: torch.Tensor, after: torch.Tensor) -> list[Finding]:
    left = content_left(few, after)
    if left is None or (left.lost_half < 0.02 and left.mean > 0.5):
        return []
    return [
        Finding(
            "augmentation_loses_content",
            "augmentation",
            "warning",
            f"{left.lost_half:.0%} of augmented images have lost more than half of their ink "
            f"({left.mean:.0%} is left on average).",
            "Shift, crop or erase less.",
            measured={"share": left.lost_half},
            threshold={"share": 0.02},
            confidence=0.95,
        )
    ]


def _labels(context: Context, augmenter: Augmenter) -> list[Finding]:
    try:
        labels = context.labels("train")
    except Skipped:
        return []
    x = context.samples("train").inputs
    if len(x) < 500 or not 2 <= len(labels.unique()) <= 100:
        return []
    if not bool(torch.isfinite(x).all()):
        return []
    each = 8
    result = broken_labels(
        x, labels, augmenter, seconds=min(each, 0.4 * context.left), seed=context.seed
    )
    if result.pairs:
        context.measured["augmentation z"] = result.pairs[0].z
    findings = []
    if result.broken:
        worst = result.broken[0]
        names = ", ".join(f"{p.first} and {p.second}" for p in result.broken)
        explained = "; ".join(
            f"{p.first}-{p.second}: {p.clean:.1%} of samples in doubt without, {p.augmented:.1%} "
            f"with augmentation (z {p.z:.1f})"
            for p in result.broken[:3]
        )
        seed = context.seed + 100
        queries, references = worst.example_query[:4], worst.example_reference[:4]
        if len(queries):
            shown = augmenter(x[queries], seed)
            context.show(
                f"Augmented samples of {worst.first} and {worst.second} that look alike",
                [
                    t
                    for q, i, r in zip(shown, queries, references, strict=True)
                    for t in (x[i], q, x[r])
                ],
                [
                    c
                    for i, r in zip(queries.tolist(), references.tolist(), strict=True)
                    for c in (f"label {int(labels[i])}", "augmented", f"label {int(labels[r])}")
                ],
            )
        findings.append(
            Finding(
                "augmentation_breaks_labels",
                "augmentation",
                "error",
                f"The augmentation makes classes {names} alike ({explained}).",
                "Restrict it to changes that keep the class (smaller angles or shifts, no mirror).",
                where=tuple(f"{p.first}-{p.second}" for p in result.broken),
                measured={"z": worst.z, "share": worst.augmented},
                threshold={"z": Z_THRESHOLD, "share": 1.5 * worst.clean + 0.01},
                confidence=0.9,
            )
        )
    return findings
