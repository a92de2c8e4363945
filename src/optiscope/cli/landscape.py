"""``optiscope landscape``: lines, planes, paths, matched units and basins of trained weights.

A first look needs no file: ``optiscope landscape digits_mlp`` trains briefly and draws.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Asked:
    """What every subcommand is asked for.

    Attributes:
        samples: the first so many training samples only; None: all.
        out: folder of the page and its figures.
        data_dir: where the data sets are.
        wants_json: print numbers for machines.
    """

    samples: int | None
    out: Path
    data_dir: Path | None
    wants_json: bool


@dataclass(frozen=True)
class Loaded:
    """A problem, its risk on training samples, and solutions.

    Attributes:
        problem: whose model the weights fit.
        risk: mean loss over the training samples.
        states: one state dict for each solution.
        labels: a word for each.
        way: whether they are the epochs of one run, in order.
    """

    problem: Problem
    risk: EmpiricalRisk
    states: list[dict[str, Tensor]]
    labels: list[str]
    way: bool


def _common(default_out: str) -> Decorator:
    """Options that every subcommand has, handed over as one value."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(
            *, samples: int | None, out: Path, data_dir: Path | None, wants_json: bool, **own: Any
        ) -> None:
            function(Asked(samples, out, data_dir, wants_json), **own)

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
                help="Use only the first N training samples [default: all].",
            ),
        ):
            run = option(run)
        return run

    return add


def _solutions(function: Callable[..., Any]) -> Callable[..., Any]:
    """Files and runs that a subcommand is given, and the problem they belong to."""
    for option in (
        click.option(
            "--epoch",
            type=click.IntRange(min=0),
            help="Epoch of a run whose weights to use [default: the last].",
        ),
        click.option(
            "--problem",
            "problem_name",
            metavar="NAME",
            help="Problem whose model the weights fit and on whose samples the loss is evaluated "
            "[default: that of the runs].",
        ),
        click.argument(
            "weights",
            nargs=-1,
            required=True,
            type=click.Path(path_type=Path),
            metavar="A B ...",
        ),
    ):
        function = option(function)
    return function


@click.group("landscape", cls=_Landscape)
def command() -> None:
    """See the loss around and between solutions.

    `optiscope landscape PROBLEM` trains the problem briefly from two seeds and draws a plane with
    the way that training took, the line through both solutions, and a path between them.

    The subcommands take weight files (.safetensors, or written by
    torch.save(model.state_dict(), path)) and folders of runs that kept their weights
    (optiscope run --keep-weights).
    """


@command.command("look", hidden=True)
@click.argument("problem_name", metavar="PROBLEM")
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=15,
    show_default=True,
    help="Epochs to train for.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed for weights and data order."
)
@_common("landscape")
def look(asked: Asked, problem_name: str, epochs: int, seed: int) -> None:
    """Train PROBLEM briefly from two seeds and draw what lies around and between."""
    from optiscope import problems
    from optiscope.cli.landscape_look import look_at

    problem = problems.get(problem_name)
    with _progress() as bar:
        drawn = look_at(
            problem,
            epochs=epochs,
            seed=seed,
            samples=asked.samples,
            data_dir=asked.data_dir,
            on_step=bar,
        )
    _deliver(drawn, asked)


@command.command("line")
@_solutions
@click.option("--low", type=float, default=-1.0, show_default=True, help="First coefficient.")
@click.option("--high", type=float, default=2.0, show_default=True, help="Last coefficient.")
@click.option(
    "--points",
    type=click.IntRange(min=2),
    default=61,
    show_default=True,
    help="Points along the line.",
)
@_common("landscape-line")
def line_command(
    asked: Asked,
    low: float,
    high: float,
    points: int,
    **given: Any,
) -> None:
    """Loss and accuracy on the line through A and B and beyond, on training and test samples."""
    from optiscope import landscape
    from optiscope.cli.landscape_drawings import draw_line
    from optiscope.problems.risk import risk_of

    found = _loaded(asked, count=2, **given)
    test = risk_of(found.problem, "test", found.risk.model, data_dir=asked.data_dir)
    with _progress() as bar:
        line = landscape.line(
            found.risk, *found.states, low=low, high=high, points=points, others={"test": test},
            on_progress=bar.of("line"),
        )  # fmt: skip
    _deliver([draw_line(found.problem.name, line)], asked)


