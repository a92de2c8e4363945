"""What each subcommand prints, for people and for machines."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from bad_studies import GOOD

from optiscope import problems
from optiscope import study as optiscope_study
from optiscope.cli import status
from optiscope.cli.root import COMMANDS, EPILOG, ExitCode, root
from optiscope.optim import registry
from optiscope.records import Run, RunStore, StoreError, StudyFolder, Trial
from optiscope.study import load_study
from optiscope.study.runner import run_study

if TYPE_CHECKING:
    from conftest import Command

HERE = Path(__file__).parent
CONSOLE = [sys.executable, "-c", "from optiscope.cli import main; main()"]
SPLITS = ("train", "valid", "test")


class Inline(Executor):
    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


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
    def full(self: RunStore, run: Run) -> Path:
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


def test_an_import_path_is_looked_for_in_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "lying_here.py").write_text((HERE / "own_parts.py").read_text())
    script = Path(sys.executable).parent / "optiscope"
    command = [script] if script.exists() else CONSOLE
    done = subprocess.run(
        [*command, "run", "lying_here:mine", "lying_here:Slow", "--epochs", "1", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "finished"


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of own and shipped parts, declared but not run."""
    folder = tmp_path_factory.mktemp("bench")
    path = folder / "study.toml"
    text = GOOD.replace('["digits_logreg"]', '["digits_logreg", "own_parts:mine"]')
    path.write_text(text.replace('optimizer = "sgd"', 'optimizer = "own_parts:Slow"'))
    return folder


def bench(folder: Path, optiscope: Command, monkeypatch: pytest.MonkeyPatch, *more: object) -> Any:
    inline = partial(run_study, executor=lambda workers: Inline())
    monkeypatch.setattr(optiscope_study, "run_study", inline, raising=False)  # named lazily
    return optiscope("bench", folder / "study.toml", "--out", folder / "out", *more)


def test_bench_then_status_then_report(
    study_folder: Path, optiscope: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = bench(study_folder, optiscope, monkeypatch)
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
    outcome = bench(study_folder, optiscope, monkeypatch, "--json")
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


def test_ctrl_c_stops_a_study_in_one_line_and_it_goes_on(tmp_path: Path) -> None:
    """Real worker processes; Ctrl-C reaches them too, as from a terminal."""
    (tmp_path / "study.toml").write_text(GOOD.replace("epochs = 2", "epochs = 40"))
    study = subprocess.Popen(
        [*CONSOLE, "bench", "study.toml", "--out", "out", "--workers", "1"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where the tests run in the background, SIGINT is ignored, and children inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    store = RunStore(tmp_path / "out" / "runs")
    while not store.hashes() and study.poll() is None:
        time.sleep(0.01)
    os.killpg(study.pid, signal.SIGINT)
    out, errors = study.communicate()
    assert study.returncode == ExitCode.INTERRUPTED
    assert out == ""
    assert " ".join(errors.split()) == (
        "stopped; what is recorded stays in out: give the same command to go on"
    )
    recorded = store.hashes()
    assert recorded
    run_study(
        load_study(tmp_path / "study.toml"), tmp_path / "out", executor=lambda workers: Inline()
    )
    assert set(recorded) < set(store.hashes())
    assert len(store.hashes()) == 2 * (2 + 2)


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


def test_reproduce_knows_its_experiments(optiscope: Command) -> None:
    outcome = optiscope("reproduce", "precondition")
    assert outcome.code == 2
    assert "preconditioning" in outcome.err
    assert "Experiment 4" in optiscope("reproduce", "--help").out


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
    helper.write_text("def checked(losses):\n    raise RuntimeError('a bug since mended')\n")
    monkeypatch.syspath_prepend(tmp_path)
    command = ("run", "faulty_problem:faulty", "sgd", "--epochs", 1, "--out", tmp_path / "runs")
    first, second = optiscope(*command), optiscope(*command)
    assert "not run again" not in first.err
    assert "not run again (retry_crashed runs it again)" in " ".join(second.err.split())
    assert (first.code, second.code) == (ExitCode.UNFINISHED, ExitCode.UNFINISHED)
    helper.write_text("def checked(losses):\n    return losses\n")
    monkeypatch.delitem(sys.modules, "helper_of_faulty")
    monkeypatch.delitem(sys.modules, "faulty_problem")
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
    assert "nothing to speak of was learnt" in outcome.out
    assert "was learnt" not in optiscope("run", "digits_logreg", "adam", "--epochs", 1).out


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
    )
    folder = tmp_path / "out"
    assert optiscope("bench", study, "--out", folder, "--workers", 1).code == 0
    told = "edited_for_status:Mine has changed since 1 of these runs, which will run again"
    assert told not in optiscope("status", folder).out
    module.write_text(text.replace("factor = 1", "factor = 2"))
    monkeypatch.delitem(sys.modules, "edited_for_status", raising=False)
    status._digest_now.cache_clear()
    assert told in optiscope("status", folder).out
    assert json.loads(optiscope("status", folder, "--json").out)["code_changed"] == {
        "edited_for_status:Mine": 1
    }
