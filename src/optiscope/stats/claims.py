"""What a study supports: claims with effect, interval and verdict, or a refusal with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from optiscope.records import StudyFolder, higher_is_better
from optiscope.stats.claim_question import TIME, QuestionError, parse_question
from optiscope.stats.comparison import (
    FLIP_TEST,
    SIGN_TEST,
    Assumption,
    Comparison,
    Verdict,
    paired_comparison,
)
from optiscope.stats.evidence import Evidence, read_evidence
from optiscope.stats.many_comparisons import correct_for_many
from optiscope.stats.naming import algorithm_name, counted, short_number
from optiscope.stats.refusal import (
    Refusal,
    refuse,
    refuse_family,
    refuse_horizon,
    refuse_metric,
    refuse_time,
)
from optiscope.stats.sample_count import HANDFUL, sample_count
from optiscope.stats.sequential import SequentialPlan, next_stage, sequential_comparison

__all__ = ["Claim", "claim", "claims_from", "next_seed_count", "study_claims"]


@dataclass(frozen=True)
class Claim:
    """A statement about two algorithms that a study supports.

    Attributes:
        problem: on which problem.
        metric: reported metric, on the test split, at the end of the horizon.
        epochs: horizon, which is also the one tuned for.
        a: label of the first algorithm.
        b: label of the second.
        a_name: A(Φ, budget) of the first in words.
        b_name: A(Φ, budget) of the second in words.
        comparison: effect, interval, test and verdict, of a compared with b.
        family: number of comparisons corrected together.
        level: probability that any verdict of the family is false, at most.
        correction: name of the correction.
        stages: numbers of seeds fixed beforehand at which the study looked; None where it looked
            once.
        asserted: the verdict that was asked about; None where none was.
        samples: of the test set, where the metric is an accuracy and tells.
    """

    problem: str
    metric: str
    epochs: int
    a: str
    b: str
    a_name: str
    b_name: str
    comparison: Comparison
    family: int
    level: float
    correction: str
    stages: tuple[int, ...] | None = None
    asserted: Verdict | None = None
    samples: int | None = None

    @property
    def verdict(self) -> Verdict:
        """Better, worse, equivalent or undecided, of a compared with b."""
        return self.comparison.verdict

    @property
    def supported(self) -> bool | None:
        """Whether what was asked is so; None where nothing was asked or it is undecided.

        That a difference exists says nothing of its size: against "equal within a margin" it
        counts only where the whole interval lies beyond the margin.
        """
        if self.asserted is None or self.verdict is Verdict.UNDECIDED:
            return None
        c = self.comparison
        if self.asserted is Verdict.EQUIVALENT and self.verdict is not Verdict.EQUIVALENT:
            if c.interval is None or c.margin is None:
                return None if c.difference is not None else False
            beyond = c.interval[0] > c.margin or c.interval[1] < -c.margin
            return False if beyond else None
        return self.verdict is self.asserted

    @property
    def answer(self) -> str:
        """``yes``, ``no`` or ``undecided`` to what was asked; the verdict where nothing was."""
        if self.asserted is None:
            return str(self.verdict)
        return {True: "yes", False: "no", None: "undecided"}[self.supported]

    @property
    def difference_in_samples(self) -> float | None:
        """How many test samples more the better algorithm gets right, or None where unknown."""
        difference = self.comparison.difference
        if self.samples is None or difference is None:
            return None
        return abs(difference) * self.samples

    @property
    def few_samples(self) -> str | None:
        """In words, that the difference is below a handful of test samples; None where it is not.

        Then other samples may well reverse it, whatever the number of seeds.
        """
        count = self.difference_in_samples
        if count is None or not 0 < count < HANDFUL:
            return None
        return f"{short_number(float(f'{count:.2g}'))} of {self.samples} test samples"

    @property
    def sentence(self) -> str:
        """The claim in one sentence, everything it rests on included."""
        c = self.comparison
        where = f"on {self.problem} after {counted(self.epochs, 'epoch')}"
        heads = {
            Verdict.BETTER: f"{self.a} is better than {self.b} {where}",
            Verdict.WORSE: f"{self.a} is worse than {self.b} {where}",
            Verdict.EQUIVALENT: f"{self.a} equals {self.b} {where} within {_number(c.margin)}",
            Verdict.UNDECIDED: f"undecided whether {self.a} or {self.b} is better {where}",
        }
        sameness = Verdict.EQUIVALENT in (c.verdict, self.asserted)
        if sameness and c.verdict is Verdict.UNDECIDED:
            heads[c.verdict] = (
                f"not shown that {self.a} equals {self.b} {where} within {_number(c.margin)}"
            )
        head = heads[c.verdict]
        if sameness and c.verdict is not Verdict.EQUIVALENT and self.supported is None:
            size = f"; whether by less than {_number(c.margin)} is undecided"
            head += "" if c.verdict is Verdict.UNDECIDED else size
        parts = [f"{head}: {_effect(self.metric, c)}"]
        if sameness and c.verdict in (Verdict.EQUIVALENT, Verdict.UNDECIDED):
            word = {FLIP_TEST: "sign-flip tests", SIGN_TEST: "sign tests"}.get(c.test, "t tests")
            parts.append(f"two one-sided {word}, p = {_p(c.equivalence_p_value)}")
        else:
            parts.append(f"{_TESTS.get(c.test, 'paired t test')}, p = {_p(c.p_value)}")
        parts.append(f"{c.pairs} seeds, tested at level {_number(c.level)} ({self.correction})")
        if c.verdict is Verdict.UNDECIDED:
            parts.append(_what_would_decide(self, c))
        promise = "Holds over seeds, for this test set and this tuning"
        if c.assumes_normal:
            promise += ", if differences between seeds are normally distributed"
        text = "; ".join(parts) + f". {self.a_name} against {self.b_name}. {promise}."
        if self.few_samples is not None:
            text += f" The difference is {self.few_samples}: other samples may well reverse it."
        return text

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "kind": "claim",
            "problem": self.problem,
            "metric": f"test_{self.metric}",
            "epochs": self.epochs,
            "a": self.a,
            "b": self.b,
            "a_name": self.a_name,
            "b_name": self.b_name,
            "family": self.family,
            "level": self.level,
            "correction": self.correction,
            "stages": None if self.stages is None else list(self.stages),
            "asserted": None if self.asserted is None else str(self.asserted),
            "supported": self.supported,
            "answer": self.answer,
            "sentence": self.sentence,
            "test_samples": self.samples,
            "difference_in_samples": self.difference_in_samples,
            "verdict": str(self.verdict),
            "comparison": self.comparison.to_dict(),
        }


def study_claims(folder: StudyFolder) -> list[Claim | Refusal]:
    """What a study says about every two of its algorithms on each of its problems.

    The comparisons are one family: the probability that any verdict among them is false is at
    most the study's level.

    Raises:
        StoreError: the folder holds no study, or cannot be read.
        ValueError: two algorithms share a label.
    """
    return claims_from(read_evidence(folder))


def claim(
    question: str, folder: StudyFolder, *, assume: Assumption | None = None
) -> Claim | Refusal:
    """Answer to a question such as ``adam better than sgd on fmnist_2c2d at 80 epochs``.

    The answer is corrected as one of the study's whole family of comparisons, because any of
    them might have been asked about. A margin in the question takes the place of the declared
    one: the interval behind equivalence holds for every margin at once.

    Args:
        question: in words, see :func:`optiscope.stats.claim_question.parse_question`.
        folder: the study.
        assume: what to assume of differences between algorithms that perform alike, instead of
            what the study declared; the answer says so.

    Raises:
        QuestionError: the question cannot be read, or names what the study does not hold.
        StoreError: the folder holds no study, or cannot be read.
    """
    evidence = read_evidence(folder)
    if assume is not None:
        evidence = replace(evidence, declaration={**evidence.declaration, "assumption": assume})
    asked = parse_question(question, labels=evidence.labels, problems=evidence.problems)
    problem, a, b = asked.problem, asked.a, asked.b
    if asked.epochs is not None and asked.epochs != evidence.declaration["epochs"][problem]:
        return refuse_horizon(evidence, problem, a, b, asked.epochs)
    if asked.metric == TIME:
        return refuse_time(evidence, problem, a, b)
    declared = evidence.metric(problem)
    if asked.metric not in (None, declared, *_measured(evidence, problem)):
        raise QuestionError(f"{problem} reports no {asked.metric}: leave it out, or say {declared}")
    if asked.metric is not None and asked.metric != declared:
        return refuse_metric(evidence, problem, a, b, asked.metric)
    margin = asked.margin or evidence.margin(problem)
    if asked.verdict is Verdict.EQUIVALENT and margin is None:
        raise QuestionError(
            "no two optimizers are exactly equal: add a margin that does not matter, "
            f"such as '{a} equals {b} within 0.005'"
        )
    answers = _corrected(evidence, {} if margin is None else {problem: margin})
    for answer in answers:
        if answer.problem == problem and {answer.a, answer.b} == {a, b}:
            if isinstance(answer, Refusal):
                return answer
            return replace(answer if answer.a == a else _mirrored(answer), asserted=asked.verdict)
    return refuse_family(evidence, problem, a, b)


def _measured(evidence: Evidence, problem: str) -> set[str]:
    """Metrics of the test split that runs of a problem hold."""
    reporting = (v for (name, _), v in evidence.reporting.items() if name == problem)
    runs = [part.run for parts in reporting for part in parts.values() if part.run is not None]
    keys = {key for run in runs for key in run.final}
    return {key.removeprefix("test_") for key in keys if key.startswith("test_")}


def claims_from(
    evidence: Evidence, margins: Mapping[str, float] | None = None
) -> list[Claim | Refusal]:
    """:func:`study_claims` of runs already read, with other margins for some problems."""
    answers = _corrected(evidence, margins or {})
    if evidence.compare != "leader":
        return answers
    leaders = {problem: evidence.leader(problem) for problem in evidence.problems}
    return [x for x in answers if leaders[x.problem] in (None, x.a, x.b)]


def _corrected(evidence: Evidence, margins: Mapping[str, float]) -> list[Claim | Refusal]:
    """Every comparison of the family, corrected for all of them."""
    pairs = evidence.pairs
    level = float(evidence.declaration["level"])
    stages = evidence.stages
    # Stages are decided one by one, so that Holm's order of p-values is not known: Bonferroni.
    plan = (
        None
        if stages is None
        else SequentialPlan(stages, level / max(1, len(pairs)), evidence.assumption)
    )
    answers: list[Claim | Refusal] = []
    samples = {problem: _samples(evidence, problem) for problem in evidence.problems}
    for problem, a, b in pairs:
        margin = margins.get(problem, evidence.margin(problem))
        refusal = refuse(evidence, problem, a, b)
        found = refusal or _claim(evidence, problem, a, b, level, margin, plan)
        if isinstance(found, Claim):
            found = replace(found, samples=samples[problem])
        answers.append(found)
    claims = [answer for answer in answers if isinstance(answer, Claim)]
    if plan is not None:
        family, correction = len(pairs), f"Bonferroni over {len(pairs)} comparisons, in stages"
        decided = [c.comparison for c in claims]
    else:
        to_come = sum(isinstance(x, Refusal) and x.rule == "unfinished" for x in answers)
        family = len(claims) + to_come
        correction = f"Holm over {family} comparisons" if family > 1 else "one comparison"
        correction += f", {to_come} of them unfinished" if to_come else ""
        decided = correct_for_many([c.comparison for c in claims], level, to_come=to_come)
    looks = evidence.declaration.get("looked_at")
    if looks:
        correction += f", seeds added after a look at {', '.join(map(str, looks))}"
    following = iter(decided)
    return [
        replace(x, comparison=next(following), family=family, correction=correction)
        if isinstance(x, Claim)
        else x
        for x in answers
    ]


def _samples(evidence: Evidence, problem: str) -> int | None:
    """Samples of the test set, as far as the final accuracies of all runs tell."""
    if evidence.metric(problem) != "accuracy":
        return None
    values = [
        value
        for label in evidence.labels
        if (seeds := list(evidence.reporting.get((problem, label), {})))
        for value in evidence.values(problem, label, seeds)
    ]
    return sample_count(values)


def next_seed_count(folder: StudyFolder) -> int | None:
    """Number of reporting seeds that ``optiscope bench --until-decided`` should have next.

    None where the study declares no stages, all that can be decided is, or the cap is reached.

    Raises:
        StoreError: the folder holds no study, or cannot be read.
    """
    evidence = read_evidence(folder)
    stages = evidence.stages
    if stages is None or not evidence.pairs:
        return None
    found = [c.comparison for c in claims_from(evidence) if isinstance(c, Claim)]
    seeds = min(len(evidence.common_seeds(*pair)) for pair in evidence.pairs)
    return next_stage(found, SequentialPlan(stages), seeds)


def _claim(
    evidence: Evidence,
    problem: str,
    a: str,
    b: str,
    level: float,
    margin: float | None,
    plan: SequentialPlan | None,
) -> Claim:
    """The claim at this comparison's own level, or at its share where there are stages."""
    seeds = evidence.common_seeds(problem, a, b)
    x, y = (evidence.values(problem, label, seeds) for label in (a, b))
    metric = evidence.metric(problem)
    higher = higher_is_better(metric)
    if plan is None:
        comparison = paired_comparison(
            x,
            y,
            level=level,
            margin=margin,
            higher_is_better=higher,
            assumption=evidence.assumption,
        )
    else:
        comparison = sequential_comparison(x, y, plan, margin=margin, higher_is_better=higher)
    return Claim(
        problem=problem,
        metric=metric,
        epochs=int(evidence.declaration["epochs"][problem]),
        a=a,
        b=b,
        a_name=_name(evidence, problem, a),
        b_name=_name(evidence, problem, b),
        comparison=comparison,
        family=1,
        level=level,
        correction="one comparison",
        stages=None if plan is None else plan.stages,
    )


