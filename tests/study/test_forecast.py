"""What is left of a study and which trials are slow, from records alone."""

from __future__ import annotations

import dataclasses
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from small_studies import SMALL, TRIALS, declared

from optiscope.records import Run, Seconds, Status, StudyFolder, Trial
from optiscope.study.claims import Claims
from optiscope.study.forecast import Forecast, Typical, forecast, in_words
from optiscope.study.progress import study_in, wait_until_recorded
from optiscope.study.worker import work

ONE, TWO, THREE = ("p", "a"), ("p", "b"), ("q", "a")


def took(seconds: float, **fields: Any) -> Run:
    trial = Trial("p", 1, "sgd", {}, 1, 1, 1)
    run = Run.unstarted(trial, Status.FINISHED, "reached its horizon")
    return dataclasses.replace(run, seconds={"data": Seconds(seconds, seconds)}, **fields)


def test_seconds_are_medians_of_runs_that_tell_of_them() -> None:
    runs = [took(10), took(20), took(90), took(5, environment={"sessions": [{}, {}]})]
    runs.append(took(1, status=Status.CRASHED))
    typical = Typical([(ONE, run) for run in runs])
    assert typical.seconds(ONE) == 20
    assert typical.seconds(TWO) == 20  # as its problem
    assert typical.seconds(THREE) is None
    assert typical.straggles(ONE, 61)
    assert not typical.straggles(ONE, 59)
    assert not typical.straggles(TWO, 1e9)  # nothing of its own to straggle behind


def test_what_is_left_counts_what_running_trials_have_had() -> None:
    typical = Typical([(ONE, took(100))])
    left = forecast({ONE: 3, THREE: 2}, [(ONE, 40.0), (ONE, 400.0)], typical)
    assert left == Forecast(5, 160.0, 2, 2)
    assert str(left) == (
        "5 trials left, about 3 min of training, 80 s with 2 workers (of 2 nothing is known yet)"
    )
    assert str(forecast({ONE: 0}, [], typical)) == "all is recorded"


@pytest.mark.parametrize(("seconds", "text"), [(4, "4 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations_read_well(seconds: float, text: str) -> None:
    assert in_words(seconds) == text


def test_who_waits_sees_every_record_and_status_tells(tmp_path: Path) -> None:
    import json

    from click.testing import CliRunner

    from optiscope.cli.root import root

    kept = StudyFolder(tmp_path / "out")
    kept.write_declaration(declared(tmp_path, SMALL).to_dict())
    study = study_in(kept)
    work(study, kept, max_trials=TRIALS // 2)
    shown = json.loads(CliRunner().invoke(root, ["status", str(kept.path), "--json"]).output)
    assert shown["left"]["trials"] == TRIALS - TRIALS // 2
    assert shown["left"]["seconds"] > 0
    claims = Claims(kept.path)
    name = next(e.trial_hash for e in kept.ledger() if kept.store.read(e.trial_hash) is None)
    claim = claims.take(name)
    assert claim is not None
    text = CliRunner().invoke(root, ["status", str(kept.path)]).output
    assert f"{TRIALS - TRIALS // 2} trials left, about " in text
    assert re.search(r", for \d+ s of about ", text)
    claims.release(claim)

    looks: list[tuple[int, int]] = []
    waiting = threading.Thread(
        target=wait_until_recorded,
        args=(study, kept),
        kwargs={"on_look": lambda done, total: looks.append((done, total)), "every": 0.1},
        daemon=True,
    )
    waiting.start()
    end = time.monotonic() + 60
    while not looks and time.monotonic() < end:
        time.sleep(0.01)
    work(study, kept)
    waiting.join(60)
    assert not waiting.is_alive()
    assert looks[0] == (TRIALS // 2, TRIALS)
    assert looks[-1] == (TRIALS, TRIALS)
    watched = CliRunner().invoke(root, ["status", str(kept.path), "--watch"]).output
    assert "all is recorded" in watched
