"""Images as characters: each half-block shows two pixels, one above the other, in true colour.

Where the terminal has no colours, one character stands for two pixels by its darkness.

Index legend: C channels, H × W pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rich.style import Style
from rich.text import Text

__all__ = ["image_text", "side_by_side", "within"]

SHADES = " .:-=+*#%@"


def within(image: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """The image [C, H, W] with every n-th pixel only, so that no side is longer than ``side``."""
    step = -(-max(image.shape[1:]) // side)
    return image[:, ::step, ::step]


def image_text(image: NDArray[np.float64], *, colour: bool) -> Text:
    """An image [C, H, W] from 0 to 1 as H/2 lines of W characters."""
    levels = (np.clip(np.nan_to_num(image), 0, 1) * 255).round().astype(int)
    if levels.shape[0] == 1:
        levels = levels.repeat(3, axis=0)
    if levels.shape[1] % 2:
        levels = np.pad(levels, ((0, 0), (0, 1), (0, 0)))
    text = Text(no_wrap=True)
    for row in range(0, levels.shape[1], 2):
        if row:
            text.append("\n")
        for column in range(levels.shape[2]):
            above, below = levels[:3, row, column], levels[:3, row + 1, column]
            if colour:
                style = Style.parse(f"rgb{_triple(above)} on rgb{_triple(below)}")
                text.append("▀", style)
            else:
                mean = (above.mean() + below.mean()) / 2
                text.append(SHADES[min(int(mean / 256 * len(SHADES)), len(SHADES) - 1)])
    return text


def _triple(levels: NDArray[np.int_]) -> str:
    return f"({levels[0]},{levels[1]},{levels[2]})"


def side_by_side(images: list[Text], labels: list[str], width: int) -> Text:
    """Rows of images, as many beside each other as fit ``width``, each under its label."""
    side = max(len(line) for image in images for line in image.split("\n"))
    side = max(side, *(len(label) for label in labels))
    columns = max(1, (width + 2) // (side + 2))
    text = Text(no_wrap=True)
    for first in range(0, len(images), columns):
        row = [image.split("\n") for image in images[first : first + columns]]
        words = [label.ljust(side) for label in labels[first : first + columns]]
        text.append("  ".join(words).rstrip() + "\n", "bold")
        for height in range(max(len(lines) for lines in row)):
            for position, lines in enumerate(row):
                line = lines[height] if height < len(lines) else Text()
                line.align("left", side)
                text.append_text(line)
                text.append("  " if position < len(row) - 1 else "\n")
    text.rstrip()
    return text
