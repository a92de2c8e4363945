"""Records as data frames and tables for papers."""

from __future__ import annotations

import math
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest

from optiscope.cli import main
from optiscope.records import Run, StoreError, StudyFolder
from optiscope.stats.export import latex_table, markdown_table
from stats.small_study import ADAM, SGD, TWO, study


def test_a_study_as_a_frame(tmp_path: Path) -> None:
    folder = study(tmp_path, TWO)
    frame = folder.frame()
    assert len(frame) == len(folder.ledger()) == 18
    reporting = frame[(frame.role == "reporting") & (frame.algorithm == "SGD")]
    assert reporting.final_test_accuracy.tolist() == list(SGD)
    assert reporting.seed.tolist() == [100, 101, 102, 103, 104]
    assert set(reporting.hp_lr) == {1e-3}
    assert set(frame.status) == {"finished"}
    names = list(frame.columns)
    assert names.index("hp_lr") < names.index("final_test_loss") < names.index("best_test_loss")


def test_missing_and_damaged_records_are_rows(tmp_path: Path) -> None:
    import shutil

    folder = study(tmp_path, TWO)
    first, second = folder.ledger()[:2]
    shutil.rmtree(folder.store.path(first.trial_hash))
    (folder.store.path(second.trial_hash) / "run.json").write_text("{}")
    frame = folder.frame()
    assert frame.status[:3].tolist() == ["missing", "damaged", "finished"]
    assert math.isnan(frame.final_test_loss[0])


def test_a_run_as_a_frame(tmp_path: Path) -> None:
    folder = study(tmp_path, TWO)
    entry = next(e for e in folder.ledger() if e.role == "reporting")
    run = folder.store.read(entry.trial_hash)
    assert isinstance(run, Run)
    frame = run.frame()
    assert frame.epoch.tolist() == [0.0, 1.0]
    assert frame.test_accuracy.tolist() == [0.1, ADAM[0]]
    bare = folder.store.read(entry.trial_hash, metrics=False)
    assert isinstance(bare, Run)
    assert list(bare.frame().columns) == ["epoch", "step"]
    assert repr(run).startswith("<Run adam on fmnist_2c2d, seed 100, finished: ")
    assert f"test_accuracy={ADAM[0]:.4g}" in repr(run)
    assert "\n" not in repr(run)
    assert "<table>" in run._repr_html_()


def test_reprs_of_folders(tmp_path: Path) -> None:
    folder = study(tmp_path / "<b>", TWO)
    assert "small, 18 of 18 planned trials recorded" in repr(folder)
    assert "<b>" not in folder._repr_html_()
    assert "<table" in folder._repr_html_()
    nothing = StudyFolder(tmp_path / "none")
    assert "holds no study" in repr(nothing)
    assert "holds no study" in nothing._repr_html_()
    with pytest.raises(StoreError):
        nothing.frame()


def test_tables_for_papers(tmp_path: Path) -> None:
    folder = study(tmp_path, {"A_1 | 50 %": ADAM, "SGD": (*SGD[:4], math.nan)})
    markdown = markdown_table(folder).splitlines()
    assert markdown[0] == r"| algorithm | fmnist\_2c2d (test accuracy, %) |"
    assert markdown[2] == r"| A\_1 \| 50 % | **91.32 ± 0.32** |"
    assert markdown[3] == "| SGD | 89.95 ± 0.50 (1 diverged) |"
    latex = latex_table(folder)
    assert r"A\_1 | 50 \% & \textbf{91.32 $\pm$ 0.32} \\" in latex
    assert latex.count(r"\\") == 3
    assert latex.startswith(r"\begin{tabular}{lr}")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = study(tmp_path / "study", TWO)

    def export(*words: str) -> tuple[object, str]:
        with pytest.raises(SystemExit) as left:
            main(["export", str(folder.path), *words])
        return left.value.code, capsys.readouterr().out

    status, printed = export()
    assert status == 0
    assert len(pd.read_csv(StringIO(printed))) == 18
    file = tmp_path / "out.parquet"
    assert export("--to", "parquet", "--out", str(file))[0] == 0
    pd.testing.assert_frame_equal(pd.read_parquet(file), folder.frame())
    assert export("--to", "parquet")[0] == 2
    assert export("--to", "latex", "--out", str(tmp_path / "no" / "x.tex"))[0] == 4
