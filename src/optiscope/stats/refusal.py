"""Comparisons that a study does not support, why, and the study that would.

The rules are those of docs/claims.md, in the order in which they are tried.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from optiscope.records import Run, Status
from optiscope.records.trial import canonical_json
from optiscope.stats.evidence import Evidence, Part
from optiscope.stats.hardware import hardware, time_refusal, untimed
from optiscope.stats.naming import counted
from optiscope.stats.sign_flip import fewest_seeds
from optiscope.stats.study_toml import study_toml

__all__ = [
    "Refusal",
    "did_not_run",
    "refuse",
    "refuse_family",
    "refuse_horizon",
    "refuse_metric",
    "refuse_time",
]

FEWEST_SEEDS = 10
"""Reporting seeds of a suggested study whose declared ones are too few to decide anything."""


@dataclass(frozen=True)
class Refusal:
    """A comparison that a study does not support.

    Attributes:
        problem: on which it was asked.
        a: label of the first algorithm.
        b: label of the second.
        rule: that it breaks: ``imported``, ``test metric``, ``budget``, ``shared seeds``,
            ``problem version``, ``optimizer version``, ``horizon``, ``not paired``,
            ``unfinished``, ``seeds``, ``metric``, ``family``, ``did not run``, ``inconsistent`` or
            ``time``.
        reason: what is not supported and why, in words.
        study_that_would_answer: text of a TOML file for ``optiscope bench``; None where this
            study itself will answer once it is finished.
    """

    problem: str
    a: str
    b: str
    rule: str
    reason: str
    study_that_would_answer: str | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"kind": "refusal", "answer": "refused", **asdict(self)}


def refuse(evidence: Evidence, problem: str, a: str, b: str) -> Refusal | None:
    """The first rule that the comparison of a with b on a problem breaks, or None."""
    case = _Case(evidence, problem, a, b)
    return next((broken for rule in _RULES if (broken := rule(case)) is not None), None)


def refuse_horizon(evidence: Evidence, problem: str, a: str, b: str, epochs: int) -> Refusal:
    """Refusal of a claim at a horizon that was not tuned for, whatever the curves look like."""
    tuned = evidence.declaration["epochs"][problem]
    return _Case(evidence, problem, a, b).refusal(
        "horizon",
        f"{a} and {b} were tuned for {counted(tuned, 'epoch')} on {problem}, not for {epochs}: "
        f"what is best for {tuned} need not be best for {epochs}, so that the curves at epoch "
        f"{epochs} show choices that nobody made for it",
        epochs=epochs,
    )


def refuse_metric(evidence: Evidence, problem: str, a: str, b: str, metric: str) -> Refusal:
    """Refusal of a claim in a metric other than the one the study declared beforehand."""
    return _Case(evidence, problem, a, b).refusal(
        "metric",
        f"the study declared test {evidence.metric(problem)} on {problem}, not {metric}: "
        "a metric chosen after the results are known is chosen for its answer",
        metric=metric,
    )


def refuse_time(evidence: Evidence, problem: str, a: str, b: str) -> Refusal:
    """Refusal of a claim about time, with what keeps these runs from telling."""
    case = _Case(evidence, problem, a, b)
    environments = [run.environment for run in _runs(case.reporting(a, b))]
    reasons = [untimed(environment) for environment in environments]
    alone = [hardware(e) for e, why in zip(environments, reasons, strict=True) if why is None]
    optimizers = ",".join(str(evidence.algorithm(label)["optimizer"]) for label in (a, b))
    why = time_refusal(problem, alone, reasons) or (
        f"the trials of a study run beside each other on {problem} and one after the other, not in "
        "turns: their seconds tell of the machine's other work too"
    )
    how = f"measure it on one machine: optiscope time {problem} --optimizers {optimizers}"
    return Refusal(problem, a, b, "time", f"{why}; {how}", None)


def refuse_family(evidence: Evidence, problem: str, a: str, b: str) -> Refusal:
    """Refusal of a comparison that the study did not declare to make."""
    baseline = evidence.declaration["reference"]
    return _Case(evidence, problem, a, b).refusal(
        "family",
        f"the study declared to compare with its baseline {baseline} only, and corrected for these "
        f"comparisons: {a} against {b} was not among them",
        compare="all",
    )


@dataclass(frozen=True)
class _Case:
    """Two algorithms on one problem, with their trials and the refusals these can lead to."""

    evidence: Evidence
    problem: str
    a: str
    b: str

    @property
    def labels(self) -> tuple[str, str]:
        return (self.a, self.b)

    def tuning(self, *labels: str) -> list[Part]:
        return [p for x in labels for p in self.evidence.tuning.get((self.problem, x), [])]

    def reporting(self, *labels: str) -> list[Part]:
        found = (self.evidence.reporting.get((self.problem, x), {}) for x in labels)
        return [part for parts in found for part in parts.values()]

    @property
    def budgets(self) -> dict[str, int]:
        """Tuning budget of each algorithm that has something to tune."""
        entries = {label: self.evidence.algorithm(label) for label in self.labels}
        return {x: int(entry["budget"]) for x, entry in entries.items() if entry.get("space")}

    def refusal(
        self,
        rule: str,
        reason: str,
        *,
        epochs: int | None = None,
        metric: str | None = None,
        budget: int | None = None,
        compare: str | None = None,
    ) -> Refusal:
        """A refusal whose study changes what is given, and mends whatever else would be refused."""
        declaration = self.evidence.declaration
        epochs = epochs or int(declaration["epochs"][self.problem])
        metric = metric or self.evidence.metric(self.problem)
        seeds = len(declaration["seeds"])
        normal = self.evidence.assumption == "normal"
        enough = seeds >= (2 if normal else fewest_seeds(float(declaration["level"])))
        budgets = set(self.budgets.values())
        study = study_toml(
            declaration,
            name="-".join([str(declaration["name"]), *rule.split()]),
            question=f"Is {self.a} better than {self.b} on {self.problem} after "
            f"{counted(epochs, 'epoch')}, in test {metric}?",
            problem=self.problem,
            labels=[label for label in self.evidence.labels if label in self.labels],
            epochs=epochs,
            metric=metric,
            seeds=self.fresh_seeds(seeds if enough else FEWEST_SEEDS, unseen=rule == "metric"),
            budget=budget or (max(budgets) if len(budgets) > 1 else None),
            compare=compare,
        )
        return Refusal(self.problem, self.a, self.b, rule, reason, study)

    def unfinished(self, reason: str) -> Refusal:
        return Refusal(self.problem, self.a, self.b, "unfinished", reason, None)

    def fresh_seeds(self, count: int, *, unseen: bool) -> list[int]:
        """Reporting seeds that never tuned, declared ones first unless they must be ``unseen``.

        Where nothing of the trials changes, declared seeds would give the runs already seen.
        """
        tuning = {p.entry.seed for p in self.tuning(*self.labels)}
        tuning |= set(self.evidence.declaration["tuning"]["seeds"])
        declared = [s for s in self.evidence.declaration["seeds"] if s not in tuning]
        following = max([*declared, *tuning], default=-1) + 1
        kept = [] if unseen else declared
        return kept + list(range(following, following + max(0, count - len(kept))))


def _runs(parts: list[Part]) -> list[Run]:
    return [part.run for part in parts if part.run is not None]


def _inconsistent(case: _Case) -> Refusal | None:
    """Entries must say of their trials what the records say, or somebody edited the ledger."""
    path = str(case.evidence.declaration.get("paths", {}).get(case.problem, case.problem))
    for part in case.tuning(*case.labels) + case.reporting(*case.labels):
        wrong = part.mismatch(path)
        if wrong is not None:
            entry = part.entry
            return replace(
                case.unfinished(
                    f"the ledger gives a {entry.role} trial of {entry.algorithm} on {case.problem} "
                    f"{wrong}: the ledger was edited; run `optiscope bench` again with the study's "
                    "file and this folder, no record is lost"
                ),
                rule="inconsistent",
            )
    return None


def _untried(case: _Case) -> Refusal | None:
    for label in case.labels:
        tried = {canonical_json(dict(p.entry.hyperparameters)) for p in case.tuning(label)}
        chosen = {canonical_json(dict(p.entry.hyperparameters)) for p in case.reporting(label)}
        if len(chosen) > 1 or (tried and not chosen <= tried):
            return replace(
                case.unfinished(
                    f"the reporting runs of {label} on {case.problem} have settings that its "
                    "tuning did not choose: the ledger was edited; run `optiscope bench` again "
                    "with the study's file and this folder, no record is lost"
                ),
                rule="inconsistent",
            )
    return None


def _imported(case: _Case) -> Refusal | None:
    if not any(r.imported for r in _runs(case.tuning(*case.labels) + case.reporting(*case.labels))):
        return None
    return case.refusal(
        "imported",
        "imported runs share neither initial weights nor batches with others seed by seed: "
        "a figure may show them beside your runs, but no claim uses them",
    )


def _test_metric(case: _Case) -> Refusal | None:
    selectors = [str(case.evidence.declaration["tuning"]["select"])]
    for label in case.labels:
        stopping = case.evidence.algorithm(label).get("early_stopping") or {}
        selectors.append(str(stopping.get("metric", "")))
    seen = next((name for name in selectors if name.startswith("test")), None)
    if seen is None:
        return None
    return case.refusal(
        "test metric",
        f"{seen} took part in the selection: what was selected by the test set cannot be "
        "reported on it",
    )


def _budget(case: _Case) -> Refusal | None:
    """An untuned algorithm would be the same at any budget, and is compared at any."""
    budgets = case.budgets
    if len(set(budgets.values())) > 1:
        return case.refusal(
            "budget",
            f"{case.a} was tuned with {budgets[case.a]} trials on {case.problem} and {case.b} with "
            f"{budgets[case.b]}: more trials find a better best, whatever the algorithm",
        )
    tried = {label: case.evidence.settings_tried(case.problem, label) for label in budgets}
    # As long as proposals are to come, the numbers may still become equal.
    if len(set(tried.values())) < 2 or _unfinished(case) is not None:
        return None
    words = " and ".join(f"{tried[x]} for {x}" for x in case.labels)
    return case.refusal(
        "budget",
        f"of {counted(budgets[case.a], 'proposal')} on {case.problem} each, the different settings "
        f"were {words}: more settings find a better best, whatever the algorithm",
        budget=min(tried.values()),
    )


def did_not_run(evidence: Evidence, problem: str, label: str) -> str | None:
    """In words that every tuning or every reporting run of an algorithm crashed; None else.

    An exception is no outcome of an optimizer, as divergence is: it says nothing of it.
    """
    tuning = evidence.tuning.get((problem, label), [])
    reporting = list(evidence.reporting.get((problem, label), {}).values())
    for role, parts in (("tuning", tuning), ("reporting", reporting)):
        runs = _runs(parts)
        if runs and len(runs) == len(parts) and all(r.status is Status.CRASHED for r in runs):
            count = counted(len(runs), f"{role} trial")
            reason = runs[0].reason.rstrip(".")
            return f"{label} did not run on {problem}: all of its {count} crashed ({reason})"
    return None


def _did_not_run(case: _Case) -> Refusal | None:
    for label in case.labels:
        words = did_not_run(case.evidence, case.problem, label)
        if words is not None:
            mend = "which says nothing of the optimizer; mend it and give --retry-crashed"
            return replace(case.unfinished(f"{words}, {mend}"), rule="did not run")
    return None


def _shared_seeds(case: _Case) -> Refusal | None:
    tuned = {part.entry.seed for part in case.tuning(*case.labels)}
    shared = sorted(tuned & {part.entry.seed for part in case.reporting(*case.labels)})
    if not shared:
        return None
    return case.refusal(
        "shared seeds",
        f"seeds {shared} both tuned and report: the seed that won the tuning is biased upward",
    )


def _problem_version(case: _Case) -> Refusal | None:
    runs = _runs(case.tuning(*case.labels) + case.reporting(*case.labels))
    versions = sorted({(r.trial.problem_version, r.trial.schema) for r in runs})
    if len(versions) < 2:
        return None
    words = " and ".join(f"{version} (schema {schema})" for version, schema in versions)
    return case.refusal(
        "problem version",
        f"the runs measured versions {words} of {case.problem}, which are different problems",
    )


def _optimizer_version(case: _Case) -> Refusal | None:
    for label in case.labels:
        runs = _runs(case.tuning(label) + case.reporting(label))
        versions = sorted({r.trial.optimizer_version or 1 for r in runs})
        if len(versions) == 1 and len({r.trial.optimizer_code for r in runs}) > 1:
            return case.refusal(
                "optimizer version",
                f"the code of {runs[0].trial.optimizer} was edited between the runs of {label} on "
                f"{case.problem}: they are of different optimizers",
            )
        if len(versions) > 1:
            return case.refusal(
                "optimizer version",
                f"the runs of {label} on {case.problem} are of versions {versions} of "
                f"{runs[0].trial.optimizer}, which are different optimizers",
            )
    return None


def _horizon(case: _Case) -> Refusal | None:
    declared = case.evidence.declaration["epochs"][case.problem]
    for role, parts in (("tuned", case.tuning), ("reported", case.reporting)):
        for label in case.labels:
            other = sorted({r.trial.epochs for r in _runs(parts(label))} - {declared})
            if other:
                return case.refusal(
                    "horizon",
                    f"{label} was {role} for {counted(other[0], 'epoch')} on {case.problem}, "
                    f"but the study declares {declared}: "
                    "a claim holds only at the horizon that was tuned for",
                )
    return None


def _not_paired(case: _Case) -> Refusal | None:
    runs = [r.trial for r in _runs(case.reporting(*case.labels))]
    settings = [(t.batch_size, t.device) for t in runs]
    if all(setting == settings[0] for setting in settings):
        return None
    return case.refusal(
        "not paired",
        f"the runs on {case.problem} differ in batch size or device, so that a seed does not give "
        "both algorithms the same batches",
    )


def _seeds(case: _Case) -> Refusal | None:
    common = case.evidence.common_seeds(case.problem, case.a, case.b)
    if len(common) > 1:
        return None
    return case.refusal(
        "seeds",
        f"{case.a} and {case.b} have {counted(len(common), 'reporting seed')} "
        f"in common on {case.problem}: one run shows nothing, a difference needs 2 pairs at least",
    )


def _unfinished(case: _Case) -> Refusal | None:
    parts = case.tuning(*case.labels) + case.reporting(*case.labels)
    waiting = sum(not part.recorded for part in parts)
    for label in case.labels:
        planned = {part.entry.seed for part in case.reporting(label)}
        waiting += len(set(case.evidence.declaration["seeds"]) - planned)
        entry = case.evidence.algorithm(label)
        if entry.get("space"):
            tried = {part.entry.index for part in case.tuning(label)}
            waiting += max(0, int(entry["budget"]) - len(tried))
    if waiting:
        return case.unfinished(
            f"{counted(waiting, 'trial')} of {case.a} and {case.b} on {case.problem} without a "
            f"record: run `optiscope bench` again to finish the study"
        )
    stages = case.evidence.stages
    common = len(case.evidence.common_seeds(case.problem, case.a, case.b))
    if stages is not None and common < stages[0]:
        return case.unfinished(
            f"the study looks first at {stages[0]} seeds, {case.a} and {case.b} have {common} on "
            f"{case.problem}: run `optiscope bench` again to add them"
        )
    return None


def _metric(case: _Case) -> Refusal | None:
    key = f"test_{case.evidence.metric(case.problem)}"
    for label in case.labels:
        if any(r.status.complete and key not in r.final for r in _runs(case.reporting(label))):
            return case.refusal(
                "metric", f"the runs of {label} on {case.problem} measured no {key}: declare "
                "a metric that the problem has", metric="loss",
            )  # fmt: skip
    return None


_RULES: tuple[Callable[[_Case], Refusal | None], ...] = (
    _inconsistent,
    _did_not_run,
    _imported,
    _test_metric,
    _budget,
    _shared_seeds,
    _problem_version,
    _optimizer_version,
    _horizon,
    _not_paired,
    _unfinished,
    _seeds,
    _untried,
    _metric,
)
