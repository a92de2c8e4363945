"""What instruments are shown, what they may do to a run, and what they may not."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from small_problems import STEPS, failing_at, small
from torch import Tensor

import optiscope
from optiscope.monitor.instrument import EndRun, EpochView, Instrument, StartView, StepView
from optiscope.optim import registry
from optiscope.problems import Problem
from optiscope.records import Run, Status, Trial
from optiscope.train import run_trial


def watched(*instruments: Instrument, optimizer: str = "sgd", problem: Problem = small) -> Run:
    """A run of a small problem over two epochs, with instruments."""
    bound = registry.bind(optimizer, {"lr": 0.1})
    trial = Trial("small", 1, optimizer, bound.hyperparameters, seed=5, epochs=2, batch_size=8)
    return run_trial(trial, problem, bound, instruments=instruments)


class Diary(Instrument):
    """Notes every call."""

    name = "diary"
    needs = frozenset({"gradients", "start"})

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.steps: list[StepView] = []
        self.gaps: list[float] = []

    def on_start(self, view: StartView) -> None:
        self.calls.append("start")
        assert (view.epochs, view.steps_per_epoch, view.batch_size) == (2, STEPS, 8)

    def on_step(self, view: StepView) -> dict[str, float]:
        self.calls.append(f"step {view.step}")
        moves = zip(view.start, view.gradients, view.parameters, strict=True)
        gaps = [
            float((start - 0.1 * g - p.detach()).abs().max())
            for start, g, p in moves
            if g is not None
        ]
        self.gaps.append(max(gaps))
        return {"loss": view.loss.item()}

    def on_epoch(self, view: EpochView) -> None:
        self.calls.append(f"epoch {view.epoch}")

    def on_evaluation(self, view: EpochView) -> dict[str, float]:
        self.calls.append(f"evaluation {view.epoch}")
        return {"gap": view.latest["valid_loss"] - view.latest["train_loss"]}

    def close(self) -> None:
        self.calls.append("close")


def test_an_instrument_sees_every_moment_and_is_recorded() -> None:
    diary = Diary()
    run = watched(diary)
    steps = [[f"step {e * STEPS + i + 1}" for i in range(STEPS)] for e in range(2)]
    ends = [[f"epoch {e}", f"evaluation {e}"] for e in range(3)]
    expected = ["start", *ends[0], *steps[0], *ends[1], *steps[1], *ends[2], "close"]
    assert diary.calls == expected
    assert max(diary.gaps) < 1e-6  # parameters after = start - lr x gradient
    epochs, losses = run.curve("diary", "loss")
    assert epochs == pytest.approx([(i + 1) / STEPS for i in range(2 * STEPS)])
    assert sum(losses[:STEPS]) / STEPS == pytest.approx(run.curve("batch", "loss")[1][0])
    assert run.final["diary_gap"] == run.final["valid_loss"] - run.final["train_loss"]
    assert run.seconds["instruments"].wall > 0


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "preconditioned_sgd"])
def test_a_run_with_an_instrument_is_the_run_without(optimizer: str) -> None:
    class Look(Diary):
        def on_start(self, view: StartView) -> None: ...

        def on_step(self, view: StepView) -> dict[str, float]:
            return {"g": sum(float(g.norm()) for g in view.gradients if g is not None)}

    def own(run: Run) -> list[object]:
        return [m for m in run.metrics if m.split != "diary"]

    assert own(watched(Look(), optimizer=optimizer)) == own(watched(optimizer=optimizer))


def test_what_no_instrument_needs_is_not_copied() -> None:
    class Greedy(Instrument):
        def on_step(self, view: StepView) -> None:
            view.gradients  # noqa: B018

    with pytest.raises(LookupError, match=r"declare needs = frozenset\(\{'gradients'\}\)"):
        watched(Greedy())


def test_a_need_that_there_is_not_is_refused() -> None:
    class Odd(Instrument):
        needs = frozenset({"gradient"})

    with pytest.raises(ValueError, match="gradients, start, got 'gradient'"):
        watched(Odd())


def test_the_risk_of_the_batch_has_its_loss_at_the_start() -> None:
    class Compare(Instrument):
        name = "risk"
        needs = frozenset({"start"})

        def on_step(self, view: StepView) -> dict[str, float]:
            before = torch.cat([p.flatten() for p in view.start])
            return {"gap": abs(float(view.risk.value(before)) - view.loss.item())}

    assert max(watched(Compare()).curve("risk", "gap")[1]) < 1e-6


def test_an_instrument_ends_a_run() -> None:
    class Enough(Instrument):
        name = "enough"

        def on_step(self, view: StepView) -> None:
            if view.step == 5:
                raise EndRun(Status.STOPPED, "seen enough", step=4, values={"step": 5.0})

    run = watched(Enough())
    assert (run.status, run.reason, run.steps) == (Status.STOPPED, "seen enough", 4)
    assert run.metrics[-1][:4] == (4, 4 / STEPS, "enough", "step")


@pytest.mark.parametrize("moment", ["on_start", "on_step", "on_epoch", "on_evaluation"])
def test_an_error_of_an_instrument_goes_to_whoever_handed_it_over(moment: str) -> None:
    class Broken(Diary):
        pass

    def fail(self: Broken, view: object) -> None:
        raise RuntimeError("my instrument")

    setattr(Broken, moment, fail)
    broken = Broken()
    with pytest.raises(RuntimeError, match="my instrument"):
        watched(broken)
    assert broken.calls[-1] == "close"


def test_a_diverging_step_is_shown_before_it_ends_the_run() -> None:
    class Last(Instrument):
        loss = 0.0

        def on_step(self, view: StepView) -> None:
            self.loss = view.loss.item()

    def nan(losses: Tensor) -> Tensor:
        return losses * float("nan")

    last = Last()
    run = watched(last, problem=failing_at(small, 3, nan))
    assert run.status is Status.DIVERGED
    assert last.loss != last.loss


def test_any_object_with_some_of_the_methods_will_do() -> None:
    class Duck:
        needs = ()

        def on_epoch(self, view: EpochView) -> dict[str, float]:
            return {"epoch": view.epoch}

    run = watched(Duck())  # type: ignore[arg-type]
    assert run.curve("Duck", "epoch")[1] == [0.0, 1.0, 2.0]


def test_instruments_go_with_run() -> None:
    class Count(Instrument):
        steps = 0

        def on_step(self, view: StepView) -> None:
            self.steps += 1

    count = Count()
    run = optiscope.run("digits_logreg", "sgd", epochs=1, instruments=[count])
    assert count.steps == run.steps > 0


def test_the_loop_knows_the_protocol_and_no_instrument() -> None:
    import optiscope.train

    names: set[str] = set()
    for path in Path(optiscope.train.__path__[0]).glob("*.py"):
        imports = [
            n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)
        ]
        names |= {str(node.module) for node in imports}
    assert {n for n in names if n.startswith("optiscope.monitor")} == {
        "optiscope.monitor.instrument"
    }


def test_progress_is_an_instrument() -> None:
    seen: list[float] = []
    bound = registry.bind("sgd", {"lr": 0.1})
    trial = Trial("small", 1, "sgd", bound.hyperparameters, 5, 2, 8)
    run = run_trial(trial, small, bound, progress=lambda share, latest: seen.append(share))
    assert seen == [0.0, 0.5, 1.0]
    assert run.status is Status.FINISHED
