"""Claims on trials in a shared folder, so that workers without a head do not train one twice.

A claim is economy, never correctness: where two workers train a trial all the same, the store
holds one of two equal records. Nothing is locked, so that any file system that can create a file
only where there is none will do.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from optiscope.executors.dispatch import MAX_DEATHS
from optiscope.records.store_error import StoreError, explain

__all__ = ["Claim", "Claims"]

BEAT_SECONDS = 5.0
STALE_BEATS = 10
MAX_LOST = 20  # workers that may vanish with one trial


@dataclass(frozen=True)
class Claim:
    """Who trains a trial.

    Attributes:
        trial_hash: which.
        host, process, job: where; ``job`` is that of the batch system, if any.
        started: seconds since the epoch, by the worker's clock.
        lost: workers that vanished with this trial before, and it may be its fault.
        ends: how the batch system says that they ended, such as ``OUT_OF_MEMORY``, one each.
    """

    trial_hash: str
    host: str
    process: int
    job: str | None
    started: float
    lost: int = 0
    ends: tuple[str, ...] = ()

    @property
    def hopeless(self) -> str | None:
        """Why its trial is to be given up; None where it is to be trained."""
        memory = self.ends.count("OUT_OF_MEMORY")
        if memory >= MAX_DEATHS:
            return f"its job ended {memory} times (OUT_OF_MEMORY)"
        return f"{self.lost} workers vanished with it" if self.lost >= MAX_LOST else None


BLAMELESS = ("BOOT_FAIL", "CANCELLED", "DEADLINE", "NODE_FAIL", "PREEMPTED", "TIMEOUT")
"""Ends of a worker's job that say nothing against the trial it had."""
MOST_ENDS = 20
"""Ends that a claim remembers."""


class Claims:
    """The claims of a study, one small file each in the folder ``claims``.

    Args:
        folder: the study's.
        beat: seconds after which a worker shows that it is alive.
        ended_as: how a batch system says that a job ended, or None; asked once for each claim that
            is taken over.
    """

    def __init__(
        self,
        folder: Path,
        *,
        beat: float = BEAT_SECONDS,
        ended_as: Callable[[str], str | None] = lambda job: None,
    ) -> None:
        self.folder, self.beat, self.ended_as = folder / "claims", beat, ended_as

    def take(self, trial_hash: str) -> Claim | None:
        """Claim a trial; None where somebody who is alive has it.

        Raises:
            StoreError: the folder cannot be written.
        """
        try:
            return self._take(trial_hash)
        except OSError as error:
            raise StoreError(explain(error, self.folder)) from error

    def _take(self, trial_hash: str) -> Claim | None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path, lost, ends = self._path(trial_hash), 0, tuple[str, ...]()
        if path.exists():
            before = self.read(trial_hash)
            if not self._is_stale(trial_hash, before):
                return None
            aside = self.folder / f".stale-{uuid.uuid4().hex}"
            try:
                os.rename(path, aside)  # one of those who see it stale succeeds
            except FileNotFoundError:
                return None
            aside.unlink(missing_ok=True)
            if before is not None:
                end = None if before.job is None else self.ended_as(before.job)
                lost = before.lost + (end not in BLAMELESS)
                ends = (*before.ends, *([] if end is None else [end]))[-MOST_ENDS:]
        job = os.environ.get("SLURM_JOB_ID")
        claim = Claim(trial_hash, platform.node(), os.getpid(), job, time.time(), lost, ends)
        try:
            file = path.open("x")
        except FileExistsError:
            return None
        try:
            with file:
                json.dump(asdict(claim), file)
        except OSError:  # the disk is full: nobody has it
            path.unlink(missing_ok=True)
            raise
        return claim

    def release(self, claim: Claim) -> None:
        """Give a claim up, unless somebody has taken it over."""
        now = self.read(claim.trial_hash)
        if now is not None and (now.host, now.process) == (claim.host, claim.process):
            self._path(claim.trial_hash).unlink(missing_ok=True)

    def read(self, trial_hash: str) -> Claim | None:
        """Who has a trial; None where nobody has, or the file cannot be read."""
        try:
            values = json.loads(self._path(trial_hash).read_text())
            claim = Claim(
                trial_hash,
                str(values["host"]),
                int(values["process"]),
                None if values["job"] is None else str(values["job"]),
                float(values["started"]),
                int(values["lost"]),
                tuple(str(end) for end in list(values.get("ends", ()))[-MOST_ENDS:]),
            )
        except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return None
        return claim if claim.process > 0 else None

    def all(self) -> list[tuple[Claim, bool]]:
        """Every claim, and whether its worker is taken for dead."""
        names = sorted(path.stem for path in self.folder.glob("[!.]*.json"))
        claims = [claim for name in names if (claim := self.read(name)) is not None]
        return [(claim, self._is_stale(claim.trial_hash, claim)) for claim in claims]

    def sweep(self, recorded: Callable[[str], bool]) -> None:
        """Take away claims on trials that are recorded: of workers killed before they could.

        Likewise what those left who were killed while they looked at a claim.
        """
        for path in self.folder.glob("[!.]*.json"):
            if recorded(path.stem):
                path.unlink(missing_ok=True)
        for path in (*self.folder.glob(".stale-*"), *self.folder.glob(".clock-*")):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def beating(self, *claims: Claim) -> Iterator[None]:
        """Show that the worker is alive, as long as the inside lasts."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(self.beat):
                for claim in claims:
                    with contextlib.suppress(OSError):
                        os.utime(self._path(claim.trial_hash))

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()

    def _path(self, trial_hash: str) -> Path:
        return self.folder / f"{trial_hash}.json"

    def _is_stale(self, trial_hash: str, claim: Claim | None) -> bool:
        """Whether its worker is gone: by its process on this host, else by the server's clock.

        A claim that cannot be read is being written, or was when its writer died.
        """
        if claim is not None and claim.host == platform.node() and not _runs(claim.process):
            return True
        clock = self.folder / f".clock-{platform.node()}-{os.getpid()}"
        try:
            clock.touch()  # both times are the file server's
            age = clock.stat().st_mtime - self._path(trial_hash).stat().st_mtime
        except OSError:
            return False
        finally:
            with contextlib.suppress(OSError):
                clock.unlink(missing_ok=True)
        return age > STALE_BEATS * self.beat


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
