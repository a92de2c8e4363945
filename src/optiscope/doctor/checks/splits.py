"""Checks of splits against one another: samples that are in two of them."""

from __future__ import annotations

import math

from optiscope.doctor.context import Context
from optiscope.doctor.finding import Finding, Severity
from optiscope.doctor.overlap import Z_THRESHOLD, exact_overlap, near_overlap, sequence_overlap

__all__ = ["overlap"]

ERROR_SHARE = 0.005


def overlap(context: Context) -> list[Finding]:
    """Samples of validation and test data that are in the training data, or in one another."""
    findings = []
    names = list(context.splits)
    pairs = [(b, a) for i, a in enumerate(names) for b in names[i + 1 :]]
    for later, earlier in pairs:
        one, other = context.splits[later], context.splits[earlier]
        if one.tensors and other.tensors and one.tensors[0] is other.tensors[0]:
            findings.append(_finding("exact", later, earlier, 1.0, math.inf, "the same tensor"))
            continue
        exact = _exact(context, later, earlier)
        findings += exact
        if exact or earlier != "train":
            continue
        findings += _near(context, later, earlier, 0.15 * context.seconds)
    return findings


def _exact(context: Context, later: str, earlier: str) -> list[Finding]:
    queries, references = context.samples(later), context.samples(earlier)
    result = exact_overlap(
        queries.inputs,
        references.inputs,
        queries.targets,
        references.targets,
        context.seed,
    )
    context.measured[f"{later} in {earlier}"] = result.share
    small = len(queries) * result.share < 3 and result.share < ERROR_SHARE
    if not len(result.matches) or result.z < Z_THRESHOLD:
        return []
    places = result.matches[:6]
    context.show(
        f"Equal samples of {later} and {earlier}",
        [t for i, j in places.tolist() for t in (queries.inputs[i], references.inputs[j])],
        [
            c
            for i, j in places.tolist()
            for c in (f"{later} {int(queries.places[i])}", f"{earlier} {int(references.places[j])}")
        ],
    )
    words = f"{len(result.matches):,} of {len(queries):,} samples"
    if result.other_target > 0.05:
        words += f", {result.other_target:.0%} of them with another target"
    severity: Severity = "note" if small else "error" if result.share >= ERROR_SHARE else "warning"
    return [_finding("exact", later, earlier, result.share, result.z, words, severity)]


def _near(context: Context, later: str, earlier: str, seconds: float) -> list[Finding]:
    queries, references = context.samples(later), context.samples(earlier)
    found = sequence_overlap(queries.inputs, references.inputs, seed=context.seed)
    if found is not None:
        share, _ = found
        context.measured[f"{later} nearly in {earlier}"] = share
        if share < 0.005:
            return []
        words = f"{share:.1%} of the sequences share most of their tokens in one run"
        severity: Severity = "error" if share > 0.02 else "warning"
        return [_finding("near", later, earlier, share, math.inf, words, severity)]
    result = near_overlap(
        queries.inputs, references.inputs, seed=context.seed, seconds=min(seconds, context.left / 2)
    )
    if result is None:
        return []
    context.measured[f"{later} nearly in {earlier}"] = result.share - result.baseline
    if not result.leaked:
        return []
    kinds = sorted(set(result.kinds), key=result.kinds.count, reverse=True)
    shown = result.pairs[:6].tolist()
    context.show(
        f"Near copies in {later} and {earlier}",
        [t for i, j in shown for t in (queries.inputs[i], references.inputs[j])],
        [
            c
            for (i, j), kind in zip(shown, result.kinds, strict=False)
            for c in (
                f"{later} {int(queries.places[i])}",
                f"{earlier} {int(references.places[j])}, {kind}",
            )
        ],
    )
    share = result.share - result.baseline
    words = f"about {share:.1%} of the samples ({', '.join(kinds)})"
    return [_finding("near", later, earlier, share, result.z, words)]


def _finding(
    kind: str,
    later: str,
    earlier: str,
    share: float,
    z: float,
    words: str,
    severity: Severity = "error",
) -> Finding:
    copies = "Equal samples" if kind == "exact" else "Near copies"
    measured = {"share": share} | ({} if math.isinf(z) else {"z": z})
    threshold = {"share": 0.0 if kind == "exact" else 0.005}
    return Finding(
        f"overlap_{kind}",
        "overlap",
        severity,
        f"{copies} in {later} and {earlier}: {words}.",
        f"Remove them from {earlier}, or split again by source; scores on {later} are too good.",
        where=(later, earlier),
        measured=measured,
        threshold=threshold | ({} if math.isinf(z) else {"z": Z_THRESHOLD}),
        confidence=1.0 if math.isinf(z) else 0.95,
    )
