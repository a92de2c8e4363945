"""Checks of one batch through model and loss: shapes, form of the output, start, mixing, modes."""

from __future__ import annotations

import inspect
import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from optiscope.doctor.context import Context, Skipped
from optiscope.doctor.finding import Finding
from optiscope.doctor.probe import class_entropy, has_class_axis, logits_of

__all__ = ["first_batch", "mixing", "modes"]

HIGH_START = 3.0  # initial loss against that of guessing by class shares


def first_batch(context: Context) -> list[Finding]:
    """Shapes and form of outputs, the loss at the start against the prior."""
    inputs, targets = context.batch
    try:
        with torch.no_grad():
            output = context.probe(inputs, training=True, dropout=False)
    except Exception as error:
        return [_failure("forward_fails", "inputs", "The model", context, error)]
    tensor = logits_of(output)
    if tensor is None:
        raise Skipped(f"the output is {type(output).__name__}, no tensor")
    findings = _output(context, tensor, targets)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with torch.no_grad():
                value = context.objective(output, targets, inputs)
        except Skipped:
            raise
        except Exception as error:
            return [
                *findings,
                _failure("loss_fails", "loss_form", "The loss", context, error, tensor),
            ]
    broadcast = any("target size" in str(w.message) for w in caught)
    findings += _broadcast(context, tensor, targets, broadcast)
    loss = float(value)
    context.measured["initial loss"] = loss
    if not math.isfinite(loss):
        findings.append(
            Finding(
                "initial_loss_not_finite",
                "initialization",
                "error",
                f"The loss of the first batch is {loss}.",
                "Look for a logarithm of 0, a division by 0 or inputs that are not finite.",
            )
        )
        return findings
    findings += _start(context, tensor, targets, loss, bool(findings))
    findings += _form(context, tensor, targets)
    return findings


def _failure(
    rule: str, family: Any, what: str, context: Context, error: Exception, tensor: Any = None
) -> Finding:
    inputs, targets = context.batch
    shapes = f"inputs {_shape(inputs)}, targets {_shape(targets)}"
    if isinstance(tensor, Tensor):
        shapes += f", output {_shape(tensor)}"
    text = " ".join(str(error).split())[:200]
    return Finding(
        rule,
        family,
        "error",
        f"{what} raised {type(error).__name__} on a training batch ({shapes}): {text}",
        "Compare shapes and types with what it expects.",
    )


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__


def _output(context: Context, output: Tensor, targets: Any) -> list[Finding]:
    findings = []
    if output.is_floating_point() and not bool(torch.isfinite(output).all()):
        findings.append(
            Finding(
                "output_not_finite",
                "initialization",
                "error",
                "The model's first output holds NaN or infinity.",
                "Look at the inputs and at layers without initialization.",
            )
        )
    size = len(targets) if isinstance(targets, Tensor) and targets.ndim else None
    if size is not None and output.ndim and len(output) != size and len(output) != targets.numel():
        findings.append(
            Finding(
                "batch_axis_lost",
                "loss_form",
                "error",
                f"The batch has {size} samples, the output's first axis {len(output)}.",
                "Keep axis 0 for the batch (check `view`, `flatten` and `batch_first`).",
                measured={"axis": len(output)},
                threshold={"axis": size},
            )
        )
    if output.is_floating_point() and len(output) > 1 and output.numel() > 1:
        rows = output.reshape(len(output), -1)
        spread = float((rows - rows[:1]).abs().max())
        alike = spread <= 1e-7 * max(float(rows.abs().max()), 1e-12)
        if alike and not _wakes_up(context):
            findings.append(
                Finding(
                    "output_ignores_input",
                    "gradient_flow",
                    "error",
                    "The output is the same for every sample of the batch.",
                    "Look at initialization (zeros?), dead units and what the forward pass uses.",
                    measured={"spread": spread},
                    threshold={"spread": 1e-7},
                )
            )
    return findings


