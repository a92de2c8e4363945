"""``optiscope list``: what can be named in a study."""

from __future__ import annotations

from typing import Any

import click

from optiscope.cli.options import as_json, json_option

__all__ = ["command"]


@click.group("list")
def command() -> None:
    """List problems, optimizers or studies."""


@command.command("problems")
@json_option
def list_problems(wants_json: bool) -> None:
    """Problems with their data, model, parameters, batch size and epochs."""
    from optiscope import problems

    columns = ("name", "dataset", "model", "parameters", "batch_size", "epochs")
    rows = [{c: getattr(entry, c) for c in columns} for entry in problems.entries()]
    _show("Problems", rows, wants_json)


@command.command("optimizers")
@json_option
def list_optimizers(wants_json: bool) -> None:
    """Optimizers with their defaults and the space they are tuned in."""
    from optiscope.optim import registry
    from optiscope.optim.spec import Choice

    rows = []
    for name in registry.names():
        spec = registry.get(name)
        space = {
            key: list(d.values) if isinstance(d, Choice) else [d.low, d.high]
            for key, d in spec.space.items()
        }
        rows.append(
            {"name": name, "defaults": dict(spec.defaults), "space": space, "source": spec.source}
        )
    _show("Optimizers", rows, wants_json)


@command.command("studies")
@json_option
def list_studies(wants_json: bool) -> None:
    """Studies that come with the package; run one with `optiscope bench NAME`."""
    from optiscope.study.declaration import shipped_studies

    rows = [{"name": name, "question": text} for name, text in shipped_studies().items()]
    _show("Studies", rows, wants_json)


def _show(title: str, rows: list[dict[str, Any]], wants_json: bool) -> None:
    if wants_json:
        click.echo(as_json(rows))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        numeric = all(isinstance(row[column], int) for row in rows)
        table.add_column(
            column.replace("_", " "),
            justify="right" if numeric else "left",
            no_wrap=numeric or column == "name",
        )
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    Console().print(table)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items()) or "-"
    if isinstance(value, list):
        return f"[{', '.join(_text(v) for v in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)
