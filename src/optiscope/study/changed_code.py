"""Code that is no longer what recorded runs were trained with: these run again."""

from __future__ import annotations

from collections import Counter

from optiscope.records import Run, StoreError, StudyFolder, Trial

__all__ = ["changed", "changed_since", "codes_of"]


def codes_of(trial: Trial) -> list[tuple[str, str]]:
    """Import paths of optimizer and problem that have one, with the digest of what was trained."""
    parts = ((trial.optimizer, trial.optimizer_code), (trial.problem, trial.problem_code))
    return [(path, code) for path, code in parts if code is not None]


def changed(codes: Counter[tuple[str, str]]) -> dict[str, int]:
    """Import paths whose code on disk is no longer what was trained, with numbers of runs.

    The code is read and never imported: the records may be anybody's.
    """
    from optiscope.study.source_digest import digests_on_disk

    found: Counter[str] = Counter()
    for (path, code), count in codes.items():
        now = digests_on_disk(path)
        if now and code not in now:
            found[path] += count
    return dict(found)


def changed_since(folder: StudyFolder) -> dict[str, int]:
    """:func:`changed` of the runs that a study's ledger names; empty where there is no study."""
    codes: Counter[tuple[str, str]] = Counter()
    try:
        names = {entry.trial_hash for entry in folder.ledger()}
    except StoreError:
        return {}
    for name in names:
        run = folder.store.read(name, metrics=False)
        if isinstance(run, Run):
            codes.update(codes_of(run.trial))
    return changed(codes)
