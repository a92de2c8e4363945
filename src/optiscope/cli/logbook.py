"""``optiscope logbook``: what changed from run to run, and what came of it."""

from __future__ import annotations

from pathlib import Path

import click

from optiscope.cli.options import as_json, json_option
from optiscope.errors import OptiscopeError

__all__ = ["command"]


class PageNotWritten(OptiscopeError):
    """The page or the Markdown file cannot be written."""


@click.command("logbook")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--page", type=click.Path(path_type=Path, dir_okay=False), help="Write a page.")
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Write Markdown.")
@json_option
def command(folder: Path, page: Path | None, markdown: Path | None, wants_json: bool) -> None:
    """Show the logbook of a FOLDER of runs.

    Each entry stands beside the one before: who, when and why, settings and code that changed,
    findings that are gone, new or left, and the effect.
    """
    from optiscope.report.logbook import logbook
    from optiscope.report.page.logbook import logbook_page

    book = logbook(folder)
    for path, text in ((page, logbook_page(book)), (markdown, book.markdown())):
        if path is not None:
            try:
                path.write_text(text, encoding="utf-8")
            except OSError as error:
                raise PageNotWritten(f"cannot write {path}: {error.strerror}") from error
    if wants_json:
        click.echo(as_json(book.to_dict()))
        return
    for number, one in enumerate(book.entries, 1):
        click.secho(f"{number}. {one.entry.why}", bold=True)
        click.echo(f"   {one.entry.when} {one.entry.who}: {one.entry.run}")
        for name, a, b in one.settings:
            click.echo(f"   {name}: {a} -> {b}")
        if one.effect is not None:
            click.echo(f"   {one.effect.words}")
        for word, names in (("gone", one.gone), ("new", one.new), ("left", one.left)):
            if names:
                click.echo(f"   findings {word}: {', '.join(names)}")
    for path in (page, markdown):
        if path is not None:
            click.echo(f"written: {path}")
