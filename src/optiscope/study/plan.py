"""What of a study is still to be trained: it asks for trials and is told their runs.

Pure: it knows no futures, no folders and no clock. Told the same runs, in whatever order they
end, it asks for the same trials and hands out the same parts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import takewhile
from math import isfinite
from typing import Any

from optiscope.problems import Problem
from optiscope.records import Entry, Run, Status, Trial, higher_is_better
from optiscope.study.study import Algorithm, Study
from optiscope.study.tuning import Tuning

__all__ = ["Plan"]


@dataclass(eq=False)
class _Pair:
    """One algorithm on one problem: its tuning, then its reporting runs.

    Trials go by their hashes: those of each point that is not told yet, and the points of each.
    """

    algorithm: Algorithm
    problem: Problem
    tuning: Tuning | None
    entries: list[Entry] = field(default_factory=list)
    trials: dict[str, Trial] = field(default_factory=dict)
    open_points: dict[int, list[str]] = field(default_factory=dict)
    points_of: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    reporting: bool = False

    def __str__(self) -> str:
        return f"{self.algorithm.label} on {self.problem.name}"


class Plan:
    """The trials of a study, as far as they can be known.

    A tuning's proposals are asked for at once, or one after the other where the next depends on
    the values of those before it; reporting follows when a tuning is done.

    Args:
        study: what is asked.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self._pairs = [
            _Pair(algorithm, problem, self._tuning_of(algorithm, problem))
            for problem in study.problems
            for algorithm in study.algorithms
        ]
        self._new: list[Trial] = []
        self._asked: dict[str, list[_Pair]] = defaultdict(list)
        self._played = Counter[str]()
        self._runs: dict[str, Run] = {}
        for pair in self._pairs:
            self._advance(pair)

    @property
    def total(self) -> int:
        """Parts that runs play in the whole study; one run may play several."""
        return sum(self._parts(pair) for pair in self._pairs)

    @property
    def done(self) -> int:
        """Parts of the runs that were told."""
        return sum(self._played[name] for name in self._runs)

    @property
    def left(self) -> int:
        """Parts of which no run was told, those included that are yet to be planned."""
        left = sum(entry.trial_hash not in self._runs for entry in self.entries)
        for pair in self._pairs:
            if not pair.reporting:
                left += self._parts(pair) - len(pair.entries)
        return left

    @property
    def entries(self) -> list[Entry]:
        """The parts known so far, in the user's order."""
        return [entry for pair in self._pairs for entry in pair.entries]

    @property
    def needs_curves(self) -> bool:
        """Whether a run must be told with its metrics."""
        return any(algorithm.recipe.pruner is not None for algorithm in self.study.algorithms)

    @property
    def width(self) -> int:
        """How many trials can run at once from now on: tunings that learn go one by one."""
        open_trials = sum(name not in self._runs for name in self._asked)
        return max(open_trials, 1)

    def widest(self) -> list[Trial]:
        """Trials that can run at once when the most can, from now on.

        Of each pair those of its tuning that are open, or those that report after it, whichever
        are more. Hyperparameters that are yet to be tuned are left out of the latter.
        """
        known: dict[str, Trial] = {}
        later: list[Trial] = []
        for pair in self._pairs:
            still = {name: t for name, t in pair.trials.items() if name not in self._runs}
            if pair.reporting or len(still) >= len(self.study.seeds):
                known |= still
            else:
                later += [
                    self.study.trial(pair.algorithm, pair.problem, {}, seed)
                    for seed in self.study.seeds
                ]
        return [*known.values(), *later]

    def ask(self) -> list[Trial]:
        """Trials that can be trained and were not asked for before."""
        new, self._new = self._new, []
        return new

    def tell(self, run: Run) -> list[str]:
        """Take in a run of a trial that was asked for.

        Returns:
            Whose it is, in words: "SGD on digits_mlp".
        """
        name = run.trial.hash
        pairs = list(self._asked.get(name, ()))
        known = name in self._runs
        self._runs[name] = run
        for pair in pairs:
            for index in pair.points_of.get(name, ()):
                self._settle(pair, index)
            self._advance(pair)
        return [] if known else [str(pair) for pair in pairs]

    def _tuning_of(self, algorithm: Algorithm, problem: Problem) -> Tuning | None:
        if not algorithm.tuned:
            return None
        return Tuning(
            algorithm,
            [self.study.name, problem.name],
            lower_is_better=not higher_is_better(self.study.select),
        )

    def _parts(self, pair: _Pair) -> int:
        """Parts of a pair: its tuning and its reporting."""
        return pair.algorithm.budget * len(self.study.tuning_seeds) + len(self.study.seeds)

    def _advance(self, pair: _Pair) -> None:
        """Plan what of a pair can be planned now."""
        tuning = pair.tuning
        while tuning is not None and (proposal := tuning.ask()) is not None:
            index, point = proposal
            trials = [self._tuning_trial(pair, point, seed) for seed in self.study.tuning_seeds]
            names = [self._enter(pair, trial, "tuning", index, point) for trial in trials]
            pair.open_points[index] = names
            for name in names:
                pair.points_of[name].append(index)
            self._settle(pair, index)
        if (tuning is None or tuning.done) and not pair.reporting:
            pair.reporting = True
            if tuning is not None and self._all_crashed(pair):
                return  # its code fails: there is nothing to choose, and nothing to report
            point = tuning.best()[1] if tuning else {}
            for seed in self.study.seeds:
                trial = self.study.trial(pair.algorithm, pair.problem, point, seed)
                self._enter(pair, trial, "reporting", -1, point)

    def _all_crashed(self, pair: _Pair) -> bool:
        """Whether every run of a pair's tuning ended in an exception."""
        runs = [self._runs[entry.trial_hash] for entry in pair.entries]
        return all(run.status is Status.CRASHED for run in runs)

    def _tuning_trial(self, pair: _Pair, point: dict[str, object], seed: int) -> Trial:
        """The trial of a proposal; with a pruner it carries the curves of those before it."""
        trial = self.study.trial(pair.algorithm, pair.problem, point, seed)
        if pair.algorithm.recipe.pruner is None:
            return trial
        past = list(self._curves(pair, seed))
        pruning = {
            "pruner": pair.algorithm.recipe.pruner,
            "metric": self.study.select,
            "past": past,
        }
        return replace(trial, pruning=pruning)

    def _curves(self, pair: _Pair, seed: int) -> Iterator[dict[str, Any]]:
        """Curves of a pair's earlier tuning runs with a seed."""
        split, _, name = self.study.select.partition("_")
        for entry in pair.entries:
            run = self._runs.get(entry.trial_hash)
            if entry.role == "tuning" and entry.seed == seed and run is not None:
                values = list(takewhile(isfinite, run.curve(split, name)[1][1:]))
                yield {"values": values, "complete": run.status.complete and not run.pruned}

    def _enter(
        self, pair: _Pair, trial: Trial, role: str, index: int, point: dict[str, object]
    ) -> str:
        """Note the part that a trial plays; ask for it unless that was done. Returns its hash."""
        hyperparameters = {**pair.algorithm.fixed, **point}
        name = trial.hash
        entry = Entry(
            name,
            pair.algorithm.label,
            pair.problem.name,
            role,
            index,
            hyperparameters,
            trial.seed,
        )
        pair.entries.append(entry)
        pair.trials[name] = trial
        self._played[name] += 1
        if name not in self._asked:
            self._new.append(trial)
        if not any(other is pair for other in self._asked[name]):
            self._asked[name].append(pair)
        return name

    def _settle(self, pair: _Pair, index: int) -> None:
        """Tell the tuning of a point whose runs are all known, once."""
        if pair.tuning is None or index not in pair.open_points:
            return
        runs = [self._runs.get(name) for name in pair.open_points[index]]
        complete = [run for run in runs if run is not None]
        if len(complete) < len(runs):
            return
        select = self.study.select
        values = [
            run.final.get(select) if run.status.complete and not run.pruned else None
            for run in complete
        ]
        pair.tuning.tell(index, values)
        del pair.open_points[index]
