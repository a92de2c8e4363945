"""Whether the files that are read are those whose digests the catalogue knows.

Nothing forbids training on other files: a smaller copy, another revision, one's own images in a
known layout. But whoever reads the figures must see it. So a file whose digest is not the known one
is told in a warning, and whoever collects what is told (the training loop does) can write it into
the record.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from optiscope.data.dataset import Digest, Part
from optiscope.data.located import Located, digest_of

__all__ = ["OtherFilesWarning", "compare", "compare_all", "noted"]


class OtherFilesWarning(UserWarning):
    """A file of a data set is not the one whose digest is known."""


_notes: ContextVar[list[str] | None] = ContextVar("notes of other files", default=None)


@contextmanager
def noted() -> Iterator[list[str]]:
    """Collect, instead of a warning each, what is told of files that are read inside."""
    notes: list[str] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def compare_all(located: Located) -> bool:
    """Whether every file of a data set has the digest that is known; tells of those that have not.

    A file whose digest nobody knows does not count as known, and nothing is told of it.

    Raises:
        BadFile: a file cannot be read, or unpacks to more than it may.
    """
    known = [
        compare(
            part,
            path,
            digest_of(path, part.digest.algorithm, unpacked=part.unpacked, largest=part.largest),
        )
        for part, path in _files(located)
        if part.digest is not None
    ]
    return all(known) and len(known) == len(located.paths)


def compare(part: Part, path: Path, got: Digest) -> bool:
    """Whether a file of a part has the digest that is known; tells of it where it has not."""
    if part.digest is None or got == part.digest:
        return part.digest is not None
    what = part.revised or "not the published file"
    _tell(f"{path.name} is {what} ({got})", path)
    return False


def _tell(note: str, path: Path) -> None:
    notes = _notes.get()
    if notes is not None:
        if note not in notes:
            notes.append(note)
        return
    warnings.warn(f"{note}, in {path.parent}", OtherFilesWarning, stacklevel=2)


def _files(located: Located) -> Sequence[tuple[Part, Path]]:
    return [(part, path) for part in located.layout.parts for path in located.files[part.role]]
