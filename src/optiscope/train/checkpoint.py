"""The state of a run in a file, from which it goes on bit for bit; loading it executes nothing."""

from __future__ import annotations

import io
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from optiscope.atomic_file import replacing

__all__ = ["Checkpoint"]

SIGNALS = ("SIGTERM", "SIGUSR1", "SIGINT")


class Checkpoint:
    """Where a run saves its state: at ends of epochs, every ten minutes and when it must leave.

    Args:
        path: the file; written beside itself, synced and renamed.
        say: told, in words and once, why a state cannot be saved or was not taken up.
        every: seconds after which a state is saved within an epoch.
        apart: least seconds between two saves at ends of epochs.

    Attributes:
        leaving: whether a signal has asked the run to save and end.
    """

    def __init__(
        self,
        path: Path,
        say: Callable[[str], None] = lambda message: None,
        *,
        every: float = 600.0,
        apart: float = 5.0,
    ) -> None:
        self.path, self.say, self.every, self.apart = path, say, every, apart
        self.leaving, self._works, self._tried = False, True, False
        self._saved, self._cost = time.monotonic(), 0.0

    def due(self, *, epoch_end: bool) -> bool:
        """Whether it is time to save; saving takes a hundredth of the time at most."""
        least = max(self.apart, 100 * self._cost) if epoch_end else self.every
        return self._works and (self.leaving or time.monotonic() - self._saved >= least)

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        """Replace the file by a new state, whole or not at all; one that cannot be is said once."""
        begun = time.monotonic()
        try:
            content = io.BytesIO()
            torch.save(state(), content)
            if not self._tried:  # once: can what was saved be loaded without running code?
                torch.load(io.BytesIO(content.getvalue()), weights_only=True)
                self._tried = True
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as written:
                written.write_bytes(content.getbuffer())
        except Exception as error:
            self._works = False
            self.say(f"no checkpoints, an interrupted trial starts over: {_in_words(error)}")
        self._saved = time.monotonic()
        self._cost = self._saved - begun

    def load(self, identity: dict[str, Any]) -> dict[str, Any] | None:
        """The state to go on from; None where there is none that is of this trial and loadable."""
        try:
            state = torch.load(self.path, weights_only=True)
            if state["identity"] != identity:
                raise ValueError("it is of another trial, version or device")
        except FileNotFoundError:
            return None
        except Exception as error:
            self.say(
                f"{self.path.name} was not taken up, the trial starts over: {_in_words(error)}"
            )
            return None
        return dict(state)

    @classmethod
    def of(
        cls, store: Path, trial_hash: str, say: Callable[[str], None] = lambda message: None
    ) -> Checkpoint:
        """That of a trial whose record a store will hold."""
        return cls(store / ".checkpoints" / f"{trial_hash}.pt", say)

    def remove(self) -> None:
        """Take the file away: its run is recorded."""
        self.path.unlink(missing_ok=True)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """TERM, USR1 and INT ask the run to save after its step; a second INT ends it at once."""

        def leave(number: int, frame: FrameType | None) -> None:
            if self.leaving and number == signal.SIGINT:
                signal.default_int_handler(number, frame)
            self.leaving = True

        handlers = {}
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, n) for n in SIGNALS if hasattr(signal, n)):
                if signal.getsignal(number) is not signal.SIG_IGN:  # pools ignore Ctrl-C
                    handlers[number] = signal.signal(number, leave)
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
