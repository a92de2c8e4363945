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


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('RATES = {"a": 1}\nRATES["a"] = 2\n', 'RATES = {"a": 1}\nRATES["a"] = 3\n'),
        ("RATES = [1]\nRATES.append(2)\n", "RATES = [1]\nRATES.append(3)\n"),
        ("try:\n    import json as RATES\nexcept ImportError:\n    RATES = 1\n",
         "try:\n    import csv as RATES\nexcept ImportError:\n    RATES = 1\n"),
        ("# \x0c one\nRATES = 2\n", "# \x0c one\nRATES = 3\n"),
    ],
)  # fmt: skip
def test_values_changed_after_their_definition_count(
    digest: Digest, before: str, after: str
) -> None:
    uses = "\ndef make():\n    return RATES\n"
    assert digest(before + uses, "make") != digest(after + uses, "make")


def test_a_function_is_followed_to_where_it_is_defined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    digests = []
    for number in (1, 2):
        package = tmp_path / f"followed_{next(NUMBERS)}"
        package.mkdir()
        (package / "__init__.py").write_text("from .inner import make\n")
        (package / "inner.py").write_text(f"def make():\n    return {number}\n")
        importlib.invalidate_caches()
        digests.append(source_digest(f"{package.name}:make"))
    assert None not in digests
    assert digests[0] != digests[1]


def test_what_is_loaded_anew_is_looked_at_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook; an edit without it is of no effect yet."""
    monkeypatch.syspath_prepend(tmp_path)
    name = f"again_{next(NUMBERS)}"
    (tmp_path / f"{name}.py").write_text("def make():\n    return 1\n")
    first = source_digest(f"{name}:make")
    (tmp_path / f"{name}.py").write_text("def make():\n    return 22\n")
    assert source_digest(f"{name}:make") == first
    importlib.reload(importlib.import_module(name))
    assert source_digest(f"{name}:make") != first


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
