"""A study that is stopped, damaged or starved finishes with the records of an undisturbed one."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from deadly_problem import DEATHS_VARIABLE, allow_deaths
from small_studies import SMALL, TRIALS, Inline, essence

from optiscope.records import Run, RunStore, Status, StoreError, StudyFolder
from optiscope.report import write_report
from optiscope.stats.claims import Claim, study_claims
from optiscope.study import Event, Study, load_study, run_study
from optiscope.study import runner as runner_module
from optiscope.study.runner import DEATHS_ALONE, WorkerError
from optiscope.train import TrialError


def declared(folder: Path, text: str = SMALL) -> Study:
    path = folder / "study.toml"
    path.write_text(text)
    return load_study(path)


def forked(workers: int) -> ProcessPoolExecutor:
    """A real pool whose processes need not import torch again."""
    return ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("fork"),
        initializer=torch.set_num_threads,
        initargs=(1,),
    )


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """A process that is forked must not have used more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    events: list[Event] = []
    run_study(declared(folder), folder / "out", executor=Inline, on_event=events.append)
    assert (events[-1].done, events[-1].total) == (TRIALS, TRIALS)
    assert not any(event.warning for event in events)
    return folder / "out"


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


def test_several_processes_give_the_same_records(undisturbed: Path, tmp_path: Path) -> None:
    run_study(declared(tmp_path), tmp_path / "out", workers=2, executor=forked)
    assert essence(tmp_path / "out") == essence(undisturbed)


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

    def full(self: RunStore, run: Run) -> Path:
        nonlocal written
        written += 1
        if written == when:
            raise StoreError(f"cannot use {self.root}: the disk is full")
        return write(self, run)

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "write", full)
        with pytest.raises(StoreError, match="the disk is full"):
            run_study(declared(tmp_path), tmp_path / "out", executor=Inline)
    assert len(RunStore(tmp_path / "out" / "runs").hashes()) >= when - 1
    run_study(declared(tmp_path), tmp_path / "out", executor=Inline)
    assert essence(tmp_path / "out") == essence(undisturbed)


def test_a_trial_that_cannot_begin_ends_the_study_in_one_line(tmp_path: Path) -> None:
    study = declared(tmp_path, SMALL.replace("batch_size = 128", "batch_size = 5000"))
    with pytest.raises(TrialError, match="batch_size must be at most"):
        run_study(study, tmp_path / "out", workers=2, executor=forked)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there_ends_the_study_in_one_line(tmp_path: Path) -> None:
    study = declared(tmp_path, 'device = "cuda"\n' + SMALL)
    with pytest.raises(TrialError, match="needs a GPU"):
        run_study(study, tmp_path / "out", workers=1, executor=forked)


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


