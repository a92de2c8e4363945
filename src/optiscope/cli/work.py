"""``optiscope work``: one of any number of workers of a study."""

from __future__ import annotations

import os
import re
import time
from dataclasses import asdict
from pathlib import Path

import click

from optiscope.cli.options import as_json, data_dir_option, json_option

__all__ = ["command", "seconds_of"]

UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


@click.command("work")
@click.argument("study")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the study's records, if STUDY is not a folder [default: runs/NAME].",
)
@click.option(
    "--until",
    metavar="TIME",
    help="Save and exit before this much time has passed, such as 2h50m "
    "[default: the end of the Slurm job].",
)
@click.option("--max-trials", type=click.IntRange(min=1), help="Stop after this many trials.")
@data_dir_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    study: str,
    out: Path | None,
    until: str | None,
    max_trials: int | None,
    data_dir: Path | None,
    wants_json: bool,
) -> None:
    """Train trials of STUDY, its folder or its file, that no other worker trains.

    Start as many as you like, on any machines that see the folder: on a cluster, in a job array,
    on a friend's desk. Each leaves when all is recorded. Ctrl-C, SIGTERM and SIGUSR1 save the
    trial's state: whoever takes it next goes on from there. The exit status is 1 where one of its
    trials crashed.
    """
    from optiscope.cli.terminal import terminal
    from optiscope.errors import ExitCode
    from optiscope.executors.slurm import ended_as, requeue
    from optiscope.records import StudyFolder
    from optiscope.study import load_study
    from optiscope.study.claims import Claims
    from optiscope.study.redeclaration import check_redeclared
    from optiscope.study.worker import study_in, work

    console = terminal(stderr=True)

    def say(message: str) -> None:
        console.print(f"{time.strftime('%H:%M:%S')} {message}", highlight=False, markup=False)

    if (Path(study) / "study.json").is_file():
        folder = StudyFolder(study)
        asked = study_in(folder)
    else:
        asked = load_study(study)
        folder = StudyFolder(out or Path("runs") / asked.name)
        looks = check_redeclared(asked, folder)
        folder.write_declaration(asked.to_dict() | ({"looked_at": looks} if looks else {}))
    seconds = _job_seconds() if until is None else seconds_of(until)

    def start_again() -> None:
        if (refused := requeue()) is not None:
            say(f"Slurm does not start this job again: {refused}")

    did = work(
        asked,
        folder,
        data_dir=data_dir,
        seconds=seconds,
        max_trials=max_trials,
        claims=Claims(folder.path, ended_as=ended_as),
        say=say,
        on_leaving=start_again,
    )
    words = "all is recorded" if did.finished else "more is left: the same command goes on"
    if wants_json:
        click.echo(as_json(asdict(did)))
    else:
        crashed = f", {did.crashed} of them crashed" if did.crashed else ""
        click.echo(f"{did.trained} trials trained{crashed}; {words}")
    ctx.exit(ExitCode.UNFINISHED if did.crashed else ExitCode.OK)


def seconds_of(text: str) -> float:
    """``2h50m`` in seconds; raises click.BadParameter."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", text)
    if not parts or "".join(n + unit for n, unit in parts) != text.replace(" ", ""):
        raise click.BadParameter(f"expected a time such as 2h50m, got {text[:80]!r}")
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def _job_seconds() -> float | None:
    """What is left of the Slurm job, where there is one and it says so."""
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    return max(float(end) - time.time(), 1.0) if end.isdigit() else None
