"""Everything a report says, computed once from the records, before anything is drawn or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optiscope.records import higher_is_better
from optiscope.report.answers import Answer, answer
from optiscope.report.appearance import Look
from optiscope.stats.claims import Claim
from optiscope.stats.comparison import Verdict
from optiscope.stats.goals import goal_results
from optiscope.stats.letter_groups import letter_groups
from optiscope.stats.profiles import TargetCost, target_costs
from optiscope.stats.refusal import Refusal
from optiscope.stats.sensitivity import (
    Edge,
    Sensitivity,
    Tried,
    edges,
    numeric_names,
    sensitivity,
    tried,
)
from optiscope.stats.study_table import StudyTables
from optiscope.stats.summary import Cost, Result, costs, results
from optiscope.stats.tuning_curve import TuningSummary, tuning_summaries

__all__ = ["ProblemContent", "ReportContent", "assemble", "leading_sensitivities"]


@dataclass(frozen=True)
class ProblemContent:
    """What the report says about one problem, for the algorithms shown, in their order.

    Attributes:
        problem: name.
        answer: who won.
        results: final values.
        costs: time per step; algorithms that took no step are left out.
        sensitivities: to the leading hyperparameter, of tuned algorithms.
        tuned: what tuning cost and found, by label.
        edges: choices at the edge of the space, by label; nothing for labels without any.
        tried: every point of the tuning, by label.
        letters: by label; two algorithms share one where they do not differ significantly.
    """

    problem: str
    answer: Answer
    results: tuple[Result, ...]
    costs: tuple[Cost, ...]
    sensitivities: tuple[tuple[Look, Sensitivity], ...]
    tuned: Mapping[str, TuningSummary]
    edges: Mapping[str, tuple[Edge, ...]]
    tried: Mapping[str, Sequence[Tried]]
    letters: Mapping[str, str]


@dataclass(frozen=True)
class ReportContent:
    """What the report says.

    Attributes:
        tables: the records.
        looks: algorithms shown, by label, in their order.
        claims: about every two algorithms shown.
        problems: in the user's order.
        targets: epochs and seconds to the reference's target.
    """

    tables: StudyTables
    looks: Mapping[str, Look]
    claims: tuple[Claim | Refusal, ...]
    problems: tuple[ProblemContent, ...]
    targets: tuple[TargetCost, ...]

    @property
    def results(self) -> list[Result]:
        """Results of all problems."""
        return [result for problem in self.problems for result in problem.results]


def assemble(
    tables: StudyTables, looks: Mapping[str, Look], claims: Sequence[Claim | Refusal]
) -> ReportContent:
    """Content of the report.

    Args:
        tables: with curves.
        looks: of the algorithms to show, in the order to show them.
        claims: of the whole study; those about algorithms not shown are left out, but every claim
            stays corrected for all comparisons of the study.
    """
    shown = tuple(c for c in claims if c.a in looks and c.b in looks)
    found = {(r.problem, r.algorithm): r for r in results(tables)}
    goals = [g for g in goal_results(tables, list(found.values())) if g.algorithm in looks]
    spent = {(c.problem, c.algorithm): c for c in costs(tables)}
    tuned = {(t.problem, t.algorithm): t for t in tuning_summaries(tables)}
    targets = tuple(target_costs(tables, list(looks)))
    problems = []
    every_pair = tables.evidence.compare == "all"  # else a shared letter would say too much
    for problem in tables.problems:
        mine = tuple(found[problem, label] for label in looks)
        cost = tuple(spent[problem, label] for label in looks if (problem, label) in spent)
        summaries = {x: tuned[problem, x] for x in looks if (problem, x) in tuned}
        points = {label: tried(tables, problem, label) for label in looks}
        problems.append(
            ProblemContent(
                problem=problem,
                answer=answer(problem, mine, shown, goals),
                results=mine,
                costs=cost,
                sensitivities=tuple(leading_sensitivities(tables, points, looks)),
                tuned=summaries,
                edges={
                    label: found_edges
                    for label, of_label in points.items()
                    if (found_edges := edges(tables.algorithm(label).space, of_label))
                },
                tried=points,
                letters=_letters(problem, mine, shown) if every_pair else {},
            )
        )
    return ReportContent(
        tables=tables,
        looks=looks,
        claims=shown,
        problems=tuple(problems),
        targets=targets,
    )


def _letters(
    problem: str, results: Sequence[Result], claims: Sequence[Claim | Refusal]
) -> dict[str, str]:
    """Letters of the algorithms with results on a problem; refused pairs count as not different."""
    sound = [r for r in results if r.values]
    if len(sound) < 2:
        return {}
    sign = -1 if higher_is_better(sound[0].metric) else 1
    labels = [r.algorithm for r in sorted(sound, key=lambda r: (not r.all_complete, sign * r.mean))]
    different = {
        frozenset((c.a, c.b))
        for c in claims
        if isinstance(c, Claim)
        and c.problem == problem
        and c.verdict in (Verdict.BETTER, Verdict.WORSE)
    }
    return letter_groups(labels, different)


def leading_sensitivities(
    tables: StudyTables, points: Mapping[str, Sequence[Tried]], looks: Mapping[str, Look]
) -> list[tuple[Look, Sensitivity]]:
    """Sensitivity of each tuned algorithm to its learning rate, or else its first number."""
    found = []
    for label, look in looks.items():
        for name in numeric_names(tables.algorithm(label).space)[:1]:
            against = sensitivity(tables, label, name, points[label])
            if against is not None:
                found.append((look, against))
    return found
