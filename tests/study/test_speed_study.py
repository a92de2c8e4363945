"""A study of speeds: one ordinary study for each part of the horizon, and the page of all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure
from small_studies import Inline

from optiscope import executors
from optiscope.cli.root import root
from optiscope.records import StudyFolder
from optiscope.report.appearance import looks
from optiscope.report.figures.speed import draw_speeds
from optiscope.report.speed_page import mean_table, no_estimates
from optiscope.stats.speed import Race, means, speed
from optiscope.stats.speed_records import part_folder, read_races
from optiscope.study import StudyError, load_study
from optiscope.study.declaration import shipped_studies
from optiscope.study.speed_parts import part_of

TEXT = """
name = "small-speed"
question = "How much faster than SGD is momentum?"
problems = ["digits_logreg"]
epochs = 4
seeds = [11, 12]
[tuning]
sampler = "grid"
budget = 2
[[algorithms]]
label = "SGD"
optimizer = "sgd"
space.lr = { low = 1e-3, high = 1e-2 }
[[algorithms]]
label = "Slower SGD"
optimizer = "sgd"
fixed = { lr = 1e-4 }
[[algorithms]]
label = "Momentum"
optimizer = "momentum"
fixed = { lr = 1e-2 }
[speed]
baselines = ["SGD", "Slower SGD"]
parts = [1, 2, 4]
"""


@pytest.fixture(scope="module")
def _inline() -> Iterator[None]:
    """``optiscope bench`` trains in this process: no worker has to import torch first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executors, "process_pool", Inline)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, _inline: None) -> Path:
    place = tmp_path_factory.mktemp("speed")
    (place / "small.toml").write_text(TEXT)
    arguments = ["bench", str(place / "small.toml"), "--out", str(place / "out"), "--workers", "1"]
    done = CliRunner().invoke(root, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (place / "said.json").write_text(done.stdout)
    return place


def test_parts_are_ordinary_studies_of_shorter_horizons(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(TEXT)
    study = load_study(tmp_path / "small.toml")
    whole, quarter = part_of(study, 1), part_of(study, 4)
    assert whole.epochs == {"digits_logreg": 4}
    assert quarter.epochs == {"digits_logreg": 1}
    assert [a.label for a in whole.algorithms] == ["SGD", "Slower SGD", "Momentum"]
    assert [a.label for a in quarter.algorithms] == ["Momentum"]
    assert quarter.reference == "Momentum"
    (tmp_path / "quarter.toml").write_text(quarter.source)
    assert load_study(tmp_path / "quarter.toml").to_dict() == quarter.to_dict()
    with pytest.raises(StudyError, match="one part"):
        part_of(quarter, 2)
    with pytest.raises(StudyError, match="nothing of speeds"):
        part_of(replace(study, speed=None), 2)


def test_the_races_are_those_of_the_records(folder: Path) -> None:
    (race,) = read_races(folder / "out")
    assert (race.problem, race.algorithm, race.baseline) == ("digits_logreg", "Momentum", "SGD")
    assert race.shares == (0.25, 0.5, 1.0)
    quarter = StudyFolder(part_folder(folder / "out", 4))
    entry = next(e for e in quarter.ledger() if e.seed == 12)
    run = quarter.store.read(entry.trial_hash)
    assert run is not None
    assert race.losses[1][0] == run.final["valid_loss"]  # type: ignore[union-attr]
    assert race.goals[0] > race.losses[0][0], "momentum is ten times as fast on this problem"


def test_the_command_says_what_the_page_says(folder: Path) -> None:
    said = json.loads((folder / "said.json").read_text())
    (speed,) = said["speeds"]
    assert speed["bound"] == "at least"
    assert speed["steps"] == pytest.approx(4.0)
    assert said["means"][0]["steps"] == pytest.approx(4.0)
    page = (folder / "out" / "speed.html").read_text()
    assert "at least 4.00" in page
    assert "4.00 to 4.00" not in page
    assert "<svg" in page
    assert (folder / "out" / "part-2" / "report.html").is_file()


def test_a_mean_of_bounds_of_both_kinds_is_called_no_estimate() -> None:
    shares = (0.5, 1.0)
    values = {"algorithm": "fast", "baseline": "slow", "shares": shares, "goals": (1.0,)}
    values |= {"seconds": ((1.0, 2.0),), "goal_seconds": (2.0,)}
    fast = speed(Race(problem="a", losses=((0.5, 0.5),), **values))  # type: ignore[arg-type]
    slow = speed(Race(problem="b", losses=((3.0, 2.0),), **values))  # type: ignore[arg-type]
    both, alone = means([fast, slow]), means([slow])
    (row,) = mean_table(both).rows
    assert [cell.text for cell in row.cells[2:]] == [
        *("1.41, no estimate", "not known", "1.41, no estimate", "not known"),
        "at most 1.00 on b",
    ]
    (row,) = mean_table(alone).rows
    assert {cell.text for cell in row.cells[2:6]} == {"at most 1.00"}
    said = "The geometric mean of fast is no estimate: its 2 speeds hold upper bounds (1) and lower"
    assert no_estimates(both)[0].startswith(said)
    assert not no_estimates(alone)
    axes = Figure().subplots()
    draw_speeds(axes, [fast, slow], both, looks(["fast"]))
    filled = [bar.get_facecolor()[3] > 0 for bar in axes.patches]
    assert filled == [False, True, True], "the mean, then the problems"


def test_a_second_call_trains_nothing(folder: Path) -> None:
    runs = sorted((folder / "out").glob("part-*/runs/*"))
    before = {path: path.stat().st_mtime_ns for path in runs}
    arguments = ["bench", str(folder / "small.toml"), "--out", str(folder / "out")]
    done = CliRunner().invoke(root, [*arguments, "--workers", "1"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "page:" in done.output
    after = sorted((folder / "out").glob("part-*/runs/*"))
    assert {path: path.stat().st_mtime_ns for path in after} == before


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"Slower SGD"]', '"Adam"]', "unknown algorithm label"),
        ("parts = [1, 2, 4]", "parts = [2, 4]", "parts must hold 1"),
        ("parts = [1, 2, 4]", "parts = [1, 3]", "got 4 / 3"),
        ("parts = [1, 2, 4]", "parts = [1, 2]\npart = 4", "part must be one of"),
        ('"Slower SGD"]', '"Slower SGD", "Momentum"]', "all algorithms are baselines"),
        ('"Slower SGD"]', '"SGD"]', "stands twice"),
        ("parts = [1, 2, 4]", "parts = [1]\n[schedule]\nname = 'linear_decay'", "last table"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in TEXT
    (tmp_path / "wrong.toml").write_text(
        TEXT.replace(old, new, 1)
        if "SGD" not in old
        else TEXT.replace(f'baselines = ["SGD", {old}', f'baselines = ["SGD", {new}')
    )
    with pytest.raises(StudyError, match=said):
        load_study(tmp_path / "wrong.toml")


def test_the_shipped_study_divides_into_its_parts() -> None:
    assert "lark-speed" in shipped_studies()
    study = load_study("lark-speed")
    assert study.speed is not None
    for part in study.speed.parts:
        assert set(part_of(study, part).epochs.values()) == {24 // part}
