"""What a measurement cost, in evaluations of the model rather than in seconds alone."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Cost"]

# A forward pass is about a third of a gradient. A Hessian or Gauss-Newton product whose graphs are
# kept took 1.4 to 2.0 gradients on four networks (torch 2.13, CPU), so 2 does not flatter.
_GRADIENTS_PER_FORWARD = 1 / 3
_GRADIENTS_PER_PRODUCT = 2.0


@dataclass(frozen=True)
class Cost:
    """Passes over all samples: forward only, with gradient, and matrix-vector products.

    Attributes:
        gradients: evaluations of the gradient of the whole risk.
        products: products of a matrix with a vector, over the whole risk.
        forwards: evaluations of the value alone.
        seconds: wall-clock time.
    """

    gradients: float = 0.0
    products: float = 0.0
    forwards: float = 0.0
    seconds: float = 0.0

    @property
    def gradient_equivalents(self) -> float:
        """The same as a number of gradients: a forward pass counts 1/3, a product 2."""
        return (
            self.gradients
            + _GRADIENTS_PER_PRODUCT * self.products
            + _GRADIENTS_PER_FORWARD * self.forwards
        )

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.gradients + other.gradients,
            self.products + other.products,
            self.forwards + other.forwards,
            self.seconds + other.seconds,
        )

    def __str__(self) -> str:
        return f"{self.gradient_equivalents:.4g} gradients, {self.seconds:.2g} s"
