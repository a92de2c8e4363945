"""The study that would answer a refused claim, as the text of a TOML file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["study_toml"]

_BARE = re.compile(r"^[A-Za-z0-9_-]+$")
_OF_ALGORITHM = (
    "label", "optimizer", "tune", "fixed", "space", "schedule", "clip", "early_stopping",
    "initialisation", "pruner", "colour", "autocast", "compile", "accumulate",
    "together",
)  # fmt: skip


def study_toml(
    declaration: Mapping[str, Any],
    *,
    name: str,
    question: str,
    problem: str,
    labels: Sequence[str],
    epochs: int | None = None,
    budget: int | None = None,
    seeds: Sequence[int] | None = None,
    metric: str | None = None,
    compare: str | None = None,
) -> str:
    """A study of some algorithms on one problem, like a declared one but for what is given.

    Selection and early stopping by a figure of the test set become the same by the validation set.

    Args:
        declaration: the resolved declaration to start from.
        name: of the new study.
        question: that it asks.
        problem: the only one it keeps.
        labels: of the algorithms it keeps.
        epochs: horizon instead of the declared one.
        budget: for every tuned algorithm instead of its own.
        seeds: reporting seeds instead of the declared ones.
        metric: reported metric instead of the declared one.
        compare: which comparisons it makes, instead of what was declared.
    """
    tuning = declaration["tuning"]
    select = _of_validation(str(tuning["select"]))
    tables = [a for a in declaration["algorithms"] if a["label"] in labels]
    reference = declaration.get("reference")
    top: dict[str, Any] = {
        "name": re.sub(r"[^\w.-]+", "-", name),
        "question": question,
        "problems": [declaration.get("paths", {}).get(problem, problem)],
        "seeds": list(declaration["seeds"] if seeds is None else seeds),
        "epochs": declaration["epochs"][problem] if epochs is None else epochs,
        "batch_size": declaration["batch_sizes"][problem],
        "reference": reference if reference in labels else labels[0],
        "metric": {problem: metric or declaration["metric"][problem]},
        "equivalence_margin": _margin(declaration.get("equivalence_margin"), problem),
        "level": declaration["level"],
        "compare": compare or declaration.get("compare"),
        "assumption": declaration.get("assumption"),
    }
    top |= {key: declaration.get(key) for key in ("threads", "device", "max_seconds")}
    lines = _lines(top)
    lines += ["", "[tuning]", *_lines({"seeds": tuning["seeds"], "select": select})]
    for table in tables:
        kept = {key: table.get(key) for key in _OF_ALGORITHM} | _tuning(table, budget)
        if stopping := kept["early_stopping"]:
            kept["early_stopping"] = {k: _of_validation(v) for k, v in stopping.items()}
        kept["fixed"] = kept["fixed"] or None
        lines += ["", "[[algorithms]]", *_lines(kept)]
    return "\n".join(lines) + "\n"


def _of_validation(figure: Any) -> Any:
    seen = isinstance(figure, str) and figure.startswith("test_")
    return figure.replace("test_", "valid_", 1) if seen else figure


def _tuning(table: Mapping[str, Any], budget: int | None) -> dict[str, Any]:
    """Space, sampler and budget; nothing for an untuned algorithm, which may state none."""
    space = table.get("space")
    if not space:
        return {"space": None}
    # That a range holds integers follows from the optimizer.
    space = {n: {k: v for k, v in d.items() if k != "integer"} for n, d in space.items()}
    sizes = [len(d["choice"]) for d in space.values() if "choice" in d]
    if len(sizes) == len(space) and math.prod(sizes) == budget:
        return {"space": space, "sampler": "grid", "budget": budget}  # every setting once
    if budget in (None, table["budget"]) or table["sampler"] != "grid":
        return {"space": space, "sampler": table["sampler"], "budget": budget or table["budget"]}
    # A grid has as many trials as points: any other number takes fewer words and another sampler.
    free = {name: {k: v for k, v in d.items() if k != "points"} for name, d in space.items()}
    line = len(free) == 1 and "choice" not in next(iter(free.values()))
    return {"space": free, "sampler": "grid" if line else "qmc", "budget": budget}


def _margin(margin: Any, problem: str) -> Any:
    return margin.get(problem) if isinstance(margin, Mapping) else margin


def _lines(values: Mapping[str, Any]) -> list[str]:
    return [f"{_key(k)} = {_value(v)}" for k, v in values.items() if v is not None]


def _key(key: str) -> str:
    return key if _BARE.match(key) else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None)
        return "{ " + inside + " }" if inside else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # a TOML basic string is a JSON string
    return repr(value)
