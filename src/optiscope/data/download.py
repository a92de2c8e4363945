"""Downloads from the official places: checked against digests, resumed after interruption.

A file grows as ``NAME.part`` beside its place and is renamed into it once its digest is right. A
partial file is kept to be resumed (a server without ranges sends it anew). Where the publisher
revises a file and so gives no digest it is always begun anew. A file with a wrong digest is kept as
``NAME.rejected1`` and so on, and the error names it.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from optiscope.data.catalogue import dataset_named, verify
from optiscope.data.dataset import Dataset, RemoteFile
from optiscope.data.errors import BadFile, FetchFailed
from optiscope.data.folders import resolve_data_dir
from optiscope.data.located import Report, digest_of

if TYPE_CHECKING:
    from requests import Response, Session

__all__ = ["Progress", "fetch", "fetch_file"]

Progress = Callable[[str, int, int | None], None]
"""``progress(place, received, total)`` in bytes; ``total`` is None where nobody says."""

CHUNK = 2**17
TIMEOUT = (10.0, 60.0)
"""Seconds to wait for a connection, and for the next bytes."""
ATTEMPTS = 4
"""Connections in a row that may bring nothing before a place is given up."""
PAUSE = 1.0
"""Seconds before the second attempt; doubled for each further one."""
HEAD = 2**16


def fetch(
    name: str, data_dir: str | Path | None = None, progress: Progress | None = None
) -> Report:
    """Download the official files of a data set into the data folder, and verify them.

    Files that are there and right are left alone, in whatever layout; interrupted downloads go on
    where they stopped.

    Returns:
        The report of `verify` on the data set as it is now.

    Raises:
        ValueError: there is no data set ``name``.
        FetchFailed: no network, a wrong digest, no space, or a data set that cannot be fetched. The
            message is one line.
    """
    dataset, folder = dataset_named(name), resolve_data_dir(data_dir)
    report = verify(name, data_dir)
    if report.complete and report.ok:
        return report
    if not dataset.files:
        raise FetchFailed(f"data set {name} cannot be fetched: {dataset.how_to_get}")
    for file in dataset.files:
        if not _already_there(dataset, file, folder):
            fetch_file(file, folder, progress)
    report = verify(name, data_dir)
    published = {folder / file.place for file in dataset.files}  # each of them is right by now
    for found in report.files:
        if found.status == "wrong" and found.path not in published:
            raise FetchFailed(
                f"{found.path} is damaged ({found.detail}): move it away; the published file is "
                "there, and is read once this one is gone"
            )
    return report


def fetch_file(file: RemoteFile, folder: Path, progress: Progress | None = None) -> Path:
    """Download one file to its place below ``folder``, resuming its ``.part`` if there is one.

    Its addresses are tried in order. Returns the file's path.

    Raises:
        FetchFailed: no address served it, what came has another digest, it could not be written, or
            another process is at it.
    """
    import requests

    target = folder / file.place
    partial = target.with_name(target.name + ".part")
    failures: dict[str, list[str]] = {}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as stream, _alone(stream, partial), requests.Session() as session:
            for url in file.urls:
                reason = _receive(session, url, file, stream, progress)
                if reason is None:
                    break
                failures.setdefault(reason, []).append(urlsplit(url).netloc)
            else:
                if file.digest is None:
                    stream.truncate(0)
                kept = stream.seek(0, os.SEEK_END)
                if not kept:
                    partial.unlink()
                raise FetchFailed(_not_served(file, target, failures, kept))
            stream.flush()
            os.fsync(stream.fileno())
            _accept(file, partial, target)
    except OSError as error:
        raise FetchFailed(
            f"cannot write {target} ({error.strerror or error}): make room, or choose another "
            "folder with --data-dir; the same command resumes"
        ) from error
    return target


def _not_served(
    file: RemoteFile, target: Path, failures: Mapping[str, Sequence[str]], kept: int
) -> str:
    reasons = "; ".join(f"{', '.join(hosts)}: {reason}" for reason, hosts in failures.items())
    resume = f"{kept:,} bytes are kept and the same command resumes" if kept else "try again later"
    return f"could not fetch {file.place} ({reasons}): {resume}, or copy the file to {target}"


def _already_there(dataset: Dataset, file: RemoteFile, folder: Path) -> bool:
    """Whether the file is in its place with the right content.

    Raises:
        FetchFailed: another file is in its place.
    """
    target = folder / file.place
    if not target.exists():
        return False
    parts = [part for layout in dataset.layouts for part in layout.parts]
    known = [(file.digest, False)] + [
        (part.digest, part.unpacked) for part in parts if file.place in part.places
    ]
    for digest, unpacked in known:
        with contextlib.suppress(BadFile):
            if digest and digest_of(target, digest.algorithm, unpacked=unpacked) == digest:
                return True
    if file.digest is None:
        return True
    raise FetchFailed(
        f"{target} is there and is not the published file ({file.digest}): move it away and "
        "fetch again"
    )


class _Refused(Exception):
    """An address does not serve the file; trying it again is of no use."""


def _receive(
    session: Session, url: str, file: RemoteFile, stream: IO[bytes], progress: Progress | None
) -> str | None:
    """Append what ``url`` serves to ``stream`` until it is complete; the reason if that fails.

    A connection that breaks is taken up again, until `ATTEMPTS` in a row have brought nothing. One
    that cannot be made at all is not tried again.
    """
    import requests
    import urllib3

    first = stream.seek(0, os.SEEK_END)
    idle, reason = 0, None
    while idle < ATTEMPTS:
        time.sleep(PAUSE * 2 ** (idle - 1) if idle else 0.0)
        before = stream.seek(0, os.SEEK_END)
        try:
            reason = _transfer(session, url, file, stream, progress)
        except _Refused as refusal:
            return str(refusal)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            reason = _plain_reason(error)
            if stream.seek(0, os.SEEK_END) == first:
                return reason
        if reason is None:
            return None
        idle = 0 if stream.seek(0, os.SEEK_END) > before else idle + 1
    return reason


def _transfer(
    session: Session, url: str, file: RemoteFile, stream: IO[bytes], progress: Progress | None
) -> str | None:
    """One connection: append what is missing; None if the file is complete, else the reason.

    Raises:
        _Refused: ``url`` does not serve the file.
    """
    if file.digest is None:  # nothing would tell a file put together of two revisions
        stream.truncate(0)
    before = stream.seek(0, os.SEEK_END)
    headers = {"Accept-Encoding": "identity"}
    if before:
        headers["Range"] = f"bytes={before}-"
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        status, total = response.status_code, _total(response)
        if status == 416 and total == before:
            return None
        if status == 416 or (status == 206 and _start(response) != before):
            stream.truncate(0)
            return "it cannot resume"
        if status >= 500:
            return f"HTTP {status} {response.reason}"
        if status not in (200, 206):
            raise _Refused(f"HTTP {status} {response.reason}")
        if file.size is not None and total not in (None, file.size):
            raise _Refused(f"it serves {total:,} bytes, expected {file.size:,}")
        if status == 200:
            stream.truncate(0)
        received = _copy(response, file.place, stream, total or file.size, progress)
    expected = total or file.size
    if expected is not None and received < expected:
        return f"connection lost after {received:,} of {expected:,} bytes"
    return None


def _copy(
    response: Response, place: str, stream: IO[bytes], total: int | None, progress: Progress | None
) -> int:
    """Append the bytes of ``response`` as they were sent; the size of the file so far."""
    received = stream.seek(0, os.SEEK_END)
    while chunk := response.raw.read(CHUNK, decode_content=False):
        stream.write(chunk)
        received += len(chunk)
        if progress is not None:
            progress(place, received, total)
    return received


def _accept(file: RemoteFile, partial: Path, target: Path) -> None:
    """Rename a received file into its place, or aside where it is not what was asked for."""
    if file.digest is not None:
        got = digest_of(partial, file.digest.algorithm)
        problem = None if got == file.digest else f"expected {file.digest}, got {got.value}"
    else:
        with partial.open("rb") as stream:
            head = stream.read(HEAD)
            stream.seek(-min(HEAD, partial.stat().st_size), os.SEEK_END)
            tail = stream.read()
        problem = None
        for marker, where, place in ((file.marker, head, "start"), (file.ending, tail, "end")):
            if problem is None and marker not in where:
                problem = f"expected {marker.decode()!r} near its {place}, got none"
    if problem is None:
        partial.replace(target)
        return
    rejected = next(
        path
        for number in itertools.count(1)
        if not (path := target.with_name(f"{target.name}.rejected{number}")).exists()
    )
    partial.rename(rejected)
    raise FetchFailed(
        f"{file.place}: {problem}: what came is kept as {rejected.name} and not used; fetch again, "
        "and if this repeats, the publisher's file has changed or the network alters it"
    )


@contextlib.contextmanager
def _alone(stream: IO[bytes], path: Path) -> Iterator[None]:
    """Hold the partial file for this process, where the system can say so."""
    try:
        import fcntl
    except ImportError:  # no such lock on this system
        yield
        return
    busy = FetchFailed(f"another process is fetching {path.stem}: wait for it")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise busy from error
    except OSError as error:  # a file system without locks
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):
            raise
    try:
        ours = os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        ours = False
    if not ours:  # it was renamed into its place between the opening and the lock
        raise busy
    yield


def _total(response: Response) -> int | None:
    """Size of the whole file, from ``Content-Range`` or ``Content-Length``."""
    whole = response.headers.get("Content-Range", "").rpartition("/")[2]
    if response.status_code == 200:
        whole = response.headers.get("Content-Length", "")
    return int(whole) if whole.isdigit() else None


def _start(response: Response) -> int:
    """First byte of the range served; 0 where no range is."""
    first = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdigit() else 0


def _plain_reason(error: Exception) -> str:
    """A network error in a few words."""
    import requests

    if isinstance(error, requests.Timeout):
        return "no answer in time"
    text = str(error)
    if "resolve" in text or "Name or service" in text or "getaddrinfo" in text:
        return "no such name, is there a network?"
    if "certificate" in text.lower():
        return "its certificate is not trusted here"
    if isinstance(error, requests.exceptions.SSLError):
        return "no secure connection"
    if "refused" in text:
        return "connection refused"
    if "IncompleteRead" in text or "Connection broken" in text:
        return "connection lost"
    if isinstance(error, requests.ConnectionError):
        return "cannot be reached, is there a network?"
    return type(error).__name__
