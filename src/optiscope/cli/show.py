"""``optiscope show``: the full definition of a problem, its data, and its signals at the start."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from optiscope.cli.options import as_json, data_dir_option, json_option, parse_rule
from optiscope.cli.terminal import terminal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from optiscope.data.samples import Splits
    from optiscope.problems import Problem
    from optiscope.problems.signal_spread import LayerSpread
    from optiscope.problems.textbook.trajectory import Trajectory

__all__ = ["command"]

SUFFIXES = (".png", ".svg", ".pdf")


@click.command("show")
@click.argument("problem")
@click.option(
    "--spread",
    "wants_spread",
    is_flag=True,
    help="Measure the spread of activations and gradients per layer at initialization.",
)
@click.option(
    "--init",
    "rules",
    multiple=True,
    metavar="RULE",
    help="With --spread: an initialization, such as he_normal or orthogonal,gain=1.4; may be "
    "given several times [default: the problem's own].",
)
@click.option(
    "--samples",
    type=click.IntRange(min=2),
    default=256,
    show_default=True,
    help="With --spread: samples to measure on.",
)
@click.option(
    "--trajectory",
    "optimizers",
    multiple=True,
    metavar="OPTIMIZER",
    help="For a problem with two parameters: the path of an optimizer, such as sgd,lr=0.1; may be "
    "given several times.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="With --trajectory: steps of each.",
)
@click.option("--clip-norm", type=float, help="With --trajectory: clip the gradient's norm.")
@click.option(
    "--figure",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a picture (.png, .svg or .pdf): the spread, the trajectories, or sample images.",
)
@data_dir_option
@json_option
def command(
    problem: str,
    wants_spread: bool,
    rules: tuple[str, ...],
    samples: int,
    optimizers: tuple[str, ...],
    steps: int,
    clip_norm: float | None,
    figure: Path | None,
    data_dir: Path | None,
    wants_json: bool,
) -> None:
    """Show the definition of PROBLEM: data, model, loss, settings, samples, class balance.

    PROBLEM is a name from `optiscope list problems`, or an import path such as
    my_package.my_module:my_problem.
    """
    if figure is not None and figure.suffix.lower() not in SUFFIXES:
        raise click.BadParameter(
            f"expected a file ending in {', '.join(SUFFIXES)}, got {figure.name!r}",
            param_hint="'--figure'",
        )
    from optiscope import problems
    from optiscope.cli.show_definition import definition, load, spreads
    from optiscope.optim.registry import refusing

    found = problems.get(problem)
    splits, missing = load(found, data_dir)
    if splits is None and (wants_spread or optimizers):
        found.data(data_dir)  # raises what `load` kept
    measured: dict[str, list[LayerSpread]] = {}
    walked: dict[str, Trajectory] = {}
    with refusing():
        if wants_spread and splits is not None:
            named: dict[str, dict[str, Any] | None] = {rule: parse_rule(rule) for rule in rules}
            measured = spreads(found, splits, named or {"the problem's own": None}, samples)
        elif rules:
            raise click.UsageError("--init is for --spread: give both")
        if optimizers:
            walked = _walks(found, optimizers, steps, clip_norm)
        drawn = None if figure is None else _figure(found, splits, missing, measured, walked)
    if figure is not None and drawn is not None:
        _save(drawn, figure)
    values = definition(found, splits, missing)
    if wants_json:
        values |= _for_machines(measured, walked)
        click.echo(as_json(values))
        return
    _print(found, splits, values, measured, walked, samples, data_dir)
    if figure is not None:
        click.echo(f"figure: {figure}")


def _walks(
    problem: Problem, optimizers: tuple[str, ...], steps: int, clip: float | None
) -> dict[str, Trajectory]:
    from optiscope.cli.show_landscape import paths

    if problem.parameters != 2:
        raise ValueError(
            f"--trajectory needs a problem with 2 parameters, got {problem.name} with "
            f"{'another number' if problem.parameters is None else f'{problem.parameters:,}'}: "
            "choose another, such as textbook_saddle"
        )
    return paths(problem, optimizers, steps, clip)


def _figure(
    problem: Problem,
    splits: Splits | None,
    missing: str,
    measured: dict[str, list[LayerSpread]],
    walked: dict[str, Trajectory],
) -> Figure:
    if measured:
        from optiscope.report.figures.signal_propagation import Spread, spread_figure

        drawn = {
            label: Spread(
                [f"{row.name} {row.kind}".strip() for row in rows],
                [row.std for row in rows],
                [float("nan") if row.gradient is None else row.gradient for row in rows],
            )
            for label, rows in measured.items()
        }
        return spread_figure(f"{problem.name} before training", drawn)
    if walked or problem.parameters == 2:
        from optiscope.cli.show_landscape import landscape

        return landscape(problem, walked)
    if splits is None:
        raise ValueError(f"--figure needs the data, which are not here: {missing}")
    from optiscope.cli.show_samples import image_figure

    return image_figure(problem, splits)


def _save(figure: Figure, path: Path) -> None:
    from optiscope.records import StoreError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from None


def _for_machines(
    measured: dict[str, list[LayerSpread]], walked: dict[str, Trajectory]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if measured:
        found["spread"] = {k: [dataclasses.asdict(r) for r in v] for k, v in measured.items()}
    if walked:
        found["trajectories"] = {
            label: {
                "points": t.points.tolist(),
                "losses": t.losses.tolist(),
                "gradient_norms": t.gradient_norms.tolist(),
                "diverged": t.diverged,
            }
            for label, t in walked.items()
        }
    return found


def _print(
    problem: Problem,
    splits: Splits | None,
    values: dict[str, Any],
    measured: dict[str, list[LayerSpread]],
    walked: dict[str, Trajectory],
    samples: int,
    data_dir: Path | None,
) -> None:
    from optiscope.cli.show_samples import print_samples
    from optiscope.cli.show_terminal import print_definition, print_spreads, print_walks

    console = terminal()
    print_definition(console, values)
    if splits is not None:
        print_samples(console, problem, splits, data_dir)
        samples = min(samples, len(splits.train))
    if measured:
        console.print()
        print_spreads(console, measured, samples)
    if walked:
        console.print()
        print_walks(console, walked)
