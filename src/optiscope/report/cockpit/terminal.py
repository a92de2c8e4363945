"""A watch on the terminal: verdict, findings and the latest figures, also while it trains."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["LivePanel", "panel", "sparkline"]

COLORS = {"error": "red", "warning": "yellow", "note": "dim"}
FIGURES = (
    "loss", "evaluation loss", "rate", "gradient norm", "update norm", "noise scale", "alpha",
)  # fmt: skip
BARS = "▁▂▃▄▅▆▇█"


def sparkline(points: Sequence[Sequence[float | None]], width: int = 32) -> str:
    """Values of (step, value) pairs as bars of eight heights, the lowest value the lowest bar.

    Each bar is the mean of the finite values in its share of the steps, or the bar before.
    Logarithmic where the values span more than a factor of 30. Empty for fewer than two values.
    """
    known = [(float(s or 0), v) for s, v in points if v is not None and math.isfinite(v)]
    if len(known) < 2:
        return ""
    values = [v for _, v in known]
    logarithmic = min(values) > 0 and max(values) / min(values) > 30
    first, last = known[0][0], known[-1][0]
    bins: list[list[float]] = [[] for _ in range(width)]
    for step, value in known:
        place = int((step - first) / max(last - first, 1e-12) * width)
        bins[min(place, width - 1)].append(math.log(value) if logarithmic else value)
    means: list[float] = []
    for b in bins:  # the first bar has a value; a share without one goes on as before
        means.append(sum(b) / len(b) if b else means[-1])
    low, high = min(means), max(means)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        return BARS[0] * width
    return "".join(BARS[min(int((m - low) / (high - low) * len(BARS)), 7)] for m in means)


def panel(data: Mapping[str, Any]) -> Any:
    """A rich renderable of the data that the page shows."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    findings = data["findings"]
    alarms = [f for f in findings if f["severity"] != "note"]
    head = Text(f"{data['title']}: {data['state']}, step {data['step']}")
    if data.get("seconds") is not None and data["step"]:
        head.append(f", {data['seconds']:.0f} s", style="dim")
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
    figures = Table(show_header=False, box=None, pad_edge=False)
    for place in range(3):
        figures.add_column(no_wrap=True, justify="right" if place == 1 else "left")
    for name in FIGURES:
        points = data["series"]["scalars"].get(name)
        if points and points[-1][1] is not None:
            curve = Text(sparkline(points), style="cyan")
            figures.add_row(Text(name, style="dim"), f"{points[-1][1]:.4g}", curve)
    verdict = Text(
        "Nothing wrong found."
        if not alarms
        else f"{len(alarms)} finding{'s' if len(alarms) > 1 else ''}."
    )
    verdict.stylize("bold green" if not alarms else "bold red")
    parts: list[Any] = [head, verdict]
    if findings:
        parts.append(table)
    if figures.row_count:
        parts.append(figures)
    return Group(*parts)


class LivePanel:
    """The panel on a terminal, kept up to date by whoever trains; elsewhere it shows nothing.

    What the program prints meanwhile appears above it. ``stop`` leaves the last panel where it is.
    """

    SECONDS = 1.0  # between two drawings

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console

        if console is None:
            console = Console(stderr=True, markup=False, emoji=False, highlight=False)
        self.console = console
        self._live: Any = None
        self._drawn = -math.inf

    def update(self, data: Callable[[], Mapping[str, Any]]) -> None:
        """Draw ``data()`` where the last drawing is old enough."""
        if not self.console.is_terminal or time.perf_counter() - self._drawn < self.SECONDS:
            return
        self._draw(data())

    def _draw(self, data: Mapping[str, Any]) -> None:
        from rich.live import Live

        if self._live is None:
            self._live = Live(
                console=self.console,
                auto_refresh=False,
                redirect_stdout=sys.stdout.isatty(),
                redirect_stderr=sys.stderr.isatty(),
            )
            self._live.start()
        self._live.update(panel(data), refresh=True)
        self._drawn = time.perf_counter()

    def stop(self, data: Mapping[str, Any]) -> None:
        """Draw the last state and give the terminal back; a second call does nothing."""
        if self._live is not None:
            self._draw(data)
            self._live.stop()
            self._live = None
