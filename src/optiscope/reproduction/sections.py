"""What the page of an experiment says: figures beside the published ones, tables, verdicts.

Everything is read from records; nothing is trained here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

from optiscope.records import Run, StoreError, StudyFolder
from optiscope.records.crashes import crash_text, crashes
from optiscope.report.answers import answer
from optiscope.report.figures.panel import Panel, file_name
from optiscope.report.tables.data_table import Cell, DataTable, Row
from optiscope.reproduction.agreement import Compared
from optiscope.reproduction.drawing import Line, draw_beside, draw_rates, draw_ratios
from optiscope.reproduction.experiments import Part, TimedProblem
from optiscope.reproduction.published_figures import (
    Published,
    published_costs,
    published_curve,
    published_sensitivity,
)
from optiscope.stats.claims import Claim, claims_from
from optiscope.stats.comparison import Verdict
from optiscope.stats.evidence import read_evidence
from optiscope.stats.naming import counted
from optiscope.stats.refusal import Refusal
from optiscope.stats.study_table import read_study
from optiscope.stats.summary import results

__all__ = ["TIMED", "Section", "cost_section", "study_section"]

NAMES = {  # ours -> the thesis's
    "SGD": "SGD",
    "Momentum": "Momentum",
    "Adam": "Adam",
    "Preconditioned SGD": "PreconditionedSGD",
    "Adaptive SGD": "AdaptiveSGD",
    "Preconditioned Tuned SGD": "Preconditioned Tuned SGD",
    "Preconditioned Tuned Momentum": "Preconditioned Tuned Momentum",
    "Published Preconditioned SGD": "PreconditionedSGD",
    "Published Adaptive SGD": "AdaptiveSGD",
    "Published Preconditioned Tuned SGD": "Preconditioned Tuned SGD",
    "Published Preconditioned Tuned Momentum": "Preconditioned Tuned Momentum",
    "explicit": "explicit",
    "framework": "framework",
}
PROGRAM = "optiscope.reproduction.published_program:"
TIMED = {  # name of the optimizer -> label and the thesis's name
    "sgd": ("SGD", None),
    "preconditioned_sgd": ("PreconditionedSGD", "PreconditionedSGD"),
    "adaptive_sgd": ("AdaptiveSGD", "AdaptiveSGD"),
    "only_adaptive_sgd": ("OnlyAdaptiveSGD", "OnlyAdaptiveSGD"),
    "adam": ("Adam", "Adam"),
    f"{PROGRAM}preconditioned_sgd": ("Published PreconditionedSGD", "PreconditionedSGD"),
}
PHASES = (  # algorithm, prior, constructed rate, observations, application, inner optimizer
    ("Preconditioned SGD", "yes", "yes", "yes", "yes", "SGD"),
    ("Adaptive SGD", "yes", "yes", "yes", "no", "SGD"),
    ("Only Adaptive SGD (Experiment 2)", "yes", "yes", "no", "no", "SGD"),
    ("Preconditioned Tuned SGD", "yes", "no: tuned rate", "yes", "yes", "SGD"),
    ("Preconditioned Tuned Momentum", "yes", "no: tuned rate", "yes", "yes", "momentum 0.9"),
)
REENCODED = "our CIFAR-10 is re-encoded as JPEG"
CORRECT = "ours is the paper's algorithm computed correctly, not the published program"
MACHINE = "another machine, other libraries; runs are interleaved here"
EXTRA = ("Lark",)
TURNED = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}
NOTHING = 0.02  # gain in accuracy below which a network has learnt nothing


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        heading: above it.
        facts: what was run.
        report: page of the study with all details, relative to this page; empty for none.
        compared: figures beside the published ones.
        conclusions: published conclusions with their verdicts.
        panels: figures.
        tables: further tables.
        crashed: runs that ended in an exception, one line for each algorithm and reason.
    """

    heading: str
    facts: str
    report: str = ""
    compared: tuple[Compared, ...] = ()
    conclusions: tuple[tuple[str, str, str], ...] = ()
    panels: tuple[Panel, ...] = ()
    tables: tuple[DataTable, ...] = ()
    crashed: tuple[str, ...] = ()


