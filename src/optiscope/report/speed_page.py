"""The page of a speed study: one figure, the mean, and what each problem gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from optiscope.atomic_file import write_atomically
from optiscope.records import StoreError, StudyFolder
from optiscope.records.store import explain
from optiscope.report.appearance import Look, fixed_colors, looks
from optiscope.report.figure_style import figure_style
from optiscope.report.figures.panel import Panel
from optiscope.report.figures.speed import draw_speeds, rows_of_speeds
from optiscope.report.page.page import page_environment, page_figure
from optiscope.report.svg import svg_text
from optiscope.report.tables.data_table import Cell, DataTable, Row
from optiscope.stats.speed import MeanSpeed, Speed, means, speed
from optiscope.stats.speed_records import part_folder, read_races

__all__ = [
    "looks_of",
    "mean_table",
    "no_estimates",
    "speed_json",
    "speed_table",
    "speeds_of",
    "write_speed_page",
]


def speeds_of(folder: Path | str) -> list[Speed]:
    """Every speed that the records of a speed study give; raises StoreError."""
    return [speed(race) for race in read_races(folder)]


def looks_of(folder: Path | str) -> dict[str, Look]:
    """How each algorithm of a speed study looks."""
    algorithms = StudyFolder(part_folder(folder, 1)).declaration()["algorithms"]
    labels = [str(one["label"]) for one in algorithms]
    return looks(labels, fixed_colors({str(a["label"]): str(a["optimizer"]) for a in algorithms}))


def write_speed_page(folder: Path | str) -> Path:
    """Write ``speed.html`` into the folder of a speed study, and return its path.

    Raises:
        StoreError: the folder holds no speed study, or cannot be read or written.
    """
    folder = Path(folder)
    declared = StudyFolder(part_folder(folder, 1)).declaration()
    found = speeds_of(folder)
    overall = means(found)
    target = folder / "speed.html"
    try:
        write_atomically(target, _render(declared, found, overall, looks_of(folder)))
    except OSError as error:
        raise StoreError(explain(error, folder)) from error
    return target


def _render(
    declared: Mapping[str, Any],
    found: Sequence[Speed],
    overall: Mapping[str, MeanSpeed],
    shown: Mapping[str, Look],
) -> str:
    drawing = None
    if found:
        rows = rows_of_speeds(found, overall)
        panel = Panel(
            "speed",
            partial(draw_speeds, speeds=found, means=overall, looks=shown),
            "times fewer steps than the baseline, by problem, with the geometric mean",
            height=0.3 + (0.05 + 0.04 * len(overall)) * len(rows),
            left=1.35,
        )
        with figure_style():
            drawing = Markup(svg_text(page_figure(panel), "speed", panel.description))
    problems = {one.problem for one in found}
    waiting = [name for name in declared["problems"] if name not in problems]
    style = resources.files("optiscope.report.page") / "templates" / "report.css"
    return (
        page_environment()
        .get_template("speed.html.j2")
        .render(
            declared=declared,
            baselines=" or ".join(declared["speed"]["baselines"]),
            parts=sorted(declared["speed"]["parts"]),
            drawing=drawing,
            means=mean_table(overall),
            no_estimates=no_estimates(overall),
            speeds=speed_table(found),
            waiting=waiting,
            style=Markup(style.read_text(encoding="utf-8")),
            version=metadata.version("optiscope"),
        )
    )


def mean_table(overall: Mapping[str, MeanSpeed]) -> DataTable:
    """A row per algorithm: geometric means in steps and seconds, and the smallest speed."""
    rows = [
        Row(
            (
                Cell(label),
                Cell(str(one.problems)),
                Cell(_bounded(one.steps, one.bound)),
                Cell(_between(one.steps_interval, one.ends)),
                Cell(_bounded(one.seconds, one.bound)),
                Cell(_between(one.seconds_interval, one.ends)),
                Cell(f"{_bounded(one.smallest[1], one.smallest_bound)} on {one.smallest[0]}"),
            )
        )
        for label, one in overall.items()
    ]
    columns = (
        "algorithm",
        "#problems",
        "#fewer steps",
        "#95 %",
        "#fewer seconds",
        "#95 %",
        "smallest, in steps",
    )
    return DataTable(columns, rows)


def no_estimates(overall: Mapping[str, MeanSpeed]) -> list[str]:
    """A sentence for each mean that mixes upper and lower bounds."""
    return [
        f"The geometric mean of {label} is no estimate: its {one.problems} speeds hold upper "
        f"bounds ({one.upper_bounds}) and lower bounds ({one.lower_bounds})."
        for label, one in overall.items()
        if one.bound == "bounds of both kinds"
    ]


def speed_table(found: Sequence[Speed]) -> DataTable:
    """A row per problem and algorithm."""
    rows = [
        Row(
            (
                Cell(one.problem),
                Cell(one.algorithm),
                Cell(one.baseline),
                Cell(_bounded(one.steps, one.bound)),
                Cell(_between(one.steps_interval, one.ends)),
                Cell(_bounded(one.seconds, one.bound)),
                Cell(_between(one.seconds_interval, one.ends)),
            )
        )
        for one in found
    ]
    columns = (
        "problem",
        "algorithm",
        "baseline",
        "#fewer steps",
        "#95 %",
        "#fewer seconds",
        "#95 %",
    )
    return DataTable(columns, rows)


def speed_json(folder: Path | str) -> dict[str, Any]:
    """Plain values for machines: speeds and means."""
    found = speeds_of(folder)
    return {
        "speeds": [one.to_dict() for one in found],
        "means": [one.to_dict() for one in means(found).values()],
    }


def _bounded(value: float, bound: str) -> str:
    """The value, and in words what kind of bound it is."""
    if bound == "bounds of both kinds":
        return f"{value:.2f}, no estimate"
    return f"{bound} {value:.2f}".lstrip()


def _between(interval: tuple[float, float], ends: tuple[str, str]) -> str:
    """An interval; one of whose ends is a bound is open on that side."""
    (low, high), (below, above) = interval, ends
    if below and above:
        return "not known"
    if below or above:
        return _bounded(high, below) if below else _bounded(low, above)
    return f"{low:.2f} to {high:.2f}"
