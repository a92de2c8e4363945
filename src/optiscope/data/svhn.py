"""SVHN's cropped digits: MATLAB files with images ``X`` [32, 32, 3, N] and labels ``y`` [N, 1].

Source: http://ufldl.stanford.edu/housenumbers/ (format 2). The digit 0 has the label 10 there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from optiscope.data.errors import BadFile
from optiscope.data.matlab import read_matlab

__all__ = ["read_svhn"]


def read_svhn(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [N, 3, 32, 32] and labels [N] (digit 0 is label 0) of one ``.mat`` file.

    Raises:
        BadFile: not a MATLAB 5 file, or its variables are not those of SVHN.
    """
    content = read_matlab(path, ("X", "y"))
    images, labels = content.get("X"), content.get("y")
    if (
        images is None
        or labels is None
        or images.dtype != np.uint8
        or images.ndim != 4
        or images.shape[:3] != (32, 32, 3)
        or labels.size != images.shape[3]
    ):
        got = {
            k: f"{v.dtype} {v.shape}" for k, v in (("X", images), ("y", labels)) if v is not None
        }
        raise BadFile(
            f"{path}: expected X uint8 (32, 32, 3, N) and y (N, 1), got {got or 'neither'}: "
            "fetch it again"
        )
    digits = labels.reshape(-1).astype(np.int64)
    if not ((digits >= 1) & (digits <= 10)).all():
        raise BadFile(
            f"{path}: labels must lie in 1..10 (10 is the digit 0), got "
            f"{digits.min()}..{digits.max()}: fetch it again"
        )
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), digits % 10
