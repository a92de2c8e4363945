"""docs/problems.md: its tables are current, and its example of one's own problem conforms."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from optiscope.problems.table import with_tables
from optiscope.testing.problems import ProblemConformance

PAGE = Path(__file__).parents[2] / "docs" / "problems.md"


def test_the_tables_are_current() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page), "run: python -m optiscope.problems.table docs/problems.md"


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="<!-- problems -->"):
        with_tables("no tables here")


class TestOwnProblem(ProblemConformance):
    """The page's example, written to a file of its own and found by its import path."""

    problem = "my_problem:moons"

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _written(cls, tmp_path_factory: pytest.TempPathFactory):
        page = PAGE.read_text(encoding="utf-8")
        (code,) = re.findall(r"<!-- example -->\n```python\n(.*?)```\n<!-- end", page, re.DOTALL)
        folder = tmp_path_factory.mktemp("own")
        (folder / "my_problem.py").write_text(code)
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(folder))
            importlib.invalidate_caches()
            cls.load()
            yield

    @classmethod
    def setup_class(cls) -> None:
        """Loading waits until the file is written."""

    @classmethod
    def load(cls) -> None:
        super().setup_class()

    def test_its_name(self) -> None:
        assert self.subject.name == "moons"
