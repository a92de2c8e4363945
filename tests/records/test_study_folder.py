"""The declaration and the ledger of a study on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from optiscope.records import Entry, StoreError, StudyFolder

DECLARATION = {
    "name": "small",
    "question": "Which?",
    "problems": ["digits_mlp"],
    "algorithms": [{"label": "SGD"}],
    "tuning": {"seeds": [0], "select": "valid_loss"},
    "seeds": [1],
    "epochs": {"digits_mlp": 2},
    "metric": {"digits_mlp": "accuracy"},
}
ENTRIES = [
    Entry("a" * 20, "SGD", "digits_mlp", "tuning", 0, {"lr": 0.1}, 0),
    Entry("b" * 20, "SGD", "digits_mlp", "reporting", -1, {"lr": 0.1}, 1),
]


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    folder = StudyFolder(tmp_path / "study")
    folder.write_declaration(DECLARATION)
    folder.write_ledger(ENTRIES)
    return folder


def test_what_was_written_is_read(folder: StudyFolder) -> None:
    assert folder.declaration() == DECLARATION
    assert folder.ledger() == ENTRIES
    assert sorted(p.name for p in folder.path.iterdir()) == ["ledger.json", "study.json"]


def test_a_study_without_trials_has_an_empty_ledger(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    folder.write_declaration(DECLARATION)
    assert folder.ledger() == []


def test_a_folder_without_a_study_says_which_folder_to_give(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"holds no study.*optiscope bench"):
        StudyFolder(tmp_path / "nothing").declaration()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("study.json", '{"name": "sma'),
        ("study.json", "[]"),
        ("study.json", "null"),
        ("study.json", '{"name": "small"}'),
        ("ledger.json", "[{"),
        ("ledger.json", '[{"colour": 1}]'),
        ("ledger.json", "[1]"),
        ("ledger.json", "7"),
    ],
)
def test_damage_is_one_line_that_says_what_to_do(folder: StudyFolder, name: str, text: str) -> None:
    (folder.path / name).write_text(text)
    with pytest.raises(StoreError, match=r"is damaged.*optiscope bench") as caught:
        folder.declaration() if name == "study.json" else folder.ledger()
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_one_line(folder: StudyFolder) -> None:
    (folder.path / "study.json").unlink()
    (folder.path / "study.json").mkdir()
    with pytest.raises(StoreError, match="cannot use") as caught:
        folder.declaration()
    assert "\n" not in str(caught.value)


def test_a_failed_write_keeps_the_old_file(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("optiscope.atomic_file.sync", full)
        with pytest.raises(StoreError, match="disk is full"):
            folder.write_ledger([])
    assert folder.ledger() == ENTRIES
    assert json.loads((folder.path / "ledger.json").read_text())
    assert not list(folder.path.glob(".*"))
