import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic import ENVIRONMENT, invent, make_study, methods

from optiscope.records import Run, Status, StudyFolder
from optiscope.stats.study_table import DAMAGED, MISSING, read_study


def test_every_entry_is_a_row_with_what_its_record_says(study: StudyFolder) -> None:
    tables = read_study(study)
    ledger = study.ledger()
    assert list(tables.runs["trial_hash"]) == [e.trial_hash for e in ledger]
    for row, entry in zip(tables.runs.to_dict("records"), ledger, strict=True):
        assert (row["algorithm"], row["problem"], row["seed"]) == (
            entry.algorithm,
            entry.problem,
            entry.seed,
        )
        run = study.store.read(entry.trial_hash)
        if run is None:
            assert row["status"] == MISSING
            continue
        assert isinstance(run, Run)
        assert row["status"] == run.status
        assert row["complete"] == run.status.complete
        assert row["steps"] == run.steps
        assert row["training_wall"] == run.training_seconds.wall
        assert row["final_test_loss"] == run.final["test_loss"]
        assert row["best_valid_accuracy"] == run.best["valid_accuracy"]


def test_one_run_is_missing_and_two_failed(study: StudyFolder) -> None:
    reporting = read_study(study, curves=False).runs.query("role == 'reporting'")
    assert reporting["status"].value_counts().to_dict() == {
        "finished": 37,
        "diverged": 1,
        "crashed": 1,
        MISSING: 1,
    }


def test_curves_are_those_of_the_reporting_runs(study: StudyFolder) -> None:
    tables = read_study(study)
    entry = next(e for e in study.ledger() if e.role == "reporting" and e.seed == 102)
    run = study.store.read(entry.trial_hash)
    assert isinstance(run, Run)
    rows = tables.curve_groups[entry.problem, entry.algorithm, "valid", "loss"]
    rows = rows[rows["seed"] == 102]
    epochs, values = run.curve("valid", "loss")
    assert rows["epoch"].tolist() == epochs
    assert rows["value"].tolist() == values
    assert read_study(study, curves=False).curves.empty


def test_a_damaged_record_is_a_row_that_says_so(tmp_path: Path) -> None:
    folder = make_study(tmp_path, algorithms=methods(2), budget=2)
    entry = folder.ledger()[-1]
    path = folder.store.path(entry.trial_hash) / "run.json"
    path.write_text(path.read_text().replace('"finished"', '"diverged"'))
    tables = read_study(folder)
    row = tables.runs.iloc[-1]
    assert row["status"] == DAMAGED
    assert "changed after it was written" in row["reason"]
    assert not row["complete"]
    assert [record.path.name for record in tables.damaged] == [entry.trial_hash]


def test_two_algorithms_may_share_a_trial(tmp_path: Path) -> None:
    folder = make_study(tmp_path, algorithms=methods(1), budget=2)
    declaration = folder.declaration()
    declaration["algorithms"].append(declaration["algorithms"][0] | {"label": "twin"})
    folder.write_declaration(declaration)
    ledger = folder.ledger()
    folder.write_ledger([*ledger, *(replace(e, algorithm="twin") for e in ledger)])
    tables = read_study(folder)
    own = tables.curve_groups["digits_mlp", "SGD", "test", "loss"]
    twin = tables.curve_groups["digits_mlp", "twin", "test", "loss"]
    np.testing.assert_array_equal(own["value"], twin["value"])
    assert tables.environments == ((ENVIRONMENT, len({e.trial_hash for e in ledger})),)


def test_other_labels_are_carried_everywhere(study: StudyFolder) -> None:
    tables = read_study(study, rename={"SGD": "plain SGD"})
    assert tables.labels == ["plain SGD", "momentum", "Nesterov", "Adam"]
    assert tables.declaration["reference"] == "plain SGD"
    assert "SGD" not in set(tables.runs["algorithm"])
    assert tables.evidence.labels == tables.labels
    assert ("digits_mlp", "plain SGD") in tables.evidence.reporting


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ({"sgd": "x"}, "no algorithm is labelled 'sgd': choose from SGD, momentum"),
        ({"SGD": "Adam"}, "two algorithms would share a label"),
    ],
)
def test_other_labels_must_make_sense(
    study: StudyFolder, rename: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_study(study, rename=rename)


def test_a_study_of_which_nothing_ran(tmp_path: Path) -> None:
    folder = make_study(tmp_path, algorithms=methods(2), budget=1, seeds=(5,))
    folder.write_ledger([])
    tables = read_study(folder)
    assert len(tables.runs) == 0
    assert tables.of("digits_mlp", "SGD", "reporting").empty
    assert tables.curve_groups == {}


def test_progress_counts_entries(study: StudyFolder) -> None:
    seen: list[tuple[int, int]] = []
    read_study(study, curves=False, progress=lambda done, total: seen.append((done, total)))
    total = len(study.ledger())
    assert seen == [(k + 1, total) for k in range(total)]


def test_the_synthetic_runs_are_what_they_claim() -> None:
    run = invent(methods(1)[0], "p", {"lr": 0.3}, 1, 9, np.random.default_rng(0), Status.DIVERGED)
    assert run.status is Status.DIVERGED
    assert run.curve("train", "loss")[0][-1] == 3
    assert math.isclose(run.final["train_loss"], 1e6, rel_tol=1e-3)
