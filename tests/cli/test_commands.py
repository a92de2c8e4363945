"""What each subcommand prints, for people and for machines."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from bad_studies import GOOD

from optiscope import problems
from optiscope.cli.root import COMMANDS, EPILOG, ExitCode, root
from optiscope.optim import registry
from optiscope.records import RunStore, StudyFolder
from optiscope.study import load_study
from optiscope.study.runner import run_study
from stats.small_study import study
from study.small_studies import Inline

if TYPE_CHECKING:
    from conftest import Command


def every_command(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            found += every_command(inner, (*path, name))
    return found


@pytest.mark.parametrize("path", every_command(root), ids=lambda path: " ".join(path) or "root")
def test_every_command_and_every_option_has_help(path: tuple[str, ...], optiscope: Command) -> None:
    outcome = optiscope(*path, "--help")
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.out == optiscope(*path, "-h").out
    command: click.Command = root
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.opts
            assert parameter.opts[0] in outcome.out


def test_help_lists_every_command_and_every_exit_status(optiscope: Command) -> None:
    out = optiscope("--help").out
    for name, (_, text) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(text[:20])}", out, re.MULTILINE)
    codes = {value for name, value in vars(ExitCode).items() if name.isupper()}
    assert {int(code) for code in re.findall(r"^  (\d+) ", EPILOG, re.MULTILINE)} == codes


def test_version(optiscope: Command) -> None:
    from importlib import metadata

    assert optiscope("--version").out == f"optiscope {metadata.version('optiscope')}\n"


def test_list_problems(optiscope: Command) -> None:
    rows = json.loads(optiscope("list", "problems", "--json").out)
    assert [row["name"] for row in rows] == problems.names()
    for row in rows:
        assert row["dataset"]
        assert all(isinstance(row[key], int) for key in ("parameters", "batch_size", "epochs"))
    table = optiscope("list", "problems").out
    assert all(name in table for name in problems.names())


def test_list_optimizers(optiscope: Command) -> None:
    rows = json.loads(optiscope("list", "optimizers", "--json").out)
    assert [row["name"] for row in rows] == registry.names()
    sgd = rows[0]
    assert sgd["space"] == {"lr": [1e-3, 1e1]}
    assert sgd["defaults"] == {}
    assert all(row["source"] for row in rows)
    assert "nesterov true" in optiscope("list", "optimizers").out


def test_list_studies(optiscope: Command) -> None:
    rows = json.loads(optiscope("list", "studies", "--json").out)
    assert rows[0].keys() >= {"name", "question"}
    assert "quickstart" in {row["name"] for row in rows}


def test_list_has_a_line_per_entry_for_grep(optiscope: Command) -> None:
    lines = optiscope("list", "problems", "--json").out.splitlines()
    assert len(lines) == len(problems.names()) + 2
    assert json.loads(lines[1].rstrip(","))["name"] == problems.names()[0]


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of own and shipped parts, declared but not run."""
    folder = tmp_path_factory.mktemp("bench")
    path = folder / "study.toml"
    text = GOOD.replace('["digits_logreg"]', '["digits_logreg", "own_parts:mine"]')
    path.write_text(
        text.replace('optimizer = "sgd"', 'optimizer = "own_parts:Slow"\nfixed = { lr = 0.1 }')
    )
    return folder


