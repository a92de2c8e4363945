"""``[monitor]`` and ``--watch``: findings beside the records, and records as without them."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from small_studies import Inline

from optiscope.cli.root import root
from optiscope.records import Run, RunStore, StudyFolder, compact
from optiscope.records.journal import append_entry
from optiscope.report.study_report import write_report
from optiscope.study import run_study
from optiscope.study.declaration import StudyError
from optiscope.study.resolver import study_from_text

TEXT = """
name = "watched"
question = "which?"
problems = ["digits_mlp"]
seeds = [1]
epochs = 1
{monitor}
[tuning]
budget = 1
seeds = [0]
[[algorithms]]
optimizer = "momentum"
fixed = {{ lr = 0.01, momentum = 0.9999 }}
tune = "none"
"""
MONITOR = """
[monitor]
instruments = "light"
expects = ["inputs_not_normalized"]
"""


def outcome(folder: StudyFolder) -> list[tuple[str, object]]:
    runs = [run for run in folder.store.scan() if isinstance(run, Run)]
    return [(run.trial.hash, run.metrics) for run in runs]


def test_a_monitored_study_has_the_same_records_and_its_findings(tmp_path: Path) -> None:
    plain = run_study(
        study_from_text(TEXT.format(monitor=""), "s.toml"), tmp_path / "plain", executor=Inline
    )
    watched = run_study(
        study_from_text(TEXT.format(monitor=MONITOR), "s.toml"),
        tmp_path / "watched",
        executor=Inline,
    )
    assert outcome(plain) == outcome(watched)
    for entry in watched.ledger():
        findings = watched.store.findings(entry.trial_hash)
        assert findings is not None
        assert "momentum_too_large" in [finding["rule"] for finding in findings]
        assert plain.store.findings(entry.trial_hash) is None
    page = write_report(watched).read_text()
    assert "momentum too large" in page
    assert "runs were watched" in page
    assert "runs were watched" not in write_report(plain).read_text()
    assert compact(watched.store).packed == 0  # segments have no place for findings


def test_unknown_words_are_refused_when_the_study_is_checked() -> None:
    text = TEXT.format(monitor=MONITOR)
    with pytest.raises(StudyError, match="did you mean 'inputs_not_normalized'"):
        study_from_text(text.replace("inputs_not_normalized", "inputs_not_normalised"), "s.toml")
    with pytest.raises(StudyError, match="no instrument"):
        study_from_text(text.replace('"light"', '["norm"]'), "s.toml")


def test_the_logbook_tells_what_became_of_a_finding(tmp_path: Path) -> None:
    out, seen = tmp_path / "runs", set[str]()
    for momentum, why in (("0.9999", "a first try"), ("0.9", "a momentum that forgets")):
        arguments = ["run", "digits_mlp", "momentum", "--set", "lr=0.01", "--epochs", "1"]
        arguments += ["--set", f"momentum={momentum}", "--threads", "1"]
        arguments += ["--watch", "--out", str(out)]
        assert CliRunner().invoke(root, arguments).exit_code == 0
        (new,) = set(RunStore(out).hashes()) - seen - {"logbook.code"}
        seen.add(new)
        append_entry(out / new, why, who="me", code=[])
    said = CliRunner().invoke(root, ["logbook", str(out)]).output
    assert "findings new: momentum_too_large" in said
    assert "findings gone: momentum_too_large" in said
