"""Bad input gets one line on stderr, an exit status that means something, and no traceback."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from bad_studies import CASES, GOOD, BadStudy

from optiscope.study import load_study

if TYPE_CHECKING:
    from conftest import Command


def test_the_good_study_is_good(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(GOOD)
    study = load_study(tmp_path / "study.toml")
    assert [a.label for a in study.algorithms] == ["SGD", "Adam"]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_bad_study_is_refused_with_its_line_before_anything_runs(
    case: BadStudy, tmp_path: Path, optiscope: Command
) -> None:
    assert GOOD.count(case.old) >= 1
    (tmp_path / "study.toml").write_text(GOOD.replace(case.old, case.new, 1))
    outcome = optiscope("bench", tmp_path / "study.toml", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert outcome.out == ""
    line, *more = outcome.err.splitlines()
    assert not more
    assert line.startswith("optiscope: study.toml")
    assert not case.line or f"line {case.line}" in line
    for word in case.words:
        assert word in line
    assert not (tmp_path / "out").exists()


# What is typed, the exit status, and words of the one line that follows. Words in capitals are
# paths made by the test.
COMMANDS = [
    ("run digits_mpl sgd", 2, ["'digits_mpl'", "digits_mlp"]),
    ("run digits_mlp sdg", 2, ["'sdg'", "sgd"]),
    ("run digits_mlp torch.optim:Sgd", 2, ["'Sgd'", "torch.optim"]),
    ("run digits_mlp nowhere:SGD", 2, ["nowhere"]),
    ("run digits_mlp json:dumps", 2, ["json:dumps", "function", "torch.optim.Optimizer"]),
    ("run json:dumps sgd", 2, ["json:dumps", "function", "problem"]),
    ("run digits_mlp json:", 2, ["json", "optimizer"]),
    ("run digits_mlp :SGD", 2, ["':SGD'", "before the colon"]),
    ("run mine.py:problem sgd", 2, ["mine.py", "mine:problem"]),
    ("check json", 2, ["json", "before the colon"]),
    ("check json:dump_s", 2, ["'dump_s'", "'dumps'"]),
    ("run digits_mlp sgd --set lr=-0.1", 2, ["lr of sgd", "-0.1"]),
    ("run digits_mlp sgd --set lr=nan", 2, ["lr of sgd", "nan"]),
    ("run digits_mlp sgd --set lr=inf", 2, ["lr of sgd", "inf"]),
    ("run digits_mlp sgd --set lr=fast", 2, ["lr of sgd", "'fast'"]),
    ("run digits_mlp sgd --set lr=", 2, ["lr of sgd"]),
    ("run digits_mlp sgd --set lr", 2, ["NAME=VALUE", "'lr'"]),
    ("run digits_mlp sgd --set =1", 2, ["NAME=VALUE", "'=1'"]),
    ("run digits_mlp sgd --set lr=1 --set lr=2", 2, ["'lr'", "twice"]),
    ("run digits_mlp sgd --set momentun=0.9", 2, ["'momentun'", "'momentum'"]),
    ("run digits_mlp sgd --set nesterov=true", 2, ["nesterov=True", "momentum"]),
    ("run digits_mlp sgd --epochs 0", 2, ["--epochs", "0"]),
    ("run digits_mlp sgd --epochs many", 2, ["--epochs", "many"]),
    ("run digits_mlp sgd --seed -1", 2, ["--seed", "-1"]),
    ("run digits_mlp sgd --batch-size 5000", 2, ["batch_size", "1197", "5000"]),
    ("run digits_mlp sgd --schedule linear_decy", 2, ["'linear_decy'", "'linear_decay'"]),
    ("run digits_mlp sgd --schedule StepLR", 2, ["StepLR", "step_size"]),
    ("run digits_mlp sgd --clip-norm -1", 2, ["norm", "-1.0"]),
    ("run digits_mlp sgd --clip-norm inf", 2, ["norm", "inf"]),
    ("run digits_mlp sgd --max-seconds nan", 2, ["max_seconds", "nan"]),
    ("run digits_mlp sgd --max-seconds inf", 2, ["max_seconds", "inf"]),
    ("run digits_mlp sgd --device tpu", 2, ["tpu", "cpu, cuda"]),
    ("run digits_mlp sgd --init he_norml", 2, ["he_norml", "'he_normal'"]),
    ("run digits_mlp sgd --threads 1000000", 2, ["threads", "1024", "1000000"]),
    ("run digits_mlp sgd --schedule StepLR,3", 2, ["a rule's settings", "'3'"]),
    ("run digits_mlp sgd --colour red", 2, ["--colour"]),
    ("run digits_mlp", 2, ["OPTIMIZER"]),
    ("run digits_mlp sgd --out FILE", 2, ["--out", "FILE"]),
    ("run digits_mlp sgd --epochs 1 --out FILE/below", 4, ["FILE/below"]),
    ("run mnist_mlp sgd --data-dir EMPTY", 3, ["mnist", "EMPTY", "optiscope data fetch mnist"]),
    ("bnch quickstart", 2, ["bnch"]),
    ("bench quickstrt", 2, ["'quickstrt'", "'quickstart'"]),
    ("bench EMPTY", 2, ["EMPTY", "quickstart"]),
    ("bench BINARY", 2, ["BINARY"]),
    ("bench quickstart --workers 0", 2, ["--workers", "0"]),
    ("bench quickstart --out FILE/below", 4, ["FILE/below"]),
    ("status EMPTY", 4, ["EMPTY", "no study"]),
    ("status EMPTY/nowhere", 4, ["nowhere", "no study"]),
    ("status FILE", 2, ["FILE"]),
    ("report EMPTY", 4, ["EMPTY", "no study"]),
    ("report EMPTY --width 3in", 2, ["--figures"]),
    ("report EMPTY --width 3furlongs", 2, ["3furlongs", "8.5cm"]),
    ("list problms", 2, ["problms"]),
    ("data fetch mnits", 2, ["'mnits'", "'mnist'"]),
    ("data verify mnits", 2, ["'mnits'", "'mnist'"]),
]


@pytest.mark.parametrize(("typed", "code", "words"), COMMANDS, ids=[c[0] for c in COMMANDS])
def test_a_bad_command_is_one_line(
    typed: str, code: int, words: list[str], tmp_path: Path, optiscope: Command
) -> None:
    places = {name: str(tmp_path / name) for name in ("FILE", "EMPTY", "BINARY")}
    Path(places["FILE"]).write_text("")
    Path(places["EMPTY"]).mkdir()
    Path(places["BINARY"]).write_bytes(b"\xff\xfe\x00\x01")
    for name, path in places.items():
        typed = typed.replace(name, path)
    outcome = optiscope(*shlex.split(typed))
    assert outcome.code == code
    line, *more = outcome.err.splitlines()
    assert not more
    assert line.startswith("optiscope: ")
    for word in words:
        assert places.get(word, word) in line or word in line
    assert outcome.out == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there_is_one_line(optiscope: Command) -> None:
    outcome = optiscope("run", "digits_mlp", "sgd", "--device", "cuda")
    assert outcome.code == 2
    assert outcome.err.splitlines() == [
        "optiscope: device 'cuda' needs a GPU that torch can use, got none: use 'cpu'"
    ]


def test_a_study_whose_data_are_missing_is_refused_before_anything_runs(
    tmp_path: Path, optiscope: Command
) -> None:
    both = GOOD.replace('["digits_logreg"]', '["digits_logreg", "mnist_logreg"]')
    (tmp_path / "study.toml").write_text(both)
    (tmp_path / "data").mkdir()
    outcome = optiscope(
        "bench", tmp_path / "study.toml", "--out", tmp_path / "out", "--data-dir", tmp_path / "data"
    )
    assert outcome.code == 3
    assert outcome.err.splitlines()[-1].startswith("optiscope: data set mnist not found")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_another_study_is_left_alone(tmp_path: Path, optiscope: Command) -> None:
    (tmp_path / "study.toml").write_text(GOOD)
    (tmp_path / "out").mkdir()
    kept = GOOD_DECLARATION.replace("small", "other")
    (tmp_path / "out" / "study.json").write_text(kept)
    outcome = optiscope("bench", tmp_path / "study.toml", "--out", tmp_path / "out")
    assert outcome.code == 4
    assert "holds the study 'other'" in outcome.err.splitlines()[-1]
    assert (tmp_path / "out" / "study.json").read_text() == kept


GOOD_DECLARATION = (
    '{"name": "small", "question": "?", "problems": [], "algorithms": [], "tuning": {},'
    ' "seeds": [], "epochs": {}, "metric": {}}'
)


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    from optiscope.cli import main
    from optiscope.study import single

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(single, "run", broken)
    with pytest.raises(ZeroDivisionError):
        main(["run", "digits_mlp", "sgd"])


# Arguments of a good command that is interrupted or cannot write its result.
def test_ctrl_c_is_one_line_and_keeps_what_was_measured(
    tmp_path: Path, optiscope: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optiscope.records import RunStore, Status
    from optiscope.train import gradient

    calls = 0

    def interrupt(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 40:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(gradient, "regularization", interrupt)
    arguments = ("run", "digits_logreg", "sgd", "--epochs", 2, "--out", tmp_path)
    outcome = optiscope(*arguments)
    assert outcome.code == 130
    words = " ".join(outcome.out.split())
    assert "interrupted at step 40" in words, words  # the step that the signal came in is finished
    (run,) = RunStore(tmp_path).scan()
    assert run.status is Status.INTERRUPTED  # type: ignore[union-attr]
    outcome = optiscope(*arguments)
    assert outcome.code == 0
    (run,) = RunStore(tmp_path).scan()
    assert run.status is Status.FINISHED  # type: ignore[union-attr]


def test_a_diverged_run_exits_with_one(optiscope: Command) -> None:
    outcome = optiscope("run", "digits_mlp", "sgd", "--set", "lr=1e30", "--epochs", 1)
    assert outcome.code == 1
    assert "diverged" in outcome.out
