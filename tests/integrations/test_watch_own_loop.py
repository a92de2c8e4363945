"""The watch in our own loop, and the comparison of activations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import optiscope
from optiscope.cli.root import root
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
    assert "3 seeds" in result.sentence
    with pytest.raises(ValueError, match="activations"):
        compare_activations(nn.Linear(6, 3), nn.functional.cross_entropy, x, y)


def test_activations_are_compared_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tanh_setup.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "def setup():\n"
        "    x = torch.randn(200, 6)\n"
        "    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))\n"
        "    return dict(model=model, loss=nn.CrossEntropyLoss(), train=(x, x[:, :3].argmax(1)))\n"
        "def plain():\n"
        "    return {**setup(), 'model': nn.Linear(6, 3)}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    run = CliRunner().invoke
    options = ["--steps", "20", "--seeds", "2", "--json"]
    answer = run(root, ["doctor", "activations", "tanh_setup:setup", *options])
    assert answer.exit_code == 0, answer.output
    figures = json.loads(answer.output)
    assert figures["replaced"] == ["1"]
    assert len(figures["before"]) == len(figures["after"]) == 2
    assert figures["interval"][0] <= figures["difference"] <= figures["interval"][1]
    answer = run(root, ["doctor", "activations", "tanh_setup:plain", *options])
    assert answer.exit_code != 0
