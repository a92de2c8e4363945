"""One trial must not touch the next, whatever an optimizer does to the process."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_problems import STEPS, failing_at, small, train
from torch import Tensor, nn
from torch.optim import sgd
from wicked import ACTS, Wicked

import optiscope
from optiscope.optim import registry
from optiscope.problems.problem import METRICS
from optiscope.records import Run, Status, Trial
from optiscope.train import TrialError, loop, run_trial
from optiscope.train.isolation import ARITHMETIC, isolated
from optiscope.train.process_state import timers
from optiscope.train.switches import read, switches


def snapshot() -> dict[str, Any]:
    """All that must be as it was."""
    tables = [v for n, v in vars(nn.modules.module).items() if n.startswith("_global_")]
    return {
        **{name: read(switch) for name, switch in switches().items()},
        "environment": dict(os.environ),
        "path": list(sys.path),
        "filters": list(warnings.filters),
        "hooks": [dict(t) if isinstance(t, dict) else t for t in tables],
        "signals": [signal.getsignal(n) for n in signal.valid_signals()],
        "timer": timers(),
        "functions": (nn.functional.linear, torch.optim.SGD.step, sum, math.sqrt, loop.evaluate),
        "more functions": (sgd.sgd, nn.BatchNorm1d.forward, nn.Linear.__call__, sys.exit),
        "names": ("zero_grad" in vars(torch.optim.SGD), "len" in vars(loop)),
        "constants": (math.pi, loop.SYNC_EVERY, dict(METRICS)),
        "torch": torch.get_rng_state().tolist(),
        "numpy": repr(np.random.get_state()),
        "python": random.getstate(),
    }


def essence(run: Run) -> tuple[object, ...]:
    return run.status, run.reason, run.metrics


@pytest.fixture(scope="module")
def innocent() -> Run:
    return train(small)


@pytest.mark.parametrize("act", ACTS)
def test_what_an_optimizer_changes_is_put_back(act: str, innocent: Run) -> None:
    before = snapshot()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(small, Wicked, {"lr": 0.1, "act": act})
        after = snapshot()
    assert {k: v for k, v in after.items() if v != before[k]} == {"filters": after["filters"]} or (
        after == before
    )
    assert essence(train(small)) == essence(innocent)


def test_a_trial_is_the_same_whatever_the_process_was_used_for(innocent: Run) -> None:
    with isolated(1, torch.device("cpu")):
        torch.set_default_dtype(torch.float64)
        torch.set_float32_matmul_precision("medium")
        torch.set_flush_denormal(False)
        torch.autocast("cpu").__enter__()
        torch.backends.mkldnn.enabled = False
        torch.backends.cuda.enable_flash_sdp(False)
        np.seterr(all="raise")
        assert essence(train(small)) == essence(innocent)
        assert torch.get_default_dtype() is torch.float64
        assert not torch.backends.mkldnn.enabled


def test_what_a_record_says_of_arithmetic_is_always_the_same() -> None:
    torch.set_float32_matmul_precision("medium")
    try:
        run = train(small, epochs=1)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert {name: run.environment[name] for name in ARITHMETIC} == ARITHMETIC


class Drawing(torch.optim.SGD):
    """SGD with noise from generators that nobody handed to it."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                p.grad += 0.1 * float(np.random.randn()) + random.gauss(0, 0.1)
        return super().step(closure)


def test_numpys_and_pythons_generators_come_from_the_trial() -> None:
    np.random.seed(3)
    random.seed(4)
    first = train(small, Drawing)
    np.random.seed(5)
    second = train(small, Drawing)
    assert essence(first) == essence(second)
    assert essence(train(small, Drawing, seed=6)) != essence(first)


def test_a_record_made_with_other_arithmetic_is_not_taken_for_this_trial(tmp_path: Path) -> None:
    from dataclasses import replace

    from optiscope.records import RunStore

    run = optiscope.run("digits_logreg", "sgd", hyperparameters={"lr": 0.1}, epochs=1)
    store = RunStore(tmp_path)
    flush = run.environment["flush_denormal"]
    store.write(replace(run, environment={**run.environment, "flush_denormal": not flush}))
    told: list[str] = []
    again = optiscope.run(
        "digits_logreg", "sgd", hyperparameters={"lr": 0.1}, epochs=1, out=tmp_path,
        notify=told.append,
    )  # fmt: skip
    assert f"recorded with flush_denormal {not flush}, now it is {flush}" in told[0]
    assert again.environment["flush_denormal"] is flush


class Ending(torch.optim.SGD):
    """Raises what it is told in its third step."""

    kind: Any = None

    def step(self, closure: Any = None) -> Any:
        self.taken = getattr(self, "taken", 0) + 1
        if self.taken == 3:
            raise self.kind
        return super().step(closure)


class Own(BaseException):
    """Nothing that anybody catches."""


