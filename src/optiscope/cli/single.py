"""``optiscope run``: one problem, one optimizer, one seed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from optiscope.cli.options import (
    as_json,
    data_dir_option,
    device_option,
    json_option,
    parse_rule,
    parse_settings,
)
from optiscope.cli.terminal import terminal, words

if TYPE_CHECKING:
    from optiscope.records import Run

__all__ = ["command"]

KILL_AFTER_SECONDS = 15.0  # that a step hangs in code that no exception can reach
MOST_SECONDS = 1e6  # of --max-seconds for which a thread can wait
SETTING_UP_SECONDS = 600.0  # for reading data, which is no part of --max-seconds
LEAST_FALL = 0.01
"""Share of the first training loss by which a run should lower it, or it has learnt nothing."""


class _RunCommand(click.Command):
    """Says how a hyperparameter is given where one is given as an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            near = [option for option in error.possibilities or () if option != "--help"]
            name = error.option_name.lstrip("-").replace("-", "_")
            raise click.UsageError(
                f"No such option {error.option_name!r}."
                + (f" Did you mean {' or '.join(near)}?" if near else "")
                + f" A hyperparameter of the optimizer is given as --set {name}=VALUE.",
                ctx,
            ) from None


@click.command("run", cls=_RunCommand)
@click.argument("problem")
@click.argument("optimizer")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="A hyperparameter of the optimizer, such as lr=0.1; may be given several times.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed for initial weights, data order, augmentation and dropout.",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Horizon [default: the problem's].")
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Samples per step [default: the problem's]."
)
@click.option(
    "--schedule",
    metavar="RULE",
    help="Learning-rate schedule: linear_decay, or a class of torch.optim.lr_scheduler with its "
    "arguments, such as CosineAnnealingLR,T_max=horizon.",
)
@click.option(
    "--init",
    "initialisation",
    metavar="RULE",
    help="Redraw the weights by a rule, such as he_normal or orthogonal,gain=1.4 "
    "[default: the problem's own].",
)
@click.option("--clip-norm", type=float, help="Clip the gradient's norm to this.")
@device_option
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Torch's threads. Small models train no faster with more; their number is part of the "
    "trial.",
)
@click.option(
    "--autocast",
    type=click.Choice(["bfloat16", "float16"]),
    help="Train in mixed precision; float16 with its loss scaled.",
)
@click.option("--compile", is_flag=True, help="Compile the model for training (torch.compile).")
@click.option(
    "--accumulate",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Parts in which the gradient of each batch is computed, to save memory.",
)
@click.option("--max-seconds", type=float, help="Stop after this many seconds.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the record in this folder; a trial that is there already is not run again.",
)
@click.option(
    "--watch",
    "watched",
    is_flag=True,
    help="Watch the training and say what is wrong with it; with --out, keep the page there.",
)
@click.option(
    "--keep-weights",
    metavar="EPOCHS",
    help="With --out: keep the model's state at these epochs in the record's folder, for "
    "`optiscope spectrum` and `optiscope landscape`: 0,5,10-20 (0 is before the first step), all, "
    "or last.",
)
@click.option("--retry-crashed", is_flag=True, help="With --out: run it again if it crashed.")
@data_dir_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    problem: str,
    optimizer: str,
    settings: tuple[str, ...],
    schedule: str | None,
    initialisation: str | None,
    clip_norm: float | None,
    out: Path | None,
    watched: bool,
    wants_json: bool,
    **options: Any,
) -> None:
    """Train PROBLEM with OPTIMIZER and print what happened.

    Both are names from `optiscope list`, or import paths such as my_package.my_module:MyOptimizer.
    """
    from rich.progress import BarColumn, Progress, TimeRemainingColumn

    from optiscope.cli.ending import Watchdog
    from optiscope.cli.root import ExitCode
    from optiscope.records import RunStore, Status
    from optiscope.records.kept_weights import kept_weights
    from optiscope.study.single import RunInterrupted, RunNotStored, run
    from optiscope.train.device import prepare_process

    prepare_process()
    watcher = None
    if watched:
        from optiscope.integrations.training_loop import WatchInstrument

        page = None if out is None else out / "watch.html"
        watcher = WatchInstrument(out=page, live=not wants_json)
    hyperparameters = parse_settings(settings)
    limit, dog = options["max_seconds"], None
    if limit is not None and 0 < limit < MOST_SECONDS:
        dog = Watchdog(2.2 * limit + SETTING_UP_SECONDS)
    unwritten: RunNotStored | None = None
    columns = (
        words("{task.description}"),
        BarColumn(),
        words("{task.fields[latest]}"),
        TimeRemainingColumn(),
    )
    console = terminal(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=watched or not console.is_terminal
    ) as bar:
        task = bar.add_task(f"{problem} · {optimizer}", total=1.0, latest="")

        def show(share: float, latest: Any) -> None:
            figures = ("valid_accuracy", "valid_loss")
            text = next((f"{f} {latest[f]:.4g}" for f in figures if f in latest), "")
            bar.update(task, completed=share, latest=text.replace("_", " "))
            if dog is not None:
                dog.goes_on(1.1 * limit + 1.0 + KILL_AFTER_SECONDS)

        try:
            result = run(
                problem,
                optimizer,
                hyperparameters=hyperparameters,
                schedule=parse_rule(schedule) if schedule else None,
                initialization=parse_rule(initialisation) if initialisation else None,
                clip={"norm": clip_norm} if clip_norm is not None else None,
                out=out,
                instruments=[] if watcher is None else [watcher],
                notify=lambda message: bar.console.print(message, style="yellow"),
                progress=show,
                **options,
            )
        except RunInterrupted as error:
            result = error.run
        except RunNotStored as error:
            result, unwritten = error.run, error
        finally:
            if dog is not None:
                dog.goes_on(None)
    if wants_json:
        rows = [m._asdict() for m in result.metrics]
        findings = {"findings": [f.to_dict() for f in watcher.findings]} if watcher else {}
        click.echo(as_json(result.to_dict() | {"metrics": rows} | findings))
    else:
        _print(result)
        shown = console.is_terminal and sys.stdout.isatty()  # the live panel stays
        if watcher is not None and watcher.watch is not None and not shown:
            watcher.watch.print()
    if unwritten is not None:
        raise unwritten  # last: what was measured has been shown
    if out is not None:
        folder = RunStore(out).path(result.trial.hash)
        console.print(f"record: {folder}", soft_wrap=True)
        if kept := kept_weights(folder):
            console.print(f"weights: of {len(kept)} epochs, {min(kept)} to {max(kept)}")
    if result.status is Status.INTERRUPTED:
        ctx.exit(ExitCode.INTERRUPTED)
    ctx.exit(ExitCode.OK if result.status.complete else ExitCode.UNFINISHED)


