"""One run from the command line: its settings, its record, what it prints."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from optiscope.cli.root import ExitCode
from optiscope.records import Run, RunStore, StoreError, Trial

if TYPE_CHECKING:
    from conftest import Command

HERE = Path(__file__).parent
SPLITS = ("train", "valid", "test")
RUN = ("run", "digits_logreg", "momentum", "--epochs", 2, "--seed", 4, "--threads", 1)


def test_run_prints_its_record(optiscope: Command) -> None:
    outcome = optiscope(
        *RUN,
        "--set",
        "lr=0.05",
        "--set",
        "nesterov=True",
        "--schedule",
        "linear_decay",
        "--clip-norm",
        "1",
        "--batch-size",
        "100",
        "--json",
    )
    assert outcome.code == 0
    assert outcome.err == ""
    record = json.loads(outcome.out)
    trial = Trial.from_dict(record["trial"])
    assert trial.hash == record["trial_hash"]
    assert trial.problem == "digits_logreg"
    assert trial.hyperparameters == {"lr": 0.05, "nesterov": True}
    assert (trial.seed, trial.epochs, trial.batch_size, trial.threads) == (4, 2, 100, 1)
    assert trial.schedule == {"name": "linear_decay"}
    assert trial.clip == {"norm": 1.0}
    assert record["status"] == "finished"
    assert record["steps"] == 2 * 11
    assert {f"{split}_{name}" for split in SPLITS for name in ("loss", "accuracy")} <= set(
        record["final"]
    )
    rows = [row for row in record["metrics"] if (row["split"], row["name"]) == ("test", "loss")]
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert rows[-1]["value"] == record["final"]["test_loss"]


def test_run_prints_json_without_nan(optiscope: Command) -> None:
    outcome = optiscope("run", "digits_mlp", "sgd", "--set", "lr=1e30", "--epochs", 1, "--json")
    assert outcome.code == ExitCode.UNFINISHED

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    record = json.loads(outcome.out, parse_constant=refuse)
    assert record["status"] == "diverged"
    assert record["final"]["batch_loss"] in ("nan", "inf")


def test_run_prints_a_table(optiscope: Command) -> None:
    outcome = optiscope(*RUN)
    assert outcome.code == 0
    for words in ("· momentum (its defaults) · seed 4", "final accuracy", "best loss", "74 steps"):
        assert words in outcome.out
    assert all(re.search(rf"{split} .*\d\d\.\d\d %", outcome.out) for split in SPLITS)


def test_run_keeps_its_record_where_told(tmp_path: Path, optiscope: Command) -> None:
    shown = json.loads(optiscope(*RUN, "--out", tmp_path / "new" / "runs", "--json").out)
    run = RunStore(tmp_path / "new" / "runs").read(shown["trial_hash"])
    assert isinstance(run, Run)
    assert run.final == shown["final"]


def test_a_run_that_cannot_be_kept_is_shown(
    tmp_path: Path, optiscope: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: RunStore, run: Run, *also: object) -> Path:
        raise StoreError(f"cannot use {self.root}: the disk is full")

    monkeypatch.setattr(RunStore, "write", full)
    outcome = optiscope(*RUN, "--out", tmp_path, "--json")
    assert outcome.code == ExitCode.STORE
    assert json.loads(outcome.out)["status"] == "finished"
    assert outcome.err.splitlines() == [f"optiscope: cannot use {tmp_path}: the disk is full"]


@pytest.mark.parametrize("problem", ["own_parts:mine", "own_parts:made"])
def test_run_takes_ones_own_problem_and_optimizer(problem: str, optiscope: Command) -> None:
    outcome = optiscope("run", problem, "own_parts:Slow", "--set", "lr=0.5", "--json")
    assert outcome.code == 0
    record = json.loads(outcome.out)
    assert record["trial"]["problem"] == problem
    assert record["trial"]["optimizer"] == "own_parts:Slow"
    assert record["final"]["optimizer_lr"] == 0.05


def test_an_import_path_is_looked_for_in_the_current_folder(
    tmp_path: Path, console: list[str]
) -> None:
    (tmp_path / "lying_here.py").write_text((HERE / "own_parts.py").read_text())
    script = Path(sys.executable).parent / "optiscope"
    command = [script] if script.exists() else console
    done = subprocess.run(
        [*command, "run", "lying_here:mine", "lying_here:Slow", "--epochs", "1", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "finished"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1),
        ("1e-3", 1e-3),
        (".5", 0.5),
        ("-1", -1),
        ("3", 3),
        ("true", True),
        ("True", True),
        ("False", False),
        ("match_rms_adamw", "match_rms_adamw"),
        ("[0.9, 0.99]", [0.9, 0.99]),
        ('"quoted"', "quoted"),
        ("a=b", "a=b"),
    ],
)
def test_settings_are_read_as_toml_or_python_writes_them(text: str, value: object) -> None:
    from optiscope.cli.options import parse_settings

    found = parse_settings((f"x={text}",))["x"]
    assert found == value
    assert type(found) is type(value)


def test_a_bar_moves_on_a_terminal(optiscope: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "digits_logreg · momentum" in optiscope(*RUN).err


def test_a_schedule_takes_arguments(optiscope: Command) -> None:
    command = ["run", "digits_logreg", "sgd", "--set", "lr=0.1", "--epochs", "2", "--json"]
    done = optiscope(*command, "--schedule", "CosineAnnealingLR,T_max=horizon")
    schedule = {"name": "CosineAnnealingLR", "T_max": "horizon"}
    assert json.loads(done.out)["trial"]["schedule"] == schedule


def test_a_rule_takes_lists(optiscope: Command) -> None:
    command = ["run", "digits_logreg", "sgd", "--set", "lr=0.1", "--epochs", "2", "--json"]
    done = optiscope(*command, "--schedule", "MultiStepLR,milestones=[3, 6],gamma=0.5")
    schedule = {"name": "MultiStepLR", "milestones": [3, 6], "gamma": 0.5}
    assert json.loads(done.out)["trial"]["schedule"] == schedule


def test_a_crashed_run_is_kept_until_it_is_to_run_again(
    optiscope: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "faulty_problem.py"
    module.write_text(
        "from dataclasses import replace\n\nimport helper_of_faulty\n"
        "from optiscope import problems\n\n\n"
        "shipped = problems.get('digits_logreg')\n"
        "faulty = replace(shipped, name='faulty', "
        "loss=lambda o, t: helper_of_faulty.checked(shipped.loss(o, t)))\n"
    )
    helper = tmp_path / "helper_of_faulty.py"
    fault = tmp_path / "fault"  # of the machine, not of the code, which the trial would tell
    fault.touch()
    helper.write_text(
        "from pathlib import Path\n\n\ndef checked(losses):\n"
        f"    if Path({str(fault)!r}).exists():\n"
        "        raise RuntimeError('a fault since mended')\n    return losses\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    command = ("run", "faulty_problem:faulty", "sgd", "--epochs", 1, "--out", tmp_path / "runs")
    first, second = optiscope(*command), optiscope(*command)
    assert "not run again" not in first.err
    assert "not run again (retry_crashed runs it again)" in " ".join(second.err.split())
    assert (first.code, second.code) == (ExitCode.UNFINISHED, ExitCode.UNFINISHED)
    fault.unlink()
    third = optiscope(*command, "--retry-crashed")
    assert third.code == 0, third.err
    assert "the run that crashed: moved to" in " ".join(third.err.split())


def test_a_record_that_is_kept_is_said_to_be(optiscope: Command, tmp_path: Path) -> None:
    command = ["run", "digits_logreg", "sgd", "--set", "lr=0.1", "--epochs", "1"]
    first, second = (optiscope(*command, "--out", tmp_path / "runs") for _ in range(2))
    assert first.err.startswith(f"record: {tmp_path / 'runs'}/")
    assert f"record: {tmp_path / 'runs'}/" in second.err
    assert "not run again" not in first.err
    assert "not run again" in second.err
    assert second.out == first.out


def test_run_says_when_nothing_was_learnt_and_shows_where_it_began(optiscope: Command) -> None:
    outcome = optiscope("run", "digits_logreg", "sgd", "--set", "lr=1e-9", "--epochs", 1)
    assert "· sgd (lr=1e-09) ·" in outcome.out
    assert "loss before" in " ".join(outcome.out.replace("┃", "").split())
    assert "has not learned" in outcome.out
    assert "has not learned" not in optiscope("run", "digits_logreg", "adam", "--epochs", 1).out


def test_a_hyperparameter_given_as_an_option_is_told_its_place(optiscope: Command) -> None:
    outcome = optiscope("run", "digits_logreg", "adam", "--lr", "0.1")
    assert outcome.code == 2
    assert "No such option '--lr'. A hyperparameter" in outcome.err
    assert "--set lr=VALUE" in outcome.err
    assert "Did you mean --epochs?" in optiscope("run", "digits_logreg", "adam", "--epoch", 1).err
    listed = optiscope("run", "digits_logreg", "adam", "--set", "betas=0.9,0.99")
    assert "betas of adam must be a list such as [0.9, 0.999], got '0.9,0.99'" in listed.err


def test_lark_with_a_schedule_is_told_that_it_anneals_twice(optiscope: Command) -> None:
    command = ("run", "digits_logreg", "lark", "--epochs", 1)
    assert "anneals it a second time" in optiscope(*command, "--schedule", "linear_decay").err
    assert not optiscope(*command).err
