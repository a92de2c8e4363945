"""A model run at other parameters, in a stated mode, and left as it was.

The tensors of the model are exchanged for the time of a forward pass, so that parameters, their
gradients and the buffers of the model itself are never written to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from optiscope.objective.evaluation import PlainWeightNorm

__all__ = ["differentiable_kernels", "in_mode", "substituted", "unwrapped"]


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside ``torch.compile``, ``DataParallel`` or ``DistributedDataParallel``."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def normalizes_over_batch(module: nn.Module) -> bool:
    """Whether the module keeps running statistics, as batch norm does."""
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
    return isinstance(module, kinds) or "running_mean" in module._buffers


@contextmanager
def in_mode(model: nn.Module, *, training: bool, batch_statistics: bool) -> Iterator[None]:
    """Every module in training or evaluation mode, batch norm in a mode of its own.

    Args:
        model: each of its modules gets its mode back on leaving.
        training: mode of all modules but batch norm.
        batch_statistics: whether batch norm uses the statistics of the batch.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = batch_statistics if normalizes_over_batch(module) else training
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def substituted(
    model: nn.Module, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
) -> Iterator[None]:
    """The model with other tensors in place of its parameters and buffers.

    A tensor that several modules share is exchanged in all of them. Recurrent layers, which hold
    their weights a second time in a list, see the exchange too.
    """
    shared = {id(p): parameters[name] for name, p in model.named_parameters() if name in parameters}
    shared |= {id(b): buffers[name] for name, b in model.named_buffers() if name in buffers}
    with ExitStack() as stack:
        for module in dict.fromkeys(model.modules()):
            for slots in (_slots(module._parameters), _slots(module._buffers)):
                present = dict(slots)
                stack.callback(_refill, slots, present)
                for name, tensor in present.items():
                    if tensor is not None and id(tensor) in shared:
                        slots[name] = shared[id(tensor)]
            if isinstance(module, nn.RNNBase):
                stack.callback(setattr, module, "_flat_weights", module._flat_weights)
                module._flat_weights = [getattr(module, n) for n in module._flat_weights_names]
        yield


def _slots(slots: Any) -> dict[str, Tensor | None]:
    """Parameters or buffers of a module, as what may hold any tensor for a while."""
    own: dict[str, Tensor | None] = slots
    return own


def _refill(slots: dict[str, Tensor | None], values: dict[str, Tensor | None]) -> None:
    slots.clear()
    slots.update(values)


def _normalizes_a_weight(module: nn.Module) -> bool:
    """Whether the module is torch's weight normalization, or has it as a hook (its old form)."""
    return isinstance(module, nn.utils.parametrizations._WeightNorm) or any(
        type(hook).__name__ == "WeightNorm" for hook in module._forward_pre_hooks.values()
    )


@contextmanager
def differentiable_kernels(model: nn.Module) -> Iterator[None]:
    """Kernels with right second derivatives: plain attention, recurrent layers, weight norm."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    weight_norm = any(map(_normalizes_a_weight, model.modules()))
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        fast = torch.backends.mha.get_fastpath_enabled()
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        torch.backends.mha.set_fastpath_enabled(False)
        if weight_norm:
            stack.enter_context(PlainWeightNorm())
        if recurrent:
            stack.callback(setattr, torch.backends.cudnn, "enabled", torch.backends.cudnn.enabled)
            torch.backends.cudnn.enabled = False  # its flags() also set TF32
            stack.callback(torch._C._set_mkldnn_enabled, torch._C._get_mkldnn_enabled())
            torch._C._set_mkldnn_enabled(False)
        yield
