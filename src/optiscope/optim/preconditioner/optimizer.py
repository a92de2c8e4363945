"""An inner optimizer around which the Hessian is estimated from a few products.

Index legend: N parameters, M observations, K kept eigenpairs; vectors [N] are flat.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch.optim import Optimizer

from optiscope.linalg.low_rank import apply_low_rank, relative_power
from optiscope.objective.closure_source import CurvatureSource, detach_gradients
from optiscope.optim.checks import check_count, check_flag
from optiscope.optim.preconditioner.curvature_optimizer import CurvatureOptimizer
from optiscope.optim.preconditioner.estimate import OBSERVE, PRIOR, RATE, READY, Estimate, describe
from optiscope.optim.preconditioner.gradient_edits import (
    add_decay_to_gradients,
    gradient_norm,
    precondition,
    require_finite,
)
from optiscope.optim.preconditioner.inner import momentum_of
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
from optiscope.optim.preconditioner.published_recipe import PublishedRecipe
from optiscope.optim.preconditioner.rate_guard import (
    FAR_TOO_LONG,
    TOO_LONG,
    bounded_rate,
    step_probe_due,
)

__all__ = ["Preconditioner"]

_CHECK_EVERY = 100
_WATCH_EVERY = 10  # steps between looks at the length of the gradient, once no longer young
_FOLLOW_UP = 3  # lengths of an estimation after which a provisional one is renewed
_YOUNG = 50  # steps for which a first or provisional estimate is looked into in each


class Preconditioner(PublishedRecipe, CurvatureOptimizer):
    """Optimizer that constructs its rate and a low-rank preconditioner from Hessian products.

    Estimation takes ``prior_iterations + num_observations`` batches: products along gradients give
    a prior and the rate, products along Lanczos's directions a posterior, of which ``est_rank``
    eigenpairs are kept. All other steps cost a gradient and two thin products.

    Drive it by ``step(closure)``, or by ``opt.backward(loss); opt.step()`` in a plain loop. An
    estimation begins at construction, at ``start_estimate()``, every ``estimate_every`` steps, and
    whenever the predictive test says that the estimate no longer fits. A provisional one, made just
    after steps had proved too long or with its rate held back, is renewed soon.

    A variant says as data what it leaves out: ``preconditions`` (gradients are preconditioned),
    ``observes`` (products are gathered after the prior), ``constructs_rate``. A subclass written
    for the published program, which empties the method of a phase, works too. The phases, in
    order: ``_gather_curvature_information``, ``_estimate_prior``, ``_setup_estimated_hessian``;
    ``_apply_estimated_inverse``, ``_hessian_vector_product``, ``_update_estimated_hessian``;
    ``_create_low_rank``, ``_init_the_optimizer``; ``_apply_preconditioner``.

    Args:
        params: parameters or groups. In a group, ``lr`` is its rate of the first epoch,
            ``lr_scale`` a factor on its rate, other keys settings of the inner optimizer.
        est_rank: eigenpairs kept.
        num_observations: products of an estimation after the prior.
        prior_iterations: batches from which the prior is estimated.
        weight_decay: L2 coefficient, part of the objective and so of the Hessian.
        lr: rate until the second estimation has ended; None: constructed from the first batch on.
        optim_class: inner optimizer, given the preconditioned gradient.
        hessian: ``exact`` products by double backward; by ``difference`` of gradients (needs a
            closure); ``auto``: exact where the model has second derivatives, else by difference.
        estimate_every: steps from the start of one estimation to that of the next; None: when
            asked or when the test rejects.
        check_every: steps between predictive tests, each one product; 0: never; None: 100, or
            never where ``estimate_every`` renews the estimate anyway; there, steps of a first or a
            provisional estimate are still looked into, for a rate that is far too high.
        power_iterations: products spent, where the gradient is preconditioned, on the largest
            curvature left, which bounds the rate.
        update_while_estimating: whether weights move during estimation.
        cross_batch: construct the rate from products of two batches each, which noise does not
            shrink; one product more a prior batch.
        check_deterministic: compare two evaluations of the closure before the first difference.
        optim_hyperparams: settings of the inner optimizer.

    ``param_groups[i]["lr"]`` is a factor on the constructed rate, 1 at first, so that schedulers
    act on it as on any other.

    Source: F. de Roos, P. Hennig 2019; L. Bald 2019, whose phase names these are.
    """

    def __init__(
        self,
        params: Iterable[Any],
        est_rank: int = 2,
        num_observations: int = 5,
        prior_iterations: int = 10,
        weight_decay: float = 0,
        lr: float | None = None,
        optim_class: type[Optimizer] = torch.optim.SGD,
        *,
        hessian: str = "auto",
        estimate_every: int | None = None,
        check_every: int | None = None,
        power_iterations: int = 4,
        update_while_estimating: bool = True,
        cross_batch: bool = False,
        check_deterministic: bool = True,
        **optim_hyperparams: Any,
    ) -> None:
        if estimate_every is not None:
            check_count("estimate_every", estimate_every, 1)
        self._probes = check_every != 0
        if check_every is None:
            check_every = 0 if estimate_every else _CHECK_EVERY
        check_count("check_every", check_every, 0)
        self.power_iterations = check_count("power_iterations", power_iterations, 0)
        self._set_sizes(est_rank, num_observations, prior_iterations)
        self.estimate_every, self.check_every = estimate_every, check_every
        self.update_while_estimating = check_flag(
            "update_while_estimating", update_while_estimating
        )
        self.cross_batch = check_flag("cross_batch", cross_batch)
        check_flag("check_deterministic", check_deterministic)
        source = CurvatureSource(hessian, check_deterministic)
        super().__init__(params, lr, weight_decay, optim_class, optim_hyperparams, source)

    # Sizes, groups, saving

    def _set_sizes(self, est_rank: int, num_observations: int, prior_iterations: int) -> None:
        self.est_rank = check_count("est_rank", est_rank, 0)
        self.num_observations = check_count("num_observations", num_observations, 0)
        self.prior_iterations = check_count("prior_iterations", prior_iterations, 1)

    def _groups_changed(self) -> None:
        """The Hessian of all parameters together is estimated anew."""
        e = self._estimate
        e.restart()
        e.basis = e.power = None
        if e.rate is None:
            e.estimates = 0
        e.guard = replace(e.guard, troubled=False, provisional=False)

    def _whole_state(self) -> dict[str, Any]:
        return {
            "estimate": self._estimate.to_dict(),
            "source": self._source.to_dict(),
            "sizes": [self.est_rank, self.num_observations, self.prior_iterations],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was saved."""
        state_dict = self._complete(state_dict)
        like = torch.empty(self._flat.size, dtype=self._flat.dtype, device=self._flat.device)
        estimate = Estimate.from_dict(state_dict["estimate"], like)
        super().load_state_dict(state_dict)
        self._set_sizes(*state_dict["sizes"])
        self._source.take(state_dict["source"])
        self._estimate = estimate

    # Driving

    def start_estimate(
        self,
        est_rank: int | None = None,
        num_observations: int | None = None,
        prior_iterations: int | None = None,
    ) -> None:
        """Begin a new estimation with the next step; one that is under way goes on instead."""
        sizes = (self.est_rank, self.num_observations, self.prior_iterations)
        asked = (est_rank, num_observations, prior_iterations)
        new = tuple(s if a is None else a for s, a in zip(sizes, asked, strict=True))
        self._set_sizes(*new)
        if self._estimate.phase == READY or new != sizes:
            self._estimate.restart()

    def maybe_start_estimate(self) -> bool:
        """Begin a new estimation if the last test rejects the present one, or it is old.

        A provisional one, made just after steps had proved too long or with a rate held back, is
        old after three times the steps it took.

        Returns whether one has begun.
        """
        e = self._estimate
        if e.phase != READY:
            return False
        old = self.estimate_every is not None and e.steps - e.started >= self.estimate_every
        if e.guard.provisional and e.age >= _FOLLOW_UP * (e.finished - e.started):
            old = True
        if old or e.rejected:
            e.restart()
        return old or e.rejected

    def _wants_products(self) -> bool:
        e = self._estimate
        if self.estimate_every is not None or e.guard.provisional:
            self.maybe_start_estimate()
        return e.phase != READY or self._fit_test_due() or self._step_test_due()

    def _fit_test_due(self) -> bool:
        e = self._estimate
        tested = self.check_every > 0 and e.basis is not None
        return tested and e.age > 0 and e.age % self.check_every == 0

    def _step_test_due(self) -> bool:
        e = self._estimate
        if not self._follows:
            return False
        probed = self.check_every > 0 or self._young
        return e.guard.suspect or (probed and step_probe_due(e.age))

    def _advance(self, wanted: bool) -> None:
        e = self._estimate
        if wanted:
            self._gradient = self._total_gradient()
            require_finite(self._gradient)
        if e.phase != READY:
            self._estimation_step()
        elif wanted and self._source.available(self._flat):
            if self._fit_test_due():
                self._test_fit()
            elif self._step_test_due():
                self._test_step()
        elif self._young or e.age % _WATCH_EVERY == 0:
            self._watch()
        detach_gradients(self._flat)
        if e.phase == READY or (self.update_while_estimating and self._rate_known):
            self._update()

    def _estimation_step(self) -> None:
        e = self._estimate
        if e.phase == PRIOR:
            self._gather_curvature_information()
            e.prior_counter += 1
            if e.prior_counter < self.prior_iterations:
                return
            self._estimate_prior()
            self._setup_estimated_hessian()
            e.phase = OBSERVE
            if e.directions is not None:
                return
        elif e.phase == OBSERVE:
            self._apply_estimated_inverse()
            if self._direction is not None:
                self._hessian_vector_product()
                self._update_estimated_hessian()
                e.update_counter += 1
                if e.update_counter < self.num_observations:
                    return
        if e.phase == OBSERVE:
            self._create_low_rank()
            e.forget_observations()
            e.update_counter, e.last_product = 0, None
            bounded = self.constructs_rate and self.preconditions and self.power_iterations > 0
            if e.basis is not None and bounded:
                e.phase = RATE
                return
        elif e.phase == RATE:
            self._limit_rate()
            e.update_counter += 1
            if e.update_counter < self.power_iterations:
                return
        self._finish()

    def _finish(self) -> None:
        e = self._estimate
        held_back = e.new_rate is not None and e.new_rate >= self._most
        if e.new_rate is not None:
            e.guard = replace(e.guard, rate=e.new_rate)
        provisional = (e.guard.troubled or held_back) and self._follows
        e.guard = e.guard.concluded(provisional=provisional)
        self._init_the_optimizer()
        e.phase, e.finished, e.rejected = READY, e.steps + 1, False
        e.estimates += 1
        e.gradient_sum = e.product_sum = e.last_direction = e.last_product = None

    # Phases

    def _gather_curvature_information(self) -> None:
        """Product along the gradient, and its inner products, for the prior."""
        e, g = self._estimate, self._gradient
        assert g is not None
        y = self._product(g)
        sums = add_pair(e.sums, g, y)
        if not math.isfinite(sums.sy + sums.yy):
            e.note = "non-finite product left out"
            return
        if self._along_gradients:
            self._shorten(sums.quotients - e.sums.quotients, FAR_TOO_LONG)
        e.sums = sums
        e.gradient_sum = g.clone() if e.gradient_sum is None else e.gradient_sum.add_(g)
        e.product_sum = y.clone() if e.product_sum is None else e.product_sum.add_(y)
        if self.cross_batch:
            if e.last_direction is not None and e.last_product is not None:
                again = self._product(e.last_direction)
                e.sums = add_cross_pair(e.sums, e.last_direction, e.last_product, again)
            e.last_direction, e.last_product = g, y

    def _estimate_prior(self) -> None:
        """Prior mean, scale and noise, and the learning rate, from what was gathered."""
        e = self._estimate
        if e.gradient_sum is None:
            return
        total = safe_dot(e.gradient_sum, e.gradient_sum)
        e.prior = estimate_prior(e.sums, total, self._flat.size)
        e.note = "" if e.sums.sy > 0 else "no positive curvature along the gradients"
        rate = construct_rate(e.sums)
        if e.rate is None and rate is None and total > 0:
            # A hundredth of the weights' length a step, until there is curvature to go by.
            rate = 0.01 * (1 + self._flat.norm()) * e.prior_counter / math.sqrt(total)
        e.new_rate = self._bounded(rate)
        if e.rate is None:
            e.guard = replace(e.guard, rate=e.new_rate)

    def _setup_estimated_hessian(self) -> None:
        """Room for the observations, unless there is no prior or none is wanted."""
        e = self._estimate
        if e.prior is None or e.gradient_sum is None:
            return
        if self.num_observations == 0 or self.est_rank == 0 or not self.observes:
            return
        e.directions = e.gradient_sum.new_zeros(self.num_observations, self._flat.size)
        e.products = torch.zeros_like(e.directions)
        e.gram = e.cross = torch.zeros(0, 0, dtype=torch.float64, device="cpu")

    def _apply_estimated_inverse(self) -> None:
        """Next direction: what the last estimation kept, the mean product, what is new in B u.

        The mean product of the prior is one step of power iteration from the mean gradient, along
        which it is known; B u is the mean's product with its leading eigenvector. Of both the part
        that is new; None once nothing is.
        """
        e = self._estimate
        self._direction = None
        if e.prior is None or e.product_sum is None:
            return
        seen = e.observations(e.product_sum)
        carried = 0 if e.basis is None else min(len(e.basis), self.num_observations - 1)
        if e.basis is not None and len(seen) < carried:
            self._direction = e.basis[len(seen)]
        elif len(seen) == carried:
            self._direction = new_part(seen, e.product_sum)
        else:
            self._direction, e.share = next_direction(e.prior, seen)

    def _hessian_vector_product(self) -> None:
        """Product along the direction on this batch."""
        if self._direction is not None:
            self._image = self._product(self._direction)

    def _update_estimated_hessian(self) -> None:
        """Add the direction and its product to the observations."""
        e, s, y = self._estimate, self._direction, self._image
        if s is None or y is None or e.directions is None or e.products is None:
            return
        seen = e.observations(s)
        m = len(seen)
        e.directions[m], e.products[m] = s, y
        seen = extend(seen, e.directions[: m + 1], e.products[: m + 1])
        if not bool(seen.cross.isfinite().all()):
            e.note = "non-finite product left out"
            return
        e.gram, e.cross = seen.gram, seen.cross
        if self._along_gradients:
            self._shorten(float(seen.cross[m, m]))
        if e.basis is not None and m == 0 and self.num_observations > 1:
            self._compare(float(seen.cross[0, 0]))

    def _create_low_rank(self) -> None:
        """Keep the largest eigenpairs of the posterior, with their deviations and coefficients."""
        e = self._estimate
        if e.prior is None or len(e.gram) == 0 or e.directions is None:
            return
        seen = e.observations(e.directions[0])
        values, rows, deviations = observed_pairs(e.prior, seen, self.est_rank)
        if not bool(values.isfinite().all()):
            e.note = "non-finite products: last eigenpairs kept"
            return
        e.basis, e.values = rows, values
        e.deviations = torch.hypot(deviations, e.prior.spread * values)
        reference = float(values.abs().min())
        e.coefficients = relative_power(values, reference, -1.0)
        largest = float(values.abs().max())
        if self.preconditions and reference > 0:
            rate = preconditioned_rate(seen, rows, e.coefficients, 1 / reference)
            e.new_rate = self._bounded(rate) or e.new_rate
        elif e.new_rate is not None and largest > 0:
            e.new_rate = min(e.new_rate, 1 / largest)

    def _limit_rate(self) -> None:
        """Bound the rate by the largest curvature left, which one more power iteration nears.

        The last product is a second one along the same vector, for the noise between batches.
        """
        e = self._estimate
        assert e.basis is not None
        if e.power is None or len(e.power) != self._flat.size:
            generator = torch.Generator(self._flat.device).manual_seed(0)
            e.power = torch.empty_like(e.basis[0]).normal_(generator=generator)
        basis, c = e.basis.mT, e.coefficients.to(e.basis)
        y = self._product(e.power)
        curvature, image = remaining_curvature(basis, c, e.power, y)
        if e.last_product is not None:  # the second product of this vector
            momentum = momentum_of(self.param_groups)
            noisy = curvature_with_noise(basis, c, e.power, e.last_product, y, momentum)
            curvature = max(curvature, noisy)
        if e.update_counter == self.power_iterations - 2:
            e.last_product = y
        else:
            e.power = image
        if e.new_rate is not None and curvature * e.new_rate > 1:
            e.new_rate = 1 / curvature
        self._shorten(curvature)

    def _init_the_optimizer(self) -> None:
        """Give every group's inner optimizer its rate; momentum and other state stay."""
        self._inner.follow(self.param_groups, self._rate_of)

    def _apply_preconditioner(self) -> None:
        """Replace every gradient g by P^2 g, in place."""
        e = self._estimate
        if e.basis is not None and self.preconditions:
            precondition(e.basis, e.coefficients, self._flat)

    def inverse_product(self, v: torch.Tensor) -> torch.Tensor:
        """(I + U diag(c) U') v: what a gradient [N], in the groups' order, is replaced by."""
        e = self._estimate
        if e.basis is None:
            return v.clone()
        basis = e.basis.to(v.dtype)
        return apply_low_rank(basis.mT, e.coefficients.to(v.dtype), v)

    # Parts of the phases

    @property
    def _along_gradients(self) -> bool:
        """Whether steps go along gradients as they are, so that the Hessian's curvature counts."""
        return self._estimate.basis is None or not self.preconditions

    @property
    def _first_given(self) -> bool:
        return all(group["first_lr"] is not None for group in self.param_groups)

    @property
    def _follows(self) -> bool:
        """Whether steps follow the constructed rate: not a fixed one, nor a given first one."""
        if not self.constructs_rate or self._estimate.rate is None:
            return False
        return self._estimate.estimates >= 2 or not self._first_given

    @property
    def _most(self) -> float:
        """Largest rate that the estimation under way may come to."""
        e = self._estimate
        return math.inf if e.estimates == 0 else e.guard.most

    @property
    def _young(self) -> bool:
        e = self._estimate
        untried = self._follows and (e.estimates == 1 or e.guard.provisional)
        return self._probes and untried and e.age <= _YOUNG

    @property
    def _rate_known(self) -> bool:
        return not self.constructs_rate or self._estimate.rate is not None or self._first_given

    def _update(self) -> None:
        add_decay_to_gradients(self.param_groups)
        self._apply_preconditioner()
        self._init_the_optimizer()
        self._inner.step()

    def _rate_of(self, group: dict[str, Any]) -> float:
        if not self.constructs_rate:
            return float(group["lr"])
        e = self._estimate
        if group["first_lr"] is not None and (e.estimates < 2 or e.rate is None):
            return float(group["lr"] * group["first_lr"])
        return 0.0 if e.rate is None else float(group["lr"] * e.rate)

    def _bounded(self, rate: float | None) -> float | None:
        e = self._estimate
        total = 0.0 if e.gradient_sum is None else safe_dot(e.gradient_sum, e.gradient_sum)
        gradient = math.sqrt(total) / max(e.prior_counter, 1)
        careful = None if rate is None else rate * e.guard.caution
        return bounded_rate(careful, self._most, self._flat.norm(), gradient)

    def _test_fit(self) -> None:
        """Predictive test: one product along the top eigenvector on a fresh batch."""
        e = self._estimate
        assert e.basis is not None
        self._compare(safe_dot(e.basis[0], self._product(e.basis[0])))
        self.maybe_start_estimate()

    def _compare(self, found: float) -> None:
        e = self._estimate
        expected, deviation = float(e.values[0]), float(e.deviations[0])
        e.misfit = misfit(found, expected, deviation)
        e.rejected = rejected(found, expected, deviation, self.prior_iterations)

    def _shorten(self, curvature: float, limit: float = TOO_LONG) -> bool:
        """Lower a rate in use at once where a curvature just seen is too large for it."""
        e = self._estimate
        guard = e.guard.shortened(curvature, limit)
        if guard is e.guard:
            return False
        e.guard, e.note = guard, "more curvature than the rate allows: rate lowered"
        return True

    def _test_step(self) -> None:
        """Curvature along the step itself: a rate above its inverse is lowered to it."""
        e, g = self._estimate, self._gradient
        assert g is not None
        limit = FAR_TOO_LONG if self._young and self.check_every == 0 else TOO_LONG
        e.guard = replace(e.guard, suspect=False)
        step = g
        if self.preconditions and e.basis is not None:
            step = apply_low_rank(e.basis.mT, e.coefficients.to(e.basis), g)
        length = safe_dot(step, g)
        curvature = safe_dot(step, self._product(step)) / length if length > 0 else 0.0
        if self._shorten(curvature, limit):
            self._start_in_trouble(
                "more curvature along the step than the estimate holds: rate lowered"
            )

    def _start_in_trouble(self, note: str) -> None:
        """Begin a new estimation because steps proved too long."""
        e = self._estimate
        e.restart()
        e.guard, e.note = replace(e.guard, troubled=True), note

    def _watch(self) -> None:
        """Have the next step looked into where gradients have grown: steps may be too long."""
        e, size = self._estimate, gradient_norm(self._flat)
        if not math.isfinite(size):
            require_finite(self._flat.gradient())
            return  # too large for a norm, and for this watch
        e.guard, lowered = e.guard.watched(size, may_lower=self.constructs_rate)
        if lowered:
            self._start_in_trouble("gradients grew: rate lowered")

    def get_log(self) -> dict[str, Any]:
        """What the optimizer knows and does: see ``estimate.describe``."""
        rates = [self._rate_of(group) for group in self.param_groups]
        return {"step_size": rates, **describe(self._estimate, self.prior_iterations)}
