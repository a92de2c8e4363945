"""From a declaration to a study: what a schema cannot check, and messages with line numbers."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from optiscope import problems
from optiscope.errors import OptiscopeError, shorten
from optiscope.hints import did_you_mean
from optiscope.optim import registry
from optiscope.optim.spec import Choice, OptimizerSpec, Range
from optiscope.problems import Problem
from optiscope.problems.initialisation import drawable_layers
from optiscope.records import Recipe
from optiscope.records.kept_weights import Keep, KeepError
from optiscope.stats.naming import DEFAULTS, stated_label
from optiscope.study.declaration import Partial, parse_declaration, read_declaration
from optiscope.study.faults import Faults, StudyError
from optiscope.study.study import Algorithm, SpeedQuestion, Study
from optiscope.study.tables import (
    MOST_TRIALS,
    AlgorithmTable,
    ChoiceTable,
    Declaration,
    RangeTable,
    SpeedTable,
)
from optiscope.train.evaluation import validation_figures
from optiscope.train.gradient import gradient_faults
from optiscope.train.isolation import isolated
from optiscope.train.recipe import recipe_faults

__all__ = ["corners", "load_study"]


RATES = ("lr", "learning_rate", "step_size")
"""Names of the hyperparameter that no result can be compared without choosing."""


def load_study(source: str | Path) -> Study:
    """Read and validate a study before anything runs.

    Args:
        source: a path to a TOML file, or the name of a shipped study.

    Raises:
        StudyError: all that is wrong, each with its line, what was expected, and what to do.
    """
    partial, text, origin = read_declaration(source)
    return _resolved(partial, text, origin)


def study_from_text(text: str, origin: str) -> Study:
    """The study that a TOML text declares, as its folder keeps it; raises StudyError."""
    return _resolved(parse_declaration(text, origin), text, origin)


def _resolved(partial: Partial, text: str, origin: str) -> Study:
    """The study of a file, or StudyError with everything that is wrong with it."""
    if partial.declaration is None:
        raise StudyError.of(origin, partial.faults)
    with isolated(imports=True):  # optimizers are imported and tried
        return _Resolver(partial.declaration, partial, Faults(text, origin)).study()


def _with_speed(study: Study, table: SpeedTable) -> Study:
    """The study of speeds, or of the one part of the horizon that its table names."""
    asked = SpeedQuestion(tuple(table.baselines), tuple(table.parts), table.part)
    study = replace(study, speed=asked)
    if table.part in (None, 1):
        return study
    others = tuple(a for a in study.algorithms if a.label not in asked.baselines)
    return replace(
        study,
        epochs={name: whole // table.part for name, whole in study.epochs.items()},
        algorithms=others,
        reference=study.reference
        if study.reference in {a.label for a in others}
        else others[0].label,
    )


class _Resolver:
    """Checks what a schema cannot: that names exist, settings are accepted, nothing misleads."""

    def __init__(self, declared: Declaration, partial: Partial, faults: Faults) -> None:
        self.declared, self.doubtful, self.faults = declared, partial.doubtful, faults
        self.text, self.told = faults.text, set[tuple[str | int, ...]]()
        faults.found += partial.faults

    def study(self) -> Study:
        """The study, where nothing is wrong; a check that needs what failed before is left out.

        Raises:
            StudyError: something is.
        """
        d = self.declared
        collecting = self.faults.collecting
        self._check_horizons()
        self._check_seeds()
        found: list[Problem] = []
        for i, name in enumerate(d.problems):
            with collecting():
                found.append(self._problem(i, name))
        with collecting():
            self._check_unique(("problems",), [p.name for p in found], "problem")
        algorithms: list[Algorithm] = []
        for i, table in enumerate(d.algorithms):
            with collecting():
                algorithms.append(self._algorithm(i, table))
        labels = [_label(table) for table in d.algorithms]
        with collecting():
            self._check_unique(("algorithms",), labels, "label")
        self._check_initialisations(found)
        if len(algorithms) == len(d.algorithms):
            self._check_watched(found)
        reference = d.reference or labels[0]
        if f"{reference} {DEFAULTS}" in labels:
            reference = f"{reference} {DEFAULTS}"
        with collecting():
            if reference not in labels:
                self._fail(("reference",), self._unknown("algorithm label", reference, labels))
        self._check_select(found)
        metric: dict[str, str] = {}
        counts: dict[str, dict[str, int]] = {"epochs": {}, "batch_size": {}}
        if len(found) == len(d.problems):
            metric = self._metrics(found)
            self._check_goals(metric)
            for word in counts:
                with collecting():
                    counts[word] = self._per_problem(word, found)
        with collecting():
            self._check_kept(found)
        with collecting():
            self._check_monitoring()
        with collecting():
            self._check_speed(labels, counts["epochs"])
        self.faults.refuse()
        study = Study(
            name=d.name,
            question=d.question,
            problems=tuple(found),
            epochs=counts["epochs"],
            batch_sizes=counts["batch_size"],
            algorithms=tuple(algorithms),
            tuning_seeds=tuple(d.tuning.seeds),
            seeds=tuple(d.seeds),
            select=d.tuning.select,
            metric=metric,
            reference=reference,
            equivalence_margin=d.equivalence_margin,
            level=d.level,
            compare=d.compare or "all",
            assumption=d.assumption or "symmetric",
            threads=d.threads,
            device=d.device,
            max_seconds=d.max_seconds,
            keep_weights=d.kept(),
            monitor=d.monitoring(),
            source=self.text,
            goals=tuple(goal.model_dump() for goal in d.goals),
            paths={p.name: path for p, path in zip(found, d.problems, strict=True)},
        )
        return study if d.speed is None else _with_speed(study, d.speed)

    def _fail(self, path: tuple[str | int, ...], message: str) -> NoReturn:
        self.faults.fail(path, message)

    @staticmethod
    def _unknown(kind: str, word: str, known: Sequence[str]) -> str:
        return f"unknown {kind} {shorten(word)}; {did_you_mean(word, known)}"

    def _check_monitoring(self) -> None:
        if (wanted := self.declared.monitoring()) is None:
            return
        from optiscope.integrations.training_loop import check_options

        try:
            check_options(**wanted.options())
        except OptiscopeError as error:
            self._fail(("monitor",), str(error))

    def _check_speed(self, labels: Sequence[str], epochs: Mapping[str, int]) -> None:
        table = self.declared.speed
        if table is None:
            return
        for i, label in enumerate(table.baselines):
            if label not in labels:
                path = ("speed", "baselines", i)
                self._fail(path, self._unknown("algorithm label", label, labels))
        self._check_unique(("speed", "baselines"), table.baselines, "baseline")
        self._check_unique(("speed", "parts"), table.parts, "part")
        if set(labels) == set(table.baselines):
            self._fail(("speed", "baselines"), "all algorithms are baselines: leave one out")
        if 1 not in table.parts:
            self._fail(("speed", "parts"), "parts must hold 1, the whole horizon")
        if table.part is not None and table.part not in table.parts:
            self._fail(("speed", "part"), f"part must be one of {table.parts}, got {table.part}")
        for part in table.parts:
            for problem, whole in epochs.items():
                if whole % part:
                    self._fail(
                        ("speed", "parts"),
                        f"each part must be whole epochs, got {whole} / {part} on {problem}",
                    )
        if list(tomllib.loads(self.text))[-1] != "speed":
            self._fail(("speed",), "[speed] must be the last table of the file: move it there")

    def _check_kept(self, problems: Sequence[Problem]) -> None:
        if (wanted := self.declared.kept()) is None:
            return
        try:
            for horizon in self._per_problem("epochs", problems).values():
                Keep.of(wanted).check(horizon)
        except KeepError as error:
            self._fail(("keep_weights",), str(error))

    def _check_horizons(self) -> None:
        why = (
            "a claim holds only at the horizon that was tuned for: set epochs once, "
            "at the top of the study, or make a second study"
        )
        with self.faults.collecting():
            if self.declared.tuning.epochs is not None:
                self._fail(("tuning", "epochs"), f"tuning cannot have a horizon of its own; {why}")
        for i, table in enumerate(self.declared.algorithms):
            with self.faults.collecting():
                if table.epochs is not None:
                    self._fail(
                        ("algorithms", i, "epochs"),
                        f"an algorithm cannot have a horizon of its own; {why}",
                    )

    def _check_seeds(self) -> None:
        d = self.declared
        with self.faults.collecting():
            self._check_unique(("seeds",), d.seeds, "seed")
        with self.faults.collecting():
            self._check_unique(("tuning", "seeds"), d.tuning.seeds, "seed")
        both = sorted(set(d.seeds) & set(d.tuning.seeds))
        with self.faults.collecting():
            if both:
                self._fail(
                    ("seeds",),
                    f"seeds for reporting must not be among those for tuning, {both[0]} is in "
                    "both: the seed that won the tuning is biased upward",
                )

    def _check_unique(self, path: tuple[str | int, ...], words: Sequence[Any], kind: str) -> None:
        seen: set[Any] = set()
        for i, word in enumerate(words):
            if word in seen:
                twice = f"{kind} {shorten(word)} stands twice"
                self._fail((*path, i), f"{twice}; each must be different")
            seen.add(word)

    def _problem(self, index: int, name: str) -> Problem:
        try:
            return problems.get(name)
        except ValueError as error:
            self._fail(("problems", index), str(error))

    def _algorithm(self, index: int, table: AlgorithmTable) -> Algorithm:
        path = ("algorithms", index)
        try:
            spec = registry.get(table.optimizer)
        except ValueError as error:
            self._fail((*path, "optimizer"), str(error))
        space: dict[str, Range | Choice]
        if table.tune is not None and table.space is not None:
            self._fail((*path, "tune"), 'tune = "none" and a space exclude each other: keep one')
        if table.tune is not None:
            space = {}
        elif table.space is None:
            space = {
                k: _of_integers(v) if registry.takes_integers(spec, k) else v
                for k, v in spec.space.items()
                if k not in table.fixed
            }
        else:
            space = {}
            for k, v in table.space.items():
                with self.faults.collecting():
                    integer = registry.takes_integers(spec, k)
                    space[k] = self._dimension((*path, "space", k), v, integer=integer)
            if not table.space:
                self._fail(
                    (*path, "space"),
                    f"the search space of {table.optimizer} is empty: name a hyperparameter "
                    "to tune, or leave the space out for the optimizer's own",
                )
        for name in space:
            with self.faults.collecting():
                if name in table.fixed:
                    self._fail((*path, "fixed"), f"{name!r} is both fixed and in the search space")
        if index not in self.doubtful and len(space) == len(table.space or space):
            with self.faults.collecting():
                self._check_tuned(path, table, spec, space)
        self._check_settings(path, table, space)
        sampler = table.sampler or self.declared.tuning.sampler
        return Algorithm(
            label=_label(table),
            optimizer=table.optimizer,
            fixed=table.fixed,
            space=space,
            sampler=sampler,
            budget=self._budget(path, table, sampler, space),
            recipe=self._recipe(table),
            colour=table.colour,
            tune=table.tune,
        )

    def _check_tuned(
        self,
        path: tuple[str | int, ...],
        table: AlgorithmTable,
        spec: OptimizerSpec,
        space: Mapping[str, Range | Choice],
    ) -> None:
        """Refuse an optimizer whose hyperparameters nobody tuned, fixed, or said to leave alone.

        What ships with the package is exempt: it has a space, or is made to need no tuning.
        """
        included = registry.is_shipped(spec) or table.optimizer.startswith("optiscope.")
        if space or table.tune is not None or included:
            return
        names = [n for n in registry.hyperparameters_of(spec) if n not in spec.defaults]
        rates = [name for name in names if name in RATES]
        missing = [] if table.fixed and not rates else rates or names
        if not missing or any(name in table.fixed for name in missing):
            return
        name = missing[0]
        self._fail(
            (*path, "optimizer"),
            f"{table.optimizer} has a hyperparameter {name} and no space, so that nobody would "
            f"tune it: give space.{name} = {{ low = 1e-4, high = 1e-1 }}, fix it by fixed = "
            f"{{ {name} = VALUE }}"
            ', or say tune = "none", and every label and claim says "default '
            'hyperparameters"',
        )

    def _dimension(
        self, path: tuple[str | int, ...], table: RangeTable | ChoiceTable, *, integer: bool
    ) -> Range | Choice:
        try:
            if isinstance(table, ChoiceTable):
                return Choice(table.choice)
            return Range(table.low, table.high, table.log, table.points, integer)
        except ValueError as error:
            self._fail(path, f"{path[-1]}: {error}")

    def _budget(
        self,
        path: tuple[str | int, ...],
        table: AlgorithmTable,
        sampler: str,
        space: Mapping[str, Range | Choice],
    ) -> int:
        """Trials per problem: as declared, or the number of points of a grid; 0 untuned."""
        declared = table.budget or self.declared.tuning.budget
        if not space:
            return 0
        if sampler != "grid":
            return declared
        ranges = [d for d in space.values() if isinstance(d, Range)]
        size = 1
        for name, dimension in space.items():
            if size > MOST_TRIALS:
                break
            if isinstance(dimension, Choice):
                size *= len(dimension.values)
            elif dimension.points:
                size *= len(dimension.grid(dimension.points))
            elif len(ranges) == 1 and len(space) == 1:
                size *= len(dimension.grid(declared))
            else:
                self._fail(
                    (*path, "space", name),
                    f"a grid over several hyperparameters needs 'points' for {name!r}",
                )
        if size > MOST_TRIALS:
            many = f"the grid has more than {MOST_TRIALS:,} points"
            self._fail((*path, "space"), f"{many}: take fewer")
        return size

    def _schedule(self, table: AlgorithmTable) -> Mapping[str, Any] | None:
        """The algorithm's own schedule, or the study's."""
        if table.schedule == "none":
            return None
        return table.schedule or self.declared.schedule

    def _check_settings(
        self,
        path: tuple[str | int, ...],
        table: AlgorithmTable,
        space: Mapping[str, Range | Choice],
    ) -> None:
        """Build the optimizer at the corners of its space, and the schedule, clip and stopping."""
        recipe = self._recipe(table)
        told: set[str] = set()
        for corner in corners(space):
            given = {**table.fixed, **corner}
            bound = None
            while bound is None:
                settings = {name: value for name, value in given.items() if name not in told}
                try:
                    bound = registry.bind(table.optimizer, settings)
                except ImportError as error:
                    self._fail((*path, "optimizer"), str(error))
                except ValueError as error:
                    bad = next((n for n in settings if f"{n}" in str(error)), None)
                    if bad is None and (told or path[1] in self.doubtful):
                        return  # for want of what was left out
                    part = "fixed" if bad in table.fixed else "space"
                    with self.faults.collecting():
                        self._fail((*path, part, bad) if bad else path, str(error))
                    if bad is None:
                        return
                    told.add(bad)
            self._check_recipe(path, table, recipe_faults(recipe, None, bound.on_probe))
            faults = gradient_faults(
                recipe, table.optimizer, closure=bound.closure, create_graph=bound.create_graph
            )
            self._check_recipe(path, table, faults)
        if recipe.together and self.declared.monitor is not None:
            why = "trials that train together are not watched: leave out together, or [monitor]"
            self._check_recipe(path, table, [("together", why)])

    def _recipe(self, table: AlgorithmTable) -> Recipe:
        """How an algorithm trains: its own words, or the study's."""
        d = self.declared
        return Recipe(
            schedule=self._schedule(table),
            clip=table.clip,
            early_stopping=table.early_stopping,
            initialisation=table.initialisation or d.initialisation,
            pruner=table.pruner,
            max_seconds=d.max_seconds,
            device=d.device,
            threads=d.threads,
            autocast=None if table.autocast == "none" else table.autocast or d.autocast,
            compile=(d.compile if table.compile is None else table.compile) or None,
            accumulate=parts if (parts := table.accumulate or d.accumulate) > 1 else None,
            together=(d.together if table.together is None else table.together) or None,
        )

    def _check_recipe(
        self,
        path: tuple[str | int, ...],
        table: AlgorithmTable,
        faults: Iterable[tuple[str, str]],
    ) -> None:
        """Refuse what is wrong with a recipe, where that is declared."""
        for part, message in faults:
            place = (*path, part) if getattr(table, part, None) else (part,)
            if place in self.told:  # of another problem, or before any was looked at
                continue
            self.told.add(place)
            with self.faults.collecting():
                self._fail(place, message)

    def _check_watched(self, found: Sequence[Problem]) -> None:
        """Early stopping and plateau schedules must watch what every problem measures."""
        for problem in found:
            for i, table in enumerate(self.declared.algorithms):
                faults = recipe_faults(self._recipe(table), problem)
                self._check_recipe(("algorithms", i), table, faults)

    def _check_initialisations(self, found: Sequence[Problem]) -> None:
        """Every declared rule must have layers to act on in every problem."""
        declared: list[tuple[tuple[str | int, ...], Mapping[str, Any] | None]] = [
            (("initialisation",), self.declared.initialisation),
            *(
                (("algorithms", i, "initialisation"), table.initialisation)
                for i, table in enumerate(self.declared.algorithms)
            ),
        ]
        rules = [(path, rule) for path, rule in declared if rule is not None]
        for problem in found if rules else ():
            try:
                drawable_layers(problem.make_model())
            except ValueError as error:
                with self.faults.collecting():
                    self._fail(rules[0][0], f"{problem.name}: {error}")

    def _check_select(self, found: Sequence[Problem]) -> None:
        select = self.declared.tuning.select
        path = ("tuning", "select")
        if select.startswith("test_"):
            with self.faults.collecting():
                self._fail(
                    path,
                    f"tuning must not see the test set, got {select!r}: select by a validation "
                    "figure",
                )
            return
        for problem in found:
            known = validation_figures(problem)
            with self.faults.collecting():
                if select in known:
                    continue
                self._fail(path, self._unknown(f"figure of {problem.name}", select, known))

    def _check_goals(self, metrics: Mapping[str, str]) -> None:
        """Goals must be about problems of the study; an accuracy is a fraction."""
        for i, goal in enumerate(self.declared.goals):
            with self.faults.collecting():
                if goal.problem not in metrics:
                    path = ("goals", i, "problem")
                    self._fail(path, self._unknown("problem", goal.problem, list(metrics)))
                if metrics[goal.problem].endswith("accuracy") and not 0 < goal.value < 1:
                    self._fail(
                        ("goals", i, "value"),
                        f"an accuracy is a fraction between 0 and 1, got {goal.value}",
                    )

    def _per_problem(self, word: str, found: Sequence[Problem]) -> dict[str, int]:
        declared = getattr(self.declared, word)
        names = [p.name for p in found]
        if isinstance(declared, dict):
            for name in declared:
                with self.faults.collecting():
                    if name not in names:
                        self._fail((word, name), self._unknown("problem", name, names))
            return {p.name: declared.get(p.name, getattr(p, word)) for p in found}
        return {p.name: getattr(p, word) if declared is None else declared for p in found}

    def _metrics(self, found: Sequence[Problem]) -> dict[str, str]:
        chosen: dict[str, str] = {}
        names = [p.name for p in found]
        for name in self.declared.metric or {}:
            with self.faults.collecting():
                if name not in names:
                    self._fail(("metric", name), self._unknown("problem", name, names))
        for problem in found:
            known = ["loss"] if problem.metric is None else [problem.metric.name, "loss"]
            metric = (self.declared.metric or {}).get(problem.name, known[0])
            with self.faults.collecting():
                if metric not in known:
                    self._fail(
                        ("metric", problem.name),
                        self._unknown(f"figure of {problem.name}", metric, known),
                    )
            chosen[problem.name] = metric
        return chosen


def _label(table: AlgorithmTable) -> str:
    """The algorithm's name, which says so where its hyperparameters are left at their defaults."""
    return stated_label(table.label or table.optimizer, table.tune)


def _of_integers(dimension: Range | Choice) -> Range | Choice:
    return replace(dimension, integer=True) if isinstance(dimension, Range) else dimension


def corners(space: Mapping[str, Range | Choice]) -> list[dict[str, Any]]:
    """The lowest and the highest value of every dimension together, and each choice."""
    low = {n: d.at(0.0) if isinstance(d, Range) else d.values[0] for n, d in space.items()}
    high = {n: _high(d) if isinstance(d, Range) else d.values[-1] for n, d in space.items()}
    others = [
        {**low, name: value}
        for name, dimension in space.items()
        if isinstance(dimension, Choice)
        for value in dimension.values[1:-1]
    ]
    return [low, high, *others]


def _high(dimension: Range) -> float:
    return int(dimension.high) if dimension.integer else dimension.high
