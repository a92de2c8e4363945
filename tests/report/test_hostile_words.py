"""Labels, questions and names are words on the page, never markup, styles or scripts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure

from optiscope.report import write_report
from optiscope.report.svg import share_styles, svg_text
from stats.small_study import algorithm, study

HOSTILE = (
    'x style="}body{display:none"',
    'x" style="}body{display:none',
    "x</style><style>body{display:none}</style>",
    "x</title></svg><script>alert(1)</script>",
    'x" onload="alert(1)',
    'x id="alg7-line" transform="rotate(-0 1)" d="M 1.23 4.56"',
    'x url(#evil) xlink:href="#evil" --> <!-- ]]>',
    "x&lt;script&gt;alert(1)&lt;/script&gt;",
    "x\\'\"); } @import url(//evil.example/x.css); {",
    "x{{ 7*7 }}{% raw %}${alert(1)}",
    "x\ue0000\ue000",
)


TAGS = {"svg", "title", "g", "path", "text", "defs", "use", "clippath", "rect"}


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.style = ""
        self.text = ""
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.text += dict(attrs).get("aria-label") or ""
        self._in_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._in_style = self._in_style and tag != "style"

    def handle_data(self, data: str) -> None:
        self.text += data
        self.style += data if self._in_style else ""


def parsed(html: str) -> _Page:
    page = _Page()
    page.feed(html)
    return page


@pytest.mark.parametrize("words", HOSTILE)
@pytest.mark.filterwarnings("ignore:Glyph")
def test_words_in_a_drawing_stay_words(words: str) -> None:
    words = words.replace("$", "")  # between two of them Matplotlib sets mathematics
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure = Figure()
        axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
        for place in range(4):
            axes.text(0.1, 0.2 * place, words, gid=f"alg{place}-text")
        drawing = svg_text(figure, "f1", words)
    drawings, css = share_styles([drawing] * 3)
    assert "display:none" not in css
    assert "@import" not in css
    page = parsed(drawings[0])
    assert set(page.tags) <= TAGS
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert len([name for name, _ in page.attributes if name == "data-alg"]) == 4
    assert page.text.count(words) == 6  # four labels, the title and its label


@pytest.mark.parametrize(
    "numbers", [[0], pytest.param(range(3, len(HOSTILE), 3), marks=pytest.mark.slow)]
)
def test_a_study_of_hostile_words_is_a_page_like_any_other(
    tmp_path: Path, numbers: Sequence[int]
) -> None:
    plain = _page(tmp_path / "plain", "A", "B", "Which?")
    rules = _rules(plain)
    for number in numbers:
        words = (HOSTILE + HOSTILE)[number : number + 3]
        page = _page(tmp_path / str(number), *words)
        assert set(page.tags) == set(plain.tags), words
        assert {n for n, _ in page.attributes} == {n for n, _ in plain.attributes}, words
        assert _rules(page) <= rules, words
        assert not [v for n, v in page.attributes if n in ("href", "src") and "evil" in v]
        assert not [v for n, v in page.attributes if n == "style" and "body" in v]


def _rules(page: _Page) -> set[str]:
    """What the style sheet has rules for, but for the numbered styles that drawings share."""
    selectors = {rule.split("{")[0] for rule in page.style.split("}")}
    return {selector for selector in selectors if not re.fullmatch(r"\.s\d+", selector)}


def _page(path: Path, first: str, second: str, question: str) -> _Page:
    folder = study(
        path,
        {first: (0.9, 0.8, 0.85), second: (0.7, 0.6, 0.65)},
        algorithms=[algorithm(first, optimizer="sgd"), algorithm(second, optimizer="adam")],
        seeds=(1, 2, 3),
        question=question,
    )
    return parsed(write_report(folder).read_text(encoding="utf-8"))
