"""``optiscope compact``: many small files of runs into two, and back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from optiscope.cli.options import as_json, json_option

__all__ = ["command"]


@click.command("compact")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--undo", is_flag=True, help="Unpack: give every packed run its own folder again.")
@json_option
def command(folder: Path, undo: bool, wants_json: bool) -> None:
    """Pack the runs in FOLDER, a study's folder or one of single runs, into two Parquet files.

    Every command reads packed runs as it reads others, and new runs may be added. Nothing is
    removed before the new files are on disk and were read back. Other programs can read the table
    segments/*.runs.parquet.
    """
    from optiscope.records import RunStore, StoreError, compact, unpack

    root = folder / "runs" if (folder / "runs").is_dir() else folder
    store = RunStore(root)
    if not store.hashes() and not store.packed.damaged():
        raise StoreError(f"{folder} holds no runs: give the folder of a study, or of single runs")
    done = unpack(store) if undo else compact(store)
    if wants_json:
        click.echo(as_json(asdict(done) | {"segments": [str(path) for path in done.segments]}))
    elif undo:
        click.echo(f"{done.moved:,} runs unpacked into {root}")
    else:
        odd = done.loose - done.beside
        kept = f"; {odd:,} damaged or interrupted ones stay" if odd else ""
        if done.beside:
            kept += f"; {done.beside:,} with weights or findings stay, which segments cannot hold"
        click.echo(f"{done.moved:,} runs packed, {done.packed:,} in segments{kept}")