def study_section(part: Part, folder: StudyFolder) -> Section:
    """The section of one study."""
    declaration = folder.declaration()
    problem = str(declaration["problems"][0])
    epochs = int(declaration["epochs"][problem])
    runs = _runs(folder)
    facts = (
        f"{problem}, batch {declaration['batch_sizes'][problem]}, {counted(epochs, 'epoch')}, "
        f"{counted(len(declaration['seeds']), 'seed')}."
    )
    section = partial(
        Section,
        heading=str(declaration["question"])
        + (f" Batch {part.batch_size}." if part.batch_size is not None else ""),
        facts=facts,
        report=f"{part.name}/report.html",
        crashed=tuple(map(crash_text, crashes(read_evidence(folder).ended))),
    )
    if part.name == "sensitivity":
        return _sensitivity(folder, epochs, section)
    known = read_study(folder, curves=False)
    claims = claims_from(known.evidence)
    batch = int(declaration["batch_sizes"][problem])
    compared, panels = [], []
    for label, found in runs.items():
        published = published_curve(problem, NAMES.get(label, ""), batch)
        curves = [_curve(run) for run in found]
        if published:
            for epoch in sorted({1, epochs}):
                compared.append(
                    Compared(
                        f"{label}: test accuracy after {counted(epoch, 'epoch')}",
                        _percent(published[epoch]),
                        [100 * curve.get(epoch, math.nan) for curve in curves],
                        note=_note(label, problem),
                    )
                )
        if published or label in EXTRA:
            panels.append(_panel(part.name, label, curves, published, epochs))
    tables = (_phases(),) if part.name.startswith("phases") else ()
    if not compared:
        tables = (*tables, _results(runs))
        said = answer(problem, results(known), claims).text
        facts += f" {said[0].upper()}{said[1:]}"
    return section(
        facts=facts,
        compared=tuple(compared),
        conclusions=tuple(_conclusions(part, claims, runs)),
        panels=tuple(panels),
        tables=tables,
    )


def cost_section(timed: TimedProblem, path: Path) -> Section:
    """The section of one problem's times, kept in ``path``."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise StoreError(
            f"{path} cannot be read: remove it, and the times are measured again"
        ) from None
    published = published_costs()
    compared, bars, rows = [], [], []
    for row in content["rows"][1:]:
        label, name = TIMED[row["optimizer"]]
        known = published.get(name or "")
        note = MACHINE if label.startswith("Published") or label == "Adam" else CORRECT
        compared.append(Compared(f"{label}: wall time", known, row["ratios"], "×", note))
        bars.append(
            (label, row["ratio"]["median"], row["ratio"]["low"], row["ratio"]["high"], known)
        )
    for row in content["rows"]:
        rows.append(
            Row(
                [
                    Cell(TIMED[row["optimizer"]][0]),
                    Cell(f"{row['ratio']['median']:.2f}"),
                    Cell(f"{row['cpu_ratio']['median']:.2f}"),
                    Cell(f"{row['seconds_per_epoch']:.1f}"),
                    Cell(f"{row['gradients_per_step']:.2f}"),
                    Cell(f"{row['hessian_products_per_step']:.3f}"),
                ]
            )
        )
    table = DataTable(
        ["optimizer", "#wall", "#CPU", "#s / epoch", "#gradients / step", "#products / step"],
        rows,
        "Wall and CPU time relative to SGD, medians; the published study did not measure CPU time.",
    )
    panel = Panel(
        f"cost-{timed.problem}",
        partial(draw_ratios, bars=bars),
        f"time of an epoch relative to SGD on {timed.problem}, with the published ratios",
        height=0.26 + 0.09 * len(bars),
        left=2.0,
    )
    return Section(
        f"Time on {timed.problem}",
        f"{timed.problem}, batch {content['batch_size']}, {content['threads']} threads, "
        f"{content['repetitions']} interleaved epochs each after a warm-up.",
        compared=tuple(compared),
        conclusions=tuple(_cost_conclusions(compared, timed.problem)),
        panels=(panel,),
        tables=(table,),
    )


def _runs(folder: StudyFolder) -> dict[str, list[Run]]:
    """Reporting runs by label, in the study's order."""
    found: dict[str, list[Run]] = {str(a["label"]): [] for a in folder.declaration()["algorithms"]}
    for entry in folder.ledger():
        run = folder.store.read(entry.trial_hash) if entry.role == "reporting" else None
        if isinstance(run, Run):
            found[entry.algorithm].append(run)
    return {label: runs for label, runs in found.items() if runs}


def _curve(run: Run) -> dict[int, float]:
    epochs, values = run.curve("test", "accuracy")
    curve = {int(e): float(v) for e, v in zip(epochs, values, strict=True) if e == int(e)}
    return curve if run.status.complete else {0: curve.get(0, math.nan)}


def _percent(published: Published) -> Published:
    return Published(100 * published.mean, 100 * published.deviation, published.runs)


