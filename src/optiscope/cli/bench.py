"""``optiscope bench``: run a study and write its report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from optiscope.cli.options import as_json, data_dir_option, json_option, study_device_option
from optiscope.cli.terminal import terminal, words

if TYPE_CHECKING:
    from optiscope.records import StudyFolder
    from optiscope.study import Study

__all__ = ["command"]


@click.command("bench")
@click.argument("study")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the study's records and report [default: runs/NAME].",
)
@click.option("--workers", type=click.IntRange(min=1), help="Trials at a time [default: by cores].")
@click.option(
    "--until-decided",
    is_flag=True,
    help="Add seeds in stages fixed beforehand until every claim is decided.",
)
@click.option(
    "--max-seeds",
    type=click.IntRange(min=2),
    default=30,
    show_default=True,
    help="Cap of --until-decided.",
)
@click.option(
    "--retry-crashed",
    is_flag=True,
    help="Re-run crashed trials (after fixing the cause).",
)
@study_device_option
@data_dir_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    study: str,
    out: Path | None,
    workers: int | None,
    until_decided: bool,
    max_seeds: int,
    retry_crashed: bool,
    device: str | None,
    data_dir: Path | None,
    wants_json: bool,
) -> None:
    """Run STUDY, a TOML file or the name of a shipped study.

    Tunes every algorithm on the validation split, trains the chosen hyperparameters on fresh
    seeds, and writes report.html. What is recorded is not run again: stop it at any time and give
    the same command to go on.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    from optiscope.errors import ExitCode
    from optiscope.records import Run, Status
    from optiscope.report import summary_json, summary_table, write_report
    from optiscope.stats.claims import next_seed_count
    from optiscope.stats.evidence import read_evidence
    from optiscope.stats.refusal import did_not_run
    from optiscope.study import Event, load_study, run_study

    declared = load_study(study)
    if device is not None:
        declared = replace(declared, device=device)
    folder = out or Path("runs") / declared.name
    if until_decided:
        declared = _in_stages(declared, max_seeds, folder)
    console = terminal(stderr=True)
    columns = (
        words("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        words("trials"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=wants_json, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(declared.name, total=None)

        def show(event: Event) -> None:
            bar.update(task, completed=event.done, total=event.total)
            if event.warning:
                bar.console.print(Text(event.message, style="yellow"))

        def run(study: Study, again: bool = False) -> StudyFolder:
            return run_study(
                study,
                folder,
                workers=workers,
                data_dir=data_dir,
                on_event=show,
                retry_crashed=again,
            )

        try:
            kept = run(declared, retry_crashed)
            while (count := next_seed_count(kept)) is not None:
                bar.console.print(f"not decided: going on to {count} seeds", highlight=False)
                kept = run(declared.with_seeds(count))
        except KeyboardInterrupt:
            bar.stop()
            console.print(
                f"stopped; what is recorded stays in {folder}: give the same command to go on",
                highlight=False,
            )
            raise
    page = write_report(kept)
    evidence = read_evidence(kept)
    pairs = [(problem, label) for problem in evidence.problems for label in evidence.labels]
    lost = [text for pair in pairs if (text := did_not_run(evidence, *pair)) is not None]
    if wants_json:
        click.echo(as_json(summary_json(kept)))
        ctx.exit(ExitCode.UNFINISHED if lost else ExitCode.OK)
    terminal().print(summary_table(kept))
    for text in lost:
        click.echo(f"{text}; once mended: --retry-crashed", err=True)
    if any(isinstance(r, Run) and r.status is Status.CRASHED for r in kept.store.scan()):
        click.echo("some runs crashed, see Failures on the page; once mended: --retry-crashed")
    click.echo(f"report: {page}")
    ctx.exit(ExitCode.UNFINISHED if lost else ExitCode.OK)


def _in_stages(study: Study, cap: int, folder: Path) -> Study:
    """The study with its stages, which must be those it was started with."""
    from optiscope.records import StoreError, StudyFolder
    from optiscope.stats.sequential import stages
    from optiscope.study import StudyError

    try:
        planned = stages(len(study.seeds), cap)
    except ValueError as error:
        raise StudyError(f"--until-decided: {error}") from None
    try:
        before = StudyFolder(folder).declaration().get("until_decided", {"stages": None})
    except StoreError:
        return study.with_stages(planned)
    begun = None if before is None else before["stages"]
    if begun != list(planned):
        looked = "once" if begun is None else f"at {', '.join(map(str, begun))} seeds"
        raise StudyError(
            f"--until-decided: the study in {folder} was declared to look {looked}; stages must be "
            "fixed before the first look: use a fresh --out, or the same --max-seeds"
        )
    return study.with_stages(planned)