@pytest.mark.parametrize(
    "kind", [SystemExit(7), SystemExit(0), KeyboardInterrupt(), GeneratorExit(), Own("mine")]
)
@pytest.mark.parametrize("closure", [False, True])
def test_an_optimizer_that_ends_the_process_has_crashed(kind: BaseException, closure: bool) -> None:
    from optiscope.optim.spec import OptimizerSpec

    ending = type("Ending", (Ending,), {"kind": kind})
    run = train(small, OptimizerSpec("ending", ending, closure=closure))
    assert run.status is Status.CRASHED
    assert run.reason.startswith(f"at step 2: {type(kind).__name__}")
    assert "\n" not in run.reason


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: os._exit(0), "SystemExit: os._exit(0)"),
        (lambda: os.execv("/bin/true", ["true"]), "SystemExit: os.execv('/bin/true', ['true'])"),
        (lambda: os.execl("/bin/true", "true"), "SystemExit: os.execv"),
    ],
)
def test_what_would_end_the_process_without_a_word_is_a_crash(act: Any, words: str) -> None:
    class Leaving(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            act()

    ending = os._exit
    run = train(small, Leaving)
    assert run.status is Status.CRASHED
    assert run.reason.startswith(f"at step 0: {words}")
    assert os._exit is ending

    class Unmade(torch.optim.SGD):
        def __init__(self, params: Any) -> None:
            act()

    with pytest.raises(registry.BadSettingsError, match=r"refuses its defaults: os\._?exe?"):
        optiscope.run("digits_logreg", Unmade)


def test_a_process_forked_in_a_trial_may_end() -> None:
    class Forking(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            child = os.fork()
            if child == 0:
                os._exit(3)
            self.code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            raise ValueError(f"the child ended with {self.code}")

    assert "the child ended with 3" in train(small, Forking).reason


class Mute(Exception):
    """Its message raises."""

    def __str__(self) -> str:
        raise SystemExit(0)


class Odd(Exception):
    """Its message is no text."""

    def __str__(self) -> Any:
        return 5


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Mute(), "at step 2: Mute: its message raises SystemExit ("),
        (Odd(), "at step 2: Odd: its message raises TypeError ("),
        (ValueError("a\nb\x1b[31m"), "at step 2: ValueError: a b\\x1b[31m ("),
        (ValueError("x" * 100_000), "at step 2: ValueError: xxx"),
    ],
)
def test_any_error_becomes_one_short_line(error: BaseException, words: str) -> None:
    run = train(small, type("Ending", (Ending,), {"kind": error}))
    assert run.status is Status.CRASHED
    assert run.reason.startswith(words)
    assert run.reason.isprintable()
    assert len(run.reason) < 700


def test_ctrl_c_is_no_crash() -> None:
    def press(losses: Tensor) -> Tensor:
        signal.raise_signal(signal.SIGINT)
        return losses

    run = train(failing_at(small, 4, press))
    assert (run.status, run.reason) == (Status.INTERRUPTED, "interrupted at step 3")


def test_where_ctrl_c_is_ignored_nobody_pressed_it() -> None:
    def pretend(_: Tensor) -> Tensor:
        raise KeyboardInterrupt

    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run = train(failing_at(small, 4, pretend))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert run.status is Status.CRASHED


@pytest.mark.parametrize("kind", ["SystemExit(0)", "KeyboardInterrupt", "GeneratorExit"])
def test_an_optimizer_that_exits_when_it_is_made_is_refused(kind: str) -> None:
    class Never(torch.optim.SGD):
        def __init__(self, params: Any) -> None:
            raise eval(kind)

    with pytest.raises(registry.BadSettingsError, match="Never refuses its defaults"):
        train(small, Never, {})


def test_a_problem_that_exits_cannot_begin() -> None:
    import dataclasses

    with pytest.raises(TrialError, match="cannot set up small with sgd: SystemExit: 0"):
        train(dataclasses.replace(small, make_model=lambda: sys.exit(0)))


class Hanging(torch.optim.SGD):
    """Sleeps in its third step, and does not want to be woken."""

    def step(self, closure: Any = None) -> Any:
        self.taken = getattr(self, "taken", 0) + 1
        while self.taken == 3:
            try:
                threading.Event().wait(60)
            except Exception:
                continue
        return super().step(closure)


def test_a_step_that_hangs_is_ended() -> None:
    run = train(small, Hanging, max_seconds=1.5)
    assert run.status is Status.TIMED_OUT
    assert run.steps == 2
    assert run.reason.endswith("s of at most 1.5 s after step 2")
    assert run.curve("test", "loss")[0] == [0]


def test_a_step_that_hangs_in_a_thread_is_ended() -> None:
    class Busy(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            while True:
                pass

    runs: list[Run] = []
    thread = threading.Thread(target=lambda: runs.append(train(small, Busy, max_seconds=0.2)))
    thread.start()
    thread.join(30)
    assert runs[0].status is Status.TIMED_OUT


def test_a_timer_of_the_callers_runs_on() -> None:
    rung: list[int] = []
    handler = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    signal.setitimer(signal.ITIMER_REAL, 3600.0)
    try:
        train(small, epochs=1, max_seconds=60.0)
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 3000
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, handler)


EXITS = """
import sys, torch
class Exits(torch.optim.SGD):
    def step(self, closure=None):
        sys.exit(0)
class Interrupts(torch.optim.SGD):
    def step(self, closure=None):
        raise KeyboardInterrupt
class Raises(torch.optim.SGD):
    def step(self, closure=None):
        raise BaseException
"""
COMMANDS = """
import sys
from optiscope.cli import main
for name in ("Exits", "Interrupts", "Raises"):
    print("begins", name, flush=True)
    try:
        main(["run", "digits_logreg", f"exits:{name}", "--set", "lr=0.1", "--epochs", "1"])
    except SystemExit as end:
        print("ends", end.code, flush=True)
"""


def test_the_command_says_so_and_fails(tmp_path: Path) -> None:
    (tmp_path / "exits.py").write_text(EXITS)
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS], cwd=tmp_path, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    parts = done.stdout.split("begins ")[1:]
    assert [part.split()[0] for part in parts] == ["Exits", "Interrupts", "Raises"]
    for part in parts:
        assert "crashed" in part
        assert "ends 1\n" in part


def test_the_steps_of_the_small_problem() -> None:
    assert STEPS == 8
    bound = registry.bind("sgd", {"lr": 0.1})
    assert run_trial(Trial("small", 1, "sgd", {"lr": 0.1}, 5, 1, 8), small, bound).steps == STEPS
