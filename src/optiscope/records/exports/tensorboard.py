"""TensorBoard: one folder of event files a run, hyperparameters in the HPARAMS tab."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optiscope.records.exports.plain import finite, flat

__all__ = ["Run"]


class Run:
    """Event files in ``where/group/name``; view them with ``tensorboard --logdir where``."""

    def __init__(
        self, where: Path | str, *, name: str, group: str, settings: Mapping[str, Any]
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._settings = flat(settings)
        self._writer = SummaryWriter(str(Path(where) / group / name))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars; the part of a name before its last slash is its section."""
        for name, value in finite(values).items():
            self._writer.add_scalar(name, value, step)

    def note(self, name: str, text: str) -> None:
        """A text in the TEXT tab."""
        self._writer.add_text(name, text)

    def finish(self, summary: Mapping[str, float], status: str) -> None:
        """Hyperparameters with the final values, and the end of the files."""
        from torch.utils.tensorboard.summary import hparams

        values = finite(summary)
        parts = hparams({**self._settings, "status": status}, values)
        for part in parts:  # experiment, start and end of the session
            self._writer._get_file_writer().add_summary(part)
        for name, value in values.items():
            self._writer.add_scalar(name, value, 0)
        self._writer.close()
