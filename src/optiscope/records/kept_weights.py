"""Which weights a run keeps beside its record: ``weights/epoch_<n>.safetensors``.

They are no part of the trial: a run that keeps them has the same hash and the same record as one
that does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from optiscope.errors import OptiscopeError, shorten

__all__ = ["FOLDER", "Keep", "KeepError", "kept_weights", "weights_file"]

FOLDER = "weights"
"""Of the weights, in a run's folder."""

_PART = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")
_NAME = re.compile(r"epoch_(\d{1,9})\.safetensors")
_MOST = 1_000_000  # epochs in a range


class KeepError(OptiscopeError, ValueError):
    """What should be kept is not understood, or cannot be."""


@dataclass(frozen=True)
class Keep:
    """At which epochs weights are kept.

    Attributes:
        epochs: numbers (0 is before the first step), ``all``, or ``last``: those of the last
            evaluation, whatever ended the run.
        seeds: of the trials whose weights are kept; None: all.
    """

    epochs: frozenset[int] | Literal["all", "last"]
    seeds: frozenset[int] | None = None

    @staticmethod
    def of(wanted: str | int | Iterable[int], seeds: Iterable[int] | None = None) -> Keep:
        """From a number, numbers, or text such as ``0,5,10-20``, ``all`` or ``last``.

        Raises:
            KeepError: it is none of these.
        """
        chosen = None if seeds is None else frozenset(seeds)
        if wanted == "all":
            return Keep("all", chosen)
        if wanted == "last":
            return Keep("last", chosen)
        if isinstance(wanted, str):
            numbers = [n for part in wanted.split(",") for n in _range(part.strip(), wanted)]
        else:
            try:
                numbers = [wanted] if isinstance(wanted, int) else list(wanted)
            except TypeError:
                raise _not_understood(wanted) from None
        whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers)
        if not numbers or not whole:
            raise _not_understood(wanted)
        return Keep(frozenset(numbers), chosen)

    def at(self, epoch: int) -> bool:
        """Whether the weights of an epoch are wanted; with ``last``, until there are later ones."""
        return isinstance(self.epochs, str) or epoch in self.epochs

    def check(self, horizon: int) -> None:
        """Raise KeepError where an epoch lies beyond the horizon."""
        late = [] if isinstance(self.epochs, str) else [n for n in self.epochs if n > horizon]
        if late:
            raise KeepError(
                f"expected epochs from 0 to the horizon of {horizon} to keep weights of, got "
                f"{min(late)}: train for longer, or say last"
            )


def _range(part: str, whole: str) -> Iterable[int]:
    found = _PART.fullmatch(part)
    if found is None:
        raise _not_understood(whole)
    first = int(found[1])
    last = first if found[2] is None else int(found[2])
    if last < first or last - first > _MOST:
        raise _not_understood(whole)
    return range(first, last + 1)


def _not_understood(wanted: object) -> KeepError:
    return KeepError(
        f"expected epochs to keep weights of, such as 0,5,10-20, all or last, got {shorten(wanted)}"
    )


def weights_file(folder: Path, epoch: int) -> Path:
    """Where the weights of an epoch stand in a folder of weights."""
    return folder / f"epoch_{epoch}.safetensors"


def kept_weights(run: Path) -> dict[int, Path]:
    """Files of the weights that the folder of a run holds, by epoch, in order."""
    found = {}
    for path in (run / FOLDER).glob("epoch_*.safetensors"):
        if (name := _NAME.fullmatch(path.name)) is not None:
            found[int(name[1])] = path
    return dict(sorted(found.items()))