def _wakes_up(context: Context) -> bool:
    """Whether outputs differ after two steps: a last layer that begins at 0 is no fault."""
    inputs, targets = context.batch
    probe = context.probe.copy()
    if not probe.trainable:
        return False
    optimizer = torch.optim.Adam([probe.weights[n] for n in probe.trainable], 1e-2)
    try:
        with torch.enable_grad():
            for _ in range(2):
                optimizer.zero_grad()
                output = probe(inputs, training=True, dropout=False)
                context.objective(output, targets, inputs).backward()
                optimizer.step()
            tensor = logits_of(probe(inputs, training=True, dropout=False))
    except Exception:
        return False
    if tensor is None:
        return False
    rows = tensor.detach().reshape(len(tensor), -1)
    return float((rows - rows[:1]).abs().max()) > 1e-6 * float(rows.abs().max())


def _broadcast(context: Context, output: Tensor, targets: Any, warned: bool) -> list[Finding]:
    if not isinstance(targets, Tensor) or not targets.is_floating_point():
        return []
    if output.shape == targets.shape:
        return []
    try:
        common = torch.broadcast_shapes(output.shape, targets.shape)
    except RuntimeError:
        return []
    larger = math.prod(common) > max(output.numel(), targets.numel())
    stretched = warned and math.prod(common) > min(output.numel(), targets.numel())
    if not (larger or stretched):
        return []
    return [
        Finding(
            "loss_broadcasts",
            "loss_form",
            "error",
            f"Output {tuple(output.shape)} and target {tuple(targets.shape)} broadcast to "
            f"{tuple(common)}: every prediction is held against every target.",
            "Give both one shape (`output.squeeze(-1)` or `target.unsqueeze(-1)`).",
            measured={"elements": math.prod(common)},
            threshold={"elements": targets.numel()},
        )
    ]


def _prior(context: Context, targets: Any) -> float | None:
    """Entropy of the class shares of the training data, in nats."""
    try:
        labels = context.labels("train")
    except Skipped:
        if not isinstance(targets, Tensor) or targets.is_floating_point():
            return None
        labels = targets.flatten()
    return class_entropy(labels)


def _is_cross_entropy(context: Context) -> bool:
    loss = context.loss
    name = type(loss).__name__ + getattr(loss, "__name__", "")
    return "crossentropy" in name.lower().replace("_", "") and "binary" not in name.lower()


def _start(
    context: Context, output: Tensor, targets: Any, loss: float, faulty: bool
) -> list[Finding]:
    if not has_class_axis(output, targets):
        return []
    prior = _prior(context, targets)
    if prior is None or not _is_cross_entropy(context) or faulty:
        return []
    context.measured["loss of guessing"] = prior
    reduction = getattr(context.loss, "reduction", "mean")
    if reduction == "sum":
        return [
            Finding(
                "loss_summed",
                "loss_form",
                "warning",
                f"The loss sums over the batch ({loss:.4g} at the start): its gradient grows with "
                "the batch size.",
                "Use reduction='mean', or divide by the number of samples.",
                measured={"loss": loss},
                threshold={"loss": HIGH_START * math.log(output.shape[1])},
            )
        ]
    limit = HIGH_START * math.log(max(output.shape[1], 2)) + 0.5
    if loss > limit and getattr(context.loss, "weight", None) is None:
        return [
            Finding(
                "initial_loss_high",
                "initialization",
                "warning",
                f"The loss starts at {loss:.3g}; guessing by class shares costs {prior:.3g}.",
                "Scale the last layer's weights down, and normalize the inputs.",
                measured={"loss": loss},
                threshold={"loss": limit},
                confidence=0.95,
            )
        ]
    return []


