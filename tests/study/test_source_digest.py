"""Edited code of one's own gives other trials; edits elsewhere do not."""

from __future__ import annotations

import importlib
import itertools
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from optiscope.study.source_digest import digests_on_disk, source_digest

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


DEFINITIONS = {
    "plain": {"{m}": "def make():\n    return {n}\n"},
    "reexported": {
        "{m}/__init__": "from .inner import make\n",
        "{m}/inner": "def make():\n    return {n}\n",
    },
    "renamed": {
        "{m}/__init__": "from .inner import a as make\n",
        "{m}/inner": "class a:\n    b = {n}\n",
    },
    "through a star": {
        "{m}/__init__": "from {m}.inner import *\n",
        "{m}/inner": "def make():\n    return {n}\n",
    },
    "up and down": {
        "{m}/__init__": "from .a.b import make\n",
        "{m}/a/__init__": "",
        "{m}/a/b": "from ..c import make\n",
        "{m}/c": "X = {n}\n\n\ndef make():\n    return X\n",
    },
    "another name": {"{m}": "class Other:\n    x = {n}\n\n\nmake = Other\n"},
    "an instance": {"{m}": "import functools\n\nmake = functools.partial(int, {n})\n"},
    "wrapped": {
        "{m}": "import functools\n\n\ndef deco(f):\n    @functools.wraps(f)\n    def g():\n"
        "        return f({n})\n\n    return g\n\n\n@deco\ndef make():\n    ...\n"
    },
    "made in a function": {
        "{m}": "def _make():\n    class Inner:\n        x = {n}\n\n    return Inner\n\n\n"
        "make = _make()\n"
    },
    "lines of Windows": {"{m}": "def make():\r\n    return {n}\r\n"},
}


@pytest.mark.parametrize("case", DEFINITIONS)
def test_code_on_disk_has_the_digest_that_importing_it_gave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """And another one after an edit, so that ``status`` tells an edit from another style."""
    monkeypatch.syspath_prepend(tmp_path)
    name = f"static_{next(NUMBERS)}"

    def write(number: int) -> None:
        for place, text in DEFINITIONS[case].items():
            file = tmp_path / f"{place.replace('{m}', name)}.py"
            file.parent.mkdir(exist_ok=True)
            code = text.replace("{m}", name).replace("{n}", str(number))
            file.write_bytes(code.encode())

    write(1)
    before = digests_on_disk(f"{name}:make")
    assert name not in sys.modules
    importlib.invalidate_caches()
    imported = source_digest(f"{name}:make")
    assert imported in before
    write(2)
    assert digests_on_disk(f"{name}:make")
    assert imported not in digests_on_disk(f"{name}:make")


HELPERS = {
    "from": ("from help_{n} import f", "f(lr)"),
    "import": ("import help_{n}", "help_{n}.f(lr)"),
    "as": ("import help_{n} as h", "h.f(lr)"),
    "star": ("from help_{n} import *", "f(lr)"),
    "guarded": ("try:\n    from help_{n} import f\nexcept ImportError:\n    f = None", "f(lr)"),
    "inside": ("", "__import__('help_{n}').f(lr)"),
    "by name": ("import importlib", "importlib.import_module('help_{n}').f(lr)"),
    "package": ("from pack_{n} import f", "f(lr)"),
    "module of a package": ("import pack_{n}.inner", "pack_{n}.inner.f(lr)"),
    "name of a package": ("from pack_{n} import inner", "inner.f(lr)"),
}


