"""A task in a child of its own: what it raises comes back, and how it died is known."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from optiscope.errors import OptiscopeError
from optiscope.executors.apart import (
    ChildDied,
    ChildHung,
    allowing_children,
    children_allowed,
    run_apart,
    signal_child,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")


def test_what_a_child_does_stays_with_it() -> None:
    marks: list[int] = []
    run_apart(lambda begin: marks.append(os.getpid()))
    assert marks == []


def test_children_are_for_one_thread_and_for_as_long_as_it_only_forks() -> None:
    seen: list[bool] = []
    with allowing_children():
        assert children_allowed()
        other = threading.Thread(target=lambda: seen.append(children_allowed()))
        other.start()
        other.join(10)
    assert seen == [False]
    assert not children_allowed()


def test_an_error_comes_back() -> None:
    def fail(begin: Callable[[], None]) -> None:
        begin()
        raise OptiscopeError("no data")

    with pytest.raises(OptiscopeError, match="no data"):
        run_apart(fail)


def test_an_error_that_cannot_travel_comes_back_in_words() -> None:
    class Local(Exception):
        pass

    def fail(begin: Callable[[], None]) -> None:
        raise Local("stuck here")

    with pytest.raises(RuntimeError, match="Local: stuck here"):
        run_apart(fail)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda begin: os.kill(os.getpid(), signal.SIGXCPU), r"was killed \(SIGXCPU\)"),
        (lambda begin: os.kill(os.getpid(), signal.SIGKILL), r"\(SIGKILL: out of memory\?\)"),
        (lambda begin: os._exit(0), r"ended by itself \(exit status 0\)"),
        (lambda begin: os._exit(3), r"ended by itself \(exit status 3\)"),
    ],
    ids=["xcpu", "kill", "exit 0", "exit 3"],
)
def test_a_death_has_a_name(act: Callable[[Callable[[], None]], object], words: str) -> None:
    with pytest.raises(ChildDied, match=words):
        run_apart(act)


def test_a_child_whose_time_is_up_is_killed() -> None:
    def hang(begin: Callable[[], None]) -> None:
        begin()
        time.sleep(600)

    begun = time.monotonic()
    with pytest.raises(ChildHung, match="did not end within 0 s"):
        run_apart(hang, seconds=0.3)
    assert time.monotonic() - begun < 30


def test_a_signal_that_comes_before_a_child_is_known_reaches_it() -> None:
    with allowing_children():
        signal_child(signal.SIGTERM)
        with pytest.raises(ChildDied, match=r"was killed \(SIGTERM\)"):
            run_apart(lambda begin: time.sleep(60))
    with allowing_children():  # another worker's
        run_apart(lambda begin: None)


def test_time_begins_when_the_child_says_so() -> None:
    run_apart(lambda begin: time.sleep(0.6), seconds=0.1)


@pytest.mark.parametrize(
    ("own", "files"),
    [
        (
            "0::/job_7/step_0\n",
            {"job_7/step_0/memory.events": "oom 1\noom_kill 2\n", "memory.events": "oom_kill 1\n"},
        ),
        (
            "4:cpu:/x\n9:memory:/job_7\n",
            {"memory/job_7/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"},
        ),
    ],
    ids=["unified", "version 1"],
)
def test_deaths_for_want_of_memory_are_counted_in_the_jobs_group(
    own: str, files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optiscope import control_groups
    from optiscope.executors import apart

    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "cgroup").write_text(own)
    monkeypatch.setattr(control_groups, "GROUPS", tmp_path)
    monkeypatch.setattr(control_groups, "OWN", tmp_path / "cgroup")
    assert apart._out_of_memory_kills() == 3


def test_a_child_that_ran_out_of_memory_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optiscope import control_groups

    events = tmp_path / "memory.events"
    events.write_text("oom_kill 0")
    (tmp_path / "cgroup").write_text("0::/")
    monkeypatch.setattr(control_groups, "GROUPS", tmp_path)
    monkeypatch.setattr(control_groups, "OWN", tmp_path / "cgroup")

    def die(begin: object) -> None:
        events.write_text("oom_kill 1")
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ChildDied, match=r"was killed \(SIGKILL: out of memory\)"):
        run_apart(die)
