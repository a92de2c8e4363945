"""How far a constructed rate is trusted: raised slowly, lowered at once where steps prove too long.

Pure: every judgement gives a new guard. Nothing here knows of gradients or Hessians but by their
norms and curvatures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

__all__ = ["FAR_TOO_LONG", "TOO_LONG", "RateGuard", "bounded_rate", "step_probe_due"]

GROWTH = 2.0  # largest factor by which a new estimation raises the rate; squared after trouble
TOO_LONG = 1.25  # step's curvature times rate above which the rate is too high
FAR_TOO_LONG = 4.0  # the same where nothing else is amiss: sharpness may hover near 2 / rate
_UNSTABLE = 3.0  # growth of the gradients' length that calls for a test of the step
_RECOVERY = 1.25  # by which each estimation without such growth raises caution towards 1
_LEAST_CAUTION = 0.1  # down to which such growth lowers it
_RELAX = 1.1  # growth of that length from one look to the next that is no news
_FIRST_PROBE = 5  # age at which the first step of an estimate is probed


@dataclass(frozen=True)
class RateGuard:
    """A rate in use, and what has been seen of the steps that it makes.

    Attributes:
        rate: constructed learning rate, None before there is one.
        recent: length of the gradients, averaged over the last looks.
        level: least of these lately, or 0 before the first look.
        caution: factor on constructed rates, below 1 after rates that proved unstable.
        suspect: whether gradients have grown since, which the next step looks into.
        troubled: whether steps proved too long since the last estimation ended.
        provisional: whether the last estimate was made in trouble, or with its rate held back.
    """

    rate: float | None = None
    recent: float = 0.0
    level: float = 0.0
    caution: float = 1.0
    suspect: bool = False
    troubled: bool = False
    provisional: bool = False

    @property
    def most(self) -> float:
        """Largest rate that an estimation may come to after an earlier one."""
        if self.rate is None:
            return math.inf
        return self.rate * (GROWTH**2 if self.provisional else GROWTH)

    def shortened(self, curvature: float, limit: float = TOO_LONG) -> RateGuard:
        """Guard with the rate lowered to 1 / curvature where that was too large for it, else self.

        Args:
            curvature: just seen, along steps as they are.
            limit: curvature times rate up to which nothing is amiss.
        """
        if self.rate is None or not math.isfinite(curvature) or curvature * self.rate <= limit:
            return self
        troubled = self.troubled or curvature * self.rate > FAR_TOO_LONG
        return replace(self, rate=1 / curvature, troubled=troubled)

    def watched(self, size: float, *, may_lower: bool) -> tuple[RateGuard, bool]:
        """Guard after a look at the gradients' length, and whether it lowered the rate.

        Growth makes the next step suspect. Much growth, without curvature to explain it, is noise
        amplified by the rate, which is lowered; but not without end, as gradients of single samples
        differ as much without growing, and must not end training.

        Args:
            size: length of the gradient, finite.
            may_lower: whether the rate is this guard's to lower.
        """
        if size == 0:
            return self, False  # nothing to step along, and nothing to compare with
        if self.level == 0:
            return replace(self, level=size, recent=size), False
        recent = (self.recent + size) / 2
        seen = replace(
            self,
            recent=recent,
            suspect=recent > _UNSTABLE * self.level,
            level=min(recent, _RELAX * self.level),
        )
        grown = recent > _UNSTABLE**2 * self.level
        may = may_lower and self.caution >= _LEAST_CAUTION * _UNSTABLE
        if not (grown and may) or self.rate is None:
            return seen, False
        rate, caution = self.rate / _UNSTABLE, self.caution / _UNSTABLE
        return replace(seen, rate=rate, caution=caution, troubled=True), True

    def concluded(self, *, provisional: bool) -> RateGuard:
        """Guard at the end of an estimation, which the gradients' length is measured from anew."""
        return replace(
            self,
            provisional=provisional,
            troubled=False,
            level=0.0,
            suspect=False,
            caution=min(1.0, self.caution * _RECOVERY),
        )


def step_probe_due(age: int) -> bool:
    """Whether an estimate of this age has its steps probed: at 5, 10, 20, 40, ... steps."""
    doublings, rest = divmod(age, _FIRST_PROBE)
    return rest == 0 and doublings > 0 and doublings & (doublings - 1) == 0


def bounded_rate(rate: float | None, most: float, weights: float, gradient: float) -> float | None:
    """A constructed rate made safe to use, or None where it cannot be.

    At most ``most``, and no step longer than 1 plus the weights' norm.

    Args:
        rate: as constructed.
        most: allowed; infinite before there was a rate.
        weights: norm of the parameters.
        gradient: norm of the mean gradient.
    """
    if rate is None:
        return None
    safe = min(rate, most, (1 + weights) / gradient if gradient > 0 else math.inf)
    return safe if math.isfinite(safe) and safe > 0 else None
