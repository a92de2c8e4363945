"""Healthy loops raise no alarm: one test each (the conformance table of docs/doctor.md)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from healthy_loops import LOOPS

from optiscope.doctor.watching import watch

SLOW = {"compiled", "lark", "preconditioned", "recurrent", "slow_but_learning", "wgan_gp", "tanh",
        "foreach", "second_optimizer_unknown", "residual_convolution", "update_bn"}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in LOOPS]
)
def test_a_healthy_loop_raises_no_alarm(name: str) -> None:
    watches = []

    def attach(model: Any, optimizer: Any, loss: Any = None) -> Any:
        watches.append(watch(model, optimizer, loss, on_finding="log"))
        return watches[-1]

    LOOPS[name](attach)
    for one in watches:
        one.close()
        assert not one.failures
        assert [str(f) for f in one.findings if f.is_alarm] == []
    if name == "range_test":
        assert [f.rule for f in watches[0].findings] == ["rate_range_test"]
