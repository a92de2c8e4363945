"""Series of measured values by step, kept small however long the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["LIMIT", "Series"]

LIMIT = 1500


class Series:
    """Values by name and step; when a series is full, every other point is dropped.

    A name with ``layers`` holds one value per layer at each step. Memory is bounded: at most
    ``limit`` points a series, whatever the number of steps.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.scalars: dict[str, list[tuple[int, float]]] = {}
        self.layers: dict[str, dict[str, list[tuple[int, float]]]] = {}
        self._stride: dict[tuple[str, str], int] = {}
        self._count: dict[tuple[str, str], int] = {}

    def add(self, name: str, step: int, value: float) -> None:
        """Add one value; those that are not finite are kept as nan."""
        self._append(self.scalars.setdefault(name, []), (name, ""), step, value)

    def add_layers(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """Add one value for each layer."""
        rows = self.layers.setdefault(name, {})
        for layer, value in values.items():
            self._append(rows.setdefault(layer, []), (name, layer), step, value)

    def _append(
        self, points: list[tuple[int, float]], key: tuple[str, str], step: int, value: float
    ) -> None:
        stride = self._stride.get(key, 1)
        count = self._count.get(key, 0)
        self._count[key] = count + 1
        if count % stride:
            return
        points.append((step, value if math.isfinite(value) else math.nan))
        limit = self.limit if not key[1] else max(50, self.limit // 5)
        if len(points) > limit:
            del points[1::2]
            self._stride[key] = 2 * stride

    def latest(self, name: str) -> float | None:
        """The newest value of a scalar series."""
        points = self.scalars.get(name)
        return points[-1][1] if points else None

    def to_dict(self) -> dict[str, Any]:
        """Plain lists for JSON; nan becomes None."""

        def plain(points: list[tuple[int, float]]) -> list[list[float | None]]:
            return [[s, None if math.isnan(v) else float(f"{v:.5g}")] for s, v in points]

        return {
            "scalars": {n: plain(p) for n, p in self.scalars.items()},
            "layers": {
                n: {layer: plain(p) for layer, p in rows.items()} for n, rows in self.layers.items()
            },
        }
