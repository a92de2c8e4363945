"""A pool whose processes leave Ctrl-C to their parent and do not outlive it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from optiscope import control_groups
from optiscope.executors import available_cores, process_pool

PARENT = """
import os, sys, time
from optiscope.executors import process_pool
from pool_tasks import sleep_and_tell

if __name__ == "__main__":
    with process_pool(2) as pool:
        futures = [pool.submit(sleep_and_tell, sys.argv[1], seconds) for seconds in (600, 600)]
        for future in futures:
            future.result()
"""


def test_cores_are_those_this_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    assert available_cores() == len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 0), ("100000 100000", 1), ("50000 100000", 1), ("", 0)]
)
@pytest.mark.parametrize("holder", ["", "job_7", "job_7/step_0"])
def test_the_quota_of_a_container_or_job_counts(
    holder: str, quota: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job_7" / "step_0").mkdir(parents=True)
    (tmp_path / "own").write_text("0::/job_7/step_0\n")
    (tmp_path / "job_7" / "cpu.max").write_text("max 100000")
    (tmp_path / holder / "cpu.max").write_text(quota)
    monkeypatch.setattr(control_groups, "GROUPS", tmp_path)
    monkeypatch.setattr(control_groups, "OWN", tmp_path / "own")
    assert available_cores() == (cores or len(os.sched_getaffinity(0)))


def test_workers_are_fresh_ignore_ctrl_c_and_are_replaced_by_nobody() -> None:
    with process_pool(1) as pool:
        worker = pool.submit(os.getpid).result(timeout=60)
        assert worker != os.getpid()
        assert pool.submit(signal.getsignal, signal.SIGINT).result() is signal.SIG_IGN
        os.kill(worker, signal.SIGINT)
        assert pool.submit(os.getpid).result(timeout=60) == worker
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(BrokenProcessPool):
            pool.submit(time.sleep, 60).result(timeout=60)


UNGUARDED = """
import os
from optiscope.executors import process_pool

with process_pool(2) as pool:
    workers = {pool.submit(os.getpid).result(timeout=60) for _ in range(4)}
print(len(workers - {os.getpid()}) > 0)
"""


def test_a_script_needs_no_guard_for_its_main_module(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "True\n"


def _alive(process: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def _wait_until(condition: object, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_when_their_parent_is_gone(number: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, script, tmp_path],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stderr=subprocess.DEVNULL,
    )
    assert _wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 2, 120)
    workers = [int(path.stem) for path in tmp_path.glob("*.pid")]
    assert all(map(_alive, workers))
    parent.send_signal(number)
    assert parent.wait(60) == -number
    assert _wait_until(lambda: not any(map(_alive, workers)), 30)
