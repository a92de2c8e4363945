"""How the gradient of a batch is computed: in which precision, compiled or not, in how many parts.

A trial declares it as ``autocast = "bfloat16"`` or ``"float16"``, ``compile = true`` and
``accumulate = 4``. Without any of them this is a forward and a backward pass. Evaluation is not
affected: what a run reports of its weights is computed as for every other trial.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves, tree_map

from optiscope.data.samples import Batch
from optiscope.errors import shorten
from optiscope.monitor.instrument import EpochView, Instrument
from optiscope.problems.problem import ParamGroup, Problem, regularization
from optiscope.records.recipe import Recipe

__all__ = [
    "AUTOCAST",
    "TOGETHER",
    "BatchGradient",
    "LossScale",
    "gradient_faults",
    "parts_of",
    "together_faults",
]

AUTOCAST: Mapping[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""Formats of mixed precision; float16 needs its loss scaled, so that small gradients survive."""

TOGETHER = ("sgd", "momentum", "nesterov", "adam", "adamw", "lark")
"""Optimizers whose trials can train in one batch: their step draws no random numbers and needs
nothing but gradients."""


class BatchGradient:
    """Evaluates the objective of a batch and adds its gradient to the parameters'.

    Args:
        problem: whose loss it is.
        model: whose parameters they are.
        groups: the parameters, with what each declares (``l2``).
        recipe: what is declared of ``autocast``, ``compile`` and ``accumulate``.
        device: where the model is.
        create_graph: whether gradients must be differentiable.

    Attributes:
        scaler: of the loss, with ``autocast = "float16"``; else None.
        skipped: steps that were not taken because a scaled gradient was not finite.
    """

    def __init__(
        self,
        problem: Problem,
        model: nn.Module,
        groups: Sequence[ParamGroup],
        recipe: Recipe,
        device: torch.device,
        *,
        create_graph: bool,
    ) -> None:
        self.problem, self.groups, self.create_graph = problem, groups, create_graph
        self.device = device
        self.dtype = None if recipe.autocast is None else AUTOCAST[recipe.autocast]
        self.parts = recipe.accumulate or 1
        self.scaler: torch.amp.GradScaler | None = None
        if self.dtype is torch.float16:
            self.scaler = torch.amp.GradScaler(device.type)
        self.skipped = 0
        self.compiles = bool(recipe.compile)
        self.forward: Callable[..., Any] = _compiled(model) if self.compiles else model

    def evaluate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The batch's loss [] and its objective [], the loss with its penalty.

        In several parts both are sums of the parts' shares and hold no graph.
        """
        if self.parts == 1:
            loss = self._mean_loss(batch)
            penalty = regularization(self.groups)
            objective = loss if penalty is None else loss + penalty
            self._backward(objective)
            return loss, objective
        total = torch.zeros((), device=self.device)
        for share, part in parts_of(batch, self.parts):
            loss = share * self._mean_loss(part)
            self._backward(loss)
            total = total + loss.detach()
        penalty = regularization(self.groups)
        if penalty is None:
            return total, total
        self._backward(penalty)
        return total, total + penalty.detach()

    def unscale(self, optimizer: Optimizer) -> None:
        """Divide gradients by the scale of the loss, where there is one."""
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer, **words: Tensor) -> None:
        """The optimizer's step; none where a scaled gradient was not finite."""
        if self.scaler is None:
            take: Callable[..., object] = optimizer.step
            take(**words)
            return
        scale = self.scaler.get_scale()
        self.scaler.step(optimizer, **words)
        self.scaler.update()
        self.skipped += self.scaler.get_scale() < scale

    def state(self) -> dict[str, Any] | None:
        """The scale and the skipped steps, as plain values; None where nothing is scaled."""
        if self.scaler is None:
            return None
        return {"scaler": self.scaler.state_dict(), "skipped": self.skipped}

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Inverse of :meth:`state`."""
        if self.scaler is not None and state is not None:
            self.scaler.load_state_dict(dict(state["scaler"]))
            self.skipped = int(state["skipped"])

    def _mean_loss(self, batch: Batch) -> Tensor:
        model: Any = self.forward
        if self.dtype is None:
            return self.problem.losses(model, batch).mean()
        with torch.autocast(self.device.type, self.dtype):
            losses = self.problem.losses(model, batch)
        return (losses if losses.dtype.itemsize >= 4 else losses.float()).mean()

    def _backward(self, objective: Tensor) -> None:
        scaled = objective if self.scaler is None else self.scaler.scale(objective)
        scaled.backward(create_graph=self.create_graph)


class LossScale(Instrument):
    """Records the scale of the loss and the steps that were skipped for it, epoch by epoch."""

    name = "autocast"

    def __init__(self, gradient: BatchGradient) -> None:
        self._gradient = gradient

    def on_epoch(self, view: EpochView) -> dict[str, float] | None:
        """Scale and skipped steps so far."""
        scaler = self._gradient.scaler
        if scaler is None:
            return None
        return {"loss_scale": scaler.get_scale(), "skipped_steps": float(self._gradient.skipped)}


def _compiled(model: nn.Module) -> Callable[..., Any]:
    """The model compiled, whatever models of its class this process compiled before."""
    torch.compiler.reset()
    return torch.compile(model)


def parts_of(batch: Batch, parts: int) -> Iterator[tuple[float, Batch]]:
    """A batch in equal parts, as far as its size divides, each with its share of the samples.

    Raises:
        ValueError: tensors of the batch have no common first dimension, or fewer samples than
            parts.
    """
    whole = Batch(*(dict(t) if isinstance(t, Mapping) else t for t in batch))
    leaves = [leaf for leaf in tree_leaves(tuple(whole)) if isinstance(leaf, Tensor)]
    sizes = {leaf.shape[0] if leaf.ndim else 0 for leaf in leaves}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            "accumulate needs batches of tensors that all begin with the samples' dimension, got "
            f"first dimensions {shorten(sorted(sizes))}: leave it out"
        )
    count = sizes.pop()
    if count < parts:
        raise ValueError(f"accumulate = {parts} needs as many samples in a batch, got {count}")
    ends = [count * i // parts for i in range(parts + 1)]
    for start, end in itertools.pairwise(ends):

        def cut(leaf: Any, start: int = start, end: int = end) -> Any:
            return leaf[start:end] if isinstance(leaf, Tensor) else leaf

        yield (end - start) / count, Batch(*(tree_map(cut, tree) for tree in whole))


def gradient_faults(
    recipe: Recipe, optimizer: str, *, closure: bool, create_graph: bool
) -> Iterator[tuple[str, str]]:
    """What an optimizer cannot have of a recipe: the part, and one line that says why.

    Args:
        recipe: what is declared.
        optimizer: its name.
        closure: whether it evaluates gradients itself.
        create_graph: whether it differentiates them.
    """
    yield from together_faults(recipe, optimizer)
    if not (closure or create_graph):
        return
    why = "evaluates it itself (closure)" if closure else "differentiates it (create_graph)"
    for part in ("autocast", "compile", "accumulate"):
        value = getattr(recipe, part)
        if value is not None:
            yield (
                part,
                f"{part} is for optimizers that are given one gradient a step, and {optimizer} "
                f"{why}: leave {part} out for it",
            )


def together_faults(recipe: Recipe, optimizer: str) -> Iterator[tuple[str, str]]:
    """Why trials of an optimizer cannot train in one batch with others, where they are to."""
    if not recipe.together:
        return
    if optimizer not in TOGETHER:
        known = ", ".join(TOGETHER)
        yield (
            "together",
            f"expected one of {known} to train together, got {shorten(optimizer)[1:-1]}: leave "
            "together out for it",
        )
    for part in ("autocast", "compile", "accumulate"):
        if getattr(recipe, part) is not None:
            yield "together", f"trials with {part} cannot train together: leave one of them out"
