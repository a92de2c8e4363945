"""A watched run equals an unwatched one bit for bit, and a closed watch leaves nothing behind."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import random
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import optiscope
from optiscope.doctor.watching import FindingError, FindingWarning

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "momentum": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-7, weight_decay=0.1),  # so small that it is probed
}


def make_model() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 4)
    )


def train(make: Callable[[Any], Any], *, watched: bool, steps: int = 120) -> list[Any]:
    """Losses, weights, buffers and the state of every generator after a short run."""
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    model, criterion = make_model(), nn.CrossEntropyLoss()
    optimizer = make(model.parameters())
    watch = optiscope.watch(model, optimizer, criterion, on_finding="log") if watched else None
    x, y = torch.randn(256, 12), torch.randint(0, 4, (256,))
    losses = []
    for step in range(steps):
        picked = torch.randperm(256)[:32]
        optimizer.zero_grad()
        loss = criterion(model(x[picked]), y[picked])
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        if step % 20 == 19:
            model.eval()
            with torch.no_grad():
                losses.append(model(x[:64]).sum())
            model.train()
    if watch is not None:
        watch.close()
        assert not watch.failures
    state = [v.clone() for v in model.state_dict().values()]
    return [*losses, *state, torch.get_rng_state(), random.random(), np.random.rand()]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_watched_run_is_the_same_bit_for_bit(name: str) -> None:
    plain, watched = (train(OPTIMIZERS[name], watched=w) for w in (False, True))
    assert len(plain) == len(watched)
    for a, b in zip(plain, watched, strict=True):
        same = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        assert same


def one_step(model: nn.Module, optimizer: Any, criterion: nn.Module) -> None:
    optimizer.zero_grad()
    criterion(model(torch.randn(8, 12)), torch.randint(0, 4, (8,))).backward()
    optimizer.step()


def test_closing_leaves_no_hook_and_no_garbage() -> None:
    model, criterion = make_model(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    with optiscope.watch(model, optimizer, criterion) as watch:
        for _ in range(12):
            one_step(model, optimizer, criterion)
        assert model._forward_hooks
    for module in (model, criterion):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._forward_hooks_with_kwargs
        assert not module._forward_pre_hooks_with_kwargs
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert not sys.modules["torch.optim.optimizer"]._global_optimizer_pre_hooks
    for p in model.parameters():
        assert not p._backward_hooks
        assert not p._post_accumulate_grad_hooks
    references = [weakref.ref(o) for o in (model, optimizer, watch.session)]
    gc.collect()
    gc.disable()
    try:
        del model, optimizer, watch, criterion, module, p
        assert all(reference() is None for reference in references[:2])
    finally:
        gc.enable()
    gc.collect()
    assert references[2]() is None


def test_a_watched_model_can_be_copied_pickled_and_saved() -> None:
    model, criterion = make_model(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watch = optiscope.watch(model, optimizer, criterion)
    one_step(model, optimizer, criterion)
    other = copy.deepcopy(model)
    pickle.loads(pickle.dumps(model))
    torch.save(model, io.BytesIO())
    seen = watch.session.forwards_seen
    other(torch.randn(3, 12))
    assert watch.session.forwards_seen == seen
    watch.close()
    watch.close()


def test_findings_warn_raise_or_call() -> None:
    def broken(on_finding: Any, **options: Any) -> Any:
        model, criterion = make_model(), nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        watch = optiscope.watch(model, optimizer, criterion, on_finding=on_finding, **options)
        for _ in range(4):
            criterion(model(torch.randn(8, 12)), torch.randint(0, 4, (8,))).backward()
            optimizer.step()
        watch.close()
        return watch

    with pytest.warns(FindingWarning, match="zero_grad"):
        watch = broken("warn")
    (finding,) = watch.findings
    assert (finding.rule, finding.severity, finding.step) == ("gradient_not_cleared", "error", 1)
    assert finding.count == 3
    with pytest.raises(FindingError, match="zero_grad"):
        broken("raise")
    called: list[Any] = []
    broken(called.append)
    assert [f.rule for f in called] == ["gradient_not_cleared"]
    expected = broken("warn", expects="gradient_not_cleared")
    assert [f.severity for f in expected.findings] == ["note"]
    assert broken("warn", rules="ownership").findings == ()


def test_wrong_arguments_are_refused() -> None:
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(TypeError, match="Module"):
        optiscope.watch(lambda x: x, optimizer)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Optimizer"):
        optiscope.watch(model, object())
    with pytest.raises(optiscope.errors.OptiscopeError, match="did you mean 'rate_rising'"):
        optiscope.watch(model, optimizer, expects="rate_risin")
