"""A rule: an observer of a session that reports findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from optiscope.doctor.finding import Family, Finding, Severity
from optiscope.monitor.events import Observer

if TYPE_CHECKING:
    from optiscope.monitor.session import Session

__all__ = ["Rule", "layer"]


class Rule(Observer):
    """One thing that can be verified about a training step without a reference run.

    A subclass sets ``name``, ``family`` and ``exact``, overrides the events it needs and calls
    ``report``. A rule that watches several symptoms of one mechanism passes ``rule=`` and lists
    those names in ``also``.
    """

    name: ClassVar[str]
    family: ClassVar[Family]
    severity: ClassVar[Severity] = "warning"
    exact: ClassVar[bool] = False
    also: ClassVar[tuple[str, ...]] = ()
    reads_forwards = True

    def __init__(self) -> None:
        self.sink: Callable[[Finding], None] = lambda finding: None
        self.session: Session

    def start(self, session: Session) -> None:
        """Keep the session."""
        self.session = session

    def report(
        self,
        sentence: str,
        remedy: str,
        *,
        where: Iterable[str] = (),
        measured: Mapping[str, float] | None = None,
        threshold: Mapping[str, float] | None = None,
        rule: str | None = None,
        severity: Severity | None = None,
        confidence: float | None = None,
        step: int | None = None,
    ) -> None:
        """Hand a finding to whoever collects them."""
        at = self.session.step if step is None else step
        if confidence is None:
            confidence = 1.0 if self.exact else 0.9
        self.sink(
            Finding(
                rule=rule or self.name,
                family=self.family,
                severity=severity or self.severity,
                sentence=sentence,
                remedy=remedy,
                step=at,
                where=tuple(where),
                measured=measured or {},
                threshold=threshold or {},
                confidence=confidence,
            )
        )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the findings that this rule may report."""
        return (cls.name, *cls.also)


def layer(names: Mapping[int, str], parameter: Any) -> str:
    """Name of the layer that holds ``parameter`` (``"0"`` for ``"0.weight"``)."""
    name = names.get(id(parameter), "")
    return name.rpartition(".")[0] or name or "unnamed layer"
