"""Problems by name and by import path, and the catalogue that lists them without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from optiscope import problems
from optiscope.data import DATASETS

OWN_PROBLEM = """
from dataclasses import replace
from optiscope import problems
mine = replace(problems.get("digits_logreg"), name="mine")
number = 3
def made():
    return mine
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "problem_of_a_user.py").write_text(OWN_PROBLEM)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "problem_of_a_user"


@pytest.mark.parametrize("entry", problems.entries(), ids=lambda entry: entry.name)
def test_the_catalogue_says_what_the_problem_is(entry: problems.Entry) -> None:
    problem = problems.get(entry.name)
    for field in ("name", "dataset", "parameters", "batch_size", "epochs"):
        assert getattr(entry, field) == getattr(problem, field), field
    assert problem.source
    assert problem.licence
    assert problem.dataset in {*DATASETS, "synthetic"}


def test_names_are_unique_and_in_order() -> None:
    assert len(set(problems.names())) == len(problems.names())
    assert problems.names()[:3] == ["digits_logreg", "digits_mlp", "digits_conv"]


def test_every_problem_of_a_family_is_listed() -> None:
    import importlib

    families = {entry.family for entry in problems.entries()}
    for family in families:
        module = importlib.import_module(f"optiscope.problems.{family}")
        found = {n for n in dir(module) if isinstance(getattr(module, n), problems.Problem)}
        listed = {entry.name for entry in problems.entries() if entry.family == family}
        assert listed <= found
        assert {n for n in found if not n.startswith("_")} <= set(problems.names())


def test_listing_does_not_import_torch() -> None:
    script = (
        "import sys; from optiscope import problems; problems.names(); problems.entries();"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("attribute", ["mine", "made"])
def test_import_path(own_module: str, attribute: str) -> None:
    assert problems.get(f"{own_module}:{attribute}").name == "mine"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mnist_logrg", "did you mean 'mnist_logreg'"),
        ("cifar10_3c2d", "cifar10_3c3d"),
        ("zzzzzz", "optiscope list problems"),
        ("", "optiscope list problems"),
        ("no_such_module_here:problem", "no module named 'no_such_module_here'"),
        ("problem_of_a_user:absent", "none of that name"),
        ("problem_of_a_user:number", "got int"),
        (":problem", "name a module before the colon"),
    ],
)
def test_a_wrong_name_is_one_line(own_module: str, name: str, words: str) -> None:
    with pytest.raises(problems.UnknownProblemError) as caught:
        problems.get(name)
    message = str(caught.value)
    assert words in message
    assert message.startswith("expected ")
    assert "\n" not in message
