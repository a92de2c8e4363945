"""``optiscope log``: say why a run was made."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["command"]


@click.command("log")
@click.argument("why")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--by", help="Author of the entry [default: git's user.name].")
@click.option(
    "--code",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to keep with the entry; may be repeated [default: code that git tracks here].",
)
def command(why: str, run: Path, by: str | None, code: tuple[Path, ...]) -> None:
    """Say WHY a run was made; RUN is its folder.

    The entry is added to logbook.jsonl beside the run; no record is changed. Show all entries of a
    folder with `optiscope logbook FOLDER`.
    """
    from optiscope.records.journal import append_entry

    entry = append_entry(run, why, who=by, code=list(code) or None)
    click.echo(f"{entry.when} {entry.who}: {entry.run}: {entry.why}")
