"""``optiscope spectrum`` on a problem, a file of weights and a run's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from optiscope import problems
from optiscope.cli import main


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["spectrum", *arguments])
    return int(stop.value.code or 0)


def test_json_and_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = tmp_path / "deep" / "spectrum.png"
    code = call("digits_logreg", "--samples", "64", "--top", "6", "--density", "--split", "--json",
                "--figure", str(figure))  # fmt: skip
    values = json.loads(capsys.readouterr().out)
    assert code == 0
    assert figure.stat().st_size > 10_000
    assert len(values["eigenvalues"]) == len(values["residuals"]) == 6
    assert all(values["converged"])
    assert values["outliers"]["low"] <= values["outliers"]["count"] <= values["outliers"]["high"]
    assert values["split"]["finding"].startswith("R = 0")  # a linear model
    assert values["samples"] == 64
    assert values["density"]["atoms"] == values["eigenvalues"]


def test_weights_from_a_file_and_a_layer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = problems.get("digits_mlp")
    torch.manual_seed(3)
    model = problem.make_model()
    path = tmp_path / "weights.pt"
    torch.save(model.state_dict(), path)
    layer = next(iter(model.state_dict())).rpartition(".")[0]
    arguments = ("--samples", "32", "--top", "2", "--layer", layer)
    assert call("digits_mlp", "--weights", str(path), *arguments) == 0
    text = capsys.readouterr().out
    assert "weights.pt" in text
    assert "no repeated eigenvalue was missed" in text
    run = tmp_path / "run"
    (run / "weights").mkdir(parents=True)
    assert call(str(run)) == 2
    (run / "run.json").write_text(json.dumps({"trial": {"problem": "digits_mlp"}}))
    assert call(str(run)) == 2
    assert "--keep-weights" in capsys.readouterr().err
    from safetensors.torch import save_file

    save_file(model.state_dict(), run / "weights" / "epoch_3.safetensors")
    assert call(str(run), *arguments) == 0
    assert "epoch 3" in capsys.readouterr().out
    assert call(str(run), "--epoch", "4") == 2


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.pt"
    bad.write_bytes(b"not a state dict")
    for arguments, code, match in [
        (("digits_lgreg",), 2, "did you mean"),
        (("digits_logreg", "--weights", str(bad)), 3, "expected weights in"),
        (("digits_logreg", "--weights", str(tmp_path / "none.pt")), 3, "No such file"),
        (("digits_logreg", "--figure", "x.txt"), 2, ".png"),
        (("digits_logreg", "--layer", "nothing"), 2, "layer"),
    ]:
        assert call(*arguments, "--samples", "16") == code
        assert match in capsys.readouterr().err
