import re
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from optiscope.report.figure_style import figure_style
from optiscope.report.svg import share_styles, svg_text


@pytest.fixture(scope="module")
def drawing() -> str:
    with figure_style():
        figure = Figure(figsize=(4, 3))
        axes = figure.subplots()
        (line,) = axes.plot(np.arange(200) / 199, np.linspace(0, 1, 200) ** 2, marker="o")
        line.set_gid("alg7-mean")
        axes.set_title("A < B & C")
        return svg_text(figure, "f1", 'what it "shows" <b>')


def test_it_is_valid_and_scales_with_its_box(drawing: str) -> None:
    root = ElementTree.fromstring(drawing)
    assert root.attrib["viewBox"] == "0 0 288 216"
    assert not {"width", "height"} & set(root.attrib)
    assert root.attrib["aria-label"] == 'what it "shows" <b>'
    assert "A < B & C" in "".join(root.itertext())


def test_groups_of_an_algorithm_are_marked(drawing: str) -> None:
    root = ElementTree.fromstring(drawing)
    (group,) = [e for e in root.iter() if e.get("data-alg") == "7"]
    assert group.findall(".//path")


def test_every_id_is_used_and_carries_the_name(drawing: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', drawing)
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', drawing))
    assert set(ids) == {one or other for one, other in used}
    assert all(name.startswith("f1-") for name in ids)


def test_rounding_moves_no_point_by_more_than_a_twentieth_of_a_point() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((150, 2))
    with figure_style(), mpl.rc_context({"path.simplify": False}):
        figure = Figure(figsize=(4, 3))
        axes = figure.add_axes((0, 0, 1, 1))
        (line,) = axes.plot(*values.T)
        line.set_gid("alg0-x")
        axes.set(xlim=(0, 1), ylim=(0, 1))
        text = svg_text(figure, "f", "d")
    root = ElementTree.fromstring(text)
    (group,) = [e for e in root.iter() if e.get("data-alg") == "0"]
    path = group.find("path")
    assert path is not None
    drawn = np.array(re.findall(r"-?[\d.]+", path.attrib["d"]), dtype=float).reshape(-1, 2)
    expected = values * [288, -216] + [0, 216]
    np.testing.assert_allclose(drawn, expected, atol=0.0501)


def test_shared_styles_say_the_same(drawing: str) -> None:
    (shared,), css = share_styles([drawing])
    assert len(shared) + len(css) < len(drawing)
    rules = dict(re.findall(r"\.(s\d+)\{([^}]*)\}", css))
    restored = re.sub(r' class="(s\d+)"', lambda m: f' style="{rules[m[1]]}"', shared)
    assert restored == drawing