@pytest.mark.usefixtures("_inline")
def test_bench_then_status_then_report(study_folder: Path, optiscope: Command) -> None:
    bench = ("bench", study_folder / "study.toml", "--out", study_folder / "out")
    outcome = optiscope(*bench)
    assert outcome.code == 0
    assert outcome.err == ""
    page = study_folder / "out" / "report.html"
    assert outcome.out.splitlines()[-1] == f"report: {page}"
    assert page.is_file()
    for word in ("SGD", "Adam", "digits_logreg", "mine", "%"):
        assert word in outcome.out

    shown = json.loads(optiscope("status", study_folder / "out", "--json").out)
    assert shown["damaged"] == []
    assert [(pair["problem"], pair["algorithm"]) for pair in shown["pairs"]] == [
        (problem, label) for problem in ("digits_logreg", "mine") for label in ("SGD", "Adam")
    ]
    slow, adam = shown["pairs"][:2]
    assert (slow["tuning_planned"], adam["tuning_planned"], adam["tuning_done"]) == (0, 2, 2)
    assert (adam["reporting_done"], adam["reporting_planned"], adam["failed"]) == (2, 2, 0)
    table = optiscope("status", study_folder / "out").out
    assert "2 of 2" in table
    assert "0 of 0" in table

    page.unlink()
    outcome = optiscope("report", study_folder / "out", "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["name"] == "small"
    assert page.is_file()

    shown_as = ("--show", "Adam", "--label", "Adam=Adaptive", "--colour", "Adam=#102030")
    assert optiscope("report", study_folder / "out", *shown_as).code == 0
    text = page.read_text()
    assert "Adaptive" in text
    assert "#102030" in text
    assert 'data-toggle="0"' not in text  # SGD is left out
    outcome = optiscope("report", study_folder / "out", "--show", "Adamm")
    assert (outcome.code, "no algorithm is labelled 'Adamm'" in outcome.err) == (2, True)
    outcome = optiscope("report", study_folder / "out", "--label", "Adam")
    assert (outcome.code, "expected LABEL=VALUE, got 'Adam'" in outcome.err) == (2, True)

    store = RunStore(study_folder / "out" / "runs")
    victim = store.hashes()[0]
    (store.path(victim) / "run.json").write_text("{")
    shown = json.loads(optiscope("status", study_folder / "out", "--json").out)
    assert len(shown["damaged"]) == 1
    assert victim in shown["damaged"][0]
    assert victim in optiscope("status", study_folder / "out").out
    outcome = optiscope(*bench, "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["name"] == "small"
    assert victim in outcome.err.replace("\n", "")
    assert "runs again" in " ".join(outcome.err.split())
    assert json.loads(optiscope("status", study_folder / "out", "--json").out)["damaged"] == []


def test_status_of_a_study_that_has_not_begun(tmp_path: Path, optiscope: Command) -> None:
    (tmp_path / "study.toml").write_text(GOOD)
    study = load_study(tmp_path / "study.toml")
    StudyFolder(tmp_path / "out").write_declaration(study.to_dict())
    shown = json.loads(optiscope("status", tmp_path / "out", "--json").out)
    assert [pair["reporting_done"] for pair in shown["pairs"]] == [0, 0]
    assert [pair["reporting_planned"] for pair in shown["pairs"]] == [2, 2]


WAITS = """\
import time
from pathlib import Path

import torch


class Waits(torch.optim.SGD):
    def step(self, closure=None):
        while not Path(PATH).exists():
            time.sleep(0.01)
        return super().step(closure)
"""


def test_ctrl_c_stops_a_study_in_one_line_and_it_goes_on(
    tmp_path: Path, console: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real worker processes; Ctrl-C reaches them too, as from a terminal."""
    go_on = tmp_path / "go_on"
    (tmp_path / "waits_to_go_on.py").write_text(WAITS.replace("PATH", repr(str(go_on))))
    (tmp_path / "study.toml").write_text(GOOD.replace('"adam"', '"waits_to_go_on:Waits"'))
    study = subprocess.Popen(
        [*console, "bench", "study.toml", "--out", "out", "--workers", "1"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where the tests run in the background, SIGINT is ignored, and children inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    store = RunStore(tmp_path / "out" / "runs")
    try:
        end = time.monotonic() + 240
        while not store.hashes() and study.poll() is None:
            assert time.monotonic() < end, "no run was recorded"
            time.sleep(0.01)
        os.killpg(study.pid, signal.SIGINT)
        out, errors = study.communicate(timeout=240)
    finally:
        if study.poll() is None:
            os.killpg(study.pid, signal.SIGKILL)
            study.communicate()
    assert study.returncode == ExitCode.INTERRUPTED
    assert out == ""
    assert " ".join(errors.split()) == (
        "stopped; what is recorded stays in out: run the same command again to continue"
    )
    recorded = store.hashes()
    assert recorded
    go_on.touch()
    monkeypatch.syspath_prepend(tmp_path)
    run_study(load_study(tmp_path / "study.toml"), tmp_path / "out", executor=Inline)
    assert set(recorded) < set(store.hashes())
    assert len(store.hashes()) == 2 * (2 + 2)


def test_names_that_are_no_text_are_written_as_escapes(optiscope: Command) -> None:
    outcome = optiscope("data", "list", "--data-dir", "no\udcfftext")
    assert outcome.code == 0
    assert "no\\udcfftext" in outcome.out


def test_data_list(tmp_path: Path, optiscope: Command) -> None:
    rows = json.loads(optiscope("data", "list", "--data-dir", tmp_path, "--json").out)
    here = {row["name"]: row["here"] for row in rows}
    assert here["digits"] == "package"
    assert here["mnist"] is None
    assert all(row["licence"] and row["description"] for row in rows)
    assert str(tmp_path.name) in optiscope("data", "list", "--data-dir", tmp_path).out.replace(
        "\n", ""
    )


def test_data_verify(tmp_path: Path, optiscope: Command) -> None:
    outcome = optiscope("data", "verify", "digits", "--data-dir", tmp_path)
    assert outcome.code == 0
    assert "comes with scikit-learn" in outcome.out
    outcome = optiscope("data", "verify", "mnist", "--data-dir", tmp_path, "--json")
    assert outcome.code == ExitCode.UNFINISHED
    (row,) = json.loads(outcome.out)
    assert row["ok"] is False
    assert {file["status"] for file in row["files"]} == {"missing"}
    table = optiscope("data", "verify", "mnist", "--data-dir", tmp_path).out
    assert "missing" in table
    assert "[" not in table


def test_reproduce_knows_its_experiments(optiscope: Command) -> None:
    outcome = optiscope("reproduce", "precondition")
    assert outcome.code == 2
    assert "preconditioning" in outcome.err
    assert "Experiment 4" in optiscope("reproduce", "--help").out


@pytest.mark.usefixtures("_inline")
def test_words_in_brackets_are_printed_as_they_are(optiscope: Command, tmp_path: Path) -> None:
    command = ["run", "digits_logreg", "own_parts:Failing", "--epochs", "1"]
    failed = optiscope(*command, "--out", tmp_path / "runs")
    assert failed.code == 1
    assert "[enforce fail at alloc.cpp:127] cannot read [/scratch/x] now" in failed.out
    assert "last accuracy" in failed.out
    assert "final" not in failed.out
    assert len(list((tmp_path / "runs").iterdir())) == 1
    study = tmp_path / "brackets.toml"
    study.write_text(
        'name = "brackets"\nquestion = "Is [/b] shown?"\nproblems = ["digits_logreg"]\nepochs = 1\n'
        'seeds = [5]\n[[algorithms]]\nlabel = "SGD [fast]"\noptimizer = "sgd"\n'
        "fixed = { lr = 0.1 }\n"
    )
    folder = tmp_path / "study"
    done = optiscope("bench", study, "--out", folder, "--workers", 1)
    assert done.code == 0
    shown = optiscope("status", folder).out
    assert "Is [/b] shown?" in shown
    assert "SGD [fast]" in shown
    assert "SGD [fast]" in done.out


def test_times_fit_a_terminal_of_eighty_columns(
    optiscope: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = "sgd,preconditioned_tuned_momentum"
    command = ("time", "digits_logreg", "--optimizers", names, "--repetitions", 3, "--steps", 5)
    out = optiscope(*command, "--threads", 1).out
    assert "1 thread:" in out
    assert "…" not in out
    assert all(word in out for word in ("ms/step", "in step()", "gradients"))


@pytest.mark.usefixtures("_inline")
def test_status_tells_what_runs_again_after_an_edit(
    optiscope: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "edited_for_status.py"
    text = "import torch\n\n\nclass Mine(torch.optim.SGD):\n    factor = 1\n"
    module.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    study = tmp_path / "own.toml"
    study.write_text(
        'name = "own"\nquestion = "?"\nproblems = ["digits_logreg"]\nepochs = 1\nseeds = [5]\n'
        '[[algorithms]]\nlabel = "Mine"\noptimizer = "edited_for_status:Mine"\n'
        "fixed = { lr = 0.1 }\n"
    )
    folder = tmp_path / "out"
    assert optiscope("bench", study, "--out", folder, "--workers", 1).code == 0
    told = "edited_for_status:Mine has changed since 1 of these runs, which will run again"
    assert told not in optiscope("status", folder).out
    module.write_text(text.replace("factor = 1", "factor = 2"))
    monkeypatch.delitem(sys.modules, "edited_for_status", raising=False)
    assert told in optiscope("status", folder).out
    assert json.loads(optiscope("status", folder, "--json").out)["code_changed"] == {
        "edited_for_status:Mine": 1
    }


def test_compact_packs_and_unpacks_a_study(optiscope: Command, tmp_path: Path) -> None:
    folder = study(tmp_path / "a", {"A": (0.9, 0.8), "B": (0.7, 0.6)}, seeds=(1, 2)).path
    commands = (("status",), ("claim", "A better than B on fmnist_2c2d"), ("report", "--json"))
    before = [optiscope(*command, folder).out for command in commands]
    page = (folder / "report.html").read_bytes()
    assert optiscope("compact", folder).out == "12 runs packed, 12 in segments\n"
    assert [p.name for p in (folder / "runs").iterdir()] == ["segments"]
    assert [optiscope(*command, folder).out for command in commands] == before
    assert (folder / "report.html").read_bytes() == page
    shown = json.loads(optiscope("compact", folder, "--undo", "--json").out)
    assert (shown["moved"], shown["packed"], shown["loose"]) == (12, 0, 12)
    assert [optiscope(*command, folder).out for command in commands] == before
    outcome = optiscope("compact", tmp_path / "nothing")
    assert outcome.code == 4
    assert "holds no runs" in outcome.err


def test_the_package_is_a_program(tmp_path: Path) -> None:
    (tmp_path / "pandas.py").write_text("raise SystemExit(9)")
    call = [sys.executable, "-m", "optiscope", "status", "nowhere"]
    done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 4
    assert done.stderr.startswith("optiscope: nowhere holds no study")
