"""Questions about a study in words: ``adam better than sgd on fmnist_2c2d at 80 epochs``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from optiscope.errors import OptiscopeError, shorten
from optiscope.hints import did_you_mean
from optiscope.stats.comparison import Verdict

__all__ = ["TIME", "Question", "QuestionError", "parse_question"]

FORM = (
    "'A better than B' (or 'A beats B', 'A > B'), 'A worse than B' or 'A equals B within 0.005', "
    "then 'on PROBLEM', 'at N epochs', 'in accuracy' or 'in loss' where needed"
)

_VERBS = {
    "better than": Verdict.BETTER,
    "beats": Verdict.BETTER,
    "vs.": Verdict.BETTER,
    "vs": Verdict.BETTER,
    "versus": Verdict.BETTER,
    ">": Verdict.BETTER,
    "<": Verdict.WORSE,
    "worse than": Verdict.WORSE,
    "equals": Verdict.EQUIVALENT,
    "equal to": Verdict.EQUIVALENT,
    "equivalent to": Verdict.EQUIVALENT,
}
_TIME_VERBS = {"faster than": Verdict.BETTER, "slower than": Verdict.WORSE}
TIME = "training time"
"""Metric of a question about time."""
_VERB_WORDS = "|".join(map(re.escape, [*_VERBS, *_TIME_VERBS]))
_VERB = re.compile(rf"\s+(?:is\s+)?({_VERB_WORDS})\s+", re.IGNORECASE)
_KEYWORDS = ("within", "on", "at", "in")
_CLAUSE = re.compile(rf"\s+(?=(?:{'|'.join(_KEYWORDS)}|after)\s)", re.IGNORECASE)


class QuestionError(OptiscopeError, ValueError):
    """A question that cannot be read, or names what the study does not hold, in one line."""


@dataclass(frozen=True)
class Question:
    """A verdict about a, compared with b, that somebody would like to claim.

    Attributes:
        a: label of the first algorithm, as the study spells it.
        b: label of the second.
        verdict: better, worse or equivalent.
        problem: name of the problem, as the study spells it.
        epochs: horizon, or None for the study's own.
        metric: such as ``accuracy`` or ``loss``, or None for the study's own; :data:`TIME` of a
            question about time.
        margin: of equivalence, or None for the study's own.
    """

    a: str
    b: str
    verdict: Verdict
    problem: str
    epochs: int | None = None
    metric: str | None = None
    margin: float | None = None


def parse_question(text: str, *, labels: Sequence[str], problems: Sequence[str]) -> Question:
    """The question in ``text``, with names matched to those of the study.

    Args:
        text: the question; upper and lower case do not matter.
        labels: of the study's algorithms.
        problems: of the study; the only one need not be named.

    Raises:
        QuestionError: the form is not understood, or a name is unknown (with the nearest one).
    """
    words = _plain(text)
    first, verb, second, rest = _parts(words, labels)
    clauses = [c for c in _CLAUSE.split(rest.rstrip(" .?")) if c]
    values: dict[str, str] = {}
    for clause in clauses:
        keyword, _, value = clause.partition(" ")
        keyword = "at" if keyword.lower() == "after" else keyword.lower()
        if keyword not in _KEYWORDS:
            raise QuestionError(f"cannot read {shorten(clause.strip())}: expected {FORM}")
        if keyword in values:
            raise QuestionError(f"{keyword!r} stands twice in {text!r}: expected {FORM}")
        values[keyword] = value
    a, b = (_match(name, labels, "algorithm") for name in (first, second))
    if a == b:
        raise QuestionError(f"{a!r} stands on both sides: name two different algorithms")
    if "on" not in values and len(problems) > 1:
        raise QuestionError(f"the study has several problems: add 'on {problems[0]}' or another")
    metric = _metric(values["in"]) if "in" in values else None
    if verb.lower() in _TIME_VERBS:
        metric = TIME
    return Question(
        a=a,
        b=b,
        verdict={**_VERBS, **_TIME_VERBS}[verb.lower()],
        problem=_problem(values["on"], problems) if "on" in values else problems[0],
        epochs=_epochs(values["at"]) if "at" in values else None,
        metric=metric,
        margin=_margin(values["within"]) if "within" in values else None,
    )


def _parts(words: str, labels: Sequence[str]) -> tuple[str, str, str, str]:
    """First name, verb, second name and the clauses behind it.

    A label may hold a verb itself, so that of several verbs the one counts that stands between two
    labels of the study.

    Raises:
        QuestionError: no verb, or several and none, or more than one, between two labels.
    """
    found = list(_VERB.finditer(words))
    readings = []
    for match in found:
        second, rest = _label_first(words[match.end() :], labels)
        known = _is_label(words[: match.start()], labels) and _is_label(second, labels)
        if known and (not rest.strip(" .?") or _CLAUSE.match(rest)):
            readings.append((words[: match.start()], match[1], second, rest))
    if len(readings) == 1:
        return readings[0]
    if len(readings) > 1:
        ways = " or ".join(f"{a!r} {verb} {b!r}" for a, verb, b, _ in readings)
        raise QuestionError(f"{shorten(words)} can be read as {ways}: rename one of the labels")
    if len(found) != 1:
        raise QuestionError(f"expected {FORM}; got {shorten(words)}")
    second, rest = _label_first(words[found[0].end() :], labels)
    return words[: found[0].start()], found[0][1], second, rest


def _is_label(name: str, labels: Sequence[str]) -> bool:
    return name.casefold() in (_plain(label).casefold() for label in labels)


def _plain(label: str) -> str:
    """A label as questions write it, with single blanks."""
    return " ".join(label.split())


def _label_first(text: str, labels: Sequence[str]) -> tuple[str, str]:
    """The longest label that a text begins with, else all up to a clause; and the rest."""
    for label in sorted(map(_plain, labels), key=len, reverse=True):
        after = text[len(label) :]
        if text.casefold().startswith(label.casefold()) and (
            not after.strip(" .?") or after[0] == " "
        ):
            return text[: len(label)], after
    name = _CLAUSE.split(text)[0]
    return name.rstrip(" .?"), text[len(name) :]


def _problem(name: str, known: Sequence[str]) -> str:
    """A problem of the study by its name or, as study files write it, by its import path."""
    _, colon, own = name.rpartition(":")
    return _match(own if colon and name not in known else name, known, "problem")


def _match(name: str, known: Sequence[str], kind: str) -> str:
    if name in known:
        return name
    wanted = {name.casefold(), f"{name} (default hyperparameters)".casefold()}
    same = [k for k in known if _plain(k).casefold() in wanted]
    if len(same) == 1:
        return same[0]
    if same:
        raise QuestionError(f"{name!r} may be {' or '.join(same)}: mind upper and lower case")
    hint = did_you_mean(name, known, otherwise=f"this study has {', '.join(known)}")
    raise QuestionError(f"unknown {kind} {name!r}: {hint}")


def _epochs(text: str) -> int:
    found = re.fullmatch(r"(\d{1,15})(?: epochs?)?", text, re.IGNORECASE)
    if not found or int(found.group(1)) < 1:
        raise QuestionError(f"expected a horizon such as 'at 80 epochs', got 'at {text}'")
    return int(found.group(1))


def _metric(text: str) -> str:
    name = text.lower().removeprefix("test ").removeprefix("test_")
    if not re.fullmatch(r"\w+", name):
        raise QuestionError(f"expected 'in accuracy' or 'in loss', got 'in {text}'")
    return name


def _margin(text: str) -> float:
    found = re.fullmatch(r"(\d*\.?\d+(?:e[+-]?\d+)?)\s*(%?)", text, re.IGNORECASE)
    value = float(found.group(1)) / (100 if found.group(2) else 1) if found else 0.0
    if not 0 < value < math.inf:
        raise QuestionError(f"expected a margin such as 'within 0.005', got 'within {text}'")
    return value
