"""The races of a speed study, read from its records: a study folder for each part of T."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from optiscope.records import StoreError, StudyFolder, higher_is_better
from optiscope.stats.evidence import Evidence, outcome, read_evidence
from optiscope.stats.speed import Race

__all__ = ["part_folder", "races", "read_races"]


def part_folder(folder: Path | str, part: int) -> Path:
    """Where the runs over T / ``part`` of a speed study are kept."""
    return Path(folder) / f"part-{part}"


def read_races(folder: Path | str) -> list[Race]:
    """Every race of a speed study that is complete, in the order of problems and algorithms.

    Horizons of which runs are still to come are left out; so are algorithms that reach the
    baseline's loss at none before the longest one is done, and problems on which the better
    baseline is not.

    Raises:
        StoreError: the folder holds no speed study.
    """
    whole = read_evidence(StudyFolder(part_folder(folder, 1)))
    declared = whole.declaration.get("speed")
    if not declared:
        raise StoreError(f"{folder} holds no speed study: its declaration has no table [speed]")
    parts = {1: whole}
    for part in declared["parts"]:
        place = part_folder(folder, part)
        if part != 1 and (place / "study.json").is_file():
            parts[part] = read_evidence(StudyFolder(place))
    return races(parts, list(declared["baselines"]))


def races(parts: Mapping[int, Evidence], baselines: Sequence[str]) -> list[Race]:
    """Races between the better baseline and every other algorithm.

    Args:
        parts: evidence by part: of the runs over T / part.
        baselines: labels; of these the one whose tuning found the better validation figure is
            the baseline, problem by problem.
    """
    whole = parts[1]
    figure = str(whole.declaration["tuning"]["select"])
    sign = -1.0 if higher_is_better(figure) else 1.0
    seeds = [int(seed) for seed in whole.declaration["seeds"]]
    found = []
    for problem in whole.problems:
        baseline = _better(whole, problem, baselines, figure, sign)
        if baseline is None or not _done(whole, problem, baseline, seeds):
            continue
        for label in whole.labels:
            shares = sorted(
                (1.0 / part, part)
                for part, evidence in parts.items()
                if _done(evidence, problem, label, seeds)
            )
            if label in baselines or not shares:
                continue
            ends = [
                [_end(parts[part], problem, label, seed, figure) for _, part in shares]
                for seed in seeds
            ]
            goals = [_end(whole, problem, baseline, seed, figure) for seed in seeds]
            if not all(math.isfinite(loss) for loss, _ in goals):
                continue
            reached = any(
                sum(sign * loss for loss, _ in column) <= sum(sign * loss for loss, _ in goals)
                for column in zip(*ends, strict=True)
            )
            if shares[-1][0] < 1.0 and not reached:
                continue  # longer horizons may reach it: not a bound, but work to do
            found.append(
                Race(
                    problem,
                    label,
                    baseline,
                    tuple(share for share, _ in shares),
                    tuple(tuple(sign * loss for loss, _ in row) for row in ends),
                    tuple(tuple(seconds for _, seconds in row) for row in ends),
                    tuple(sign * loss for loss, _ in goals),
                    tuple(seconds for _, seconds in goals),
                )
            )
    return found


def _better(
    whole: Evidence, problem: str, baselines: Sequence[str], figure: str, sign: float
) -> str | None:
    """The baseline with the best figure in its tuning; an untuned one by its reporting runs."""
    best: tuple[float, str] | None = None
    for label in baselines:
        parts = whole.tuning.get((problem, label)) or [
            *whole.reporting.get((problem, label), {}).values()
        ]
        ends = [sign * outcome(part.run, figure) for part in parts if part.run is not None]
        finite = [end for end in ends if math.isfinite(end)]
        if finite:
            mine = (min(finite), label)
            best = mine if best is None else min(best, mine, key=lambda pair: pair[0])
    return None if best is None else best[1]


def _done(evidence: Evidence, problem: str, label: str, seeds: Sequence[int]) -> bool:
    """Whether all reporting seeds came to an outcome."""
    parts = evidence.reporting.get((problem, label), {})
    return all(seed in parts and parts[seed].recorded for seed in seeds)


def _end(
    evidence: Evidence, problem: str, label: str, seed: int, figure: str
) -> tuple[float, float]:
    """Final figure and processor seconds of training of one run; NaN where it failed."""
    run = evidence.reporting[problem, label][seed].run
    assert run is not None
    end = outcome(run, figure)
    return end, run.training_seconds.cpu if math.isfinite(end) else math.nan
