"""A watch on the terminal reads as words on every console, also one that knows no markup."""

from __future__ import annotations

import io

from rich.console import Console

from optiscope.report.cockpit.terminal import LivePanel, panel, sparkline


def _finding(rule: str, **changes: object) -> dict[str, object]:
    return {
        "step": 3,
        "rule": rule,
        "severity": "error",
        "sentence": "An entry [0] is wrong [red].",
        "remedy": "Use [bold] letters.",
        "explained_by": None,
    } | changes


def _printed(*, markup: bool) -> str:
    data = {
        "title": "watch",
        "state": "finished",
        "step": 3,
        "series": {"scalars": {"loss": [[0, 1.5]]}},
        "findings": [
            _finding("first_rule"),
            _finding("second_rule_with_a_long_name", explained_by="first_rule"),
        ],
    }
    out = io.StringIO()
    Console(file=out, width=120, markup=markup).print(panel(data))
    return out.getvalue()


def test_a_finding_is_printed_as_it_stands_with_and_without_markup() -> None:
    text = _printed(markup=False)
    assert text == _printed(markup=True)
    assert "An entry [0] is wrong [red]." in text
    assert "Use [bold] letters." in text
    assert "(explained by first_rule)" in text
    assert "second_rule_with_a_long_name" in text
    assert "[/" not in text


def test_a_sparkline_has_the_shape_of_its_values() -> None:
    falling = sparkline([(s, float(200 - s)) for s in range(100)], 8)
    assert falling == "█▇▆▅▄▃▂▁"
    assert sparkline([(s, 1e-3) for s in range(50)], 4) == "▁▁▁▁"
    assert sparkline([(0, 1.0), (90, 2.0), (99, None)], 4) == "▁▁▁█"
    assert sparkline([(0, 1.0), (1, float("nan"))]) == ""
    assert sparkline([(0, 1.0), (1, 10.0), (2, 100.0)], 3) == "▁▅█"  # logarithmic


def test_the_live_panel_is_drawn_on_a_terminal_only() -> None:
    data = {
        "title": "watch", "state": "training", "step": 3, "seconds": 2.0, "findings": [],
        "series": {"scalars": {"loss": [[0, 1.5], [1, 1.25]]}},
    }  # fmt: skip
    texts = []
    for is_terminal in (True, False):
        out = io.StringIO()
        live = LivePanel(Console(file=out, width=100, force_terminal=is_terminal))
        live.update(lambda: data)
        live.update(lambda: data)  # too early: nothing is drawn
        live.stop(data | {"state": "finished"})
        live.stop(data)
        texts.append(out.getvalue())
    assert texts[0].count("training") == 1
    assert "finished" in texts[0]
    assert "1.25" in texts[0]
    assert texts[1] == ""
