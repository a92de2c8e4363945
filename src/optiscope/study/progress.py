"""How far a study is, as its folder tells: what is recorded, and what can be trained next."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from optiscope.records import Run, Status, StudyFolder, Trial
from optiscope.study.claims import Claims
from optiscope.study.ledger import Ledger
from optiscope.study.plan import Plan
from optiscope.study.study import Study
from optiscope.study.work import usable

__all__ = ["LOOK_SECONDS", "Progress", "plan_in", "study_in", "wait_until_recorded"]

LOOK_SECONDS = 2.0  # between looks at the folder, while others train
SILENT_SECONDS = 600.0  # without a worker, after which who waits is told


def study_in(folder: StudyFolder) -> Study:
    """The study that is declared in a folder, with the seeds and stages it has by now."""
    from optiscope.study.resolver import study_from_text

    declared = folder.declaration()
    study = study_from_text(declared["source"], f"{folder.path / 'study.json'}")
    stages = declared.get("until_decided")
    study = replace(study, seeds=tuple(declared["seeds"]), device=declared["device"])
    return study if stages is None else study.with_stages(stages["stages"])


class Progress:
    """A study's plan, told of every record that its folder holds.

    Args:
        study: what is asked.
        folder: where it is declared and recorded.
        say: told, in a line, of records that cannot be used.

    Attributes:
        open: trials that can be trained and are not recorded, by hash.
        ledger: of the folder; whoever looks writes the same.
    """

    def __init__(self, study: Study, folder: StudyFolder, say: Callable[[str], None]) -> None:
        self.plan, self.folder, self.say = Plan(study), folder, say
        self.open: dict[str, Trial] = {}
        self.ledger = Ledger(self.plan, folder)

    def look(self) -> None:
        """Take in what is recorded by now, and what can be planned from it."""
        while True:
            self.open.update((trial.hash, trial) for trial in self.plan.ask())
            present = self.open.keys() & set(self.folder.store.hashes())
            runs = [self.usable(self.open[name]) for name in sorted(present)]
            told = [run for run in runs if run is not None]
            for run in told:
                self.plan.tell(run)
                del self.open[run.trial.hash]
            if not told:
                return

    def usable(self, trial: Trial) -> Run | None:
        """The recorded run of a trial, where there is one that can be trusted."""
        return usable(self.folder.store, trial, self.say, metrics=self.plan.needs_curves)


def plan_in(study: Study, folder: StudyFolder) -> Plan:
    """A study's plan, told of the records in a folder that its workers will take; none is moved."""
    from optiscope.train.isolation import unlike_arithmetic

    plan = Plan(study)
    while True:
        recorded, told = set(folder.store.hashes()), 0
        for trial in plan.ask():
            run = (
                folder.store.read(trial.hash, metrics=plan.needs_curves)
                if trial.hash in recorded
                else None
            )
            if not isinstance(run, Run) or run.status is Status.INTERRUPTED:
                continue
            if run.imported is None and unlike_arithmetic(run.environment, flush_denormal=True):
                continue
            plan.tell(run)
            told += 1
        if not told:
            return plan


def wait_until_recorded(
    study: Study,
    folder: StudyFolder,
    *,
    on_look: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda message: None,
    every: float = LOOK_SECONDS,
) -> None:
    """Return once workers elsewhere have recorded all of a study; nothing is asked of a queue.

    Args:
        study: what is asked.
        folder: where its workers record it.
        on_look: told of parts done and planned, at every look.
        say: told, in a line, of bad records, and where no worker has been seen for ten minutes.
        every: seconds between two looks.
    """
    progress, claims = Progress(study, folder, say), Claims(folder.path)
    seen: float | None = time.monotonic()
    while True:
        progress.look()
        progress.ledger.write_soon()
        on_look(progress.plan.done, progress.plan.total)
        if not progress.open:
            progress.ledger.write()
            return
        if any(not stale for _, stale in claims.all()):
            seen = time.monotonic()
        elif seen is not None and time.monotonic() - seen > SILENT_SECONDS:
            seen = None  # once
            say(f"no worker was seen for {SILENT_SECONDS / 60:.0f} minutes: is its job pending?")
        time.sleep(every)
