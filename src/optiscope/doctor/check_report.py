"""The report of a check: findings in order, as text, as a page, as a fragment for a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from optiscope.doctor.context import Picture
from optiscope.doctor.finding import SEVERITIES, Finding

__all__ = ["CheckReport", "Outcome"]

STYLE = """
.os-check{--ink:#1a1a1a;--faint:#5c5c5c;--line:#dcdcdc;--bad:#a03020;--warn:#8a5a00;--ok:#1e6b3a;
--soft:#f6f6f4;--paper:#fff;font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
color:var(--ink);background:var(--paper);max-width:960px;margin:0 auto;padding:0 16px 40px}
@media(prefers-color-scheme:dark){.os-check{--ink:#e8e8e6;--faint:#a8a8a4;--line:#3c3c3a;
--bad:#f08a74;--warn:#e0b050;--ok:#7cc795;--soft:#242422;--paper:#191918}}
.os-check h1{font-size:1.5rem;margin:1rem 0 .2rem}
.os-check h2{font-size:1.15rem;margin:1.8rem 0 .5rem}
.os-check .verdict{font-size:1.05rem;margin:.2rem 0 1rem}.os-check .finding{border-left:4px solid
var(--line);background:var(--soft);padding:.5rem .8rem;margin:.6rem 0;overflow-wrap:anywhere}
.os-check .error{border-color:var(--bad)}.os-check .warning{border-color:var(--warn)}
.os-check .finding b{font-weight:600}.os-check .tag{font-size:.8rem;color:var(--faint)}
.os-check .remedy{color:var(--faint)}.os-check .row{display:flex;flex-wrap:wrap;gap:10px}
.os-check figure{margin:0;text-align:center;font-size:.78rem;color:var(--faint);max-width:120px}
.os-check figure img{display:block;margin:0 auto 2px;image-rendering:pixelated;max-width:112px;
border:1px solid var(--line)}.os-check table{border-collapse:collapse;font-size:.88rem;
display:block;overflow-x:auto}.os-check th,.os-check td{text-align:left;padding:4px 10px 4px 0;
border-bottom:1px solid var(--line)}
.os-check td.n{text-align:right;font-variant-numeric:tabular-nums}
"""


@dataclass(frozen=True)
class Outcome:
    """What became of one check: how long it took, or why it was left out."""

    check: str
    findings: int
    seconds: float
    skipped: str = ""


@dataclass(frozen=True)
class CheckReport:
    """What `check` found. True where nothing is of severity error.

    ``findings`` are in order: errors first, causes before what they explain. ``outcomes`` has a row
    per check, ``measured`` the numbers, ``pictures`` what a person should look at.
    """

    findings: tuple[Finding, ...]
    outcomes: tuple[Outcome, ...]
    measured: Mapping[str, float]
    pictures: tuple[Picture, ...] = field(repr=False)
    seconds: float

    def __bool__(self) -> bool:
        return all(f.severity != "error" for f in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the pictures."""
        return {
            "clean": bool(self),
            "findings": [f.to_dict() for f in self.findings],
            "checks": [
                {
                    "check": o.check,
                    "findings": o.findings,
                    "seconds": round(o.seconds, 3),
                    "skipped": o.skipped,
                }
                for o in self.outcomes
            ],
            "measured": dict(self.measured),
            "seconds": round(self.seconds, 3),
        }

    def table(self) -> str:
        """The findings and the checks as text."""
        lines = [self.verdict(), ""]
        for f in self.findings:
            place = f" [{', '.join(f.where[:3])}]" if f.where else ""
            lines.append(f"{f.severity:<8} {f.rule}{place}")
            lines.append(f"         {f.sentence}")
            if f.remedy:
                lines.append(f"         -> {f.remedy}")
            if f.explained_by:
                lines.append(f"         (explained by {f.explained_by})")
        if self.findings:
            lines.append("")
        width = max((len(o.check) for o in self.outcomes), default=0)
        for o in self.outcomes:
            words = o.skipped and f"left out: {o.skipped}"
            words = words or (f"{o.findings} found" if o.findings else "clean")
            lines.append(f"{o.check:<{width}}  {o.seconds:6.2f} s  {words}")
        return "\n".join(lines)

    def verdict(self) -> str:
        """One line."""
        counts = {s: sum(f.severity == s for f in self.findings) for s in reversed(SEVERITIES)}
        words = [f"{n} {s}{'s' if n != 1 else ''}" for s, n in counts.items() if n]
        found = ", ".join(words) or "nothing found"
        made = sum(not o.skipped for o in self.outcomes)
        return f"{found} ({made} of {len(self.outcomes)} checks made, {self.seconds:.1f} s)"

    __str__ = table

    def _repr_html_(self) -> str:
        return _body(self)

    def page(self, path: str | Path) -> Path:
        """Write one self-contained page and return its path."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_page(self), encoding="utf-8")
        return target


def _page(report: CheckReport) -> str:
    """The page as text."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<title>Check before training</title>"
        "<style>body{margin:0}@media(prefers-color-scheme:dark){body{background:#191918}}</style>"
        f"</head><body>{_body(report)}</body></html>\n"
    )


def _body(report: CheckReport) -> str:
    """The report as an element with its own style."""
    parts = [f'<style>{STYLE}</style><div class="os-check"><h1>Check before training</h1>']
    parts.append(f'<p class="verdict">{escape(report.verdict())}</p>')
    parts += [_finding(finding) for finding in report.findings]
    for picture in report.pictures:
        parts.append(f'<h2>{escape(picture.title)}</h2><div class="row">')
        for uri, caption in zip(picture.data_uris(), picture.captions, strict=True):
            text = escape(caption)
            parts.append(
                f'<figure><img src="{uri}" alt="{text}"><figcaption>{text}</figcaption></figure>'
            )
        parts.append("</div>")
    parts.append("<h2>Checks</h2><table><thead><tr><th>check</th><th>result</th><th>seconds</th>")
    parts.append("</tr></thead><tbody>")
    for outcome in report.outcomes:
        words = f"left out: {outcome.skipped}" if outcome.skipped else "clean"
        words = f"{outcome.findings} found" if outcome.findings else words
        parts.append(
            f"<tr><td>{escape(outcome.check)}</td><td>{escape(words)}</td>"
            f'<td class="n">{outcome.seconds:.2f}</td></tr>'
        )
    parts.append("</tbody></table>")
    if report.measured:
        parts.append("<h2>Measured</h2><table><tbody>")
        for name, value in report.measured.items():
            parts.append(f'<tr><td>{escape(name)}</td><td class="n">{value:.4g}</td></tr>')
        parts.append("</tbody></table>")
    parts.append("</div>")
    return "".join(parts)


def _finding(finding: Finding) -> str:
    place = f" &middot; {escape(', '.join(finding.where[:6]))}" if finding.where else ""
    numbers = ", ".join(
        f"{name} {value:.4g} (limit {finding.threshold[name]:.4g})"
        if name in finding.threshold
        else f"{name} {value:.4g}"
        for name, value in finding.measured.items()
    )
    cause = f" Explained by {escape(finding.explained_by)}." if finding.explained_by else ""
    return (
        f'<div class="finding {finding.severity}"><span class="tag">{finding.severity} &middot; '
        f"{escape(finding.rule)}{place}</span><br><b>{escape(finding.sentence)}</b>{cause}"
        f'<div class="remedy">{escape(finding.remedy)}</div>'
        + (f'<div class="tag">{escape(numbers)}</div>' if numbers else "")
        + "</div>"
    )
