"""A study declared again in its folder: what may still change once results are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from optiscope.records import Run, Status, StoreError, StudyFolder
from optiscope.study.study import Study

__all__ = ["check_redeclared"]


def check_redeclared(study: Study, folder: StudyFolder) -> list[int]:
    """Refuse a folder of another study, and changes that could be made for their answer.

    Algorithms, problems, epochs and tuning spaces may change at any time: they ask for other runs.
    What decides from the same runs must stay as it was once one of them has reported: metric,
    level, margin, the figure that selects, and the seeds, to which others may be added.

    Returns:
        Numbers of reporting seeds whose results were known before more were declared; empty for
        a study that adds them in stages.

    Raises:
        StoreError: the folder holds another study, or results of this one declared otherwise.
    """
    try:
        declared = folder.declaration()
    except StoreError:
        return []  # none yet, or one that can no longer be read: it is written anew
    kept = declared["name"]
    if kept != study.name:
        raise StoreError(
            f"{folder.path} holds the study {kept!r}: choose another folder for {study.name!r}"
        )
    if declared.get("until_decided") and study.stages is None:
        stages = ", ".join(map(str, declared["until_decided"]["stages"]))
        raise StoreError(
            f"{folder.path} holds a study that is decided at {stages} seeds, whose level is shared "
            "among these looks: go on with --until-decided, or choose another folder"
        )
    changes = list(_changes(study, declared))
    looks: list[int] = list(declared.get("looked_at", ()))
    before = declared["seeds"]
    more = study.stages is None and len(study.seeds) > len(before)
    if changes or more:
        reported = _reported(folder)
        if changes and reported:
            what, old, new = changes[0]
            raise StoreError(
                f"{folder.path} holds results of this study with {what} {old}, now it has {new}: "
                "what is chosen after results are known is chosen for its answer; go back, or "
                "choose another folder and other seeds"
            )
        known = _known(reported, set(before), len(declared["algorithms"]))
        if more and known:
            looks.append(known)
    return looks


def _known(reported: Mapping[tuple[str, str], set[int]], seeds: set[int], algorithms: int) -> int:
    """Of how many seeds results could be compared; of a single algorithm, were known."""
    needed, counts = min(2, algorithms), dict[str, list[int]]()
    for (problem, _), found in reported.items():
        counts.setdefault(problem, []).append(len(found & seeds))
    enough = [sorted(each)[-needed] for each in counts.values() if len(each) >= needed]
    return max(enough, default=0)


def _changes(study: Study, declared: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """What decides from the same runs, with its old and its new value, where they differ."""
    now = study.to_dict()
    for name in ("level", "equivalence_margin"):
        if declared[name] != now[name]:
            yield name, declared[name], now[name]
    for name, default in (("compare", "all"), ("assumption", "symmetric")):
        old = declared.get(name) or default
        if old != now[name]:
            yield name, old, now[name]
    old, new = declared["tuning"]["select"], now["tuning"]["select"]
    if old != new:
        yield "select", old, new
    old, new = declared["tuning"].get("proposals", 1), now["tuning"]["proposals"]
    drawn = any(a["space"] and a["sampler"] != "grid" for a in declared["algorithms"])
    if old != new and drawn:
        yield "tuning points drawn by rule", old, f"rule {new} of another version of optiscope"
    for problem, metric in now["metric"].items():
        old = declared["metric"].get(problem, metric)
        if old != metric:
            yield f"metric of {problem}", old, metric
    lost = set(declared["seeds"]) - set(now["seeds"])
    if lost and study.stages is None:
        yield "seeds", declared["seeds"], now["seeds"]


def _reported(folder: StudyFolder) -> dict[tuple[str, str], set[int]]:
    """Seeds that have reported, by problem and algorithm."""
    try:
        entries = folder.ledger()
    except StoreError:  # damaged: whoever they were of
        runs = [run for run in folder.store.scan() if isinstance(run, Run)]
        return {
            (run.trial.problem, name): {r.trial.seed for r in runs}
            for run in runs
            if run.status is not Status.INTERRUPTED
            for name in ("", "?")
        }
    found: dict[tuple[str, str], set[int]] = {}
    for entry in entries:
        if entry.role != "reporting":
            continue
        run = folder.store.read(entry.trial_hash, metrics=False)
        if isinstance(run, Run) and run.status is not Status.INTERRUPTED:
            found.setdefault((entry.problem, entry.algorithm), set()).add(entry.seed)
    return found
