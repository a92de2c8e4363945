"""What the preconditioner knows of the Hessian, and how far its estimation has come: a value.

Index legend: N parameters, M observations, K kept eigenpairs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from optiscope.optim.preconditioner.posterior import Observations
from optiscope.optim.preconditioner.predictive_test import curvature_interval
from optiscope.optim.preconditioner.prior import CurvatureSums, Prior
from optiscope.optim.preconditioner.rate_guard import RateGuard

__all__ = ["OBSERVE", "PRIOR", "RATE", "READY", "Counts", "Estimate", "LowRank", "describe"]

_VECTORS = (
    "gradient_sum",
    "product_sum",
    "last_direction",
    "last_product",
    "directions",
    "products",
    "basis",
    "power",
)
_FOLLOW_UP = 3  # lengths of an estimation after which a provisional one is renewed
_WITHIN = {"guard", "direction", "image"}  # saved otherwise, or gone at the end of a step
PRIOR, OBSERVE, RATE, READY = "prior", "observe", "rate", "ready"


def _no_small() -> Tensor:
    return torch.zeros(0, dtype=torch.float64, device="cpu")


@dataclass
class Counts:
    """What an optimizer has done so far.

    Attributes:
        steps: steps taken in all.
        skipped: batches left out for non-finite gradients.
        skipped_in_row: those of them that came last without a usable one.
        gradients: closure evaluations for gradients at the parameters themselves.
        hessian_products: Hessian products computed.
    """

    steps: int = 0
    skipped: int = 0
    skipped_in_row: int = 0
    gradients: int = 0
    hessian_products: int = 0


@dataclass(frozen=True)
class LowRank:
    """The squared preconditioner I + U diag(c) U'.

    Attributes:
        basis: U' [K, N], eigenvectors as rows.
        coefficients: c [K].
    """

    basis: Tensor
    coefficients: Tensor

    def on(self, vector: Tensor) -> Tensor:
        """Coefficients of the type of ``vector``, where it is."""
        return self.coefficients.to(vector)


@dataclass(frozen=True)
class Estimate:
    """Everything an optimizer must remember of its estimation between two steps.

    Attributes:
        phase: ``prior``, ``observe``, ``rate`` or ``ready``.
        prior_counter: batches that have entered the prior of this estimation.
        update_counter: products observed in this estimation.
        started: step at which the present estimation began.
        finished: step at which the last one ended, or -1.
        estimates: completed estimations.
        sums: inner products of the prior's directions and products.
        prior: of this estimation.
        gradient_sum: sum of the prior's gradients [N], while the prior is gathered.
        product_sum: sum of the products along them [N], while the prior is gathered.
        last_direction: latest prior direction [N], for products on two batches.
        last_product: its product on its own batch [N].
        directions: observed directions [M, N], while observing.
        products: their products [M, N], while observing.
        gram: [M, M].
        cross: [M, M].
        basis: kept eigenvectors as rows [K, N].
        values: kept eigenvalues [K].
        deviations: their standard deviations [K].
        coefficients: c [K] of the squared preconditioner I + U diag(c) U'.
        power: vector [N] that nears the largest curvature left by the preconditioner.
        direction: to be observed next [N], within a step.
        image: its product [N], within a step.
        guard: the rate in use, and how far it is trusted.
        new_rate: rate that the estimation under way has come to.
        rejected: whether the last prediction contradicts the estimate.
        misfit: squared error of the last prediction in units of its variance, or -1.
        share: share of prior variance left for the mean's product with its leading eigenvector,
            when the last direction was chosen, or -1.
        note: why the estimation came out as it did, where it needs saying.
    """

    phase: str = PRIOR
    prior_counter: int = 0
    update_counter: int = 0
    started: int = 0
    finished: int = -1
    estimates: int = 0
    sums: CurvatureSums = field(default_factory=CurvatureSums)
    prior: Prior | None = None
    gradient_sum: Tensor | None = None
    product_sum: Tensor | None = None
    last_direction: Tensor | None = None
    last_product: Tensor | None = None
    directions: Tensor | None = None
    products: Tensor | None = None
    gram: Tensor = field(default_factory=_no_small)
    cross: Tensor = field(default_factory=_no_small)
    basis: Tensor | None = None
    values: Tensor = field(default_factory=_no_small)
    deviations: Tensor = field(default_factory=_no_small)
    coefficients: Tensor = field(default_factory=_no_small)
    power: Tensor | None = None
    direction: Tensor | None = None
    image: Tensor | None = None
    guard: RateGuard = field(default_factory=RateGuard)
    new_rate: float | None = None
    rejected: bool = False
    misfit: float = -1.0
    share: float = -1.0
    note: str = ""

    @property
    def rate(self) -> float | None:
        """Constructed learning rate, None before there is one."""
        return self.guard.rate

    @property
    def low_rank(self) -> LowRank | None:
        """The squared preconditioner, None before there is one."""
        return None if self.basis is None else LowRank(self.basis, self.coefficients)

    def age(self, steps: int) -> int:
        """Steps since the last estimation ended, of those taken in all."""
        return steps - self.finished

    def is_old(self, steps: int, every: int | None) -> bool:
        """Whether it is to be renewed: by the clock, or a provisional one soon."""
        if every is not None and steps - self.started >= every:
            return True
        return self.guard.provisional and self.age(steps) >= _FOLLOW_UP * (
            self.finished - self.started
        )

    def has_used_rate(self, first_given: bool) -> bool:
        """Whether there is a rate that steps follow, and no given one of the first epoch."""
        return self.rate is not None and (self.estimates >= 2 or not first_given)

    def restarted(self, steps: int) -> Estimate:
        """A new estimation begun; eigenpairs and rate of the last one stay in use meanwhile."""
        begun = replace(
            self,
            phase=PRIOR,
            started=steps,
            prior_counter=0,
            update_counter=0,
            sums=CurvatureSums(),
            prior=None,
            new_rate=None,
            gradient_sum=None,
            product_sum=None,
            last_direction=None,
            last_product=None,
        )
        return begun.without_observations()

    def in_trouble(self, steps: int, note: str) -> Estimate:
        """A new estimation begun because steps proved too long."""
        return replace(self.restarted(steps), guard=replace(self.guard, troubled=True), note=note)

    def shortened(self, curvature: float, limit: float) -> Estimate:
        """With the rate lowered where a curvature just seen is too large for it, else self."""
        guard = self.guard.shortened(curvature, limit)
        if guard is self.guard:
            return self
        return replace(self, guard=guard, note="more curvature than the rate allows: rate lowered")

    def without_observations(self) -> Estimate:
        """Without the observed directions and products."""
        return replace(self, directions=None, products=None, gram=_no_small(), cross=_no_small())

    def observations(self, like: Tensor) -> Observations:
        """Observed so far, as the pure functions take them; ``like`` [N] gives type and device."""
        m = len(self.gram)
        if self.directions is None or self.products is None or m == 0:
            return Observations.none(like)
        return Observations(self.directions[:m], self.products[:m], self.gram, self.cross)

    def to_dict(self, counts: Counts) -> dict[str, Any]:
        """Numbers, words and tensors only, so that it loads with ``weights_only=True``."""
        out = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _WITHIN}
        out.update(asdict(self.guard) | asdict(counts))
        out["sums"] = asdict(self.sums)
        out["prior"] = None if self.prior is None else asdict(self.prior)
        return out

    @staticmethod
    def from_dict(saved: dict[str, Any], like: Tensor) -> tuple[Estimate, Counts]:
        """What ``to_dict`` saved, with vectors like ``like`` [N] in type and device."""
        judged = {f.name for f in fields(RateGuard)}
        counted = {f.name for f in fields(Counts)}
        known = {f.name for f in fields(Estimate)} - _WITHIN | judged | counted
        if set(saved) != known:
            raise ValueError(
                f"expected the fields of an estimate, got {sorted(set(saved) ^ known)} "
                "missing or unknown: load a state saved by this version"
            )
        values = {name: value for name, value in saved.items() if name not in judged | counted}
        for name in _VECTORS:
            if values[name] is not None:
                if values[name].shape[-1] != len(like):
                    raise ValueError(
                        f"expected a state of {len(like)} parameters in all, got one of "
                        f"{values[name].shape[-1]}: build the optimizer over the same model"
                    )
                values[name] = values[name].to(like.device, like.dtype).clone()
        for name in ("gram", "cross"):  # small, and kept where small things are factorised
            values[name] = values[name].to("cpu")
        values["sums"] = CurvatureSums(**saved["sums"])
        values["prior"] = None if saved["prior"] is None else Prior(**saved["prior"])
        values["guard"] = RateGuard(**{name: saved[name] for name in judged})
        return Estimate(**values), Counts(**{name: saved[name] for name in counted})


def describe(estimate: Estimate, counts: Counts, batches: int) -> dict[str, Any]:
    """What a person wants to see of an estimate, as numbers and words.

    Keys: ``phase``; ``eigenvalues`` (value, low, high of a 95 % interval); ``age`` (steps since
    the estimate was complete, None before); ``fit`` (squared error of the last predicted curvature
    in units of its variance, None before one); ``share`` (of prior variance left for the mean's
    product with its leading eigenvector, None before one); ``prior_mean``, ``prior_scale``,
    ``noise`` (None before a prior); ``estimates``, ``gradients`` (by closure),
    ``hessian_products`` and ``skipped_batches`` so far; ``note``.

    Args:
        estimate: to describe.
        counts: of the optimizer whose it is.
        batches: from which its prior came.
    """
    e, prior = estimate, estimate.prior
    pairs = zip(e.values.tolist(), e.deviations.tolist(), strict=True)
    return {
        "phase": e.phase,
        "eigenvalues": [curvature_interval(value, d, batches) for value, d in pairs],
        "age": None if e.finished < 0 else e.age(counts.steps),
        "fit": None if e.misfit < 0 else e.misfit,
        "share": None if e.share < 0 else e.share,
        "prior_mean": None if prior is None else prior.base,
        "prior_scale": None if prior is None else prior.scale,
        "noise": None if prior is None else prior.noise,
        "estimates": e.estimates,
        "gradients": counts.gradients,
        "hessian_products": counts.hessian_products,
        "skipped_batches": counts.skipped,
        "note": e.note,
    }
