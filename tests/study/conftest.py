"""A study that nothing disturbs."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_studies import TRIALS, Inline, declared

from optiscope.study import Event, run_study


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    events: list[Event] = []
    run_study(declared(folder), folder / "out", executor=Inline, on_event=events.append)
    assert (events[-1].done, events[-1].total) == (TRIALS, TRIALS)
    assert not any(event.warning for event in events)
    return folder / "out"
