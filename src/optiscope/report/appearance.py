"""How an algorithm looks in every figure and table: color, line style and marker.

The first six colors are those of Okabe and Ito (2008), chosen to be told apart with any common
color blindness, without their yellow, which is too light for a line on white, and their black,
which vanishes on a dark page. The next six were searched for: of all colors that stand out on
white and on a dark page, each is the one farthest from those before it (CIELAB, for normal vision
and three kinds of color blindness). After twelve, colors repeat with another line style, as do
markers. An optimizer that optiscope ships has the same color in every report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = [
    "DASHES",
    "FAINT",
    "FIXED",
    "GRID",
    "INK",
    "MARKERS",
    "PALETTE",
    "SHADE",
    "Look",
    "fixed_colors",
    "looks",
]

PALETTE: Final = (
    "#0072b2",  # blue
    "#d55e00",  # vermilion
    "#009e73",  # green
    "#cc79a7",  # pink
    "#e69f00",  # orange
    "#56b4e9",  # sky
    "#8228ee",  # violet
    "#824c28",  # brown
    "#94b85e",  # light green
    "#4c5e5e",  # slate
    "#8270ee",  # periwinkle
    "#942882",  # magenta
)

FIXED: Final[Mapping[str, str]] = {
    "lark": "#d55e00",
    "sgd": "#0072b2",
    "momentum": "#56b4e9",
    "adam": "#009e73",
    "adamw": "#94b85e",
    "muon": "#cc79a7",
    "soap": "#8228ee",
    "preconditioned_sgd": "#e69f00",
    "schedulefree_adamw": "#824c28",
    "prodigy": "#942882",
    "nesterov": "#8270ee",
    "rmsprop": "#4c5e5e",
}
"""Colors of shipped optimizers."""

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
        color: ``#rrggbb``.
        dashes: on and off lengths in line widths, empty when solid.
        marker: Matplotlib's name of the marker.
    """

    label: str
    number: int
    color: str
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


def fixed_colors(optimizers: Mapping[str, str]) -> dict[str, str]:
    """Colors of the algorithms whose optimizer has one; of two with one optimizer, the first's.

    Args:
        optimizers: name of the optimizer by label.
    """
    found: dict[str, str] = {}
    for label, optimizer in optimizers.items():
        color = FIXED.get(optimizer)
        if color is not None and color not in found.values():
            found[label] = color
    return found


def looks(labels: Sequence[str], colors: Mapping[str, str] | None = None) -> dict[str, Look]:
    """Looks of the algorithms in the given order; ``colors`` are the user's, by label.

    A color that the user gave to one algorithm is not handed out to another by itself.
    """
    wanted = {label: c.lower() for label, c in (colors or {}).items() if label in labels}
    free = [c for c in PALETTE if c not in wanted.values()] or list(PALETTE)
    found: dict[str, Look] = {}
    handed_out = 0
    for number, label in enumerate(labels):
        if label in wanted:
            color, dashes = wanted[label], DASHES[0]
        else:
            color = free[handed_out % len(free)]
            dashes = DASHES[handed_out // len(free) % len(DASHES)]
            handed_out += 1
        found[label] = Look(label, number, color, dashes, MARKERS[number % len(MARKERS)])
    return found
