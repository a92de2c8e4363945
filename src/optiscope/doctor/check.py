"""Check a model, a loss and data before training."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from optiscope.doctor.check_report import CheckReport, Outcome
from optiscope.doctor.checks import (
    augmented,
    forward,
    labels,
    parameters,
    pipeline,
    samples,
    splits,
    training,
)
from optiscope.doctor.context import Check, Context, Skipped
from optiscope.doctor.finding import SEVERITIES, Finding
from optiscope.doctor.probe import Probe
from optiscope.doctor.unchanged import unchanged
from optiscope.doctor.user_data import DataMisuse, splits_from

__all__ = ["CHECKS", "CheckReport", "Outcome", "check"]

CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "parameters and optimizer": parameters.ownership,
        "modes": forward.modes,
        "inputs": samples.inputs,
        "first batch": forward.first_batch,
        "samples mix": forward.mixing,
        "gradients": parameters.gradients,
        "class balance": labels.class_balance,
        "same preprocessing": samples.same_preprocessing,
        "order": pipeline.order,
        "worker seeds": pipeline.worker_seeds,
        "overfit a batch": training.overfit,
        "labels and neighbors": labels.labels_and_neighbors,
        "augmentation": augmented.augmentation,
        "overlap of splits": splits.overlap,
        "speed of data": pipeline.speed,
    }
)
"""Checks by name, in the order they run: the cheap and certain ones first."""

ORDER = ("ownership", "inputs", "labels", "overlap", "augmentation", "loss_form", "modes")
"""Families whose findings come first among those of one severity: causes before symptoms."""


def check(
    model: nn.Module,
    loss: Callable[..., Any],
    optimizer: torch.optim.Optimizer | None = None,
    *,
    train: Any,
    valid: Any = None,
    test: Any = None,
    augment: Callable[..., Any] | None = None,
    seconds: float = 30.0,
    seed: int = 0,
) -> CheckReport:
    """Look for faults in model, loss, optimizer and data before training.

    Nothing is changed: model, optimizer, data and generators are as before, also after an error.

    Args:
        model: maps a batch of inputs to what ``loss`` takes first.
        loss: called as ``loss(output, targets)``; a module or a function.
        optimizer: if built already.
        train: a pair (inputs [N, ...], targets [N, ...]) of tensors or arrays, a torch ``Dataset``
            or ``DataLoader`` of such pairs, a list of batches, samples of this package, or its
            ``Splits`` (then ``valid``, ``test`` and ``augment`` come from there).
        valid: validation data, in any of these forms.
        test: test data, in any of these forms.
        augment: random transformation of training inputs: of a batch or of one sample, with or
            without a ``torch.Generator`` as second argument.
        seconds: about how long it may take.
        seed: of everything drawn here.

    Raises:
        DataMisuse: an argument is of a kind that cannot be checked.
    """
    if not isinstance(model, nn.Module):
        raise DataMisuse(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if not callable(loss):
        raise DataMisuse(f"loss: expected a function or module, got {type(loss).__name__}")
    lazy = [n for n, p in model.named_parameters() if isinstance(p, nn.UninitializedParameter)]
    if lazy:
        raise DataMisuse(f"{lazy[0]} has no shape yet: run the model on one batch, then check it")
    if augment is None and all(hasattr(train, n) for n in ("train", "valid", "test")):
        augment = getattr(train, "augment", None)
    data = splits_from(train, valid, test)
    start = time.perf_counter()
    holders = [s.loader for s in data.values()] + [s.dataset for s in data.values()]
    with unchanged(model, loss, train, valid, test, augment, *holders):
        torch.manual_seed(seed)
        context = Context(Probe(model, loss), loss, optimizer, data, augment, seconds, seed)
        findings, outcomes = _run(context)
    report = CheckReport(
        tuple(_ordered(findings)),
        tuple(outcomes),
        MappingProxyType(dict(context.measured)),
        tuple(context.pictures),
        time.perf_counter() - start,
    )
    return report


def _run(context: Context) -> tuple[list[Finding], list[Outcome]]:
    findings: list[Finding] = []
    outcomes: list[Outcome] = []
    try:
        _ = context.batch
    except DataMisuse:
        raise
    except Exception as error:
        return [_no_batch(error)], [
            Outcome(name, 0, 0.0, "no training batch can be made") for name in CHECKS
        ]
    broken = False
    for name, run in CHECKS.items():
        began = time.perf_counter()
        if broken and name in ("samples mix", "gradients", "overfit a batch", "speed of data"):
            outcomes.append(Outcome(name, 0, 0.0, "the first batch does not go through"))
            continue
        if context.left <= 0 and name in ("augmentation", "speed of data"):
            outcomes.append(Outcome(name, 0, 0.0, "no time was left: pass seconds="))
            continue
        try:
            found = run(context)
        except Skipped as reason:
            outcomes.append(Outcome(name, 0, time.perf_counter() - began, str(reason)))
            continue
        except DataMisuse:
            raise
        except Exception as error:  # a check that fails says so and spoils no other
            words = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            outcomes.append(Outcome(name, 0, time.perf_counter() - began, words))
            continue
        if name == "first batch":
            broken = any(f.rule in ("forward_fails", "loss_fails") for f in found)
            _pictures(context)
        findings += found
        outcomes.append(Outcome(name, len(found), time.perf_counter() - began))
    return findings, outcomes


def _no_batch(error: Exception) -> Finding:
    words = " ".join(str(error).split())[:200]
    return Finding(
        "batch_fails",
        "data",
        "error",
        f"No training batch can be made: {type(error).__name__}: {words}",
        "Let the dataset return tensors of one shape (ToTensor, padding), or pass the DataLoader "
        "that has your collate_fn.",
        where=("train",),
    )


def _pictures(context: Context) -> None:
    """The first training samples as the network gets them, with their targets."""
    inputs, targets = context.few(12)
    if not isinstance(inputs, Tensor):
        return
    captions = [""] * len(inputs)
    if isinstance(targets, Tensor) and targets.ndim == 1:
        captions = [f"target {t:.4g}" for t in targets.tolist()]
    plain = context.plain
    if context.augment is not None and isinstance(plain, Tensor) and len(plain) >= len(inputs):
        context.show("Samples before augmentation", list(plain[: len(inputs)]), captions)
        context.show("The same samples as the network gets them", list(inputs), captions)
        return
    context.show("Samples as the network gets them", list(inputs), captions)


def _ordered(findings: list[Finding]) -> list[Finding]:
    """Errors first; among equals causes first; symptoms name their cause."""
    present = {f.rule: f for f in findings}
    explained = {}
    for finding in findings:
        for symptom in finding.explains:
            if symptom in present and symptom not in explained:
                explained[symptom] = finding.rule
    findings = [
        replace(f, explained_by=explained[f.rule]) if f.rule in explained else f for f in findings
    ]

    def key(finding: Finding) -> tuple[int, bool, int]:
        family = ORDER.index(finding.family) if finding.family in ORDER else len(ORDER)
        return -SEVERITIES.index(finding.severity), finding.explained_by is not None, family

    return sorted(findings, key=key)
