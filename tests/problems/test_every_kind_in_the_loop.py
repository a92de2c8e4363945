"""One loop trains every kind of problem: classifier, autoencoder, text, several heads, function."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch

from optiscope import problems
from optiscope.data import Splits, TensorSamples, TextWindows
from optiscope.data.samples import Samples
from optiscope.problems import Problem
from optiscope.problems.models.inception import InceptionLogits
from optiscope.records import Status
from optiscope.study.single import run

Make = Callable[[int, torch.Generator], Samples]


def pictures(
    count: int, generator: torch.Generator, shape: tuple[int, ...] = (1, 28, 28)
) -> TensorSamples:
    images = torch.rand(count, *shape, generator=generator)
    return TensorSamples(images, torch.randint(10, (count,), generator=generator))


def own_pictures(count: int, generator: torch.Generator) -> TensorSamples:
    images = pictures(count, generator).inputs
    return TensorSamples(images, images)


def windows(count: int, generator: torch.Generator) -> TextWindows:
    tokens = torch.randint(83, (8 * count + 9,), generator=generator)
    return TextWindows(tokens, torch.arange(count) * 8, length=8)


def made_up(name: str, make: Make) -> Problem:
    """The problem on few made-up samples, two steps an epoch."""

    def data(_: object) -> Splits:
        generator = torch.Generator().manual_seed(0)
        train = make(8, generator)
        part = train.subset(torch.arange(4))
        return Splits(train, part, make(4, generator), make(4, generator))

    return replace(problems.get(name), data=data, batch_size=4)


class TwoHeads(torch.nn.Module):
    """Inception's outputs without its size."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.auxiliary = (
            torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 10)) for _ in range(2)
        )

    def forward(self, images: torch.Tensor) -> InceptionLogits:
        auxiliary = self.auxiliary(images) if self.training else None
        return InceptionLogits(self.main(images), auxiliary)


KINDS = {
    "mnist_vae": partial(made_up, "mnist_vae", own_pictures),
    "tolstoi_char_rnn": partial(made_up, "tolstoi_char_rnn", windows),
    "tolstoi_gpt": partial(made_up, "tolstoi_gpt", windows),
    "inception's heads": lambda: replace(
        made_up("imagenet_inception_v3", partial(pictures, shape=(3, 4, 4))),
        make_model=TwoHeads,
        parameters=980,
    ),
}
SHIPPED = [e.name for e in problems.entries() if e.dataset in ("digits", "synthetic")]
KINDS |= {name: partial(problems.get, name) for name in SHIPPED if not name.startswith("textbook")}
RATES = {"two_d_beale": 1e-8, "two_d_rosenbrock": 1e-4, "two_d_branin": 1e-3}
RATES |= {"mnist_vae": 1e-4, "digits_autoencoder": 1e-3, "digits_attention": 0.1}


@pytest.mark.parametrize("name", KINDS)
def test_the_loop_trains_it(name: str) -> None:
    problem = KINDS[name]()
    rate = RATES.get(name, 0.01)
    record = run(problem, "sgd", hyperparameters={"lr": rate}, epochs=1, threads=1)
    assert record.status is Status.FINISHED, record.reason
    _, losses = record.curve("train", "loss")
    assert len(losses) == 2
    assert losses[1] < losses[0]
    for split in ("train", "valid", "test"):
        assert math.isfinite(record.final[f"{split}_loss"])
        assert (f"{split}_accuracy" in record.final) == (problem.metric is not None)
