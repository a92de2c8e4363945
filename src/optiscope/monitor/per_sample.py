"""Per-sample gradient quantities of any model, layer by layer.

One forward and one backward pass give each layer's input a and the gradient b of the loss by its
output; the gradient of sample i by the layer's parameters follows from a_i and b_i alone. Linear
layers without a sequence need no per-sample gradient at all: ||g_i||^2 = ||a_i||^2 ||b_i||^2. Every
other layer (convolutions of one to three dimensions and their transposes, LayerNorm, RMSNorm,
GroupNorm, Embedding, attention, ...) is differentiated by itself under ``vmap``. Parameters that no
layer accounts for are left to ``vmap(grad)`` of the whole model, and named in ``fallback``.

Indices: n samples, P entries of a parameter.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, vjp, vmap

from optiscope.monitor.hooks import Hooks
from optiscope.objective.functional import functional_call

__all__ = [
    "COUPLING",
    "Batch",
    "BatchPass",
    "LayerUse",
    "PerSample",
    "SampleGram",
    "argument_names",
    "held_by",
    "holds_samples",
    "layer_grams",
    "parameter_owners",
    "per_sample",
    "sample_gram",
]

Batch = tuple[Tensor, Tensor]
COUPLING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
CHUNK = 2**24  # entries of per-sample gradients held at a time


@dataclass(frozen=True)
class PerSample:
    """Per-sample gradients g_i of the samples' losses, reduced.

    ``gradient`` is their mean by parameter; ``squared_norms`` [n] ||g_i||^2, ``inner_products`` [n]
    <g_i, gradient> and ``sum_of_squares`` [P] sum_i g_i^2 are by parameter too. ``fallback`` names
    the parameters that needed ``vmap(grad)`` of the whole model, ``loss`` is the mean loss.
    """

    samples: int
    loss: float
    gradient: Mapping[str, Tensor]
    squared_norms: Mapping[str, Tensor]
    inner_products: Mapping[str, Tensor]
    sum_of_squares: Mapping[str, Tensor]
    fallback: tuple[str, ...] = ()


@dataclass(frozen=True)
class SampleGram:
    """Inner products of per-sample gradients: ``gram`` [n, n] holds <g_i, g_j>.

    ``fallback`` names the parameters that needed ``vmap(grad)`` of the whole model, ``loss`` is the
    mean loss.
    """

    samples: int
    loss: float
    gram: Tensor
    fallback: tuple[str, ...] = ()


@dataclass
class LayerUse:
    """One call of a layer."""

    layer: nn.Module
    prefix: str
    inputs: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Tensor | None
    backward: Tensor | None = None


@dataclass
class BatchPass:
    """What one forward and backward pass on a batch left."""

    uses: list[LayerUse]
    gradient: dict[str, Tensor]
    loss: float
    samples: int
    batch: Batch | None


def per_sample(
    model: nn.Module,
    loss: Callable[[Any, Tensor], Tensor],
    batches: Sequence[Batch],
    *,
    reduction: str = "mean",
    squares: bool = True,
) -> PerSample:
    """Per-sample quantities of ``loss`` over ``batches`` (of any sizes).

    ``loss(model(x), y)`` is the mean or the sum over the samples of a batch, as ``reduction`` says.
    Batch norm uses its running statistics, so that samples do not depend on each other. Raises
    ``ValueError`` on another reduction or without batches. The model is left as it was.
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r:.80}")
    if not batches:
        raise ValueError("expected at least one batch, got none")
    names = {id(p): n for n, p in model.named_parameters() if p.requires_grad}
    modes = [(m, m.training) for m in model.modules() if isinstance(m, COUPLING)]
    try:
        for module, _ in modes:
            module.training = False
        passes = [_run(model, loss, batch, reduction, names) for batch in batches]
        total = sum(p.samples for p in passes)
        mean = {
            name: sum((p.gradient[name] * (p.samples / total) for p in passes), torch.zeros(()))
            for name in names.values()
        }
        norms: dict[str, list[Tensor]] = {name: [] for name in mean}
        products: dict[str, list[Tensor]] = {name: [] for name in mean}
        sums = {name: torch.zeros_like(g) for name, g in mean.items()} if squares else {}
        fallback: set[str] = set()
        for one in passes:
            left = _layers(one, names, mean, norms, products, sums)
            if left:
                fallback |= left
                _whole(model, loss, one, left, mean, norms, products, sums)
    finally:
        for module, mode in modes:
            module.training = mode
    return PerSample(
        samples=total,
        loss=sum(p.loss * p.samples for p in passes) / total,
        gradient=mean,
        squared_norms={name: torch.cat(values) for name, values in norms.items()},
        inner_products={name: torch.cat(values) for name, values in products.items()},
        sum_of_squares=sums,
        fallback=tuple(name for name in mean if name in fallback),
    )