@command.command("plane")
@_solutions
@click.option(
    "--directions",
    type=click.Choice(["random", "solutions", "trajectory", "eigenvectors"]),
    help="Random and filter-normalized around A, through three solutions, the principal axes of a "
    "trajectory, or the Hessian's leading eigenvectors at A [default: random for one file, "
    "solutions for three, trajectory for more].",
)
@click.option("--extent", type=float, help="Half the side of a square around the origin.")
@click.option(
    "--points",
    type=click.IntRange(min=2),
    default=31,
    show_default=True,
    help="Points along each side.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed for random directions.")
@click.option("--processes", type=click.IntRange(min=1), help="Processes [default: all cores].")
@_common("landscape-plane")
def plane_command(
    asked: Asked,
    directions: str | None,
    extent: float | None,
    points: int,
    seed: int,
    processes: int | None,
    **given: Any,
) -> None:
    """Loss on a plane: around one file, through three, or of a trajectory of more.

    A single run that kept the weights of three epochs or more is a trajectory.
    """
    from optiscope import landscape
    from optiscope.cli.landscape_drawings import draw_plane

    found = _loaded(asked, every_epoch=directions in (None, "trajectory"), **given)
    if directions is None:
        by_count = {1: "random", 3: "solutions"}.get(len(found.states), "trajectory")
        directions = "trajectory" if found.way else by_count
    if directions == "solutions" and len(found.states) != 3:
        raise click.UsageError(f"expected three weight files for a plane, got {len(found.states)}")
    if directions == "random":
        chosen = landscape.random_directions(found.risk, found.states[0], seed=seed)
    elif directions == "solutions":
        chosen = landscape.through_solutions(found.risk, *found.states)
    elif directions == "eigenvectors":
        chosen = landscape.leading_eigenvectors(found.risk, found.states[0])
    else:
        chosen = landscape.trajectory_directions(found.risk, found.states)
    with _progress() as bar:
        plane = landscape.plane(
            found.risk, chosen, extent=extent, points=points, processes=processes,
            on_progress=bar.of("plane"),
        )  # fmt: skip
    losses = (
        [float(found.risk.value(s)) for s in found.states] if directions == "trajectory" else []
    )
    _deliver([draw_plane(found.problem.name, plane, losses)], asked)


@command.command("path")
@_solutions
@click.option(
    "--method", type=click.Choice(["grow", "string", "band", "bezier"]), default="grow",
    show_default=True, help="Growing path, string method, elastic band or Bezier curve.",
)  # fmt: skip
@click.option(
    "--gradients",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Gradients allowed.",
)
@click.option("--match", is_flag=True, help="Permute the units of B towards A first.")
@click.option(
    "--any-ends",
    is_flag=True,
    help="Accept ends that are not minima; the barrier may mean nothing.",
)
@_common("landscape-path")
def path_command(
    asked: Asked,
    method: Any,
    gradients: int,
    match: bool,
    any_ends: bool,
    **given: Any,
) -> None:
    """A path from A to B along which the loss stays low, and its barrier."""
    from optiscope import landscape
    from optiscope.cli.landscape_drawings import draw_path

    found = _loaded(asked, count=2, **given)
    with _progress() as bar:
        path = landscape.connect(
            found.risk, *found.states, method=method, gradients=gradients, match=match,
            require_converged=not any_ends, on_progress=bar.of("gradients"),
        )  # fmt: skip
    _deliver([draw_path(found.problem.name, path)], asked)


