"""The object at an import path such as ``my_package.my_module:MyOptimizer``."""

from __future__ import annotations

import importlib
from pathlib import PurePath
from typing import Any

from optiscope.errors import OptiscopeError, is_ctrl_c, message_of
from optiscope.hints import did_you_mean

__all__ = ["load"]


def load(path: str, noun: str, example: str, error: type[OptiscopeError]) -> Any:
    """What ``module:name`` names; the module is imported.

    Args:
        path: as the user wrote it.
        noun: what it should be, for messages: ``an optimizer``.
        example: of a path, for messages: ``my_package.my_module:MyOptimizer``.
        error: what is raised.

    Raises:
        OptiscopeError: of class ``error``; it is no import path, or leads nowhere.
    """
    module_name, colon, name = path.partition(":")
    if module_name.endswith(".py") or "/" in module_name:
        file = PurePath(module_name)
        folder = "the project's folder" if file.parent == PurePath() else f"folder {file.parent}"
        raise error(
            f"expected {example}, got the file {module_name!r}: name the module without .py, "
            f"{file.stem}:{name}, and run from {folder}"
        )
    if not module_name or not colon:
        raise error(f"expected {example}, got {path!r}: name a module before the colon")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as missing:
        raise error(
            f"expected an importable module in {path!r}, got no module named {missing.name!r}: "
            "install it or run from its folder"
        ) from None
    except BaseException as raised:  # also one that is meant to end the process
        if is_ctrl_c(raised):
            raise
        what = message_of(raised)
        raise error(
            f"expected an importable module in {path!r}, got {type(raised).__name__} from it: "
            f"{what}"
        ) from raised
    try:
        return getattr(module, name)
    except AttributeError:
        known = [word for word in vars(module) if not word.startswith("_")]
        hint = did_you_mean(name, known, otherwise="correct the word after the colon")
        raise error(
            f"expected {noun} {name!r} in module {module_name!r}, got none of that name: {hint}"
        ) from None
