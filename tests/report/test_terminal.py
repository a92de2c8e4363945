import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from synthetic import make_study, methods

from optiscope.records import StoreError, StudyFolder
from optiscope.report import summary_json, summary_table
from optiscope.report.number_text import point_text


def _printed(folder: StudyFolder, width: int) -> str:
    output = io.StringIO()
    Console(file=output, width=width).print(summary_table(folder))
    return output.getvalue()


def test_the_table_has_a_row_per_algorithm_and_says_who_won(study: StudyFolder) -> None:
    text = _printed(study, 120)
    for label in ("SGD", "momentum", "Nesterov", "Adam"):
        assert text.count(f"  {label} ") >= 2
    assert "digits_mlp, test accuracy" in text
    assert "1 diverged" in text
    assert "1 crashed, 1 missing" in text
    assert "digits_mlp: " in text.split("Final values")[1]


def test_a_choice_at_the_edge_is_told_in_the_terminal(study: StudyFolder, tmp_path: Path) -> None:
    assert not any(row["edges"] for row in summary_json(study)["tuning"])
    assert "at the edge" not in _printed(study, 120)
    narrow = [replace(method, low=method.best_rate, high=10.0) for method in methods(2)]
    text = " ".join(_printed(make_study(tmp_path, algorithms=narrow), 120).split())
    assert "Chosen at the edge of what was tried, so that a better value may lie beyond: " in text
    assert "; and 1 more, see the page." in text


def test_the_table_fits_a_terminal_of_eighty_columns(study: StudyFolder) -> None:
    assert max(len(line.rstrip()) for line in _printed(study, 80).splitlines()) <= 80


def test_eighty_columns_hold_every_word(crowded: StudyFolder) -> None:
    lines = _printed(crowded, 80).split("Final values")[0].splitlines()
    text = " ".join(line.strip() for line in lines)
    for result in summary_json(crowded)["results"]:
        assert result["algorithm"] in text
        for name, value in result["hyperparameters"].items():
            assert name in text
            assert point_text({name: value}).split()[1] in text
    assert "3 diverged" in text or ("3" in text and "diverged" in text)
    assert max(map(len, lines)) <= 80


def test_json_holds_results_claims_and_tuning(study: StudyFolder) -> None:
    content = summary_json(study)
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert len(content["results"]) == 8
    first = content["results"][0]
    assert first["algorithm"] == "SGD"
    assert first["mean"] == pytest.approx(np.mean(list(first["values"].values())))
    assert first["relative_to_reference"] == 1.0
    assert len(content["claims"]) == 2 * 6
    assert {"kind", "problem", "a", "b"} <= set(content["claims"][0])
    assert len(content["tuning"]) == 8


def test_json_of_one_seed_has_null_where_nothing_is_known(alone: StudyFolder) -> None:
    (result,) = summary_json(alone)["results"]
    assert result["standard_deviation"] is None
    assert result["interval"] == [None, None]


def test_damaged_records_are_told(tmp_path: Path) -> None:
    folder = make_study(tmp_path, algorithms=methods(2), budget=1, seeds=(100, 101))
    path = folder.store.path(folder.ledger()[-1].trial_hash) / "metrics.parquet"
    path.write_bytes(path.read_bytes()[:-3])
    assert "1 damaged records" in _printed(folder, 100)
    (told,) = summary_json(folder)["damaged"]
    assert "metrics.parquet was changed" in told


def test_a_folder_without_a_study_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no study"):
        summary_table(StudyFolder(tmp_path))
