"""Muon for hidden weights and AdamW for the rest, as one optimizer set up as Muon's authors do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast, overload

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from optiscope.optim.checks import refuse_sharded
from optiscope.optim.foreign_keys import refuse_foreign_keys

__all__ = ["MuonWithAdamW", "hidden_weights"]

_KERNEL = 4  # dimensions from which a bare tensor is a convolution's kernel
_EMBEDDING = re.compile(r"embed|position|pos_|(^|[._])tokens?(\.weight)?$")  # in a weight's name
_HEADS = ("head", "lm_head", "classifier", "fc_out", "logits", "output", "readout", "unembed")
_HONORED = (
    *("lr", "weight_decay", "momentum", "nesterov", "ns_coefficients", "ns_steps", "adjust_lr_fn"),
    *("betas", "eps", "decoupled_weight_decay", "fused"),
)


def hidden_weights(model: nn.Module) -> list[Tensor]:
    """The weights of a model that Muon's authors give to Muon, in the model's order.

    Matrices of hidden layers, and kernels of all convolutions but the first. Not embeddings
    (``nn.Embedding``, or so named), nor the output layer (the last module with a matrix, or one
    named so at the top of the model), nor what is tied to either.

    Source: Jordan et al. 2024, and the README of their ``Muon`` repository.
    """
    owners: dict[Tensor, list[tuple[str, nn.Module]]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for name, p in module.named_parameters(recurse=False, remove_duplicate=False):
            if p.ndim > 1:
                owners.setdefault(p, []).append((f"{path}.{name}".lstrip("."), module))
    convolution = nn.modules.conv._ConvNd
    kernels = [p for p, own in owners.items() if isinstance(own[0][1], convolution)]
    last = [m for m in model.modules() if any(p.ndim > 1 for p in m.parameters(recurse=False))][-1:]
    hidden = []
    for p, own in owners.items():
        names, modules = [name for name, _ in own], [module for _, module in own]
        left = (
            any(isinstance(m, nn.Embedding | nn.EmbeddingBag) or m in last for m in modules)
            or any(_is_embedding(name) or _is_head(name) for name in names)
            or (p.ndim > 2 and not isinstance(own[0][1], convolution))
            or any(p is first for first in kernels[:1])
        )
        if not left:
            hidden.append(p)
    return hidden


def _is_embedding(name: str) -> bool:
    return _EMBEDDING.search(name.lower()) is not None


def _is_head(name: str) -> bool:
    """Whether a weight belongs to an output layer: one of a block has a number before its name."""
    path = [part for part in name.lower().split(".")[:-1] if part not in ("model", "module")]
    return bool(path) and path[0] in _HEADS


class MuonWithAdamW(Optimizer):
    """torch's Muon on hidden weights, kernels flattened, and its AdamW on all the rest.

    Which are hidden, a ``model`` tells (:func:`hidden_weights`), or a group by ``use_muon``. Of
    bare parameters all matrices and kernels (of four dimensions and more) are, but for the first
    kernel and the last of all, the output layer, and but for those named as embeddings or heads
    where names are given. One learning rate serves both, because Muon's step is scaled to the root
    mean square of AdamW's.

    Args:
        params: parameters, named parameters or groups; a group's own settings override the
            arguments.
        lr: learning rate of both.
        momentum: Muon's momentum.
        weight_decay: decoupled, of both.
        betas: AdamW's averaging coefficients.
        model: whose parameters these are.

    Raises:
        ValueError: a setting out of its range, or a key of torch's optimizers that one of the two
            does not honor, such as ``maximize``.
        TypeError: sharded parameters.

    Source: Jordan et al. 2024 (Muon); Liu et al. 2025 (the scaling, ``match_rms_adamw``).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        *,
        model: nn.Module | None = None,
    ) -> None:
        self._built = False
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        refuse_sharded("MuonWithAdamW", (p for group in self.param_groups for p in group["params"]))
        hidden = set(hidden_weights(model)) if model else _hidden_among(self.param_groups)
        groups = [
            {**part, "use_muon": use}
            for use in (True, False)
            for group in self.param_groups
            if (part := _part(group, hidden, use))["params"]
        ]
        for group in groups:
            own = {"momentum": momentum} if group["use_muon"] else {"betas": betas}
            for name, value in own.items():
                group.setdefault(name, value)
        self.param_groups = groups
        self._build()

    def _build(self) -> None:
        """Make the two optimizers of the groups; settings and states stay this one's."""
        for group in self.param_groups:
            refuse_foreign_keys("MuonWithAdamW", group, _HONORED)
        outer = [group for group in self.param_groups if group["use_muon"]]
        rest = [group for group in self.param_groups if not group["use_muon"]]
        self._flat = {p: _flattened(p) for group in outer for p in group["params"]}
        self._outer, self._muon, self._adamw = outer, None, None
        if outer:
            inside = [{**g, "params": [self._flat[p] for p in g["params"]]} for g in outer]
            own = {name: outer[0][name] for name in ("lr", "weight_decay", "momentum")}
            self._muon = Muon(cast(Any, inside), adjust_lr_fn="match_rms_adamw", **own)
            for group, inner in zip(outer, self._muon.param_groups, strict=True):
                for name, value in inner.items():
                    group.setdefault(name, value)
            for p, flat in self._flat.items():
                if p in self.state:
                    self._muon.state[flat] = self.state[p]
        if rest:
            own = {name: rest[0][name] for name in ("lr", "weight_decay", "betas")}
            self._adamw = AdamW(rest, **own)
            self._adamw.state = self.state
        self._built = True

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from a pickle, a copy or a loaded state."""
        super().__setstate__(state)
        self._build()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take a group while the optimizer is made; a later one would belong to neither part."""
        if self._built:
            raise ValueError(
                "expected every parameter when MuonWithAdamW is made, got a group afterwards: "
                "make a new one of all groups"
            )
        super().add_param_group(dict(param_group))

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of both optimizers; returns the closure's loss where one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            refuse_foreign_keys("MuonWithAdamW", group, _HONORED)
        if self._muon is not None:
            self._step_muon(self._muon)
        if self._adamw is not None:
            self._adamw.step()
        return loss

    @torch.no_grad()
    def _step_muon(self, muon: Muon) -> None:
        for outer, inner in zip(self._outer, muon.param_groups, strict=True):
            inner.update({name: v for name, v in outer.items() if name != "params"})
        kernels = [(p, flat) for p, flat in self._flat.items() if flat is not p]
        for p, flat in kernels:
            flat.data = p.detach().flatten(1)
            flat.grad = None if p.grad is None else p.grad.flatten(1)
        muon.step()
        for p, flat in kernels:
            if flat.data_ptr() != p.data_ptr():  # p is not contiguous
                p.copy_(flat.view(p.shape))
            flat.grad = None
        for p, flat in self._flat.items():
            if flat in muon.state:
                self.state[p] = muon.state[flat]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was saved.

        Raises:
            ValueError: it is another optimizer's, or of an older version.
        """
        groups = state_dict.get("param_groups", [{}])
        if not all("use_muon" in group for group in groups):
            raise ValueError(
                "expected a state of MuonWithAdamW, got another optimizer's or one of an older "
                "version, which left kernels to AdamW: train anew"
            )
        super().load_state_dict(state_dict)


def _flattened(p: Tensor) -> Tensor:
    return p if p.ndim == 2 else nn.Parameter(p.detach().flatten(1), p.requires_grad)


def _part(group: dict[str, Any], hidden: set[Tensor], use: bool) -> dict[str, Any]:
    """The group with those of its parameters that Muon takes, or with the others."""
    always = group.get("use_muon")
    wide = {p for p in group["params"] if p.ndim > 1}
    taken = hidden if always is None else wide if always else set()
    places = [i for i, p in enumerate(group["params"]) if (p in taken) == use]
    lists = {key: group[key] for key in ("params", "param_names") if key in group}
    return {**group, **{key: [values[i] for i in places] for key, values in lists.items()}}


def _hidden_among(groups: list[dict[str, Any]]) -> set[Tensor]:
    """What is taken for hidden where there is no model to tell."""
    named = list(_with_names(groups))
    wide = [(name, p) for name, p in named if p.ndim == 2 or p.ndim >= _KERNEL]
    first = next((p for _, p in wide if p.ndim >= _KERNEL), None)
    last = wide[-1][1] if wide else None
    return {
        p
        for name, p in wide
        if p is not first and p is not last and not (_is_embedding(name) or _is_head(name))
    }


def _with_names(groups: list[dict[str, Any]]) -> Iterator[tuple[str, Tensor]]:
    for group in groups:
        names = group.get("param_names", [""] * len(group["params"]))
        yield from zip(names, group["params"], strict=True)