def _run(
    model: nn.Module,
    loss: Callable[[Any, Tensor], Tensor],
    batch: Batch,
    reduction: str,
    names: Mapping[int, str],
    *,
    every_parameter: bool = True,
) -> BatchPass:
    """Forward and backward with hooks on every layer that holds parameters itself.

    Without ``every_parameter`` the gradient is that of parameters that no layer seen holds.
    """
    uses: list[LayerUse] = []
    hooks = Hooks()
    x, y = batch
    samples = x.shape[0]

    def remember(prefix: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            first = output[0] if isinstance(output, tuple) else output
            if not isinstance(first, Tensor) or not first.requires_grad:
                return None
            uses.append(LayerUse(module, prefix, args, kwargs, first))
            copy = first.clone()  # what follows may change it in place
            return (copy, *output[1:]) if isinstance(output, tuple) else copy

        return hook

    try:
        for name, module in parameter_owners(model):
            hooks.add(module.register_forward_hook, remember(name), with_kwargs=True)
        with torch.enable_grad():
            value = loss(model(x), y)
    finally:
        hooks.remove()
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if not every_parameter:
        seen = {id(p) for use in uses for p in held_by(use).values()}
        parameters = {n: p for n, p in parameters.items() if id(p) not in seen}
    outputs = [use.output for use in uses if use.output is not None]
    results = torch.autograd.grad(value, [*outputs, *parameters.values()], allow_unused=True)
    scale = float(samples) if reduction == "mean" else 1.0
    for use, b in zip(uses, results, strict=False):
        use.backward = None if b is None else b * scale
    gradients = {
        name: torch.zeros_like(p) if g is None else g * (scale / samples)
        for (name, p), g in zip(parameters.items(), results[len(uses) :], strict=True)
    }
    mean = float(value.detach()) / (1 if reduction == "mean" else samples)
    return BatchPass([u for u in uses if u.backward is not None], gradients, mean, samples, batch)


def parameter_owners(model: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    """Modules that hold parameters themselves; attention counts as one layer."""
    inside: list[str] = []
    for name, module in model.named_modules():
        if any(name.startswith(prefix + ".") for prefix in inside):
            continue
        if isinstance(module, nn.MultiheadAttention):
            inside.append(name)
            yield name, module
        elif module._parameters and (name or not list(module.children())):
            yield name, module


def held_by(use: LayerUse) -> dict[str, Tensor]:
    """Parameters of a layer by their names in the layer."""
    whole = isinstance(use.layer, nn.MultiheadAttention)
    return dict(use.layer.named_parameters(recurse=whole))


def _layers(
    one: BatchPass,
    names: Mapping[int, str],
    mean: Mapping[str, Tensor],
    norms: dict[str, list[Tensor]],
    products: dict[str, list[Tensor]],
    sums: dict[str, Tensor],
) -> set[str]:
    """Add the quantities of all parameters that layers account for; return the others' names."""
    count: dict[int, int] = {}
    for use in one.uses:
        for p in held_by(use).values():
            count[id(p)] = count.get(id(p), 0) + 1
    shared: dict[int, Tensor] = {}
    done: set[str] = set()
    broken: set[str] = set()
    for use in one.uses:
        held = {k: p for k, p in held_by(use).items() if id(p) in names}
        if not held or (isinstance(use.layer, COUPLING) and use.layer.training):
            continue
        alone = all(count[id(p)] == 1 for p in held.values())
        if alone and type(use.layer) is nn.Linear and _linear(
            use, one.samples, names, mean, norms, products, sums
        ):  # fmt: skip
            done |= {names[id(p)] for p in held.values()}
            continue
        try:
            gradients = _materialize(use, held, one.samples)
        except (RuntimeError, ValueError, TypeError, NotImplementedError, _UnknownBatchError):
            broken |= {names[id(p)] for p in held.values()}
            continue
        for local, p in held.items():
            name, g = names[id(p)], gradients[local]
            if count[id(p)] > 1:
                shared[id(p)] = shared[id(p)] + g if id(p) in shared else g
            else:
                _reduce(name, g, mean, norms, products, sums)
            done.add(name)
    for key, g in shared.items():
        if names[key] not in broken:
            _reduce(names[key], g, mean, norms, products, sums)
    unused = {n for n in mean if n not in done and not bool((one.gradient[n] != 0).any())}
    for name in unused - broken:
        zero = torch.zeros_like(mean[name])[None].expand(one.samples, *mean[name].shape)
        _reduce(name, zero, mean, norms, products, sums)
    return (set(mean) - done - unused) | broken


class _UnknownBatchError(Exception):
    """The layer's first dimension is not the batch."""


def _linear(
    use: LayerUse,
    samples: int,
    names: Mapping[int, str],
    mean: Mapping[str, Tensor],
    norms: dict[str, list[Tensor]],
    products: dict[str, list[Tensor]],
    sums: dict[str, Tensor],
) -> bool:
    """A linear layer with one row a sample, without per-sample gradients."""
    a, b = use.inputs[0] if use.inputs else use.kwargs.get("input"), use.backward
    if not isinstance(a, Tensor) or b is None or a.ndim != 2 or a.shape[0] != samples:
        return False
    a = a.detach()
    layer = use.layer
    assert isinstance(layer, nn.Linear)
    if id(layer.weight) in names:
        name = names[id(layer.weight)]
        norms[name].append(a.square().sum(1) * b.square().sum(1))
        products[name].append((b * (a @ mean[name].T)).sum(1))
        if sums:
            sums[name] += b.square().T @ a.square()
    if layer.bias is not None and id(layer.bias) in names:
        _reduce(names[id(layer.bias)], b, mean, norms, products, sums)
    return True


def _materialize(use: LayerUse, held: Mapping[str, Tensor], samples: int) -> dict[str, Tensor]:
    """Gradients [n, ...] of one call by the layer's parameters, by ``vmap`` over that layer."""
    assert use.backward is not None
    b = _by_sample(use.backward, samples)
    tensors: list[Tensor] = []

    def strip(name: str, value: Any) -> Any:
        if holds_samples(use.layer, name, value, samples):
            tensors.append(_by_sample(value.detach(), samples))
            return len(tensors) - 1
        return _Constant(value)

    args = [strip(n, v) for n, v in argument_names(use.layer, use.inputs)]
    kwargs = {k: strip(k, v) for k, v in use.kwargs.items()}
    if not tensors:
        raise _UnknownBatchError
    layer = use.layer
    plain = use.backward.shape[0] == samples
    others = {k: p.detach() for k, p in layer.named_parameters() if k not in held}
    others |= {k: v.detach() for k, v in layer.named_buffers()}
    parameters = {k: p.detach() for k, p in held.items()}

    def fill(slot: Any, values: tuple[Tensor, ...]) -> Any:
        if isinstance(slot, _Constant):
            return slot.value
        return values[slot][None] if plain else values[slot]

    def of_sample(b_i: Tensor, *values: Tensor) -> dict[str, Tensor]:
        def call(p: dict[str, Tensor]) -> Tensor:
            out = functional_call(
                layer,
                {**others, **p},
                tuple(fill(s, values) for s in args),
                {k: fill(s, values) for k, s in kwargs.items()},
            )
            first: Tensor = out[0] if isinstance(out, tuple) else out
            return first

        back: Callable[..., Any] = vjp(call, parameters)[1]
        result: dict[str, Tensor] = back(b_i[None] if plain else b_i)[0]
        return result

    entries = sum(p.numel() for p in held.values())
    chunk = max(1, CHUNK // max(entries, 1))
    with warnings.catch_warnings():  # of operations that vmap runs one by one
        warnings.simplefilter("ignore")
        result: dict[str, Tensor] = vmap(of_sample, chunk_size=chunk, randomness="same")(
            b, *tensors
        )
    return result


ATTENTION_ARGUMENTS = ("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask")


def argument_names(layer: nn.Module, inputs: Sequence[Any]) -> list[tuple[str, Any]]:
    """Positional arguments of a layer with the names that attention gives them."""
    known = ATTENTION_ARGUMENTS if isinstance(layer, nn.MultiheadAttention) else ()
    return [(known[i] if i < len(known) else "", value) for i, value in enumerate(inputs)]


def holds_samples(layer: nn.Module, name: str, value: Any, samples: int) -> bool:
    """Whether an argument of ``layer`` has rows for each of ``samples`` samples.

    The mask [T, T] of attention is one for all samples, also where T is a multiple of theirs.
    """
    if not isinstance(value, Tensor) or value.ndim == 0 or value.shape[0] % samples:
        return False
    shared = name == "attn_mask" and isinstance(layer, nn.MultiheadAttention)
    return not (shared and value.ndim == 2)


@dataclass(frozen=True)
class _Constant:
    """An argument that is the same for every sample."""

    value: Any


def _by_sample(values: Tensor, samples: int) -> Tensor:
    """``values`` as [n, ...]; rows of several tokens a sample are taken together."""
    if values.ndim == 0 or values.shape[0] % samples:
        raise _UnknownBatchError
    if values.shape[0] == samples:
        return values
    return values.reshape(samples, values.shape[0] // samples, *values.shape[1:])


def _reduce(
    name: str,
    g: Tensor,
    mean: Mapping[str, Tensor],
    norms: dict[str, list[Tensor]],
    products: dict[str, list[Tensor]],
    sums: dict[str, Tensor],
) -> None:
    """Add gradients [n, ...] of a parameter to its quantities."""
    flat = g.reshape(g.shape[0], -1)
    norms[name].append(flat.square().sum(1))
    products[name].append(flat @ mean[name].reshape(-1))
    if sums:
        sums[name] += g.square().sum(0)


def _whole(
    model: nn.Module,
    loss: Callable[[Any, Tensor], Tensor],
    one: BatchPass,
    left: set[str],
    mean: Mapping[str, Tensor],
    norms: dict[str, list[Tensor]],
    products: dict[str, list[Tensor]],
    sums: dict[str, Tensor],
) -> None:
    """``vmap(grad)`` of the whole model for the parameters that no layer accounts for."""
    for name, g in _by_vmap(model, loss, one, left).items():
        _reduce(name, g, mean, norms, products, sums)


def _by_vmap(
    model: nn.Module, loss: Callable[[Any, Tensor], Tensor], one: BatchPass, left: set[str]
) -> dict[str, Tensor]:
    """Gradients [n, ...] of the named parameters."""
    assert one.batch is not None
    x, y = one.batch
    rest = {n: p.detach() for n, p in model.named_parameters() if n not in left}
    rest |= {n: b.detach() for n, b in model.named_buffers()}
    chosen = {n: p.detach() for n, p in model.named_parameters() if n in left}

    def of_sample(p: dict[str, Tensor], x_i: Tensor, y_i: Tensor) -> Tensor:
        return loss(functional_call(model, {**rest, **p}, (x_i[None],)), y_i[None])

    try:
        gradients = vmap(grad(of_sample), (None, 0, 0), randomness="same", chunk_size=16)(
            chosen, x, y
        )
    except (RuntimeError, NotImplementedError, ValueError):
        one_by_one = [grad(of_sample)(chosen, a, b) for a, b in zip(x, y, strict=True)]
        gradients = {n: torch.stack([g[n] for g in one_by_one]) for n in chosen}
    return dict(gradients)


def sample_gram(
    model: nn.Module,
    loss: Callable[[Any, Tensor], Tensor],
    batch: Batch,
    *,
    reduction: str = "mean",
) -> SampleGram:
    """Inner products of the gradients of a batch's samples, without the gradients where possible.

    For a linear layer with one row a sample, <g_i, g_j> = <a_i, a_j> <b_i, b_j>: no array of the
    size of the weights is needed, which makes it the cheapest way to norms and gradient tests.
    Arguments, modes and errors are those of :func:`per_sample`.
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r:.80}")
    names = {id(p): n for n, p in model.named_parameters() if p.requires_grad}
    modes = [(m, m.training) for m in model.modules() if isinstance(m, COUPLING)]
    try:
        for module, _ in modes:
            module.training = False
        one = _run(model, loss, batch, reduction, names, every_parameter=False)
        gram, left = layer_grams(one, names)
        left |= {n for n, g in one.gradient.items() if bool((g != 0).any())}
        for g in _by_vmap(model, loss, one, left).values() if left else ():
            flat = g.reshape(one.samples, -1)
            gram = gram + flat @ flat.T
    finally:
        for module, mode in modes:
            module.training = mode
    order = tuple(name for name in names.values() if name in left)
    return SampleGram(one.samples, one.loss, gram, order)


def layer_grams(one: BatchPass, names: Mapping[int, str]) -> tuple[Tensor, set[str]]:
    """Sum of the layers' Gram matrices [n, n], and the names of parameters that have none."""
    count: dict[int, int] = {}
    for use in one.uses:
        for p in held_by(use).values():
            count[id(p)] = count.get(id(p), 0) + 1
    total = torch.zeros(())
    shared: dict[int, Tensor] = {}
    broken: set[str] = set()
    for use in one.uses:
        held = {k: p for k, p in held_by(use).items() if id(p) in names}
        a, b = use.inputs[0] if use.inputs else None, use.backward
        alone = all(count[id(p)] == 1 for p in held.values())
        if (
            alone
            and type(use.layer) is nn.Linear
            and isinstance(a, Tensor)
            and b is not None
            and a.ndim == 2
            and a.shape[0] == one.samples
        ):
            outer = b @ b.T
            inputs = a.detach() @ a.detach().T
            share = inputs if "weight" in held else torch.zeros_like(inputs)
            total = total + outer * (share + float("bias" in held))
            continue
        try:
            gradients = _materialize(use, held, one.samples) if held else {}
        except (RuntimeError, ValueError, TypeError, NotImplementedError, _UnknownBatchError):
            broken |= {names[id(p)] for p in held.values()}
            continue
        for local, p in held.items():
            flat = gradients[local].reshape(one.samples, -1)
            if count[id(p)] > 1:
                shared[id(p)] = shared[id(p)] + flat if id(p) in shared else flat
            else:
                total = total + flat @ flat.T
    for key, flat in shared.items():
        if names[key] not in broken:
            total = total + flat @ flat.T
    return total, broken