@pytest.mark.parametrize(("line", "use"), HELPERS.values(), ids=HELPERS)
def test_helper_modules_count(
    line: str, use: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)

    def of(constant: str) -> str | None:
        """Digest of an optimizer that uses a helper, which uses a helper with a constant."""
        n = next(NUMBERS)
        text = f"{line}\n{TEXT}".format(n=n).replace("scale(lr)", use.format(n=n))
        (tmp_path / f"main_{n}.py").write_text(text)
        inner, package = f"deep_{n}", tmp_path / f"pack_{n}"
        (tmp_path / f"{inner}.py").write_text(f"SCALE = {constant}\n")
        body = f"from {inner} import SCALE\n\n\ndef f(x):\n    return SCALE * x\n"
        (tmp_path / f"help_{n}.py").write_text(body)
        package.mkdir()
        (package / "__init__.py").write_text("from .inner import f\n")
        (package / "inner.py").write_text(body)
        importlib.invalidate_caches()
        digest = source_digest(f"main_{n}:Mine")
        assert digest in digests_on_disk(f"main_{n}:Mine")
        return digest

    n = next(NUMBERS)
    monkeypatch.setattr(f"{__name__}.NUMBERS", itertools.repeat(n))

    def again(constant: str) -> str | None:
        shutil.rmtree(tmp_path / f"pack_{n}", ignore_errors=True)
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        for name in [m for m in sys.modules if m.rpartition("_")[2].split(".")[0] == str(n)]:
            del sys.modules[name]
        return of(constant)

    assert again("1.0") == again("1.0")
    assert again("1.0") != again("0.0")


def test_a_helper_that_it_does_not_use_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    digests = []
    for constant in (1, 2):
        (tmp_path / "unused_helper.py").write_text(f"A = {constant}\n")
        (tmp_path / "uses_none.py").write_text("from unused_helper import A\n" + TEXT)
        sys.modules.pop("uses_none", None)
        sys.modules.pop("unused_helper", None)
        importlib.invalidate_caches()
        digests.append(source_digest("uses_none:Mine"))
    assert digests[0] == digests[1]


EDITS = {
    "a call that sets": "class Mine:\n    x = 0\n\n\nsetattr(Mine, 'x', {n})\n",
    "a function that sets": (
        "S = 0\n\n\ndef begin():\n    global S\n    S = {n}\n\n\nbegin()\n\n\n"
        "class Mine:\n    def step(self):\n        return S\n"
    ),
    "eval": "S = {n}\n\n\nclass Mine:\n    def step(self):\n        return eval('S')\n",
    "globals": "S = {n}\n\n\nclass Mine:\n    def step(self):\n        return globals()['S']\n",
    "match": "match {n}:\n    case S:\n        pass\n\n\nclass Mine:\n    x = S\n",
    "walrus": "(S := {n})\n\n\nclass Mine:\n    x = S\n",
    "with": (
        "import contextlib\n\nwith contextlib.nullcontext({n}) as S:\n    pass\n\n\n"
        "class Mine:\n    x = S\n"
    ),
}


@pytest.mark.parametrize("text", EDITS.values(), ids=EDITS)
def test_whatever_gives_a_name_its_value_counts(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    digests = []
    for value in (1, 2):
        name = f"valued_{next(NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(text.replace("{n}", str(value)))
        importlib.invalidate_caches()
        digests.append(source_digest(f"{name}:Mine"))
        assert digests[-1] in digests_on_disk(f"{name}:Mine")
    assert digests[0] != digests[1]


NAMED = {
    "executed": (
        "from pathlib import Path\nexec(Path(__file__).with_name('other.py').read_text())"
    ),
    "loaded from its file": "FILE = 'other.py'",
    "compiled": "SOURCES = ['kernel.cu', 'other.py']",
    "relative to its package": (
        "import importlib\nH = importlib.import_module('.other', __package__)"
    ),
}


@pytest.mark.parametrize("line", NAMED.values(), ids=NAMED)
def test_code_that_a_string_names_counts(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / f"names_{next(NUMBERS)}"
    package.mkdir()
    (package / "__init__.py").write_text("")
    used = line.splitlines()[-1].split(" = ")[0] if " = " in line else "1"
    text = f"{line}\n\n\nclass Mine:\n    x = {used}\n"
    (package / "main.py").write_text(text)
    digests = []
    for value in (1, 2):
        (package / "other.py").write_text(f"S = {value}\n")
        for name in [name for name in sys.modules if name.startswith(package.name)]:
            del sys.modules[name]
        importlib.invalidate_caches()
        digests.append(source_digest(f"{package.name}.main:Mine"))
        assert digests[-1] in digests_on_disk(f"{package.name}.main:Mine")
    assert digests[0] != digests[1]
