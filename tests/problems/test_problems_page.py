"""docs/problems.md: its tables are current, and its examples train."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

import optiscope
from optiscope.problems.table import with_tables
from optiscope.records import Status

PAGE = Path(__file__).parents[2] / "docs" / "problems.md"


def test_the_tables_are_current() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page), "run: python -m optiscope.problems.table docs/problems.md"


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="<!-- problems -->"):
        with_tables("no tables here")


EXAMPLES = {
    name: (file, code)
    for name, code, file in (
        (name, code, re.findall(r"# (\w+)\.py", code)[0])
        for name, code in re.findall(
            r"<!-- example (\w+) -->\n```python\n(.*?)```\n<!-- end",
            PAGE.read_text(encoding="utf-8"),
            re.DOTALL,
        )
    )
}


@pytest.mark.parametrize(
    ("example", "name", "start"),
    [
        ("moons", "moons", ("test_loss", 0.6)),
        ("dataset", "houses", ("test_mae", 0.5)),
        ("two_inputs", "films", ("test_loss", 9.0)),
        ("ragged", "reviews", ("test_loss", 0.66)),
    ],
)
def test_an_example_of_the_page_trains(
    example: str, name: str, start: tuple[str, float], tmp_path: Path, monkeypatch: Any
) -> None:
    file, code = EXAMPLES[example]
    written = [
        x for x in code.splitlines() if x.strip() and not x.startswith(("#", "import", "from"))
    ]
    assert len(written) <= 25, "whoever reads the page should see how little it takes"
    (tmp_path / f"{file}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    run = optiscope.run(f"{file}:{name}", "adam", hyperparameters={"lr": 0.05}, epochs=8)
    assert run.status is Status.FINISHED, run.reason
    metric, most = start
    assert run.final[metric] < most
