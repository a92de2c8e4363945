"""Permuted copies come back exactly, and only units that can change places do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from trained_networks import same

from optiscope import landscape
from optiscope.landscape.basins import spanning_tree
from optiscope.landscape.example_input import NoExampleInputError
from optiscope.landscape.matching import MatchingError, _permuted
from optiscope.problems import digits


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(5, 7, 2, batch_first=True)
        self.output = nn.Linear(7, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        states: Tensor = self.cells(inputs)[0]
        out: Tensor = self.output(states[:, -1])
        return out


class Dense(nn.Module):
    """Channels of two layers side by side, as in a DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(7, 4, 3, padding=1)
        self.output = nn.Linear(11, 3)

    def forward(self, images: Tensor) -> Tensor:
        joined = torch.cat([images, torch.relu(self.first(images))], 1)
        joined = torch.cat([joined, torch.relu(self.second(joined))], 1)
        out: Tensor = self.output(joined.mean((2, 3)))
        return out


def convolutional() -> nn.Module:
    """Depthwise convolution, group norm, in-place activation."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.GroupNorm(1, 8),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def odd_image() -> nn.Module:
    """Slopes of its own for each channel, and images of 17 x 17."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.PReLU(6), nn.Flatten(), nn.Linear(6 * 15 * 15, 7), nn.PReLU(),
        nn.Linear(7, 2)
    )  # fmt: skip


class Bare(nn.Module):
    """Two matrices without layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(6, 9)), nn.Parameter(torch.randn(9, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.relu(inputs @ self.first) @ self.second


def attention() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)


CASES: dict[str, tuple[Callable[[], nn.Module], int, Tensor | None]] = {
    # model, number of units that can change places, inputs
    "digits_logreg": (digits.digits_logreg.make_model, 0, None),
    "digits_mlp": (digits.digits_mlp.make_model, 150, None),
    "digits_conv": (digits.digits_conv.make_model, 16 + 32 + 64, None),
    # 8 channels of the residual stream, 8 more that join it later, 8 and 16 inside the units
    "digits_resnet": (digits.digits_resnet.make_model, 8 + 8 + 8 + 16, None),
    "digits_rnn": (digits.digits_rnn.make_model, 64, None),
    "digits_attention": (digits.digits_attention.make_model, 32 + 2 * 128, None),
    "digits_autoencoder": (digits.digits_autoencoder.make_model, 32 + 8 + 32, None),
    "lstm": (Recurrent, 7 + 7, None),
    "dense": (Dense, 5 + 4, None),
    "convolutional": (convolutional, 8, None),
    "odd image": (odd_image, 6 + 7, None),
    "bare": (Bare, 9, None),
    "attention": (attention, 2 * 32, torch.randn(2, 5, 16)),
}


def weights(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """All tensors different from what a layer begins with, statistics positive."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: v + 0.1 * torch.rand(v.shape, generator=generator) if v.is_floating_point() else v
        for name, v in model.state_dict().items()
    }


@pytest.mark.parametrize("case", CASES)
def test_a_permuted_copy_is_recovered_exactly(case: str) -> None:
    """Guide, bar 11."""
    make, units, inputs = CASES[case]
    torch.manual_seed(0)
    model = make()
    a = weights(model, 0)
    before, random = model.state_dict(), torch.get_rng_state()
    itself = landscape.match_units(model, a, a, inputs=inputs)
    assert itself.distance == 0.0
    if case == "lstm":
        assert {g.size for g in itself.groups} == {7}
        assert itself.units in (7, 14)  # two layers of seven units
    else:
        assert itself.units == units
    generator = np.random.default_rng(1)
    orders = [generator.permutation(group.size) for group in itself.groups]
    b = _permuted(a, itself.groups, orders)
    match = landscape.match_units(model, a, b, inputs=inputs)
    assert match.distance == 0.0
    assert same(match.state_dict, a)
    assert match.same_function
    assert match.output_error <= 1e-12
    assert match.converged
    if units:
        assert match.distance_before > 1.0
        assert match.moved > 0
    assert same(dict(model.state_dict()), dict(before))
    assert torch.equal(torch.get_rng_state(), random)


def test_permuted_tensors_hold_the_same_numbers() -> None:
    torch.manual_seed(0)
    model = digits.digits_conv.make_model()
    a, b = weights(model, 1), weights(digits.digits_conv.make_model(), 2)
    match = landscape.match_units(model, a, b)
    assert 0 < match.distance <= match.distance_before
    for name, value in match.state_dict.items():
        assert value.dtype == b[name].dtype
        assert torch.equal(value.flatten().sort().values, b[name].flatten().sort().values)
    images = torch.rand(4, 1, 8, 8)
    outputs = []
    for state in (b, match.state_dict):
        model.load_state_dict(state)
        outputs.append(model(images))
    assert torch.allclose(*outputs, rtol=1e-4, atol=1e-3)


def test_matching_is_no_worse_than_a_brute_force_search_of_a_small_layer() -> None:
    from itertools import permutations

    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    a, b = weights(model, 3), {k: torch.randn_like(v) for k, v in model.state_dict().items()}
    match = landscape.match_units(model, a, b)
    best = min(
        sum(
            float((a[name] - value).square().sum())
            for name, value in {
                "0.weight": b["0.weight"][list(order)],
                "0.bias": b["0.bias"][list(order)],
                "2.weight": b["2.weight"][:, list(order)],
                "2.bias": b["2.bias"],
            }.items()
        )
        for order in permutations(range(5))
    )
    assert match.distance**2 == pytest.approx(best, rel=1e-5)


class Ordered(nn.Module):
    """Multiplies its hidden units by their number, so that none can change places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.second(torch.relu(self.first(inputs)) * torch.arange(6.0).to(inputs))
        return out


class Sorted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.second(torch.cumsum(self.first(inputs), 1))
        return out


@pytest.mark.parametrize("make", [Ordered, Sorted])
def test_units_that_are_treated_by_their_place_stay(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = make()
    match = landscape.match_units(model, weights(model, 0), weights(model, 1))
    assert match.groups == ()
    assert match.distance == match.distance_before
    assert match.same_function


def test_what_does_not_fit_is_refused() -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(MatchingError, match="does not fit"):
        landscape.match_units(model, model.state_dict(), nn.Linear(4, 2).state_dict())

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            out: Tensor = self.layer(first + second)
            return out

    odd = Odd()
    with pytest.raises(NoExampleInputError, match="pass inputs="):
        landscape.match_units(odd, odd.state_dict(), odd.state_dict())
    pair = (torch.ones(1, 3), torch.ones(1, 3))
    assert landscape.match_units(odd, odd.state_dict(), odd.state_dict(), inputs=pair).units == 0


def test_the_spanning_tree_joins_by_the_lowest_passes() -> None:
    from scipy.sparse.csgraph import minimum_spanning_tree

    generator = torch.Generator().manual_seed(0)
    heights = torch.rand(7, 7, generator=generator).double()
    heights = heights + heights.T
    tree = spanning_tree(heights)
    assert len(tree) == 6
    assert {k for edge in tree for k in edge} == set(range(7))
    total = sum(float(heights[i, j]) for i, j in tree)
    assert total == pytest.approx(minimum_spanning_tree(heights.triu(1).numpy()).sum())
    assert [float(heights[i, j]) for i, j in tree] == sorted(float(heights[i, j]) for i, j in tree)
