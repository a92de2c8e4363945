"""What may stand in ``study.json``, ``ledger.json`` and ``run.json``, checked where they are read.

The files may come from anywhere: another version, a hand, a disk that lies. What passes here has
the types that the rest of the package relies on, so that one bad file is one line and not a
traceback somewhere else.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from optiscope.errors import shorten

__all__ = ["SchemaError", "Table", "check_entries", "check_run", "check_study", "read_json"]

LARGEST_FILE = 512 * 2**20
"""Bytes; a ledger of a hundred thousand entries takes 22 million."""
DEEPEST = 64
"""Lists and tables within each other."""
LARGEST_NUMBER = 10**300
"""Beyond it, an integer is no floating-point number."""


class SchemaError(ValueError):
    """What is wrong with a file, in one line."""


class Table(dict[str, Any]):
    """A table of a file that was read, whose missing keys are an error of that file.

    Raises:
        Exception: what ``refuse`` raises, for a key that is not there.
    """

    def __init__(self, values: Mapping[str, Any], refuse: Callable[[str], NoReturn]) -> None:
        super().__init__(values)
        self._refuse = refuse

    def __missing__(self, key: object) -> Any:
        self._refuse(f"no {shorten(key)} in it")

    def __reduce__(self) -> tuple[Any, ...]:
        """As a plain dict: whoever copies it knows what is in it."""
        return dict, (dict(self),)

    @classmethod
    def of(cls, value: Any, refuse: Callable[[str], NoReturn]) -> Any:
        """``value`` with every dict in it, at any depth, as a table."""
        if isinstance(value, dict):
            return cls({key: cls.of(item, refuse) for key, item in value.items()}, refuse)
        if isinstance(value, list):
            return [cls.of(item, refuse) for item in value]
        return value


def read_json(path: Path) -> Any:
    """Plain values in a JSON file.

    Raises:
        SchemaError: not JSON, not UTF-8, larger than `LARGEST_FILE`, nested deeper than `DEEPEST`,
            with a number that is not finite or beyond `LARGEST_NUMBER`, or with text that is no
            Unicode.
        OSError: it cannot be read.
    """
    if not os.path.isfile(path) and os.path.exists(path) and not os.path.isdir(path):
        raise SchemaError("not a regular file")
    with path.open("rb") as stream:
        content = stream.read(LARGEST_FILE + 1)
    return parse_json(content)


def parse_json(content: bytes) -> Any:
    """As `read_json`, of the bytes of a file."""
    if len(content) > LARGEST_FILE:
        raise SchemaError(f"larger than {LARGEST_FILE:,} bytes")
    try:
        values = json.loads(content.decode("utf-8"), parse_constant=_no_constant)
        _check_plain(values, 0)
    except RecursionError:
        raise SchemaError(f"nested deeper than {DEEPEST} levels") from None
    except UnicodeDecodeError as error:
        raise SchemaError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise SchemaError(f"not JSON: {error.msg}, line {error.lineno}") from None
    except SchemaError:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise SchemaError(f"not JSON: {shorten(str(error))}") from None
    return values


def check_study(values: Any) -> dict[str, Any]:
    """The declaration of a study, as it is; raises SchemaError."""
    study = _validated(_STUDY, values)
    labels = [algorithm.label for algorithm in study.algorithms]
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        raise SchemaError(f"two algorithms are labelled {shorten(twice[0])}")
    twice = [problem for problem, count in Counter(study.problems).items() if count > 1]
    if twice:
        raise SchemaError(f"the problem {shorten(twice[0])} stands twice")
    if study.reference is not None and study.reference not in labels:
        raise SchemaError(f"no algorithm is labelled {shorten(study.reference)}, the reference")
    return dict(values)


def check_entries(
    values: Any, spaces: Mapping[str, Mapping[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """The entries of a ledger, as they are.

    Args:
        values: the entries.
        spaces: search spaces by label, where they are known: what lies in a range is a number.

    Raises:
        SchemaError: an entry has another form.
    """
    _validated(_ENTRIES, values)
    for place, entry in enumerate(values):
        for name, dimension in (spaces or {}).get(entry["algorithm"], {}).items():
            value = entry["hyperparameters"].get(name, 0)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if "low" in dimension and not number:
                raise SchemaError(
                    f"{place}.hyperparameters.{shorten(name)[1:-1]}: expected a number, "
                    f"got {shorten(value)}"
                )
    return list(values)


def check_run(values: Any) -> dict[str, Any]:
    """The content of a ``run.json`` without its digests, as it is; raises SchemaError."""
    _validated(_RUN, values)
    return dict(values)


class _Model(BaseModel):
    """A table: unknown keys are those of another version."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Hash = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{1,64}$")]
Values = dict[str, Any]
Rule = dict[str, Any] | None
Autocast = Literal["bfloat16", "float16"] | None
Word = Literal["nan", "inf", "-inf"]
Scalar = float | Word


def _normal(value: float) -> float:
    if value and not 1e-300 <= abs(value) <= 1e300:
        raise ValueError("the end of a range must be 0 or between 1e-300 and 1e300")
    return value


End = Annotated[float, AfterValidator(_normal)]
"""An end of a range: what has a reciprocal, so that scales can be drawn."""


