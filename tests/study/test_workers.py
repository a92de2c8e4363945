"""A study's worker processes: replaced when killed, counted, and never what a record depends on."""

from __future__ import annotations

import multiprocessing
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
from small_studies import SMALL, TRIALS, Inline, declared, essence

from optiscope.executors import Dispatch, WorkerError
from optiscope.executors.dispatch import MAX_DEATHS
from optiscope.records import Run, RunStore, Status, Trial
from optiscope.study import Event, run_study
from optiscope.study import runner as runner_module
from optiscope.train import TrialError


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


def test_several_processes_give_the_same_records(undisturbed: Path, tmp_path: Path) -> None:
    run_study(declared(tmp_path), tmp_path / "out", workers=2, executor=forked)
    assert essence(tmp_path / "out") == essence(undisturbed)


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


def trials(count: int) -> list[Trial]:
    return [Trial("digits_logreg", 1, "sgd", {"lr": 0.1}, seed, 1, 128) for seed in range(count)]


def finished(trial: Trial) -> Run:
    return Run.unstarted(trial, Status.FINISHED, "done")


def test_only_what_can_have_begun_is_suspected() -> None:
    """Two workers and four submitted trials, of which the first was recorded before the death."""
    ran: list[int] = []
    recorded: dict[str, Run] = {}

    class Dying(ProcessPoolExecutor):
        """Its first worker dies once four trials are submitted."""

        submitted = 0

        def __init__(self) -> None:
            pass

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            future: Future[Any] = Future()
            Dying.submitted += 1
            if Dying.submitted < 4:
                return future
            if Dying.submitted == 4:
                future.set_exception(BrokenExecutor("a worker died"))
                recorded[jobs[0].hash] = finished(jobs[0])
                return future
            future.set_result(fn(*args, **kwargs))
            return future

        def terminate(self) -> None: ...

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None: ...

    def task(one: list[Trial]) -> None:
        ran.extend(trial.seed for trial in one)
        suspects.append([h for h, losses in dispatch._losses.items() if losses.suspect])
        recorded.update((trial.hash, finished(trial)) for trial in one)

    suspects: list[list[str]] = []
    jobs = trials(4)
    dispatch = Dispatch(Dying, task, lambda t: recorded.get(t.hash), workers=2)
    for job in jobs:
        dispatch.submit([job])
    assert {trial.seed for trial, _ in dispatch.outcomes()} == {0, 1, 2, 3}
    assert ran == [1, 2, 3]
    assert suspects[0] == [jobs[1].hash, jobs[2].hash]


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
            assert run.reason.startswith(f"its process was killed {MAX_DEATHS} times")
        else:
            assert run.status is Status.FINISHED
    count = sum(entry.problem == "deadly" for entry in folder.ledger())
    assert 200 - len(list(deaths.iterdir())) <= count * (MAX_DEATHS + 2)


def test_a_problem_at_an_import_path_keeps_its_path_in_the_record(
    deaths: Path, tmp_path: Path
) -> None:
    folder = run_study(declared(tmp_path, DEADLY), tmp_path / "out", executor=Inline)
    entry = next(e for e in folder.ledger() if e.problem == "deadly")
    run = folder.store.read(entry.trial_hash)
    assert isinstance(run, Run)
    assert run.trial.problem == "deadly_problem:problem"


def test_a_pool_that_breaks_while_trials_are_handed_over_loses_none(
    undisturbed: Path, tmp_path: Path
) -> None:
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


def test_a_trial_that_cannot_begin_ends_the_study_in_one_line(tmp_path: Path) -> None:
    study = declared(tmp_path, SMALL.replace("batch_size = 128", "batch_size = 5000"))
    with pytest.raises(TrialError, match="batch_size must be at most"):
        run_study(study, tmp_path / "out", workers=2, executor=forked)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there_ends_the_study_in_one_line(tmp_path: Path) -> None:
    study = declared(tmp_path, 'device = "cuda"\n' + SMALL)
    with pytest.raises(TrialError, match="needs a GPU"):
        run_study(study, tmp_path / "out", workers=1, executor=forked)
