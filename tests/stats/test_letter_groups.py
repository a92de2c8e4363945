"""Two algorithms share a letter exactly where the study does not tell them apart."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from optiscope.stats.letter_groups import letter_groups


def test_a_chain_by_hand() -> None:
    assert letter_groups(["a", "b", "c"], [frozenset("ac")]) == {"a": "a", "b": "ab", "c": "b"}
    assert letter_groups(["x", "y"], []) == {"x": "a", "y": "a"}
    assert letter_groups(["x", "y"], [frozenset("xy")]) == {"x": "a", "y": "b"}
    assert letter_groups(["x"], [frozenset("xz")]) == {"x": "a"}


@given(st.integers(1, 8), st.randoms(use_true_random=False))
def test_letters_say_exactly_what_differs(count: int, random: object) -> None:
    labels = [f"m{k}" for k in range(count)]
    pairs = [frozenset(p) for p in combinations(labels, 2)]
    different = {p for p in pairs if random.random() < 0.4}  # type: ignore[attr-defined]
    letters = letter_groups(labels, different)
    for pair in pairs:
        a, b = pair
        assert bool(set(letters[a]) & set(letters[b])) == (pair not in different)
    assert all(letters.values())
    assert "a" in letters[labels[0]]
