"""Whether the code behind an import path is still that of the runs made with it."""

from __future__ import annotations

import ast
import hashlib
import importlib
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

__all__ = ["source_digest"]


@cache
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
    module = importlib.import_module(module_name)
    found = getattr(module, attribute, None)
    if isinstance(found, type):  # may be defined elsewhere than where it is named
        module, attribute = sys.modules[found.__module__], found.__name__
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
    lines, statements = text.splitlines(), ast.parse(text).body
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
    """Names that a statement at the top of a module defines."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        for alias in statement.names:
            yield (alias.asname or alias.name).split(".")[0]
    else:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield node.name