_TESTS = {SIGN_TEST: "exact sign test", FLIP_TEST: "sign-flip test"}


def _what_would_decide(claim: Claim, c: Comparison) -> str:
    """Whether a comparison is undecided for want of seeds, or too close; and who is ahead."""
    needed, reason = c.seeds_to_decide, c.undecided_because
    if reason == "too close":
        return "too close: even 1000 seeds would not show a difference of this size"
    leader = claim.a if c.wins > c.losses else claim.b
    ahead = f"{leader} is ahead on {max(c.wins, c.losses)} of {c.pairs} seeds, "
    ahead = "" if c.wins == c.losses else ahead
    if reason == "too few seeds":
        text = f"{ahead}too few to decide anything: at least {c.fewest_seeds} are needed"
        return text + (f", about {needed} would do" if (needed or 0) > c.fewest_seeds else "")
    return f"{ahead}about {(needed or c.pairs + 1) - c.pairs} more would decide"


def _name(evidence: Evidence, problem: str, label: str) -> str:
    tried = evidence.settings_tried(problem, label)
    return algorithm_name(evidence.algorithm(label), tried=tried)


def _mirrored(claim: Claim) -> Claim:
    """The same claim about b, compared with a."""
    return replace(
        claim,
        a=claim.b,
        b=claim.a,
        a_name=claim.b_name,
        b_name=claim.a_name,
        comparison=claim.comparison.mirrored,
    )


def _effect(metric: str, c: Comparison) -> str:
    """Means, their difference and its interval; or the pairs won where a run failed."""
    if c.difference is None:
        return (
            f"won {c.wins} of {c.pairs} pairs, lost {c.losses}; {c.diverged_a} runs of the first "
            f"and {c.diverged_b} of the second failed, so there is no mean test {metric}"
        )
    means = f"test {metric} {_number(c.mean_a)} against {_number(c.mean_b)}"
    if c.interval is None:  # too few pairs to reject any value, or no spread to measure
        equal = len(set(c.differences)) == 1
        rest = "every pair differs by" if equal and c.test == SIGN_TEST else "difference"
        return f"{means}, {rest} {_number(c.difference)}"
    low, high = (_number(end) for end in c.interval)
    share = short_number(100 * (1 - c.level))
    return f"{means}, difference {_number(c.difference)}, {share} % interval [{low}, {high}]"


def _number(value: float | None) -> str:
    return "none" if value is None else short_number(value)


def _p(value: float | None) -> str:
    return "none" if value is None else short_number(float(f"{value:.2g}"))
