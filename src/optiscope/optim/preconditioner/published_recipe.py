"""The phases by their published names, as methods that a subclass may empty, extend or replace.

The estimation itself is a pure function (`estimation.Estimation`), and its variants are data. Here
each of its phases is reached through a method of the optimizer, so that a subclass written for the
published program, which empties a method, leaves that phase out.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

from optiscope.optim.preconditioner.estimate import Estimate, LowRank
from optiscope.optim.preconditioner.estimation import Estimation, Phase, Phases, Seen

__all__ = ["PublishedRecipe"]


class PublishedRecipe:
    """Base of an optimizer that goes through its estimation by methods.

    A method takes the optimizer's estimate one phase further. An empty one leaves it as it is.

    Attributes:
        preconditions: whether gradients are preconditioned.
        observes: whether products are gathered for a low-rank estimate after the prior.
    """

    preconditions: ClassVar[bool] = True
    observes: ClassVar[bool] = True
    _estimate: Estimate
    _seen: Seen | None = None

    @property
    @abstractmethod
    def _estimation(self) -> Estimation:
        """How the optimizer estimates, with ``_phases()`` for phases."""

    def _phases(self) -> Phases:
        """The methods as phases of a pure estimation."""
        return Phases(
            gather=self._through(self._gather_curvature_information),
            prior=self._through(self._estimate_prior),
            make_room=self._through(self._setup_estimated_hessian),
            choose=self._through(self._apply_estimated_inverse),
            multiply=self._through(self._hessian_vector_product),
            observe=self._through(self._update_estimated_hessian),
            keep=self._through(self._create_low_rank),
            preconditioner=self._preconditioner_of,
        )

    def _gather_curvature_information(self) -> None:
        """Product along the gradient, and its inner products, for the prior."""
        self._go(self._estimation.gather)

    def _estimate_prior(self) -> None:
        """Prior mean, scale and noise, and the learning rate, from what was gathered."""
        self._go(self._estimation.prior)

    def _setup_estimated_hessian(self) -> None:
        """Room for the observations; without it the rate is that of the prior."""
        self._go(self._estimation.make_room)

    def _apply_estimated_inverse(self) -> None:
        """The direction to observe next."""
        self._go(self._estimation.choose)

    def _hessian_vector_product(self) -> None:
        """Product along the direction on this batch."""
        self._go(self._estimation.multiply)

    def _update_estimated_hessian(self) -> None:
        """Add the direction and its product to the observations."""
        self._go(self._estimation.observe)

    def _create_low_rank(self) -> None:
        """Keep the largest eigenpairs of the posterior."""
        self._go(self._estimation.keep)

    def _apply_preconditioner(self) -> LowRank | None:
        """What every gradient is multiplied by before a step; None: gradients stay as they are.

        It is asked in some phases of the estimation too, as the rate depends on it.
        """
        return self._estimate.low_rank if self.preconditions else None

    def _go(self, phase: Phase) -> None:
        assert self._seen is not None
        self._estimate = phase(self._estimate, self._seen)

    def _through(self, method: Callable[[], None]) -> Phase:
        def phase(estimate: Estimate, seen: Seen) -> Estimate:
            self._estimate, self._seen = estimate, seen
            method()
            return self._estimate

        return phase

    def _preconditioner_of(self, estimate: Estimate) -> LowRank | None:
        present, self._estimate = self._estimate, estimate
        try:
            return self._apply_preconditioner()
        finally:
            self._estimate = present
