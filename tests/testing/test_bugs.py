"""The suite of faulty scripts: scripts run, twins are sound, the score counts what it should."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from optiscope.testing.bugs.clean import clean_scripts
from optiscope.testing.bugs.held_back import HELD_BACK
from optiscope.testing.bugs.held_back_second import HELD_BACK_SECOND
from optiscope.testing.bugs.public import PUBLIC
from optiscope.testing.bugs.score import kinds_named, score_tool
from optiscope.testing.bugs.script import BASES


@dataclass
class Said:
    rule: str
    severity: str = "error"
    sentence: str = ""
    step: int = 3


def silent(model: Any, optimizer: Any, criterion: Any, scheduler: Any = None) -> Any:
    return SimpleNamespace(findings=())


def test_there_are_enough_kinds() -> None:
    assert len(PUBLIC) + len(HELD_BACK) >= 60
    assert len(HELD_BACK) >= 20
    assert len(HELD_BACK_SECOND) >= 20
    every = [*PUBLIC, *HELD_BACK, *HELD_BACK_SECOND]
    assert len(every) == len(set(every))
    kinds = PUBLIC | HELD_BACK | HELD_BACK_SECOND
    tried = {base for kind in kinds.values() for base in kind.bases}
    assert {"mlp", "cnn", "lstm", "gpt", "diffusion", "gan", "regression", "segmentation"} <= tried
    assert all(set(kind.bases) <= set(BASES) for kind in kinds.values())


@pytest.mark.parametrize("base", BASES)
def test_a_sound_script_learns(base: str) -> None:
    script = BASES[base](0)
    script.run(silent)
    first = sum(script.losses[:10]) / 10
    last = sum(script.losses[-10:]) / 10
    assert script.done == script.steps
    if base != "gan":
        assert last < 0.85 * first, (first, last)


def test_equal_seeds_give_equal_runs() -> None:
    losses = []
    for _ in range(2):
        torch.manual_seed(5)
        script = PUBLIC["clipped_to_nothing"].script("mlp", 3)
        script.steps = 20
        script.run(silent)
        losses.append(script.losses)
    assert losses[0] == losses[1]


def test_the_score_counts_what_it_should() -> None:
    def knows_it(model: Any, optimizer: Any, criterion: Any, scheduler: Any = None) -> Any:
        said = [Said("loss_odd", "warning"), Said("gradient_not_cleared"), Said("x", "note")]
        return SimpleNamespace(findings=said)

    kinds = kinds_named(["no_step", "critic_not_cleared"])
    summary = score_tool(knows_it, kinds=kinds).summary()
    runs = sum(len(kind.bases) for kind in kinds.values())
    named = len(kinds["critic_not_cleared"].bases)
    assert summary["faulty runs"] == runs
    assert summary["cause named"] == named
    assert summary["named first"] == 0
    assert summary["median step"] == 3
    assert summary["sound runs with an alarm"] == summary["sound runs"] == runs


def test_a_tool_that_breaks_the_run_has_failed_it() -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no")

    score = score_tool(broken, kinds=kinds_named(["no_step"]), twins=False)
    assert all(outcome.failed == "RuntimeError: no" for outcome in score.outcomes)
    assert score.summary()["runs that failed"] == 2


def test_clean_runs_are_many_and_differ() -> None:
    names = [name for name, _ in clean_scripts(200)]
    scripts = {name.split(" ", 1)[1] for name in names[::2]}
    loops = {name.split(" ", 1)[1] for name in names[1::2]}
    assert len(scripts) > 60
    assert len(loops) > 15
    again = [name for name, _ in clean_scripts(200, seed=2)]
    assert names != again
    assert not [name for name in names[::2] if "warm-up" in name and "step decay" in name]


@pytest.mark.slow
def test_every_script_runs() -> None:
    score = score_tool(silent, kinds=PUBLIC | HELD_BACK | HELD_BACK_SECOND, clean=60)
    assert not [o for o in score.outcomes if o.failed]


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from optiscope.cli import main

    (tmp_path / "silent_tool.py").write_text(
        "class Said:\n    findings = ()\n"
        "def attach(model, optimizer, criterion, scheduler=None):\n    return Said()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as left:
            main(["doctor", "bugs", *arguments])
        return int(left.value.code or 0)

    assert run("--tool", "silent_tool:attach", "--only", "no_step", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["summary"]["cause named"] == 0
    assert content["summary"]["sound runs with an alarm"] == 0
    assert run("--only", "no_steps") == 2
    assert "did you mean 'no_step'" in capsys.readouterr().err
    assert run("--list") == 0
    assert "no_zero_grad" in capsys.readouterr().out
