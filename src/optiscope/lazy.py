"""Public names of a package that are imported when first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["attach"]


def attach(
    package: str, homes: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package whose names are imported lazily.

    Args:
        package: ``__name__`` of the package.
        homes: public names by the module that defines them, relative to the package (``"lark"``)
            or absolute (``"optiscope.optim"``); a module listed with no names is itself public.

    Example:
        ``__getattr__, __dir__, __all__ = lazy.attach(__name__, {"lark": ("Lark",)})``
    """
    modules: dict[str, str] = {}
    home: dict[str, str] = {}
    for module, names in homes.items():
        path = module if module.startswith("optiscope.") else f"{package}.{module}"
        names = tuple(names)
        home.update(dict.fromkeys(names, path))
        if not names:
            modules[path.rpartition(".")[2]] = path
    public = sorted([*home, *modules])

    def get_attribute(name: str) -> Any:
        if name in home:
            return getattr(importlib.import_module(home[name]), name)
        if name in modules:
            return importlib.import_module(modules[name])
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def list_names() -> list[str]:
        return sorted(public)

    return get_attribute, list_names, public