class _Range(_Model):
    low: End
    high: End
    log: bool | None = None

    @model_validator(mode="after")
    def _ordered(self) -> _Range:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("a range needs low < high, a logarithmic one low > 0")
        return self

    points: Annotated[int, Field(ge=1)] | None = None


class _Choice(_Model):
    choice: list[Any]


class _Algorithm(_Model):
    label: str
    optimizer: str = ""
    fixed: Values = Field(default_factory=dict)
    space: dict[str, _Choice | _Range] = Field(default_factory=dict)
    sampler: str = ""
    budget: Count = 0
    schedule: Rule = None
    clip: dict[str, float] | None = None
    early_stopping: Rule = None
    pruner: Rule = None
    initialisation: Rule = None
    colour: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")] | None = None
    tune: Literal["none"] | None = None
    autocast: Autocast = None
    compile: bool | None = None
    accumulate: Count | None = None
    together: bool | None = None


class _Tuning(_Model):
    seeds: list[Seed] = Field(default_factory=list)
    select: str = ""
    proposals: int = 1
    epochs: int | None = None


class _Goal(_Model):
    problem: str
    value: float
    meaning: str


class _Stages(_Model):
    stages: list[Annotated[int, Field(ge=1)]]


class _SpeedQuestion(_Model):
    baselines: Annotated[list[str], Field(min_length=1)]
    parts: Annotated[list[Count], Field(min_length=1)]
    part: Count | None = None


class _Study(_Model):
    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    question: str
    problems: list[str]
    algorithms: list[_Algorithm]
    tuning: _Tuning
    seeds: list[Seed]
    epochs: dict[str, Count]
    metric: dict[str, str]
    schema_: int = Field(default=1, alias="schema")
    paths: dict[str, str] = Field(default_factory=dict)
    problem_versions: dict[str, int] = Field(default_factory=dict)
    batch_sizes: dict[str, Count] = Field(default_factory=dict)
    reference: str | None = None
    goals: list[_Goal] = Field(default_factory=list)
    equivalence_margin: float | dict[str, float] | None = None
    level: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    threads: int | None = None
    compare: Literal["all", "baseline", "leader"] | None = None
    assumption: Literal["symmetric", "normal"] | None = None
    device: str | None = None
    max_seconds: float | None = None
    until_decided: _Stages | None = None
    speed: _SpeedQuestion | None = None
    looked_at: list[Count] = Field(default_factory=list)
    version: str | None = None
    source: str | None = None


class _Entry(_Strict):
    trial_hash: Hash
    algorithm: str
    problem: str
    role: Literal["tuning", "reporting"]
    index: int
    hyperparameters: Values
    seed: Seed


class _Trial(_Model):
    problem: str
    problem_version: int
    optimizer: str
    hyperparameters: Values
    seed: int
    epochs: Count
    batch_size: Count
    schedule: Rule = None
    clip: dict[str, float] | None = None
    early_stopping: Rule = None
    initialisation: Rule = None
    pruning: Rule = None
    max_seconds: float | None = None
    device: str = "cpu"
    threads: int = 1
    optimizer_version: int | None = None
    optimizer_code: str | None = None
    problem_code: str | None = None
    autocast: Autocast = None
    compile: bool | None = None
    accumulate: Count | None = None
    together: bool | None = None
    schema_: int = Field(default=1, alias="schema")


class _Seconds(_Strict):
    wall: float
    cpu: float


class _Run(_Model):
    trial: _Trial
    status: Literal["finished", "diverged", "stopped", "timed_out", "crashed", "interrupted"]
    reason: str
    steps: Annotated[int, Field(ge=-1, lt=2**63)]  # -1 in imported runs that know epochs only
    started: str
    seconds: dict[str, _Seconds]
    counts: dict[str, Count]
    peak_memory_bytes: Count | None
    final: dict[str, Scalar]
    best: dict[str, Scalar]
    environment: Values
    imported: str | None = None


_STUDY = TypeAdapter(_Study)
_ENTRIES = TypeAdapter(list[_Entry])
_RUN = TypeAdapter(_Run)


def _validated(adapter: TypeAdapter[Any], values: Any) -> Any:
    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        message = " ".join(first["msg"].split())
        where = f"{shorten(place)[1:-1]}: " if place else ""
        got = "" if first["type"] == "missing" else f", got {shorten(first['input'])}"
        raise SchemaError(f"{where}{message[0].lower()}{message[1:]}{got}") from None


def _check_plain(value: Any, depth: int) -> None:
    """Refuse what JSON can write and the rest of the package cannot bear."""
    if depth > DEEPEST:
        raise SchemaError(f"nested deeper than {DEEPEST} levels")
    if isinstance(value, dict):
        for key, item in value.items():
            if not (type(item) is str and item.isascii()):  # most values of a record
                _check_plain(item, depth + 1)
            if not key.isascii():
                _check_plain(key, depth)
    elif isinstance(value, list):
        for item in value:
            _check_plain(item, depth + 1)
    elif isinstance(value, str):
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise SchemaError(f"text that is no Unicode, {shorten(value)}")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise SchemaError("a number that is not finite")
    elif isinstance(value, int) and abs(value) > LARGEST_NUMBER:
        raise SchemaError("an integer of more than 300 digits")


def _no_constant(word: str) -> NoReturn:
    raise SchemaError(f"{word} is no number of JSON")
