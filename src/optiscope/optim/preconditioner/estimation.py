"""The estimation as a pure function: an estimate and what one batch shows give the next estimate.

An estimation takes ``prior_iterations`` batches for the prior and the rate, ``num_observations``
for the posterior, and ``power_iterations`` for the largest curvature that its preconditioner
leaves. Between estimations, tests say whether the estimate and the rate still fit.

Index legend: N parameters, M observations, K kept eigenpairs; vectors [N] are flat.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from optiscope.linalg.low_rank import apply_low_rank, relative_power
from optiscope.optim.preconditioner.estimate import OBSERVE, PRIOR, RATE, READY, Estimate, LowRank
from optiscope.optim.preconditioner.posterior import (
    curvature_with_noise,
    extend,
    new_part,
    next_direction,
    observed_pairs,
    preconditioned_rate,
    remaining_curvature,
)
from optiscope.optim.preconditioner.predictive_test import misfit, rejected
from optiscope.optim.preconditioner.prior import (
    add_cross_pair,
    add_pair,
    construct_rate,
    estimate_prior,
    safe_dot,
)
from optiscope.optim.preconditioner.rate_guard import FAR_TOO_LONG, TOO_LONG, bounded_rate

__all__ = ["Estimation", "Phases", "Seen"]


@dataclass(frozen=True)
class Seen:
    """What an estimation sees of one step.

    Attributes:
        gradient: of the batch's objective [N].
        product: its Hessian times a vector [N].
        weights: norm of the parameters.
        step: steps taken before this one.
        momentum: of the inner optimizer.
        first_given: whether the rate of the first epoch was given.
    """

    gradient: Tensor
    product: Callable[[Tensor], Tensor]
    weights: Callable[[], float]
    step: int
    momentum: float = 0.0
    first_given: bool = False


Phase = Callable[[Estimate, Seen], Estimate]


class Phases(NamedTuple):
    """The phases of an estimation in their order, and what steps are preconditioned by."""

    gather: Phase
    prior: Phase
    make_room: Phase
    choose: Phase
    multiply: Phase
    observe: Phase
    keep: Phase
    preconditioner: Callable[[Estimate], LowRank | None]


@dataclass(frozen=True)
class Estimation:
    """How a Hessian is estimated; its methods are pure.

    Attributes:
        est_rank: eigenpairs kept.
        num_observations: products after the prior.
        prior_iterations: batches from which the prior is estimated.
        power_iterations: products spent on the largest curvature that is left.
        cross_batch: construct the rate from products of two batches each.
        preconditions: whether steps go along preconditioned gradients.
        observes: whether products are gathered after the prior.
        constructs_rate: whether steps follow the constructed rate.
        replaced: phases to go through in place of those here.
    """

    est_rank: int = 2
    num_observations: int = 5
    prior_iterations: int = 10
    power_iterations: int = 4
    cross_batch: bool = False
    preconditions: bool = True
    observes: bool = True
    constructs_rate: bool = True
    replaced: Phases | None = None

    @property
    def phases(self) -> Phases:
        """The phases that `advance` goes through."""
        own = Phases(
            self.gather,
            self.prior,
            self.make_room,
            self.choose,
            self.multiply,
            self.observe,
            self.keep,
            self.preconditioner,
        )
        return own if self.replaced is None else self.replaced

    def advance(self, e: Estimate, seen: Seen) -> Estimate:
        """The estimate after one more batch of an estimation under way."""
        do = self.phases
        if e.phase == PRIOR:
            e = do.gather(e, seen)
            e = replace(e, prior_counter=e.prior_counter + 1)
            if e.prior_counter < self.prior_iterations:
                return e
            e = do.make_room(do.prior(e, seen), seen)
            e = replace(e, phase=OBSERVE)
            if e.directions is not None:
                return e
        elif e.phase == OBSERVE:
            e = do.choose(e, seen)
            if e.direction is not None:
                e = do.observe(do.multiply(e, seen), seen)
                e = replace(e, direction=None, image=None, update_counter=e.update_counter + 1)
                if e.update_counter < self.num_observations:
                    return e
        if e.phase == OBSERVE:
            e = do.keep(e, seen).without_observations()
            e = replace(e, update_counter=0, last_product=None)
            bounded = self.constructs_rate and self.power_iterations > 0
            if bounded and do.preconditioner(e) is not None:
                return replace(e, phase=RATE)
        elif e.phase == RATE:
            e = self.limit(e, seen)
            e = replace(e, update_counter=e.update_counter + 1)
            if e.update_counter < self.power_iterations:
                return e
        return self.finish(e, seen)

    # Phases

    def gather(self, e: Estimate, seen: Seen) -> Estimate:
        """Product along the gradient, and its inner products, for the prior."""
        g = seen.gradient
        y = seen.product(g)
        sums = add_pair(e.sums, g, y)
        if not math.isfinite(sums.sy + sums.yy):
            return replace(e, note="non-finite product left out")
        if self._along_gradients(e):
            e = e.shortened(sums.quotients - e.sums.quotients, FAR_TOO_LONG)
        e = replace(
            e,
            sums=sums,
            gradient_sum=g if e.gradient_sum is None else e.gradient_sum + g,
            product_sum=y if e.product_sum is None else e.product_sum + y,
        )
        if self.cross_batch:
            if e.last_direction is not None and e.last_product is not None:
                again = seen.product(e.last_direction)
                sums = add_cross_pair(e.sums, e.last_direction, e.last_product, again)
            e = replace(e, sums=sums, last_direction=g, last_product=y)
        return e

    def prior(self, e: Estimate, seen: Seen) -> Estimate:
        """Prior mean, scale and noise, and the learning rate, from what was gathered."""
        if e.gradient_sum is None:
            return e
        total = safe_dot(e.gradient_sum, e.gradient_sum)
        rate = construct_rate(e.sums)
        if e.rate is None and rate is None and total > 0:
            # A hundredth of the weights' length a step, until there is curvature to go by.
            rate = 0.01 * (1 + seen.weights()) * e.prior_counter / math.sqrt(total)
        new_rate = self._bounded(e, rate, seen)
        return replace(
            e,
            prior=estimate_prior(e.sums, total, len(e.gradient_sum)),
            note="" if e.sums.sy > 0 else "no positive curvature along the gradients",
            new_rate=new_rate,
            guard=replace(e.guard, rate=new_rate) if e.rate is None else e.guard,
        )

    def make_room(self, e: Estimate, seen: Seen) -> Estimate:
        """No observation yet, unless there is no prior or no observation is wanted."""
        if e.prior is None or e.gradient_sum is None:
            return e
        if self.num_observations == 0 or self.est_rank == 0 or not self.observes:
            return e
        none = e.gradient_sum.new_zeros(0, len(e.gradient_sum))
        return replace(e.without_observations(), directions=none, products=none)

    def choose(self, e: Estimate, seen: Seen) -> Estimate:
        """Next direction: what the last estimation kept, the mean product, what is new in B u.

        The mean product of the prior is one step of power iteration from the mean gradient, along
        which it is known; B u is the mean's product with its leading eigenvector. Of both the part
        that is new; None once nothing is.
        """
        if e.prior is None or e.product_sum is None:
            return e
        known = e.observations(e.product_sum)
        carried = 0 if e.basis is None else min(len(e.basis), self.num_observations - 1)
        if e.basis is not None and len(known) < carried:
            return replace(e, direction=e.basis[len(known)])
        if len(known) == carried:
            return replace(e, direction=new_part(known, e.product_sum))
        direction, share = next_direction(e.prior, known)
        return replace(e, direction=direction, share=share)

    def multiply(self, e: Estimate, seen: Seen) -> Estimate:
        """Product along the direction on this batch."""
        return e if e.direction is None else replace(e, image=seen.product(e.direction))

    def observe(self, e: Estimate, seen: Seen) -> Estimate:
        """The direction and its product among the observations."""
        s, y = e.direction, e.image
        if s is None or y is None or e.directions is None or e.products is None:
            return e
        known = e.observations(s)
        m = len(known)
        directions = torch.cat([known.directions, s.unsqueeze(0)])
        known = extend(known, directions, torch.cat([known.products, y.unsqueeze(0)]))
        if not bool(known.cross.isfinite().all()):
            return replace(e, note="non-finite product left out")
        e = replace(
            e,
            directions=known.directions,
            products=known.products,
            gram=known.gram,
            cross=known.cross,
        )
        if self._along_gradients(e):
            e = e.shortened(float(known.cross[m, m]), TOO_LONG)
        if e.basis is not None and m == 0 and self.num_observations > 1:
            e = self._compared(e, float(known.cross[0, 0]))
        return e

    def keep(self, e: Estimate, seen: Seen) -> Estimate:
        """The largest eigenpairs of the posterior, with their deviations and coefficients."""
        if e.prior is None or len(e.gram) == 0 or e.directions is None:
            return e
        known = e.observations(e.directions[0])
        values, rows, deviations = observed_pairs(e.prior, known, self.est_rank)
        if not bool(values.isfinite().all()):
            return replace(e, note="non-finite products: last eigenpairs kept")
        reference, largest = float(values.abs().min()), float(values.abs().max())
        e = replace(
            e,
            basis=rows,
            values=values,
            deviations=torch.hypot(deviations, e.prior.spread * values),
            coefficients=relative_power(values, reference, -1.0),
        )
        if reference > 0 and not self._along_gradients(e):
            rate = preconditioned_rate(known, rows, e.coefficients, 1 / reference)
            return replace(e, new_rate=self._bounded(e, rate, seen) or e.new_rate)
        if e.new_rate is not None and largest > 0:
            return replace(e, new_rate=min(e.new_rate, 1 / largest))
        return e

    def preconditioner(self, e: Estimate) -> LowRank | None:
        """What gradients are multiplied by; None: they stay as they are."""
        return e.low_rank if self.preconditions else None

    def limit(self, e: Estimate, seen: Seen) -> Estimate:
        """The rate bounded by the largest curvature left, which one more power iteration nears.

        The last product is a second one along the same vector, for the noise between batches.
        """
        assert e.basis is not None
        power, last = e.power, e.last_product
        if power is None or power.shape != e.basis.shape[1:]:
            generator = torch.Generator(e.basis.device).manual_seed(0)
            power = torch.empty_like(e.basis[0]).normal_(generator=generator)
        basis, c = e.basis.mT, e.coefficients.to(e.basis)
        y = seen.product(power)
        curvature, image = remaining_curvature(basis, c, power, y)
        if last is not None:  # the second product of this vector
            noisy = curvature_with_noise(basis, c, power, last, y, seen.momentum)
            curvature = max(curvature, noisy)
        if e.update_counter == self.power_iterations - 2:
            last = y
        else:
            power = image
        rate = e.new_rate
        if rate is not None and curvature * rate > 1:
            rate = 1 / curvature
        e = replace(e, power=power, last_product=last, new_rate=rate)
        return e.shortened(curvature, TOO_LONG)

    def finish(self, e: Estimate, seen: Seen) -> Estimate:
        """The estimate ready for use, and its rate in use."""
        held_back = e.new_rate is not None and e.new_rate >= self._most(e)
        guard = e.guard if e.new_rate is None else replace(e.guard, rate=e.new_rate)
        follows = self.constructs_rate and replace(e, guard=guard).has_used_rate(seen.first_given)
        return replace(
            e,
            guard=guard.concluded(provisional=(guard.troubled or held_back) and follows),
            phase=READY,
            finished=seen.step + 1,
            rejected=False,
            estimates=e.estimates + 1,
            gradient_sum=None,
            product_sum=None,
            last_direction=None,
            last_product=None,
        )

    # Between estimations

    def fit_tested(self, e: Estimate, seen: Seen) -> Estimate:
        """Predictive test: one product along the top eigenvector on a fresh batch."""
        assert e.basis is not None
        return self._compared(e, safe_dot(e.basis[0], seen.product(e.basis[0])))

    def step_tested(self, e: Estimate, seen: Seen, limit: float) -> Estimate:
        """Curvature along the step itself: a rate above its inverse is lowered to it."""
        g, steps = seen.gradient, self.phases.preconditioner(e)
        step = g if steps is None else apply_low_rank(steps.basis.mT, steps.on(g), g)
        length = safe_dot(step, g)
        curvature = safe_dot(step, seen.product(step)) / length if length > 0 else 0.0
        e = replace(e, guard=replace(e.guard, suspect=False))
        lowered = e.shortened(curvature, limit)
        if lowered is e:
            return e
        note = "more curvature along the step than the estimate holds: rate lowered"
        return lowered.in_trouble(seen.step, note)

    def watched(self, e: Estimate, size: float, step: int) -> Estimate:
        """After a look at the gradients' length, which may have grown as steps are too long."""
        guard, lowered = e.guard.watched(size, may_lower=self.constructs_rate)
        e = replace(e, guard=guard)
        return e.in_trouble(step, "gradients grew: rate lowered") if lowered else e

    # Parts of the phases

    def _along_gradients(self, e: Estimate) -> bool:
        """Whether steps go along gradients as they are, so that the Hessian's curvature counts."""
        return self.phases.preconditioner(e) is None

    def _most(self, e: Estimate) -> float:
        """Largest rate that the estimation under way may come to."""
        return math.inf if e.estimates == 0 else e.guard.most

    def _bounded(self, e: Estimate, rate: float | None, seen: Seen) -> float | None:
        total = 0.0 if e.gradient_sum is None else safe_dot(e.gradient_sum, e.gradient_sum)
        gradient = math.sqrt(total) / max(e.prior_counter, 1)
        careful = None if rate is None else rate * e.guard.caution
        return bounded_rate(careful, self._most(e), seen.weights(), gradient)

    def _compared(self, e: Estimate, curvature: float) -> Estimate:
        """With the misfit of the leading eigenvalue against a curvature just seen."""
        expected, deviation = float(e.values[0]), float(e.deviations[0])
        return replace(
            e,
            misfit=misfit(curvature, expected, deviation),
            rejected=rejected(curvature, expected, deviation, self.prior_iterations),
        )
