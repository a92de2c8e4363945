"""``optiscope landscape``: lines, planes, paths, matched units and basins of weight files.

A first look needs no file: ``optiscope landscape digits_mlp`` trains briefly and draws.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from optiscope.cli.options import as_json, data_dir_option, json_option
from optiscope.cli.terminal import terminal, words

if TYPE_CHECKING:
    from torch import Tensor

    from optiscope.objective.risk import EmpiricalRisk
    from optiscope.problems import Problem

__all__ = ["command"]

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class _Landscape(click.Group):
    """A first argument that is no subcommand is a problem to look at."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["look", *args]
        return super().resolve_command(ctx, args)


problem_option = click.option(
    "--problem",
    "problem_name",
    required=True,
    metavar="NAME",
    help="Problem whose model the weights fit and on whose samples the loss is evaluated.",
)


def _common(default_out: str) -> Decorator:
    """Options that every subcommand has."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in (
            json_option,
            data_dir_option,
            click.option(
                "--out",
                type=click.Path(path_type=Path, file_okay=False),
                default=default_out,
                show_default=True,
                help="Folder of the page and its figures (PDF and PNG).",
            ),
            click.option(
                "--samples",
                type=click.IntRange(min=1),
                help="Use the first so many training samples only [default: all].",
            ),
        ):
            function = option(function)
        return function

    return add


weights_argument = click.argument(
    "weights", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="A B ..."
)


@click.group("landscape", cls=_Landscape)
def command() -> None:
    """See the loss around and between solutions.

    `optiscope landscape PROBLEM` trains the problem briefly from two seeds and draws a plane with
    the way that training took, the line through both solutions, and a path between them.

    The subcommands take weight files: .safetensors, or written by
    torch.save(model.state_dict(), path).
    """


@command.command("look", hidden=True)
@click.argument("problem_name", metavar="PROBLEM")
@click.option(
    "--epochs", type=click.IntRange(min=1), default=15, show_default=True, help="To train for."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights and order.")
@_common("landscape")
def look(
    problem_name: str,
    epochs: int,
    seed: int,
    samples: int | None,
    out: Path,
    data_dir: Path | None,
    wants_json: bool,
) -> None:
    """Train PROBLEM briefly from two seeds and draw what lies around and between."""
    from optiscope import problems
    from optiscope.cli.landscape_look import look_at

    problem = problems.get(problem_name)
    with _progress() as bar:
        drawn = look_at(
            problem, epochs=epochs, seed=seed, samples=samples, data_dir=data_dir, on_step=bar
        )
    _deliver(drawn, out, wants_json)


@command.command("line")
@weights_argument
@problem_option
@click.option("--low", type=float, default=-1.0, show_default=True, help="First coefficient.")
@click.option("--high", type=float, default=2.0, show_default=True, help="Last coefficient.")
@click.option(
    "--points", type=click.IntRange(min=2), default=61, show_default=True, help="Along the line."
)
@_common("landscape-line")
def line_command(
    weights: tuple[Path, ...],
    problem_name: str,
    low: float,
    high: float,
    points: int,
    samples: int | None,
    out: Path,
    data_dir: Path | None,
    wants_json: bool,
) -> None:
    """Loss and accuracy on the line through A and B and beyond, on training and test samples."""
    from optiscope import landscape
    from optiscope.cli.landscape_drawings import draw_line
    from optiscope.problems.risk import risk_of

    problem, risk, states = _loaded(problem_name, weights, 2, samples, data_dir)
    test = risk_of(problem, "test", risk.model, data_dir=data_dir)
    with _progress() as bar:
        line = landscape.line(
            risk, *states, low=low, high=high, points=points, others={"test": test},
            on_progress=bar.of("line"),
        )  # fmt: skip
    _deliver([draw_line(problem.name, line)], out, wants_json)


@command.command("plane")
@weights_argument
@problem_option
@click.option(
    "--directions",
    type=click.Choice(["random", "solutions", "trajectory", "eigenvectors"]),
    help="Random and filter-normalized around A, through three solutions, the principal axes of a "
    "trajectory, or the Hessian's leading eigenvectors at A [default: random for one file, "
    "solutions for three, trajectory for more].",
)
@click.option("--extent", type=float, help="Half the side of a square around the origin.")
@click.option(
    "--points", type=click.IntRange(min=2), default=31, show_default=True, help="Along each side."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of random directions.")
@click.option("--processes", type=click.IntRange(min=1), help="At most [default: all cores].")
@_common("landscape-plane")
def plane_command(
    weights: tuple[Path, ...],
    problem_name: str,
    directions: str | None,
    extent: float | None,
    points: int,
    seed: int,
    processes: int | None,
    samples: int | None,
    out: Path,
    data_dir: Path | None,
    wants_json: bool,
) -> None:
    """Loss on a plane: around one file, through three, or of a trajectory of more."""
    from optiscope import landscape
    from optiscope.cli.landscape_drawings import draw_plane

    problem, risk, states = _loaded(problem_name, weights, None, samples, data_dir)
    if directions is None:
        directions = {1: "random", 3: "solutions"}.get(len(states), "trajectory")
    if directions == "solutions" and len(states) != 3:
        raise click.UsageError(f"expected three weight files for a plane, got {len(states)}")
    if directions == "random":
        chosen = landscape.random_directions(risk, states[0], seed=seed)
    elif directions == "solutions":
        chosen = landscape.through_solutions(risk, *states)
    elif directions == "eigenvectors":
        chosen = landscape.leading_eigenvectors(risk, states[0])
    else:
        chosen = landscape.trajectory_directions(risk, states)
    with _progress() as bar:
        plane = landscape.plane(
            risk, chosen, extent=extent, points=points, processes=processes,
            on_progress=bar.of("plane"),
        )  # fmt: skip
    losses = [float(risk.value(s)) for s in states] if directions == "trajectory" else []
    _deliver([draw_plane(problem.name, plane, losses)], out, wants_json)


@command.command("path")
@weights_argument
@problem_option
@click.option(
    "--method", type=click.Choice(["grow", "string", "band", "bezier"]), default="grow",
    show_default=True, help="Growing path, string method, elastic band or Bezier curve.",
)  # fmt: skip
@click.option(
    "--gradients", type=click.IntRange(min=1), default=1000, show_default=True, help="Budget."
)
@click.option("--match", is_flag=True, help="Permute the units of B towards A first.")
@click.option(
    "--any-ends", is_flag=True, help="Accept ends that are no minima; the barrier may mean nothing."
)
@_common("landscape-path")
def path_command(
    weights: tuple[Path, ...],
    problem_name: str,
    method: Any,
    gradients: int,
    match: bool,
    any_ends: bool,
    samples: int | None,
    out: Path,
    data_dir: Path | None,
    wants_json: bool,
) -> None:
    """A path from A to B along which the loss stays low, and its barrier."""
    from optiscope import landscape
    from optiscope.cli.landscape_drawings import draw_path

    problem, risk, states = _loaded(problem_name, weights, 2, samples, data_dir)
    with _progress() as bar:
        path = landscape.connect(
            risk, *states, method=method, gradients=gradients, match=match,
            require_converged=not any_ends, on_progress=bar.of("gradients"),
        )  # fmt: skip
    _deliver([draw_path(problem.name, path)], out, wants_json)


@command.command("match")
@weights_argument
@problem_option
@click.option(
    "--save",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write B with its units permuted, by torch.save.",
)
@_common("landscape-match")
def match_command(
    weights: tuple[Path, ...],
    problem_name: str,
    save: Path | None,
    samples: int | None,
    out: Path,
    data_dir: Path | None,
    wants_json: bool,
) -> None:
    """Permute the units of B towards A, and compare the lines before and after."""
    from optiscope import landscape
    from optiscope.cli.landscape_drawings import draw_match

    problem, risk, states = _loaded(problem_name, weights, 2, samples, data_dir)
    match = landscape.match_units(risk.model, *states)
    with _progress() as bar:
        before, after = (
            landscape.line(
                risk, states[0], state, low=0.0, high=1.0, points=41, on_progress=bar.of(name)
            )
            for name, state in (("line", states[1]), ("line, matched", match.state_dict))
        )
    if save is not None:
        _save(match.state_dict, save)
    _deliver([draw_match(problem.name, match, before, after)], out, wants_json)


@command.command("basins")
@weights_argument
@problem_option
@click.option(
    "--tolerance", type=float, required=True, help="Largest barrier within one basin, as a loss."
)
@click.option("--gradients", type=click.IntRange(min=1), default=1000, show_default=True,
              help="For each pair.")  # fmt: skip
@click.option("--match", is_flag=True, help="Permute units first.")
@click.option("--any-ends", is_flag=True, help="Accept solutions that are no minima.")
@_common("landscape-basins")
def basins_command(
    weights: tuple[Path, ...],
    problem_name: str,
    tolerance: float,
    gradients: int,
    match: bool,
    any_ends: bool,
    samples: int | None,
    out: Path,
    data_dir: Path | None,
    wants_json: bool,
) -> None:
    """Connect every pair of the files and say whether they share a basin."""
    from optiscope import landscape
    from optiscope.cli.landscape_drawings import draw_basins

    problem, risk, states = _loaded(problem_name, weights, None, samples, data_dir)
    with _progress() as bar:
        result = landscape.same_basin(
            risk, states, tolerance=tolerance, gradients=gradients, match=match,
            require_converged=not any_ends, on_progress=bar.of("pairs"),
        )  # fmt: skip
    names = [path.stem for path in weights]
    _deliver([draw_basins(problem.name, names, result)], out, wants_json)


def _loaded(
    name: str,
    weights: tuple[Path, ...],
    count: int | None,
    samples: int | None,
    data_dir: Path | None,
) -> tuple[Problem, EmpiricalRisk, list[dict[str, Tensor]]]:
    """The problem, its risk on training samples, and the state dicts."""
    if count is not None and len(weights) != count:
        raise click.UsageError(f"expected {count} weight files, got {len(weights)}")
    from optiscope import problems
    from optiscope.landscape.weight_files import read_weights
    from optiscope.problems.risk import risk_of

    problem = problems.get(name)
    states = [read_weights(path) for path in weights]
    return problem, risk_of(problem, data_dir=data_dir, samples=samples), states


def _save(state: dict[str, Tensor], path: Path) -> None:
    import torch

    from optiscope.records import StoreError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, path)
    except (OSError, RuntimeError) as error:
        raise StoreError(f"cannot write {path}: {error}") from None


class _Bars:
    """Progress bars on standard error, one for each stage; silent where that is no terminal."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

        console = terminal(stderr=True)
        self._progress = Progress(
            words("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` steps of a stage are done."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage)
        self._progress.update(self._tasks[stage], completed=done, total=total)

    def of(self, stage: str) -> Callable[[int, int], None]:
        """The bar of one stage."""
        return lambda done, total: self(stage, done, total)


def _progress() -> _Bars:
    return _Bars()


def _deliver(drawings: list[Any], out: Path, wants_json: bool) -> None:
    """Write page and figures; say what was found and where it is."""
    from optiscope.cli.landscape_drawings import write_drawings

    page = write_drawings(drawings, out)
    if wants_json:
        click.echo(as_json({"page": str(page), **{d.name: d.numbers for d in drawings}}))
        return
    console = terminal()
    for drawing in drawings:
        console.print(drawing.summary)
    console.print(f"page: {page}")
