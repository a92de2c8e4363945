"""Devices by name: refused with a reason where they are not, whatever command asks."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner

import optiscope
from optiscope.cli.root import root
from optiscope.study import StudyError, load_study
from optiscope.train.loop import TrialError, check_device


@pytest.mark.parametrize("command", ["run digits_mlp sgd", "bench quickstart", "time digits_mlp"])
@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:-1", "CPU", "", "x" * 1000])
def test_a_name_that_is_none_is_a_usage_error(command: str, device: str) -> None:
    result = CliRunner().invoke(root, [*command.split(), "--device", device])
    assert result.exit_code == 2
    assert "expected cpu, cuda, cuda:1 (the second GPU), xpu or mps" in " ".join(
        result.output.replace("│", " ").split()
    )


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "xpu", "mps"])
def test_a_device_that_is_not_there_is_one_line(name: str) -> None:
    device = torch.device(name)
    if torch.get_device_module(device).is_available():
        pytest.skip(f"{name} is there")
    with pytest.raises(TrialError, match=f"device '{name}' needs a GPU .* got none: use 'cpu'"):
        check_device(device)
    with pytest.raises(ValueError, match="got none"):
        optiscope.run("digits_mlp", "sgd", hyperparameters={"lr": 0.1}, device=name)


def test_a_device_beyond_those_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    check_device(torch.device("cuda:0"))
    with pytest.raises(TrialError, match="device 'cuda:7' is not there: torch sees 1"):
        check_device(torch.device("cuda:7"))


def test_a_study_may_name_one_of_several_devices(tmp_path) -> None:
    text = (
        'name = "s"\nquestion = "q"\nproblems = ["digits_mlp"]\nseeds = [1, 2]\n'
        'device = "{}"\n[[algorithms]]\noptimizer = "sgd"\nfixed = {{ lr = 0.1 }}\n'
    )
    path = tmp_path / "s.toml"
    path.write_text(text.format("cuda:1"))
    assert load_study(path).device == "cuda:1"
    path.write_text(text.format("gpu"))
    with pytest.raises(StudyError, match="line 5: device"):
        load_study(path)
