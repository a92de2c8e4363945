"""Edited code of one's own gives other trials; edits elsewhere do not."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from optiscope.study.source_digest import source_digest

Digest = Callable[[str], str | None]

NUMBERS = itertools.count()
TEXT = """\
import torch

FACTOR = 2.0


def scale(x):
    return FACTOR * x


class Base(torch.optim.SGD):
    pass


class Mine(Base):
    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=scale(lr))


def other():
    return 3
"""


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Digest:
    """Digest of ``Mine`` in a module of a text, each time another one."""
    monkeypatch.syspath_prepend(tmp_path)

    def of(text: str, name: str = "Mine") -> str | None:
        module = f"edited_{next(NUMBERS)}"
        (tmp_path / f"{module}.py").write_text(text)
        importlib.invalidate_caches()
        return source_digest(f"{module}:{name}")

    return of


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("scale(lr)", "0.5 * scale(lr)"),
        ("FACTOR = 2.0", "FACTOR = 3.0"),
        ("return FACTOR * x", "return FACTOR * x + 1"),
        ("    pass\n", "    momentum = 0.9\n"),
        ("import torch\n", "import torch as torch\n"),
        ("class Mine", "@(lambda c: c)\nclass Mine"),
    ],
)
def test_what_it_uses_counts(digest: Digest, old: str, new: str) -> None:
    assert TEXT.count(old) == 1
    assert digest(TEXT.replace(old, new)) != digest(TEXT)


def test_what_it_does_not_use_does_not_count(digest: Digest) -> None:
    first = digest(TEXT)
    assert first is not None
    assert len(first) == 16
    assert digest(TEXT.replace("return 3", "return 4")) == first
    assert digest(TEXT.replace("import torch\n", "# A comment.\nimport torch\n")) == first


def test_without_a_definition_of_its_own_the_whole_file_counts(digest: Digest) -> None:
    text = TEXT + "globals()['Made'] = other\n"
    assert digest(text, "Made") is not None
    assert digest(text, "Made") != digest(text.replace("return 3", "return 4"), "Made")


@pytest.mark.parametrize(
    "path", ["sgd", "torch.optim:SGD", "collections:OrderedDict", "optiscope.optim.lark:Lark"]
)
def test_what_is_installed_or_has_versions_needs_none(path: str) -> None:
    assert source_digest(path) is None
