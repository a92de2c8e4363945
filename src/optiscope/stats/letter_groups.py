"""Letters that say which algorithms a study does not tell apart (compact letter display)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

__all__ = ["letter_groups"]


def letter_groups(labels: Sequence[str], different: Collection[frozenset[str]]) -> dict[str, str]:
    """Letters of each label: two labels share a letter exactly where they are not ``different``.

    The insert-and-absorb algorithm of Piepho (2004), *An algorithm for a letter-based
    representation of all-pairwise comparisons*.

    Args:
        labels: K labels, best first; the first ones get the first letters.
        different: pairs that differ significantly.

    Returns:
        Letters by label, such as ``{"Lark": "a", "Adam": "ab", "SGD": "b"}``.
    """
    groups = [set(labels)]
    for pair in sorted(different, key=lambda p: sorted(labels.index(x) for x in p if x in labels)):
        if len(pair) != 2 or not pair <= set(labels):
            continue
        first, second = sorted(pair, key=labels.index)
        split: list[set[str]] = []
        for group in groups:
            parts = [group - {first}, group - {second}] if pair <= group else [group]
            split += parts
        groups = [g for k, g in enumerate(split) if not _absorbed(g, k, split)]
    place = {label: k for k, label in enumerate(labels)}
    groups.sort(key=lambda g: sorted(place[x] for x in g))
    names = [_name(k) for k in range(len(groups))]
    return {x: "".join(n for n, g in zip(names, groups, strict=True) if x in g) for x in labels}


def _absorbed(group: set[str], place: int, groups: Sequence[set[str]]) -> bool:
    """Whether another group says all that this one says; of equal groups the first stays."""
    return any(
        group < other or (group == other and k < place)
        for k, other in enumerate(groups)
        if k != place
    )


def _name(number: int) -> str:
    """``a`` to ``z``, then ``A`` to ``Z``, then ``a1`` and so on."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    round_, place = divmod(number, len(letters))
    return letters[place] + (str(round_) if round_ else "")
