"""Faults that let the loss fall are named, and their mended twins raise no alarm."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optiscope.doctor.rules.axes import exchanged
from optiscope.doctor.rules.sequences import by_place, padding
from optiscope.doctor.watching import watch
from optiscope.testing.bugs.loops import SoundLoop, adversarial, reinforced, sound_loops
from optiscope.testing.bugs.mechanisms import MECHANISMS
from optiscope.testing.bugs.score import our_adapter, score_tool
from optiscope.testing.bugs.script import base_named
from optiscope.testing.bugs.subtle import SUBTLE

QUICK = {
    "arguments_swapped": 8,
    "cross_entropy_of_one_output": 8,
    "gradient_through_the_target": 8,
    "cleared_at_every_batch": 8,
    "clipped_after_the_step": 12,
    "heads_by_view": 6,
    "padding_learned": 8,
    "padding_seen": 14,
    "positions_missing": 14,
    "mask_hides_the_past": 6,
    "no_causal_mask": 6,
    "image_by_reshape": 8,
    "wrong_backward": 24,
    "detached_inside": 24,
    "deep_and_loud": 8,
    "validation_targets_not_scaled": 50,
    "standardized_by_the_batch": 12,
    "positions_along_the_batch": 8,
    "dropout_of_the_output": 32,
    "time_ignored": 44,
    "blocks_multiplied": 2,
    "divergence_of_probabilities": 8,
    "loss_divided_twice": 44,
    "gradients_divided_by_hand": 44,
    "weights_follow_average": 14,
    "frozen_body_with_moving_statistics": 8,
    "best_weights_by_reference": 40,
    "lambda_of_rates": 90,
    "rate_set_as_attribute": 80,
    "targets_in_dollars": 64,
}
KINDS = SUBTLE | MECHANISMS


@pytest.mark.parametrize("name", QUICK)
def test_the_fault_is_named_and_its_twin_is_silent(name: str) -> None:
    kind = KINDS[name]
    for mended in (False, True):
        script = kind.script(kind.bases[0], 3, mended=mended)
        script.steps = QUICK[name]
        alarms = [f for f in script.run(our_adapter) if f.is_alarm]
        assert any(map(kind.is_named_by, alarms)) is not mended, alarms


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_on_every_base(name: str) -> None:
    score = score_tool(kinds={name: KINDS[name]}, seeds=(1,))
    missed = [o for o in score.faulty if not o.named]
    false = [o for o in score.sound if o.alarms]
    assert not missed, missed
    assert not false, false


@pytest.mark.slow
def test_sound_loops_raise_no_alarm() -> None:
    alarms = []
    for loop in sound_loops(40, 9):
        found = [f for f in loop.run(our_adapter) if f.is_alarm]
        alarms += [(loop.made, found)] if found else []
    assert not alarms, alarms


@pytest.mark.parametrize("seed", range(4))
def test_an_adversary_and_a_policy_raise_no_alarm(seed: int) -> None:
    for body in (adversarial, reinforced):
        loop = SoundLoop("", body, seed)
        assert not [f for f in loop.run(our_adapter) if f.is_alarm], loop.made


def test_the_two_nets_of_an_adversarial_script_raise_no_alarm() -> None:
    alarms = [f for f in base_named("gan", 0).run(our_adapter) if f.is_alarm]
    assert not alarms, alarms


def test_sound_loops_repeat_and_differ() -> None:
    first, again = list(sound_loops(30, 4)), list(sound_loops(30, 4))
    assert [(a.name, a.seed) for a in first] == [(b.name, b.seed) for b in again]
    assert len({a.name for a in first}) > 8


def test_a_view_that_exchanges_dimensions() -> None:
    assert exchanged((8, 16, 32), (8, 32, 16))
    assert exchanged((8, 16, 32), (8, 4, 16, 8))  # heads split without a transpose
    assert exchanged((8, 4, 16, 8), (8, 16, 32))  # and joined
    assert not exchanged((8, 16, 32), (8, 16, 4, 8))
    assert not exchanged((8, 16, 32), (128, 32))
    assert not exchanged((8, 1, 32), (8, 32, 1))
    assert not exchanged((8, 3, 4, 5), (8, 60))
    assert not exchanged((2, 8, 16), (2, 8, 16))


def test_padding_is_what_ends_sequences_of_several_lengths() -> None:
    tokens = torch.randint(1, 30, (16, 12), generator=torch.Generator().manual_seed(0))
    assert padding(tokens) is None
    lengths = 4 + torch.arange(16) % 8
    past = torch.arange(12)[None] >= lengths[:, None]
    ends = padding(tokens.masked_fill(past, 0))
    assert ends is not None
    assert torch.equal(ends, past)
    steps = torch.randn(16, 12, 3).masked_fill(past[..., None], 0.0)
    ends = padding(steps)
    assert ends is not None
    assert torch.equal(ends, past)
    assert padding(torch.zeros(16, 12, dtype=torch.long)) is None
    assert padding(torch.randn(16, 12)) is None


def test_outputs_by_place_are_views_of_every_layout() -> None:
    out = torch.randn(4, 6, 9)
    for given in (out, out.transpose(1, 2), out.reshape(24, 9)):
        placed = by_place(given, 4, 6)
        assert placed is not None
        assert torch.equal(placed, out)
    assert by_place(torch.randn(4, 9), 4, 6) is None


def _alarms(model: nn.Module, criterion: Any, step: Any, steps: int = 8) -> list[str]:
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    watched = watch(model, optimizer, criterion, on_finding="log")
    for number in range(steps):
        torch.manual_seed(number)
        optimizer.zero_grad()
        step(criterion).backward()
        optimizer.step()
    watched.close()
    return [f.rule for f in watched.findings if f.is_alarm]


@pytest.mark.parametrize("signs", [True, False])
def test_targets_of_a_margin_are_signs(signs: bool) -> None:
    model = nn.Linear(6, 4)

    def step(criterion: Any) -> Tensor:
        same = torch.randint(2, (16,))
        target = 2 * same - 1 if signs else same
        return criterion(model(torch.randn(16, 6)), model(torch.randn(16, 6)), target)

    found = _alarms(model, nn.CosineEmbeddingLoss(), step)
    assert ("margin_target_not_sign" in found) is not signs


@pytest.mark.parametrize(("first", "logs"), [(1, True), (0, True), (1, False)])
def test_what_ctc_asks_for(first: int, logs: bool) -> None:
    model = nn.Linear(6, 5)

    def step(criterion: Any) -> Tensor:
        out = model(torch.randn(12, 8, 6))
        out = out.log_softmax(-1) if logs else out
        labels = torch.randint(first, 5, (8, 3))
        return criterion(out, labels, torch.full((8,), 12), torch.full((8,), 3))

    found = _alarms(model, nn.CTCLoss(), step)
    assert ("blank_is_a_label" in found) is (first == 0)
    assert ("ctc_of_non_log_probabilities" in found) is not logs


@pytest.mark.parametrize("logarithm", [True, False])
def test_a_rate_is_given_as_the_loss_takes_it(logarithm: bool) -> None:
    model = nn.Sequential(nn.Linear(6, 1), nn.Softplus())

    def step(criterion: Any) -> Tensor:
        return criterion(model(torch.randn(16, 6)), torch.poisson(torch.ones(16, 1)))

    found = _alarms(model, nn.PoissonNLLLoss(log_input=logarithm), step)
    assert ("rate_given_as_logarithm" in found) is logarithm


def test_weights_of_zero_are_no_scale_for_gradients() -> None:
    model = nn.Linear(6, 4)
    for p in model.parameters():
        nn.init.zeros_(p)

    def step(criterion: Any) -> Tensor:
        return criterion(model(torch.randn(16, 6)), torch.randint(4, (16,)))

    assert "gradient_explodes" not in _alarms(model, nn.CrossEntropyLoss(), step)


@pytest.mark.parametrize("smoothing", [0.1, 0.9])
def test_label_smoothing_is_a_small_share(smoothing: float) -> None:
    model = nn.Linear(6, 4)

    def step(criterion: Any) -> Tensor:
        return criterion(model(torch.randn(16, 6)), torch.randint(4, (16,)))

    found = _alarms(model, nn.CrossEntropyLoss(label_smoothing=smoothing), step)
    assert ("label_smoothing_too_high" in found) is (smoothing > 0.5)


@pytest.mark.parametrize("probabilities", [True, False])
def test_targets_of_a_divergence_are_probabilities(probabilities: bool) -> None:
    model = nn.Linear(6, 4)

    def step(criterion: Any) -> Tensor:
        goal = torch.randn(16, 4)
        goal = goal.softmax(1) if probabilities else goal.log_softmax(1)
        return criterion(F.log_softmax(model(torch.randn(16, 6)), 1), goal)

    found = _alarms(model, nn.KLDivLoss(reduction="batchmean"), step)
    assert ("target_out_of_range" in found) is not probabilities


def test_the_look_at_loaded_weights_goes_with_the_watch() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    watched = watch(model, torch.optim.SGD(model.parameters(), 0.1), on_finding="log")
    copied = pickle.loads(pickle.dumps(model))
    copied.load_state_dict(model.state_dict())
    watched.close()
    assert not model._load_state_dict_pre_hooks
    assert not watched.findings


def test_a_summed_loss_is_named_though_gradients_are_clipped() -> None:
    script = base_named("mlp", 0)
    script.steps = 24
    script.criterion = nn.CrossEntropyLoss(reduction="sum")
    script.replace(before_step=lambda: nn.utils.clip_grad_norm_(script.model.parameters(), 1.0))
    assert "loss_summed" in [f.rule for f in script.run(our_adapter) if f.is_alarm]
