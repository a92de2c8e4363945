"""A study: algorithms × problems, a tuning budget, seeds, and the question asked of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from typing import Any

from optiscope.optim import registry
from optiscope.optim.spec import Choice, Range
from optiscope.problems import Problem
from optiscope.records import SCHEMA_VERSION, Recipe, Trial
from optiscope.records.findings import Monitoring
from optiscope.records.kept_weights import Keep
from optiscope.study.source_digest import source_digest

__all__ = ["PROPOSALS", "Algorithm", "SpeedQuestion", "Study"]

PROPOSALS = 2
"""Raised whenever a sampler (of ``tuning``) would propose other points for a study that exists."""


@dataclass(frozen=True)
class Algorithm:
    """A(Φ): an optimizer together with its search space Φ, its schedule and its tuning rule."""

    label: str
    optimizer: str
    fixed: Mapping[str, Any]
    space: Mapping[str, Range | Choice]
    sampler: str
    budget: int
    recipe: Recipe = field(default_factory=Recipe)
    colour: str | None = None
    tune: str | None = None

    @property
    def schedule(self) -> Mapping[str, Any] | None:
        """Of its recipe."""
        return self.recipe.schedule

    @property
    def tuned(self) -> bool:
        """Whether there is anything to choose."""
        return bool(self.space)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as kept in ``study.json``."""
        stated = {} if self.tune is None else {"tune": self.tune}
        names = ("autocast", "compile", "accumulate", "together")
        rules = {name: getattr(self.recipe, name) for name in names}
        stated |= {name: rule for name, rule in rules.items() if rule is not None}
        return stated | {
            "label": self.label,
            "optimizer": self.optimizer,
            "fixed": dict(self.fixed),
            "space": {name: _plain_dimension(d) for name, d in self.space.items()},
            "sampler": self.sampler if self.tuned else "none",
            "budget": self.budget,
            "schedule": self.recipe.schedule,
            "clip": self.recipe.clip,
            "early_stopping": self.recipe.early_stopping,
            "pruner": self.recipe.pruner,
            "initialisation": self.recipe.initialisation,
            "colour": self.colour,
        }


@dataclass(frozen=True)
class SpeedQuestion:
    """How much faster than the baselines the other algorithms reach the baselines' loss.

    Attributes:
        baselines: labels; they train over the whole horizon only.
        parts: horizons of the others, as parts of the whole: 2 is half of it.
        part: that of this study; None for the study of all parts.
    """

    baselines: tuple[str, ...]
    parts: tuple[int, ...]
    part: int | None = None


