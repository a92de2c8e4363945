"""Parquet tables of encoded images, as data set hubs serve them.

One row per sample: a struct ``{bytes, path}`` (or plain bytes) in the column ``img`` or ``image``
holds a PNG or JPEG file, an integer column holds the label.
Index legend: N rows, C channels, H x W pixels.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optiscope.data.errors import BadFile

__all__ = ["READER_VERSION", "decode_image", "read_parquet_images"]

READER_VERSION = 1
"""Raised whenever decoding changes: cached copies of other versions are not used."""

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label", "labels")


def read_parquet_images(
    paths: Sequence[Path], shape: tuple[int, int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [N, C, H, W] of ``shape`` (C, H, W) and labels [N] of all rows of ``paths``, in order.

    Raises:
        BadFile: not a parquet file, without the expected columns, or with an image that cannot be
            decoded or has another size.
    """
    tables = [_read_columns(path) for path in paths]
    count = sum(len(labels) for _, _, labels in tables)
    images = np.empty((count, *shape), dtype=np.uint8)
    row = 0
    for path, encoded, _ in tables:
        for within, cell in enumerate(encoded):
            images[row] = decode_image(cell.as_py(), shape, f"{path}, row {within}")
            row += 1
    return images, np.concatenate([labels for _, _, labels in tables])


def decode_image(encoded: Any, shape: tuple[int, int, int], where: str) -> NDArray[np.uint8]:
    """Pixels [C, H, W] of one encoded image, as grey (C = 1) or RGB (C = 3).

    Raises:
        BadFile: ``encoded`` is no image Pillow can decode, or not of ``shape``.
    """
    from PIL import Image

    channels, height, width = shape
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except Exception as error:  # Pillow's plugins raise many kinds
        raise BadFile(f"{where}: not a readable image ({type(error).__name__})") from error
    if pixels.shape[:2] != (height, width):
        raise BadFile(
            f"{where}: expected an image of {height} x {width} pixels, got "
            f"{pixels.shape[0]} x {pixels.shape[1]}"
        )
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _read_columns(path: Path) -> tuple[Path, Any, NDArray[np.int64]]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            image = next((name for name in IMAGE_COLUMNS if name in names), None)
            label = next((name for name in LABEL_COLUMNS if name in names), None)
            if image is None or label is None:
                raise BadFile(
                    f"{path}: expected columns {' or '.join(IMAGE_COLUMNS)} and "
                    f"{' or '.join(LABEL_COLUMNS)}, got {', '.join(names)}"
                )
            table = file.read(columns=[image, label])
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise BadFile(
            f"{path}: not a readable parquet file ({reason}): move it away and fetch again"
        ) from error
    encoded, labels = table[image], table[label]
    if pa.types.is_struct(encoded.type):
        if encoded.type.get_field_index("bytes") < 0:
            raise BadFile(f"{path}: column {image} has no field 'bytes', got {encoded.type}")
        encoded = pc.struct_field(encoded, "bytes")
    if not (pa.types.is_binary(encoded.type) or pa.types.is_large_binary(encoded.type)):
        raise BadFile(f"{path}: expected encoded images in column {image}, got {encoded.type}")
    if not pa.types.is_integer(labels.type) or labels.null_count or encoded.null_count:
        raise BadFile(
            f"{path}: expected integer labels and no empty cells, got {labels.type} with "
            f"{labels.null_count} empty labels and {encoded.null_count} empty images"
        )
    return path, encoded, labels.to_numpy().astype(np.int64)
