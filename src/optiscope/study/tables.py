"""What the TOML file of a study may say: its tables, their words and the values of each."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from optiscope.records.findings import Monitoring
from optiscope.records.recipe import MOST_THREADS
from optiscope.records.trial import DEVICE

__all__ = [
    "FORMS",
    "MOST_TRIALS",
    "AlgorithmTable",
    "ChoiceTable",
    "Declaration",
    "MonitorTable",
    "RangeTable",
    "SpeedTable",
    "TuningTable",
]

Sampler = Literal["random", "grid", "qmc", "tpe"]


MOST_TRIALS = 100_000
"""Trials of one tuning, and seeds: more is a slip, or an attack."""
MOST_POINTS = 10_000
"""Points of a grid along one hyperparameter."""
MOST_CHOICES = 1000
"""Values of a choice; the optimizer is built with each of them before anything runs."""

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Seeds = Annotated[list[Seed], Field(min_length=1, max_length=MOST_TRIALS)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _normal(value: float) -> float:
    """Refuse an end of a range that has no reciprocal: it can be neither drawn nor tuned."""
    if value and not 1e-300 <= abs(value) <= 1e300:
        raise ValueError("must be 0 or between 1e-300 and 1e300")
    return value


End = Annotated[float, AfterValidator(_normal)]


class RangeTable(_Table):
    """``{low = 1e-3, high = 1.0, log = true}``; ``points`` is for the grid sampler."""

    low: End
    high: End
    log: bool = True
    points: Annotated[int, Field(ge=2, le=MOST_POINTS)] | None = None


class ChoiceTable(_Table):
    """``{choice = [0.9, 0.99]}``."""

    choice: Annotated[list[Any], Field(min_length=1, max_length=MOST_CHOICES)]


def _kind(value: Any) -> str:
    """Which of two forms a value is meant to have, so that errors speak of that one alone."""
    if isinstance(value, dict | ChoiceTable) and "choice" in dict(value):
        return "a choice"
    return "a range"


def _breadth(value: Any) -> str:
    return "a table" if isinstance(value, dict) else "a number"


Dimension = Annotated[
    Annotated[RangeTable, Tag("a range")] | Annotated[ChoiceTable, Tag("a choice")],
    Discriminator(_kind),
]


def _schedule(value: Any) -> Any:
    """Refuse a bare word, before both forms are tried in turn and each complains."""
    if isinstance(value, str) and value != "none":
        example = '{ name = "linear_decay" } or { name = "CosineAnnealingLR", T_max = "horizon" }'
        raise ValueError(f"a schedule is a table such as {example}, or none for an algorithm")
    return value


def _schedule_of_all(value: Any) -> Any:
    if value == "none":
        raise ValueError("a study without a schedule leaves the word out")
    return _schedule(value)


Schedule = Annotated[dict[str, Any], BeforeValidator(_schedule_of_all)]
OwnSchedule = Annotated[dict[str, Any] | Literal["none"], BeforeValidator(_schedule)]
Count = Annotated[int, Field(ge=1, lt=2**63)]
CountPerProblem = Annotated[
    Annotated[Count, Tag("a number")] | Annotated[dict[str, Count], Tag("a table")],
    Discriminator(_breadth),
]
FORMS = ("a range", "a choice", "a table", "a number")  # not part of the path in the file


AMERICAN = {"color": "colour", "initialization": "initialisation"}
"""Other spellings of keys, accepted wherever the key is."""


class _Spelled(_Table):
    """A table whose keys may be spelled the American way."""

    @model_validator(mode="before")
    @classmethod
    def _spelling(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        for american, key in AMERICAN.items():
            if key in cls.model_fields and american in values:
                if key in values:
                    raise ValueError(f"{american} and {key} are one key: write one of them")
                values = {key if name == american else name: v for name, v in values.items()}
        return values


class TuningTable(_Table):
    """How hyperparameters are chosen: sampler, trials per problem, seeds, and by which figure."""

    sampler: Sampler = "random"
    budget: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = 8
    seeds: Seeds = Field(default_factory=lambda: [0])
    select: str = "valid_loss"
    epochs: int | None = None


class AlgorithmTable(_Spelled):
    """A(Φ): an optimizer, its search space, schedule and tuning rule.

    ``schedule = "none"`` exempts it from the study's schedule, as an optimizer that anneals by
    itself should be; so do ``autocast = "none"``, ``compile = false``, ``accumulate = 1`` and
    ``together = false``.
    ``tune = "none"`` says that hyperparameters stay at their defaults, which the
    label then says too.
    """

    label: str | None = None
    optimizer: str
    fixed: dict[str, Any] = Field(default_factory=dict)
    space: dict[str, Dimension] | None = None
    sampler: Sampler | None = None
    budget: Annotated[int, Field(ge=1, le=MOST_TRIALS)] | None = None
    tune: Literal["none"] | None = None
    schedule: OwnSchedule | None = None
    clip: dict[str, float] | None = None
    early_stopping: dict[str, Any] | None = None
    pruner: dict[str, Any] | None = None
    initialisation: dict[str, Any] | None = None
    autocast: Literal["bfloat16", "float16", "none"] | None = None
    compile: bool | None = None
    accumulate: Count | None = None
    together: bool | None = None
    colour: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")] | None = None
    epochs: int | None = None


class MonitorTable(_Table):
    """How runs are watched: what is measured, how often, at what cost, which findings are meant."""

    instruments: str | list[str] = "light"
    every: Annotated[int, Field(ge=1)] = 10
    budget: Annotated[float, Field(gt=0, le=1)] = 0.05
    expects: list[str] = Field(default_factory=list)


class GoalTable(_Table):
    """A figure known from elsewhere that the study is to reach: an accuracy as a fraction."""

    problem: str
    value: float
    meaning: Annotated[str, Field(min_length=1)]


class SpeedTable(_Table):
    """``[speed]``, the last table of a file: how much faster than the baselines others are.

    ``parts`` are the horizons, as parts of the whole: 2 is half of it. ``part`` marks the study of
    one of them, in which the baselines have no part but the whole.
    """

    baselines: Annotated[list[str], Field(min_length=1)]
    parts: Annotated[list[Count], Field(min_length=1)]
    part: Count | None = None


def _problem_word(value: Any) -> Any:
    """``{name = "mnist_mlp", train = 5000}`` as ``mnist_mlp@5000``; a string as it is."""
    if not isinstance(value, dict):
        return value
    table = SubsetTable.model_validate(value)
    return f"{table.name}@{table.train}"


class SubsetTable(_Table):
    """``{name = "mnist_mlp", train = 5000}``: a problem with fewer training samples."""

    name: str
    train: Annotated[int, Field(ge=1)]


def _device_word(value: str) -> str:
    if not re.fullmatch(DEVICE, value):
        raise ValueError("expected 'cpu', 'cuda', 'cuda:1', 'xpu' or 'mps'")
    return value


class Declaration(_Spelled):
    """A study as its author wrote it."""

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    question: str
    problems: Annotated[list[Annotated[str, BeforeValidator(_problem_word)]], Field(min_length=1)]
    algorithms: Annotated[list[AlgorithmTable], Field(min_length=1)]
    seeds: Seeds
    epochs: CountPerProblem | None = None
    batch_size: CountPerProblem | None = None
    tuning: TuningTable = Field(default_factory=TuningTable)
    schedule: Schedule | None = None
    initialisation: dict[str, Any] | None = None
    reference: str | None = None
    metric: dict[str, str] | None = None
    goals: list[GoalTable] = Field(default_factory=list)
    equivalence_margin: Annotated[float, Field(gt=0)] | None = None
    level: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    compare: Literal["all", "baseline", "leader"] | None = None
    assumption: Literal["symmetric", "normal"] | None = None
    threads: Annotated[int, Field(ge=1, le=MOST_THREADS)] = 1
    device: Annotated[str, AfterValidator(_device_word)] = "cpu"
    autocast: Literal["bfloat16", "float16"] | None = None
    compile: bool = False
    accumulate: Count = 1
    together: bool = False
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    keep_weights: str | list[Annotated[int, Field(ge=0)]] | None = None
    monitor: MonitorTable | None = None
    speed: SpeedTable | None = None

    def monitoring(self) -> Monitoring | None:
        """How runs are watched, as something that can be hashed."""
        table = self.monitor
        if table is None:
            return None
        names = table.instruments
        return Monitoring(
            names if isinstance(names, str) else tuple(names),
            table.every,
            table.budget,
            tuple(table.expects),
        )

    def kept(self) -> str | tuple[int, ...] | None:
        """Epochs at which reporting runs keep their weights, as something that can be hashed."""
        wanted = self.keep_weights
        return tuple(wanted) if isinstance(wanted, list) else wanted
