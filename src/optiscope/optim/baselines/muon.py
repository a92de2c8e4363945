"""Muon for hidden matrices, AdamW for everything else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import AdamW, Muon, Optimizer

__all__ = ["MuonWithAdamW"]


class MuonWithAdamW(Optimizer):
    """torch's Muon on hidden matrices and its AdamW on all it does not take.

    Muon takes parameters of exactly two dimensions; the last of them in order, the output layer,
    goes to AdamW as its authors advise, together with biases, gains and convolution kernels. One
    learning rate serves both, because Muon's step is scaled to the root mean square of AdamW's.

    Args:
        params: parameters or groups; a group's own settings override the arguments.
        lr: learning rate of both.
        momentum: Muon's momentum.
        weight_decay: decoupled, of both.
        betas: AdamW's averaging coefficients.

    Source: Jordan et al. 2024 (Muon); Liu et al. 2025 (the scaling, ``match_rms_adamw``).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        matrices = [p for group in self.param_groups for p in group["params"] if p.ndim == 2]
        hidden = {id(p) for p in matrices[:-1]}
        taken = [self._restricted(group, lambda p: id(p) in hidden) for group in self.param_groups]
        left = [
            self._restricted(group, lambda p: id(p) not in hidden) for group in self.param_groups
        ]
        taken = [group for group in taken if group["params"]]
        left = [group for group in left if group["params"]]
        self._inner: list[Optimizer] = []
        if taken:
            self._inner.append(
                Muon(
                    cast(Any, taken),
                    lr=lr,
                    momentum=momentum,
                    weight_decay=weight_decay,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        if left:
            self._inner.append(AdamW(left, lr=lr, betas=betas, weight_decay=weight_decay))
        # The inner optimizers' groups are the groups, so that schedulers act on them.
        self.param_groups = [group for inner in self._inner for group in inner.param_groups]

    @staticmethod
    def _restricted(group: dict[str, Any], keep: Callable[[Tensor], bool]) -> dict[str, Any]:
        return {**group, "params": [p for p in group["params"] if keep(p)]}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take a group while the optimizer is made; a later one would belong to neither part."""
        if hasattr(self, "_inner"):
            raise ValueError(
                "expected every parameter when MuonWithAdamW is made, got a group afterwards: "
                "make a new one of all groups"
            )
        super().add_param_group(param_group)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_inner": self._inner}

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both optimizers; returns the closure's loss where one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for inner in self._inner:
            inner.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """State of both optimizers, in order."""
        return {"inner": [inner.state_dict() for inner in self._inner]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        for inner, state in zip(self._inner, state_dict["inner"], strict=True):
            inner.load_state_dict(state)
        self.param_groups = [group for inner in self._inner for group in inner.param_groups]
