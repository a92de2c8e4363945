"""PNG and JPEG files as pixels, decoded only where their header announces a bearable size."""

from __future__ import annotations

from typing import Any

__all__ = ["FORMATS", "LARGEST_IMAGE", "ImageError", "open_image"]

FORMATS = ("PNG", "JPEG")
"""Pillow knows many more, some of which start other programs."""
LARGEST_IMAGE = 2**26
"""Pixels; a file of a few kilobytes can announce billions."""


class ImageError(ValueError):
    """What is wrong with an encoded image, in a few words."""


def open_image(source: Any, mode: str, size: tuple[int, int] | None = None) -> Any:
    """Decoded image (of Pillow) of ``mode`` (``"L"`` or ``"RGB"``).

    Args:
        source: path, or a stream of bytes.
        mode: how its pixels are to be held.
        size: the (width, height) that it must have, checked before it is decoded.

    Raises:
        ImageError: not a PNG or JPEG file, larger than `LARGEST_IMAGE`, damaged, or not of
            ``size``.
    """
    from PIL import Image

    try:
        with Image.open(source, formats=FORMATS) as image:
            width, height = image.size
            if size is not None and image.size != size:
                raise ImageError(
                    f"expected an image of {size[1]} x {size[0]} pixels, got {height} x {width}"
                )
            if width * height > LARGEST_IMAGE:
                raise ImageError(
                    f"expected an image of at most {LARGEST_IMAGE:,} pixels, got {height} x {width}"
                )
            return image.convert(mode)
    except ImageError:
        raise
    except Exception as error:  # Pillow's plugins raise many kinds
        raise ImageError(f"not a readable image ({type(error).__name__})") from error
