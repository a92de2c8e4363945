"""The ledger holds what is planned, and writing a long one takes a small part of the time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from small_studies import declared

from optiscope.records import Entry, Run, Status, StudyFolder
from optiscope.study.ledger import TIMES, Ledger
from optiscope.study.plan import Plan

LONG = """\
name = "long"
question = "Which?"
problems = ["digits_logreg", "digits_mlp"]
epochs = 1
seeds = [11, 12, 13]

[tuning]
budget = 300
seeds = [1, 2]

[[algorithms]]
optimizer = "sgd"

[[algorithms]]
label = "one by one"
optimizer = "adam"
sampler = "tpe"
"""


class Slow(StudyFolder):
    """Takes three seconds, by a clock of its own, to write a ledger."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.now, self.written = 0.0, list[int]()

    def write_ledger(self, entries: Sequence[Entry]) -> None:
        super().write_ledger(entries)
        self.now += 3.0
        self.written.append(len(entries))


def told(plan: Plan) -> None:
    """Tell a plan that what it asks for has crashed."""
    for trial in plan.ask():
        plan.tell(Run.unstarted(trial, Status.CRASHED, "no reason"))


def test_a_ledger_is_written_a_twentieth_of_the_time(tmp_path: Path) -> None:
    plan, folder = Plan(declared(tmp_path)), Slow(tmp_path)
    ledger = Ledger(plan, folder, clock=lambda: folder.now)
    ledger.write_soon()
    first = len(plan.entries)
    ledger.write_soon()
    assert folder.written == [first]  # there is nothing to add
    told(plan)
    second = len(plan.entries)
    assert second > first
    folder.now += 3.0 * TIMES - 0.1
    ledger.write_soon()
    assert folder.written == [first]
    folder.now += 0.1
    ledger.write_soon()
    assert folder.written == [first, second]


def test_at_the_end_all_of_it_is_written(tmp_path: Path) -> None:
    plan, folder = Plan(declared(tmp_path)), Slow(tmp_path)
    ledger = Ledger(plan, folder, clock=lambda: folder.now)
    ledger.write_soon()
    for _ in range(10):
        told(plan)
        ledger.write_soon()
    ledger.write()
    assert folder.ledger() == plan.entries
    assert len(folder.written) == 2


def test_runs_told_in_any_order_are_planned_alike(tmp_path: Path) -> None:
    """Also where one trial is several proposals, and where the seeds of a proposal come apart."""
    text = LONG.replace(
        'optimizer = "sgd"', 'optimizer = "sgd"\nspace = { lr = { choice = [0.1, 0.2] } }'
    )
    study = declared(tmp_path, text.replace("budget = 300", "budget = 5"))
    plans = Plan(study), Plan(study)
    for _ in itertools.takewhile(lambda step: plans[0].done < plans[0].total, range(50)):
        asked = [plan.ask() for plan in plans]
        assert {t.hash for t in asked[0]} == {t.hash for t in asked[1]}
        for plan, trials in zip(plans, (asked[0], asked[0][::-1]), strict=True):
            for trial in trials:
                value = trial.hyperparameters["lr"] + trial.seed
                run = Run.unstarted(trial, Status.FINISHED, "done")
                run = Run(**{**vars(run), "final": {study.select: value}})
                plan.tell(run)
                plan.tell(run)
    assert plans[0].entries == plans[1].entries
    assert plans[0].done == plans[0].total == plans[1].done
