"""Tasks for processes that import little."""

from __future__ import annotations

import os
import time
from pathlib import Path


def sleep_and_tell(folder: str, seconds: float) -> None:
    """Leave a file named after this process, then sleep."""
    (Path(folder) / f"{os.getpid()}.pid").touch()
    time.sleep(seconds)


def slot(folder: str, count: int, seconds: float) -> tuple[str, str]:
    """The slot of this process, which it holds until ``count`` processes have one."""
    (Path(folder) / f"{os.getpid()}.slot").touch()
    end = time.monotonic() + seconds
    while len(list(Path(folder).glob("*.slot"))) < count and time.monotonic() < end:
        time.sleep(0.02)
    return os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OPTISCOPE_SLOT"]
