"""A problem whose model kills its process as often as files say."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

from torch import nn

from optiscope import problems

DEATHS_VARIABLE = "TEST_DEATHS"


def allow_deaths(folder: Path, count: int) -> None:
    """Put ``count`` deaths in a folder; each is died once, by whichever process takes it."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / str(number)).touch()


def _make_model() -> nn.Module:
    for death in Path(os.environ[DEATHS_VARIABLE]).iterdir():
        try:
            death.unlink()
        except FileNotFoundError:
            continue
        os.kill(os.getpid(), signal.SIGKILL)
    return digits.make_model()


digits = problems.get("digits_logreg")
problem = dataclasses.replace(digits, name="deadly", make_model=_make_model)
