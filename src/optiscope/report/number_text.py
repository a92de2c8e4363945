"""Numbers as people read them: percent, significant digits, powers of ten, bytes, seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

__all__ = [
    "axis_name",
    "metric_text",
    "plain_text",
    "point_text",
    "rate_text",
    "seconds_text",
    "significant",
    "space_text",
    "spread_text",
]

_SUPERSCRIPT: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_NONE: Final = "–"


def significant(value: float, digits: int = 3) -> str:
    """A number with that many significant digits: ``0.0312``, ``1.2e-05`` as ``1.2·10⁻⁵``."""
    if not math.isfinite(value):
        return _NONE if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # after rounding
    if -4 <= exponent < 6:
        text = f"{value:.{max(0, digits - 1 - exponent)}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa = f"{value / 10**exponent:.{digits - 1}f}".rstrip("0").rstrip(".")
    power = f"10{str(exponent).translate(_SUPERSCRIPT)}"
    return power if mantissa == "1" else f"{mantissa}·{power}"


def rate_text(value: float) -> str:
    """A tick of a logarithmic axis: ``0.01``, ``1``, ``10⁻⁴``."""
    return significant(value, 2)


def metric_text(value: float, metric: str) -> str:
    """A value of a metric: accuracies in percent with two decimals, losses with four digits."""
    if not math.isfinite(value):
        return _NONE if math.isnan(value) else "∞"
    if metric.endswith("accuracy"):
        return f"{100 * value:.2f} %"
    text = f"{value:.4g}"
    if "e" in text or 0 < abs(value) < 1e-3:
        return significant(value, 4)
    return f"{value:.4f}" if abs(value) < 10 else text


def spread_text(value: float, metric: str) -> str:
    """A difference or deviation of a metric: accuracies in points, losses with two digits."""
    if not math.isfinite(value):
        return _NONE
    return f"{100 * value:.2f}" if metric.endswith("accuracy") else significant(value, 2)


def seconds_text(seconds: float) -> str:
    """A duration with its unit: ``850 µs``, ``12.3 ms``, ``4.2 s``, ``3 min 20 s``, ``2 h``."""
    if not math.isfinite(seconds):
        return _NONE
    for unit, factor, end in (("µs", 1e6, 1000), ("ms", 1e3, 1000), ("s", 1, 60)):
        text = f"{factor * seconds:.3g}"
        if float(text) < end:
            return f"{text} {unit}"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def point_text(hyperparameters: Mapping[str, Any]) -> str:
    """Hyperparameters in one line: ``lr 0.0312, momentum 0.9``; a dash where there are none."""
    parts = []
    for name, value in hyperparameters.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        parts.append(f"{name} {significant(float(value)) if number else value}")
    return ", ".join(parts) or _NONE


def axis_name(split: str, metric: str, *, log: bool = False) -> str:
    """Name and unit of a metric for an axis."""
    words = {"train": "training", "valid": "validation", "test": "test"}
    units = {"accuracy": "accuracy (%)", "loss": "loss (per sample)"}
    name = f"{words.get(split, split)} {units.get(metric, metric)}"
    return name.replace(")", ", log)") if log else name


def space_text(dimension: Mapping[str, Any]) -> str:
    """A dimension of Φ: ``10⁻⁵ to 0.1 (log)`` or ``one of 0, 0.9``."""
    if "choice" in dimension:
        return "one of " + ", ".join(plain_text(value) for value in dimension["choice"])
    if "low" not in dimension:
        return "–"
    scale = " (log)" if dimension.get("log") else ""
    return f"{significant(dimension['low'])} to {significant(dimension['high'])}{scale}"


def plain_text(value: Any) -> str:
    """Any value of a record in words, nested ones with commas."""
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {plain_text(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain_text(v) for v in value)
    return str(value)
