"""``optiscope import``: published results beside yours."""

from __future__ import annotations

from pathlib import Path

import click

from optiscope.cli.options import as_json, json_option

__all__ = ["command"]


@click.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--origin", help="Where the numbers came from, in words [default: the file's name].")
@json_option
def command(source: Path, folder: Path, origin: str | None, wants_json: bool) -> None:
    """Import the published results in SOURCE into the study in FOLDER.

    SOURCE is a CSV or TSV file with a row per setting or per epoch, or a JSON file or folder of
    DeepOBS. Imported runs are marked as such: they stand in the study's figures and enter no claim.
    Files of a folder that hold no run are left out and named.
    """
    from optiscope.records import StudyFolder
    from optiscope.stats.importers import import_deepobs, import_table, keep_imported

    study = StudyFolder(folder)
    study.declaration()
    left_out: list[str] = []
    if source.suffix.lower() in (".csv", ".tsv"):
        runs = import_table(source, source=origin)
    else:
        runs = import_deepobs(source, on_left_out=left_out.append)
    new = keep_imported(study, runs)
    for line in left_out:
        click.echo(line, err=True)
    if wants_json:
        content = {"read": len(runs), "new": new, "folder": str(folder), "left_out": left_out}
        click.echo(as_json(content))
    else:
        click.echo(f"{len(runs)} runs read from {source}, {new} of them new in {folder}")
