"""A watch on the terminal reads as words on every console, also one that knows no markup."""

from __future__ import annotations

import io

from rich.console import Console

from optiscope.report.cockpit.terminal import panel


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
