"""Settings as flat names and plain values, as tracking programs take them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["finite", "flat"]


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Nested settings by dotted names; None and empty tables are left out, lists become JSON."""
    values: dict[str, bool | int | float | str] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            values |= flat(value, f"{name}.")
        elif isinstance(value, bool | int | float | str):
            values[name] = value
        elif value is not None:
            values[name] = json.dumps(value, default=str)
    return values


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """Values that are numbers and finite."""
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}
