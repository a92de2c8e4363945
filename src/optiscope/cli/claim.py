"""``optiscope claim``: a question to a study, answered or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from optiscope.cli.options import as_json, json_option

__all__ = ["command"]


@click.command("claim")
@click.argument("question")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), required=False)
@click.option(
    "--assume",
    type=click.Choice(["symmetric", "normal"]),
    help="Assume this of differences between equal algorithms [default: as the study declares].",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context, /, question: str, folder: Path | None, assume: Any, wants_json: bool
) -> None:
    """Answer QUESTION from the study in FOLDER, or say why it cannot and what study could.

    For example: optiscope claim "adam better than sgd on fmnist_2c2d at 80 epochs" runs/mine.
    The first word of the output is the answer: yes, no, undecided or refused ("answer" with
    --json). The exit status is 0 for yes and 1 for the three others. With FOLDER alone, everything
    the study says.
    """
    from optiscope.cli.root import ExitCode
    from optiscope.records import StudyFolder
    from optiscope.stats.claims import Claim, claim, study_claims

    if folder is None:
        if not Path(question).is_dir():
            raise click.UsageError("expected a QUESTION and the FOLDER of a study, or FOLDER alone")
        answers = study_claims(StudyFolder(question))
        if wants_json:
            click.echo(as_json([one.to_dict() for one in answers]))
        else:
            for one in answers:
                text = one.sentence if isinstance(one, Claim) else f"refused: {one.reason}"
                click.echo(f"- {text}")
        return
    answer = claim(question, StudyFolder(folder), assume=assume)
    if wants_json:
        click.echo(as_json(answer.to_dict()))
    elif isinstance(answer, Claim):
        said = answer.sentence.startswith(answer.answer)  # "undecided whether ..."
        click.echo(answer.sentence if said else f"{answer.answer}: {answer.sentence}")
    else:
        click.echo(f"refused: {answer.reason}")
        if answer.study_that_would_answer is not None:
            click.echo("\nThis study would answer it:\n")
            click.echo(answer.study_that_would_answer)
    supported = isinstance(answer, Claim) and answer.supported
    ctx.exit(ExitCode.OK if supported else ExitCode.UNFINISHED)
