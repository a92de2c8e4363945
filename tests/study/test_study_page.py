"""docs/study.md names every word of a study file, and its examples run."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from small_studies import Inline

import optiscope
from optiscope.study import declaration, load_study, run_study
from optiscope.train.stopping import pruner_names

PAGE = (Path(__file__).parents[2] / "docs" / "study.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
TOML = next(code for kind, code in BLOCKS if kind == "toml")
MODULE = next(code for kind, code in BLOCKS if kind == "python")


def test_every_pruner_is_named() -> None:
    assert all(f"`{name}`" in PAGE or f'"{name}"' in PAGE for name in pruner_names())


@pytest.mark.parametrize(
    ("table", "heading"),
    [
        (declaration.Declaration, "The study"),
        (declaration.TuningTable, "`[tuning]`"),
        (declaration.AlgorithmTable, "`[[algorithms]]`"),
        (declaration.MonitorTable, "`[monitor]`"),
    ],
)
def test_every_word_of_a_study_file_has_its_row(table: type, heading: str) -> None:
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = "".join(row.split("|")[1] for row in section.splitlines() if row.startswith("| `"))
    assert set(re.findall(r"`(\w+)`", rows)) == set(table.model_fields)  # type: ignore[attr-defined]


def test_a_recorded_trial_of_the_example_is_taken_by_its_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    text = TOML.replace("my_module:MyOptimizer", "my_module:annealed")
    for old, new in (("epochs = 10", "epochs = 1"), ("budget = 7", "budget = 1")):
        assert old in text
        text = text.replace(old, new)
    text = re.sub(r"\nseeds = \[101.*\]", "\nseeds = [101]", text)
    (tmp_path / "mine.toml").write_text(text)
    folder = tmp_path / "out"
    run = optiscope.run(
        "digits_mlp",
        "my_module:annealed",
        hyperparameters={"lr": 1e-3**0.5},  # a grid of one point is the middle
        schedule={"name": "linear_decay"},
        seed=101,
        epochs=1,
        threads=1,
        out=folder / "runs",
    )
    kept = run_study(load_study(tmp_path / "mine.toml"), folder, executor=Inline)
    hashes = {entry.trial_hash for entry in kept.ledger()}
    assert run.trial.hash in hashes
    assert set(kept.store.hashes()) == hashes
    del sys.modules["my_module"]
