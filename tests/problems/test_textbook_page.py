"""docs/textbook.md: its example runs, its figures exist, its names and its table are current."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from optiscope.problems import entries
from optiscope.problems.initialisation import RULES

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "textbook.md").read_text(encoding="utf-8")


def test_the_example_runs_and_its_claims_hold() -> None:
    (code,) = re.findall(r"<!-- example -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "docs/textbook.md", "exec"), {})


def test_every_figure_is_there_and_made_by_the_script() -> None:
    spec = importlib.util.spec_from_file_location("make", DOCS / "figures/textbook/make.py")
    assert spec is not None
    assert spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    shown = re.findall(r"\(figures/textbook/(\w+)\.png\)", PAGE)
    assert sorted(shown) == sorted(make.FIGURES)
    for name in shown:
        assert 10_000 < (DOCS / f"figures/textbook/{name}.png").stat().st_size < 200_000


def test_every_textbook_problem_is_on_the_page() -> None:
    named = set(re.findall(r"`(textbook_\w+)`", PAGE))
    assert named == {e.name for e in entries() if e.name.startswith("textbook_")}


def test_the_table_of_rules_is_current() -> None:
    (table,) = re.findall(r"<!-- rules -->\n.*?\|---\|\n(.*?)<!-- end -->", PAGE, re.DOTALL)
    rows = []
    for name, rule in RULES.items():
        settings = ", ".join(
            key if value is None else f"{key} {value:g}" for key, value in rule.settings.items()
        )
        rows.append(f"| `{name}` | {rule.meaning} | {settings or '-'} |\n")
    assert table == "".join(rows)
