"""Where the files of a data set are on this machine, and whether they are the published ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from optiscope.data.bytes_of import LARGEST, open_unpacked
from optiscope.data.dataset import Dataset, Digest, Layout, Part
from optiscope.data.errors import BadFile, MissingData
from optiscope.data.folders import DATA_DIR_VARIABLE, resolve_data_dir

__all__ = ["FileReport", "Located", "Report", "digest_of", "locate_files", "verify_files"]

BLOCK = 2**20
Status = Literal["ok", "wrong", "missing", "unverified"]


@dataclass(frozen=True)
class Located:
    """A complete data set on disk: its layout and the files of each role."""

    folder: Path
    layout: Layout
    files: Mapping[str, tuple[Path, ...]]

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files, in the layout's order."""
        return tuple(path for part in self.layout.parts for path in self.files[part.role])


@dataclass(frozen=True)
class FileReport:
    """What verification found for one file."""

    path: Path
    status: Status
    detail: str


@dataclass(frozen=True)
class Report:
    """What verification found for a data set: the layout it would be read from, and each file."""

    dataset: str
    folder: Path
    layout: str | None
    files: tuple[FileReport, ...]

    @property
    def complete(self) -> bool:
        """Whether some layout has all its files."""
        return self.layout is not None

    @property
    def ok(self) -> bool:
        """Whether the data set is complete and no file contradicts its digest."""
        return self.complete and all(file.status != "wrong" for file in self.files)


def locate_files(dataset: Dataset, data_dir: str | Path | None = None) -> Located:
    """Files of a data set in the first of its layouts that is complete below the data folder.

    Raises:
        MissingData: no layout is complete; the message says where was searched and what to do.
    """
    name, folder = dataset.name, resolve_data_dir(data_dir)
    partial = ""
    for layout in dataset.layouts:
        found = {part.role: part.find(folder) for part in layout.parts}
        missing = [part.places[0] for part in layout.parts if not found[part.role]]
        if not missing:
            return Located(folder, layout, MappingProxyType(found))
        if len(missing) < len(layout.parts) and not partial:
            partial = f" (of its {layout.name} layout only {', '.join(missing)} is missing)"
    remedy = dataset.how_to_get or (
        f"run `optiscope data fetch {name}`, or name the folder that holds it with --data-dir "
        f"or {DATA_DIR_VARIABLE}"
    )
    raise MissingData(f"data set {name} not found in {folder}{partial}: {remedy}")


def verify_files(dataset: Dataset, data_dir: str | Path | None = None) -> Report:
    """Report on the files of a data set: present or not, and whether they match known digests.

    Every layout of which any file is present is reported; where none is, the files to fetch are
    reported as missing. A file nobody publishes a digest of is ``unverified``.
    """
    name, folder = dataset.name, resolve_data_dir(data_dir)
    complete = None if dataset.layouts else "package"
    reports: list[FileReport] = []
    for layout in dataset.layouts:
        found = {part.role: part.find(folder) for part in layout.parts}
        if not any(found.values()):
            continue
        if all(found.values()):
            complete = complete or layout.name
        for part in layout.parts:
            absent = FileReport(folder / part.places[0], "missing", f"part of {layout.name}")
            reports += [_check(part, path) for path in found[part.role]] or [absent]
    if complete is None and not reports:
        fetch = dataset.how_to_get or f"run `optiscope data fetch {name}`"
        places = [file.place for file in dataset.files] or [name]
        reports = [FileReport(folder / place, "missing", fetch) for place in places]
    return Report(name, folder, complete, tuple(reports))


def digest_of(
    path: Path, algorithm: str, *, unpacked: bool = False, largest: int = LARGEST
) -> Digest:
    """Digest of a file, or of what it unpacks to.

    Raises:
        BadFile: the file cannot be read or unpacked, or unpacks to more than ``largest`` bytes.
    """
    if algorithm not in ("sha256", "md5"):
        raise ValueError(f"algorithm must be sha256 or md5, got {algorithm!r}")
    state = hashlib.new(algorithm, usedforsecurity=False)
    try:
        if unpacked:
            with open_unpacked(path, largest) as packed:
                while block := packed.read(BLOCK):
                    state.update(block)
        else:
            with path.open("rb") as stream:
                while block := stream.read(BLOCK):
                    state.update(block)
    except OSError as error:
        raise BadFile(f"{path}: cannot be read ({error.strerror or error})") from error
    return Digest("sha256" if algorithm == "sha256" else "md5", state.hexdigest())


def _check(part: Part, path: Path) -> FileReport:
    if part.folder:
        return FileReport(path, "unverified", "a folder of class folders")
    if part.digest is None:
        return FileReport(path, "unverified", "no digest is published for this file")
    try:
        got = digest_of(path, part.digest.algorithm, unpacked=part.unpacked, largest=part.largest)
    except BadFile as error:
        return FileReport(path, "wrong", str(error))
    if got == part.digest:
        return FileReport(path, "ok", str(got))
    if part.revised:
        return FileReport(path, "unverified", f"{part.revised} ({got})")
    return FileReport(path, "wrong", f"expected {part.digest}, got {got.value}: fetch it again")
