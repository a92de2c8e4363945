"""A watch on the terminal: verdict, findings and the latest figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["panel"]

COLORS = {"error": "red", "warning": "yellow", "note": "dim"}


def panel(data: Mapping[str, Any]) -> Any:
    """A rich renderable of the data that the page shows."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    findings = data["findings"]
    alarms = [f for f in findings if f["severity"] != "note"]
    head = Text(f"{data['title']}: {data['state']}, step {data['step']}")
    table = Table(show_header=True, header_style="bold", box=None, pad_edge=False)
    for column in ("step", "finding", "what, and what to do"):
        table.add_column(column, no_wrap=column == "step")
    for f in findings:
        if f["severity"] == "note" and alarms:
            continue
        color = COLORS[f["severity"]]
        indent = "  " if f["explained_by"] else ""
        cause = f" [dim](explained by {f['explained_by']})[/dim]" if f["explained_by"] else ""
        table.add_row(
            str(f["step"]),
            f"{indent}[{color}]{f['rule']}[/{color}]",
            f"{escape(f['sentence'])}{cause}\n[italic]{escape(f['remedy'])}[/italic]",
        )
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
