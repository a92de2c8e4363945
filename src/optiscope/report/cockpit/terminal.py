"""A watch on the terminal: verdict, findings and the latest figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["panel"]

COLORS = {"error": "red", "warning": "yellow", "note": "dim"}


def panel(data: Mapping[str, Any]) -> Any:
    """A rich renderable of the data that the page shows."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    findings = data["findings"]
    alarms = [f for f in findings if f["severity"] != "note"]
    head = Text(f"{data['title']}: {data['state']}, step {data['step']}")
    table = Table(show_header=True, header_style="bold", box=None, pad_edge=False)
    for column in ("step", "finding", "what, and what to do"):
        table.add_column(column, no_wrap=column == "step", overflow="fold")
    for f in findings:
        if f["severity"] == "note" and alarms:
            continue
        said = Text(f["sentence"])  # no markup: a console may print it as it stands
        if f["explained_by"]:
            said.append(f" (explained by {f['explained_by']})", style="dim")
        said.append(f"\n{f['remedy']}", style="italic")
        rule = Text("  " if f["explained_by"] else "")
        rule.append(f["rule"], style=COLORS[f["severity"]])
        table.add_row(str(f["step"]), rule, said)
    figures = []
    for name in ("loss", "rate", "gradient norm", "update norm", "noise scale", "alpha"):
        points = data["series"]["scalars"].get(name)
        if points and points[-1][1] is not None:
            figures.append(f"{name} {points[-1][1]:.4g}")
    verdict = Text(
        "Nothing wrong found."
        if not alarms
        else f"{len(alarms)} finding{'s' if len(alarms) > 1 else ''}."
    )
    verdict.stylize("bold green" if not alarms else "bold red")
    parts: list[Any] = [head, verdict]
    if findings:
        parts.append(table)
    if figures:
        parts.append(Text("  ".join(figures), style="dim"))
    return Group(*parts)
