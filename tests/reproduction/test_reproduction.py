"""Experiments: their studies load, figures are compared rightly, the page says so."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from optiscope.cli.reproduce import NAMES, TALK_NAMES
from optiscope.records import StoreError
from optiscope.reproduction import EXPERIMENTS, reproduce, sections
from optiscope.reproduction.agreement import Compared
from optiscope.reproduction.drawing import Line
from optiscope.reproduction.experiments import Part, TimedProblem
from optiscope.reproduction.page import compared_table
from optiscope.reproduction.published_figures import (
    Published,
    published_costs,
    published_curve,
    published_sensitivity,
)
from optiscope.reproduction.talk import TALK


def test_the_command_line_knows_every_experiment() -> None:
    assert tuple(EXPERIMENTS) == NAMES
    assert tuple(TALK) == TALK_NAMES


@pytest.mark.parametrize(
    ("name", "scale"), [(name, scale) for name in EXPERIMENTS for scale in ("small", "full")]
)
def test_every_study_loads_at_its_scale(name: str, scale: str) -> None:
    for part in EXPERIMENTS[name].parts.get(scale, ()):  # type: ignore[call-overload]
        study = part.load()
        problem = study.problems[0].name
        if part.epochs is not None:
            assert study.epochs[problem] == part.epochs
        if part.seeds is not None:
            assert len(study.seeds) == part.seeds
        if part.batch_size is not None:
            assert study.batch_sizes[problem] == part.batch_size


def test_published_figures_are_those_of_the_sources() -> None:
    sgd = published_curve("fmnist_2c2d", "SGD")
    assert sgd[100].mean == pytest.approx(0.920523, abs=1e-5)
    assert sgd[1].runs == 10
    assert published_costs()["PreconditionedSGD"].mean == pytest.approx(2.3875, abs=1e-4)
    rates = published_sensitivity("Preconditioned SGD")
    assert rates[0.012915].mean == pytest.approx(0.88682, abs=1e-5)
    assert math.isnan(rates[100.0].mean)
    assert published_curve("cifar10_3c3d", "framework", 32)[5].mean == pytest.approx(
        0.70288, abs=1e-5
    )


@pytest.mark.parametrize(
    ("published", "ours", "verdict"),
    [
        (Published(80.0, 1.0, 10), [80.5, 79.9, 80.4], "agree"),
        (Published(80.0, 1.0, 10), [84.5, 83.9, 84.4], "differ"),
        (Published(80.0, 1.0, 10), [82.5], "differ"),  # one run varies as theirs do
        (Published(math.nan, math.nan, 1), [], "not run here"),
        (Published(80.0, 1.0, 10), [81.5], "agree"),
        (Published(80.0, math.nan, 1), [80.5], "one run each"),
        (Published(math.nan, math.nan, 1), [math.nan], "failed alike"),
        (Published(math.nan, math.nan, 1), [50.0], "differ"),
        (Published(80.0, 1.0, 10), [80.5, math.nan, 80.4], "differ"),
        (Published(80.0, 1.0, 10), [], "not run here"),
        (None, [80.0], "not published"),
    ],
)
def test_agreement(published: Published | None, ours: list[float], verdict: str) -> None:
    assert Compared("x", published, ours).verdict == verdict


def test_a_failed_run_is_counted_and_left_out_of_mean_and_curve() -> None:
    figure = Compared("x", Published(97.0, 0.2, 10), [97.1, math.nan, 96.9])
    assert figure.mean == pytest.approx(97.0)
    assert figure.deviation == pytest.approx(0.1 * math.sqrt(2))
    cells = [cell.text for cell in compared_table([figure]).rows[0].cells]
    assert "97.00 ± 0.14 % (2 of 3, the others failed)" in cells
    assert math.isnan(Compared("x", None, [math.nan]).mean)
    line = Line.of_runs("here", [{0: 0.1, 1: 0.5, 2: 0.7}, {0: 0.1}, {0: 0.1, 1: 0.7, 2: 0.9}], 2)
    assert (line.label, line.epochs) == ("here, 2 of 3", (1, 2))
    assert line.mean == pytest.approx((60.0, 80.0))
    assert Line.of_runs("here", [{0: 0.1}, {0: 0.1}], 2).epochs == ()


def test_published_deviations_of_times_are_those_of_a_sample() -> None:
    """The source divides by its five runs, Welch's test expects four."""
    known = published_costs()["PreconditionedSGD"]
    assert known.deviation == pytest.approx(0.3586 * math.sqrt(5 / 4))


STUDY = """
name = "{name}"
question = "Which is best?"
problems = ["digits_mlp"]
epochs = 2
seeds = [1, 2]
[[algorithms]]
label = "SGD"
optimizer = "sgd"
fixed = {{ lr = 0.1 }}
[[algorithms]]
label = "Preconditioned SGD"
optimizer = "preconditioned_sgd"
"""


@pytest.fixture
def small_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An experiment on the digits, with made-up published curves."""
    from optiscope.reproduction import experiments

    study = tmp_path / "preconditioning_digits.toml"
    study.write_text(STUDY.format(name="preconditioning_digits"))

    class DigitsPart(Part):
        @property
        def name(self) -> str:
            return "preconditioning_digits"

    def curve(problem: str, optimizer: str, batch: int = 128) -> dict[int, Published]:
        known = optimizer in ("SGD", "PreconditionedSGD")
        return {e: Published(0.99, 0.001, 10) for e in range(3)} if known else {}

    monkeypatch.setattr(sections, "published_curve", curve)
    made = replace(
        experiments.EXPERIMENTS["preconditioning"], parts={"small": (DigitsPart(str(study)),)}
    )
    monkeypatch.setitem(experiments.EXPERIMENTS, "preconditioning", made)
    return "preconditioning"


def test_an_experiment_ends_with_its_page(
    small_experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    page = reproduce(small_experiment, folder, workers=1).page
    text = page.read_text()
    assert "SGD: test accuracy after 2 epochs" in text
    assert "99.00 ± 0.10 % (10)" in text
    assert text.count("<svg") == 2
    assert "Preconditioning with a constructed rate loses to tuned SGD" in text
    assert "http" not in text.replace("http://www.w3.org", "")
    assert (folder / "preconditioning_digits" / "report.html").exists()
    with pytest.raises(StoreError, match="another experiment or scale"):
        reproduce(small_experiment, folder, scale="full")


def test_times_are_kept_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from optiscope.reproduction import experiments

    made = replace(
        experiments.EXPERIMENTS["cost"], timed={"small": (TimedProblem("digits_mlp", 2),)}
    )
    monkeypatch.setitem(experiments.EXPERIMENTS, "cost", made)
    page = reproduce("cost", tmp_path).page
    path = tmp_path / "digits_mlp_time.json"
    before = path.read_bytes()
    assert len(json.loads(before)["rows"]) == len(sections.TIMED)
    assert "Published PreconditionedSGD: wall time" in page.read_text()
    reproduce("cost", tmp_path)
    assert path.read_bytes() == before  # kept, not measured again
    path.write_bytes(before[:100])
    with pytest.raises(StoreError, match="cannot be read: remove it"):
        reproduce("cost", tmp_path)
