"""The published way to make a variant: a subclass that empties one phase by overriding its method.

Variants here are data: ``preconditions`` and ``observes`` of a class. A subclass written for the
published program overrides the method of a phase instead, by an empty one. Once, when such a class
is made, this adapter states as data what it left out; nothing else looks at overrides.
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = ["PublishedRecipe"]


class PublishedRecipe:
    """Base of optimizers whose phases may be emptied by a subclass.

    Attributes:
        preconditions: whether gradients are preconditioned; False for a class that overrides
            ``_apply_preconditioner``, whose steps go along gradients as they are.
        observes: whether products are gathered for a low-rank estimate after the prior.
    """

    preconditions: ClassVar[bool] = True
    observes: ClassVar[bool] = True

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if _replaced(cls, "_apply_preconditioner"):
            cls.preconditions = False
        if _replaced(cls, "_setup_estimated_hessian"):
            cls.observes = False


def _replaced(cls: type, phase: str) -> bool:
    """Whether a class has a phase from elsewhere than from where all phases are defined."""
    owner = next(base for base in cls.__mro__ if phase in vars(base))
    return PublishedRecipe not in owner.__bases__
