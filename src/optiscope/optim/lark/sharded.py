"""Parameters that are shards of a whole (DTensor, as of ``fully_shard``), and their whole values.

A matrix's factors need its whole gradient. So every process gathers the gradients and the weights
of a step, takes the step of the whole parameter, which is the same everywhere, bit for bit, and
keeps its shard of the weights. The state is whole on every process; only the weights and their
gradients are sharded.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

__all__ = ["keep", "whole"]


def _is_shard(tensor: Tensor) -> bool:
    return hasattr(tensor, "device_mesh")


def whole(tensor: Tensor) -> Tensor:
    """The whole value of a shard, gathered from all processes; another tensor itself."""
    if not _is_shard(tensor):
        return tensor
    from torch.distributed.tensor import DTensor

    return cast(DTensor, tensor).full_tensor()


@torch.no_grad()
def keep(parameter: Tensor, value: Tensor) -> None:
    """Put a parameter's new whole value into its shard; nothing where it is the parameter."""
    if value is parameter:
        return
    from torch.distributed.tensor import DTensor, Replicate

    shard = cast(DTensor, parameter)
    copies = [Replicate()] * shard.device_mesh.ndim
    replicated = DTensor.from_local(value, shard.device_mesh, copies, run_check=False)
    own = replicated.redistribute(placements=shard.placements).to_local()
    shard.to_local().copy_(own)
