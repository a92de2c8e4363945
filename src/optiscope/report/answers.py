"""Who won, by how much, and is it certain: a study's claims in words, problem by problem."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from optiscope.records import higher_is_better
from optiscope.report.number_text import metric_text, significant, spread_text
from optiscope.stats.claims import Claim
from optiscope.stats.comparison import Comparison, Verdict
from optiscope.stats.goals import GoalResult
from optiscope.stats.refusal import Refusal
from optiscope.stats.summary import Result

__all__ = ["Answer", "Standing", "answer", "effect_text", "goal_text", "lead_text"]


MAX_NAMED: Final = 4
"""Longer lists of algorithms are counted in a sentence; the table below it names them."""


@dataclass(frozen=True)
class Standing:
    """How an algorithm stands beside the leader of a problem.

    Attributes:
        label: of the algorithm.
        word: ``leader``, ``better`` (than the leader), ``worse``, ``equivalent``, ``undecided`` or
            ``refused``.
        text: the leader's lead over it with its interval, or the reason of the refusal.
    """

    label: str
    word: str
    text: str


@dataclass(frozen=True)
class Answer:
    """The answer for one problem.

    Attributes:
        problem: name.
        text: in words.
        leader: label of the algorithm with the best mean whose runs all reached their end; None
            where no algorithm has one.
        certain: whether the leader is better than every other algorithm, by the study's claims.
        standings: of every algorithm beside the leader, by label.
    """

    problem: str
    text: str
    leader: str | None
    certain: bool
    standings: dict[str, Standing]


def answer(
    problem: str,
    results: Sequence[Result],
    claims: Sequence[Claim | Refusal],
    goals: Sequence[GoalResult] = (),
) -> Answer:
    """The answer for one problem from its results, claims and goals.

    Claims and goals of other problems may come as well.

    An algorithm of which a run failed does not lead, however good its other runs are, unless
    runs of every algorithm failed.
    """
    about = [goal_text(g) for g in goals if g.goal.problem == problem]
    found = _answer(problem, results, claims, beside_goals=bool(about))
    return replace(found, text=" ".join([found.text, *about]))


def goal_text(found: GoalResult) -> str:
    """An algorithm beside a goal, as a sentence."""
    goal = f"the goal of {metric_text(found.goal.value, found.metric)} ({found.goal.meaning})"
    verbs = {"reached": "reaches", "missed": "misses"}
    whys = {"failed": "a run failed", "unfinished": "its runs are not finished"}
    if found.verdict == "undecided":
        text = f"whether {found.algorithm} reaches {goal} is undecided"
        text = f"{text[0].upper()}{text[1:]}"
    else:
        verb = verbs.get(found.verdict, "cannot be compared with")
        text = f"{found.algorithm} {verb} {goal}"
    if found.verdict in whys:
        return f"{text}: {whys[found.verdict]}."
    if math.isfinite(found.p_value):
        low, high = (metric_text(end, found.metric) for end in found.interval)
        share = significant(100 * (1 - found.level), 4)
        text += f": {share} % interval {low} to {high}, p = {significant(found.p_value, 2)}"
        text += " by Student's t, if values are normally distributed over seeds"
    if math.isfinite(found.epoch):
        text += f"; the mean is there after {significant(found.epoch)} epochs"
    return f"{text}."


def _answer(
    problem: str,
    results: Sequence[Result],
    claims: Sequence[Claim | Refusal],
    *,
    beside_goals: bool,
) -> Answer:
    sound = [r for r in results if r.all_complete] or [r for r in results if r.values]
    if not sound:
        return Answer(problem, "No run has reached its end.", None, False, {})
    metric = sound[0].metric
    sign = -1 if higher_is_better(metric) else 1
    leading = min(sound, key=lambda r: sign * r.mean)
    leader = leading.algorithm
    head = f"{leader} has the best mean test {metric}, {metric_text(leading.mean, metric)}"
    if len(results) == 1:
        alone = f"{leader} reaches a test {metric} of {metric_text(leading.mean, metric)}"
        rest = "" if beside_goals else "; there is nothing to compare it with"
        return Answer(problem, f"{alone}{rest}.", leader, False, {})
    standings = {leader: Standing(leader, "leader", "")}
    comparisons: dict[str, Comparison] = {}
    for found in claims:
        if found.problem != problem or leader not in (found.a, found.b):
            continue
        other = found.b if found.a == leader else found.a
        if isinstance(found, Refusal):
            standings[other] = Standing(other, "refused", found.reason)
            continue
        c = found.comparison if found.a == leader else found.comparison.mirrored
        comparisons[other] = c
        standings[other] = Standing(other, str(c.mirrored.verdict), lead_text(c, metric))
    groups = {v: [x for x, c in comparisons.items() if c.verdict is v] for v in Verdict}
    refused = [s for s in standings.values() if s.word == "refused"]
    won = groups[Verdict.BETTER]
    certain = len(won) == len(results) - 1
    if certain:
        closest = min(won, key=lambda x: abs(comparisons[x].difference or math.inf))
        text = (
            f"{leader} wins with a mean test {metric} of {metric_text(leading.mean, metric)}: "
            f"significantly better than {'all others' if len(won) > 1 else won[0]}"
        )
        text += _closest(closest, comparisons[closest], metric, named=len(won) > 1)
        return Answer(problem, text + ".", leader, True, standings)
    parts = [head]
    if won:
        parts.append(f"significantly better than {_named(won)}")
    if groups[Verdict.EQUIVALENT]:
        margin = comparisons[groups[Verdict.EQUIVALENT][0]].margin or 0.0
        within = f"{spread_text(margin, metric)}{_unit(metric)}"
        parts.append(f"equal to {_listed(groups[Verdict.EQUIVALENT])} within {within}")
    if groups[Verdict.UNDECIDED]:
        parts.append(_undecided(groups[Verdict.UNDECIDED], comparisons))
    if groups[Verdict.WORSE]:
        parts.append(f"yet significantly worse than {_listed(groups[Verdict.WORSE])}")
    if refused:
        names = _listed([s.label for s in refused])
        parts.append(f"not comparable with {names}: {refused[0].text.rstrip('.')}")
    return Answer(problem, "; ".join(parts) + ".", leader, False, standings)


def effect_text(c: Comparison, metric: str) -> str:
    """The difference with its interval, or wins and losses where a run failed."""
    if c.difference is None:
        return f"won {c.wins}, lost {c.losses} of {c.pairs} seeds"
    text = f"{_signed(c.difference, metric)}{_unit(metric)}"
    if c.interval is not None:
        low, high = (_signed(end, metric) for end in c.interval)
        text += f" [{low}, {high}]"
    return text


def lead_text(c: Comparison, metric: str) -> str:
    """:func:`effect_text` with the sign that makes a lead positive, for losses too."""
    if c.higher_is_better or c.difference is None:
        return effect_text(c, metric)
    interval = None if c.interval is None else (-c.interval[1], -c.interval[0])
    return effect_text(replace(c, difference=-c.difference, interval=interval), metric)


def _closest(other: str, c: Comparison, metric: str, *, named: bool) -> str:
    if c.difference is None or c.interval is None:
        return f" ({effect_text(c, metric)})"
    ends = sorted(abs(end) for end in c.interval)
    low, high = (spread_text(end, metric) for end in ends)
    lead = f"{spread_text(abs(c.difference), metric)}{_unit(metric)}"
    share = significant(100 * (1 - c.level), 4)
    head = f", closest of them {other}: ahead by " if named else " by "
    return f"{head}{lead} ({share} % interval {low} to {high})"


def _undecided(labels: Sequence[str], comparisons: dict[str, Comparison]) -> str:
    """Comparisons without a verdict: for want of seeds, or because they are too close."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(str(comparisons[label].undecided_because), []).append(label)
    reasons = []
    if few := groups.get("too few seeds"):
        fewest = max(comparisons[x].fewest_seeds for x in few)
        ahead = [x for x in few if comparisons[x].wins == comparisons[x].pairs]
        text = f"ahead of {_named(ahead)} on every seed, but " if ahead else ""
        text += f"{comparisons[few[0]].pairs} seeds are too few to decide anything"
        reasons.append(f"{text}{_beside(few, labels)}: at least {fewest} are needed")
    if more := groups.get("more seeds needed"):
        needed = [n - comparisons[x].pairs for x in more if (n := comparisons[x].seeds_to_decide)]
        low, high = min(needed), max(needed)
        seeds = str(low) if low == high else f"{low} to {high}"
        reasons.append(f"about {seeds} more seeds would decide{_beside(more, labels)}")
    if close := groups.get("too close"):
        reasons.append(f"too close{_beside(close, labels)}: even 1000 seeds would not decide")
    return f"undecided against {_named(labels)} ({'; '.join(reasons)})"


def _beside(some: Sequence[str], labels: Sequence[str]) -> str:
    return "" if len(some) == len(labels) else f" against {_named(some)}"


def _named(labels: Sequence[str]) -> str:
    return _listed(labels) if len(labels) <= MAX_NAMED else f"{len(labels)} others"


def _listed(labels: Sequence[str]) -> str:
    if len(labels) < 2:
        return "".join(labels)
    between = "; " if any("," in label for label in labels) else ", "
    return f"{between.join(labels[:-1])} and {labels[-1]}"


def _signed(value: float, metric: str) -> str:
    text = spread_text(abs(value), metric)
    if not text.strip("0."):
        return text  # a zero has no sign
    return f"{'−' if value < 0 else '+'}{text}"


def _unit(metric: str) -> str:
    return " points" if metric.endswith("accuracy") else ""
