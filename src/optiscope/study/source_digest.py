"""Whether the code behind an import path is still that of the runs made with it."""

from __future__ import annotations

import ast
import hashlib
import importlib
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

__all__ = ["in_a_file", "source_digest"]


def source_digest(path: str) -> str | None:
    """Digest of what an import path names, and of all it uses that is defined in the same file.

    So a trial of one's own optimizer or problem gets another hash when its code is edited, and runs
    again; editing something else in the file changes nothing. Code in other files is not followed.

    Args:
        path: ``my_package.my_module:thing``, which can be imported.

    Returns:
        16 hex digits; None for names without a colon, for what is installed (its version is in the
        record) or part of this package (which has versions of its own), and without a file.
    """
    if ":" not in path:
        return None
    module_name, _, attribute = path.partition(":")
    found = getattr(importlib.import_module(module_name), attribute, None)
    if path not in _DIGESTS or _DIGESTS[path][0] is not found:  # the latter: loaded anew
        _DIGESTS[path] = (found, _digest(module_name, attribute, found))
    return _DIGESTS[path][1]


def in_a_file(path: str) -> bool:
    """Whether what an import path names is defined in a file of its module's own."""
    module_name, _, attribute = path.partition(":")
    module = sys.modules.get(module_name)
    return getattr(module, "__file__", None) is not None and "<locals>" not in attribute


_DIGESTS: dict[str, tuple[Any, str | None]] = {}  # of what was loaded, whatever was edited since


def _digest(module_name: str, attribute: str, found: Any) -> str | None:
    module = sys.modules[module_name]
    if isinstance(found, type | FunctionType):  # may be defined elsewhere than where it is named
        module, attribute = sys.modules.get(found.__module__, module), found.__name__
    file = getattr(module, "__file__", None)
    if file is None or module.__name__.split(".")[0] == __name__.split(".")[0]:
        return None
    installed = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")}
    if any(Path(file).is_relative_to(folder) for folder in installed):
        return None
    try:
        text = Path(file).read_text(encoding="utf-8")
        code = "\n".join(_used(text, attribute))
    except (OSError, ValueError, SyntaxError):  # not a file of source text
        return None
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def _used(text: str, name: str) -> Iterator[str]:
    """Source of the statements of a module that define ``name`` and what it uses, in their order.

    All of the text where no statement defines the name.
    """
    lines, statements = text.split("\n"), ast.parse(text).body
    defined: dict[str, list[int]] = {}
    for place, statement in enumerate(statements):
        for one in _names(statement):
            defined.setdefault(one, []).append(place)
    if name not in defined:
        yield text
        return
    wanted: set[int] = set()
    following = [name]
    while following:
        for place in set(defined.get(following.pop(), ())) - wanted:
            wanted.add(place)
            nodes = ast.walk(statements[place])
            following += [node.id for node in nodes if isinstance(node, ast.Name)]
    for place in sorted(wanted):
        statement = statements[place]
        decorators = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(node.lineno for node in decorators)])
        yield "\n".join(lines[first - 1 : statement.end_lineno])


def _names(statement: ast.stmt) -> Iterator[str]:
    """Names that a statement at the top of a module defines, or whose value it changes."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            yield _base(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield _base(node.value.func)  # settings.update(...)


def _base(node: ast.expr) -> str:
    """The name in ``name.a[0].b``, or nothing."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
