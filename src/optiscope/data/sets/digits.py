"""The UCI digits that ship with scikit-learn: 8 x 8 grey images."""

from __future__ import annotations

from optiscope.data.dataset import Dataset
from optiscope.data.sets import loaders

__all__ = ["DIGITS"]

DIGITS = Dataset(
    name="digits",
    description="handwritten digits, 8 x 8 grey in 17 levels, 1,797 images, part of scikit-learn",
    licence="CC BY 4.0",
    source="https://archive.ics.uci.edu/dataset/80",
    files=(),
    loader=loaders.digits,
    shape=(1, 8, 8),
    classes=tuple("0123456789"),
    how_to_get="it ships with scikit-learn: nothing to fetch",
)
