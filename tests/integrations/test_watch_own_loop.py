"""The watch in our own loop, and the comparison of activations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import optiscope
from optiscope.doctor.comparison import compare_activations
from optiscope.integrations.training_loop import WatchInstrument


@pytest.mark.parametrize("optimizer", ["momentum", "lark"])
def test_our_own_loop_is_healthy_and_the_same_with_a_watch(optimizer: str) -> None:
    watcher = WatchInstrument(every=10)
    runs = [
        optiscope.run("digits_mlp", optimizer, epochs=2, threads=1, instruments=instruments)
        for instruments in ([], [watcher])
    ]
    assert watcher.watch is not None
    assert not watcher.watch.failures
    assert [str(f) for f in watcher.findings if f.is_alarm] == []
    plain, watched = ([m for m in run.metrics if "seconds" not in m.name] for run in runs)
    assert plain
    assert plain == watched


def test_activations_are_compared_in_pairs() -> None:
    model = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 3))
    x = torch.randn(200, 6)
    y = x[:, :3].argmax(1)
    state, generator = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    result = compare_activations(
        model, nn.functional.cross_entropy, x, y, steps=30, seeds=(0, 1, 2)
    )
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    assert torch.equal(generator, torch.get_rng_state())
    assert result.replaced == ("1",)
    assert len(result.before) == 3
    assert result.interval[0] <= result.difference <= result.interval[1]
    assert "over 3 seeds" in result.sentence
    with pytest.raises(ValueError, match="activations"):
        compare_activations(nn.Linear(6, 3), nn.functional.cross_entropy, x, y)
