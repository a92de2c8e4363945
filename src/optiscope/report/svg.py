"""Matplotlib figures as compact SVG for inlining in one page."""

from __future__ import annotations

import io
import re
from typing import Final

from matplotlib.figure import Figure

__all__ = ["svg_text"]

_NUMBER: Final = re.compile(r"-?\d+\.\d+")
_PATH: Final = re.compile(r'\bd="([^"]*)"')
_PLACED: Final = re.compile(r'\b(x|y|width|height)="(-?\d+\.\d+)"')
_GROUP: Final = re.compile(r'id="alg(\d+)[^"]*"')
_USED: Final = re.compile(r'(?:xlink:href="#|url\(#)([^")]+)')
_IDENTITY: Final = re.compile(r'\bid="([^"]+)"')
_FONT: Final = re.compile(r"font(?:-family)?: [^;\"]*'DejaVu Sans'[^;\"]*")


def svg_text(figure: Figure, name: str, description: str) -> str:
    """The figure as an ``<svg>`` element that scales with its box.

    Artists whose gid starts with ``alg<number>`` get ``data-alg="<number>"``. Coordinates are
    rounded to a tenth of a point. Ids are made unique in the page by ``name``.

    Args:
        figure: with its title, labels and artists; it is drawn here.
        name: unique in the page, of letters, digits and hyphens.
        description: read out by screen readers.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = _GROUP.sub(r'data-alg="\1"', text)
    text = _without_unused_ids(text, name)
    text = _PATH.sub(_compact_path, text)
    text = _PLACED.sub(lambda m: f'{m[1]}="{_rounded(m[2])}"', text)
    text = re.sub(r'transform="[^"]*"', lambda m: _NUMBER.sub(_round_match, m[0]), text)
    text = _FONT.sub(_without_family, text)
    text = re.sub(r">\s+<", "><", text)
    head = text.index(">")
    attributes = re.sub(r'\s(?:width|height|version|xmlns|xmlns:xlink)="[^"]*"', "", text[:head])
    label = _escaped(description)
    opening = f'{attributes} role="img" aria-label="{label}"><title>{label}</title>'
    return opening + text[head + 1 :].replace("xlink:href", "href").strip()


def _without_unused_ids(text: str, name: str) -> str:
    used = set(_USED.findall(text))
    text = _IDENTITY.sub(lambda m: f'id="{name}-{m[1]}"' if m[1] in used else "", text)
    return re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", text)


def _compact_path(match: re.Match[str]) -> str:
    digits = 2 if len(match[1]) < 400 else 1  # markers are small, curves are long
    rounded = _NUMBER.sub(lambda m: _rounded(m[0], digits), match[1])
    compact = re.sub(r"\s*([A-Za-z])\s*", r"\1", rounded).strip()
    return f'd="{compact}"'


def _round_match(match: re.Match[str]) -> str:
    return _rounded(match[0], 2)


def _rounded(number: str, digits: int = 1) -> str:
    text = f"{float(number):.{digits}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _without_family(match: re.Match[str]) -> str:
    size = re.search(r"(?:bold )?[\d.]+px", match[0])
    return f"font: {size[0]} var(--font)" if size else "font-family: var(--font)"


def _escaped(text: str) -> str:
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(character, entity)
    return text
