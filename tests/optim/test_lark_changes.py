"""Lark where something changes under it: precision, horizon, rank, frozen layers, loaded states."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from optiscope.optim import registry
from optiscope.optim.lark import factors
from optiscope.optim.lark.optimizer import Lark


def trained(parameters: list[nn.Parameter], steps: int = 5, **settings: Any) -> Lark:
    optimizer = Lark(parameters, **settings)
    for _ in range(steps):
        pull(optimizer)
    return optimizer


def pull(optimizer: Lark) -> None:
    """A step towards zero."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = p.detach().clone() if p.requires_grad else None
    optimizer.step()


def square(dtype: torch.dtype = torch.float32, size: int = 6) -> nn.Parameter:
    torch.manual_seed(0)
    return nn.Parameter(4 * torch.randn(size, size + 2).to(dtype))


@pytest.mark.parametrize("horizon", [None, 100_000])
def test_a_float32_state_goes_on_in_bfloat16_with_a_precise_copy(horizon: int | None) -> None:
    weight = square(size=40)
    optimizer = trained([weight], total_steps=horizon, growth=0.0)
    low = nn.Parameter(weight.detach().bfloat16())
    other = Lark([low], total_steps=horizon, growth=0.0)
    other.load_state_dict(optimizer.state_dict())
    for _ in range(200):
        pull(optimizer)
        pull(other)
    torch.testing.assert_close(low.float(), weight.detach(), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_changes_of_a_parameter_from_outside_stay(dtype: torch.dtype) -> None:
    weight = square(dtype)
    optimizer = trained([weight], total_steps=500)
    with torch.no_grad():
        weight[0] = 0.0
    others = weight.detach()[1:].clone()
    pull(optimizer)
    assert float(weight.detach()[0].abs().max()) < 0.1
    assert 0 < float((weight.detach()[1:] - others).abs().max()) < 0.5


def test_a_layer_that_rests_keeps_no_stale_average() -> None:
    resting, moving = square(), square()
    optimizer = trained([resting, moving], steps=60)
    resting.requires_grad_(False)
    last = resting.detach().clone()
    for _ in range(600):
        pull(optimizer)
    optimizer.eval()
    torch.testing.assert_close(resting.detach(), last, rtol=1e-4, atol=1e-4)
    optimizer.train()
    assert torch.equal(resting, last)


@pytest.mark.parametrize("first", [0, 1, 3])
def test_a_layer_finds_its_length_in_whichever_steps_it_has_a_gradient(first: int) -> None:
    heads = [square(size=40), square(size=40)]
    optimizer = Lark(heads, total_steps=400)
    for step in range(200):
        active = int(step % 4 != first)
        heads[active].grad = heads[active].detach().clone()
        heads[1 - active].grad = None
        optimizer.step()
    logs = optimizer.get_log()
    assert [log.age for log in logs] == [9, 9]
    for log in logs:
        assert log.length > 0.1  # six times the first one
        assert log.left_rank > 0


def tensors_held(optimizer: Lark) -> int:
    """Bytes of the memory that states lie in."""
    memory = {
        value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
        for state in optimizer.state.values()
        for value in state.values()
    }
    return sum(memory.values())


def test_layers_that_rest_one_after_another_hold_no_more_than_their_own_memory() -> None:
    layers = [square() for _ in range(8)]
    optimizer = trained(layers, total_steps=1000)
    for layer in layers:
        layer.requires_grad_(False)
        pull(optimizer)
        pull(optimizer)
    numbers = sum(value.numel() for s in optimizer.state.values() for value in s.values())
    assert tensors_held(optimizer) == 4 * numbers


@pytest.mark.parametrize("shape", [(8, 128, 3, 3), (2, 3000), (20, 90)])
def test_equal_layers_resume_bit_for_bit_whatever_their_layout(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layers = [nn.Parameter(torch.randn(shape)) for _ in range(2)]
    optimizer = trained(layers, steps=13, total_steps=60)
    again = [nn.Parameter(p.detach().clone()) for p in layers]
    resumed = Lark(again, total_steps=60)
    resumed.load_state_dict(optimizer.state_dict())
    for _ in range(12):
        gradients = [torch.randn(shape) for _ in layers]
        for p, q, gradient in zip(layers, again, gradients, strict=True):
            p.grad, q.grad = gradient, gradient.clone()
        optimizer.step()
        resumed.step()
    assert all(torch.equal(p, q) for p, q in zip(layers, again, strict=True))


def test_the_horizon_may_be_taken_away_and_given_back_in_any_mode() -> None:
    weight = square()
    optimizer = trained([weight], total_steps=50)
    group = optimizer.param_groups[0]
    group["horizon"] = None
    for _ in range(5):
        pull(optimizer)
    last = weight.detach().clone()
    optimizer.eval()
    assert not torch.equal(weight, last)
    group["horizon"] = 50
    optimizer.train()
    assert torch.equal(weight, last)
    pull(optimizer)
    last = weight.detach().clone()
    optimizer.eval()
    assert torch.equal(weight, last)


def test_a_loaded_horizon_that_replaces_another_is_told() -> None:
    weight = square()
    saved = trained([weight], total_steps=10).state_dict()
    optimizer = Lark([weight], total_steps=30)
    with pytest.warns(RuntimeWarning, match="total_steps=10 replaces total_steps=30"):
        optimizer.load_state_dict(saved)
    optimizer.param_groups[0]["horizon"] = 30
    for _ in range(25):
        pull(optimizer)
    assert optimizer.param_groups[0]["step"] == 30


def test_groups_that_are_used_again_start_anew() -> None:
    groups = [{"params": [square()]}]
    for _ in range(2):
        optimizer = Lark(groups, total_steps=10)
        for _ in range(10):
            pull(optimizer)
        assert optimizer.param_groups[0]["step"] == 10


@pytest.mark.parametrize(
    ("first", "second"), [(torch.float32, torch.float64), (torch.float64, torch.float32)]
)
def test_a_state_goes_on_in_another_precision(first: torch.dtype, second: torch.dtype) -> None:
    weight = square(first)
    optimizer = trained([weight], total_steps=50)
    other = nn.Parameter(weight.detach().to(second))
    continued = Lark([other], total_steps=50)
    continued.load_state_dict(optimizer.state_dict())
    pull(optimizer)
    pull(continued)
    torch.testing.assert_close(other.double(), weight.double(), rtol=1e-5, atol=1e-5)


def test_a_skipped_step_leaves_the_average_where_asking_is_not_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(factors, "asking_is_free", lambda device: False)
    weight, resting = square(), square()
    optimizer = trained([weight, resting])
    before = [optimizer.state[p]["average"].clone() for p in (weight, resting)]
    weight.grad, resting.grad = torch.full_like(weight, torch.nan), None
    optimizer.step()
    for p, average in zip((weight, resting), before, strict=True):
        assert torch.equal(optimizer.state[p]["average"], average)


@pytest.mark.parametrize(("before", "after"), [(0, 8), (4, 8), (8, 0)])
def test_a_rank_changed_later_holds_for_parameters_that_begin_later(
    before: int, after: int
) -> None:
    weight, later = square(size=12), square(size=12)
    later.requires_grad_(False)
    optimizer = trained([weight, later], rank=before, total_steps=100)
    optimizer.param_groups[0]["rank"] = after
    later.requires_grad_(True)
    for _ in range(25):
        pull(optimizer)
    ranks = [optimizer.state[p]["left"].shape[-1] for p in (weight, later)]
    assert ranks == [before, after]


def test_a_state_without_a_layers_own_count_goes_on_at_its_groups() -> None:
    weight = square()
    optimizer = trained([weight], steps=13, total_steps=50)
    saved = copy.deepcopy(optimizer.state_dict())
    for state in saved["state"].values():
        del state["step"]
    again = nn.Parameter(weight.detach().clone())
    other = Lark([again], total_steps=50)
    other.load_state_dict(saved)
    pull(optimizer)
    pull(other)
    assert torch.equal(again, weight)


def test_states_of_others_are_refused() -> None:
    weight, other = square(), square(size=7)
    with pytest.raises(ValueError, match="expected the state of a Lark, got a group without"):
        Lark([weight]).load_state_dict(torch.optim.AdamW([weight]).state_dict())
    optimizer = Lark([other])
    with pytest.raises(ValueError, match=r"shape \[7, 9\] for parameter 0, got .*\[6, 8\]"):
        optimizer.load_state_dict(trained([weight]).state_dict())
    assert not optimizer.state


def test_what_hooks_make_of_a_loaded_state_counts() -> None:
    weight = square()
    saved = trained([weight], total_steps=50).state_dict()
    optimizer = Lark([weight], total_steps=50)

    def doubled(_: Any, state: dict[str, Any]) -> dict[str, Any]:
        kept = {k: {**v, "momentum": 2 * v["momentum"]} for k, v in state["state"].items()}
        return {**state, "state": kept}

    optimizer.register_load_state_dict_pre_hook(doubled)
    optimizer.load_state_dict(saved)
    expected = 2 * saved["state"][0]["momentum"]
    assert torch.equal(optimizer.state[weight]["momentum"], expected)


@pytest.mark.filterwarnings("ignore:Lark. horizon is now named:FutureWarning")
@pytest.mark.parametrize("name", ["total_steps", "horizon"])
def test_the_number_of_steps_has_two_names_and_either_may_be_changed(name: str) -> None:
    weight, other = square(), square()
    optimizer = Lark([{"params": [weight], name: 20}, {"params": [other]}], total_steps=50)
    both = [(group["total_steps"], group["horizon"]) for group in optimizer.param_groups]
    assert both == [(20, 20), (50, 50)]
    saved = optimizer.state_dict()
    optimizer.param_groups[1][name] = 30
    pull(optimizer)
    changed = optimizer.param_groups[1]
    assert (changed["total_steps"], changed["horizon"]) == (30, 30)
    for group in saved["param_groups"]:
        del group["horizon" if name == "total_steps" else "total_steps"]
    again = Lark([{"params": [weight]}, {"params": [other]}])
    again.load_state_dict(saved)
    pull(again)
    assert [group["horizon"] for group in again.param_groups] == [20, 50]


def test_the_former_name_is_accepted_with_one_line() -> None:
    first, second = square(), square()
    with pytest.warns(FutureWarning, match="horizon is now named total_steps") as said:
        old = trained([first], horizon=9)
    assert [(len(said), Path(one.filename)) for one in said] == [(1, Path(__file__))]
    with pytest.warns(FutureWarning) as said:
        Lark([{"params": [square()], "horizon": 9}, {"params": [square()]}])
    assert len(said) == 1
    new = trained([second], total_steps=9)
    assert torch.equal(first, second)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = trained([square()], total_steps=9, steps=0)
        again.load_state_dict(old.state_dict())
        Lark(copy.deepcopy(new).param_groups)


@pytest.mark.parametrize("name", ["horizon", "total_steps"])
def test_trials_may_carry_either_name_in_silence(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        bound = registry.bind("lark", {name: 7, "rank": 4})
        groups = [{"params": [square()]}]
        given = bound(groups, horizon=70, steps_per_epoch=7).param_groups[0]
        told = registry.bind("lark", {})(groups, horizon=70, steps_per_epoch=7).param_groups[0]
        free = registry.bind("lark", {name: None})(groups, horizon=70, steps_per_epoch=7)
    assert (given["total_steps"], told["total_steps"]) == (7, 70)
    assert free.param_groups[0]["total_steps"] is None
    assert bound.hyperparameters == {name: 7, "rank": 4}, "what a trial's hash is made of"


def test_two_numbers_of_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="expected total_steps or horizon, its former name"):
        Lark([square()], total_steps=5, horizon=6)
