"""The loss around and between solutions: lines, planes, paths, matched units, basins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optiscope import lazy

if TYPE_CHECKING:
    from optiscope.landscape.basins import BasinMatrix as BasinMatrix
    from optiscope.landscape.basins import same_basin as same_basin
    from optiscope.landscape.directions import Directions as Directions
    from optiscope.landscape.directions import leading_eigenvectors as leading_eigenvectors
    from optiscope.landscape.directions import random_directions as random_directions
    from optiscope.landscape.directions import through_solutions as through_solutions
    from optiscope.landscape.directions import trajectory_directions as trajectory_directions
    from optiscope.landscape.ground import LandscapeError as LandscapeError
    from optiscope.landscape.ground import NotConvergedError as NotConvergedError
    from optiscope.landscape.ground import NotReproducedError as NotReproducedError
    from optiscope.landscape.lines import Line as Line
    from optiscope.landscape.lines import line as line
    from optiscope.landscape.matching import MatchingError as MatchingError
    from optiscope.landscape.matching import UnitMatch as UnitMatch
    from optiscope.landscape.matching import match_units as match_units
    from optiscope.landscape.path import Path as Path
    from optiscope.landscape.path import connect as connect
    from optiscope.landscape.planes import Plane as Plane
    from optiscope.landscape.planes import plane as plane

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "basins": ("BasinMatrix", "same_basin"),
        "directions": (
            "Directions",
            "leading_eigenvectors",
            "random_directions",
            "through_solutions",
            "trajectory_directions",
        ),
        "ground": ("LandscapeError", "NotConvergedError", "NotReproducedError"),
        "lines": ("Line", "line"),
        "matching": ("MatchingError", "UnitMatch", "match_units"),
        "path": ("Path", "connect"),
        "planes": ("Plane", "plane"),
    },
)