def _note(label: str, problem: str) -> str:
    notes = []
    if label in ("Preconditioned SGD", "Adaptive SGD") or label.startswith("Preconditioned Tuned"):
        notes.append(CORRECT)
    if label.startswith("Published"):
        notes.append("the program is written anew from its description")
    if problem.startswith("cifar10"):
        notes.append(REENCODED)
    return "; ".join(notes)


def _panel(
    study: str,
    label: str,
    curves: Sequence[Mapping[int, float]],
    published: Mapping[int, Published],
    epochs: int,
) -> Panel:
    theirs = [(e, p) for e, p in published.items() if 1 <= e <= epochs]
    lines = [Line.of_runs("here", curves, epochs)]
    if theirs:
        lines.append(
            Line(
                "published",
                tuple(e for e, _ in theirs),
                tuple(100 * p.mean for _, p in theirs),
                tuple(100 * p.deviation for _, p in theirs),
            )
        )
    return Panel(
        f"{study}-{file_name(label)}",
        partial(draw_beside, title=label, lines=lines),
        f"test accuracy of {label}, here and as published",
    )


def _phases() -> DataTable:
    columns = ["algorithm", "prior", "constructed rate", "observations", "application", "inside"]
    return DataTable(columns, [Row([Cell(text) for text in row]) for row in PHASES])


def _results(runs: Mapping[str, Sequence[Run]]) -> DataTable:
    rows = []
    for label, found in runs.items():
        figures = Compared(label, None, [100 * _final(r) for r in found if r.status.complete])
        steps = sum(r.steps for r in found)
        seconds = sum(r.training_seconds.wall for r in found)
        products = sum(r.counts["hessian_products"] for r in found)
        failed = sum(not r.status.complete for r in found)
        spread = "" if math.isnan(figures.deviation) else f" ± {figures.deviation:.2f}"
        rows.append(
            Row(
                [
                    Cell(label),
                    Cell("failed" if math.isnan(figures.mean) else f"{figures.mean:.2f}{spread}"),
                    Cell(f"{failed} of {len(found)}"),
                    Cell(f"{1000 * seconds / max(steps, 1):.1f}"),
                    Cell(f"{products / max(steps, 1):.3f}"),
                ]
            )
        )
    columns = ["algorithm", "#test accuracy (%)", "#failed", "#ms / step", "#products / step"]
    return DataTable(columns, rows, "Mean and standard deviation over the runs that finished.")


def _final(run: Run) -> float:
    return run.final["test_accuracy"] if run.status.complete else math.nan


def _conclusions(
    part: Part, found: Sequence[Claim | Refusal], runs: Mapping[str, Sequence[Run]]
) -> Iterable[tuple[str, str, str]]:
    claims = [c for c in found if isinstance(c, Claim)]
    if part.name.startswith("preconditioning_"):
        for other in ("SGD", "Momentum", "Adam"):
            if other in runs and "Preconditioned SGD" in runs:
                yield _about(
                    f"Preconditioning with a constructed rate loses to tuned {other}",
                    claims,
                    "Preconditioned SGD",
                    other,
                    Verdict.WORSE,
                )
    if part.name.startswith("phases_"):
        yield _about(
            "Preconditioning adds nothing to the constructed rate (the published program)",
            claims,
            "Published Preconditioned SGD",
            "Published Adaptive SGD",
            Verdict.EQUIVALENT,
        )
    if part.name.startswith("initialisation"):
        everyone = [r for found in runs.values() for r in found]
        failed = sum(not r.status.complete for r in everyone)
        yield (
            f"With the constructed first rate no run diverges at batch {part.batch_size}",
            "confirmed" if not failed else "refuted",
            f"{failed} of {len(everyone)} runs failed",
        )


def _about(
    words: str, claims: Sequence[Claim], a: str, b: str, published: Verdict
) -> tuple[str, str, str]:
    """What the study's claim about a and b makes of a published verdict on a."""
    for found in claims:
        if {found.a, found.b} == {a, b}:
            turned = TURNED.get(found.verdict, found.verdict) if found.a == b else found.verdict
            verdict = "confirmed" if turned is published else "refuted"
            undecided = found.verdict is Verdict.UNDECIDED
            return words, "undecided" if undecided else verdict, found.sentence
    return words, "undecided", "the study does not support a claim about the two"


