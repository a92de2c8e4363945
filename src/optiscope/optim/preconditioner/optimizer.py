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

from optiscope.linalg.low_rank import apply_low_rank
from optiscope.objective.closure_source import CurvatureSource, detach_gradients
from optiscope.optim.checks import check_count, check_flag
from optiscope.optim.preconditioner.curvature_optimizer import CurvatureOptimizer
from optiscope.optim.preconditioner.estimate import READY, Estimate, describe
from optiscope.optim.preconditioner.estimation import Estimation, Seen
from optiscope.optim.preconditioner.gradient_edits import (
    add_decay_to_gradients,
    gradient_norm,
    precondition,
    require_finite,
)
from optiscope.optim.preconditioner.inner import momentum_of
from optiscope.optim.preconditioner.published_recipe import PublishedRecipe
from optiscope.optim.preconditioner.rate_guard import FAR_TOO_LONG, TOO_LONG, step_probe_due

__all__ = ["Preconditioner"]

_CHECK_EVERY = 100
_WATCH_EVERY = 10  # steps between looks at the length of the gradient, once no longer young
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

    The estimation is a pure function, `Estimation`; here is what drives it. A variant says as data
    what it leaves out: ``preconditions`` (gradients are preconditioned), ``observes`` (products are
    gathered after the prior), ``constructs_rate``. A subclass written for the published program,
    which empties the method of a phase, works too: see `PublishedRecipe`.

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

    Source: F. de Roos, P. Hennig 2019; L. Bald 2019, whose phase names `PublishedRecipe` has.
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

    @property
    def _estimation(self) -> Estimation:
        """How this optimizer estimates, by its settings and its phases as they are."""
        return Estimation(
            est_rank=self.est_rank,
            num_observations=self.num_observations,
            prior_iterations=self.prior_iterations,
            power_iterations=self.power_iterations,
            cross_batch=self.cross_batch,
            preconditions=self.preconditions,
            observes=self.observes,
            constructs_rate=self.constructs_rate,
            replaced=self._phases(),
        )

    def _groups_changed(self) -> None:
        """The Hessian of all parameters together is estimated anew."""
        e = self._estimate.restarted(self._counts.steps)
        self._estimate = replace(
            e,
            basis=None,
            power=None,
            estimates=0 if e.rate is None else e.estimates,
            guard=replace(e.guard, troubled=False, provisional=False),
        )

    def _whole_state(self) -> dict[str, Any]:
        return {
            "estimate": self._estimate.to_dict(self._counts),
            "source": self._source.to_dict(),
            "sizes": [self.est_rank, self.num_observations, self.prior_iterations],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was saved."""
        state_dict = self._complete(state_dict)
        like = torch.empty(self._flat.size, dtype=self._flat.dtype, device=self._flat.device)
        estimate, counts = Estimate.from_dict(state_dict["estimate"], like)
        super().load_state_dict(state_dict)
        self._set_sizes(*state_dict["sizes"])
        self._source.take(state_dict["source"])
        self._estimate, self._counts = estimate, counts

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
            self._estimate = self._estimate.restarted(self._counts.steps)

    def maybe_start_estimate(self) -> bool:
        """Begin a new estimation if the last test rejects the present one, or it is old.

        A provisional one, made just after steps had proved too long or with a rate held back, is
        old after three times the steps it took.

        Returns whether one has begun.
        """
        e, steps = self._estimate, self._counts.steps
        if e.phase != READY or not (e.rejected or e.is_old(steps, self.estimate_every)):
            return False
        self._estimate = e.restarted(steps)
        return True

    def _wants_products(self) -> bool:
        if self.estimate_every is not None or self._estimate.guard.provisional:
            self.maybe_start_estimate()
        return self._estimate.phase != READY or self._fit_test_due() or self._step_test_due()

    def _fit_test_due(self) -> bool:
        e, age = self._estimate, self._age
        tested = self.check_every > 0 and e.basis is not None
        return tested and age > 0 and age % self.check_every == 0

    def _step_test_due(self) -> bool:
        if not self._follows:
            return False
        probed = self.check_every > 0 or self._young
        return self._estimate.guard.suspect or (probed and step_probe_due(self._age))

    def _advance(self, wanted: bool) -> None:
        before = self._estimate
        try:
            self._estimate = self._next_estimate(wanted)
        except BaseException:
            self._estimate = before
            raise
        finally:
            self._seen = None
        if before.phase == READY and self._estimate.rejected:
            self.maybe_start_estimate()
        detach_gradients(self._flat)
        known = not self.constructs_rate or self._estimate.rate is not None or self._first_given
        if self._estimate.phase == READY or (self.update_while_estimating and known):
            self._update()

    def _next_estimate(self, wanted: bool) -> Estimate:
        """The estimate after this batch, which no step has been made along yet."""
        e, steps = self._estimate, self._counts.steps
        if wanted:
            seen = self._see()
            if e.phase != READY:
                return self._estimation.advance(e, seen)
            if self._source.available(self._flat):
                if self._fit_test_due():
                    return self._estimation.fit_tested(e, seen)
                few = self._young and self.check_every == 0
                return self._estimation.step_tested(e, seen, FAR_TOO_LONG if few else TOO_LONG)
        if self._young or self._age % _WATCH_EVERY == 0:
            size = gradient_norm(self._flat)
            if math.isfinite(size):
                return self._estimation.watched(e, size, steps)
            require_finite(self._flat.gradient())  # else too large for a norm, and for this watch
        return e

    def _see(self) -> Seen:
        gradient = self._total_gradient()
        require_finite(gradient)
        return Seen(
            gradient=gradient,
            product=self._product,
            weights=self._flat.norm,
            step=self._counts.steps,
            momentum=momentum_of(self.param_groups),
            first_given=self._first_given,
        )

    def _update(self) -> None:
        add_decay_to_gradients(self.param_groups)
        steps_by = self._apply_preconditioner()
        if steps_by is not None:
            precondition(steps_by.basis, steps_by.coefficients, self._flat)
        self._init_the_optimizer()
        self._inner.step()

    def _init_the_optimizer(self) -> None:
        """Give every group's inner optimizer its rate; momentum and other state stay."""
        self._inner.follow(self.param_groups, self._rate_of)

    # Rates

    @property
    def _age(self) -> int:
        return self._estimate.age(self._counts.steps)

    @property
    def _first_given(self) -> bool:
        return all(group["first_lr"] is not None for group in self.param_groups)

    @property
    def _follows(self) -> bool:
        """Whether steps follow the constructed rate: not a fixed one, nor a given first one."""
        return self.constructs_rate and self._estimate.has_used_rate(self._first_given)

    @property
    def _young(self) -> bool:
        e = self._estimate
        untried = self._follows and (e.estimates == 1 or e.guard.provisional)
        return self._probes and untried and self._age <= _YOUNG

    def _rate_of(self, group: dict[str, Any]) -> float:
        if not self.constructs_rate:
            return float(group["lr"])
        e = self._estimate
        if group["first_lr"] is not None and (e.estimates < 2 or e.rate is None):
            return float(group["lr"] * group["first_lr"])
        return 0.0 if e.rate is None else float(group["lr"] * e.rate)

    # What it knows

    def inverse_product(self, v: torch.Tensor) -> torch.Tensor:
        """(I + U diag(c) U') v: what a gradient [N], in the groups' order, is replaced by."""
        e = self._estimate
        if e.basis is None:
            return v.clone()
        basis = e.basis.to(v.dtype)
        return apply_low_rank(basis.mT, e.coefficients.to(v.dtype), v)

    def get_log(self) -> dict[str, Any]:
        """What the optimizer knows and does: see ``estimate.describe``."""
        rates = [self._rate_of(group) for group in self.param_groups]
        return {
            "step_size": rates,
            **describe(self._estimate, self._counts, self.prior_iterations),
        }
