"""Tasks for processes that import little."""

from __future__ import annotations

import os
import time
from pathlib import Path


def sleep_and_tell(folder: str, seconds: float) -> None:
    """Leave a file named after this process, then sleep."""
    (Path(folder) / f"{os.getpid()}.pid").touch()
    time.sleep(seconds)


def slot(seconds: float) -> tuple[str, str]:
    """The slot of this process, which it holds for a while."""
    time.sleep(seconds)
    return os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OPTISCOPE_SLOT"]
