"""The curvature of a loss: eigenpairs, density, trace, outliers, H = G + R, with their errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optiscope import lazy

if TYPE_CHECKING:
    from optiscope.curvature.eigenpairs import Eigenpairs as Eigenpairs
    from optiscope.curvature.eigenpairs import top_eigenpairs as top_eigenpairs

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {"eigenpairs": ("Eigenpairs", "top_eigenpairs")},
)