@dataclass(frozen=True)
class Study:
    """A validated study; everything it names exists and can be built.

    Attributes:
        name: word for its folder and page.
        question: what it asks, in words.
        problems: in the user's order, with ``epochs`` and ``batch_sizes`` by name.
        algorithms: in the user's order.
        tuning_seeds, seeds: disjoint; results are reported on ``seeds`` only.
        select: the validation figure by which tuning chooses, such as ``valid_loss``.
        metric: per problem, the test figure that is reported: ``accuracy``, ``loss``, ...
        reference: label of the algorithm others are compared with.
        equivalence_margin: difference below which two algorithms count as equal, or None.
        level: probability of a false claim that is accepted.
        compare: which comparisons the study makes, and is corrected for: ``all``, every two
            algorithms; ``baseline``, each with the reference; or ``leader``, each with the best.
        assumption: of differences between algorithms that perform alike, ``symmetric`` or
            ``normal``.
        threads, device, max_seconds: of every algorithm's recipe.
        source: the TOML text it came from.
        paths: per problem, the name or import path by which the study names it.
        goals: figures known from elsewhere to reach: ``problem``, ``value``, ``meaning``.
        stages: numbers of seeds, fixed beforehand, at which a study that adds seeds until it is
            decided looks; None where it looks once.
        monitor: how runs are watched, or None; no part of any trial.
        speed: what it asks of speeds, or None; trained part by part (``study.speed_parts``).
        keep_weights: epochs at which the reporting runs keep their weights, or None; no part of
            the trials.
    """

    name: str
    question: str
    problems: tuple[Problem, ...]
    epochs: Mapping[str, int]
    batch_sizes: Mapping[str, int]
    algorithms: tuple[Algorithm, ...]
    tuning_seeds: tuple[int, ...]
    seeds: tuple[int, ...]
    select: str
    metric: Mapping[str, str]
    reference: str
    equivalence_margin: float | None
    level: float
    threads: int
    device: str
    max_seconds: float | None
    source: str
    paths: Mapping[str, str]
    goals: tuple[Mapping[str, Any], ...] = ()
    stages: tuple[int, ...] | None = None
    compare: str = "all"
    assumption: str = "symmetric"
    keep_weights: str | tuple[int, ...] | None = None
    monitor: Monitoring | None = None
    speed: SpeedQuestion | None = None

    @property
    def keep(self) -> Keep | None:
        """Which runs keep which weights."""
        return None if self.keep_weights is None else Keep.of(self.keep_weights, self.seeds)

    def with_stages(self, stages: Sequence[int]) -> Study:
        """The same study, to be decided at these numbers of seeds."""
        return replace(self, stages=tuple(stages))

    def with_seeds(self, count: int) -> Study:
        """The same study with ``count`` reporting seeds: its own, then fresh ones."""
        seeds = list(self.seeds)
        fresh = (s for s in itertools.count(max(seeds) + 1) if s not in self.tuning_seeds)
        seeds += itertools.islice(fresh, max(0, count - len(seeds)))
        return replace(self, seeds=tuple(seeds[:count]))

    def recipe_of(self, algorithm: Algorithm) -> Recipe:
        """How an algorithm trains in this study."""
        return replace(
            algorithm.recipe,
            threads=self.threads,
            device=self.device,
            max_seconds=self.max_seconds,
        )

    def trial(
        self, algorithm: Algorithm, problem: Problem, point: Mapping[str, Any], seed: int
    ) -> Trial:
        """The trial of one point of Φ with one seed."""
        version = registry.get(algorithm.optimizer).version
        return Trial(
            problem=self.paths[problem.name],
            problem_version=problem.version,
            optimizer=algorithm.optimizer,
            hyperparameters={**algorithm.fixed, **point},
            seed=seed,
            epochs=self.epochs[problem.name],
            batch_size=self.batch_sizes[problem.name],
            **self.recipe_of(algorithm).to_trial(),
            optimizer_version=version,
            optimizer_code=source_digest(algorithm.optimizer) if version is None else None,
            problem_code=source_digest(self.paths[problem.name]),
        )

    def to_dict(self) -> dict[str, Any]:
        """The resolved declaration, as kept in ``study.json``."""
        asked = {} if self.speed is None else {"speed": asdict(self.speed)}
        return asked | {
            "schema": SCHEMA_VERSION,
            "name": self.name,
            "question": self.question,
            "problems": [p.name for p in self.problems],
            "paths": dict(self.paths),
            "problem_versions": {p.name: p.version for p in self.problems},
            "epochs": dict(self.epochs),
            "batch_sizes": dict(self.batch_sizes),
            "reference": self.reference,
            "metric": dict(self.metric),
            "algorithms": [a.to_dict() for a in self.algorithms],
            "tuning": {
                "seeds": list(self.tuning_seeds),
                "select": self.select,
                "proposals": PROPOSALS,
            },
            "seeds": list(self.seeds),
            "goals": [dict(goal) for goal in self.goals],
            "equivalence_margin": self.equivalence_margin,
            "level": self.level,
            "compare": self.compare,
            "assumption": self.assumption,
            "threads": self.threads,
            "device": self.device,
            "max_seconds": self.max_seconds,
            "until_decided": None if self.stages is None else {"stages": list(self.stages)},
            "version": metadata.version("optiscope"),
            "source": self.source,
        }


def _plain_dimension(dimension: Range | Choice) -> dict[str, Any]:
    if isinstance(dimension, Choice):
        return {"choice": list(dimension.values)}
    plain: dict[str, Any] = {"low": dimension.low, "high": dimension.high, "log": dimension.log}
    if dimension.points is not None:
        plain["points"] = dimension.points
    return plain | {"integer": True} if dimension.integer else plain
