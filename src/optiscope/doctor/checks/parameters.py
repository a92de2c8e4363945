"""Checks of parameters, optimizer and gradients before the first step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from optiscope.doctor.context import Context, Skipped
from optiscope.doctor.finding import Finding

__all__ = ["gradients", "ownership"]


def ownership(context: Context) -> list[Finding]:
    """Whether the optimizer holds the trainable parameters, and only those."""
    findings = []
    named = dict(context.model.named_parameters())
    trainable = {name: p for name, p in named.items() if p.requires_grad}
    if named and not trainable:
        findings.append(
            Finding(
                "nothing_trainable",
                "ownership",
                "error",
                f"None of {len(named)} parameters requires a gradient.",
                "Call requires_grad_(True) on what should be trained.",
            )
        )
    hidden = sorted(_unregistered(context.model))
    if hidden:
        findings.append(
            Finding(
                "module_not_registered",
                "ownership",
                "error",
                f"{_list(hidden)} hold layers that the model does not know: they are in a plain "
                "list or dictionary.",
                "Use nn.ModuleList, nn.ModuleDict or nn.ParameterList.",
                where=tuple(hidden),
                explains=("trainable_not_in_optimizer",),
            )
        )
    optimizer = context.optimizer
    if optimizer is None:
        return findings
    held = {id(p): p for group in optimizer.param_groups for p in group["params"]}
    missing = [name for name, p in trainable.items() if id(p) not in held]
    own = {id(p) for p in named.values()} | {
        id(p) for p in getattr(context.loss, "parameters", lambda: ())()
    }
    foreign = [p for key, p in held.items() if key not in own]
    if missing:
        numbers = sum(trainable[name].numel() for name in missing)
        findings.append(
            Finding(
                "trainable_not_in_optimizer",
                "ownership",
                "error",
                f"The optimizer does not hold {len(missing)} of {len(trainable)} trainable "
                f"parameters ({numbers:,} numbers): {_list(missing)}.",
                "Build the optimizer after the model is final, from model.parameters().",
                where=tuple(missing),
                measured={"missing": len(missing)},
                threshold={"missing": 0.0},
            )
        )
    if foreign:
        findings.append(
            Finding(
                "optimizer_holds_foreign",
                "ownership",
                "error" if len(foreign) == len(held) else "warning",
                f"{len(foreign)} of {len(held)} tensors of the optimizer are no parameters of the "
                "model.",
                "Build the optimizer from this model, after copying, moving or replacing layers.",
                measured={"foreign": len(foreign)},
                threshold={"foreign": 0.0},
            )
        )
    findings += _settings(optimizer)
    return findings


def _settings(optimizer: torch.optim.Optimizer) -> list[Finding]:
    findings = []
    for number, group in enumerate(optimizer.param_groups):
        rate = group.get("lr")
        where = (f"group {number}",)
        if rate is not None and float(rate) == 0:
            findings.append(
                Finding(
                    "rate_zero",
                    "rate",
                    "warning",
                    f"The learning rate of parameter group {number} is 0.",
                    "Set lr, or check the start of the warm-up.",
                    where=where,
                )
            )
        if group.get("maximize"):
            findings.append(
                Finding(
                    "maximizes",
                    "rate",
                    "error",
                    "The optimizer maximizes the loss.",
                    "Remove maximize=True.",
                    where=where,
                )
            )
        decay = group.get("weight_decay", 0)
        if isinstance(decay, float | int) and decay >= 0.5 and rate and float(rate) * decay > 1e-3:
            findings.append(
                Finding(
                    "decay_large",
                    "decay",
                    "warning",
                    f"Weight decay is {decay:g}.",
                    "Common values lie between 0 and 0.1.",
                    where=where,
                    measured={"decay": float(decay)},
                    threshold={"decay": 0.5},
                    confidence=0.8,
                )
            )
    return findings


def _unregistered(model: nn.Module) -> Iterator[str]:
    """Attributes that hold modules or parameters in plain containers."""
    known = {id(m) for m in model.modules()} | {id(p) for p in model.parameters()}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name.startswith("_") or not isinstance(value, list | tuple | dict):
                continue
            items: list[Any] = list(value.values() if isinstance(value, dict) else value)
            for item in items[:1000]:
                if id(item) in known or not isinstance(item, nn.Module | nn.Parameter):
                    continue
                if isinstance(item, nn.Parameter) or any(True for _ in item.parameters()):
                    yield f"{path}.{name}" if path else name
                    break


def gradients(context: Context) -> list[Finding]:
    """Which trainable parameters the loss reaches, and with what gradient."""
    probe = context.probe.copy()
    if not probe.trainable:
        raise Skipped("no parameter is trainable")
    inputs, targets = context.batch
    with torch.enable_grad():
        output = probe(inputs, training=True, dropout=False)
        loss = context.objective(output, targets, inputs)
        if not loss.requires_grad:
            return [
                Finding(
                    "loss_has_no_gradient",
                    "gradient_flow",
                    "error",
                    "The loss depends on no parameter that requires a gradient.",
                    "Look for .detach(), .item(), torch.no_grad() or argmax in model and loss.",
                )
            ]
        values = torch.autograd.grad(
            loss, [probe.weights[n] for n in probe.trainable], allow_unused=True
        )
    grads: dict[str, Tensor | None] = dict(zip(probe.trainable, values, strict=True))
    unused = [name for name, g in grads.items() if g is None]
    zero = [n for n, g in grads.items() if g is not None and not bool((g != 0).any())]
    bad = [n for n, g in grads.items() if g is not None and not bool(torch.isfinite(g).all())]
    findings = []
    if bad:
        findings.append(
            Finding(
                "gradient_not_finite",
                "gradient_flow",
                "error",
                f"The gradient of {_list(bad)} is not finite on the first batch.",
                "Look for a square root or logarithm at 0, or a division by 0.",
                where=tuple(bad),
            )
        )
    if unused:
        findings.append(
            Finding(
                "parameter_unused",
                "gradient_flow",
                "error" if len(unused) > len(grads) // 2 else "warning",
                f"The loss does not depend on {len(unused)} of {len(grads)} trainable parameters: "
                f"{_list(unused)}.",
                "Look for .detach(), torch.no_grad() or a layer that is never called.",
                where=tuple(unused),
                measured={"unused": len(unused)},
                threshold={"unused": 0.0},
            )
        )
    if zero and not _may_be_zero(zero, grads, context):
        findings.append(
            Finding(
                "gradient_zero",
                "gradient_flow",
                "error" if len(zero) > len(grads) // 2 else "warning",
                f"The gradient of {len(zero)} of {len(grads)} trainable parameters is exactly 0: "
                f"{_list(zero)}.",
                "Look for dead units, zero initialization or a mask.",
                where=tuple(zero),
                measured={"zero": len(zero)},
                threshold={"zero": 0.0},
                confidence=0.9,
            )
        )
    return findings


def _may_be_zero(zero: list[str], grads: dict[str, Tensor | None], context: Context) -> bool:
    """Zero gradients that a healthy start has: an embedding not met, a branch that begins at 0."""
    weights = dict(context.model.named_parameters())
    for name, gradient in grads.items():  # a weight that is 0 itself and has a gradient opens later
        gate = not name.endswith("bias") and not bool((weights[name] != 0).any())
        if gate and gradient is not None and bool((gradient != 0).any()):
            return len(zero) <= len(grads) // 2
    return all(isinstance(_owner(context, name), nn.Embedding) for name in zero)


def _owner(context: Context, name: str) -> nn.Module:
    return context.model.get_submodule(name.rpartition(".")[0])


def _list(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
