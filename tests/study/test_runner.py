"""A study that is stopped, damaged or starved finishes with the records of an undisturbed one."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import (
    Executor,
)
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_studies import SMALL, TRIALS, Inline, declared, essence

from optiscope.records import Run, RunStore, Status, StoreError, StudyFolder, compact
from optiscope.report import write_report
from optiscope.stats.claims import Claim, study_claims
from optiscope.study import Event, run_study
from optiscope.train import TrialError


@pytest.fixture
def copy(undisturbed: Path, tmp_path: Path) -> Path:
    """A finished study of one's own."""
    return Path(shutil.copytree(undisturbed, tmp_path / "out"))


class Counting:
    """Makes inline executors and counts what they run."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, workers: int) -> Executor:
        outer = self

        class Counted(Inline):
            def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
                outer.runs += 1
                return super().submit(fn, *args, **kwargs)

        return Counted(workers)


def test_the_ledger_has_every_trial_in_the_users_order(undisturbed: Path) -> None:
    ledger = StudyFolder(undisturbed).ledger()
    assert len(ledger) == TRIALS
    order = list(dict.fromkeys((entry.problem, entry.algorithm) for entry in ledger))
    assert order == [
        (problem, label)
        for problem in ("digits_logreg", "digits_mlp")
        for label in ("SGD", "Adam", "Fixed")
    ]
    assert {entry.trial_hash for entry in ledger} == set(RunStore(undisturbed / "runs").hashes())
    for entry in ledger:
        assert (entry.seed == 1) == (entry.role == "tuning")
        assert (entry.index >= 0) == (entry.role == "tuning")


def test_the_best_by_validation_is_reported(undisturbed: Path) -> None:
    folder = StudyFolder(undisturbed)
    for problem in ("digits_logreg", "digits_mlp"):
        for label in ("SGD", "Adam"):
            mine = [e for e in folder.ledger() if (e.problem, e.algorithm) == (problem, label)]
            losses = {}
            for entry in mine:
                run = folder.store.read(entry.trial_hash)
                assert isinstance(run, Run)
                if entry.role == "tuning":
                    losses[run.final["valid_loss"]] = dict(entry.hyperparameters)
            chosen = [dict(e.hyperparameters) for e in mine if e.role == "reporting"]
            assert chosen == [losses[min(losses)]] * 2


@pytest.mark.parametrize("events", [1, 5, 11])
def test_stopped_after_some_events_and_started_again(
    events: int, undisturbed: Path, tmp_path: Path
) -> None:
    study, counting, stops = declared(tmp_path), Counting(), 0

    def stop_after(count: int) -> Callable[[Event], None]:
        def listen(_: Event) -> None:
            nonlocal count
            count -= 1
            if count < 0:
                raise KeyboardInterrupt

        return listen

    while True:
        try:
            run_study(study, tmp_path / "out", executor=counting, on_event=stop_after(events))
        except KeyboardInterrupt:
            stops += 1
            continue
        break
    assert stops >= 1
    assert counting.runs == TRIALS
    assert essence(tmp_path / "out") == essence(undisturbed)


def test_a_finished_study_runs_nothing(undisturbed: Path, copy: Path, tmp_path: Path) -> None:
    def no_executor(_: int) -> Executor:
        raise AssertionError("there is nothing to run")

    run_study(declared(tmp_path), copy, executor=no_executor)
    assert essence(copy) == essence(undisturbed)


def test_more_seeds_run_only_what_is_new(copy: Path, tmp_path: Path) -> None:
    counting = Counting()
    more = declared(tmp_path, SMALL.replace("[11, 12]", "[11, 12, 13]"))
    run_study(more, copy, executor=counting)
    assert counting.runs == 6
    assert len(StudyFolder(copy).ledger()) == TRIALS + 6
    assert StudyFolder(copy).declaration()["looked_at"] == [2]
    still = declared(tmp_path, SMALL.replace("[11, 12]", "[13, 12, 11, 14]"))
    run_study(still, copy, executor=counting)
    assert StudyFolder(copy).declaration()["looked_at"] == [2, 3]
    answers = [x for x in study_claims(StudyFolder(copy)) if isinstance(x, Claim)]
    assert answers
    assert all("seeds added after a look at 2, 3" in x.sentence for x in answers)
    assert (
        "Seeds were added after results with 2, 3 were"
        in write_report(StudyFolder(copy)).read_text()
    )


# How a record is damaged, and a word of the warning.
def _truncate(record: Path) -> None:
    text = (record / "run.json").read_text()
    (record / "run.json").write_text(text[: len(text) // 2])


def _edit(record: Path) -> None:
    content = json.loads((record / "run.json").read_text())
    content["final"]["valid_loss"] = 0.0001
    (record / "run.json").write_text(json.dumps(content))


def _empty_metrics(record: Path) -> None:
    (record / "metrics.parquet").write_bytes(b"")


def _lose(record: Path) -> None:
    (record / "run.json").unlink()


@pytest.mark.parametrize("role", ["tuning", "reporting"])
@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (_truncate, "not a run record"),
        (_edit, "changed"),
        (_empty_metrics, "changed"),
        (_lose, "missing"),
    ],
    ids=["truncated", "edited", "empty metrics", "lost"],
)
def test_a_damaged_record_is_reported_and_its_trial_runs_again(
    damage: Callable[[Path], None],
    word: str,
    role: str,
    undisturbed: Path,
    copy: Path,
    tmp_path: Path,
) -> None:
    counting, events = Counting(), []
    entry = next(e for e in StudyFolder(copy).ledger() if e.role == role)
    damage(copy / "runs" / entry.trial_hash)
    run_study(declared(tmp_path), copy, executor=counting, on_event=events.append)
    (warning,) = [event.message for event in events if event.warning]
    assert entry.trial_hash in warning
    assert word in warning
    assert "\n" not in warning
    assert counting.runs == 1
    assert essence(copy) == essence(undisturbed)
    assert len(list((copy / "runs" / ".damaged").iterdir())) == 1


def test_the_record_of_an_interrupted_run_is_replaced(
    undisturbed: Path, copy: Path, tmp_path: Path
) -> None:
    counting, store = Counting(), RunStore(copy / "runs")
    for entry in StudyFolder(copy).ledger()[:3]:
        run = store.read(entry.trial_hash)
        assert isinstance(run, Run)
        shutil.rmtree(store.path(entry.trial_hash))
        store.write(replace(run, status=Status.INTERRUPTED))
    run_study(declared(tmp_path), copy, executor=counting)
    assert counting.runs == 3
    assert essence(copy) == essence(undisturbed)


def test_a_packed_study_is_complete_and_takes_new_seeds(copy: Path, tmp_path: Path) -> None:
    assert compact(StudyFolder(copy).store).moved > 0
    counting = Counting()
    run_study(declared(tmp_path), copy, executor=counting)
    assert counting.runs == 0
    assert [p.name for p in (copy / "runs").iterdir()] == ["segments"]
    more = declared(tmp_path, SMALL.replace("[11, 12]", "[11, 12, 13]"))
    run_study(more, copy, executor=counting)
    assert counting.runs > 0
    assert len(RunStore(copy / "runs").loose_hashes()) == counting.runs


def test_every_record_damaged_at_once(undisturbed: Path, copy: Path, tmp_path: Path) -> None:
    for trial_hash in RunStore(copy / "runs").hashes():
        _edit(copy / "runs" / trial_hash)
    run_study(declared(tmp_path), copy, executor=Inline)
    assert essence(copy) == essence(undisturbed)


@pytest.mark.parametrize("name", ["study.json", "ledger.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}'])
def test_damaged_bookkeeping_is_written_anew(
    name: str, text: str, undisturbed: Path, copy: Path, tmp_path: Path
) -> None:
    (copy / name).write_text(text)
    run_study(declared(tmp_path), copy, executor=Counting())
    assert essence(copy) == essence(undisturbed)


@pytest.mark.parametrize("when", [1, 4, TRIALS])
def test_a_full_disk_loses_nothing(
    when: int, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0
    write = RunStore.write

    def full(self: RunStore, run: Run, *rest: Any) -> Path:
        nonlocal written
        written += 1
        if written == when:
            raise StoreError(f"cannot use {self.root}: the disk is full")
        return write(self, run, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "write", full)
        with pytest.raises(StoreError, match="the disk is full"):
            run_study(declared(tmp_path), tmp_path / "out", executor=Inline)
    assert len(RunStore(tmp_path / "out" / "runs").hashes()) >= when - 1
    run_study(declared(tmp_path), tmp_path / "out", executor=Inline)
    assert essence(tmp_path / "out") == essence(undisturbed)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[11, 12]", "[11]", r"with seeds \[11, 12\], now it has \[11\]"),
        ("[11, 12]", "[12, 13]", r"with seeds \[11, 12\], now it has \[12, 13\]"),
        (
            "epochs = 1\n",
            'epochs = 1\nmetric = { digits_logreg = "loss" }\n',
            "metric of digits_logreg accuracy, now",
        ),
        ("epochs = 1\n", "epochs = 1\nlevel = 0.2\n", "level 0.05, now it has 0.2"),
        ("epochs = 1\n", "epochs = 1\nequivalence_margin = 0.2\n", "equivalence_margin None, now"),
        ("seeds = [1]\n", 'seeds = [1]\nselect = "valid_accuracy"\n', "select valid_loss, now"),
    ],
)
def test_what_decides_stays_once_results_are_known(
    copy: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    before = essence(copy)
    changed = declared(tmp_path, SMALL.replace(old, new, 1))
    with pytest.raises(StoreError, match=message):
        run_study(changed, copy, executor=Inline)
    assert essence(copy) == before
    for entry in StudyFolder(copy).ledger():
        if entry.role == "reporting":
            shutil.rmtree(RunStore(copy / "runs").path(entry.trial_hash), ignore_errors=True)
    run_study(changed, copy, executor=Inline)  # nothing had reported
    assert "looked_at" not in StudyFolder(copy).declaration()


def test_seeds_added_when_some_had_reported_are_told(copy: Path, tmp_path: Path) -> None:
    folder = StudyFolder(copy)
    for entry in folder.ledger():
        if entry.role == "reporting" and (entry.seed == 12 or entry.problem == "digits_mlp"):
            shutil.rmtree(folder.store.path(entry.trial_hash), ignore_errors=True)
    more = declared(tmp_path, SMALL.replace("[11, 12]", "[11, 12, 13]"))
    run_study(more, copy, executor=Inline)
    assert folder.declaration()["looked_at"] == [1]


def test_a_damaged_ledger_opens_no_way_around(copy: Path, tmp_path: Path) -> None:
    (copy / "ledger.json").write_text("{")
    with pytest.raises(StoreError, match=r"level 0\.05, now it has 0\.2"):
        run_study(declared(tmp_path, "level = 0.2\n" + SMALL), copy, executor=Inline)


def test_other_algorithms_spaces_and_epochs_may_follow(copy: Path, tmp_path: Path) -> None:
    text = SMALL.replace("budget = 2", "budget = 3").replace('"Fixed"', '"Other"')
    run_study(declared(tmp_path, text), copy, executor=Inline)
    assert "looked_at" not in StudyFolder(copy).declaration()


def test_another_study_in_the_folder_is_left_alone(copy: Path, tmp_path: Path) -> None:
    before = essence(copy)
    with pytest.raises(StoreError, match="holds the study 'small': choose another folder"):
        run_study(declared(tmp_path, SMALL.replace('"small"', '"other"')), copy, executor=Inline)
    assert essence(copy) == before


def test_trials_that_diverge_are_charged_and_the_study_goes_on(tmp_path: Path) -> None:
    text = (
        SMALL.replace(
            'optimizer = "sgd"', 'optimizer = "sgd"\nspace = { lr = { low = 1e30, high = 1e35 } }'
        )
        .replace('sampler = "tpe"', 'sampler = "tpe"\nspace = { lr = { choice = [1e30, 1e35] } }')
        .replace('["digits_logreg", "digits_mlp"]', '["digits_mlp"]')
    )
    folder = run_study(declared(tmp_path, text), tmp_path / "out", executor=Inline)
    found = [
        (e, folder.store.read(e.trial_hash)) for e in folder.ledger() if e.algorithm != "Fixed"
    ]
    assert len(found) == 8
    assert all(isinstance(run, Run) and run.status is Status.DIVERGED for _, run in found)
    before = essence(tmp_path / "out")
    for trial_hash in folder.store.hashes()[::2]:
        shutil.rmtree(folder.store.path(trial_hash))
    run_study(declared(tmp_path, text), tmp_path / "out", executor=Inline)
    assert essence(tmp_path / "out") == before


def test_a_pruner_after_diverged_trials_and_started_again(tmp_path: Path) -> None:
    text = (
        SMALL.replace(
            'sampler = "tpe"',
            'budget = 4\nsampler = "grid"\n'
            'pruner = { name = "MedianPruner", n_startup_trials = 1 }\n'
            "space = { lr = { choice = [1e30, 0.01, 1e-9, 0.02] } }",
        )
        .replace('["digits_logreg", "digits_mlp"]', '["digits_mlp"]')
        .replace("epochs = 1", "epochs = 2")
    )
    folder = run_study(declared(tmp_path, text), tmp_path / "out", executor=Inline)
    runs = [folder.store.read(e.trial_hash) for e in folder.ledger() if e.algorithm == "Adam"]
    assert [str(run.status) for run in runs[:4] if isinstance(run, Run)] == [
        "diverged",
        "finished",
        "stopped",
        "finished",
    ]
    before = essence(tmp_path / "out")
    shutil.rmtree(folder.store.root)
    run_study(declared(tmp_path, text), tmp_path / "out", executor=Inline)
    assert essence(tmp_path / "out") == before


def test_an_optimizer_that_anneals_by_itself_is_not_annealed_again_without_a_word(
    tmp_path: Path,
) -> None:
    text = (
        'name = "twice"\nquestion = "?"\nproblems = ["digits_logreg"]\nepochs = 1\nseeds = [5]\n'
        'schedule = { name = "linear_decay" }\n[[algorithms]]\nlabel = "Mine"\n'
        'optimizer = "lark"\n'
    )
    events: list[Event] = []
    run_study(declared(tmp_path, text), tmp_path / "a", executor=Inline, on_event=events.append)
    assert "Mine is told the horizon, to anneal by itself" in events[0].message
    events.clear()
    exempt = declared(tmp_path, text + 'schedule = "none"\n')
    run_study(exempt, tmp_path / "b", executor=Inline, on_event=events.append)
    assert not any(event.warning for event in events)


def test_an_edited_optimizer_runs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    text = (
        'name = "own"\nquestion = "?"\nproblems = ["digits_logreg"]\nepochs = 1\nseeds = [5]\n'
        '[[algorithms]]\nlabel = "Mine"\noptimizer = "edited_in_place:Mine"\n'
        'tune = "none"\n'
    )
    accuracies = []
    for rate in (0.0, 0.1):
        (tmp_path / "edited_in_place.py").write_text(
            "import torch\n\n\nclass Mine(torch.optim.SGD):\n"
            f"    def __init__(self, params, lr={rate}):\n"
            "        super().__init__(params, lr=lr)\n"
        )
        sys.modules.pop("edited_in_place", None)  # as in another process
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        folder = run_study(declared(tmp_path, text), tmp_path / "out", executor=Inline)
        (entry,) = folder.ledger()
        run = folder.store.read(entry.trial_hash)
        assert isinstance(run, Run)
        accuracies.append(run.final["test_accuracy"])
    assert len(folder.store.hashes()) == 2
    assert accuracies[0] < 0.3 < accuracies[1]


def test_crashed_trials_run_again_where_that_is_asked_for(
    undisturbed: Path, tmp_path: Path
) -> None:
    shutil.copytree(undisturbed, tmp_path / "out")
    store = RunStore(tmp_path / "out" / "runs")
    entry = next(e for e in StudyFolder(tmp_path / "out").ledger() if e.role == "reporting")
    run = store.read(entry.trial_hash)  # a tuning trial that crashed could change the choice
    assert isinstance(run, Run)
    store.set_aside(run.trial.hash, even_good=True)
    store.write(replace(run, status=Status.CRASHED, reason="at step 0: a bug since mended"))
    study = declared(tmp_path)
    run_study(study, tmp_path / "out", executor=Inline)
    kept = store.read(run.trial.hash)
    assert isinstance(kept, Run)
    assert kept.status is Status.CRASHED
    events: list[Event] = []
    run_study(study, tmp_path / "out", executor=Inline, retry_crashed=True, on_event=events.append)
    assert essence(tmp_path / "out") == essence(undisturbed)
    assert any("a bug since mended" in event.message for event in events)


def test_a_study_decided_in_stages_is_not_taken_for_one_that_looks_once(tmp_path: Path) -> None:
    study = declared(tmp_path)
    run_study(study.with_stages([len(study.seeds), 9]), tmp_path / "out", executor=Inline)
    with pytest.raises(StoreError, match="go on with --until-decided"):
        run_study(study, tmp_path / "out", executor=Inline)


def test_a_schedule_shorter_than_the_horizon_is_refused_before_anything_runs(
    tmp_path: Path,
) -> None:
    schedule = '{ name = "OneCycleLR", total_steps = 12 }'
    text = SMALL.replace('{ name = "linear_decay" }', schedule).replace("epochs = 1", "epochs = 2")
    with pytest.raises(
        TrialError, match=r"Fixed on digits_logreg, whose horizon is 18 steps: .* 12$"
    ):
        run_study(declared(tmp_path, text), tmp_path / "out", executor=Inline)
    assert not RunStore(tmp_path / "out" / "runs").hashes()


def test_a_batch_larger_than_the_data_is_refused_before_anything_runs(tmp_path: Path) -> None:
    study = declared(tmp_path)
    name = study.problems[-1].name
    study = replace(study, batch_sizes={**study.batch_sizes, name: 100_000})
    with pytest.raises(TrialError, match="batch_size must be at most the"):
        run_study(study, tmp_path / "out", executor=Inline)
    assert not (tmp_path / "out").exists()
