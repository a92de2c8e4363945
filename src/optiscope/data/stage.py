"""Copies of data sets on a node's own disk, from which many trials read without a network.

One process of a node copies, the others wait for it. A file appears whole or not at all, and what
is there already and right is left alone.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from optiscope.data.catalogue import DATASETS, locate, verify
from optiscope.data.errors import BadFile
from optiscope.data.located import digest_of

__all__ = ["Staged", "stage"]

LOCK = ".staging"
WAIT_SECONDS = 0.5
SPARE = 2**26
"""Bytes that must be left on the disk."""


@dataclass(frozen=True)
class Staged:
    """What staging did.

    Attributes:
        folder: from which the data sets are to be read: the copy, or, where it has no room, the
            folder they came from; None where there was nothing to copy.
        copied: files that were copied now.
        reason: why there is no copy, in words; empty where there is one.
    """

    folder: Path | None
    copied: int
    reason: str = ""


def stage(
    names: Sequence[str],
    to: Path,
    data_dir: str | Path | None = None,
    say: Callable[[str], None] = lambda message: None,
) -> Staged:
    """Copy the files of data sets below another folder, in the layout they have.

    Args:
        names: of the catalogue; those without files of their own are left out.
        to: the new data folder, on a disk of this machine.
        data_dir: where the data sets are.
        say: told, in a line, what is done.

    Raises:
        MissingData: a data set is not in the data folder.
        BadFile: a file is damaged, or was while it was copied.
        OSError: the folder cannot be written.
    """
    sets = [DATASETS[name] for name in dict.fromkeys(names) if DATASETS[name].layouts]
    if not sets:
        return Staged(None, 0)
    located = {dataset.name: locate(dataset.name, data_dir) for dataset in sets}
    source = next(iter(located.values())).folder
    files = [file for found in located.values() for path in found.paths for file in _files(path)]
    to.mkdir(parents=True, exist_ok=True)
    with _alone(to, say):
        missing = [file for file in files if not _same_size(file, to / file.relative_to(source))]
        needed = sum(file.stat().st_size for file in missing)
        free = shutil.disk_usage(to).free
        if needed + SPARE > free:
            reason = f"{to} has {free:,} bytes left and {needed:,} are needed"
            return Staged(source, 0, reason)
        for file in missing:
            _copy(file, to / file.relative_to(source))
    for dataset in sets:
        for report in verify(dataset.name, to).files:
            if report.status == "wrong":
                raise BadFile(f"{report.path}: {report.detail}")
    say(f"{len(missing)} files, {needed:,} bytes copied to {to}")
    return Staged(to, len(missing))


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return [path]


def _same_size(source: Path, copy: Path) -> bool:
    """Whether a copy is there; it was renamed into place once its digest was right."""
    return copy.is_file() and copy.stat().st_size == source.stat().st_size


def _copy(source: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    partial = copy.with_name(f".{copy.name}-{os.getpid()}")
    try:
        shutil.copyfile(source, partial)
        if digest_of(partial, "sha256") != digest_of(source, "sha256"):
            raise BadFile(f"{source}: was changed while it was copied")
        os.replace(partial, copy)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Be the only process of this machine inside; a lock whose process is gone is taken over."""
    lock, told = folder / LOCK, False
    while True:
        try:
            with lock.open("x") as file:
                file.write(f"{platform.node()} {os.getpid()}")
            break
        except FileExistsError:
            if _is_abandoned(lock):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(lock, folder / f"{LOCK}-{os.getpid()}")  # one succeeds
                    (folder / f"{LOCK}-{os.getpid()}").unlink()
                continue
            if not told:
                say(f"waiting for another process that copies to {folder}")
                told = True
            time.sleep(WAIT_SECONDS)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _is_abandoned(lock: Path) -> bool:
    try:
        host, _, number = lock.read_text().partition(" ")
        if host != platform.node() or not number.isdigit():
            return time.time() - lock.stat().st_mtime > 3600
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
