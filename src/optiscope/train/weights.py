"""Writing the weights that a run keeps, as evaluated: with an optimizer's averages in place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from torch import nn

from optiscope.objective.weight_files import WeightFileError, write_weights
from optiscope.records import Trial
from optiscope.records.kept_weights import Keep, weights_file

__all__ = ["WeightKeeper"]


class WeightKeeper:
    """Keeps a model's state at chosen epochs in a folder that moves into the record at the end.

    Args:
        keep: which epochs.
        folder: for them, until there is a record.
        say: told, in words and once, why weights cannot be kept; the run goes on.
    """

    def __init__(
        self, keep: Keep, folder: Path, say: Callable[[str], None] = lambda message: None
    ) -> None:
        self.keep, self.folder, self.say = keep, folder, say
        self._works = True

    @classmethod
    def of(
        cls, store: Path, trial: Trial, keep: Keep | None, say: Callable[[str], None]
    ) -> WeightKeeper | None:
        """That of a trial whose record a store will hold; None where nothing of it is kept."""
        if keep is None or (keep.seeds is not None and trial.seed not in keep.seeds):
            return None
        return cls(keep, store / ".weights" / trial.hash, say)

    def begin(self) -> None:
        """Forget what an earlier attempt left: the run starts at its first step."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def look(self, epoch: int, model: nn.Module) -> None:
        """Write the model's state, where the epoch's is wanted."""
        if not (self._works and self.keep.at(epoch)):
            return
        path = weights_file(self.folder, epoch)
        try:
            write_weights(model.state_dict(), path)
            if self.keep.epochs == "last":
                for other in self.folder.iterdir():
                    if other != path:
                        other.unlink(missing_ok=True)
        except (WeightFileError, OSError) as error:
            self._works = False
            self.say(f"the run keeps no weights from epoch {epoch} on: {error}")

    def remove(self) -> None:
        """Take the folder away: the record has what was in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
