from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from optiscope.report.appearance import FIXED, PALETTE, fixed_colors, looks

# Machado, Oliveira & Fernandes 2009, severity 1.0, on linear RGB.
BLINDNESS = {
    "protanopia": """ 0.152286 1.052583 -0.204868
                      0.114503 0.786281  0.099216
                     -0.003882 -0.048116 1.051998""",
    "deuteranopia": """ 0.367322 0.860646 -0.227968
                        0.280085 0.672501  0.047413
                       -0.011820 0.042940  0.968881""",
    "tritanopia": """ 1.255528 -0.076749 -0.178779
                     -0.078411  0.930809  0.147602
                      0.004733  0.691367  0.303900""",
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = TO_XYZ @ np.ones(3)


def _matrix(kind: str) -> np.ndarray:
    return np.array(BLINDNESS[kind].split(), dtype=float).reshape(3, 3)


def _linear(color: str) -> np.ndarray:
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def _lab(linear: np.ndarray) -> np.ndarray:
    ratio = TO_XYZ @ np.clip(linear, 0, 1) / WHITE
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", BLINDNESS)
def test_every_two_colors_stay_apart_for_the_color_blind(kind: str) -> None:
    seen = [_lab(_matrix(kind) @ _linear(c)) for c in PALETTE]
    closest = min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2))
    assert closest > 15  # a difference of 2.3 in CIELAB is just noticeable


def test_red_and_brown_would_be_told_to_be_too_close() -> None:
    kind = _matrix("deuteranopia")
    red, brown = (_lab(kind @ _linear(c)) for c in ("#d62728", "#8c6d31"))
    assert np.linalg.norm(red - brown) < 20


def test_lines_have_contrast_on_a_white_and_on_a_dark_page() -> None:
    dark = float(TO_XYZ[1] @ _linear("#16181b"))
    for color in PALETTE:
        luminance = float(TO_XYZ[1] @ _linear(color))
        assert 1.05 / (luminance + 0.05) > 2.0, color
        assert (luminance + 0.05) / (dark + 0.05) > 2.0, color


def test_a_shipped_optimizer_has_one_color_everywhere() -> None:
    assert set(FIXED.values()) <= set(PALETTE)
    assert len(set(FIXED.values())) == len(FIXED)
    colors = fixed_colors({"Lark": "lark", "Adam": "adam", "Adam cosine": "adam", "Mine": "my:O"})
    assert colors == {"Lark": FIXED["lark"], "Adam": FIXED["adam"]}
    found = looks(["Mine", "Adam cosine", "Adam", "Lark"], colors)
    assert found["Lark"].color == FIXED["lark"]
    assert len({look.color for look in found.values()}) == 4


def test_twelve_algorithms_look_different_without_color_too() -> None:
    found = list(looks([f"a{k}" for k in range(12)]).values())
    assert len({look.marker for look in found}) == 12
    assert len({(look.color, look.dashes) for look in found}) == 12
    assert [look.number for look in found] == list(range(12))


def test_a_color_of_the_users_is_kept_and_given_to_nobody_else() -> None:
    found = looks(["a", "b", "c"], {"b": "#0072B2", "elsewhere": "#123456"})
    assert found["b"].color == "#0072b2"
    assert [found[x].color for x in "ac"] == ["#d55e00", "#009e73"]
