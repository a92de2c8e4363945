"""Matplotlib figures as compact SVG for inlining in one page."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from markupsafe import escape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from optiscope.report.appearance import FAINT, GRID, INK, SHADE

__all__ = ["share_styles", "svg_text"]

_NUMBER: Final = re.compile(r"-?\d+\.\d+")
_PATH: Final = re.compile(r'\bd="([^"]*)"')
_PLACED: Final = re.compile(r'\b(x|y|width|height)="(-?\d+\.\d+)"')
_TRANSFORM: Final = re.compile(r' transform="([^"]*)"')
_GROUP: Final = re.compile(r'id="alg(\d+)-?([^"]*)"')
_USED: Final = re.compile(r'(?:xlink:href="#|url\(#)([^")]+)')
_IDENTITY: Final = re.compile(r'\s*\bid="([^"]+)"')
_STYLE: Final = re.compile(r' style="([^"]*)"')
_FAMILY: Final = re.compile(r"(font(?:-family)?: [^;\"]*)'DejaVu Sans'[^;\"]*")
_VARIABLES: Final = {
    INK: "ink",
    FAINT: "faint",
    GRID: "grid",
    SHADE: "shade",
    "#ffffff": "paper",
    "white": "paper",
    "#000000": "ink",
}
"""CSS variables of the page in place of the neutral colors of figures."""

_NEUTRAL: Final = re.compile(rf"(fill|stroke):({'|'.join(_VARIABLES)})(?![0-9a-f])", re.IGNORECASE)
_MARK: Final = "\ue000"
_WORD: Final = re.compile(f"{_MARK}(\\d+){_MARK}")
_EMPTY: Final = re.compile(r"<g\s*>\s*</g>")


def svg_text(figure: Figure, name: str, description: str) -> str:
    """The figure as an ``<svg>`` element that scales with its box.

    Artists whose gid is ``alg<number>-<part>`` get ``data-alg="<number>" data-part="<part>"``. Ink,
    grid and paper become CSS variables, so that the page has them light or dark. Coordinates are
    rounded to a tenth of a point. Text stays text, in the page's font. Ids are made unique in the
    page by ``name``.

    Args:
        figure: with its title, labels and artists; it is drawn here.
        name: unique in the page, of letters, digits and hyphens.
        description: read out by screen readers.
    """
    buffer = io.StringIO()
    metadata = {"Date": None, "Creator": None, "Type": None, "Format": None}
    FigureCanvasSVG(figure).print_svg(buffer, metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'<defs>\s*<style type="text/css">.*?</style>\s*</defs>', "", text, flags=re.S)
    text, words = _without_words(text)
    text = _GROUP.sub(r'data-alg="\1" data-part="\2"', text)
    text = _with_short_ids(text, name)
    text = _PATH.sub(_compact_path, text)
    text = _PLACED.sub(lambda m: f'{m[1]}="{_rounded(m[2])}"', text)
    text = _TRANSFORM.sub(_compact_transform, text)
    text = _STYLE.sub(_compact_style, text)
    text = re.sub(r">\s+<", "><", text)
    while _EMPTY.search(text):
        text = _EMPTY.sub("", text)
    head = text.index(">")
    opening = re.sub(r'\s(?:width|height|version|xmlns|xmlns:xlink)="[^"]*"', "", text[:head])
    label = escape(description)
    body = text[head + 1 :].replace("xlink:href", "href").replace("<g >", "<g>").strip()
    body = _WORD.sub(lambda m: words[int(m[1])], body)
    return f'{opening} role="img" aria-label="{label}"><title>{label}</title>{body}'


def share_styles(drawings: Sequence[str]) -> tuple[list[str], str]:
    """The drawings with styles that recur replaced by classes, and the CSS of these classes."""
    counts = Counter(style for drawing in drawings for style in _STYLE.findall(drawing))
    classes = {
        style: f"s{number}"
        for number, (style, count) in enumerate(counts.most_common())
        if count > 2
    }

    def shared(match: re.Match[str]) -> str:
        name = classes.get(match[1])
        return match[0] if name is None else f' class="{name}"'

    css = "".join(f".{name}{{{style}}}" for style, name in classes.items())
    return [_STYLE.sub(shared, drawing) for drawing in drawings], css


def _without_words(text: str) -> tuple[str, list[str]]:
    """The drawing with a number in place of each text, and the texts.

    What is done to attributes must not be done to the words of a label, which may look like some: a
    label of ``style="}body{display:none"`` would become a rule of the page. For the same reason no
    text keeps a quotation mark.
    """
    words: list[str] = []

    def number(match: re.Match[str]) -> str:
        words.append(match[1].replace('"', "&quot;"))
        return f">{_MARK}{len(words) - 1}{_MARK}<"

    return re.sub(r">([^<>]*[^<>\s][^<>]*)<", number, text), words


def _with_short_ids(text: str, name: str) -> str:
    used = {old: f"{name}-{n}" for n, old in enumerate(dict.fromkeys(_USED.findall(text)))}
    text = _IDENTITY.sub(lambda m: f' id="{used[m[1]]}"' if m[1] in used else "", text)
    return re.sub(r'(xlink:href="#|url\(#)([^")]+)', lambda m: m[1] + used.get(m[2], m[2]), text)


def _compact_path(match: re.Match[str]) -> str:
    digits = 2 if len(match[1]) < 400 else 1  # markers are small, curves are long
    rounded = _NUMBER.sub(lambda m: _rounded(m[0], digits), match[1])
    compact = re.sub(r"\s*([A-Za-z])\s*", r"\1", rounded).strip()
    return f'd="{compact}"'


def _compact_transform(match: re.Match[str]) -> str:
    if match[1].startswith("rotate(-0 "):
        return ""
    return f' transform="{_NUMBER.sub(lambda m: _rounded(m[0], 2), match[1])}"'


def _compact_style(match: re.Match[str]) -> str:
    style = _FAMILY.sub(r"\1var(--font)", match[1])
    compact = re.sub(r"([:;]) ", r"\1", style)
    compact = _NEUTRAL.sub(lambda m: f"{m[1]}:var(--{_VARIABLES[m[2].lower()]})", compact)
    return f' style="{compact}"'


def _rounded(number: str, digits: int = 1) -> str:
    text = f"{float(number):.{digits}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
