"""Former home of the saddle-free Newton method, by which recorded trials name it."""

from __future__ import annotations

from optiscope.optim.baselines.saddle_free_newton import SPEC, SaddleFreeNewton

__all__ = ["SPEC", "SaddleFreeNewton"]
