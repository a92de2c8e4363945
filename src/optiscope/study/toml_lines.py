"""Line numbers of keys in a TOML file, which the standard parser does not keep."""

from __future__ import annotations

import re
from collections import Counter

__all__ = ["Path", "line_of"]

Path = tuple[str | int, ...]

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(
    r"""^\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*="""
)


def line_of(text: str, path: Path) -> int | None:
    """1-based line of the longest prefix of ``path`` that stands in ``text``, or None.

    ``path`` is as pydantic gives it: ``("algorithms", 1, "space", "lr")``.
    """
    lines = _lines_by_path(text)
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def _lines_by_path(text: str) -> dict[Path, int]:
    found: dict[Path, int] = {}
    tables: Counter[tuple[str, ...]] = Counter()
    table: Path = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            names = _split(header.group(2))
            if header.group(1) == "[[":
                tables[names] += 1
            table = _with_indices(names, tables)
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            found.setdefault((*table, *_split(key.group(1))), number)
    return found


def _split(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _with_indices(names: tuple[str, ...], tables: Counter[tuple[str, ...]]) -> Path:
    path: list[str | int] = []
    for i, name in enumerate(names):
        path.append(name)
        if tables[names[: i + 1]]:
            path.append(tables[names[: i + 1]] - 1)
    return tuple(path)
