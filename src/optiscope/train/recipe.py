"""Whether a recipe can be: one check, wherever a recipe comes from."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch.optim import Optimizer

from optiscope.errors import shorten
from optiscope.problems.initialisation import check_rule
from optiscope.problems.problem import Problem
from optiscope.records.recipe import MOST_THREADS, Recipe
from optiscope.records.trial import DEVICE
from optiscope.train.evaluation import check_watched
from optiscope.train.gradient import AUTOCAST
from optiscope.train.schedule import check_schedule
from optiscope.train.step import check_clip
from optiscope.train.stopping import EarlyStopping, check_pruner

__all__ = ["check_recipe", "recipe_faults"]

EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "schedule": {"name": "linear_decay"},
    "clip": {"norm": 1.0},
    "early_stopping": {"metric": "valid_loss", "patience": 5},
    "initialisation": {"name": "he_normal"},
    "pruner": {"name": "MedianPruner"},
}


def check_recipe(
    recipe: Recipe,
    problem: Problem | None = None,
    optimizer: Callable[[], Optimizer] | None = None,
    *,
    steps: int | None = None,
    epochs: int | None = None,
) -> None:
    """Raise ValueError with one line where a recipe cannot be; see :func:`recipe_faults`."""
    for _, message in recipe_faults(recipe, problem, optimizer, steps=steps, epochs=epochs):
        raise ValueError(message)


def recipe_faults(
    recipe: Recipe,
    problem: Problem | None = None,
    optimizer: Callable[[], Optimizer] | None = None,
    *,
    steps: int | None = None,
    epochs: int | None = None,
) -> Iterator[tuple[str, str]]:
    """What is wrong with a recipe: the part, and one line that says why and what to do.

    Args:
        recipe: what is checked.
        problem: what is to be trained; what the recipe watches must be measured on it.
        optimizer: makes one that is thrown away, on which the schedule is tried.
        steps, epochs: the horizon, to whose end the schedule is tried.
    """
    for part, example in EXAMPLES.items():
        table = getattr(recipe, part)
        if table is not None and not isinstance(table, Mapping):
            yield part, f"{part} must be a table such as {dict(example)}, got {shorten(table)}"
            return
    if not isinstance(recipe.device, str) or not re.fullmatch(DEVICE, recipe.device):
        known = "'cpu', 'cuda', 'cuda:1', 'xpu' or 'mps'"
        yield "device", f"device must be {known}, got {shorten(recipe.device)}"
    yield from _fault("threads", lambda: _check_threads(recipe.threads))
    yield from _fault("autocast", lambda: _check_autocast(recipe.autocast))
    yield from _fault("compile", lambda: _check_compile(recipe.compile))
    yield from _fault("accumulate", lambda: _check_parts(recipe.accumulate))
    yield from _fault("together", lambda: _check_together(recipe.together))
    yield from _fault("max_seconds", lambda: _check_limit(recipe.max_seconds))
    yield from _fault("early_stopping", lambda: EarlyStopping.of(recipe.early_stopping))
    if (clip := recipe.clip) is not None:
        yield from _fault("clip", lambda: check_clip(clip))
    if (rule := recipe.initialisation) is not None:
        yield from _fault("initialisation", lambda: check_rule(rule))
    if (pruner := recipe.pruner) is not None:
        yield from _fault("pruner", lambda: check_pruner(pruner))
    if problem is not None:
        stopping, schedule, subject = recipe.early_stopping, recipe.schedule, problem
        yield from _fault("early_stopping", lambda: check_watched(stopping, None, subject))
        yield from _fault("schedule", lambda: check_watched(None, schedule, subject))
    if recipe.schedule is not None and optimizer is not None:
        declared, make = recipe.schedule, optimizer
        yield from _fault(
            "schedule", lambda: check_schedule(declared, make(), steps=steps, epochs=epochs)
        )


def _fault(part: str, check: Callable[[], object]) -> Iterator[tuple[str, str]]:
    try:
        check()
    except ValueError as error:
        yield part, str(error)


def _check_threads(threads: int) -> None:
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ValueError(f"threads must be a positive integer, got {shorten(threads)}")
    if threads > MOST_THREADS:
        raise ValueError(f"threads must be at most {MOST_THREADS}, got {shorten(threads)}")


def _check_autocast(word: str | None) -> None:
    if word is not None and (not isinstance(word, str) or word not in AUTOCAST):
        known = " or ".join(map(repr, AUTOCAST))
        raise ValueError(f"autocast must be {known}, got {shorten(word)}")


def _check_compile(compiles: bool | None) -> None:
    if compiles is not None and compiles is not True:
        raise ValueError(f"compile must be True, or left out, got {shorten(compiles)}")
    if compiles and sys.platform == "win32":
        raise ValueError("compile needs a compiler that torch can use: leave it out on Windows")


def _check_parts(parts: int | None) -> None:
    if parts is None:
        return
    if isinstance(parts, bool) or not isinstance(parts, int) or parts < 2:
        raise ValueError(
            "accumulate is the number of parts in which a batch's gradient is computed, an "
            f"integer from 2, got {shorten(parts)}"
        )


def _check_together(together: bool | None) -> None:
    if together is not None and together is not True:
        raise ValueError(f"together must be True, or left out, got {shorten(together)}")


def _check_limit(seconds: float | None) -> None:
    if seconds is not None and not 0 < seconds < math.inf:
        raise ValueError(f"max_seconds must be positive and finite, got {shorten(seconds)}")
