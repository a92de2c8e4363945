"""Running a study: tune, then report on fresh seeds, resume after any interruption."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from optiscope.executors import Dispatch, WorkerError, available_cores, process_pool
from optiscope.optim import registry
from optiscope.problems import Problem
from optiscope.problems.data_at_hand import require_data
from optiscope.records import Run, Status, StudyFolder, Trial
from optiscope.study.ledger import Ledger
from optiscope.study.plan import Plan
from optiscope.study.redeclaration import check_redeclared
from optiscope.study.resolver import corners
from optiscope.study.study import Study
from optiscope.study.work import batches_of, record_trials, sweep_states, usable
from optiscope.train.loop import TrialError, check_batch
from optiscope.train.recipe import recipe_faults
from optiscope.train.schedule import anneals_twice

__all__ = ["Event", "WorkerError", "run_study"]


@dataclass(frozen=True)
class Event:
    """Progress of a study: trials done and planned, and what just happened, in words."""

    done: int
    total: int
    message: str
    warning: bool = False


def run_study(
    study: Study,
    folder: Path | str,
    *,
    workers: int | None = None,
    data_dir: Path | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    executor: Callable[[int], Executor] = process_pool,
    retry_crashed: bool = False,
) -> StudyFolder:
    """Run what of ``study`` is not yet recorded in ``folder``.

    Stopping it at any moment and calling it again gives the same records as one undisturbed call.
    Damaged records are set aside, reported through ``on_event``, and their trials run again.

    Args:
        study: from :func:`optiscope.study.load_study`.
        folder: where records, ledger and declaration are kept.
        workers: trials at a time; by default as many as cores allow at the study's threads.
        data_dir: where the data sets are.
        on_event: told of every trial that is done.
        executor: ``executor(workers)`` makes anything with the contract of
            ``concurrent.futures.Executor`` that can be entered as a context.
        retry_crashed: set records of crashed runs aside and run their trials again, once; a crash
            is an outcome otherwise.

    Raises:
        StoreError: the folder cannot be written, holds another study, or results of this one with
            another metric, level, margin, selection or without its seeds; what is recorded stays.
        MissingData: a data set is missing; nothing has run.
        TrialError: a trial cannot begin (see :func:`optiscope.train.run_trial`).
        WorkerError: worker processes die before they begin.
        TypeError: the executor runs trials in several threads.
    """
    for problem in study.problems:
        require_data(problem, data_dir)
    for problem in study.problems:
        _require_a_batch(problem, study.batch_sizes[problem.name], data_dir)
        _require_schedules(study, problem, data_dir)
    _warn_of_annealing(study, on_event)
    kept = StudyFolder(folder)
    looks = check_redeclared(study, kept)
    kept.write_declaration(study.to_dict() | ({"looked_at": looks} if looks else {}))
    kept.store.sweep()
    count = workers or _workers(study)
    if retry_crashed:
        _set_crashed_aside(kept, on_event)
    _run(Plan(study), kept, data_dir, lambda: executor(count), count, on_event)
    return kept


def _workers(study: Study) -> int:
    """As many as the cores can serve, and one for a GPU, whose memory they would share."""
    return 1 if study.device != "cpu" else max(1, available_cores() // study.threads)


def _warn_of_annealing(study: Study, on_event: Callable[[Event], None]) -> None:
    for algorithm in study.algorithms:
        schedule = algorithm.schedule
        if schedule and registry.get(algorithm.optimizer).horizon is not None:
            instead = 'give it schedule = "none"'
            message = anneals_twice(algorithm.label, schedule, instead)
            on_event(Event(0, 0, message, warning=True))


def _require_a_batch(problem: Problem, batch_size: int, data_dir: Path | None) -> None:
    """Raise TrialError where a batch that is not the problem's own is larger than its data."""
    if batch_size > problem.batch_size:
        check_batch(batch_size, len(problem.data(data_dir).train), problem.name)


def _set_crashed_aside(folder: StudyFolder, on_event: Callable[[Event], None]) -> None:
    for run in folder.store.scan():
        if isinstance(run, Run) and run.status is Status.CRASHED:
            aside = folder.store.set_aside(run.trial.hash, even_good=True)
            message = f"a run that crashed ({run.reason}) moved to {aside}: its trial runs again"
            on_event(Event(0, 0, message, warning=True))


def _require_schedules(study: Study, problem: Problem, data_dir: Path | None) -> None:
    """Raise TrialError where a schedule of torch's ends before the problem's horizon does."""
    recipes = {a.label: a.recipe.schedule or {"name": "linear_decay"} for a in study.algorithms}
    scheduled = [a for a in study.algorithms if recipes[a.label]["name"] != "linear_decay"]
    if not scheduled:
        return
    epochs = study.epochs[problem.name]
    steps = epochs * (len(problem.data(data_dir).train) // study.batch_sizes[problem.name])
    for algorithm in scheduled:
        bound = registry.bind(
            algorithm.optimizer, {**algorithm.fixed, **corners(algorithm.space)[0]}
        )
        faults = recipe_faults(
            study.recipe_of(algorithm), problem, bound.on_probe, steps=steps, epochs=epochs
        )
        for _, message in faults:
            raise TrialError(
                f"{algorithm.label} on {problem.name}, whose horizon is {steps} steps: {message}"
            )


def _run(
    plan: Plan,
    folder: StudyFolder,
    data_dir: Path | None,
    make_executor: Callable[[], Executor],
    workers: int,
    on_event: Callable[[Event], None],
) -> None:
    """Train what is planned and not recorded, and what is planned meanwhile."""

    def say(message: str, *, warning: bool = False) -> None:
        on_event(Event(plan.done, plan.total, message, warning))

    def warn(message: str) -> None:
        say(message, warning=True)

    def recorded(trial: Trial) -> Run | None:
        return usable(folder.store, trial, warn, metrics=plan.needs_curves)

    def submit_new() -> None:
        left: list[Trial] = []
        while new := plan.ask():
            for trial in new:
                run = recorded(trial)
                if run is None:
                    left.append(trial)
                else:
                    plan.tell(run)
        for batch in batches_of(left):
            dispatch.submit(batch)

    task = partial(
        record_trials,
        store=folder.store.root,
        data_dir=data_dir,
        keep=plan.study.keep,
        monitor=plan.study.monitor,
    )
    dispatch = Dispatch(make_executor, task, recorded, workers=workers, say=warn)
    ledger = Ledger(plan, folder)
    submit_new()
    ledger.write()
    told: set[tuple[str, str]] = set()  # each reason for a crash is shown once, at once
    data: set[str] = set()  # and so is each set of files that are not the published ones
    with closing(dispatch.outcomes()) as outcomes:
        for trial, run in outcomes:
            if folder.store.read(trial.hash, metrics=False) is None:
                folder.store.write(run)  # of one that no process could finish
            if (other := run.environment.get("data")) is not None and other not in data:
                data.add(other)
                warn(f"{trial.problem}: {other}")
            for whose in plan.tell(run):
                crashed = run.status is Status.CRASHED and (whose, run.reason) not in told
                told.add((whose, run.reason))
                say(f"{whose}: {run.reason if crashed else run.status}", warning=crashed)
            submit_new()
            ledger.write_soon()
    ledger.write()
    sweep_states(folder.store)
