"""Curvature while training: top eigenvalues, trace, the gradient's share in the leading space.

Index legend: k pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from optiscope.curvature.eigenpairs import top_eigenpairs
from optiscope.curvature.hutchinson import trace
from optiscope.errors import OptiscopeError
from optiscope.monitor.instrument import Instrument, StepView
from optiscope.objective.risk import EmpiricalRisk

__all__ = ["CurvatureInstrument"]


class CurvatureInstrument(Instrument):
    """Looks at the Hessian every so many steps; for a run's ``instruments=``.

    Records, by name: ``top_1`` to ``top_k`` (largest eigenvalues), ``trace`` and ``trace_error``
    (standard error from the probes), ``gradient_share`` (squared share of the gradient in the
    leading space), ``sharpness_ratio`` (largest eigenvalue over 2 / rate: gradient descent with
    this rate is unstable along it above 1), ``converged`` (1 or 0) and ``gradients`` (what the
    look cost, in gradients).

    Args:
        every: steps from one look to the next; the first step is looked at.
        k: eigenvalues.
        probes: for the trace; 0 leaves it out.
        risk: loss to look at; None: of the batch, whose noise is then in every figure.
        tol: of the eigenvalues.
        verify: look for missed copies as well, which doubles the cost.

    Raises:
        OptiscopeError: a number that makes no sense.
    """

    name = "curvature"
    needs: frozenset[str] = frozenset()

    def __init__(
        self,
        every: int = 100,
        *,
        k: int = 3,
        probes: int = 3,
        risk: EmpiricalRisk | None = None,
        tol: float = 1e-2,
        verify: bool = False,
    ) -> None:
        if every < 1 or k < 1 or probes < 0 or probes == 1:
            raise OptiscopeError(
                f"expected every and k of at least 1 and no or at least 2 probes, got "
                f"{every}, {k} and {probes}"
            )
        self.every, self.k, self.probes, self.risk = every, k, probes, risk
        self.tol, self.verify = tol, verify

    def on_step(self, view: StepView) -> Mapping[str, float] | None:
        """The figures, in steps that are looked at."""
        if (view.step - 1) % self.every:
            return None
        risk = view.risk if self.risk is None else self.risk
        operator = risk.hessian()
        pairs = top_eigenpairs(
            operator, self.k, tol=self.tol, verify=self.verify, seed=view.step, max_vectors=None
        )
        values = {f"top_{i + 1}": float(value) for i, value in enumerate(pairs.values)}
        converged = pairs.converged if self.verify else pairs.within_tolerance
        values["converged"] = float(converged.all())
        gradient = risk.gradient()
        size = float(gradient.double().square().sum())
        assert pairs.vectors is not None
        if size > 0:
            along = float((pairs.vectors @ gradient).double().square().sum())
            values["gradient_share"] = along / size
        rates = [float(group["lr"]) for group in view.optimizer.param_groups if "lr" in group]
        if rates and max(rates) > 0:
            values["sharpness_ratio"] = pairs.value * max(rates) / 2
        cost = pairs.cost.gradient_equivalents + 1
        if self.probes:
            estimate = trace(operator, probes=self.probes, deflate=pairs, seed=view.step)
            values["trace"], values["trace_error"] = estimate.value, estimate.standard_error
            cost += estimate.cost.gradient_equivalents
        values["gradients"] = cost
        operator.release()
        return {key: value for key, value in values.items() if math.isfinite(value)}
