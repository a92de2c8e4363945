"""``optiscope show``: it prints what the problem is, writes pictures, refuses in one line."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from rich.style import Style
from rich.text import Text

from optiscope.cli.function_words import meaning_of, name_of
from optiscope.cli.half_blocks import image_text, side_by_side, within
from optiscope.data import compose, horizontal_flip, pad_and_crop
from optiscope.problems import entries, get
from optiscope.problems.textbook.trajectory import trajectory

if TYPE_CHECKING:
    from conftest import Command


def shown(optiscope: Command, *arguments: object) -> dict[str, object]:
    outcome = optiscope("show", *arguments, "--json")
    assert outcome.code == 0, outcome.err
    found: dict[str, object] = json.loads(outcome.out)
    return found


def test_the_definition_is_the_problems(optiscope: Command) -> None:
    found = shown(optiscope, "digits_conv_groups")
    problem = get("digits_conv_groups")
    data = problem.data(None)
    assert found["batch_size"] == problem.batch_size
    assert found["steps_per_epoch"] == len(data.train) // problem.batch_size
    assert found["licence"] == problem.licence
    model, described, groups = found["model"], found["data"], found["groups"]
    assert isinstance(model, dict)
    assert isinstance(described, dict)
    assert isinstance(groups, list)
    assert model["made_by"] == "small_convolutional"
    assert sum(row["parameters"] for row in model["layers"]) == problem.parameters
    assert sum(group["parameters"] for group in groups) == problem.parameters
    assert {g["name"]: g["l2"] for g in groups}["hidden"] == 4e-3
    assert described["sizes"]["training"] == 1197
    assert described["input_shape"] == [1, 8, 8]
    counts = torch.bincount(data.test.targets).tolist()
    assert [row["test"] for row in described["classes"]] == counts


def test_the_terminal_shows_every_section(optiscope: Command) -> None:
    outcome = optiscope("show", "digits_conv_groups")
    assert outcome.code == 0
    for words in (
        "small_convolutional: Two 3×3 convolutions",
        "1,197 training, 300 training evaluation, 300 validation, 300 test",
        "SameConv2d(16, 32, 3×3)",
        "½ · 0.004 · ‖w‖²",
        "× 0.5",
        "Class balance",
        "Samples",
    ):
        assert words in outcome.out, words
    assert "\x1b" not in outcome.out, "colours went to something that is no terminal"


@pytest.mark.parametrize(
    "name", [e.name for e in entries() if e.dataset in ("digits", "synthetic")]
)
def test_every_problem_at_hand_can_be_shown(name: str, optiscope: Command) -> None:
    outcome = optiscope("show", name)
    assert outcome.code == 0, outcome.err
    assert f"{get(name).parameters:,}" in outcome.out
    longest = max(len(line) for line in outcome.out.splitlines())
    assert longest <= 200


def test_a_problem_without_its_data_is_shown_as_far_as_known(
    tmp_path: Path, optiscope: Command
) -> None:
    outcome = optiscope("show", "fmnist_2c2d", "--data-dir", tmp_path)
    assert outcome.code == 0
    assert "not here: data set fashion_mnist not found" in outcome.out
    assert "3,274,634" in outcome.out
    assert "Published: DeepOBS 1.2.0 beta, PyTorch" in outcome.out
    assert "Class balance" not in outcome.out
    found = shown(optiscope, "fmnist_2c2d", "--data-dir", tmp_path)
    assert "steps_per_epoch" not in found
    assert optiscope("show", "fmnist_2c2d", "--spread", "--data-dir", tmp_path).code == 3


def test_spread_under_several_rules(tmp_path: Path, optiscope: Command) -> None:
    figure = tmp_path / "new" / "spread.png"
    found = shown(
        optiscope, "digits_mlp", "--spread", "--init", "he_normal", "--init",
        "truncated_normal,std=0.001", "--figure", figure,
    )  # fmt: skip
    spread = found["spread"]
    assert isinstance(spread, dict)
    he, small = spread["he_normal"], spread["truncated_normal,std=0.001"]
    assert [row["kind"] for row in he] == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert he[-1]["std"] > 1000 * small[-1]["std"] > 0
    with Image.open(figure) as picture:
        assert min(picture.size) > 300
    table = optiscope("show", "digits_mlp", "--spread", "--samples", 64).out
    assert "Spread at initialisation: the problem's own, 64 samples" in table


def test_the_ground_alone_can_be_drawn(tmp_path: Path, optiscope: Command) -> None:
    figure = tmp_path / "ground.png"
    assert optiscope("show", "textbook_saddle", "--figure", figure).code == 0
    with Image.open(figure) as picture:
        assert min(picture.size) > 300


def test_trajectories_of_chosen_optimizers(tmp_path: Path, optiscope: Command) -> None:
    figure = tmp_path / "saddle.svg"
    newton = "optiscope.optim.saddle_free_newton:SPEC"
    found = shown(
        optiscope, "textbook_saddle", "--trajectory", "sgd,lr=1.0", "--trajectory", newton,
        "--steps", 20, "--figure", figure,
    )  # fmt: skip
    walked = found["trajectories"]
    assert isinstance(walked, dict)
    own = trajectory(get("textbook_saddle"), partial(torch.optim.SGD, lr=1.0), 20)
    np.testing.assert_allclose(walked["sgd,lr=1.0"]["points"], own.points)
    assert walked[newton]["losses"][-1] == pytest.approx(-0.0125, rel=1e-3)
    assert "<svg" in figure.read_text()
    clipped = shown(optiscope, "textbook_cliff", "--trajectory", "sgd,lr=3.0", "--clip-norm", 0.1)[
        "trajectories"
    ]
    assert isinstance(clipped, dict)
    steps = np.diff(clipped["sgd,lr=3.0"]["points"], axis=0)
    assert np.linalg.norm(steps, axis=1).max() <= 0.3 * (1 + 1e-9)


def test_sample_images_as_a_picture(tmp_path: Path, optiscope: Command) -> None:
    figure = tmp_path / "digits.png"
    outcome = optiscope("show", "digits_mlp", "--figure", figure)
    assert outcome.code == 0
    assert outcome.out.endswith(f"figure: {figure}\n")
    with Image.open(figure) as picture:
        assert np.asarray(picture.convert("L")).std() > 20


REFUSED = [
    ("show digits_mpl", ["'digits_mpl'", "digits_mlp"]),
    ("show digits_mlp --init he_normal", ["--init is for --spread"]),
    ("show digits_mlp --spread --init he_norml", ["'he_norml'", "'he_normal'"]),
    ("show quadratic_deep --spread --init he_normal", ["NoisyQuadratic", "without any"]),
    ("show digits_mlp --trajectory sgd,lr=0.1", ["2 parameters", "12,060"]),
    ("show textbook_saddle --trajectory sdg", ["'sdg'", "sgd"]),
    ("show textbook_saddle --trajectory sgd,lr", ["NAME=VALUE", "'lr'"]),
    ("show textbook_saddle --trajectory sgd,lr=-1", ["lr of sgd", "-1"]),
    ("show textbook_saddle --steps 0", ["--steps"]),
    ("show textbook_saddle --trajectory sgd,lr=0.1 --clip-norm -1", ["positive", "-1"]),
    ("show textbook_saddle --trajectory sgd,lr=0.1 --clip-norm nan", ["positive", "nan"]),
    ("show textbook_adding --figure a.png", ["draws images", "(20, 2)"]),
    ("show digits_mlp --figure a.text", [".png", "'a.text'"]),
]


def test_a_picture_that_cannot_be_written_is_an_error_of_the_folder(
    tmp_path: Path, optiscope: Command
) -> None:
    (tmp_path / "file").write_text("")
    outcome = optiscope("show", "digits_mlp", "--figure", tmp_path / "file" / "a.png")
    assert outcome.code == 4
    assert len(outcome.err.splitlines()) == 1
    assert "a.png" in outcome.err


@pytest.mark.parametrize(("typed", "words"), REFUSED)
def test_what_cannot_be_shown_is_refused_in_one_line(
    typed: str, words: list[str], optiscope: Command
) -> None:
    outcome = optiscope(*typed.split())
    assert outcome.code == 2
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    for word in words:
        assert word in line


def test_half_blocks_carry_the_colours_of_both_pixels() -> None:
    image = np.random.default_rng(0).uniform(size=(3, 6, 5))
    text = image_text(image, colour=True)
    assert text.plain == "\n".join(["▀" * 5] * 3)
    levels = (image * 255).round().astype(int)
    spans = [span for span in text.spans if isinstance(span.style, Style)]
    assert len(spans) == 15
    for i, span in enumerate(spans):
        row, column = divmod(i, 5)
        style = span.style
        assert isinstance(style, Style)
        for part, pixel in ((style.color, 2 * row), (style.bgcolor, 2 * row + 1)):
            assert part is not None
            assert part.triplet is not None
            assert tuple(part.triplet) == tuple(levels[:, pixel, column])


def test_without_colours_darkness_is_a_character() -> None:
    image = np.repeat(np.array([[[0.0, 0.5, 1.0]]]), 3, axis=1)  # an odd number of rows
    assert image_text(image, colour=False).plain == " +@\n :="


def test_images_stand_side_by_side_as_far_as_they_fit() -> None:
    images = [Text("\n".join([letter * 4] * 2)) for letter in "abc"]
    beside = side_by_side(images, ["one", "two", "three"], width=13)
    assert beside.plain.splitlines() == [
        "one    two", "aaaa   bbbb ", "aaaa   bbbb ", "three", "cccc ", "cccc",
    ]  # fmt: skip
    assert within(np.zeros((3, 224, 224)), 32).shape == (3, 32, 32)
    assert within(np.zeros((1, 28, 28)), 32).shape == (1, 28, 28)


def test_functions_are_named_as_a_reader_would() -> None:
    augment = compose(pad_and_crop(4), horizontal_flip())
    assert (
        name_of(augment)
        == "compose(pad_and_crop(fill 0, padding 4), horizontal_flip(probability 0.5))"
    )
    assert name_of(get("cifar10_3c3d").make_model) == "three_conv_three_dense"
    assert "three convolutions, each pooled" in meaning_of(get("cifar10_3c3d").make_model)
    assert name_of(get("digits_rnn").make_model) == "RowReader"
    assert "½ p²" in meaning_of(get("textbook_saddle").make_model)
