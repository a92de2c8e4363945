"""The problems to develop optimizers on: sizes by hand, first losses, fresh parts of each epoch."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from optiscope import problems, run
from optiscope.cli.root import root
from optiscope.data.samples import TensorSamples
from optiscope.problems.development.generated import propagation
from optiscope.problems.development.parts import RandomParts
from optiscope.problems.development.source_text import PASSAGE, VOCABULARY, source_tokens
from optiscope.testing.problems import ProblemConformance

DEVELOPMENT = problems.entries(development=True)
WITHOUT_FILES = [e.name for e in DEVELOPMENT if e.dataset in ("python_sources", "synthetic")]


def _suite(name: str, tolerance: float) -> type[ProblemConformance]:
    # a line of source may occur in two modules, but a window of 32 characters hardly ever does
    settings = {"problem": name, "batch": 3, "first_loss_tolerance": tolerance}
    return type(f"Test_{name}", (ProblemConformance,), settings)


for _entry in DEVELOPMENT:
    if _entry.name in WITHOUT_FILES:
        globals()[f"Test_{_entry.name}"] = _suite(_entry.name, 0.02)
    else:
        _marked = pytest.mark.slow(pytest.mark.usefixtures("real_data")(_suite(_entry.name, 0.02)))
        globals()[f"Test_{_entry.name}"] = _marked


@pytest.mark.parametrize("entry", DEVELOPMENT, ids=lambda entry: entry.name)
def test_the_catalogue_announces_the_problem(entry: problems.Entry) -> None:
    problem = problems.get(entry.name)
    said = (entry.name, entry.dataset, entry.parameters, entry.batch_size, entry.epochs)
    found = (
        problem.name,
        problem.dataset,
        problem.parameters,
        problem.batch_size,
        problem.epochs,
    )
    assert said == found
    assert all(entry.epochs % part == 0 for part in (1, 2, 3, 4, 6, 8))
    assert problem.source
    assert problem.licence


def test_they_are_listed_only_when_asked_for() -> None:
    names = [entry.name for entry in DEVELOPMENT]
    assert len(names) == 9
    assert not set(names) & set(problems.names())
    plain = CliRunner().invoke(root, ["list", "problems", "--json"])
    asked = CliRunner().invoke(root, ["list", "problems", "--development", "--json"])
    assert not set(names) & {row["name"] for row in json.loads(plain.output)}
    assert names == [row["name"] for row in json.loads(asked.output)]


BLOCK_48 = 12 * 48**2 + (3 + 1 + 4 + 1) * 48 + 4 * 48  # four products, their biases, two norms
BLOCK_64 = 12 * 64**2 + (3 + 1 + 4 + 1) * 64 + 4 * 64
COUNTS = {
    "dev_logreg": 784 * 10 + 10,
    "dev_resnet": (9 * 12 + 24)
    + (2 * 9 * 12 * 12 + 2 * 24)
    + (9 * 12 * 24 + 9 * 24 * 24 + 2 * 48)
    + (24 * 10 + 10),
    "dev_mixer": (49 * 64 + 64)
    + 2 * (2 * 128 + (16 * 32 + 32 + 32 * 16 + 16) + (64 * 128 + 128 + 128 * 64 + 64))
    + 128
    + (64 * 10 + 10),
    "dev_vit": (49 * 48 + 48) + 16 * 48 + 2 * BLOCK_48 + 96 + (48 * 10 + 10),
    "dev_autoencoder": sum(
        a * b + b for a, b in [(784, 200), (200, 64), (64, 16), (16, 64), (64, 200), (200, 784)]
    ),
    "dev_gpt": 97 * 64 + 48 * 64 + 2 * BLOCK_64 + 128 + 64 * 97,
    "dev_gru": 97 * 48 + 3 * 96 * (48 + 96 + 2) + (96 * 97 + 97),
    "dev_graph": (8 * 48 + 48) + 2 * (48 * 48 + 48) + (48 * 5 + 5),
    "dev_recommender": (1500 + 800) * 24 + (48 * 64 + 64) + (64 + 1),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_counted_by_hand(name: str) -> None:
    problem = problems.get(name)
    model = problem.make_model()
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name] == problem.parameters


def _first(name: str, inputs: torch.Tensor, targets: torch.Tensor) -> float:
    torch.manual_seed(0)
    problem = problems.get(name)
    with torch.no_grad():
        return problem.loss(problem.make_model().eval()(inputs), targets).mean().item()


@pytest.mark.parametrize(
    ("name", "classes", "tolerance"),
    [
        ("dev_logreg", 10, 1e-6),  # the last layer is zero
        ("dev_mixer", 10, 1e-6),
        ("dev_vit", 10, 0.02),  # weights of 0.02 on 48 normalized values: ½ · 48 · 0.02²
        ("dev_resnet", 10, 0.6),
    ],
)
def test_first_loss_of_images(name: str, classes: int, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(64, 1, 28, 28, generator=generator)
    targets = torch.randint(classes, (64,), generator=generator)
    assert _first(name, inputs, targets) == pytest.approx(math.log(classes), abs=tolerance)


@pytest.mark.parametrize(
    ("name", "length", "tolerance"),
    [("dev_gpt", 48, 0.05), ("dev_gru", 32, 0.08)],  # logits: ½ · 64 · 0.02²; below ½ · 1/3
)
def test_first_loss_of_text(name: str, length: int, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(VOCABULARY, (16, length + 1), generator=generator)
    found = _first(name, tokens[:, :-1], tokens[:, 1:])
    assert found == pytest.approx(math.log(VOCABULARY), abs=tolerance)


def test_first_loss_of_generated_data() -> None:
    clicks = problems.get("dev_recommender").data(None).valid
    batch = clicks.select(torch.arange(len(clicks)))
    assert _first("dev_recommender", *batch) == pytest.approx(math.log(2), abs=2e-3)
    graphs = problems.get("dev_graph").data(None).valid
    batch = graphs.select(torch.arange(len(graphs)))
    assert _first("dev_graph", *batch) == pytest.approx(math.log(5), abs=0.2)


def test_an_autoencoder_starts_near_the_squared_norm_of_an_image() -> None:
    """Six He layers keep the mean square of their input but for the last, which has no ReLU."""
    images = torch.rand(32, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    norm = images.square().flatten(1).sum(1).mean().item()
    assert norm < _first("dev_autoencoder", images, images) < 6 * norm


def test_an_epoch_takes_a_fresh_part_without_repetition() -> None:
    pool = TensorSamples(torch.arange(50), torch.arange(50))
    parts = RandomParts(pool, 20)
    order = torch.arange(20).view(5, 4)

    def epoch(seed: int, steps: torch.Tensor = order) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.cat([batch.inputs for batch in parts.batches(steps, generator)])

    assert len(parts) == 20
    assert len(epoch(1).unique()) == 20
    assert torch.equal(epoch(1), epoch(1))
    assert not torch.equal(epoch(1).sort().values, epoch(2).sort().values)
    assert torch.equal(epoch(1, order[2:]), epoch(1)[8:]), "resumed in mid-epoch: another part"
    assert torch.equal(
        parts.subset(torch.tensor([3])).select(torch.tensor([0])).inputs, order[0, 3:]
    )
    with pytest.raises(ValueError, match="got count=51"):
        RandomParts(pool, 51)


def test_propagation_of_a_path_of_three_nodes() -> None:
    """D^(-1/2) (A + I) D^(-1/2) with degrees 2, 3, 2 (loops counted)."""
    path = torch.tensor([[[0.0, 1, 0], [1, 0, 1], [0, 1, 0]]])
    side = 1 / math.sqrt(6)
    expected = torch.tensor([[[0.5, side, 0], [side, 1 / 3, side], [0, side, 0.5]]])
    torch.testing.assert_close(propagation(path), expected)


def test_sources_are_text_of_this_interpreter() -> None:
    tokens = source_tokens()
    assert tokens.shape[1] == PASSAGE
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < VOCABULARY
    assert len(tokens) >= 200  # of fifty files; a version may lack a few
    letters = "".join(chr(31 + i) if 0 < i < 96 else "\n" for i in tokens.flatten().tolist())
    assert "def __init__(self" in letters
    assert torch.equal(tokens, source_tokens())


@pytest.mark.parametrize("name", ["dev_graph", "dev_gru"])
def test_a_run_of_one_epoch_lowers_the_loss_and_repeats(name: str) -> None:
    problem = replace(problems.get(name), name=f"my_{name}")
    runs = [run(problem, "adamw", hyperparameters={"lr": 3e-3}, seed=3, epochs=1) for _ in range(2)]
    assert runs[0].final == runs[1].final
    curve = runs[0].curve("valid", "loss")[1]
    assert curve[-1] < curve[0]
