from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optiscope.data.splits import fixed_split


@given(st.lists(st.integers(0, 40), max_size=4), st.integers(0, 30), st.integers(0, 2**63))
def test_sets_are_disjoint_and_of_the_given_sizes(sizes: list[int], rest: int, seed: int) -> None:
    n = sum(sizes) + rest
    sets = fixed_split(n, sizes, seed)
    assert [len(indices) for indices in sets] == sizes
    together = torch.cat([*sets, torch.empty(0, dtype=torch.int64)])
    assert len(together.unique()) == len(together)
    assert all(indices.dtype == torch.int64 for indices in sets)
    assert all(torch.equal(indices, indices.sort().values) for indices in sets)
    if len(together):
        assert together.min() >= 0
        assert together.max() < n


def test_sets_are_these_on_every_machine() -> None:
    first, second = fixed_split(20, [5, 7], seed=42)
    assert first.tolist() == [4, 8, 10, 15, 17]
    assert second.tolist() == [1, 3, 9, 12, 14, 16, 19]


def test_a_set_depends_on_the_sizes_before_it_only() -> None:
    assert torch.equal(fixed_split(1000, [100, 300], 1)[0], fixed_split(1000, [100], 1)[0])
    assert not torch.equal(fixed_split(1000, [100], 1)[0], fixed_split(1000, [100], 2)[0])


def test_every_sample_is_as_likely_as_any_other() -> None:
    drawn = torch.cat([fixed_split(50, [10], seed)[0] for seed in range(2000)])
    counts = torch.bincount(drawn, minlength=50).double()
    chi_square = ((counts - 400) ** 2 / 320).sum()  # binomial variance 2000 · 0.2 · 0.8
    assert 22 < chi_square < 85  # 49 degrees of freedom: 1e-3 in either tail


@pytest.mark.parametrize("sizes", [[11], [6, 5], [-1, 3]])
def test_impossible_sizes(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="non-negative and add up to at most 10"):
        fixed_split(10, sizes, 0)
