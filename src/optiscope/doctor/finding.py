"""A finding: something wrong with a training run, with evidence and a remedy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

__all__ = ["FAMILIES", "SEVERITIES", "Family", "Finding", "Severity"]

Severity = Literal["note", "warning", "error"]
"""A note needs no action, a warning a look, an error a change of the program."""

Family = Literal[
    "ownership",
    "gradient_flow",
    "loss_form",
    "modes",
    "data",
    "labels",
    "inputs",
    "overlap",
    "augmentation",
    "initialization",
    "rate",
    "decay",
    "units",
    "precision",
    "distributed",
    "memory",
    "evaluation",
    "speed",
]
"""What a step consists of that the finding is about."""

SEVERITIES: tuple[Severity, ...] = get_args(Severity)
FAMILIES: tuple[Family, ...] = get_args(Family)


@dataclass(frozen=True)
class Finding:
    """Something wrong with a training run, with evidence and a remedy.

    ``step`` and ``last_step`` are the first and last optimizer step at which it was seen, ``count``
    how often (before training: 0, 0 and 1). ``where`` names parameters, modules or splits.
    ``measured`` and ``threshold`` share their keys where a number is held against a limit.
    ``confidence`` is 1.0 only for exact rules. ``explains`` names the rules whose findings are
    symptoms of this one, ``explained_by`` the rule that is its cause.

    Raises ``ValueError`` on an unknown severity or family, or a confidence outside [0, 1].
    """

    rule: str
    family: Family
    severity: Severity
    sentence: str
    remedy: str = ""
    step: int = 0
    last_step: int = 0
    count: int = 1
    where: tuple[str, ...] = ()
    measured: Mapping[str, float] = field(default_factory=dict)
    threshold: Mapping[str, float] = field(default_factory=dict)
    confidence: float = 1.0
    explains: tuple[str, ...] = ()
    explained_by: str | None = None

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity must be one of {SEVERITIES}, got {self.severity!r:.80}")
        if self.family not in FAMILIES:
            raise ValueError(f"family must be one of {FAMILIES}, got {self.family!r:.80}")
        if not 0 <= self.confidence <= 1:
            raise ValueError(f"confidence must lie in [0, 1], got {self.confidence}")
        object.__setattr__(self, "where", tuple(self.where))
        object.__setattr__(self, "explains", tuple(self.explains))
        object.__setattr__(self, "last_step", max(self.step, self.last_step))
        for name in ("measured", "threshold"):
            values = {str(key): float(value) for key, value in getattr(self, name).items()}
            object.__setattr__(self, name, MappingProxyType(values))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are made from the fields: a read-only view cannot be pickled."""
        return _from_dict, (self.to_dict(),)

    def __hash__(self) -> int:
        return hash((self.rule, self.where, self.step, self.sentence))

    @property
    def is_alarm(self) -> bool:
        """Whether it is a warning or an error."""
        return self.severity != "note"

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values that JSON can hold."""
        return {
            "rule": self.rule,
            "family": self.family,
            "severity": self.severity,
            "sentence": self.sentence,
            "remedy": self.remedy,
            "step": self.step,
            "last_step": self.last_step,
            "count": self.count,
            "where": list(self.where),
            "measured": dict(self.measured),
            "threshold": dict(self.threshold),
            "confidence": self.confidence,
            "explains": list(self.explains),
            "explained_by": self.explained_by,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Finding:
        """The finding that ``to_dict`` wrote; unknown keys raise ``TypeError``."""
        fields = dict(values)
        for name in ("where", "explains"):
            if name in fields:
                fields[name] = tuple(fields[name])
        return cls(**fields)

    def as_note(self, reason: str) -> Finding:
        """The same finding as a note, because it is expected."""
        return replace(self, severity="note", sentence=f"{self.sentence} ({reason})")

    def __str__(self) -> str:
        place = f" [{', '.join(self.where[:3])}]" if self.where else ""
        remedy = f" {self.remedy}" if self.remedy else ""
        return f"{self.severity} at step {self.step}, {self.rule}{place}: {self.sentence}{remedy}"


def _from_dict(values: dict[str, Any]) -> Finding:
    return Finding.from_dict(values)
