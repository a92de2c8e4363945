"""``optiscope reproduce``: a published experiment, beside its figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from optiscope.cli.options import as_json, data_dir_option, json_option, study_device_option
from optiscope.cli.terminal import terminal, words

if TYPE_CHECKING:
    from optiscope.study import Event

__all__ = ["command"]

NAMES = (
    "preconditioning",
    "cost",
    "initialisation",
    "sensitivity",
    "defects",
    "estimation",
    "parameter_groups",
)
TALK_NAMES = (
    "noise",
    "large-batch",
    "two-phase",
    "mean-field",
    "connected",
    "same-basin",
    "split",
    "memorization",
    "gd-sgd",
    "ingredients",
    "redundancy",
)


@click.command("reproduce")
@click.argument("name", type=click.Choice([*NAMES, *TALK_NAMES]), metavar="NAME")
@click.option(
    "--scale",
    type=click.Choice(["small", "full"]),
    default="small",
    show_default=True,
    help="As published, or what two cores can do.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of records and page [default: runs/reproduce/NAME].",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Trials to run at a time [default: by number of cores].",
)
@study_device_option
@data_dir_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    name: str,
    scale: Literal["small", "full"],
    out: Path | None,
    workers: int | None,
    device: str | None,
    data_dir: Path | None,
    wants_json: bool,
) -> None:
    """Repeat the published experiment NAME and show the results beside the published ones.

    \b
    NAME is one of
      preconditioning   Experiment 1: against tuned baselines, and phase by phase
      cost              Experiment 2: seconds relative to SGD, on an idle machine
      initialisation    Experiment 3: explicit or framework, three batch sizes
      sensitivity       Experiment 4: the rate of the first epoch
      defects           which defect of the published program costs what
      estimation        rank, observations and prior iterations
      parameter_groups  one constructed rate, or one for each layer
      noise             GD, SGD, and GD with noise of two shapes: where do they end?
      large-batch       do large batches end in sharper places? Rates varied, losses matched
      two-phase         large batches, then small ones: the line through both ends
      mean-field        two layers scaled by 1/N: does the gap between GD and SGD close?
      connected         from which width on are arbitrary solutions connected?
      same-basin        do several algorithms end in one basin? Two losses, two preprocessings
      split             H = G + R over training, for four losses
      memorization      random labels: what is memorized, and what the loss does meanwhile
      gd-sgd            GD against SGD: five neurons, and the 500-300 network on MNIST
      ingredients       momentum, weight decay, preprocessing: removed one by one, and all
      redundancy        two weights where one would do: minima, sharpness and paths

    What is recorded is not run again: stop it at any time, and run the same command again to
    continue.
    Only the times of a problem (cost) are not resumed: a measurement that is stopped starts over.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeElapsedColumn
    from rich.table import Table
    from rich.text import Text

    from optiscope.errors import ExitCode
    from optiscope.reproduction.reproduce import reproduce
    from optiscope.train.device import prepare_process

    prepare_process()
    folder = out or Path("runs") / "reproduce" / name
    console = terminal(stderr=True)
    columns = (words("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        tasks: dict[str, TaskID] = {}

        def show(study: str, event: Event) -> None:
            task = tasks[study] if study in tasks else tasks.setdefault(study, bar.add_task(study))
            bar.update(task, completed=event.done, total=event.total)
            if event.warning:
                bar.console.print(Text(event.message, style="yellow"))

        page, found = reproduce(
            name,
            folder,
            scale=scale,
            workers=workers,
            device=device,
            data_dir=data_dir,
            on_event=show,
        )
    crashed = [line for section in found for line in section.crashed]
    status = ExitCode.UNFINISHED if crashed else ExitCode.OK
    verdicts = [verdict for section in found for verdict in section.conclusions]
    if wants_json:
        content = {
            "page": str(page),
            "conclusions": [
                {"part": s.heading, "setting": s.facts, "claim": c, "verdict": v, "evidence": e}
                for s in found
                for c, v, e in s.conclusions
            ],
            "figures": [
                {"part": s.heading, "setting": s.facts, **c.to_dict()}
                for s in found
                for c in s.compared
            ],
        }
        click.echo(as_json(content))
        ctx.exit(status)
    table = Table("published conclusion", "verdict", "evidence")
    for row in verdicts:
        table.add_row(*row)
    if verdicts:
        terminal().print(table)
    for line in crashed:
        click.echo(line, err=True)
    click.echo(f"page: {page}")
    ctx.exit(status)
