"""Everything that is wrong with a study's file is told at once, each with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from optiscope.cli import main
from optiscope.study import StudyError, load_study

MANY = """\
name = "many"
question = "?"
problems = ["digits_logrek", "digits_mlp", "digits_mlp"]
epochs = 2
sedes = 3
seeds = [1, 2, 2]
level = 0.7
goals = [{ problem = "digits_mlp", value = 91.0, meaning = "percent" }]
reference = "Adamm"
equivalence_margin = inf

[tuning]
seeds = [1]
select = "test_loss"

[[algorithms]]
label = "SGD"
optimizer = "sgd"
fixed = { momentun = 0.9, lr = -0.1, nesterov = true }

[[algorithms]]
optimizer = "adm"
epochs = 5

[[algorithms]]
label = "Adam"
optimizer = "adam"
space = { lr = { low = 1e-2, high = 1e-4 }, eps = { lo = 1e-8, high = 1e-7 } }
schedule = { name = "linear_decy" }
labl = "x"
"""
TOLD = {
    3: "digits_logrek",
    5: "unknown word 'sedes'",
    6: "seed 2 stands twice",
    7: "level: input should be less than 0.5",
    9: "unknown algorithm label 'Adamm'",
    10: "equivalence_margin must be a finite number",
    14: "tuning must not see the test set",
    19: "momentun",
    22: "'adm'",
    23: "cannot have a horizon of its own",
    28: "unknown word 'lo'",
    29: "linear_decy",
    30: "unknown word 'labl'",
}


def faults(text: str, tmp_path: Path) -> StudyError:
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(StudyError) as error:
        load_study(path)
    return error.value


def test_every_fault_is_told_with_its_line(tmp_path: Path) -> None:
    error = faults(MANY, tmp_path)
    for line, words in TOLD.items():
        assert any(f.line == line and words in f.message for f in error.faults), (line, words)
    assert [f for f in error.faults if f.line == 19 and "lr" in f.message]
    assert [f for f in error.faults if f.line == 6 and "1 is in both" in f.message]
    places = [f.line or 0 for f in error.faults]
    assert places == sorted(places)
    assert len(set(error.faults)) == len(error.faults)
    message = str(error)
    assert message.startswith(f"study.toml: {len(error.faults)} faults: line 3: ")
    assert message.isprintable()
    assert error.lines[0] == f"study.toml: {len(error.faults)} faults"
    assert [line.partition(":")[0].strip() for line in error.lines[1:]] == [
        f"line {place}" for place in places
    ]


def test_the_terminal_gives_each_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study.toml").write_text(MANY)
    with pytest.raises(SystemExit) as left:
        main(["bench", str(tmp_path / "study.toml"), "--out", str(tmp_path / "out")])
    assert left.value.code == 2
    head, *rest = capsys.readouterr().err.splitlines()
    assert head.startswith("optiscope: study.toml: ")
    assert all(line.startswith("  line ") for line in rest)
    assert len(rest) >= len(TOLD)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seeds = [11, 12]", "sed = [11, 12]"),  # and not that seeds are missing
        ('problems = ["digits_logreg"]', "problems = 5"),
        ('optimizer = "adam"', 'optimizr = "adam"'),
        ("low = 1e-4", "low = nan"),  # and not that there is no space
        ("seeds = [11, 12]", "seeds = [11, 1e400]"),
        ("budget = 2", "budget = 0"),
    ],
)
def test_one_fault_is_told_once(old: str, new: str, tmp_path: Path) -> None:
    good = (
        'name = "small"\nquestion = "?"\nproblems = ["digits_logreg"]\nseeds = [11, 12]\n'
        "[tuning]\nbudget = 2\nseeds = [1]\n"
        '[[algorithms]]\noptimizer = "sgd"\n'
        '[[algorithms]]\noptimizer = "adam"\nspace = { lr = { low = 1e-4, high = 1e-2 } }\n'
    )
    assert good.count(old) == 1
    error = faults(good.replace(old, new), tmp_path)
    assert len(error.faults) == 1
    assert len(error.lines) == 1
    assert str(error).startswith("study.toml, line ")


def test_hundreds_are_counted(tmp_path: Path) -> None:
    words = "\n".join(f"word{number} = 1" for number in range(300))
    error = faults(f'{words}\nname = "x"\nquestion = "?"\n', tmp_path)
    assert len(error.lines) == 22
    assert error.lines[-1].strip().startswith("and 28")
    assert len(str(error)) <= 2000


@pytest.mark.parametrize("words", [[], ["data"], ["list"], ["run"], ["claim"]])
def test_usage_is_short(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(words)
    said = capsys.readouterr()
    lines = (said.err + said.out).splitlines()
    assert len(lines) <= 30
    assert "--help`" in lines[-1] or words == ["list"]
