"""``optiscope time``: what a step costs, relative to a reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from optiscope.cli.options import as_json, data_dir_option, device_option, json_option
from optiscope.cli.terminal import terminal

__all__ = ["command"]


@click.command("time")
@click.argument("problem")
@click.option(
    "--optimizers",
    default="sgd,momentum,adam",
    show_default=True,
    help="Names or import paths, separated by commas; the first is the reference.",
)
@click.option(
    "--repetitions",
    type=click.IntRange(min=3),
    default=5,
    show_default=True,
    help="Rounds in which every optimizer runs once, after one warmup round.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Per repetition [default: an epoch].")
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Samples per step [default: the problem's]."
)
@click.option("--threads", type=click.IntRange(min=1), help="Torch's threads [default: all cores].")
@device_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write time.json and the figure (pdf and png) into this folder.",
)
@data_dir_option
@json_option
def command(
    problem: str,
    optimizers: str,
    repetitions: int,
    steps: int | None,
    batch_size: int | None,
    threads: int | None,
    device: str,
    out: Path | None,
    data_dir: Path | None,
    wants_json: bool,
) -> None:
    """Measure seconds per step and epoch of several optimizers on PROBLEM, interleaved.

    Every repetition trains each optimizer in turn; a first one warms up and is left out, and so
    is evaluation. Ratios are paired by repetition. Learning rates are small and fixed: they do
    not change what a step costs. Run on an otherwise idle machine.
    """
    from rich.progress import Progress

    from optiscope.study.cost import time_optimizers
    from optiscope.train.device import prepare_process

    prepare_process()
    names = [name.strip() for name in optimizers.split(",") if name.strip()]
    if not names:
        raise click.BadParameter(
            "expected names with commas between, got none", param_hint="'--optimizers'"
        )
    with Progress(console=terminal(stderr=True), transient=True) as bar:
        task = bar.add_task(f"timing {problem}", total=repetitions * len(names))
        content = time_optimizers(
            problem,
            names,
            repetitions=repetitions,
            steps=steps,
            batch_size=batch_size,
            device=device,
            threads=threads,
            data_dir=data_dir,
            on_chunk=lambda: bar.advance(task),
        )
    if out is not None:
        _write(out, content)
    if wants_json:
        click.echo(as_json(content))
    else:
        _print(content)


def _print(content: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    from optiscope.stats.naming import counted

    title = (
        f"{content['problem']}, batch {content['batch_size']}, "
        f"{counted(content['threads'], 'thread')}: "
        f"time per step relative to {content['reference']}"
    )
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("optimizer", overflow="fold")
    for column in ("wall", "95 % interval", "CPU", "ms/step", "in step()", "gradients"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in content["rows"]:
        ratio = row["ratio"]
        table.add_row(
            row["optimizer"],
            f"{ratio['median']:.3f}",
            f"{ratio['low']:.3g} to {ratio['high']:.3g}",
            f"{row['cpu_ratio']['median']:.3f}",
            f"{row['milliseconds_per_step']:.2f}",
            f"{row['phases_milliseconds_per_step'].get('optimizer', 0.0):.2f}",
            f"{row['gradients_per_step']:.2f}",
        )
    terminal().print(table)


def _write(out: Path, content: dict[str, Any]) -> None:
    from optiscope.atomic_file import write_json_atomically
    from optiscope.records.store import StoreError, explain
    from optiscope.report.figures.optimizer_time import write_time_figure

    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json_atomically(out / "time.json", content)
        write_time_figure(content, out)
    except OSError as error:
        raise StoreError(explain(error, out)) from error
