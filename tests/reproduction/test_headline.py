"""The headline figure shows nothing that `optiscope claim` would refuse."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from optiscope.stats.claims import Claim, claim

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "headline.py"


@pytest.fixture(scope="module")
def headline() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("headline", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize("number", range(6))
def test_every_pair_of_a_panel_is_answered(headline: ModuleType, number: int) -> None:
    assert len(headline.PANELS) == 6
    panel = headline.PANELS[number]
    values = headline.accuracies(panel)
    assert len(values) >= 3
    (seeds,) = {frozenset(of_seed) for of_seed in values.values()}
    assert len(seeds) >= 3
    declared = {a["label"]: a for a in panel.folder.declaration()["algorithms"]}
    assert all(not declared[label]["space"] for label in values)
    for a, b in itertools.combinations(values, 2):
        words = f"{a} better than {b} on {panel.problem} at {headline.epochs(panel)} epochs"
        answer = claim(words, panel.folder)
        assert isinstance(answer, Claim), answer.reason
        shown = {
            label: sum(values[label].values()) / len(seeds) / 100 for label in (answer.a, answer.b)
        }
        assert answer.comparison.mean_a == pytest.approx(shown[answer.a], abs=1e-12)
        assert answer.comparison.mean_b == pytest.approx(shown[answer.b], abs=1e-12)
