"""Whether the code behind an import path is still that of the runs made with it."""

from __future__ import annotations

import ast
import hashlib
import importlib
import os
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from optiscope.study.module_file import LARGEST_SOURCE, module_file, source_text

__all__ = ["digests_on_disk", "in_a_file", "source_digest"]

MOST_HELPERS = 1000
"""The user's modules that are read for one digest."""

IMPORTERS = ("import_module", "__import__")

OPAQUE = frozenset({"eval", "exec", "globals", "locals", "vars"})
"""What reaches names of a module without naming them: then all of the file counts."""

CODE = (".py", ".pyx", ".c", ".cc", ".cpp", ".cxx", ".h", ".hpp", ".cu", ".cuh", ".so", ".pyd")
"""Endings of files beside a module that are its code where a string in it names them."""

MOST_REEXPORTS = 16
"""Modules through which a name is followed to where it is defined."""


def source_digest(path: str) -> str | None:
    """Digest of what an import path names, of all it uses in the same file, and of its helpers.

    So a trial of your own optimizer or problem gets another hash when its code is edited, and runs
    again. Of the file itself only what is used counts; of other modules of yours that it imports,
    and that these import, all of the file does. What is installed is not followed.

    Args:
        path: ``my_package.my_module:thing``, which can be imported.

    Returns:
        16 hex digits; None for names without a colon, for what is installed (its version is in the
        record) or part of this package (which has versions of its own), and without a file.
    """
    if ":" not in path:
        return None
    module_name, _, attribute = path.partition("@")[0].partition(":")
    found = getattr(importlib.import_module(module_name), attribute, None)
    if path not in _DIGESTS or _DIGESTS[path][0] is not found:  # the latter: loaded anew
        _DIGESTS[path] = (found, _digest(module_name, attribute, found))
    return _DIGESTS[path][1]


def in_a_file(path: str) -> bool:
    """Whether what an import path names is defined in a file of its module's own."""
    module_name, _, attribute = path.partition("@")[0].partition(":")
    module = sys.modules.get(module_name)
    return getattr(module, "__file__", None) is not None and "<locals>" not in attribute


_DIGESTS: dict[str, tuple[Any, str | None]] = {}  # of what was loaded, whatever was edited since


def _digest(module_name: str, attribute: str, found: Any) -> str | None:
    module = sys.modules[module_name]
    if isinstance(found, type | FunctionType):  # may be defined elsewhere than where it is named
        module, attribute = sys.modules.get(found.__module__, module), found.__name__
    file = getattr(module, "__file__", None)
    if file is None or _is_installed(module.__name__, Path(file)):
        return None
    parsed = _parsed(Path(file))
    if parsed is None:
        return None
    helpers = _helpers(parsed[1], attribute, _package_of(module), Path(file).parent)
    return _hashed(_used(*parsed, attribute) + helpers)


def digests_on_disk(path: str) -> frozenset[str]:
    """Digests that :func:`source_digest` may give once ``path`` is imported, without importing it.

    The files are found and parsed, never executed, so a name from somebody else's record can be
    looked up. There may be several: only running the code tells whether a name that a call makes is
    defined by it, by what it stands for, or by all of the file.

    Returns:
        Empty where :func:`source_digest` gives None, or the file is not found.
    """
    module_name, colon, attribute = path.partition("@")[0].partition(":")
    if not colon:
        return frozenset()
    digests: set[str] = set()
    for _ in range(MOST_REEXPORTS):
        file = module_file(module_name, [*sys.path, os.curdir])
        if file is None or _is_installed(module_name, file):
            break
        parsed = _parsed(file)
        if parsed is None:
            break
        text, statements = parsed
        package = module_name if file.name == "__init__.py" else module_name.rpartition(".")[0]
        of_all, of_used = (
            _helpers(statements, name, package, file.parent) for name in ("", attribute)
        )
        used = _used(text, statements, attribute)
        digests |= {_hashed(text + of_all), _hashed(used + of_used)}
        onward = _stands_for(statements, attribute, package)
        if onward is None:
            break
        module_name, attribute = onward[0] or module_name, onward[1]
    return frozenset(digests)


def _is_installed(module_name: str, file: Path) -> bool:
    """Whether a module is part of this package, or of one whose version is in the record."""
    if module_name.split(".")[0] == __name__.split(".")[0]:
        return True
    installed = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")}
    return any(file.is_relative_to(folder) for folder in installed)


def _parsed(file: Path) -> tuple[str, list[ast.stmt]] | None:
    """Text and statements of a file, or None where it is not one of source text."""
    try:
        text = source_text(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in somebody else's strings
            return text, ast.parse(text).body
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _hashed(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def _stands_for(statements: list[ast.stmt], name: str, package: str) -> tuple[str, str] | None:
    """Module ("" for the same) and attribute that ``name`` is another name of, or None."""
    onward: tuple[str, str] | None = None
    for statement in statements:
        if isinstance(statement, ast.ImportFrom):
            words = {alias.asname or alias.name: alias.name for alias in statement.names}
            module = _absolute(statement, package)
            if name in words:
                onward = (module, words[name])
            elif "*" in words and onward is None:
                onward = (module, name)
        elif isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Name):
            if any(isinstance(t, ast.Name) and t.id == name for t in statement.targets):
                onward = ("", statement.value.id)
        elif name in _names(statement):
            onward = None
    return onward


def _absolute(statement: ast.ImportFrom, package: str) -> str:
    """Name of the module that ``from ... import`` names, seen from ``package``."""
    module = statement.module or ""
    if not statement.level:
        return module
    above = package.split(".")
    above = above[: len(above) - statement.level + 1]
    return ".".join([*above, *filter(None, [module])])


def _used(text: str, statements: list[ast.stmt], name: str) -> str:
    """Source of the statements of a module that define ``name`` and what it uses, in their order.

    All of the text where no statement defines the name.
    """
    places = _places(statements, name)
    if places is None:
        return text
    lines, pieces = text.split("\n"), []
    for place in places:
        statement = statements[place]
        decorators = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(node.lineno for node in decorators)])
        pieces.append("\n".join(lines[first - 1 : statement.end_lineno]))
    return "\n".join(pieces)


