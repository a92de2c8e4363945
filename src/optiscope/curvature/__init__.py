"""The curvature of a loss: eigenpairs, density, trace, outliers, H = G + R, with their errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optiscope import lazy

if TYPE_CHECKING:
    from optiscope.curvature.conditioning import Conditioning as Conditioning
    from optiscope.curvature.conditioning import condition_number as condition_number
    from optiscope.curvature.conditioning import inverse_of as inverse_of
    from optiscope.curvature.decomposition import GaussNewtonSplit as GaussNewtonSplit
    from optiscope.curvature.decomposition import decompose as decompose
    from optiscope.curvature.density import Density as Density
    from optiscope.curvature.density import spectral_density as spectral_density
    from optiscope.curvature.eigenpairs import Eigenpairs as Eigenpairs
    from optiscope.curvature.eigenpairs import top_eigenpairs as top_eigenpairs
    from optiscope.curvature.hutchinson import Estimate as Estimate
    from optiscope.curvature.hutchinson import trace as trace
    from optiscope.curvature.leading_space import Staleness as Staleness
    from optiscope.curvature.leading_space import staleness as staleness
    from optiscope.curvature.leading_space import subspace_overlap as subspace_overlap
    from optiscope.curvature.outliers import OutlierCount as OutlierCount
    from optiscope.curvature.outliers import count_outliers as count_outliers

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "conditioning": (
            "Conditioning",
            "condition_number",
            "inverse_of",
        ),
        "decomposition": (
            "GaussNewtonSplit",
            "decompose",
        ),
        "density": (
            "Density",
            "spectral_density",
        ),
        "eigenpairs": (
            "Eigenpairs",
            "top_eigenpairs",
        ),
        "hutchinson": (
            "Estimate",
            "trace",
        ),
        "leading_space": (
            "Staleness",
            "staleness",
            "subspace_overlap",
        ),
        "outliers": (
            "OutlierCount",
            "count_outliers",
        ),
    },
)
