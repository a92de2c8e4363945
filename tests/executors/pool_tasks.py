"""Tasks for processes that import little."""

from __future__ import annotations

import os
import time
from pathlib import Path


def sleep_and_tell(folder: str, seconds: float) -> None:
    """Leave a file named after this process, then sleep."""
    (Path(folder) / f"{os.getpid()}.pid").touch()
    time.sleep(seconds)
