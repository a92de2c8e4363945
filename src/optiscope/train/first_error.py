"""What the first error of a run may mean: data of another type or form than the model takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from optiscope.data.samples import Samples

__all__ = ["hint_on"]

_OF_TYPES = re.compile(r"dtype|scalar type|[Ii]nput type|same type")
_OF_ARGUMENTS = re.compile(r"missing \d+ required positional argument")


def hint_on(error: BaseException, samples: Samples, model: nn.Module) -> str:
    """A sentence that names what does not fit and what to do, or nothing.

    Args:
        error: raised before the first step was taken.
        samples: of training.
        model: that was to be trained.
    """
    text = str(error)
    if not isinstance(error, RuntimeError | TypeError):
        return ""
    try:
        inputs = samples.select(torch.arange(1)).inputs
    except Exception:  # the samples are what failed
        return ""
    if isinstance(error, RuntimeError) and _OF_TYPES.search(text):
        return _on_types(inputs, model)
    if isinstance(error, TypeError) and _OF_ARGUMENTS.search(text):
        return _on_arguments(inputs)
    return ""


def _on_types(inputs: Any, model: nn.Module) -> str:
    """Where no input has the type of the weights."""
    given = {leaf.dtype for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)}
    wanted = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if not given or not wanted or given & wanted:
        return ""
    have, want = (
        ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        for dtypes in (given, wanted)
    )
    return f"the inputs are {have} and the model's weights {want}: convert one, as in x.float()"


def _on_arguments(inputs: Any) -> str:
    """Where several inputs come as one argument."""
    if isinstance(inputs, Mapping):
        return "the model's inputs are one dictionary: let forward take it as its one argument"
    if isinstance(inputs, tuple | list):
        return (
            f"a batch's {len(inputs)} inputs come as one argument: let forward take the tuple, or "
            "give the problem training_loss = lambda model, batch: "
            "loss(model(*batch.inputs), batch.targets)"
        )
    return ""
