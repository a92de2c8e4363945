"""Tuning proposes the same points again when it is replayed from what was recorded."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from optiscope.optim.spec import Choice, Range
from optiscope.study.study import Algorithm
from optiscope.study.tuning import Tuning

SPACE = {
    "lr": Range(1e-4, 1.0, log=True, points=3),
    "momentum": Range(0.0, 0.99, log=False, points=2),
    "nesterov": Choice([False, True]),
}
SAMPLERS = ["grid", "random", "qmc", "tpe"]
BUDGET = 12
Figure = Callable[[dict[str, Any]], float | None]


def algorithm(sampler: str, label: str = "SGD", **changes: Any) -> Algorithm:
    values = {"space": SPACE, "budget": BUDGET, **changes}
    return Algorithm(label=label, optimizer="sgd", fixed={}, sampler=sampler, **values)


def tuning(sampler: str, words: tuple[str, ...] = ("study", "problem"), **changes: Any) -> Tuning:
    return Tuning(algorithm(sampler, **changes), words, lower_is_better=True)


def smooth(point: dict[str, Any]) -> float | None:
    return (math.log10(point["lr"]) + 2) ** 2 + point["momentum"] + point["nesterov"]


def some_diverge(point: dict[str, Any]) -> float | None:
    return None if point["lr"] > 0.01 else smooth(point)


def all_diverge(_: dict[str, Any]) -> float | None:
    return None


def not_a_number(point: dict[str, Any]) -> float | None:
    return math.nan if point["lr"] > 0.01 else smooth(point)


FIGURES = [smooth, some_diverge, all_diverge, not_a_number]


def run(tuned: Tuning, figure: Figure, *, at_most: int = BUDGET) -> list[dict[str, Any]]:
    """Ask and tell in turn; the points that were told."""
    points: list[dict[str, Any]] = []
    waiting: list[tuple[int, dict[str, Any]]] = []
    while len(points) < at_most:
        while (proposal := tuned.ask()) is not None:
            waiting.append(proposal)
        if not waiting:
            break
        index, point = waiting.pop(0)
        tuned.tell(index, [figure(point)])
        points.append(point)
    return points


@pytest.mark.parametrize("figure", FIGURES, ids=[f.__name__ for f in FIGURES])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_replay_proposes_the_same_points_and_chooses_the_same_one(
    sampler: str, figure: Figure
) -> None:
    first = tuning(sampler)
    points = run(first, figure)
    assert len(points) == BUDGET
    assert first.done
    assert first.ask() is None
    for told in (0, 1, 7, BUDGET):
        again = tuning(sampler)
        assert run(again, figure, at_most=told) == points[:told]
        rest = tuning(sampler)
        assert run(rest, figure) == points
        assert rest.best() == first.best()


@pytest.mark.parametrize("sampler", ["grid", "random", "qmc"])
def test_the_order_in_which_trials_end_does_not_matter(sampler: str) -> None:
    inline = tuning(sampler)
    points = run(inline, smooth)
    backwards = tuning(sampler)
    asked = []
    while (proposal := backwards.ask()) is not None:
        asked.append(proposal)
    assert [point for _, point in asked] == points
    for index, point in reversed(asked):
        backwards.tell(index, [smooth(point)])
    assert backwards.best() == inline.best()


def test_tpe_waits_for_each_value_and_learns_from_it() -> None:
    tuned = tuning("tpe", budget=40)
    assert tuned.sequential
    assert tuned.ask() is not None
    assert tuned.ask() is None
    tuned.tell(0, [1.0])
    assert tuned.ask() is not None
    low = run(tuning("tpe", budget=40), smooth, at_most=40)
    high = run(tuning("tpe", budget=40), lambda p: -(smooth(p) or 0.0), at_most=40)
    assert low[0] == high[0]
    assert low != high


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_points_lie_in_the_space(sampler: str) -> None:
    points = run(tuning(sampler), smooth)
    assert all(1e-4 <= p["lr"] <= 1.0 and 0.0 <= p["momentum"] <= 0.99 for p in points)
    assert {p["nesterov"] for p in points} == {False, True}


def test_a_grid_has_every_point_once_with_both_ends() -> None:
    points = run(tuning("grid"), smooth)
    assert sorted({p["lr"] for p in points}) == [1e-4, pytest.approx(1e-2), 1.0]
    assert {p["momentum"] for p in points} == {0.0, 0.99}
    assert len({tuple(p.values()) for p in points}) == 3 * 2 * 2


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_choice_may_be_of_lists_and_of_different_kinds(sampler: str) -> None:
    values = [[0.9, 0.999], [0.8, 0.99], "auto", None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tuned = tuning(sampler, space={"betas": Choice(values), "eps": Choice([1, True])}, budget=8)
        points = run(tuned, lambda point: float(values.index(point["betas"])), at_most=8)
    assert all(point["betas"] in values for point in points)
    assert {type(point["eps"]) for point in points} == {int, bool}
    assert tuned.best()[1] in points


def test_quasi_random_points_fill_the_space_more_evenly_than_random_ones() -> None:
    space = {"lr": Range(1e-4, 1.0)}
    shares = {}
    for sampler in ("qmc", "random"):
        tuned = tuning(sampler, space=space, budget=32)
        logs = sorted(
            (math.log10(p["lr"]) + 4) / 4 for p in run(tuned, lambda p: p["lr"], at_most=32)
        )
        ends = [0.0, *logs, 1.0]
        shares[sampler] = max(b - a for a, b in pairwise(ends))
    assert shares["qmc"] < 2 / 32 < shares["random"]


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe"])
def test_other_studies_and_problems_get_other_points_whatever_the_label(sampler: str) -> None:
    """What is called otherwise and has the same space must not have other luck."""
    points = run(tuning(sampler), smooth, at_most=2)
    assert run(tuning(sampler, ("other", "problem")), smooth, at_most=2) != points
    assert run(tuning(sampler, ("study", "other")), smooth, at_most=2) != points
    turned = {name: SPACE[name] for name in reversed(SPACE)}
    assert run(tuning(sampler, label="Other", space=turned), smooth, at_most=2) == points


def test_the_best_is_by_the_mean_over_seeds() -> None:
    tuned = Tuning(algorithm("random", budget=3), ["a"], lower_is_better=True)
    points = [tuned.ask() for _ in range(3)]
    for (index, _), values in zip(
        [p for p in points if p], ([3.0, 3.0], [1.0, 4.0], [0.0, 9.0]), strict=True
    ):
        tuned.tell(index, values)
    assert points[1] is not None
    assert tuned.best() == points[1]


def test_a_point_that_fails_with_one_seed_is_worse_than_any_that_does_not() -> None:
    tuned = Tuning(algorithm("random", budget=3), ["a"], lower_is_better=True)
    for values in ([0.1, None], [99.0, 99.0], [None, None]):
        proposal = tuned.ask()
        assert proposal is not None
        tuned.tell(proposal[0], values)
    assert tuned.best()[0] == 1


def test_the_first_of_equals_is_the_best() -> None:
    tuned = Tuning(algorithm("random", budget=3), ["a"], lower_is_better=True)
    asked = [tuned.ask() for _ in range(3)]
    for proposal in reversed([p for p in asked if p]):
        tuned.tell(proposal[0], [1.0])
    assert tuned.best()[0] == 0


def test_accuracy_is_better_when_higher() -> None:
    tuned = Tuning(algorithm("random", budget=3), ["a"], lower_is_better=False)
    for value in (0.5, 0.9, 0.7):
        proposal = tuned.ask()
        assert proposal is not None
        tuned.tell(proposal[0], [value])
    assert tuned.best()[0] == 1


def test_a_grid_of_one_point_is_the_middle() -> None:
    asked = tuning("grid", space={"lr": Range(1e-4, 1e-2, log=True)}, budget=1).ask()
    assert asked is not None
    assert asked[1]["lr"] == pytest.approx(1e-3)
