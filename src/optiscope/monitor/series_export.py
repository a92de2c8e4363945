"""A watch's series in a tracking program, at once or while the run goes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from optiscope.monitor.series import Series
from optiscope.records.exports.tracker import open_tracker

__all__ = ["SeriesExport"]


class SeriesExport:
    """Sends what is new in a watch's series and findings, each point once.

    Raises ``ExportError`` as :func:`optiscope.records.exports.tracker.open_tracker` does.
    """

    def __init__(
        self, to: str, where: Path | str, *, name: str, settings: Mapping[str, Any]
    ) -> None:
        self.tracker = open_tracker(to, where, name=name, group="watch", settings=settings)
        self._sent: dict[str, int] = {}
        self._noted: dict[str, int] = {}

    def send(self, series: Series, findings: Iterable[Any]) -> None:
        """Send the points that came since the last call, in order of their steps."""
        rows: dict[int, dict[str, float]] = {}
        layers = (
            (f"{name}/{layer}", points)
            for name, many in series.layers.items()
            for layer, points in many.items()
        )
        for name, points in (*series.scalars.items(), *layers):
            last = self._sent.get(name, -1)
            for step, value in points:
                if step > last:
                    rows.setdefault(step, {})[name] = value
            if points:
                self._sent[name] = max(last, points[-1][0])
        for step in sorted(rows):
            self.tracker.log(step, rows[step])
        for finding in findings:
            if finding.rule not in self._noted:
                self._noted[finding.rule] = finding.step
                self.tracker.note(f"finding/{finding.rule}", str(finding))

    def finish(self, findings: Iterable[Any]) -> None:
        """Close the run; its summary counts the findings by severity."""
        severities = [finding.severity for finding in findings]
        counts = {f"findings/{s}": float(severities.count(s)) for s in ("error", "warning", "note")}
        self.tracker.finish(counts, "finished")
