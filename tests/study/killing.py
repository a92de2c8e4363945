"""Killing a study, its workers, or all of them at random moments, and starting it again."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

WORKER_DEATHS_IN_A_LIFE = 3  # a trial that dies five times alone is recorded as crashed


class Started(Protocol):
    """A process that leads a session of its own, as subprocess.Popen has it."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...


class _Process(NamedTuple):
    pid: int
    parent: int
    session: int
    zombie: bool


class Forked:
    """A copy of this process that leads a session of its own and only runs ``act``."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.setsid()
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, 2)
                act()
                status = 0
            finally:
                os._exit(status)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def _processes() -> list[_Process]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found.append(
            _Process(int(path.parent.name), int(fields[1]), int(fields[3]), fields[0] == "Z")
        )
    return found


def _workers(parent: int) -> list[int]:
    """Children that train; not the process that tracks semaphores for them."""
    found = []
    for process in _processes():
        if process.parent == parent and not process.zombie:
            try:
                command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
            except OSError:
                continue
            if b"resource_tracker" not in command:
                found.append(process.pid)
    return found


def left_over(sessions: list[int]) -> list[int]:
    """Processes of these sessions that still run."""
    return [p.pid for p in _processes() if p.session in sessions and not p.zombie]


def _ended(process: Started, within: float) -> bool:
    end = time.monotonic() + within
    while process.poll() is None:
        if time.monotonic() >= end:
            return False
        time.sleep(0.01)
    return True


def kill_until_done(
    start: Callable[[], Started], *, kills: int, longest: float, patience: float, seed: int
) -> Counter[str]:
    """Start a study until it ends by itself; what was killed, at most ``kills`` times.

    Args:
        start: starts the study where it was left.
        kills: after so many it is left in peace.
        longest: seconds between two kills at most.
        patience: seconds in which an undisturbed study must end, and orphans must be gone.
        seed: of what is killed and when.
    """
    draw, killed, sessions = random.Random(seed), Counter[str](), []
    while True:
        process = start()
        sessions.append(process.pid)
        in_this_life = 0
        while killed.total() < kills and not _ended(process, draw.uniform(0.0, longest)):
            choices = ["parent", "all"]
            if in_this_life < WORKER_DEATHS_IN_A_LIFE:
                choices.append("worker")
            what, workers = draw.choice(choices), _workers(process.pid)
            if what == "worker":
                if workers:
                    os.kill(draw.choice(workers), signal.SIGKILL)
                    in_this_life += 1
                    killed[what] += 1
                continue
            victims = workers if what == "all" else []
            for victim in (process.pid, *victims):
                try:
                    os.kill(victim, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            killed[what] += 1
            break
        assert _ended(process, patience), "the study hangs"
        if process.poll() != -signal.SIGKILL:
            break
    assert process.poll() == 0, "the study failed where it should have gone on"
    end = time.monotonic() + patience
    while (orphans := left_over(sessions)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not orphans, f"processes {orphans} outlived their study"
    return killed