def _form(context: Context, output: Tensor, targets: Any) -> list[Finding]:
    """Outputs that went through an activation which the loss does not expect."""
    name = type(context.loss).__name__ + getattr(context.loss, "__name__", "")
    flat = name.lower().replace("_", "")
    if not output.is_floating_point() or output.ndim < 1:
        return []
    findings = []
    with torch.no_grad():
        values = output.float()
        if has_class_axis(output, targets) and output.shape[1] > 1:
            sums = values.sum(1)
            ones = bool(((sums - 1).abs() < 1e-3).all()) and bool((values >= 0).all())
            log_sums = values.logsumexp(1)
            logs = bool((log_sums.abs() < 1e-3).all())
            if _is_cross_entropy(context) and ones:
                findings.append(_activation("softmax_before_cross_entropy", "softmax"))
            elif "nllloss" in flat and not logs:
                findings.append(
                    Finding(
                        "nll_of_non_log_probabilities",
                        "loss_form",
                        "error",
                        "The negative log-likelihood expects log-probabilities over axis 1; "
                        f"their probabilities sum to {float(log_sums.exp().mean()):.3g}.",
                        "End with log_softmax(dim=1), or use cross entropy on raw outputs.",
                        measured={"sum": float(log_sums.exp().mean())},
                        threshold={"sum": 1.0},
                    )
                )
            elif _is_cross_entropy(context) and not ones:
                findings += _last_activation(context, values)
                over_batch = values.sum(0)
                if len(values) > 2 and bool(((over_batch - 1).abs() < 1e-3).all()):
                    findings.append(_activation("softmax_over_batch", "softmax over the batch"))
        elif "withlogits" in flat:
            if len(values) >= 4 and _ends_with(context, nn.Sigmoid):
                findings.append(_activation("sigmoid_before_logits_loss", "sigmoid"))
        elif (flat.startswith("bceloss") or flat.endswith("binarycrossentropy")) and bool(
            ((values < 0) | (values > 1)).any()
        ):
            findings.append(
                Finding(
                    "probabilities_expected",
                    "loss_form",
                    "error",
                    "Binary cross entropy expects probabilities; the output leaves [0, 1].",
                    "Add a sigmoid, or use BCEWithLogitsLoss.",
                    measured={"smallest": float(values.min()), "largest": float(values.max())},
                )
            )
    if isinstance(targets, Tensor) and targets.is_floating_point() and "crossentropy" not in flat:
        findings += _unreachable(context, values, targets)
    return findings


def _unreachable(context: Context, values: Tensor, targets: Tensor) -> list[Finding]:
    """Targets outside of the range of the last activation."""
    limits = {
        nn.ReLU: (0.0, math.inf),
        nn.Sigmoid: (0.0, 1.0),
        nn.Tanh: (-1.0, 1.0),
        nn.Softplus: (0.0, math.inf),
        nn.Softmax: (0.0, 1.0),
        nn.Hardtanh: (-1.0, 1.0),
    }
    for kind, (low, high) in limits.items():
        if _ends_with(context, kind):
            outside = (targets < low - 1e-4) | (targets > high + 1e-4)
            share = float(outside.float().mean())
            if share > 0.01:
                return [
                    Finding(
                        "targets_out_of_reach",
                        "loss_form",
                        "error",
                        f"{share:.0%} of the targets lie outside of what the last layer "
                        f"({kind.__name__}) can give ({low:g} to {high:g}).",
                        "Remove the last activation, or scale the targets.",
                        measured={"share": share},
                        threshold={"share": 0.01},
                    )
                ]
    return []


def _activation(rule: str, name: str) -> Finding:
    return Finding(
        rule,
        "loss_form",
        "error",
        f"The output has gone through a {name}, and the loss applies its own.",
        "Return the raw outputs (logits) from the model.",
        explains=("cannot_overfit",),
    )


def _last_activation(context: Context, values: Tensor) -> list[Finding]:
    zeros = float((values == 0).float().mean())
    if bool((values >= 0).all()) and zeros > 0.1:
        rule, name = "rectified_before_cross_entropy", "rectifier (no value is negative)"
    elif _ends_with(context, nn.Sigmoid) or _ends_with(context, nn.Tanh):
        rule, name = "squashed_before_cross_entropy", "sigmoid or tanh"
    else:
        return []
    return [_activation(rule, name)]


