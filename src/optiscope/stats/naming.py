"""Names that say what was compared: A(Φ, budget), never the optimizer alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "DEFAULTS",
    "algorithm_name",
    "counted",
    "gradient_words",
    "short_number",
    "stated_label",
    "untuned_words",
]


DEFAULTS = "(default hyperparameters)"
"""What the label of an algorithm ends in that is declared ``tune = "none"``."""


def stated_label(label: str, tune: str | None) -> str:
    """A label that says so where its algorithm is declared to run with default hyperparameters."""
    stated = tune is None or DEFAULTS.strip("()") in label
    return label if stated else f"{label} {DEFAULTS}"


def short_number(value: Any) -> str:
    """A number with up to four digits and no idle zeros: ``1e-5``, ``0.9``, ``128``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    text = f"{value:.4g}"
    mantissa, letter, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}" if letter else text


def counted(number: int, noun: str) -> str:
    """A number with its noun: ``1 epoch``, ``80 epochs``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def algorithm_name(entry: Mapping[str, Any], *, tried: int | None = None) -> str:
    """A(Φ, budget) in words: search space, fixed values, what shapes training, tuning budget.

    Args:
        entry: one of the ``algorithms`` of a study's resolved declaration.
        tried: number of different settings among its proposals, where it is known; named where it
            is below the budget.

    Returns:
        For example ``Adam(lr log[1e-5, 0.1], weight_decay=5e-4; cosine schedule; budget 8 by
        random)``; entries that differ in Φ, schedule or budget have different names. The
        optimizer is named too where the label does not already do so.
    """
    space, fixed = entry.get("space") or {}, entry.get("fixed") or {}
    inside = [f"{name} {_range(values)}" for name, values in space.items()]
    inside += [f"{name}={short_number(value)}" for name, value in fixed.items()]
    parts = [", ".join(inside)] if inside else []
    parts += [f"{_rule(entry[key])} {word}" for key, word in _SHAPERS.items() if entry.get(key)]
    parts += gradient_words(entry)
    parts.append(_budget(entry, tried) if space else untuned_words(entry))
    label, optimizer = str(entry["label"]), str(entry["optimizer"])
    same = label.casefold() == optimizer.rpartition(":")[2].casefold()
    head = label if same else f"{label} = {optimizer}"
    return f"{head}({'; '.join(parts)})"


def untuned_words(entry: Mapping[str, Any]) -> str:
    """What to say of hyperparameters that nothing tuned: defaults, unless some were chosen."""
    chosen = entry.get("fixed") and entry.get("tune") != "none"
    return "untuned" if chosen else "default hyperparameters"


def gradient_words(entry: Mapping[str, Any]) -> list[str]:
    """How gradients are computed, where that is declared: ``["bfloat16 autocast", ...]``."""
    words = []
    if entry.get("autocast"):
        words.append(f"{entry['autocast']} autocast")
    if entry.get("compile"):
        words.append("compiled model")
    if entry.get("accumulate"):
        words.append(f"gradients accumulated over {entry['accumulate']} parts of a batch")
    if entry.get("together"):
        words.append("in one batch with other trials")
    return words


def _budget(entry: Mapping[str, Any], tried: int | None) -> str:
    text = f"budget {entry['budget']} by {entry['sampler']}"
    fewer = tried is not None and 0 < tried < int(entry["budget"])
    return f"{text}, {tried} different" if fewer else text


_SHAPERS = {
    "schedule": "schedule",
    "clip": "clipping",
    "early_stopping": "early stopping",
    "initialisation": "initialisation",
    "pruner": "pruner",
}


def _range(values: Mapping[str, Any]) -> str:
    if "choice" in values:
        return "{" + ", ".join(short_number(v) for v in values["choice"]) + "}"
    scale = "log" if values.get("log") else ""
    return f"{scale}[{short_number(values['low'])}, {short_number(values['high'])}]"


def _rule(rule: Any) -> str:
    """``{"name": "cosine", "warmup": 5}`` as ``cosine warmup=5``."""
    if not isinstance(rule, Mapping):
        return str(rule)
    named = [str(rule["name"])] if "name" in rule else []
    return " ".join(named + [f"{k}={short_number(v)}" for k, v in rule.items() if k != "name"])
