"""Whether modules in the current folder can be imported, which depends on the command."""

from __future__ import annotations

import os
import sys

__all__ = ["allow_current_folder", "forbid_current_folder"]


def allow_current_folder() -> None:
    """Let ``my_module:MyOptimizer`` be found in the current folder, after all other places."""
    if "" not in sys.path:
        sys.path.append("")


def forbid_current_folder() -> None:
    """Import nothing from the current folder, unless ``PYTHONPATH`` names it.

    It may be somebody else's: a ``pandas.py`` beside their records would be imported by whatever
    library looks whether pandas is there.
    """
    here = os.path.realpath(os.curdir)
    wanted = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [
        entry
        for entry in sys.path
        if os.path.realpath(entry or os.curdir) != here or (entry and entry in wanted)
    ]
