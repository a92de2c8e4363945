"""``optiscope bench``: run a study and write its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from optiscope.cli.options import as_json, data_dir_option, json_option, study_device_option
from optiscope.cli.terminal import leave_stopped, terminal, words

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

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
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Trials to run at a time [default: by number of cores].",
)
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
@click.option(
    "--on",
    metavar="WHERE",
    help="Train elsewhere: slurm or a machine file (NAME or FILE.toml) submits workers and "
    "returns; gpus uses the GPUs of this machine; dask://HOST:PORT a Dask cluster.",
)
@click.option(
    "--per-gpu", type=click.IntRange(min=1), help="With --on gpus: trials at a time on each GPU."
)
@click.option(
    "--wait", "waits", is_flag=True, help="With --on slurm: wait for the records, then report."
)
@click.option("--partition", help="With --on slurm: the partition.")
@click.option("--time", "limit", metavar="TIME", help="With --on: limit of each job, such as 3h.")
@click.option("--gpus", type=click.IntRange(min=1), help="With --on: GPUs of each worker.")
@click.option("--array", type=click.IntRange(min=1), help="With --on: workers at a time.")
@click.option("--dry-run", is_flag=True, help="With --on: print the batch script, submit nothing.")
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
    on: str | None,
    partition: str | None,
    limit: str | None,
    gpus: int | None,
    array: int | None,
    dry_run: bool,
    per_gpu: int | None,
    waits: bool,
    device: str | None,
    data_dir: Path | None,
    wants_json: bool,
) -> None:
    """Run STUDY, a TOML file or the name of a shipped study.

    Tunes every algorithm on the validation split, trains the chosen hyperparameters on fresh
    seeds, and writes report.html (a study with a table [speed], such as lark-speed: speed.html).
    What is recorded is not run again: stop it at any time, and run the same command again to
    continue.
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
    from optiscope.executors import process_pool
    from optiscope.records import StudyFolder
    from optiscope.records.crashes import crash_text, crashes
    from optiscope.report import summary_json, summary_table, write_report
    from optiscope.stats.claims import next_seed_count
    from optiscope.stats.evidence import read_evidence
    from optiscope.stats.refusal import did_not_run
    from optiscope.study import Event, load_study, run_study
    from optiscope.study.changed_code import changed_since
    from optiscope.study.plan import Plan
    from optiscope.study.progress import wait_until_recorded

    declared = load_study(study)
    if device is not None:
        declared = replace(declared, device=device)
    folder = out or Path("runs") / declared.name
    if declared.speed is not None and declared.speed.part is None:
        from optiscope.cli.bench_speed import bench_speed

        if until_decided or on is not None or per_gpu is not None or waits:
            raise click.UsageError(
                "a study of speeds trains here, on the seeds that it names: leave out "
                "--until-decided and --on"
            )
        bench_speed(
            declared,
            folder,
            workers=workers,
            data_dir=data_dir,
            retry_crashed=retry_crashed,
            wants_json=wants_json,
        )
        return
    if until_decided:
        declared = _in_stages(declared, max_seeds, folder)
    executor: Callable[[int], Executor] = process_pool
    submits = on is not None and on != "gpus" and not on.startswith("dask://")
    chosen = {"partition": partition, "time": limit, "gpus": gpus, "array": array}
    if (per_gpu is not None and on != "gpus") or (waits and not submits):
        word, needs = ("--wait", "--on slurm") if waits else ("--per-gpu", "--on gpus")
        raise click.UsageError(f"{word} goes with {needs}")
    if on is not None and on.startswith("dask://"):
        from optiscope.executors.dask import dask_executor

        executor = dask_executor(on)
    elif on == "gpus":
        executor, workers = _on_gpus(declared, per_gpu or 1, workers)
    elif on is not None and (dry_run or not waits):
        _submit(declared, folder, on, chosen, data_dir, dry_run)
        return
    console = terminal(stderr=True)
    columns = (
        words("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        words("trials"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        words("{task.fields[latest]}"),
    )
    for place, runs in changed_since(StudyFolder(folder)).items():
        said = f"{place} has changed since {runs} of the recorded runs: their trials run again"
        console.print(Text(said, style="yellow"))
    with Progress(
        *columns, console=console, transient=wants_json, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(declared.name, total=Plan(declared).total, latest="starting workers")

        def show(event: Event) -> None:
            bar.update(task, completed=event.done, total=event.total, latest="")
            if not event.warning:
                bar.update(task, latest=event.message)
            if event.warning:
                bar.console.print(Text(event.message, style="yellow"))

        def run(study: Study, again: bool = False) -> StudyFolder:
            if on is not None and submits:
                kept = _submit(study, folder, on, chosen, data_dir, False)
                wait_until_recorded(
                    study,
                    kept,
                    on_look=lambda done, total: bar.update(task, completed=done, total=total),
                    say=lambda text: bar.console.print(Text(text, style="yellow")),
                )
                return kept
            return run_study(
                study,
                folder,
                workers=workers,
                data_dir=data_dir,
                on_event=show,
                executor=executor,
                retry_crashed=again,
            )

        try:
            kept = run(declared, retry_crashed)
            while (count := next_seed_count(kept)) is not None:
                bar.console.print(f"not decided: continuing to {count} seeds", highlight=False)
                kept = run(declared.with_seeds(count))
        except KeyboardInterrupt:
            bar.stop()
            leave_stopped(console, folder)
    page = write_report(kept)
    evidence = read_evidence(kept)
    pairs = [(problem, label) for problem in evidence.problems for label in evidence.labels]
    lost = {pair: text for pair in pairs if (text := did_not_run(evidence, *pair)) is not None}
    crashed = crashes(evidence.ended)
    status = ExitCode.UNFINISHED if lost or crashed else ExitCode.OK
    if wants_json:
        click.echo(as_json(summary_json(kept)))
        ctx.exit(status)
    terminal().print(summary_table(kept))
    for text in lost.values():
        click.echo(f"{text}; once fixed: --retry-crashed", err=True)
    for crash in crashed:
        if (crash["problem"], crash["algorithm"]) in lost:
            continue
        click.echo(f"{crash_text(crash)}; once fixed: --retry-crashed", err=True)
    click.echo(f"report: {page}")
    ctx.exit(status)


def _submit(
    study: Study,
    folder: Path,
    on: str,
    chosen: Mapping[str, Any],
    data_dir: Path | None,
    dry_run: bool,
) -> StudyFolder:
    """Declare the study in its folder and hand its workers over to a batch system."""
    from dataclasses import replace

    from optiscope.executors.slurm import Machine, machine_file, script, submit
    from optiscope.records import StudyFolder
    from optiscope.study.progress import plan_in
    from optiscope.study.redeclaration import check_redeclared
    from optiscope.study.work import batches_of

    machines = Path(click.get_app_dir("optiscope")) / "machines"
    machine = Machine() if on == "slurm" else machine_file(on, machines)
    machine = replace(machine, **{k: v for k, v in chosen.items() if v is not None})
    if data_dir is not None:
        machine = replace(machine, data_dir=str(data_dir.resolve()))
    kept = StudyFolder(folder)
    plan = plan_in(study, kept)
    width = len(batches_of(plan.widest()))
    if not width:
        click.echo(f"all {plan.total} trials are recorded in {folder}: nothing is left to train")
        return kept
    if machine.array > width:
        click.echo(f"{machine.array} workers asked for, {width} can work at once", err=True)
        machine = replace(machine, array=width)
    text = script(machine, folder.resolve(), study.name)
    todo = f"{plan.left} of {plan.total} trials left, {machine.array} workers"
    if dry_run:
        click.echo(text, nl=False)
        click.echo(todo, err=True)
        return kept
    looks = check_redeclared(study, kept)
    kept.write_declaration(study.to_dict() | ({"looked_at": looks} if looks else {}))
    click.echo(submit(text, folder.resolve()))
    click.echo(f"{todo}: see `optiscope status {folder}`")
    return kept


def _on_gpus(
    study: Study, per_gpu: int, workers: int | None
) -> tuple[Callable[[int], Executor], int]:
    """An executor with a worker for each slot of this machine's GPUs, and how many they are."""
    from optiscope.executors.gpus import gpu_devices, gpu_pool
    from optiscope.study import StudyError

    if study.device != "cuda":
        raise StudyError(
            f"--on gpus: expected a study on the device 'cuda', got {study.device!r}: "
            "give --device cuda"
        )
    devices = gpu_devices()
    slots = per_gpu * len(devices)
    return gpu_pool(per_gpu, devices), min(workers or slots, slots)


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
