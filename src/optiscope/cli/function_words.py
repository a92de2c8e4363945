"""What a function is called and what it does, in words, from its own name and docstring."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any

__all__ = ["meaning_of", "name_of"]


def name_of(function: Any) -> str:
    """Its name; of a closure the maker's name with what was given to it.

    A partial application is named after what it calls, and one whose callee is private after the
    callables that it was given, because those are what a reader of the problem named.
    """
    inner = list(_given_callables(function))
    bare = _bare(function)
    if getattr(bare, "__qualname__", "").startswith("_") and inner:
        return ", ".join(name_of(one) for one in inner)
    maker, local, _ = bare.__qualname__.partition(".<locals>")
    if not local:
        return str(maker)
    parts = [word for name, value in _closed_over(bare) for word in _words(name, value)]
    return f"{maker}({', '.join(parts)})" if parts else str(maker)


def meaning_of(function: Any) -> str:
    """Its docstring up to the arguments, followed by those of the functions it was given."""
    found = [_docstring(_bare(function)), *(meaning_of(f) for f in _given_callables(function))]
    return " Given: ".join(text for text in dict.fromkeys(found) if text)


def _bare(function: Any) -> Any:
    """What a partial calls, or the class of an instance without a name of its own."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if hasattr(function, "__qualname__") else type(function)


def _given_callables(function: Any) -> Iterator[Any]:
    """Functions and classes among the arguments of a partial."""
    while isinstance(function, functools.partial):
        for value in (*function.args, *function.keywords.values()):
            if callable(value) and not isinstance(value, bool):
                yield value
        function = function.func


def _closed_over(function: Any) -> list[tuple[str, Any]]:
    variables = inspect.getclosurevars(function).nonlocals
    return list(variables.items())


def _words(name: str, value: Any) -> Iterator[str]:
    if callable(value):
        yield name_of(value)
    elif isinstance(value, tuple) and value and all(map(callable, value)):
        yield from (name_of(one) for one in value)
    elif isinstance(value, int | float):
        yield f"{name} {value:g}"


def _docstring(function: Any) -> str:
    text = inspect.getdoc(function) or ""
    if getattr(function, "__module__", "").startswith("torch."):
        text = text.split("\n\n")[0]  # torch's go on for pages
    for heading in ("\n\nArgs:", "\n\nAttributes:"):
        text = text.split(heading)[0]
    return " ".join(text.split())
