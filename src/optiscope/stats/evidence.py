"""What a study's records hold for a comparison: the runs that tuned and the runs that report."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from optiscope.errors import shorten
from optiscope.records import DamagedRecord, Entry, Run, Status, StudyFolder, higher_is_better
from optiscope.records.trial import canonical_json
from optiscope.stats.comparison import Assumption

__all__ = ["Evidence", "Part", "outcome", "read_evidence"]


@dataclass(frozen=True)
class Part:
    """A planned trial and its record, if there is one that can be trusted."""

    entry: Entry
    run: Run | None

    def mismatch(self, problem: str) -> str | None:
        """What the record that the entry names says otherwise than the entry; None where nothing.

        Args:
            problem: by which the study names the entry's problem to the trial: a name or a path.
        """
        if self.run is None:
            return None
        trial, entry = self.run.trial, self.entry
        if trial.seed != entry.seed:
            return f"seed {entry.seed}, its record has seed {trial.seed}"
        if trial.problem not in (problem, entry.problem):
            return f"problem {entry.problem}, its record is of {shorten(trial.problem)}"
        ours, theirs = (
            canonical_json(dict(h)) for h in (entry.hyperparameters, trial.hyperparameters)
        )
        if ours != theirs:
            return f"hyperparameters {shorten(ours)}, its record has {shorten(theirs)}"
        return None

    @property
    def recorded(self) -> bool:
        """Whether the trial came to an outcome; an interrupted run is none."""
        return self.run is not None and self.run.status is not Status.INTERRUPTED


@dataclass(frozen=True)
class Evidence:
    """Runs of a study by problem and algorithm.

    Attributes:
        declaration: the resolved declaration.
        tuning: per (problem, label), in order of the ledger.
        reporting: per (problem, label) and seed.
    """

    declaration: Mapping[str, Any]
    tuning: Mapping[tuple[str, str], list[Part]]
    reporting: Mapping[tuple[str, str], dict[int, Part]]

    @property
    def labels(self) -> list[str]:
        """Labels of the algorithms in the user's order."""
        return [str(entry["label"]) for entry in self.declaration["algorithms"]]

    @property
    def problems(self) -> list[str]:
        """Names of the problems in the user's order."""
        return list(self.declaration["problems"])

    @property
    def compare(self) -> str:
        """Which comparisons the study makes: ``all``, with the ``baseline`` or the ``leader``."""
        return str(self.declaration.get("compare") or "all")

    @property
    def pairs(self) -> list[tuple[str, str, str]]:
        """Every problem with the two algorithms of each of its comparisons.

        They are the family that is corrected together: every two algorithms, or each with the
        baseline where the study declares ``compare = "baseline"``. Which algorithm leads is known
        only afterwards, so that ``compare = "leader"`` is corrected for every two.
        """
        pairs = list(combinations(self.labels, 2))
        if self.compare == "baseline":
            baseline = str(self.declaration["reference"])
            pairs = [pair for pair in pairs if baseline in pair]
        return [(problem, a, b) for problem in self.problems for a, b in pairs]

    @property
    def ended(self) -> list[tuple[Entry, Run]]:
        """Every ledger entry that has a run, with it."""
        parts = [part for parts in self.tuning.values() for part in parts]
        parts += [part for seeds in self.reporting.values() for part in seeds.values()]
        return [(part.entry, part.run) for part in parts if part.run is not None]

    @property
    def assumption(self) -> Assumption:
        """What the study assumes of differences between algorithms that perform alike."""
        return "normal" if self.declaration.get("assumption") == "normal" else "symmetric"

    def algorithm(self, label: str) -> Mapping[str, Any]:
        """The declared algorithm of that label; raises KeyError."""
        for entry in self.declaration["algorithms"]:
            if entry["label"] == label:
                algorithm: Mapping[str, Any] = entry
                return algorithm
        raise KeyError(label)

    def metric(self, problem: str) -> str:
        """The reported metric on the test split: ``accuracy`` or ``loss``."""
        return str(self.declaration["metric"][problem])

    def margin(self, problem: str) -> float | None:
        """The declared margin of equivalence, or None."""
        margin = self.declaration.get("equivalence_margin")
        if isinstance(margin, Mapping):
            margin = margin.get(problem)
        return None if margin is None else float(margin)

    @property
    def stages(self) -> tuple[int, ...] | None:
        """Numbers of seeds at which the study was declared to look; None where it looks once."""
        declared = self.declaration.get("until_decided")
        return None if declared is None else tuple(int(n) for n in declared["stages"])

    def settings_tried(self, problem: str, label: str) -> int:
        """Number of different hyperparameters among the proposals of a tuning.

        A sampler may propose one point again, of a choice of two for example: its trial is the
        same, so that nothing more is learned from it.
        """
        parts = self.tuning.get((problem, label), [])
        return len({canonical_json(dict(part.entry.hyperparameters)) for part in parts})

    def common_seeds(self, problem: str, a: str, b: str) -> list[int]:
        """Seeds planned for both, in the declared order."""
        planned = [self.reporting.get((problem, label), {}) for label in (a, b)]
        seeds = [s for s in self.declaration["seeds"] if all(s in p for p in planned)]
        return seeds + sorted((planned[0].keys() & planned[1].keys()) - set(seeds))

    def leader(self, problem: str) -> str | None:
        """The algorithm with fewest failed runs and then the best mean; None without any run."""
        best: tuple[tuple[int, float], str] | None = None
        sign = -1 if higher_is_better(self.metric(problem)) else 1
        for label in self.labels:
            seeds = list(self.reporting.get((problem, label), {}))
            values = self.values(problem, label, seeds) if seeds else []
            finite = [v for v in values if math.isfinite(v)]
            if finite:
                mean = sign * sum(finite) / len(finite)
                place = (len(values) - len(finite), mean)
                best = min(best, (place, label)) if best is not None else (place, label)
        return None if best is None else best[1]

    def values(self, problem: str, label: str, seeds: list[int]) -> list[float]:
        """Final test values of the recorded runs of these seeds; NaN where one failed."""
        parts = self.reporting[problem, label]
        key = f"test_{self.metric(problem)}"
        return [outcome(run, key) for s in seeds if (run := parts[s].run) is not None]


def read_evidence(folder: StudyFolder) -> Evidence:
    """Runs of every ledger entry, without their curves; damaged records count as not there.

    Raises:
        StoreError: the folder holds no study, or cannot be read.
        ValueError: two algorithms share a label, so that their entries cannot be told apart.
    """
    declaration = folder.declaration()
    labels = [str(entry["label"]) for entry in declaration["algorithms"]]
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise ValueError(
            f"two algorithms are labelled {twice!r}: give each search space a label of its own"
        )
    tuning: dict[tuple[str, str], list[Part]] = defaultdict(list)
    reporting: dict[tuple[str, str], dict[int, Part]] = defaultdict(dict)
    read: dict[str, Run | None] = {}
    for entry in folder.ledger():
        if entry.trial_hash not in read:
            found = folder.store.read(entry.trial_hash, metrics=False)
            read[entry.trial_hash] = None if isinstance(found, DamagedRecord) else found
        part, key = Part(entry, read[entry.trial_hash]), (entry.problem, entry.algorithm)
        if entry.role == "tuning":
            tuning[key].append(part)
        else:
            reporting[key][entry.seed] = part
    return Evidence(declaration, dict(tuning), dict(reporting))


def outcome(run: Run, key: str) -> float:
    """Final value of ``split_name``; NaN for a run that failed: divergence is an outcome."""
    return run.final.get(key, math.nan) if run.status.complete else math.nan
