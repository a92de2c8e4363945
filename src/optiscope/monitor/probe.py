"""Probes: the loss and the output at other weights or inputs, without touching the model.

The model is called through ``functional_call`` on copies; random numbers are forked, modes are put
back, hooks of the watch are silent meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from optiscope.monitor.events import Forward, ProbeError
from optiscope.monitor.outputs import main_output, tensors_in
from optiscope.objective.functional import functional_call
from optiscope.objective.own_loss import named_loss

if TYPE_CHECKING:
    from optiscope.monitor.session import Session

__all__ = ["ProbeError", "first_not_finite", "loss_at", "output_at", "probing", "rows_of"]


@contextmanager
def probing(session: Session, *, evaluation: bool = False) -> Iterator[nn.Module]:
    """The model, with its modes, generators and the session's state put back afterwards."""
    model = session.model
    modes = [(module, module.training) for module in model.modules()] if evaluation else []
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    busy, session._busy = session._busy, True
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            for module, _ in modes:
                module.training = False
            yield model
    finally:
        for module, mode in modes:
            module.training = mode
        session._busy = busy


def _seed(model: nn.Module, seed: int) -> None:
    """Seed the generators that were forked, and only those."""
    torch.default_generator.manual_seed(seed)
    for index in {p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"}:
        torch.cuda.default_generators[index].manual_seed(seed)


def _state(model: nn.Module, shifted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Shifted parameters and copies of the buffers (a forward pass may change those)."""
    state = {name: buffer.clone() for name, buffer in model.named_buffers()}
    state.update(shifted)
    return state


def output_at(
    session: Session,
    forward: Forward,
    *,
    shifted: Mapping[str, Tensor] | None = None,
    inputs: Callable[[Tensor], Tensor] | None = None,
    evaluation: bool = False,
    seed: int = 0,
) -> Any:
    """What the model returns on the inputs of ``forward`` at shifted weights.

    ``inputs`` changes the first tensor among the arguments.
    """
    with probing(session, evaluation=evaluation) as model:
        _seed(model, seed)
        args = tuple(_copied(a) for a in forward.args)
        kwargs = {k: _copied(a) for k, a in forward.kwargs.items()}
        if inputs is not None:
            first = forward.input
            args = tuple(
                inputs(a) if old is first else a for a, old in zip(args, forward.args, strict=True)
            )
            kwargs = {k: inputs(a) if forward.kwargs[k] is first else a for k, a in kwargs.items()}
        device = "cpu" if forward.input is None else forward.input.device.type
        with torch.autocast(device, dtype=forward.autocast, enabled=forward.autocast is not None):
            try:
                return functional_call(model, _state(model, shifted or {}), args, kwargs)
            except Exception as error:
                raise ProbeError(f"{type(error).__name__}: {error}") from error


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def rows_of(forward: Forward, count: int) -> Forward | None:
    """``forward`` on its first ``count`` samples; None if its arguments cannot be cut."""
    size = forward.size

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor):  # a copy: the model may change what it is called with
            return (value[:count] if value.ndim and value.shape[0] == size else value).clone()
        return value

    direct = [v for v in (*forward.args, *forward.kwargs.values()) if isinstance(v, Tensor)]
    if len(direct) < len(forward.inputs):
        return None  # states in tuples: their batch dimension is not known
    if not forward.inputs:
        return None
    args = tuple(cut(a) for a in forward.args)
    kwargs = {k: cut(v) for k, v in forward.kwargs.items()}
    inputs = tuple(v for v in (*args, *kwargs.values()) if isinstance(v, Tensor))
    smaller = Forward(
        forward.step, forward.number, forward.training, forward.look, args, kwargs, inputs
    )
    smaller.autocast = forward.autocast
    smaller.grad = forward.grad
    smaller.target = cut(forward.target)
    return smaller


def loss_at(
    session: Session,
    forward: Forward,
    target: Tensor | None,
    *,
    shifted: Mapping[str, Tensor] | None = None,
    seed: int = 0,
) -> float | None:
    """The loss of ``forward``'s batch at shifted weights; None where it cannot be computed.

    The criterion is called with ``target``; without a criterion the cross-entropy of the recovered
    labels is taken, or the loss that the model itself returns.
    """
    output = output_at(session, forward, shifted=shifted, seed=seed)
    own = named_loss(output)
    if own is not None and own.numel() == 1:
        return float(own)
    out = main_output(output)
    if out is None or target is None:
        return None
    function = session.loss_function
    with probing(session):
        if callable(function):
            try:
                value = function(out.float(), target)
            except Exception as error:  # it is called with something made of the output
                raise ProbeError(f"{type(error).__name__}: {error}") from error
            if getattr(function, "reduction", "mean") == "none":
                return float(value.mean())
            return float(value) if isinstance(value, Tensor) and value.numel() == 1 else None
        if out.ndim == 2 and target.ndim == 1 and not target.is_floating_point():
            return float(nn.functional.cross_entropy(out.float(), target.to(out.device)))
    return None


def first_not_finite(session: Session, forward: Forward) -> str:
    """Name of the first module whose output is not finite although its inputs are; "" if none."""
    found: list[str] = []
    handles = []
    model = session.model

    def look(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: Any, output: Any) -> None:
            fine = all(bool(torch.isfinite(t).all()) for t in _floats(tensors_in(inputs)))
            bad = any(not bool(torch.isfinite(t).all()) for t in _floats(tensors_in(output)))
            if not found and fine and bad:
                found.append(name)

        return hook

    try:
        for name, module in model.named_modules():
            if name and not list(module.children()):
                handles.append(module.register_forward_hook(look(name)))
        output_at(session, forward)
    except Exception:
        return ""
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""


def _floats(tensors: list[Tensor]) -> list[Tensor]:
    return [t for t in tensors if t.is_floating_point()]
