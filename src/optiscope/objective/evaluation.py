"""Guards that make a second evaluation of a loss see what the first one saw, and leave no trace.

The second evaluation, at other parameters, must draw the same dropout masks, must not move the
running statistics of normalisation layers, and must not be a loss of another batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from optiscope.errors import OptiscopeError

__all__ = [
    "NonDeterministicLossError",
    "PlainWeightNorm",
    "RandomState",
    "leaves",
    "modules_called",
    "second_order_backward",
    "twice_differentiable",
    "unchanged_buffers",
]


class NonDeterministicLossError(OptiscopeError, RuntimeError):
    """Two evaluations of a loss at the same parameters differ, with the same random numbers."""


@dataclass(frozen=True)
class RandomState:
    """State of torch's global generators of the CPU and of some CUDA devices."""

    cpu: Tensor
    cuda: dict[int, Tensor]

    @staticmethod
    def now(devices: Iterable[torch.device] = ()) -> RandomState:
        """State at this moment of the CPU and the CUDA devices among ``devices``."""
        indices = {
            torch.cuda.current_device() if d.index is None else d.index
            for d in devices
            if d.type == "cuda"
        }
        return RandomState(
            torch.get_rng_state(), {i: torch.cuda.get_rng_state(i) for i in sorted(indices)}
        )

    def restore(self) -> None:
        """Put the generators back into this state."""
        torch.set_rng_state(self.cpu)
        for index, state in self.cuda.items():
            torch.cuda.set_rng_state(state, index)

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Draw the numbers that followed this state once more; afterwards nothing has moved."""
        present = RandomState.now(torch.device("cuda", i) for i in self.cuda)
        self.restore()
        try:
            yield
        finally:
            present.restore()


@contextmanager
def modules_called() -> Iterator[list[nn.Module]]:
    """Outermost modules called inside the context, in order; their submodules are theirs."""
    called: list[nn.Module] = []
    known: set[int] = set()

    def note(module: nn.Module, args: Any) -> None:
        if id(module) not in known:
            called.append(module)
            known.update(id(m) for m in module.modules())

    handle = register_module_forward_pre_hook(note)
    try:
        yield called
    finally:
        handle.remove()


@contextmanager
def unchanged_buffers(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Give every buffer of ``modules`` (running statistics, counters) its value back on leaving."""
    owners = {id(m): m for module in modules for m in module.modules()}
    saved = [
        (owner._buffers, name, buffer, buffer.detach().clone())
        for owner in owners.values()
        for name, buffer in owner._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffers, name, buffer, value in saved:
                if _takes_values(buffer):
                    buffer.copy_(value)
                buffers[name] = buffer  # it may have been replaced by another tensor


def _takes_values(buffer: Tensor) -> bool:
    """Whether it can be written in place: not expanded, nor made in inference mode."""
    if buffer.layout is not torch.strided:
        return True
    expanded = any(s == 0 and n > 1 for s, n in zip(buffer.stride(), buffer.shape, strict=True))
    return not expanded and not buffer.is_inference()


# The code of whatever is marked as differentiable only once.
_ONCE = torch.autograd.function.once_differentiable(lambda ctx: None).__code__


def twice_differentiable(loss: Tensor) -> bool:
    """Whether no function in the loss's graph is marked as differentiable only once.

    Such a function's share in a Hessian product is lost, without an error, where the second
    derivative does not go through it.
    """
    kinds = (getattr(node, "_forward_cls", None) for node in _graph(loss))
    return all(
        getattr(getattr(kind, "backward", None), "__code__", None) is not _ONCE for kind in kinds
    )


def leaves(loss: Tensor) -> list[Tensor]:
    """Tensors that a backward pass of ``loss`` gives gradients to."""
    return [node.variable for node in _graph(loss) if hasattr(node, "variable")]


def _graph(loss: Tensor) -> Iterator[Any]:
    """Nodes of a loss's graph, each once."""
    seen, waiting = set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting += [following for following, _ in node.next_functions]


def twice_differentiable_weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """``torch._weight_norm`` by plain operations: the fused one has wrong second derivatives.

    In torch 2.13 on a CPU its Hessian is not even symmetric.
    """
    direction = v / torch.norm_except_dim(v, 2, dim)
    return g * direction


class PlainWeightNorm(TorchFunctionMode):
    """Weight normalization inside the mode can be differentiated twice."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch._weight_norm:
            func = twice_differentiable_weight_norm
        return func(*args, **(kwargs or {}))


class _CreateGraph(TorchFunctionMode):
    """Calls of ``Tensor.backward`` inside the mode keep the graph of the gradient."""

    def __init__(self, before: Callable[[Tensor], None]) -> None:
        super().__init__()
        self._before = before

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.backward:
            self._before(args[0])
            # Positions of Tensor.backward: self, gradient, retain_graph, create_graph.
            args = tuple(args)[:2] + tuple(args)[4:]
            kwargs.update(create_graph=True, retain_graph=True)
        if func is torch._weight_norm:
            func = twice_differentiable_weight_norm
        return func(*args, **kwargs)


@contextmanager
def second_order_backward(before: Callable[[Tensor], None] = lambda loss: None) -> Iterator[None]:
    """Gradients that ``loss.backward()`` computes inside the context can be differentiated again.

    Attention and recurrent layers use kernels that have second derivatives meanwhile. ``before`` is
    told the loss of each backward pass, which may have more of a graph than what is returned.
    """
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="Using backward.. with create_graph")
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.callback(setattr, torch.backends.cudnn, "enabled", torch.backends.cudnn.enabled)
        torch.backends.cudnn.enabled = False  # its flags() also set TF32, which may be refused
        stack.enter_context(_CreateGraph(before))
        yield
