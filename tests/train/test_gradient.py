"""Mixed precision, compilation and accumulation: parts of a trial that are declared."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from small_problems import Linear, small, small_splits
from torch import Tensor, nn

import optiscope
from optiscope.data.samples import Batch, Splits, TensorSamples
from optiscope.monitor.instrument import Instrument, StepView
from optiscope.optim.spec import OptimizerSpec
from optiscope.problems import Problem
from optiscope.problems.problem import l2_on_weights
from optiscope.records import Run, Trial
from optiscope.stats.naming import algorithm_name
from optiscope.study import load_study
from optiscope.study.declaration import StudyError
from optiscope.study.plan import Plan
from optiscope.train.checkpoint import Checkpoint
from optiscope.train.gradient import parts_of


class Weights(Instrument):
    """Remembers the weights after the last step."""

    def __init__(self) -> None:
        self.last: list[Tensor] = []

    def on_step(self, view: StepView) -> None:
        self.last = [p.detach().clone() for p in view.parameters]


def trained(problem: Problem = small, optimizer: Any = "momentum", **how: Any) -> tuple[Run, Any]:
    seen = Weights()
    how.setdefault("hyperparameters", {"lr": 0.05})
    run = optiscope.run(problem, optimizer, threads=1, instruments=[seen], **how)
    return run, torch.cat([p.flatten() for p in seen.last]) if seen.last else None


class Two(nn.Module):
    """A linear classifier of two inputs that are handed over in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        outputs: Tensor = self.layer(torch.cat([inputs["a"], inputs["b"]], 1))
        return outputs


def two_inputs(_: Any) -> Splits:
    def both(samples: Any) -> TensorSamples:
        x = samples.inputs / 100
        return TensorSamples({"a": x[:, :1], "b": x[:, 1:]}, samples.targets)

    s = small_splits(None)
    return Splits(both(s.train), both(s.train_eval), both(s.valid), both(s.test))


@pytest.mark.parametrize("parts", [2, 3, 8])
@pytest.mark.parametrize("clip", [None, {"norm": 0.3}])
def test_accumulation_is_the_large_batch(parts: int, clip: Any) -> None:
    problem = dataclasses.replace(small, param_groups=l2_on_weights(0.1))
    whole, expected = trained(problem, clip=clip)
    split, got = trained(problem, clip=clip, accumulate=parts)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    assert split.counts == whole.counts
    assert split.final["test_loss"] == pytest.approx(whole.final["test_loss"], rel=1e-5)
    batches = [m.value for run in (whole, split) for m in run.metrics if m.split == "batch"]
    half = len(batches) // 2
    assert batches[:half] == pytest.approx(batches[half:], rel=1e-5)


def test_accumulation_divides_several_inputs() -> None:
    problem = dataclasses.replace(small, make_model=Two, data=two_inputs)
    _, expected = trained(problem)
    _, got = trained(problem, accumulate=3)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_divided_is_refused() -> None:
    ragged = Batch({"tokens": torch.zeros(5, 2), "offsets": torch.zeros(3)}, torch.zeros(5))
    with pytest.raises(ValueError, match=r"first dimensions \[3, 5\]"):
        list(parts_of(ragged, 2))
    with pytest.raises(ValueError, match="accumulate = 9 needs as many samples in a batch, got 8"):
        trained(accumulate=9)


class Differentiates(torch.optim.SGD):
    """Stands for an optimizer that differentiates the gradient."""


CURVATURE = OptimizerSpec("second_order", Differentiates, {"lr": 0.1}, create_graph=True)
RULES = [("autocast", "bfloat16"), ("compile", True), ("accumulate", 2)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule[0])
@pytest.mark.parametrize("optimizer", ["adaptive_sgd", "preconditioned_sgd", CURVATURE], ids=str)
def test_optimizers_that_want_more_than_a_gradient_refuse(optimizer: Any, rule: Any) -> None:
    with pytest.raises(ValueError, match=f"^{rule[0]} is for optimizers .* leave {rule[0]} out"):
        optiscope.run(small, optimizer, threads=1, **{rule[0]: rule[1]})


@pytest.mark.parametrize(
    "rule",
    [
        {"autocast": "float32"},
        {"autocast": 16},
        {"accumulate": 0},
        {"accumulate": 2.0},
        {"accumulate": True},
        {"compile": "yes"},
    ],
    ids=str,
)
def test_what_is_no_rule_is_refused_in_one_line(rule: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(rule))} ") as refusal:
        trained(**rule)
    assert "\n" not in str(refusal.value)


class Looks(Linear):
    """Notes in which precision its layer computes."""

    seen: set[tuple[bool, torch.dtype]]

    def __init__(self) -> None:
        super().__init__()
        self.seen = set()

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = super().forward(inputs)
        self.seen.add((self.training, outputs.dtype))
        return outputs