def _print(run: Run) -> None:
    from rich.table import Table

    from optiscope.stats.naming import gradient_words

    console = terminal()
    trial = run.trial
    settings = ", ".join(f"{k}={v}" for k, v in trial.hyperparameters.items())
    how = "".join(f" · {words}" for words in gradient_words(trial.to_dict()))
    table = Table(
        title=f"{trial.problem} · {trial.optimizer} ({settings or 'its defaults'}) · "
        f"seed {trial.seed}{how}",
        title_justify="left",
    )
    names = list(
        dict.fromkeys(m.name for m in run.metrics if m.split in ("train", "valid", "test"))
    )
    table.add_column("split")
    last = "final" if run.status.complete else "last"  # before it failed
    first = {f"{m.split}_{m.name}": m.value for m in reversed(run.metrics) if m.epoch == 0}
    trained = run.status.complete or any(m.epoch > 0 and m.split == "valid" for m in run.metrics)
    for name in names:
        table.add_column(f"{name} before", justify="right")
        table.add_column(f"{last} {name}", justify="right")
        table.add_column(f"best {name}", justify="right")
    for split in ("train", "valid", "test"):
        cells = []
        for name in names:
            for values in (first, run.final, run.best):
                known = values is first or trained  # else the last values are those before
                value = values.get(f"{split}_{name}") if known else None
                cells.append("-" if value is None else _figure(value, name))
        table.add_row(split, *cells)
    console.print(table)
    spent = run.training_seconds
    console.print(
        f"{run.status}: {run.reason}; {run.steps:,} steps, "
        f"{run.counts['gradient_evaluations']:,} gradient evaluations, "
        f"{spent.wall:.1f} s training ({spent.cpu:.1f} s CPU)",
        highlight=False,
    )

    before, after = first.get("train_loss"), run.final.get("train_loss")
    if run.status.complete and before is not None and after is not None:
        fell = (before - after) / max(abs(before), 1e-30)
        if fell < LEAST_FALL:
            console.print(
                f"The training loss {'hardly fell' if fell > 0 else 'did not fall'}, from "
                f"{before:.4g} to {after:.4g}: the model has not learned.",
                style="yellow",
            )


def _figure(value: float, name: str) -> str:
    return f"{100 * value:.2f} %" if name == "accuracy" else f"{value:.4g}"