def _places(statements: list[ast.stmt], name: str) -> list[int] | None:
    """Places of the statements that define ``name`` and what it uses.

    None where no statement defines it, or what it uses cannot be told.
    """
    defined: dict[str, list[int]] = {}
    for place, statement in enumerate(statements):
        for one in _names(statement):
            defined.setdefault(one, []).append(place)
    if name not in defined or any(map(_runs_text, statements)):
        return None
    wanted: set[int] = set()
    following = [name]
    while following:
        for place in set(defined.get(following.pop(), ())) - wanted:
            wanted.add(place)
            nodes = ast.walk(statements[place])
            names = {node.id for node in nodes if isinstance(node, ast.Name)}
            if names & OPAQUE:
                return None
            following += names
    return sorted(wanted)


def _runs_text(statement: ast.stmt) -> bool:
    """Whether a statement at the top of a module may define names that it does not name."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return False
    return any(isinstance(n, ast.Name) and n.id in OPAQUE for n in ast.walk(statement))


def _package_of(module: ModuleType) -> str:
    """The package from which a module's relative imports count."""
    return module.__name__ if hasattr(module, "__path__") else module.__name__.rpartition(".")[0]


def _helpers(statements: list[ast.stmt], name: str, package: str, folder: Path) -> str:
    """Text of all modules that ``name`` in a module imports, and that these import; "" for none.

    So is that of files of code in the module's ``folder`` that a string in it names. All are found
    and read, not imported.
    """
    places = _places(statements, name)
    used = statements if places is None else [statements[place] for place in places]
    stars = [s for s in statements if isinstance(s, ast.ImportFrom) and s.names[0].name == "*"]
    texts = dict(_named_files(used, folder))
    following = list(_imports([*used, *stars], package))
    search = [*sys.path, os.curdir]
    while following and len(texts) < MOST_HELPERS:
        module_name = following.pop()
        if module_name in texts or not module_name:
            continue
        file = module_file(module_name, search)
        if file is None or _is_installed(module_name, file):
            continue
        parsed = _parsed(file)
        if parsed is None:
            continue
        texts[module_name] = parsed[0]
        texts |= _named_files(parsed[1], file.parent)
        inside = module_name if file.name == "__init__.py" else module_name.rpartition(".")[0]
        following += _imports(parsed[1], inside)
    return "".join(f"\n# {name}\n{text}" for name, text in sorted(texts.items()))


def _named_files(statements: list[ast.stmt], folder: Path) -> Iterator[tuple[str, str]]:
    """Names and digests of files of code in ``folder`` that strings in statements name."""
    for node in (node for statement in statements for node in ast.walk(statement)):
        name = node.value if isinstance(node, ast.Constant) else None
        if not isinstance(name, str) or not name.endswith(CODE) or len(name) > 255:
            continue
        file = folder / name
        try:
            if file.is_file() and file.stat().st_size <= LARGEST_SOURCE:
                yield f"file {name}", hashlib.sha256(file.read_bytes()).hexdigest()
        except (OSError, ValueError):
            continue


def _imports(statements: list[ast.stmt], package: str) -> Iterator[str]:
    """Names of the modules that statements import, wherever in them, and of packages above."""
    for node in (node for statement in statements for node in ast.walk(statement)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(node, package)
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call) and _last_word(node.func) in IMPORTERS:
            words = [str(a.value) for a in node.args[:1] if isinstance(a, ast.Constant)]
            names = [_resolved(word, package) for word in words]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[: i + 1]) for i in range(len(parts)))


def _resolved(name: str, package: str) -> str:
    """The module that ``import_module(name, package)`` imports."""
    dots = len(name) - len(name.lstrip("."))
    above = package.split(".")[: max(0, len(package.split(".")) - dots + 1)]
    return ".".join([*above, name[dots:]]) if dots else name


def _last_word(function: ast.expr) -> str:
    """The last word of what is called: ``import_module`` of ``importlib.import_module``."""
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _names(statement: ast.stmt) -> Iterator[str]:
    """Names that a statement at the top of a module defines, or whose value it changes."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        for node in ast.walk(statement):
            if isinstance(node, ast.Global):
                yield from node.names
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
            if _last_word(node.value.func) in ("setattr", "delattr"):
                yield from (_base(argument) for argument in node.value.args[:1])
        elif isinstance(node, ast.MatchAs | ast.MatchStar | ast.ExceptHandler) and node.name:
            yield node.name
        elif isinstance(node, ast.MatchMapping) and node.rest:
            yield node.rest


def _base(node: ast.expr) -> str:
    """The name in ``name.a[0].b``, or nothing."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