@pytest.mark.parametrize("word", ["bfloat16", "float16"])
def test_mixed_precision_is_for_training_alone(word: str) -> None:
    models: list[Looks] = []

    def make() -> Looks:
        models.append(Looks())
        return models[-1]

    problem = dataclasses.replace(small, make_model=make)
    full, expected = trained(problem)
    mixed, got = trained(problem, autocast=word)
    assert models[-1].seen == {(True, getattr(torch, word)), (False, torch.float32)}
    assert got.dtype == torch.float32
    assert not torch.equal(got, expected)
    if word == "bfloat16":  # with the other some first steps may be skipped
        torch.testing.assert_close(got, expected, rtol=0.1, atol=0.05)
        assert mixed.final["test_loss"] == pytest.approx(full.final["test_loss"], rel=0.1)
    first = [m for m in mixed.metrics if m.epoch == 0 and m.split != "autocast"]
    assert first == [m for m in full.metrics if m.epoch == 0]
    assert not torch.is_autocast_enabled("cpu")


def huge(scale: float) -> Problem:
    """A loss so large that its scaled gradient overflows at first."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return scale * nn.functional.cross_entropy(outputs, targets, reduction="none")

    return dataclasses.replace(small, loss=loss)


def test_float16_scales_the_loss_and_says_which_steps_it_skipped() -> None:
    run, _ = trained(huge(1e3), autocast="float16", hyperparameters={"lr": 1e-5}, clip={"norm": 9})
    said = {m.name: m.value for m in run.metrics if m.split == "autocast"}
    assert 0 < said["skipped_steps"] < run.steps
    assert said["loss_scale"] == 2.0 ** (16 - said["skipped_steps"])
    assert run.status.complete
    plain, _ = trained(autocast="bfloat16")
    assert not [m for m in plain.metrics if m.split == "autocast"]


def test_a_scaled_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    from test_checkpoint import Pull

    from optiscope.optim import registry
    from optiscope.records import Status
    from optiscope.train import run_trial

    problem = huge(1e3)
    trial = Trial(
        "small", 1, "momentum", {"lr": 1e-5}, seed=0, epochs=3, batch_size=8, autocast="float16"
    )
    bound = registry.bind("momentum", {"lr": 1e-5})
    whole = run_trial(trial, problem, bound)
    checkpoint = functools.partial(Checkpoint, tmp_path / "state.pt")
    cut = run_trial(trial, problem, bound, checkpoint=checkpoint(), instruments=[Pull(11)])
    assert cut.status is Status.INTERRUPTED
    resumed = run_trial(trial, problem, bound, checkpoint=checkpoint())
    assert resumed.metrics == whole.metrics


def test_a_compiled_model_trains_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    compile = functools.partial(torch.compile, backend="eager")  # the compiler itself is slow
    compiled: list[nn.Module] = []

    def noted(model: nn.Module) -> Any:
        compiled.append(model)
        return compile(model)

    monkeypatch.setattr(torch, "compile", noted)
    full, expected = trained()
    fast, got = trained(compile=True)
    assert len(compiled) == 1
    torch.testing.assert_close(got, expected)
    assert fast.trial.hash != full.trial.hash


@pytest.mark.slow
def test_the_compiler_itself() -> None:
    _, expected = trained()
    run, got = trained(compile=True)
    assert run.status.complete, run.reason
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert run.seconds["instruments"].wall > run.seconds["forward_backward"].wall


def test_hashes_stay_where_nothing_is_declared() -> None:
    trial = Trial("digits_mlp", 1, "sgd", {"lr": 0.1}, seed=1, epochs=2, batch_size=32)
    assert trial.hash == "13d870b7d23270bafeb9"
    assert trained(accumulate=1, compile=False)[0].trial == trained()[0].trial
    assert len({dataclasses.replace(trial, **{k: v}).hash for k, v in RULES}) == 3


STUDY = """
name = "mixed"
question = "Does it train alike?"
problems = ["digits_logreg"]
seeds = [11, 12]
autocast = "bfloat16"
accumulate = 2

[[algorithms]]
label = "A"
optimizer = "sgd"
fixed = { lr = 0.1 }

[[algorithms]]
label = "B"
optimizer = "OPTIMIZER"
fixed = { lr = 0.1 }
autocast = "none"
accumulate = 1
compile = true
"""


def test_a_study_declares_it_for_all_or_for_one(tmp_path: Path) -> None:
    path = tmp_path / "mixed.toml"
    path.write_text(STUDY.replace("OPTIMIZER", "sgd"))
    study = load_study(path)
    rules = {(t.autocast, t.compile, t.accumulate) for t in Plan(study).ask()}
    assert rules == {("bfloat16", None, 2), (None, True, None)}
    first, second = (algorithm_name(a.to_dict()) for a in study.algorithms)
    assert "bfloat16 autocast; gradients accumulated over 2 parts" in first
    assert "compiled model" in second
    path.write_text(STUDY.replace("OPTIMIZER", "preconditioned_sgd"))
    with pytest.raises(StudyError, match=r"line \d+: compile is for optimizers"):
        load_study(path)