def _ends_with(context: Context, kind: type[nn.Module]) -> bool:
    """Whether the module that made the output is of a kind: the output is its output."""
    made: list[bool] = []
    inputs, _ = context.few(2)
    last: dict[int, Any] = {}
    handles = [
        module.register_forward_hook(lambda m, _, out: last.__setitem__(id(out), (m, out)))
        for module in context.model.modules()
        if isinstance(module, kind)
    ]
    try:
        with torch.no_grad():
            out = logits_of(context.probe(inputs, training=True, dropout=False))
        entry = last.get(id(out))
        made.append(entry is not None and entry[1] is out)
    except Exception:
        return False
    finally:
        for handle in handles:
            handle.remove()
    return made[0]


def mixing(context: Context) -> list[Finding]:
    """Whether the output of a sample depends on other samples of its batch, in evaluation mode.

    Asked of the first sample and of the last: a wrong axis may leave one of them alone.
    """
    inputs, _ = context.few(8)
    if not isinstance(inputs, Tensor) or len(inputs) < 3:
        raise Skipped("a batch of three samples is needed")
    changed = inputs.flip(0) if not inputs.is_floating_point() else inputs
    with torch.no_grad():
        plain = _rows(context, inputs)
        if plain is None or len(plain) != len(inputs):
            raise Skipped("outputs have no axis of samples")
        again = _rows(context, inputs)
        if again is None or not torch.equal(plain, again):
            raise Skipped("the model draws random numbers in evaluation mode")
    worst, which = 0.0, ""
    scale = max(float(plain.std()), 1e-12)
    for place, name in ((0, "first"), (len(inputs) - 1, "last")):
        others = torch.arange(len(inputs)) != place
        moved = inputs.clone()
        moved[others] = (
            changed.roll(1, 0)[others]
            if not inputs.is_floating_point()
            else (inputs[others] * 1.7 + 0.3)
        )
        moved[place] = inputs[place]
        with torch.no_grad():
            result = _rows(context, moved)
        if result is None or result.shape != plain.shape:
            continue
        difference = float((result[place] - plain[place]).abs().max()) / scale
        if difference > worst:
            worst, which = difference, name
    context.measured["mixing"] = worst
    if worst < 1e-3:
        return []
    return [
        Finding(
            "samples_mix",
            "loss_form",
            "error",
            f"In evaluation mode the output of the {which} sample changes with the other samples "
            "of its batch.",
            "Look for an operation over axis 0: softmax(dim=0), a wrong view or permute, "
            "batch_first, statistics of the batch.",
            measured={"change": worst},
            threshold={"change": 1e-3},
            explains=("cannot_overfit", "nll_of_non_log_probabilities"),
        )
    ]


def _rows(context: Context, inputs: Tensor) -> Tensor | None:
    output = logits_of(context.probe(inputs, training=False))
    if output is None or not output.is_floating_point() or output.ndim == 0:
        return None
    return output.reshape(len(output), -1)


def modes(context: Context) -> list[Finding]:
    """Modes of the model as it was passed, dropout rates, and normalization of one value."""
    findings = []
    switched = [
        m
        for m in context.model.modules()
        if isinstance(m, nn.Dropout | nn.modules.batchnorm._BatchNorm)
    ]
    for name, module in context.model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p >= 0.8:
            findings.append(
                Finding(
                    "dropout_too_high",
                    "modes",
                    "warning",
                    f"{name or 'a layer'} drops {module.p:.0%} of its inputs.",
                    "p is the share that is dropped, not the share that is left.",
                    where=(name,),
                    measured={"p": module.p},
                    threshold={"p": 0.8},
                )
            )
    if (
        switched
        and context.splits["train"].batch_size == 1
        and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in switched)
    ):
        findings.append(
            Finding(
                "batch_norm_of_one",
                "modes",
                "error",
                "Batches of one sample go through batch normalization.",
                "Use larger batches or another normalization.",
                measured={"batch": 1.0},
                threshold={"batch": 2.0},
            )
        )
    if inspect.isgenerator(context.splits["train"].dataset):
        raise Skipped("the training data can be read once only")
    return findings