def _cost_conclusions(compared: Sequence[Compared], problem: str) -> Iterable[tuple[str, str, str]]:
    words = {
        "PreconditionedSGD": "Preconditioning takes 2.4 times the seconds of SGD",
        "AdaptiveSGD": "Constructing the rate and observing takes 1.9 times the seconds of SGD",
        "OnlyAdaptiveSGD": "Constructing the rate alone costs nothing",
    }
    for figure in compared:
        label = figure.what.partition(":")[0]
        if label in words and figure.published is not None:
            program = [c for c in compared if c.what.startswith(f"Published {label}:")]
            beside = f", {program[0].mean:.2f} as the published program does it" if program else ""
            yield (
                words[label],
                "confirmed" if figure.verdict == "agree" else "refuted",
                f"{figure.mean:.2f} times on {problem} here{beside}, "
                f"published {figure.published.mean:.2f}",
            )


def _sensitivity(folder: StudyFolder, epochs: int, section: partial[Section]) -> Section:
    found: dict[str, dict[float, float]] = {}
    constructed: list[float] = []
    for entry in folder.ledger():
        run = folder.store.read(entry.trial_hash) if entry.role == "tuning" else None
        if isinstance(run, Run):
            rates = found.setdefault(entry.algorithm, {})
            final = rates[float(run.trial.hyperparameters["lr"])] = 100 * _gained(run)
            if entry.algorithm != "SGD" and not math.isnan(final):
                constructed += [v for v in run.curve("optimizer", "step_size")[1][-1:] if v > 0]
    published = {
        label: {lr: 100 * p.mean for lr, p in published_sensitivity(label).items()}
        for label in found
    }
    panels = [
        Panel(
            f"sensitivity-{file_name(label)}",
            partial(
                draw_rates,
                title=label,
                ours=rates,
                published=published[label],
                constructed=constructed if label != "SGD" else [],
                words=(f"here, {epochs} epochs", "published, 100 epochs"),
            ),
            f"test accuracy of {label} against the rate, here and as published",
        )
        for label, rates in found.items()
    ]
    rows = [
        Row(
            [
                Cell(f"{lr:.2g}"),
                *(
                    Cell(_share(values.get(lr)))
                    for label in found
                    for values in (found[label], _nearest(published[label], found[label]))
                ),
            ]
        )
        for lr in sorted({lr for rates in found.values() for lr in rates})
    ]
    heads = [f"#{label}, {where}" for label in found for where in ("here", "published")]
    table = DataTable(
        ["rate", *heads],
        rows,
        "Test accuracy in per cent; failed: diverged, or no better than at the start.",
    )
    return section(
        panels=tuple(panels),
        tables=(table,),
        conclusions=tuple(_effect(found.get("Preconditioned SGD", {}), epochs)),
    )


def _gained(run: Run) -> float:
    """Final test accuracy; NaN where the run failed or ended no better than it began."""
    final = _final(run)
    return final if final > _curve(run).get(0, 0.0) + NOTHING else math.nan


def _share(value: float | None) -> str:
    if value is None:
        return ""
    return "failed" if math.isnan(value) else f"{value:.1f}"


def _nearest(published: Mapping[float, float], ours: Mapping[float, float]) -> dict[float, float]:
    """Published values at our rates, where one is within a tenth of a decade."""
    found = {}
    for lr in ours:
        near = min(published, key=lambda p: abs(math.log10(p / lr)), default=None)
        if near is not None and abs(math.log10(near / lr)) < 0.1:
            found[lr] = published[near]
    return found


def _effect(rates: Mapping[float, float], epochs: int) -> Iterable[tuple[str, str, str]]:
    kept = {lr: v for lr, v in rates.items() if not math.isnan(v)}
    if not kept:
        return
    low, high = min(kept, key=lambda lr: kept[lr]), max(kept, key=lambda lr: kept[lr])
    spread = kept[high] - kept[low]
    yield (
        "The rate of the first epoch has next to no effect",
        "confirmed" if spread < 1 and len(kept) == len(rates) else "refuted",
        f"after {epochs} epochs {kept[high]:.1f} % at {high:.2g} and {kept[low]:.1f} % at "
        f"{low:.2g}; {len(rates) - len(kept)} of {len(rates)} rates failed",
    )
    near = [kept[lr] for lr in kept if 1e-3 < lr < 3e-2]
    others = [kept[lr] for lr in kept if not 1e-3 < lr < 3e-2]
    if near and others:
        loss = fmean(others) - fmean(near)
        yield (
            "First rates between 0.001 and 0.03 cost accuracy (published: about two points)",
            "confirmed" if loss > 1 else "refuted",
            f"they end {loss:.1f} points below the mean of the other rates that train",
        )
