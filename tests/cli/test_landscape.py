"""``optiscope landscape``: weight files in, a page and figures out, refusals in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from optiscope.objective.weight_files import WeightFileError, read_weights
from optiscope.problems import get

if TYPE_CHECKING:
    from conftest import Command


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three checkpoints on the way of a small network, the last two from another start."""
    folder = tmp_path_factory.mktemp("weights")
    problem = get("digits_rnn")
    inputs, targets = problem.data(None).train.select(torch.arange(300))
    paths = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = problem.make_model()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for step in range(120):
            if (seed, step) == (1, 60):
                paths.append(folder / "half.pt")
                torch.save(model.state_dict(), paths[-1])
            optimizer.zero_grad()
            problem.loss(model(inputs), targets).mean().backward()
            optimizer.step()
        paths.insert(seed, folder / f"{seed}.pt")
        torch.save({"state_dict": model.state_dict(), "epoch": 3}, paths[seed])
    return paths


def asked(optiscope: Command, tmp_path: Path, *arguments: object) -> dict[str, Any]:
    outcome = optiscope(
        "landscape", *arguments, "--problem", "digits_rnn", "--samples", 300, "--out", tmp_path,
        "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)
    page = (tmp_path / "landscape.html").read_text()
    assert "loads nothing from the network" in page
    assert not re.search(r'(src|href)="https?:', page)
    return found


def test_line(optiscope: Command, tmp_path: Path, weights: list[Path]) -> None:
    found = asked(optiscope, tmp_path, "line", *weights[:2], "--points", 7)["line"]
    assert {0.0, 1.0} <= set(found["coefficients"])
    assert set(found["losses"]) == set(found["accuracies"]) == {"train", "test"}
    assert (tmp_path / "line.png").stat().st_size > 10_000
    assert (tmp_path / "line.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(("count", "words"), [(1, "filter"), (2, None), (3, "three solutions")])
def test_plane(
    optiscope: Command, tmp_path: Path, weights: list[Path], count: int, words: str | None
) -> None:
    chosen = weights[:count]
    if count == 2:
        outcome = optiscope("landscape", "plane", *chosen, "--problem", "digits_rnn")
        assert outcome.code == 2
        assert "at least 3 points" in outcome.err
        return
    found = asked(optiscope, tmp_path, "plane", *chosen, "--points", 5, "--processes", 1)["plane"]
    assert len(found["losses"]) == 5
    assert found["not_finite"] == 0
    page = (tmp_path / "landscape.html").read_text()
    assert words is not None
    assert words in page
    assert '<canvas class="surface"' in page
    for name in ("plane", "surface"):
        assert (tmp_path / f"{name}.png").exists()


def test_path_match_and_basins(optiscope: Command, tmp_path: Path, weights: list[Path]) -> None:
    path = asked(
        optiscope, tmp_path, "path", *weights[:2], "--gradients", 40, "--any-ends"
    )["path"]  # fmt: skip
    assert path["barrier"] <= path["line_barrier"]
    saved = tmp_path / "matched.pt"
    match = asked(optiscope, tmp_path, "match", *weights[:2], "--save", saved)["match"]
    assert match["same_function"]
    assert match["units"] == 64
    assert read_weights(saved).keys() == read_weights(weights[0]).keys()
    basins = asked(
        optiscope, tmp_path, "basins", *weights[:2], "--tolerance", 100, "--gradients", 10
    )["basins"]  # fmt: skip
    assert basins["same"]
    assert basins["verdict"].startswith("same basin")


def test_runs_that_kept_their_weights(optiscope: Command, tmp_path: Path) -> None:
    runs = []
    for seed in (0, 1):
        outcome = optiscope(
            "run", "digits_logreg", "sgd", "--set", "lr=0.1", "--seed", seed, "--epochs", 3,
            "--out", tmp_path / "runs", "--keep-weights", "1-3", "--json",
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
        assert "weights: of 3 epochs, 1 to 3" in outcome.err
        runs.append(Path(outcome.err.partition("record: ")[2].splitlines()[0]))
    few = ("--samples", 60, "--out", tmp_path / "page", "--json")
    ways = {
        "line": ("line", *runs, "--points", 4),
        "line of an epoch": ("line", *runs, "--epoch", 1, "--points", 4),
        "files": ("line", *(run / "weights" / "epoch_2.safetensors" for run in runs)),
        "way": ("plane", runs[0], "--points", 3),
        "around": ("plane", runs[0], "--epoch", 2, "--points", 3),
    }
    found = {}
    for name, arguments in ways.items():
        outcome = optiscope("landscape", *arguments, *few)
        assert outcome.code == 0, outcome.err
        found[name] = json.loads(outcome.out)
    assert found["line"]["line"]["distance"] > found["line of an epoch"]["line"]["distance"] * 0.5
    assert found["way"]["plane"]["share"] is not None
    assert found["around"]["plane"]["share"] is None
    outcome = optiscope("landscape", "line", *runs, "--epoch", 7)
    assert outcome.code == 2
    assert "(1, 2, 3), got 7" in outcome.err
    outcome = optiscope("spectrum", runs[0], "--epoch", 1, "--samples", 40, "--top", 2)
    assert outcome.code == 0, outcome.err
    assert "epoch 1" in outcome.out


def test_a_first_look_trains_and_draws(optiscope: Command, tmp_path: Path) -> None:
    outcome = optiscope(
        "landscape", "digits_logreg", "--epochs", 1, "--samples", 50, "--out", tmp_path
    )
    assert outcome.code == 0, outcome.err
    for word in ("plane: ", "line: ", "path: ", "page: "):
        assert word in outcome.out
    assert "% of the variance" in outcome.out
    for name in ("plane", "surface", "line", "path"):
        assert (tmp_path / f"{name}.png").exists()


def test_refusals_take_one_line(optiscope: Command, tmp_path: Path, weights: list[Path]) -> None:
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no weights")
    for arguments, words in (
        (("line", *weights[:2]), "Missing option '--problem'"),
        (("line", weights[0], "--problem", "digits_rnn"), "expected 2 weight files or runs, got 1"),
        (("line", broken, broken, "--problem", "digits_rnn"), "expected weights in"),
        (("line", tmp_path / "none.pt", broken, "--problem", "digits_rnn"), "cannot read"),
        (("line", *weights[:2], "--problem", "digits_mpl"), "did you mean"),
        (("line", *weights[:2], "--problem", "digits_mlp"), "among the given tensors"),
        (("digits_mpl",), "did you mean"),
    ):
        outcome = optiscope("landscape", *arguments)
        assert outcome.code in (2, 3), outcome.err
        assert words in outcome.err
        assert len(outcome.err.splitlines()) == 1


def safetensors(tensors: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    """A file as the safetensors format describes it."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, (dtype, shape, numbers) in tensors.items():
        place = [len(data), len(data) + len(numbers)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": place}
        data += numbers
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_safetensors_are_read(tmp_path: Path) -> None:
    weight = torch.randn(2, 3)
    steps = torch.tensor(7)
    path = tmp_path / "model.safetensors"
    path.write_bytes(
        safetensors(
            {
                "weight": ("F32", [2, 3], weight.numpy().tobytes()),
                "steps": ("I64", [], steps.numpy().tobytes()),
                "half": ("BF16", [2], torch.ones(2).bfloat16().view(torch.int16).numpy().tobytes()),
                "empty": ("F64", [0, 4], b""),
            }
        )
    )
    found = read_weights(path)
    assert torch.equal(found["weight"], weight)
    assert torch.equal(found["steps"], steps)
    assert found["half"].tolist() == [1.0, 1.0]
    assert found["empty"].shape == (0, 4)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        (3).to_bytes(8, "little") + b"[1]",
        safetensors({"w": ("F32", [2], b"1234")}),
        safetensors({"w": ("F99", [1], b"1234")}),
        safetensors({"w": ("F32", [-1], b"1234")}),
    ],
)
def test_damaged_safetensors_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightFileError, match="expected weights in"):
        read_weights(path)


def test_what_would_execute_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(nn.Linear(2, 2), path)  # a pickled module
    with pytest.raises(WeightFileError, match="without executing code"):
        read_weights(path)
    torch.save([1, 2], path)
    with pytest.raises(WeightFileError, match="expected a state dict"):
        read_weights(path)
