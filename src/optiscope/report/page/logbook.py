"""The logbook as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from optiscope.report.logbook import Logbook, LogbookEntry

__all__ = ["logbook_page"]

WIDTH, HEIGHT, LEFT, BOTTOM = 360, 150, 46, 22

STYLE = """
:root{color-scheme:light dark;--ink:#1a1a1a;--faint:#5c5c5c;--line:#dcdcdc;--bad:#a03020;
--ok:#1e6b3a;--soft:#f6f6f4;--paper:#fff;--now:#1f5fa8;--then:#9a9a96}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8e6;--faint:#a8a8a4;--line:#3c3c3a;--bad:#f08a74;
--ok:#7cc795;--soft:#242422;--paper:#191918;--now:#7db4ee;--then:#77776f}}
body{margin:0 auto;max-width:960px;padding:0 16px 40px;color:var(--ink);background:var(--paper);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.5rem;margin:1rem 0 .2rem}h2{font-size:1.15rem;margin:0 0 .1rem}
article{border-top:1px solid var(--line);padding:1rem 0;display:grid;gap:4px 20px;
grid-template-columns:minmax(0,1fr) minmax(0,360px)}
@media(max-width:720px){article{grid-template-columns:minmax(0,1fr)}}
.meta,.key{color:var(--faint);font-size:.85rem}.gone{color:var(--ok)}.new{color:var(--bad)}
p{margin:.35rem 0;overflow-wrap:anywhere}table{border-collapse:collapse;font-size:.88rem}
td,th{text-align:left;padding:2px 12px 2px 0;border-bottom:1px solid var(--line);
overflow-wrap:anywhere}pre{background:var(--soft);padding:8px;overflow:auto;font-size:.8rem;
max-height:22rem;margin:.3rem 0}pre .a{color:var(--ok)}pre .d{color:var(--bad)}
svg{width:100%;height:auto;display:block}svg text{fill:var(--faint);font-size:10px}
details{grid-column:1/-1;min-width:0}summary{cursor:pointer;color:var(--faint);font-size:.9rem}
"""


def logbook_page(book: Logbook) -> str:
    """The page as text."""
    title = f"Logbook of {escape(book.folder)}"
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>"
        f'<p class="meta">{len(book.entries)} entries</p>'
    ]
    parts += [_article(number, one) for number, one in enumerate(book.entries, 1)]
    parts.append("</body></html>\n")
    return "".join(parts)


def _article(number: int, one: LogbookEntry) -> str:
    entry = one.entry
    words = [f"<article><div><h2>{number}. {escape(entry.why)}</h2>"]
    words.append(
        f'<p class="meta">{escape(entry.when)} &middot; {escape(entry.who)} &middot; '
        f"{escape(entry.run)}</p>"
    )
    if one.run is None:
        words.append("<p>The record of this run is gone.</p>")
    elif one.run.status:
        words.append(f'<p class="meta">{escape(one.run.status)}</p>')
    if one.effect is not None:
        words.append(f"<p><b>Effect:</b> {escape(one.effect.words)}</p>")
    for kind, names in (("gone", one.gone), ("new", one.new), ("left", one.left)):
        if names:
            shown = escape(", ".join(names))
            words.append(f'<p class="{kind}">Findings {kind}: {shown}</p>')
    if one.settings:
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{_value(a)}</td><td>{_value(b)}</td></tr>"
            for name, a, b in one.settings
        )
        words.append(f"<table><tr><th>setting</th><th>before</th><th>after</th></tr>{rows}</table>")
    words.append("</div><div>" + _curves(one) + "</div>")
    if one.code:
        lines = one.code.splitlines()
        count = sum(line[:1] in "+-" and line[:3] not in ("+++", "---") for line in lines if line)
        noun = "line" if count == 1 else "lines"
        marked = "\n".join(_code_line(line) for line in lines)
        words.append(
            f"<details><summary>Code: {count} {noun} changed</summary><pre>{marked}</pre></details>"
        )
    words.append("</article>")
    return "".join(words)


def _value(value: object) -> str:
    return "-" if value is None else escape(str(value))


def _code_line(line: str) -> str:
    kind = {"+": "a", "-": "d"}.get(line[:1])
    text = escape(line)
    return f'<span class="{kind}">{text}</span>' if kind else text


def _curves(one: LogbookEntry) -> str:
    key = one.main_curve
    if key is None or one.run is None:
        return ""
    lines = []
    if one.before is not None and key in one.before.curves:
        lines.append(("then", one.before.curves[key]))
    lines.append(("now", one.run.curves[key]))
    every_step = [x for _, (steps, _) in lines for x in steps]
    every_value = [y for _, (_, values) in lines for y in values]
    low, high = min(every_value), max(every_value)
    if key[1] == "accuracy":
        low, high = min(low, 0.0), max(high, 1.0)
    height = (high - low) or 1.0
    last = max(every_step) or 1.0

    def place(x: float, y: float) -> str:
        across = LEFT + (WIDTH - LEFT - 8) * x / last
        return f"{across:.1f},{8 + (HEIGHT - BOTTOM - 8) * (high - y) / height:.1f}"

    drawn = "".join(
        f'<polyline fill="none" stroke="var(--{name})" stroke-width="1.8" points="'
        f'{" ".join(place(x, y) for x, y in _thinned(steps, values))}"/>'
        for name, (steps, values) in lines
    )
    bottom = HEIGHT - BOTTOM
    label = escape(f"{key[0]} {key[1]}")
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f'<path d="M{LEFT} 8V{bottom}H{WIDTH - 8}" fill="none" stroke="var(--line)"/>'
        f'<text x="{LEFT - 4}" y="14" text-anchor="end">{high:.3g}</text>'
        f'<text x="{LEFT - 4}" y="{bottom}" text-anchor="end">{low:.3g}</text>'
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 8}" text-anchor="end">step {last:g}</text>'
        f"{drawn}</svg>"
        f'<p class="key">{label}{"; gray: the run before" if len(lines) > 1 else ""}</p>'
    )


def _thinned(
    steps: Sequence[float], values: Sequence[float], most: int = 300
) -> list[tuple[float, float]]:
    every = max(1, len(steps) // most)
    pairs = list(zip(steps, values, strict=True))
    kept = pairs[::every]
    return kept if kept[-1] == pairs[-1] else [*kept, pairs[-1]]