def test_a_gpu_has_one_worker_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several would share its memory, and the first to ask for too much would count as crashed."""
    monkeypatch.setattr(runner_module, "available_cores", lambda: 64)
    study = declared(tmp_path)
    assert runner_module._workers(study) == 64
    assert runner_module._workers(replace(study, threads=8)) == 8
    assert runner_module._workers(replace(study, device="cuda")) == 1


DEADLY = SMALL.replace('"digits_mlp"', '"deadly_problem:problem"')


@pytest.fixture
def deaths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    allow_deaths(tmp_path / "deaths", 0)
    monkeypatch.setenv(DEATHS_VARIABLE, str(tmp_path / "deaths"))
    return tmp_path / "deaths"


@pytest.mark.parametrize("kills", [1, 3])
def test_a_worker_that_is_killed_is_replaced(kills: int, deaths: Path, tmp_path: Path) -> None:
    study = declared(tmp_path, DEADLY)
    run_study(study, tmp_path / "undisturbed", executor=Inline)
    allow_deaths(deaths, kills)
    events: list[Event] = []
    run_study(study, tmp_path / "out", workers=2, executor=forked, on_event=events.append)
    warnings = [event.message for event in events if event.warning]
    assert 1 <= len(warnings) <= kills  # two may die in one moment
    assert not list(deaths.iterdir())
    assert all("killed" in warning for warning in warnings)
    assert (events[-1].done, events[-1].total) == (TRIALS, TRIALS)
    assert essence(tmp_path / "out") == essence(tmp_path / "undisturbed")


def test_only_what_can_have_begun_is_suspected(tmp_path: Path, undisturbed: Path) -> None:
    """Two workers and five submitted trials, of which the first was recorded before the death."""
    kept = StudyFolder(tmp_path / "out")
    runner = runner_module._Runner(declared(tmp_path), kept, None, lambda event: None)
    for pair in runner.pairs:
        runner._advance(pair)
    submitted = [runner.ready.popleft() for _ in range(5)]
    recorded = RunStore(undisturbed / "runs").read(submitted[0][1].hash)
    assert isinstance(recorded, Run)
    kept.store.write(recorded)
    runner._requeue({Future(): one for one in submitted}, 2)
    hashes = [trial.hash for _, trial in submitted]
    assert runner.suspects == set(hashes[1:3])
    assert [trial.hash for _, trial in runner.ready][:5] == hashes


def test_a_trial_that_always_kills_its_process_is_recorded_and_the_others_finish(
    deaths: Path, tmp_path: Path
) -> None:
    text = DEADLY.replace("budget = 2", "budget = 1").replace("[11, 12]", "[11]")
    allow_deaths(deaths, 200)
    folder = run_study(declared(tmp_path, text), tmp_path / "out", workers=2, executor=forked)
    for entry in folder.ledger():
        run = folder.store.read(entry.trial_hash)
        assert isinstance(run, Run)
        if entry.problem == "deadly":
            assert run.status is Status.CRASHED
            assert run.reason.startswith(f"its process was killed {DEATHS_ALONE} times")
        else:
            assert run.status is Status.FINISHED
    trials = sum(entry.problem == "deadly" for entry in folder.ledger())
    assert 200 - len(list(deaths.iterdir())) <= trials * (DEATHS_ALONE + 2)


def test_a_problem_at_an_import_path_keeps_its_path_in_the_record(
    deaths: Path, tmp_path: Path
) -> None:
    folder = run_study(declared(tmp_path, DEADLY), tmp_path / "out", executor=Inline)
    entry = next(e for e in folder.ledger() if e.problem == "deadly")
    run = folder.store.read(entry.trial_hash)
    assert isinstance(run, Run)
    assert run.trial.problem == "deadly_problem:problem"


def test_an_edited_optimizer_runs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    text = (
        'name = "own"\nquestion = "?"\nproblems = ["digits_logreg"]\nepochs = 1\nseeds = [5]\n'
        '[[algorithms]]\nlabel = "Mine"\noptimizer = "edited_in_place:Mine"\n'
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


def test_a_pool_that_breaks_while_trials_are_handed_over_loses_none(
    undisturbed: Path, tmp_path: Path
) -> None:
    from concurrent.futures import BrokenExecutor

    submitted = 0

    class Fragile(Inline):
        """Refuses the third task of all, as a pool does whose worker has died meanwhile."""

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            nonlocal submitted
            submitted += 1
            if submitted == 3:
                raise BrokenExecutor("a worker died")
            return super().submit(fn, *args, **kwargs)

    run_study(declared(tmp_path), tmp_path / "out", workers=2, executor=Fragile)
    assert essence(tmp_path / "out") == essence(undisturbed)


class NeverAlive(Executor):
    """Workers that die whatever they are given."""

    def submit(self, *_: Any, **__: Any) -> Any:
        future: Future[None] = Future()
        future.set_exception(BrokenExecutor("no worker"))
        return future


def test_workers_that_cannot_start_end_the_study_and_blame_no_trial(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="die before they begin"):
        run_study(declared(tmp_path), tmp_path / "out", executor=lambda _: NeverAlive())
    assert not RunStore(tmp_path / "out" / "runs").hashes()


def test_threads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="an executor of processes, or one thread"):
        run_study(declared(tmp_path), tmp_path / "out", executor=ThreadPoolExecutor, workers=2)


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
