"""Losses of a run, the first and the latest of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain, islice

__all__ = ["LossHistory"]

KEPT = 256


class LossHistory:
    """Pairs (step, loss): the first ``KEPT`` and the latest, so that memory is bounded.

    Iteration and ``len`` go over what is kept; ``total`` counts all that came.
    """

    def __init__(self) -> None:
        self.total = 0
        self._first: list[tuple[int, float]] = []
        self._latest: deque[tuple[int, float]] = deque(maxlen=2 * KEPT)

    def append(self, pair: tuple[int, float]) -> None:
        """Add the loss of a step."""
        self.total += 1
        if len(self._first) < KEPT:
            self._first.append(pair)
        else:
            self._latest.append(pair)

    def since(self, count: int) -> list[tuple[int, float]]:
        """Those that came after the first ``count``, as far as they are kept."""
        if count >= self.total:
            return []
        missing = self.total - len(self)  # dropped from the middle
        kept = count if count <= len(self._first) else max(count - missing, len(self._first))
        return list(islice(self, kept, None))

    def __getitem__(self, places: slice) -> list[tuple[int, float]]:
        return list(self)[places]

    def __iter__(self) -> Iterator[tuple[int, float]]:
        return chain(self._first, self._latest)

    def __len__(self) -> int:
        return len(self._first) + len(self._latest)
