"""How an algorithm looks in every figure and table: colour, line style and marker.

The colours are those of Okabe and Ito (2008), chosen to be told apart with any common colour
blindness, without their yellow, which is too light for a line on white. Colours repeat after
seven algorithms with another line style; every marker is used once in twelve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["DASHES", "FAINT", "GRID", "INK", "MARKERS", "PALETTE", "SHADE", "Look", "looks"]

PALETTE: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")

DASHES: Final[tuple[tuple[float, ...], ...]] = ((), (5, 2), (1.5, 1.5), (6, 1.5, 1.5, 1.5))
"""On and off lengths in line widths, the empty one being solid."""

MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")

_MARKER_SIZES: Final = {"*": 7.5, "P": 6.0, "X": 5.8, "p": 5.6, "h": 5.4, "<": 5.2, ">": 5.2}

INK: Final = "#1a1a1a"
FAINT: Final = "#6b6b6b"
GRID: Final = "#e3e3e3"
SHADE: Final = "#f1d9d2"


@dataclass(frozen=True)
class Look:
    """Appearance of one algorithm.

    Attributes:
        label: of the algorithm, as shown.
        number: its place among the shown algorithms, from 0; names its group in every figure.
        colour: ``#rrggbb``.
        dashes: on and off lengths in line widths, empty when solid.
        marker: Matplotlib's name of the marker.
    """

    label: str
    number: int
    colour: str
    dashes: tuple[float, ...]
    marker: str

    @property
    def linestyle(self) -> Any:
        """The dashes as Matplotlib takes them."""
        return (0, self.dashes) if self.dashes else "solid"

    @property
    def size(self) -> float:
        """Marker size in points that makes all markers look equally large."""
        return _MARKER_SIZES.get(self.marker, 4.6)

    @property
    def group(self) -> str:
        """Id given to the artists of this algorithm; the page turns it into ``data-alg``."""
        return f"alg{self.number}"


def looks(labels: Sequence[str], colours: Mapping[str, str] | None = None) -> dict[str, Look]:
    """Looks of the algorithms in the given order; ``colours`` are the user's, by label.

    A colour that the user gave to one algorithm is not handed out to another by itself.
    """
    wanted = {label: c.lower() for label, c in (colours or {}).items() if label in labels}
    free = [c for c in PALETTE if c not in wanted.values()] or list(PALETTE)
    found: dict[str, Look] = {}
    handed_out = 0
    for number, label in enumerate(labels):
        if label in wanted:
            colour, dashes = wanted[label], DASHES[number // len(PALETTE) % len(DASHES)]
        else:
            colour = free[handed_out % len(free)]
            dashes = DASHES[handed_out // len(free) % len(DASHES)]
            handed_out += 1
        found[label] = Look(label, number, colour, dashes, MARKERS[number % len(MARKERS)])
    return found
