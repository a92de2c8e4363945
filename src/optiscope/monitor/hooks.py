"""Hooks that a copy or a pickle of the model leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Hook", "Hooks"]


def _nothing(*_: Any, **__: Any) -> None:
    """What a copied or unpickled hook does."""


class Hook:
    """A callable that becomes ``_nothing`` when the object it hangs on is copied or pickled.

    ``copy.deepcopy(model)`` copies the hooks of the model: a bound method would copy the whole
    session with it, and ``torch.save(model)`` would fail.
    """

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.function(*args, **kwargs)

    def __copy__(self) -> Callable[..., None]:
        return _nothing

    def __deepcopy__(self, _: dict[int, Any]) -> Callable[..., None]:
        return _nothing

    def __reduce__(self) -> tuple[Any, ...]:
        return _get_nothing, ()


def _get_nothing() -> Callable[..., None]:
    return _nothing


class Hooks:
    """Handles of registered hooks, removed together."""

    def __init__(self) -> None:
        self._handles: list[Any] = []

    def add(self, register: Callable[..., Any], function: Callable[..., Any], **how: Any) -> None:
        """Register ``function`` with ``register(hook, **how)``."""
        self._handles.append(register(Hook(function), **how))

    def remove(self) -> None:
        """Remove every hook; a second call does nothing."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __len__(self) -> int:
        return len(self._handles)
