"""``optiscope bench`` of a study of speeds: every part of the horizon, then its page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from optiscope.cli.options import as_json
from optiscope.cli.terminal import leave_stopped, terminal, words

if TYPE_CHECKING:
    from optiscope.study import Event, Study

__all__ = ["bench_speed"]


def bench_speed(
    study: Study,
    folder: Path,
    *,
    workers: int | None,
    data_dir: Path | None,
    retry_crashed: bool,
    wants_json: bool,
) -> None:
    """Run what is not recorded, write the pages, and print the means."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
    from rich.table import Table
    from rich.text import Text

    from optiscope.executors import process_pool
    from optiscope.report import write_report
    from optiscope.report.speed_page import (
        mean_table,
        no_estimates,
        speed_json,
        speeds_of,
        write_speed_page,
    )
    from optiscope.stats.speed import means
    from optiscope.study.plan import Plan
    from optiscope.study.speed_parts import part_of, run_speed_study

    assert study.speed is not None
    console = terminal(stderr=True)
    columns = (words("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=wants_json, disable=not console.is_terminal
    ) as bar:
        tasks = {
            part: bar.add_task(f"1/{part} of the horizon", total=Plan(part_of(study, part)).total)
            for part in sorted(study.speed.parts)
        }

        def show(part: int, event: Event) -> None:
            bar.update(tasks[part], completed=event.done, total=event.total or None)
            if event.warning:
                bar.console.print(Text(event.message, style="yellow"))

        try:
            kept = run_speed_study(
                study,
                folder,
                on_event=show,
                workers=workers,
                data_dir=data_dir,
                executor=process_pool,
                retry_crashed=retry_crashed,
            )
        except KeyboardInterrupt:
            bar.stop()
            leave_stopped(console, folder)
    for part in kept.values():
        write_report(part)
    page = write_speed_page(folder)
    if wants_json:
        click.echo(as_json(speed_json(folder)))
        return
    overall = means(speeds_of(folder))
    data = mean_table(overall)
    table = Table(title="Speed", title_justify="left")
    for heading, number in data.headings:
        table.add_column(heading, justify="right" if number else "left")
    for row in data.rows:
        table.add_row(*(cell.text for cell in row.cells))
    terminal().print(table)
    for line in no_estimates(overall):
        click.echo(line)
    click.echo(f"page: {page}")
