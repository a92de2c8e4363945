"""From the TOML file of a study to what it declares, and every fault of its form in words."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Iterator, Set
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import (
    BaseModel,
    ValidationError,
)
from pydantic_core import ErrorDetails

from optiscope.errors import shorten
from optiscope.hints import did_you_mean, nearest
from optiscope.study.faults import Fault, StudyError
from optiscope.study.tables import (
    FORMS,
    AlgorithmTable,
    ChoiceTable,
    Declaration,
    MonitorTable,
    TuningTable,
)
from optiscope.study.toml_lines import Path as KeyPath
from optiscope.study.toml_lines import line_of

__all__ = [
    "AlgorithmTable",
    "Declaration",
    "MonitorTable",
    "Partial",
    "StudyError",
    "TuningTable",
    "parse_declaration",
    "read_declaration",
    "shipped_studies",
]

DEEPEST = 32
"""Lists and tables within each other."""
LARGEST_FILE = 2**22
"""Bytes of a study's file."""
MOST_REPAIRS = 4
"""Times that what is wrong is left out and the rest is read again."""


def shipped_studies() -> dict[str, str]:
    """Names of the studies to start from that come with the package, with their questions."""
    return {name: str(tomllib.loads(text)["question"]) for name, text in _texts_in("shipped")}


def _texts_in(folder: str) -> Iterator[tuple[str, str]]:
    """Names and texts of the studies in a folder of the package."""
    place = resources.files("optiscope.study").joinpath(*folder.split("/"))
    for entry in sorted(place.iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".toml"):
            yield entry.name.removesuffix(".toml"), entry.read_text(encoding="utf-8")


class Partial(NamedTuple):
    """What can be read of a study's file, and what is wrong with the rest.

    Attributes:
        declaration: of what is right, so that it can be checked further; None where what is wrong
            must be there.
        faults: of the form of the file: unknown words, values of another kind, what is missing.
        doubtful: numbers of the algorithms of which something was left out.
    """

    declaration: Declaration | None
    faults: tuple[Fault, ...]
    doubtful: frozenset[int]


def read_declaration(source: str | Path) -> tuple[Partial, str, str]:
    """What a study's file declares, its text, and the word for its origin in messages.

    Args:
        source: a path to a TOML file, or the name of a shipped study.

    Raises:
        StudyError: no such file or study, or not TOML.
    """
    text, origin = _text_of(source)
    return parse_declaration(text, origin), text, origin


def parse_declaration(text: str, origin: str) -> Partial:
    """What a TOML text declares; raises StudyError as :func:`read_declaration`."""
    values = _parsed(text, origin)
    odd = list(_odd_places(values))
    faults = [Fault(line_of(text, path), f"{_name(path)} {what}") for path, what in odd]
    left_out = {_setting(path) for path, _ in odd}
    for _ in range(MOST_REPAIRS):
        for setting in left_out:
            _leave_out(values, setting)
        try:
            declared = Declaration.model_validate(values)
        except ValidationError as error:
            found = _explain(error, text, left_out)
            if not found:
                break
            faults += [fault for fault in found.values() if fault is not None]
            left_out |= {_setting(path) for path in found}
        else:
            numbers = [path[1] for path in left_out if path[0] == "algorithms" and path[1:]]
            doubtful = frozenset(n for n in numbers if isinstance(n, int))
            return Partial(declared, tuple(faults), doubtful)
    return Partial(None, tuple(faults), frozenset())