@command.command("match")
@_solutions
@click.option(
    "--save",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write B with its units permuted, by torch.save.",
)
@_common("landscape-match")
def match_command(
    asked: Asked,
    save: Path | None,
    **given: Any,
) -> None:
    """Permute the units of B towards A, and compare the lines before and after."""
    from optiscope import landscape
    from optiscope.cli.landscape_drawings import draw_match

    found = _loaded(asked, count=2, **given)
    match = landscape.match_units(found.risk.model, *found.states)
    with _progress() as bar:
        before, after = (
            landscape.line(
                found.risk,
                found.states[0],
                state,
                low=0.0,
                high=1.0,
                points=41,
                on_progress=bar.of(name),
            )
            for name, state in (("line", found.states[1]), ("line, matched", match.state_dict))
        )
    if save is not None:
        _save(match.state_dict, save)
    _deliver([draw_match(found.problem.name, match, before, after)], asked)


@command.command("basins")
@_solutions
@click.option(
    "--tolerance", type=float, required=True, help="Largest barrier within one basin, as a loss."
)
@click.option("--gradients", type=click.IntRange(min=1), default=1000, show_default=True,
              help="Gradients allowed for each pair.")  # fmt: skip
@click.option("--match", is_flag=True, help="Permute units first.")
@click.option("--any-ends", is_flag=True, help="Accept solutions that are not minima.")
@_common("landscape-basins")
def basins_command(
    asked: Asked,
    tolerance: float,
    gradients: int,
    match: bool,
    any_ends: bool,
    **given: Any,
) -> None:
    """Connect every pair of the files and say whether they share a basin."""
    from optiscope import landscape
    from optiscope.cli.landscape_drawings import draw_basins

    found = _loaded(asked, **given)
    with _progress() as bar:
        result = landscape.same_basin(
            found.risk, found.states, tolerance=tolerance, gradients=gradients, match=match,
            require_converged=not any_ends, on_progress=bar.of("pairs"),
        )  # fmt: skip
    _deliver([draw_basins(found.problem.name, found.labels, result)], asked)


def _loaded(
    asked: Asked,
    *,
    weights: tuple[Path, ...],
    problem_name: str | None,
    epoch: int | None,
    count: int | None = None,
    every_epoch: bool = False,
) -> Loaded:
    """The problem, its risk on training samples, and the solutions.

    Args:
        asked: of the risk.
        weights: files and folders of runs.
        problem_name: None: that of the runs.
        epoch: of runs; None: the last.
        count: of solutions; None: any.
        every_epoch: whether one run stands for all the weights that it kept.
    """
    if count is not None and len(weights) != count:
        raise click.UsageError(f"expected {count} weight files or runs, got {len(weights)}")
    from optiscope import problems
    from optiscope.cli.weight_sources import all_weights_of, weights_at
    from optiscope.problems.risk import risk_of

    way = every_epoch and epoch is None and len(weights) == 1 and weights[0].is_dir()
    sources = all_weights_of(weights[0]) if way else [weights_at(p, epoch) for p in weights]
    if way and len(sources) < 3:
        sources, way = sources[-1:], False
    if problem_name is None:
        named = {source.problem for source in sources} - {None}
        if not named:
            raise click.UsageError("Missing option '--problem'.")
        if len(named) > 1:
            words = ", ".join(sorted(str(name) for name in named))
            raise click.UsageError(f"expected weights of one problem, got {words}: name --problem")
        problem_name = str(named.pop())
    problem = problems.get(problem_name)
    risk = risk_of(problem, data_dir=asked.data_dir, samples=asked.samples)
    return Loaded(problem, risk, [s.state for s in sources], [s.label for s in sources], way)


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


def _deliver(drawings: list[Any], asked: Asked) -> None:
    """Write page and figures; say what was found and where it is."""
    from optiscope.cli.landscape_drawings import write_drawings

    page = write_drawings(drawings, asked.out)
    if asked.wants_json:
        click.echo(as_json({"page": str(page), **{d.name: d.numbers for d in drawings}}))
        return
    console = terminal()
    for drawing in drawings:
        console.print(drawing.summary)
    console.print(f"page: {page}")
