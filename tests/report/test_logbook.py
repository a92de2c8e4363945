"""The journal beside runs, and the logbook made from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from optiscope.cli import main
from optiscope.records import Measurement
from optiscope.records.journal import (
    JournalError,
    append_entry,
    code_texts,
    read_entries,
    write_plain_run,
)
from optiscope.report.logbook import LogbookError, logbook
from optiscope.report.page.logbook import logbook_page


def finding(rule: str, severity: str = "error") -> dict[str, Any]:
    return {"rule": rule, "severity": severity, "sentence": f"{rule}."}


def plain(folder: Path, name: str, rate: float, seed: int, last: float, *rules: str) -> Path:
    rows = [Measurement(step, step / 10, "valid", "accuracy", 0.1 + (last - 0.1) * step / 10)
            for step in range(11)]  # fmt: skip
    return write_plain_run(
        folder / name, {"rate": rate, "net": {"width": 8}, "seed": seed}, rows, map(finding, rules)
    )


def test_entries_stand_beside_the_run_before(tmp_path: Path) -> None:
    code = tmp_path / "train.py"
    runs = tmp_path / "runs"
    code.write_text("lr = 0.001\ntoken = 'abc123'\n")
    append_entry(plain(runs, "a", 0.001, 0, 0.2, "rate_too_small"), "as found", code=[code])
    code.write_text("lr = 0.1\ntoken = 'abc123'\n")
    append_entry(plain(runs, "b", 0.1, 0, 0.9, "same_order"), "larger rate", who="me", code=[code])

    first, second = logbook(runs).entries

    assert first.new == ("rate_too_small",)
    assert second.settings == (("rate", 0.001, 0.1),)
    assert (second.gone, second.new, second.left) == (("rate_too_small",), ("same_order",), ())
    assert second.effect is not None
    assert "one seed: no claim" in second.effect.words
    assert "-lr = 0.001" in second.code
    assert "+lr = 0.1" in second.code
    text = logbook_page(logbook(runs)) + logbook(runs).markdown()
    assert "abc123" not in text
    assert text.count("<polyline") == 3
    assert "http" not in text.replace("http-equiv", "")


def test_paired_seeds_give_an_interval(tmp_path: Path) -> None:
    for seed in range(7):
        plain(tmp_path, f"a{seed}", 0.01, seed, 0.5 + 0.01 * seed)
        plain(tmp_path, f"b{seed}", 0.1, seed, 0.8 + 0.012 * seed)
    append_entry(tmp_path / "a0", "baseline", code=[])
    append_entry(tmp_path / "b0", "larger rate", code=[])
    effect = logbook(tmp_path).entries[1].effect
    assert effect is not None
    assert effect.pairs == 7
    assert effect.interval is not None
    assert effect.interval[0] < 0.3 + 0.002 * 3 < effect.interval[1]


def test_our_records_are_logged_and_never_changed(tmp_path: Path) -> None:
    import optiscope

    for rate in (0.001, 0.1):
        optiscope.run("digits_logreg", "sgd", hyperparameters={"lr": rate}, epochs=1, out=tmp_path)
    folders = sorted(p for p in tmp_path.iterdir() if p.is_dir())
    before = {p: p.read_bytes() for f in folders for p in f.iterdir()}
    for folder in folders:
        append_entry(folder, f"run {folder.name}", code=[])
    assert before == {p: p.read_bytes() for f in folders for p in f.iterdir()}
    entries = logbook(tmp_path).entries
    assert [name for name, _, _ in entries[1].settings] == ["hyperparameters.lr"]
    assert entries[1].main_curve == ("valid", "accuracy")


def test_a_changed_line_is_noticed(tmp_path: Path) -> None:
    run = plain(tmp_path, "a", 0.1, 0, 0.5)
    append_entry(run, "one", code=[])
    append_entry(run, "two", code=[])
    journal = tmp_path / "logbook.jsonl"
    text = journal.read_text()
    journal.write_text(text.replace('"one"', '"another"'))
    with pytest.raises(JournalError, match="line 1, was changed"):
        read_entries(tmp_path)
    journal.write_text("\n".join(text.splitlines()[1:]) + "\n")
    with pytest.raises(JournalError, match="changed"):
        read_entries(tmp_path)


def test_secrets_and_the_home_folder_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "s.py"
    home = Path.home()
    file.write_text(f"API_KEY = 'x1y2'\npassword: hunter\ndata = '{home}/data/mine'\nlr = 0.1\n")
    (text,) = code_texts([file]).values()
    assert "x1y2" not in text
    assert "hunter" not in text
    assert f"{home}/data" not in text or len(str(home)) <= 3
    assert "lr = 0.1" in text


def test_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    plain(tmp_path / "runs", "a", 0.1, 0, 0.5, "no_step")
    (tmp_path / "train.py").write_text("lr = 0.1\n")

    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        return int(left.value.code or 0)

    assert run("logbook", "runs") == 2
    assert "has no logbook" in capsys.readouterr().err
    assert run("log", "why <not>", "runs/a", "--by", "me", "--code", "train.py") == 0
    assert run("log", " ", "runs/a") == 4
    assert run("log", "why", "runs/b") == 4
    capsys.readouterr()
    assert run("logbook", "runs", "--page", "book.html", "--markdown", "book.md", "--json") == 0
    assert json.loads(capsys.readouterr().out)["entries"][0]["new"] == ["no_step"]
    assert "why &lt;not&gt;" in (tmp_path / "book.html").read_text()
    assert "no_step" in (tmp_path / "book.md").read_text()


def test_what_is_no_run_is_said_in_one_line(tmp_path: Path) -> None:
    run = plain(tmp_path, "a", 0.1, 0, 0.5)
    append_entry(run, "one", code=[])
    with pytest.raises(JournalError, match="not overwritten"):
        write_plain_run(run, {}, [])
    (run / "settings.json").write_text("[")
    with pytest.raises(LogbookError, match="cannot be read"):
        logbook(tmp_path)