def _parsed(text: str, origin: str) -> dict[str, Any]:
    """Plain values of a TOML text; raises StudyError."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        where = message.rfind("(at ")  # the place is worth more than what is quoted before it
        place = message[where:] if where >= 0 else ""
        said = message[: where if where >= 0 else None].strip()
        quoted = said if len(said) <= 120 else f"{said[:60]} ... {said[-40:]}"
        raise StudyError(f"{origin}: not valid TOML: {quoted} {place}") from None
    except RecursionError:
        raise StudyError(f"{origin}: not valid TOML: nested too deeply") from None
    except ValueError:
        raise StudyError(f"{origin}: not valid TOML: an integer of thousands of digits") from None
    return values


def _text_of(source: str | Path) -> tuple[str, str]:
    path = Path(source)
    if os.path.isfile(path):
        try:
            with path.open("rb") as stream:
                content = stream.read(LARGEST_FILE + 1)
            if len(content) > LARGEST_FILE:
                raise StudyError(f"{path}: expected a study, got more than {LARGEST_FILE:,} bytes")
            return content.decode("utf-8-sig"), path.name
        except UnicodeDecodeError as error:
            raise StudyError(f"{path}: expected UTF-8, got another text or none: {error}") from None
        except OSError as error:
            raise StudyError(f"cannot read {path}: {error.strerror or error}") from None
    shipped = dict(_texts_in("shipped"))
    known = shipped | dict(_texts_in("shipped/published"))  # those of `optiscope reproduce`
    if str(source) in known:
        return known[str(source)], f"{source}.toml"
    names = f"shipped studies: {', '.join(shipped)}"
    if path.suffix == ".toml" or path.parent != Path():
        near = nearest(path.name, [entry.name for entry in _files_beside(path)])
        hint = f"did you mean {path.with_name(near[0])}?" if near else names
        raise StudyError(f"no such file: {shorten(str(source))}; {hint}")
    hint = did_you_mean(source, known, otherwise=names)
    raise StudyError(f"expected a TOML file or a shipped study, got {shorten(str(source))}: {hint}")


def _files_beside(path: Path) -> list[Path]:
    """TOML files in the folder where ``path`` should be."""
    try:
        return sorted(path.parent.glob("*.toml"))
    except OSError:
        return []


def _odd_places(values: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Paths of what TOML knows and no setting of a study may be, with what is wrong about it.

    These are nan, inf, integers of any length, and lists within lists without end.
    """
    odd = ""
    if isinstance(values, float) and not math.isfinite(values):
        odd = f"must be a finite number, got {values}"
    elif isinstance(values, int) and abs(values) >= 2**63:
        odd = f"must be an integer of 64 bits, got one of {len(str(abs(values)))} digits"
    elif len(path) > DEEPEST:
        odd = "is nested too deeply"
    if odd:
        yield path, odd
    elif isinstance(values, dict | list):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from _odd_places(value, (*path, key))


def _name(path: KeyPath) -> str:
    return next((shorten(p)[1:-1] for p in reversed(path) if isinstance(p, str)), "a value")


def _setting(path: KeyPath) -> KeyPath:
    """The setting that a path leads into: of the study, or of one of its algorithms."""
    return path[:3] if path[:1] == ("algorithms",) else path[:1]


def _leave_out(values: Any, setting: KeyPath) -> None:
    """Take a setting out of a study, whole, so that no list shifts."""
    *above, name = setting
    inside: Any = values
    for step in above:  # ("algorithms", 0): pydantic has been there
        inside = inside[step]
    if isinstance(inside, dict):
        inside.pop(name, None)


def _explain(
    error: ValidationError, text: str, left_out: Set[KeyPath]
) -> dict[KeyPath, Fault | None]:
    """Each thing that is wrong by its path, in one line.

    What is missing because its word is misspelt is None: the misspelt word is told. And what is
    missing because it was left out is not there.
    """
    errors = error.errors(include_url=False)
    unknown = [tuple(e["loc"]) for e in errors if e["type"] == "extra_forbidden"]
    found: dict[KeyPath, Fault | None] = {}
    for one in errors:
        path = tuple(p for p in one["loc"] if p not in FORMS)
        if path in found:  # two forms of one setting, each with its complaint
            continue
        missing = one["type"] == "missing"
        if missing and _setting(path) in left_out:
            continue
        misspelt = [str(loc[-1]) for loc in unknown if loc[:-1] == tuple(one["loc"])[:-1]]
        told_by_another = missing and any(nearest(word, [str(path[-1])]) for word in misspelt)
        fault = None if told_by_another else Fault(line_of(text, path), _told(one, path))
        found[path] = fault
    return found


def _told(one: ErrorDetails, path: KeyPath) -> str:
    """What is wrong at a path, in one line."""
    name = shorten(".".join(str(p) for p in path))[1:-1]
    kind = one["type"]
    if kind == "extra_forbidden":
        words = list(ChoiceTable.model_fields) if "a choice" in one["loc"] else _words_at(path)
        return f"unknown word {shorten(path[-1])}; {did_you_mean(path[-1], words)}"
    if kind == "missing":
        return f"{name} is missing"
    if kind == "string_pattern_mismatch" and path == ("name",):
        expected = "a name of letters, digits, dots, dashes and underscores, without blanks"
        return f"name: expected {expected}, got {shorten(one['input'])}"
    message = f"{one['msg'][0].lower()}{one['msg'][1:]}, got {shorten(one['input'])}"
    if kind == "literal_error":
        allowed = str(one.get("ctx", {}).get("expected")).split("'")[1::2]
        hint = did_you_mean(one["input"], allowed, otherwise="")
        message += f"; {hint}" if hint else ""
    return f"{name}: {' '.join(message.split())}"


def _words_at(path: tuple[int | str, ...]) -> list[str]:
    """Words allowed where the last word of ``path`` stands."""
    model: type[BaseModel] = Declaration
    for step in path[:-1]:
        if isinstance(step, int) or step not in model.model_fields:
            continue
        inner = _model_in(model.model_fields[step].annotation)
        if inner is not None:
            model = inner
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) is None:
        return None
    return next((m for a in get_args(annotation) if (m := _model_in(a)) is not None), None)
