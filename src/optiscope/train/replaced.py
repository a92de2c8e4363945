"""Functions, classes and constants that somebody replaced, and tables that somebody wrote to.

They are compared with what was there before, and put back.
"""

from __future__ import annotations

import builtins
import contextlib
import copy
import functools
import gc
import itertools
import math
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import MutableMapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as module_hooks
from torch.optim import optimizer as optimizer_hooks

__all__ = ["namespaces", "put_back", "put_entries_back", "registries", "tables_of_ours"]

_MISSING = object()


def registries() -> list[MutableMapping[Any, Any]]:
    """Tables of hooks and the environment: what is in them is put back, entry by entry."""
    names = [n for n in vars(module_hooks) if n.startswith("_global_")]
    tables = [vars(module_hooks)[n] for n in names]
    tables += [v for n, v in vars(optimizer_hooks).items() if n.startswith("_global_optimizer_")]
    return [os.environ, *(table for table in tables if isinstance(table, MutableMapping))]


def namespaces() -> list[Any]:
    """Modules and classes whose functions somebody may have replaced."""
    optimizers = [c for c in vars(torch.optim).values() if isinstance(c, type)]
    layers = [c for c in vars(nn).values() if isinstance(c, type) and issubclass(c, nn.Module)]
    schedules = [c for c in vars(torch.optim.lr_scheduler).values() if isinstance(c, type)]
    modules = [torch, nn.functional, nn.init, nn.utils, torch.autograd, torch.random, np, random]
    modules += [torch.linalg, torch.fft, torch.special, torch.nn.parallel, torch.utils.data]
    modules += [np.random, np.linalg, np.fft, builtins, math, time, os, os.path, signal, sys]
    modules += [copy, functools, itertools, gc, threading, warnings]
    ours = [m for name, m in sys.modules.items() if name.partition(".")[0] == "optiscope"]
    classes = [torch.Tensor, torch.Generator, nn.Parameter, torch.autograd.Function]
    theirs = [
        module
        for name, module in sys.modules.items()
        if name.startswith(("torch.optim", "torch.nn.")) and isinstance(module, ModuleType)
    ]
    bases = [c for module in theirs for c in vars(module).values() if _is_class_of(c, "torch")]
    ours += [c for module in ours for c in vars(module).values() if _is_class_of(c, "optiscope")]
    found = [*modules, *ours, *classes, *optimizers, *schedules, *layers, *theirs, *bases]
    return list({id(space): space for space in found}.values())


def _is_class_of(value: Any, package: str) -> bool:
    return isinstance(value, type) and str(value.__module__).partition(".")[0] == package


def tables_of_ours() -> list[MutableMapping[Any, Any]]:
    """Tables that modules of this package hold as constants."""
    ours = [m for name, m in sys.modules.items() if name.partition(".")[0] == "optiscope"]
    return [
        table
        for module in ours
        for name, table in vars(module).items()
        if name.isupper() and isinstance(table, dict)
    ]


def put_back(namespace: Any, before: dict[str, Any]) -> None:
    """Undo assignments to functions, classes and constants that a module or class had.

    New names stay, unless they hide a function that was found under them. Other values stay too,
    such as the counts and caches that modules keep for themselves.
    """
    now = vars(namespace)
    for name, value in before.items():
        if now.get(name, _MISSING) is not value and (_is_code(value) or _is_constant(name)):
            with contextlib.suppress(AttributeError, TypeError):
                setattr(namespace, name, value)
    hidden = [name for name in now.keys() - before.keys() if _hides(namespace, name)]
    for name in hidden:
        with contextlib.suppress(AttributeError, TypeError):
            delattr(namespace, name)


def _is_code(value: Any) -> bool:
    return callable(value) or isinstance(value, property | classmethod | staticmethod)


def _is_constant(name: str) -> bool:
    return name.isupper() or name in ("pi", "e", "tau", "inf", "nan")


def _hides(namespace: Any, name: str) -> bool:
    """Whether a new name of a class hides what it inherits, or one of a module a built-in."""
    if isinstance(namespace, type):
        return any(name in vars(base) for base in namespace.__mro__[1:])
    return hasattr(builtins, name) and not name.startswith("__")


def put_entries_back(table: MutableMapping[Any, Any], entries: dict[Any, Any]) -> None:
    """Give a table its entries again, in their order."""
    if list(table.items()) == list(entries.items()):
        return
    if table is os.environ:
        for name in set(table) - set(entries):
            del table[name]
        table.update({k: v for k, v in entries.items() if table.get(k) != v})
        return
    table.clear()
    table.update(entries)
