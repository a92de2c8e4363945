"""``optiscope spectrum``: what the Hessian of a problem, or of a trained network, looks like."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from optiscope.cli.options import as_json, data_dir_option, json_option
from optiscope.cli.terminal import terminal, words

if TYPE_CHECKING:
    from rich.progress import Progress

    from optiscope.curvature import Density, Eigenpairs, GaussNewtonSplit, OutlierCount
    from optiscope.objective.risk import EmpiricalRisk

__all__ = ["command"]

SUFFIXES = (".png", ".svg", ".pdf")
MATRICES = ("hessian", "gauss_newton", "residual")


@dataclass(frozen=True)
class _Found:
    """What was measured, and of what.

    Attributes:
        title: problem and weights, in words.
        part: split whose samples were used.
        matrix: one of `MATRICES`.
        risk: mean loss over the samples.
        pairs: leading eigenpairs.
        count: outliers among them; None for the smallest ones.
        density: of the other eigenvalues, where asked for.
        split: H = G + R, where asked for.
    """

    title: str
    part: str
    matrix: str
    risk: EmpiricalRisk
    pairs: Eigenpairs
    count: OutlierCount | None
    density: Density | None
    split: GaussNewtonSplit | None


@click.command("spectrum")
@click.argument("source")
@click.option(
    "--weights",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A state dict of the problem's model (.safetensors, or .pt read with weights_only).",
)
@click.option("--epoch", type=int, help="Epoch of a run whose weights to use [default: the last].")
@click.option(
    "--on",
    "part",
    type=click.Choice(["train", "train_eval", "valid", "test"]),
    default="train",
    show_default=True,
    help="Samples to measure on.",
)
@click.option("--samples", type=click.IntRange(min=2), help="Use only the first N samples.")
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Samples per forward pass; their spread gives the error from the data [default: a 16th].",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Number of eigenvalues.",
)
@click.option(
    "--which",
    type=click.Choice(["largest", "smallest", "magnitude"]),
    default="largest",
    show_default=True,
    help="Which eigenvalues.",
)
@click.option(
    "--matrix", type=click.Choice(MATRICES), default="hessian", show_default=True, help="Matrix."
)
@click.option("--layer", multiple=True, help="Only these parameters: a name, prefix or pattern.")
@click.option(
    "--density", "wants_density", is_flag=True, help="Estimate the density of all eigenvalues."
)
@click.option(
    "--split", "--split-gn", "wants_split", is_flag=True, help="Split the Hessian: H = G + R."
)
@click.option(
    "--tol",
    type=float,
    default=1e-3,
    show_default=True,
    help="Relative residual of a converged pair.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed.")
@click.option(
    "--figure",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a picture (.png, .svg or .pdf).",
)
@data_dir_option
@json_option
def command(
    source: str,
    weights: Path | None,
    epoch: int | None,
    part: str,
    samples: int | None,
    batch_size: int | None,
    top: int,
    which: Any,
    matrix: str,
    layer: tuple[str, ...],
    wants_density: bool,
    wants_split: bool,
    tol: float,
    seed: int,
    figure: Path | None,
    data_dir: Path | None,
    wants_json: bool,
) -> None:
    """Show the leading eigenvalues of the Hessian of SOURCE, with their errors.

    SOURCE is a problem (a name from `optiscope list problems`, or an import path), at its initial
    weights or at those of --weights, or the folder of a run that kept its weights.
    """
    from rich.progress import BarColumn, Progress, TimeRemainingColumn

    from optiscope import curvature
    from optiscope.cli.spectrum_source import figure_suffix, load_source

    if figure is not None:
        figure_suffix(figure, SUFFIXES)
    loaded = load_source(source, weights, epoch)
    risk = loaded.risk(part, data_dir=data_dir, seed=seed, samples=samples, batch_size=batch_size)
    if layer:
        risk = risk.restrict(list(layer))
    console = terminal(stderr=True)
    columns = (words("{task.description}"), BarColumn(), words("{task.fields[note]}"))
    split = density = None
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        operator = getattr(risk, matrix)()
        pairs = _top(bar, operator, top, which, tol, seed)
        if wants_density:
            task = bar.add_task("density", total=None, note="")
            density = curvature.spectral_density(
                operator,
                deflate=pairs,
                seed=seed,
                progress=lambda i, n: bar.update(task, completed=i, total=n, note=f"{i} products"),
            )
        operator.release()
        if wants_split:
            task = bar.add_task("H = G + R", total=None, note="")
            split = curvature.decompose(
                risk,
                tol=tol,
                seed=seed,
                progress=lambda i, n: bar.update(task, completed=i, total=n, note=f"{i} of {n}"),
            )
    count = None if which == "smallest" else curvature.count_outliers(pairs, density)
    found = _Found(loaded.title, part, matrix, risk, pairs, count, density, split)
    if figure is not None:
        _draw(figure, found)
    if wants_json:
        click.echo(as_json(_values(found)))
        return
    _print(found)
    if figure is not None:
        click.echo(f"figure: {figure}")


def _top(bar: Progress, operator: Any, top: int, which: Any, tol: float, seed: int) -> Eigenpairs:
    from optiscope import curvature

    guess = 3 * top + 40  # products, for the bar alone
    task = bar.add_task("eigenvalues", total=guess, note="")

    def show(state: Any) -> None:
        stage = "looking for missed copies" if state.verifying else "searching"
        bar.update(
            task,
            completed=state.products,
            total=max(guess, state.products + 5),
            note=f"{state.converged} of {state.wanted}, {stage}",
        )

    pairs = curvature.top_eigenpairs(operator, top, which=which, tol=tol, seed=seed, progress=show)
    bar.update(task, completed=1, total=1)
    return pairs


def _values(found: _Found) -> dict[str, Any]:
    """What was found, as plain values."""
    risk, pairs, count = found.risk, found.pairs, found.count
    density, split = found.density, found.split
    values: dict[str, Any] = {
        "source": found.title,
        "on": found.part,
        "matrix": found.matrix,
        "parameters": risk.size,
        "samples": risk.samples,
        "figures": risk.evaluate(),
        "eigenvalues": pairs.values.tolist(),
        "data_errors": None if pairs.data_errors is None else pairs.data_errors.tolist(),
        "residuals": pairs.residuals.tolist(),
        "converged": pairs.converged.tolist(),
        "multiplicity_checked": pairs.multiplicity_checked,
        "missed_above": pairs.missed_above,
        "cost": _cost(pairs.cost),
    }
    if count is not None:
        values["outliers"] = {
            "count": count.count,
            "low": count.low,
            "high": count.high,
            "threshold": count.threshold,
            "rule": count.rule,
            "reason": count.reason,
        }
    if density is not None:
        values["density"] = {
            "grid": density.grid.tolist(),
            "density": density.density.tolist(),
            "monte_carlo": density.monte_carlo.tolist(),
            "krylov": density.krylov.tolist(),
            "data": None if density.data is None else density.data.tolist(),
            "width": density.width,
            "atoms": density.atoms.tolist(),
            "atom_mass": density.atom_mass,
            "cost": _cost(density.cost),
        }
    if split is not None:
        values["split"] = {
            name: {
                "trace": summary.trace.value,
                "trace_error": summary.trace.standard_error,
                "frobenius": summary.frobenius.value,
                "frobenius_error": summary.frobenius.standard_error,
                "top": summary.top.values.tolist(),
            }
            for name, summary in (
                ("hessian", split.hessian),
                ("gauss_newton", split.gauss_newton),
                ("residual", split.residual),
            )
        } | {
            "share": split.share.value,
            "finding": split.finding,
            "cost": _cost(split.cost),
        }
    return values


def _cost(cost: Any) -> dict[str, float]:
    return {
        "gradient_equivalents": cost.gradient_equivalents,
        "products": cost.products,
        "seconds": cost.seconds,
    }


def _print(found: _Found) -> None:
    """What was found, as tables and sentences."""
    from rich.table import Table

    risk, pairs, count = found.risk, found.pairs, found.count
    density, split = found.density, found.split
    out = terminal()
    figures = ", ".join(f"{name} {value:.4g}" for name, value in risk.evaluate().items())
    name = found.matrix.replace("_", "-")
    out.print(f"{found.title}: {name} on {found.part}", style="bold")
    out.print(f"{risk.size:,} parameters, {risk.samples:,} samples, {figures}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("rank", "eigenvalue", "± data", "residual", ""):
        table.add_column(heading, justify="left" if not heading else "right")
    for i, value in enumerate(pairs.values.tolist()):
        error = "-" if pairs.data_errors is None else f"{float(pairs.data_errors[i]):.2g}"
        above = count is not None and value > count.threshold
        note = "outlier" if above else ""
        if not bool(pairs.converged[i]):
            note = "not converged"
        table.add_row(str(i + 1), f"{value:.5g}", error, f"{float(pairs.residuals[i]):.1g}", note)
    out.print(table)
    if pairs.multiplicity_checked:
        out.print(
            "no repeated eigenvalue was missed: another one above "
            f"{pairs.missed_above:.4g} would have been found with probability 0.99"
        )
    else:
        out.print("repeated eigenvalues may be missing: the budget ended first", style="yellow")
    if count is not None:
        out.print(f"outliers: {count.count} ({count.low} to {count.high}); {count.reason}")
    if pairs.data_errors is not None:
        out.print(
            "± data: standard error for another training sample of this size at these weights; it "
            "does not cover held-out data"
        )
    costs = [pairs.cost]
    if density is not None:
        costs.append(density.cost)
        negative = 1 - density.mass_above(0.0)
        out.print(
            f"density: {negative:.0%} of eigenvalues are negative; between {density.grid[0]:.3g} "
            f"and {density.grid[-1]:.3g} beside the {len(density.atoms)} above"
        )
    if split is not None:
        costs.append(split.cost)
        _print_split(out, split)
    total = sum(costs[1:], costs[0])
    out.print(f"cost: {total.gradient_equivalents:.0f} gradients, {total.seconds:.1f} s")


def _print_split(out: Any, split: GaussNewtonSplit) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("H = G + R", "trace", "±", "Frobenius", "±", "largest"):
        table.add_column(heading, justify="left" if heading.startswith("H") else "right")
    for name, summary in (
        ("Hessian H", split.hessian),
        ("Gauss-Newton G", split.gauss_newton),
        ("residual R", split.residual),
    ):
        table.add_row(
            name,
            f"{summary.trace.value:.4g}",
            f"{summary.trace.standard_error:.2g}",
            f"{summary.frobenius.value:.4g}",
            f"{summary.frobenius.standard_error:.2g}",
            f"{summary.top.value:.4g}",
        )
    out.print(table)
    out.print(split.finding)


def _draw(path: Path, found: _Found) -> None:
    """Write a picture of what was found, its caption with cost and errors."""
    import torch

    from optiscope.cli.spectrum_source import save_figure
    from optiscope.report.figures.spectrum import DensityLine, Leading, spectrum_figure

    risk, pairs, count = found.risk, found.pairs, found.count
    density, split = found.density, found.split
    costs = [part.cost for part in (pairs, density, split) if part is not None]
    total = sum(costs[1:], costs[0])
    name = found.matrix.replace("_", "-")
    caption = (
        f"{len(pairs)} {pairs.which} eigenvalues of the {name} matrix over {risk.samples:,} "
        f"samples ({found.part}) and {risk.size:,} parameters; cost "
        f"{total.gradient_equivalents:.0f} gradients. "
    )
    if pairs.data_errors is not None:
        caption += (
            "Bars: 1.96 standard errors from the spread over batches (another sample at the same "
            "weights; not held-out data). "
        )
    line = None
    if density is not None:
        linear = density.resolution()
        low, high = float(density.grid[0]), float(density.grid[-1])
        ends = torch.asinh(torch.tensor([min(low, -linear), max(high, float(density.atoms.max()))],
                                        dtype=torch.float64) / linear)  # fmt: skip
        place = torch.linspace(float(ends[0]) - 0.5, float(ends[1]) + 0.3, 800).double()
        curve = density.on(linear * torch.sinh(place), 0.25, linear_below=linear)
        reach = density.half_width_of(curve)
        line = DensityLine(
            grid=curve.grid.tolist(),
            density=curve.density.tolist(),
            half_width=reach.tolist(),
            data=None if curve.data is None else curve.data.tolist(),
            atoms=density.atoms.tolist(),
            atom_mass=density.atom_mass,
            linear_below=linear,
        )
        caption += (
            f"Density: {len(density.runs)} probes of {len(density.runs[0].projected)} steps, "
            "smoothed by a Gaussian of width 0.25 on the axis shown; the band holds the probes' "
            "error and what more steps would change. "
        )
    parts = None
    if split is not None:
        parts = {
            "Hessian": split.hessian.top.values.tolist(),
            "Gauss-Newton": split.gauss_newton.top.values.tolist(),
            "residual": split.residual.top.values.tolist(),
        }
        caption += split.finding
    leading = Leading(
        values=pairs.values.tolist(),
        errors=None if pairs.data_errors is None else pairs.data_errors.tolist(),
        threshold=float("nan") if count is None else count.threshold,
        outliers="" if count is None else f"{count.count} outliers ({count.low} to {count.high})",
    )
    save_figure(spectrum_figure(f"Spectrum of {found.title}", leading, caption, line, parts), path)
