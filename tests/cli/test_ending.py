"""How a command's process ends is the command's business, whatever imported code leaves behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

OWN = """
import atexit, os, signal, sys, time, torch

class Own(torch.optim.SGD):
    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=lr)
        atexit.register(os._exit, 0)

    def step(self, closure=None):
        sys.exit = lambda *_: None
        sys.stdout.close()
        sys.stderr.close()
        raise ValueError("mine")

class Hanging(torch.optim.SGD):
    def step(self, closure=None):
        while True:
            try:
                signal.signal(signal.SIGALRM, signal.SIG_IGN)
                time.sleep(600)
            except BaseException:
                pass

class Interrupting(torch.optim.SGD):
    def __init__(self, params):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
"""


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = "from optiscope.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_crash_stays_a_crash_and_is_shown(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    done = command(tmp_path, "run", "digits_logreg", "own:Own", "--epochs", "1")
    assert done.returncode == 1
    assert "crashed: at step 0: ValueError: mine" in done.stdout
    assert "Traceback" not in done.stderr


def test_an_interrupt_has_words(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    done = command(tmp_path, "run", "digits_logreg", "own:Interrupting", "--epochs", "1")
    assert done.returncode == 130
    assert "optiscope: interrupted" in done.stderr


def test_a_step_that_nothing_can_end_is_killed_with_words(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    program = "from optiscope.cli import single, main; single.KILL_AFTER_SECONDS = 0.5; main()"
    limits = ["--set", "lr=0.1", "--epochs", "1", "--max-seconds", "0.5"]
    done = subprocess.run(
        [sys.executable, "-c", program, "run", "digits_logreg", "own:Hanging", *limits],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    assert "nothing could end it: it is killed" in done.stderr


def test_a_watchdog_that_is_fed_does_nothing() -> None:
    program = """
import time
from optiscope.cli.ending import Watchdog
dog = Watchdog(600.0)
dog.goes_on(300.0)
dog.goes_on(None)
print("left")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")


PROGRAM = """
import atexit, os, signal, sys, threading, time
from optiscope.cli import ending
ending.PATIENCE_SECONDS = 0.2
ours = ending.Ending()
ours.guard()
{before}
ours.leave({status})
raise SystemExit({status})
"""


@pytest.mark.parametrize(
    ("before", "status", "code", "words"),
    [
        ("atexit.register(os._exit, 0)", 1, 1, ""),
        ("atexit.register(os._exit, 5)", 0, 0, ""),
        ("os._exit(0)", 0, 1, "imported code ended the process by os._exit(0)"),
        ("os.execv('/bin/true', ['true'])", 0, 1, "by os.execv('/bin/true', ['true'])"),
        ("threading.Thread(target=os._exit, args=(0,)).start(); time.sleep(60)", 0, 1, "os._exit"),
        ("threading.Thread(target=time.sleep, args=(600,)).start()", 1, 1, "for thread 'Thread-1"),
        ("atexit.register(time.sleep, 600)", 4, 4, "for a function that runs at exit"),
        ("pid = os.fork()\nif not pid: os._exit(0)\nos.waitpid(pid, 0)", 1, 1, ""),
        ("", 3, 3, ""),
    ],
)
def test_the_status_is_the_commands(before: str, status: int, code: int, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before, status=status)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code
    assert words in done.stderr
    assert bool(done.stderr) == bool(words)


STREAMS = """
import os, sys
from optiscope.train.isolation import isolated

def closed(): sys.stdout.close(); sys.stderr.close()
def descriptors(): os.close(1); os.close(2)
def elsewhere(): os.dup2(os.open(os.devnull, os.O_WRONLY), 1); os.dup2(1, 2)
def gone(): sys.stdout = sys.stderr = None

for act in (closed, descriptors, elsewhere, gone, closed):
    with isolated():
        act()
    print(act.__name__)
    print(act.__name__, file=sys.stderr, flush=True)
"""


def test_standard_streams_are_open_again_after_a_trial() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STREAMS],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0
    assert done.stdout.split() == done.stderr.split()
    assert done.stdout.split() == ["closed", "descriptors", "elsewhere", "gone", "closed"]
