"""Parquet tables of encoded images, as data set hubs serve them.

One row per sample: a struct ``{bytes, path}`` (or plain bytes) in the column ``img`` or ``image``
holds a PNG or JPEG file, an integer column holds the label.
Index legend: N rows, C channels, H x W pixels.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optiscope.data.bytes_of import LARGEST
from optiscope.data.encoded_image import ImageError, open_image
from optiscope.data.errors import BadFile
from optiscope.errors import shorten

__all__ = ["READER_VERSION", "decode_image", "read_parquet_images"]

READER_VERSION = 1
"""Raised whenever decoding changes: cached copies of other versions are not used."""

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label", "labels")
BATCH = 1024
"""Rows decoded at a time."""
LONGEST_REASON = 200
"""Characters of what Arrow says that are repeated."""


def read_parquet_images(
    paths: Sequence[Path], shape: tuple[int, int, int], most_rows: int | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [N, C, H, W] of ``shape`` (C, H, W) and labels [N] of all rows of ``paths``, in order.

    Args:
        paths: the files.
        shape: of each image.
        most_rows: rows of all files together that are expected at most; `LARGEST` bytes of pixels
            unless given.

    Raises:
        BadFile: not a parquet file, without the expected columns, with more rows, or with an image
            that cannot be decoded or has another size.
    """
    most = LARGEST // math.prod(shape) if most_rows is None else most_rows
    images: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.int64]] = []
    for path in paths:
        row = 0
        for encoded, values in _batches(path, most - sum(map(len, labels))):
            pixels = np.empty((len(values), *shape), dtype=np.uint8)
            for within, cell in enumerate(encoded):
                pixels[within] = decode_image(cell.as_py(), shape, f"{path}, row {row + within}")
            images.append(pixels)
            labels.append(values)
            row += len(values)
    if not images:
        return np.empty((0, *shape), dtype=np.uint8), np.empty(0, dtype=np.int64)
    return np.concatenate(images), np.concatenate(labels)


def decode_image(encoded: Any, shape: tuple[int, int, int], where: str) -> NDArray[np.uint8]:
    """Pixels [C, H, W] of one encoded image, as grey (C = 1) or RGB (C = 3).

    Raises:
        BadFile: ``encoded`` is no PNG or JPEG file that can be decoded, or not of ``shape``.
    """
    channels, height, width = shape
    try:
        image = open_image(io.BytesIO(encoded), "L" if channels == 1 else "RGB", (width, height))
    except ImageError as error:
        raise BadFile(f"{where}: {error}") from error
    pixels: NDArray[np.uint8] = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _batches(path: Path, most_rows: int) -> Iterator[tuple[Any, NDArray[np.int64]]]:
    """Encoded images and labels [B] of a file, `BATCH` rows at a time.

    Raises:
        BadFile: as `read_parquet_images`.
    """
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            image, label = _columns(file, path, most_rows)
            rows = 0
            batches = file.iter_batches(BATCH, columns=[image, label], use_threads=False)
            for batch in batches:
                rows += batch.num_rows
                if rows > most_rows:
                    raise BadFile(f"{path}: expected at most {most_rows:,} rows: fetch it again")
                yield _cells(path, image, batch.column(image), batch.column(label))
    except BadFile:
        raise
    except Exception as error:  # Arrow raises many kinds, and names need not be text
        reason = " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__
        raise BadFile(
            f"{path}: not a readable parquet file ({reason}): move it away and fetch again"
        ) from error


def _columns(file: Any, path: Path, most_rows: int) -> tuple[str, str]:
    """Names of the columns of images and labels, once the header announces a bearable size."""
    names = file.schema_arrow.names
    image = next((name for name in IMAGE_COLUMNS if name in names), None)
    label = next((name for name in LABEL_COLUMNS if name in names), None)
    if image is None or label is None:
        raise BadFile(
            f"{path}: expected columns {' or '.join(IMAGE_COLUMNS)} and "
            f"{' or '.join(LABEL_COLUMNS)}, got {shorten(names)}"
        )
    metadata = file.metadata
    if metadata.num_rows > most_rows:
        raise BadFile(
            f"{path}: header announces {metadata.num_rows:,} rows, expected at most "
            f"{most_rows:,}: fetch it again"
        )
    groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
    chunks = [group.column(c) for group in groups for c in range(group.num_columns)]
    size = sum(
        chunk.total_uncompressed_size
        for chunk in chunks
        if chunk.path_in_schema.split(".")[0] in (image, label)
    )
    if not 0 <= size <= LARGEST:
        raise BadFile(
            f"{path}: header announces {size:,} bytes of images, expected at most {LARGEST:,}: "
            "fetch it again"
        )
    return image, label


def _cells(path: Path, image: str, encoded: Any, labels: Any) -> tuple[Any, NDArray[np.int64]]:
    """The encoded images and the labels of some rows, checked for their types."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_struct(encoded.type):
        if encoded.type.get_field_index("bytes") < 0:
            got = shorten(encoded.type)
            raise BadFile(f"{path}: column {image} has no field 'bytes', got {got}")
        encoded = pc.struct_field(encoded, "bytes")
    if not (pa.types.is_binary(encoded.type) or pa.types.is_large_binary(encoded.type)):
        got = shorten(encoded.type)
        raise BadFile(f"{path}: expected encoded images in column {image}, got {got}")
    if not pa.types.is_integer(labels.type) or labels.null_count or encoded.null_count:
        raise BadFile(
            f"{path}: expected integer labels and no empty cells, got {shorten(labels.type)} with "
            f"{labels.null_count} empty labels and {encoded.null_count} empty images"
        )
    return encoded, labels.to_numpy(zero_copy_only=False).astype(np.int64)
