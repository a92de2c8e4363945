"""Running a task in a forked child, so that a death has a name and nothing outlives the task.

A worker that only ever forks has used no threads and no device of its own: its children start in
milliseconds from what it has imported. What a child does to itself, down to replaced functions and
leaked memory, ends with it; when it dies, its parent lives and knows how.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import select
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from optiscope.control_groups import group_files

__all__ = [
    "ChildDied",
    "ChildHung",
    "allow_children",
    "allowing_children",
    "children_allowed",
    "follow_parent",
    "run_apart",
    "signal_child",
]

POLL_SECONDS = 0.2
PARENT_CHECK_SECONDS = 1.0
PR_SET_PDEATHSIG = 1  # of Linux's prctl

_exit = os._exit  # a task may replace the one in os
_state = {"thread": 0, "child": 0, "signal": 0}


class ChildDied(Exception):
    """A child ended without a word; the message says how: "was killed (SIGSEGV)"."""


class ChildHung(Exception):
    """A child did not end in its time and was killed."""


def allow_children() -> None:
    """Declare that this process only forks: from now on tasks of this thread may run in children.

    Another thread's may not: a child has only the thread that forked it, and waits forever for a
    lock that any other held.
    """
    if sys.platform == "linux":
        _state["thread"] = threading.get_ident()


@contextmanager
def allowing_children() -> Iterator[None]:
    """Allow children inside, and no longer afterwards: the process may do other work then."""
    before = _state["thread"]
    _state["signal"] = 0
    allow_children()
    try:
        yield
    finally:
        _state["thread"], _state["signal"] = before, 0


def children_allowed() -> bool:
    """Whether tasks of this thread may run in children of this process."""
    return _state["thread"] == threading.get_ident()


def signal_child(number: int) -> None:
    """Send a signal to the child of this process that runs, and to any that it starts hereafter.

    A child may just be starting, and not be known here yet: it is sent the signal once it is.
    """
    _state["signal"] = number
    if _state["child"]:
        os.kill(_state["child"], number)


def run_apart(act: Callable[[Callable[[], None]], object], *, seconds: float | None = None) -> None:
    """Run ``act`` in a child of this process.

    Args:
        act: is given a function to call when its time begins, or begins anew; what it returns is
            dropped.
        seconds: after its time has begun, how long the child may live; None: as long as it will.

    Raises:
        ChildDied: it was killed, or ended the process by itself.
        ChildHung: its time was up.
        Exception: what ``act`` raised.
    """
    _flush()
    reading, writing = os.pipe()
    kills = _out_of_memory_kills()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the only one sleeps
        child = os.fork()
    if child == 0:
        os.close(reading)
        _live(act, writing)
    _state["child"] = child
    if _state["signal"]:  # which came before it was known whom to send it to
        os.kill(child, _state["signal"])
    os.close(writing)
    try:
        said, status = _listen(child, reading, seconds)
    except ChildHung:
        raise
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    finally:
        _state["child"] = 0
        os.close(reading)
    message = said.lstrip(b"\0")
    if message.startswith(b"+"):
        return
    if message.startswith(b"-"):
        raise _unpickled(message[1:])
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        raise ChildDied(f"ended by itself (exit status {code})")
    name = signal.Signals(-code).name
    if code == -signal.SIGKILL:
        name += ": out of memory" if _out_of_memory_kills() > kills else ": out of memory?"
    raise ChildDied(f"was killed ({name})")


def _live(act: Callable[[Callable[[], None]], object], writing: int) -> NoReturn:
    """What the child does; it never returns to what its parent was doing."""

    def begin() -> None:
        os.write(writing, b"\0")

    status = 1
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to pass on
        if _state["signal"]:  # which came while the parent's handlers still were this one's
            os.kill(os.getpid(), _state["signal"])
        follow_parent(os.getppid())
        try:
            act(begin)
            said = b"+"
        except BaseException as error:
            said = b"-" + _pickled(error)
        _flush()
        while said:
            said = said[os.write(writing, said) :]
        status = 0
    finally:
        _exit(status)


def _listen(child: int, reading: int, seconds: float | None) -> tuple[bytes, int]:
    """What a child says, and how it ended; kills it once its time is up."""
    said, begun, end = b"", 0, None
    while True:
        ready, _, _ = select.select([reading], [], [], POLL_SECONDS)
        piece = os.read(reading, 65536) if ready else b""
        said += piece
        if seconds is not None and (times := len(said) - len(said.lstrip(b"\0"))) > begun:
            begun, end = times, time.monotonic() + seconds
        pid, status = os.waitpid(child, 0 if ready and not piece else os.WNOHANG)
        if pid:
            _state["child"] = 0
            while select.select([reading], [], [], 0)[0] and (piece := os.read(reading, 65536)):
                said += piece
            return said, status
        if end is not None and time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise ChildHung(f"did not end within {seconds:.0f} s")


def _pickled(error: BaseException) -> bytes:
    try:
        content = pickle.dumps(error)
        pickle.loads(content)
        return content
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


def _unpickled(content: bytes) -> BaseException:
    error = pickle.loads(content)
    return error if isinstance(error, BaseException) else RuntimeError(repr(error))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            continue


def _out_of_memory_kills() -> int:
    """Processes that were killed for want of memory in this one's group, or one that holds it."""
    files = group_files("memory.events", controller="memory", version_1="memory.oom_control")
    return sum(map(_kills_in, files))


def _kills_in(file: Path) -> int:
    try:
        words = file.read_text().split()
        return int(words[words.index("oom_kill") + 1])
    except (OSError, ValueError, IndexError):
        return 0


def follow_parent(parent: int) -> None:
    """Have this process end when ``parent`` does, however it went."""
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: int) -> None:
    """End this process once it has been handed to another parent."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    _exit(1)
