"""Writes the report of a study: the page, and figures for a paper on request."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from optiscope.atomic_file import write_atomically
from optiscope.records import StoreError, StudyFolder
from optiscope.records.store import explain
from optiscope.report.appearance import Look, fixed_colors, looks
from optiscope.report.content import assemble
from optiscope.report.figures.groups import panels
from optiscope.report.page.page import render_page
from optiscope.report.paper import FORMATS, write_figures
from optiscope.stats.claims import claims_from
from optiscope.stats.naming import stated_label
from optiscope.stats.study_table import StudyTables, read_study

__all__ = ["write_report"]


def write_report(
    folder: StudyFolder,
    *,
    figures: Sequence[str] = (),
    width: float | None = None,
    algorithms: Sequence[str] | None = None,
    order: Sequence[str] | None = None,
    labels: Mapping[str, str] | None = None,
    colors: Mapping[str, str] | None = None,
    colours: Mapping[str, str] | None = None,
) -> Path:
    """Write ``report.html`` into the study's folder, and return its path.

    An algorithm looks the same in every report of a study, whichever others are shown, and claims
    stay corrected for all comparisons of the study: leaving algorithms out makes none easier.

    Args:
        folder: the study.
        figures: formats, ``pdf`` or ``png``, in which every figure is also written to ``figures/``.
        width: of those figures in inches; 5.5 by default.
        algorithms: labels to show; all by default.
        order: labels in the order to show them, the declared one by default; those left out follow.
        labels: names to show instead of declared labels; the other arguments use the declared ones.
            One declared ``tune = "none"`` says "default hyperparameters" under any name.
        colors: ``#rrggbb`` by label, in place of those of the study.
        colours: old name of ``colors``.

    Raises:
        StoreError: the folder holds no study, or cannot be read or written.
        ValueError: an unknown label or format, or a color that is none.
    """
    if colours is not None:
        warnings.warn("colours is now called colors", DeprecationWarning, stacklevel=2)
        colors = {**colours, **(colors or {})}
    _check_formats(figures)
    tunes = {str(a["label"]): a.get("tune") for a in folder.declaration()["algorithms"]}
    declared = list(tunes)
    names = {old: stated_label(new, tunes.get(old)) for old, new in (labels or {}).items()}
    tables = read_study(folder, rename=names)
    for label, color in (colors or {}).items():
        if not re.fullmatch("#[0-9a-fA-F]{6}", color):
            raise ValueError(f"color of {label!r} must look like #0072b2, got {color!r}")
    for given in (algorithms, order, colors):
        _check_labels(given or (), declared)
    shown = _look_up(tables, declared, algorithms, order, names, colors or {})
    content = assemble(tables, shown, claims_from(tables.evidence))
    target = folder.path / "report.html"
    try:
        write_atomically(target, render_page(content))
        if figures:
            write_figures(panels(content), folder.path / "figures", figures, width)
    except OSError as error:
        raise StoreError(explain(error, folder.path)) from error
    return target


def _look_up(
    tables: StudyTables,
    declared: Sequence[str],
    algorithms: Sequence[str] | None,
    order: Sequence[str] | None,
    names: Mapping[str, str],
    colors: Mapping[str, str],
) -> dict[str, Look]:
    wanted = fixed_colors({a.label: a.optimizer for a in tables.algorithms})
    wanted |= {a.label: a.colour for a in tables.algorithms if a.colour}
    wanted |= {names.get(label, label): color for label, color in colors.items()}
    everyone = looks(tables.labels, wanted)
    chosen = declared if algorithms is None else [x for x in declared if x in algorithms]
    if order is not None:
        first = [label for label in order if label in chosen]
        chosen = first + [label for label in chosen if label not in first]
    return {name: everyone[name] for name in (names.get(label, label) for label in chosen)}


def _check_formats(figures: Sequence[str]) -> None:
    unknown = [name for name in figures if name not in FORMATS]
    if unknown:
        raise ValueError(f"figures are written as {' or '.join(FORMATS)}, got {unknown[0]!r}")


def _check_labels(given: Sequence[str] | Mapping[str, str], declared: Sequence[str]) -> None:
    for label in given:
        if label not in declared:
            raise ValueError(
                f"no algorithm is labelled {label!r}: choose from {', '.join(declared)}"
            )
