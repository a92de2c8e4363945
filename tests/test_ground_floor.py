"""Errors, hints and lazy names: what everything else stands on."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import optiscope
from optiscope import cli, lazy
from optiscope.errors import ExitCode, OptiscopeError, shorten
from optiscope.hints import did_you_mean, nearest


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("Adma", ["sgd", "adam"], "did you mean 'adam'?"),
        ("LARK", ["lark", "sgd"], "did you mean 'lark'?"),
        ("zzzz", ["lark", "sgd"], "known: lark, sgd"),
        (7, ["lark"], "known: lark"),
        (["adam"], ["adam"], "did you mean 'adam'?"),
        ("x" * 100_000, ["lark"], "known: lark"),
    ],
)
def test_a_hint_names_what_is_near_or_what_is_known(
    word: object, known: list[str], hint: str
) -> None:
    assert did_you_mean(word, known) == hint


def test_a_hint_may_say_something_else_where_nothing_is_near() -> None:
    assert did_you_mean("zzzz", ["lark"], otherwise="see the manual") == "see the manual"
    assert nearest("adamw", ["adam", "adamax", "sgd"], count=2) == ["adam", "adamax"]


def test_a_value_in_a_message_is_short_and_on_one_line() -> None:
    class Rude:
        def __repr__(self) -> str:
            raise KeyError("no")

    assert shorten("a\nb") == r"'a\nb'"
    long = shorten(list(range(10_000)))
    assert len(long) == 80
    assert long.startswith("[0, 1,")
    assert long.endswith("9999]")
    assert shorten(Rude()) == "<Rude without repr: KeyError>"


def below(error: type[OptiscopeError]) -> Iterator[type[OptiscopeError]]:
    for kind in error.__subclasses__():
        yield kind
        yield from below(kind)


def test_every_error_of_ours_says_how_the_command_line_ends() -> None:
    root = Path(optiscope.__path__[0])
    for path in root.rglob("*.py"):
        if re.search(r"^class \w+\(", path.read_text(), re.MULTILINE):
            parts = path.relative_to(root.parent).with_suffix("").parts
            importlib.import_module(".".join(parts).removesuffix(".__init__"))
    codes = {
        kind.__name__: kind.exit_code
        for kind in below(OptiscopeError)
        if kind.__module__.partition(".")[0] == "optiscope"
    }
    known = {code for name, code in vars(ExitCode).items() if name.isupper() and code}
    assert set(codes.values()) <= known, codes
    expected = {
        "StudyError": ExitCode.USAGE,
        "DataError": ExitCode.DATA,
        "MissingData": ExitCode.DATA,
        "StoreError": ExitCode.STORE,
        "WorkerError": ExitCode.UNFINISHED,
        "ComparisonError": ExitCode.USAGE,
    }
    assert {name: codes[name] for name in expected} == expected


def test_an_error_becomes_one_line_and_its_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(OptiscopeError):
        exit_code = ExitCode.STORE

    def fail(**_: object) -> None:
        raise Full("the disk is full")

    monkeypatch.setattr("optiscope.cli.root.root.main", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main(["list"])
    assert ended.value.code == ExitCode.STORE
    assert capsys.readouterr().err == "optiscope: the disk is full\n"


def test_every_public_name_can_be_imported_and_is_listed() -> None:
    for name in optiscope.__all__:
        assert getattr(optiscope, name) is not None
    assert "Lark" in dir(optiscope)
    assert optiscope.__version__


def test_an_unknown_name_is_an_attribute_error() -> None:
    get_attribute, list_names, public = lazy.attach(
        "optiscope", {"hints": ("nearest",), "lazy": ()}
    )
    assert public == list_names() == ["lazy", "nearest"]
    assert get_attribute("nearest") is nearest
    assert get_attribute("lazy") is lazy
    with pytest.raises(AttributeError, match="module 'optiscope' has no attribute 'hint'"):
        get_attribute("hint")


def test_a_child_of_a_test_has_nothing_to_read_and_does_not_wait() -> None:
    code = "import sys; print(repr(sys.stdin.read()))"
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert child.stdout == "''\n"
