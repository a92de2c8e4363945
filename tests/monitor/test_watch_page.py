"""The page of a watch: live, self-contained, small, and readable on a phone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import optiscope
from optiscope.errors import OptiscopeError
from optiscope.monitor.budget import Budget
from optiscope.monitor.curvature_measures import parabola_position
from optiscope.monitor.measures import LEVELS, MEASURES
from optiscope.monitor.series import Series
from optiscope.report.cockpit.page import render


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)
    )


def train(
    out: Path | None = None,
    *,
    steps: int = 45,
    model: nn.Module | None = None,
    **options: Any,
) -> optiscope.Watch:
    model = model or make_model()
    criterion, optimizer = nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), 0.1)
    options = {"instruments": "full", "budget": 1.0, "on_finding": "log", **options}
    watch = optiscope.watch(model, optimizer, criterion, out=out, **options)
    x, y = torch.randn(90, 6), torch.randint(0, 3, (90,))
    for step in range(steps):
        picked = torch.randperm(90)[:16]
        if step < 40:
            optimizer.zero_grad()
        criterion(model(x[picked]), y[picked]).backward()
        optimizer.step()
    return watch


def test_every_instrument_fills_its_series(tmp_path: Path) -> None:
    watch = train(tmp_path / "run.html")
    watch.close()
    assert not watch.failures
    assert watch.data()["trouble"] == []
    for name in ("loss", "rate", "gradient norm", "update norm", "weight norm", "distance", "norm",
                 "inner product", "orthogonality", "early stopping", "gsnr", "variance",
                 "sharpness", "trace"):  # fmt: skip
        assert watch.series.scalars[name], name
    assert set(watch.series.layers) == {"gradient norm", "update / weight", "off or saturated"}
    page = (tmp_path / "run.html").read_text()
    assert "gradient_not_cleared" in page
    assert not re.search(r'(?:src|href)="?https?:', page)
    assert len(page) < 200_000
    assert list(tmp_path.iterdir()) == [tmp_path / "run.html"]


def test_instruments_change_nothing() -> None:
    states = []
    for instruments in ("full", []):
        torch.manual_seed(3)
        model = make_model()
        train(model=model, instruments=instruments).close()
        states.append((model.state_dict(), torch.get_rng_state()))
    (a, first), (b, second) = states
    assert torch.equal(first, second)
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_page_of_many_steps_stays_small_and_its_data_cannot_end_the_script() -> None:
    series = Series()
    for step in range(100_000):
        series.add("loss", step, float("nan") if step % 7 == 0 else 1.0 / (step + 1))
    for step in range(0, 100_000, 10):
        series.add_layers("gradient norm", step, {f"layer{i}": 0.1 for i in range(30)})
    assert len(series.scalars["loss"]) <= 1500
    data = {"findings": [{"sentence": "</script><b>"}], "series": series.to_dict(), "step": 1}
    page = render(data)
    assert len(page) < 2_000_000
    assert page.count("</script>") == 1
    found = re.search(r"const D = (.*);\n", page)
    assert found
    assert json.loads(found[1])["findings"] == data["findings"]


def test_the_budget_sets_intervals_from_costs() -> None:
    budget = Budget(0.05, 10)
    budget.step_seconds = 0.001
    budget.costs = {"cheap": 0.0001, "dear": 0.01}
    assert budget.interval("cheap") == 10
    assert budget.interval("dear") == 500  # 10 ms on 1 ms steps: four fifths of 5 % for two
    with budget.spend("dear", 30):
        pass
    assert not budget.due("dear", 39)
    assert [row["calls"] for row in budget.table() if row["instrument"] == "dear"] == [1]


@pytest.mark.parametrize(("rate", "alpha"), [(0.5, -0.5), (1.0, 0.0), (2.0, 1.0)])
def test_alpha_is_the_place_in_the_parabola(rate: float, alpha: float) -> None:
    # f(x) = x^2 / 2 from x = 1 with a step of -rate: the minimum is at rate 1
    end = 1 - rate
    value = parabola_position(0.5, end**2 / 2, -rate, -rate * end)
    assert value is not None
    assert value == pytest.approx(alpha)


def test_levels_and_names_of_instruments() -> None:
    assert set(LEVELS["full"]) == set(MEASURES)
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(OptiscopeError, match="did you mean 'norms'"):
        optiscope.watch(model, optimizer, instruments="norm")
    with pytest.raises(OptiscopeError, match="budget"):
        optiscope.watch(model, optimizer, budget=5.0)


def test_the_terminal_view_prints_findings(capsys: pytest.CaptureFixture[str]) -> None:
    watch = train()
    watch.close()
    watch.print()
    printed = capsys.readouterr().out
    assert "gradient_not_cleared" in printed
    assert "zero_grad" in printed


def test_the_page_opens_in_a_browser_without_errors(tmp_path: Path, chromium: str) -> None:
    from playwright.sync_api import sync_playwright

    watch = train(tmp_path / "run.html")
    watch.close()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width in (1440, 390):
            page = browser.new_page(viewport={"width": width, "height": 900})
            errors: list[str] = []
            page.on("pageerror", lambda e, errors=errors: errors.append(str(e)))
            page.on("console", lambda m, errors=errors: errors.append(m.text))
            page.goto((tmp_path / "run.html").as_uri())
            assert page.locator(".finding").count() >= 1
            assert page.locator("#panels figure").count() >= 8
            assert page.locator("canvas").count() == 3
            wide = page.evaluate("document.documentElement.scrollWidth")
            page.close()
            assert wide <= width
            assert errors == []
        browser.close()


def test_evaluations_and_first_samples_are_shown() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    optimizer, criterion = torch.optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss()
    x, y = torch.rand(40, 1, 8, 8), torch.randint(0, 3, (40,))
    with optiscope.watch(model, optimizer, criterion, on_finding="log") as watch:
        expected = []
        for _ in range(2):
            for i in (slice(0, 20), slice(20, 40)):
                optimizer.zero_grad()
                criterion(model(x[i]), y[i]).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                for i in (slice(0, 30), slice(30, 40)):
                    criterion(model(x[i]), y[i])
                expected.append(float(criterion(model(x), y)))
            model.train()
    points = watch.series.scalars["evaluation loss"]
    assert [step for step, _ in points] == [2, 4]
    assert [value for _, value in points] == pytest.approx(expected, rel=1e-5)
    pictures = watch.data()["pictures"]
    assert [p["caption"] for p in pictures] == [str(int(label)) for label in y[:12]]
    assert all(p["uri"].startswith("data:image/png;base64,") for p in pictures)
