"""Whether the data of a problem are there, before anything is trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from optiscope.data.catalogue import DATASETS, locate

if TYPE_CHECKING:
    from optiscope.problems.problem import Problem

__all__ = ["require_data"]


def require_data(problem: Problem, data_dir: Path | None = None) -> None:
    """Find the files of a problem's data set without reading them.

    A data set that comes with a package, is synthetic or is the user's own has none to find.

    Raises:
        MissingData: they are not below the data folder; the message says how to get them.
    """
    dataset = DATASETS.get(problem.dataset)
    if dataset is not None and dataset.layouts:
        locate(dataset.name, data_dir)
