"""Which of a model's parameters a risk is a function of."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from optiscope.errors import OptiscopeError
from optiscope.hints import did_you_mean

__all__ = ["Selection", "SelectionError", "select_parameters"]

Selection = str | nn.Module | Tensor | Mapping[str, Any] | Iterable[Any] | None
"""A name, prefix or pattern of names, a layer, a parameter, an optimizer's group, or several."""


class SelectionError(OptiscopeError, ValueError):
    """No parameter of the model matches."""


def select_parameters(model: nn.Module, selection: Selection) -> tuple[str, ...]:
    """Names of the chosen parameters in the model's order; tied ones once; None chooses all.

    Raises:
        SelectionError: a part of the selection matches nothing.
    """
    known = dict(model.named_parameters())
    if not known:
        raise SelectionError("expected a model with parameters, got one without any")
    if selection is None:
        return tuple(known)
    chosen = set(_matches(model, known, selection))
    return tuple(name for name in known if name in chosen)


def _matches(model: nn.Module, known: dict[str, nn.Parameter], selection: Any) -> list[str]:
    if isinstance(selection, str):
        all_names = {
            name: first
            for first, parameter in known.items()
            for name, other in model.named_parameters(remove_duplicate=False)
            if other is parameter
        }
        names = [
            first
            for name, first in all_names.items()
            if name == selection
            or name.startswith(f"{selection}.")
            or fnmatch.fnmatchcase(name, selection)
        ]
        if not names:
            layers = [name for name, _ in model.named_modules() if name]
            hint = did_you_mean(selection, [*all_names, *layers], otherwise="see named_parameters")
            raise SelectionError(
                f"expected a parameter, layer or pattern of the model, got {selection[:80]!r}: "
                f"{hint}"
            )
        return names
    if isinstance(selection, nn.Module):
        return _identical(known, list(selection.parameters()))
    if isinstance(selection, Tensor):
        return _identical(known, [selection])
    if isinstance(selection, Mapping):
        return _identical(known, list(selection["params"]))
    if isinstance(selection, Iterable):
        names = [name for part in selection for name in _matches(model, known, part)]
        if names:
            return names
    raise SelectionError(
        f"expected names, layers, parameters or an optimizer's group, got "
        f"{type(selection).__name__}: pass parameters=None for the whole model"
    )


def _identical(known: dict[str, nn.Parameter], tensors: list[Any]) -> list[str]:
    wanted = {id(tensor) for tensor in tensors}
    names = [name for name, parameter in known.items() if id(parameter) in wanted]
    if not names or len(names) < len(wanted):
        raise SelectionError(
            f"expected parameters of the model, got {len(wanted) - len(names)} that are not: take "
            "them from model.parameters() of the same model"
        )
    return names
