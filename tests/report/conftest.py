"""Studies and a browser shared by the tests of the report."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from synthetic import Method, make_study, methods

from optiscope.records import Status, StudyFolder


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """Four algorithms on two problems with a diverged, a crashed, and a missing run."""
    return make_study(
        tmp_path_factory.mktemp("study"),
        algorithms=methods(4),
        problems=("digits_mlp", "digits_conv"),
        loss_problems=("digits_conv",),
        failing={
            ("momentum", "digits_mlp", 101): Status.DIVERGED,
            ("Adam", "digits_conv", 100): Status.CRASHED,
        },
        missing=1,
    )


def twelve_methods() -> list[Method]:
    """Twelve, of which four are tuned: one of two hyperparameters, one in too narrow a space."""
    found = methods(12)
    found[1] = replace(found[1], second=True)
    found[3] = replace(found[3], best_rate=1.0, high=0.05)
    return [*found[:4], *(replace(method, tuned=False) for method in found[4:])]


@pytest.fixture(scope="session")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """Twelve algorithms on two problems, one of which always diverges on the second."""
    seeds = (100, 101, 102)
    return make_study(
        tmp_path_factory.mktemp("crowded"),
        algorithms=twelve_methods(),
        problems=("digits_mlp", "digits_conv"),
        seeds=seeds,
        failing={("method 9", "digits_conv", seed): Status.DIVERGED for seed in seeds},
    )


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """One algorithm on one problem with one seed."""
    path = tmp_path_factory.mktemp("alone")
    return make_study(path, algorithms=methods(1), seeds=(100,))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, or a skip that says what is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium on the PATH")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()
