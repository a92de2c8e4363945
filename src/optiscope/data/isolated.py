"""A reader of files in a process of its own.

Formats that compiled libraries parse can crash the process that reads a damaged or hostile file,
and no ``except`` catches that. Here such a file costs one line: the reader runs in a child with
limited memory and time, and its arrays come back as ``.npy`` files.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optiscope.data.errors import BadFile, DataError

__all__ = ["read_isolated", "serve"]

TIMEOUT = 3600.0
"""Seconds after which a reader is given up; CIFAR-10 in parquet takes about 20."""
SPARE_MEMORY = 2**30
"""Bytes that a reader may use beyond what its libraries take and its arrays need."""
REFUSED = 3
"""Exit status of a child that says what is wrong with a file."""

Arrays = dict[str, NDArray[Any]]


def read_isolated(
    reader: str, paths: Mapping[str, Sequence[Path]], arguments: Mapping[str, Any], memory: int
) -> Arrays:
    """Arrays that the reader called ``reader`` makes of files, in a process of its own.

    Args:
        reader: a key of `READERS`.
        paths: the files of each part, such as a split.
        arguments: further arguments of the reader, as JSON can hold them.
        memory: bytes that the arrays and what they are decoded from need at most.

    Raises:
        BadFile: what the reader says of a file, or that reading it crashed, took more than the
            allowed memory, or did not end.
    """
    request = {
        "reader": reader,
        "paths": {part: [str(p.absolute()) for p in files] for part, files in paths.items()},
        "arguments": dict(arguments),
        "memory": memory + SPARE_MEMORY,
    }
    with tempfile.TemporaryDirectory(prefix="optiscope-read-") as folder:
        script = "from optiscope.data.isolated import serve; serve()"
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-c", script],
                input=json.dumps(request | {"folder": folder}).encode(),
                capture_output=True,
                cwd=folder,
                env=_environment(),
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BadFile(_refusal(paths, f"did not end in {TIMEOUT:.0f} s")) from None
        except OSError as error:
            raise DataError(f"cannot start a process that reads files: {error}") from error
        if done.returncode == REFUSED:
            raise BadFile(done.stdout.decode("utf-8", "replace"))
        if done.returncode:
            raise BadFile(_refusal(paths, _death(done.returncode, done.stderr)))
        return {file.stem: np.load(file, allow_pickle=False) for file in Path(folder).glob("*.npy")}


def serve() -> None:
    """Body of the child: do what the request on standard input says, and leave."""
    request = json.loads(sys.stdin.buffer.read())
    read = READERS[request["reader"]]()
    _limit(request["memory"])
    try:
        paths = {part: [Path(p) for p in files] for part, files in request["paths"].items()}
        arrays = read(paths, **request["arguments"])
    except BadFile as error:
        sys.stdout.buffer.write(str(error).encode("utf-8", "replace"))
        sys.stdout.flush()
        sys.exit(REFUSED)
    for name, array in arrays.items():
        np.save(Path(request["folder"]) / f"{name}.npy", array, allow_pickle=False)


def _parquet_images() -> Callable[..., Arrays]:
    import pyarrow as pa
    import pyarrow.parquet  # its memory is not the file's
    from PIL import Image

    from optiscope.data.parquet_images import read_parquet_images

    Image.init()
    pa.set_cpu_count(2)
    pa.set_io_thread_count(2)

    def read(
        paths: Mapping[str, Sequence[Path]], shape: Sequence[int], most_rows: Mapping[str, int]
    ) -> Arrays:
        channels, height, width = shape
        arrays: Arrays = {}
        for part, files in paths.items():
            images, labels = read_parquet_images(files, (channels, height, width), most_rows[part])
            arrays |= {f"{part}_images": images, f"{part}_labels": labels}
        return arrays

    return read


def _matlab() -> Callable[..., Arrays]:
    from optiscope.data.svhn import read_svhn

    def read(paths: Mapping[str, Sequence[Path]]) -> Arrays:
        arrays: Arrays = {}
        for part, (file,) in paths.items():
            arrays[f"{part}_images"], arrays[f"{part}_labels"] = read_svhn(file)
        return arrays

    return read


def _cifar_batches() -> Callable[..., Arrays]:
    from optiscope.data.cifar import read_folder

    def read(paths: Mapping[str, Sequence[Path]], label_bytes: int) -> Arrays:
        arrays: Arrays = {}
        for part, files in paths.items():
            images, labels = read_folder(list(files), label_bytes)
            arrays |= {f"{part}_images": images, f"{part}_labels": labels}
        return arrays

    return read


READERS: Mapping[str, Callable[[], Callable[..., Arrays]]] = {
    "parquet_images": _parquet_images,
    "matlab": _matlab,
    "cifar_batches": _cifar_batches,
}
"""By name: what imports the libraries of a reader and gives the reader."""


def _environment() -> dict[str, str]:
    """The environment, with the modules of this process but not those of the current folder."""
    here = os.path.realpath(os.curdir)
    search = [entry for entry in sys.path if entry and os.path.realpath(entry) != here]
    package = str(Path(__file__).resolve().parents[2])
    thrifty = {
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
        "ARROW_DEFAULT_MEMORY_POOL": "system",  # others reserve gigabytes of addresses
    }
    return {**os.environ, **thrifty, "PYTHONPATH": os.pathsep.join([*search, package])}


def _limit(memory: int) -> None:
    """Bound what this process may use from now on, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + memory
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if hard == resource.RLIM_INFINITY or most < hard:
            resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _death(status: int, stderr: bytes) -> str:
    """What ended a child, in words."""
    if b"MemoryError" in stderr or b"bad_alloc" in stderr or b"out of memory" in stderr.lower():
        return "took more memory than the data set can need"
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return f"crashed the process that reads it ({name})"
    last = stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
    return f"could not be read ({last[:80] or f'exit status {status}'})"


def _refusal(paths: Mapping[str, Sequence[Path]], what: str) -> str:
    first, *others = [path for files in paths.values() for path in files]
    more = f" or one of the {len(others)} files beside it" if others else ""
    return f"{first}{more} {what}: it is damaged, move it away and fetch it again"
