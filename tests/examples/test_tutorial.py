"""The tutorial: each mend takes its finding away, and the network learns in the end."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "tutorial"


def tutorial() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tutorial_mend", FOLDER / "mend.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_mend_finds_the_lines_it_replaces() -> None:
    module = tutorial()
    text = (FOLDER / "broken.py").read_text()
    for mend in module.MENDS:
        assert mend.old in text, mend.why
        text = text.replace(mend.old, mend.new)
    assert module.USUAL_WEIGHTS[0] in text
    compile(text, "train.py", "exec")


@pytest.mark.slow
def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    cells = json.loads((FOLDER / "tutorial.ipynb").read_text())["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert "polyline" in str(names["page"])


@pytest.mark.slow
def test_each_finding_is_gone_after_its_mend(tmp_path: Path) -> None:
    module = tutorial()
    book = module.run_all(tmp_path)
    first, *mended = book.entries
    found = {rule for one in book.entries for rule in (*one.new, *one.left)}
    assert len(mended) == 6
    for mend, one in zip(module.MENDS, mended, strict=True):
        assert set(mend.gone) <= found
        assert set(mend.gone) <= set(one.gone), (mend.why, one)
    assert {"gradient_not_cleared", "overlap_exact", "augmentation_breaks_labels"} <= set(first.new)
    last = mended[-1]
    assert not last.new
    assert not last.left
    assert first.run.curves["valid", "accuracy"][1][-1] < 0.4
    assert last.run.curves["valid", "accuracy"][1][-1] > 0.9
    assert (tmp_path / "logbook.html").stat().st_size < 2_000_000
