"""Whatever is typed after ``optiscope``, it ends with a status and at most one line of error."""

from __future__ import annotations

import importlib
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from optiscope.errors import OptiscopeError
from stats.small_study import study

WORDS = (
    "list", "problems", "optimizers", "studies", "show", "run", "bench", "status", "report",
    "claim",
    "import", "reproduce", "time", "data", "fetch", "verify", "compact", "quickstart",
    "digits_logreg",
    "digits_mlp", "mnist_mlp", "two_d_rosenbrock", "sgd", "adam", "lark", "muon", "this:x",
    "os:system",
    "nowhere:thing", "torch.optim:SGD", ":", "a:b:c", "", " ", "-", "--", "---", ".", "..", "/",
    "~",
    "STUDY", "STUDY/study.json", "STUDY/runs", "missing", "missing.toml", "x" * 300, "y" * 5000,
    "é",
    "a\nb", "\x1b[31m", "[bold]", "%s%n", "${HOME}", "\udcff", "🦆", "A", "B", "fmnist_2c2d",
    "A better than B", "A better than B on fmnist_2c2d", "A equals B within 0.01",
    "A equals B within 1e999", "A equals B within -1e999", "A equals B within nan", "A beats",
    "A equals B within 0.0", "A better than B at 1e9 epochs", "A better than B at 1" + "0" * 5000,
    "A better than B in loss", "A better than A", "A equals B within 1" + "0" * 400, "better than",
)  # fmt: skip
OPTIONS = (
    "--help", "-h", "--version", "--json", "--seed", "--epochs", "--batch-size", "--set",
    "--schedule",
    "--clip-norm", "--max-seconds", "--device", "--threads", "--out", "--retry-crashed",
    "--data-dir",
    "--workers", "--until-decided", "--max-seeds", "--figures", "--width", "--show", "--label",
    "--colour", "--origin", "--optimizers", "--repetitions", "--steps", "--initialisation",
    "--samples", "--layers", "--trajectory", "--landscape", "--spread", "--scale", "--undo", "--x",
    "--set=lr=0.1", "--epochs=1", "--seed=-1", "--json=1", "-j", "--lr", "--lr=0.1", "--out=",
)  # fmt: skip
VALUES = (
    "0", "1", "-1", "2.5", "nan", "inf", "1e999", "1" * 30, "9" * 5000, "0x10", "true", "None", "",
    "lr=0.1", "lr=", "=1", "lr=nan", "lr=[1,2]", "lr=" + "9" * 5000, "lr=" + "[" * 3000, "a.b=1",
    "lr=0.1,momentum=0.9", "linear_decay", "none", "step,steps=[0.5],factor=0.1", "{", "[", "'",
    '"',
    "orthogonal,gain=1.4", "cpu", "cuda", "tpu", "pdf", "3.25in", "9cm", "1e9in", "nanin",
    "A=#ff0000",
    "A=red;} body{display:none}", "A=B", "=", "small", "sgd,adam", ",", ",,", "sgd,lr=0.1", "OUT",
)  # fmt: skip
COMMANDS = (
    "list", "show", "run", "bench", "status", "report", "claim", "import", "reproduce", "time",
    "data",
    "compact",
)  # fmt: skip


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would train, measure or download says so instead."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise OptiscopeError("this would run now")

    for place in (
        "optiscope.study.single.run_trial",
        "optiscope.study.runner.run_study",
        "optiscope.study.cost.time_optimizers",
        "optiscope.data.download.fetch_file",
    ):
        monkeypatch.setattr(place, refuse)
    module = importlib.import_module("optiscope.reproduction.reproduce")
    monkeypatch.setattr(module, "reproduce", refuse)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPTISCOPE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "100")
    study(tmp_path / "STUDY", {"A": (0.9, 0.8), "B": (0.7, 0.6)}, seeds=(1, 2))
    return tmp_path


TEMPLATES: dict[str, tuple[str, ...]] = {
    "run digits_logreg sgd": (
        "--set", "--seed", "--epochs", "--batch-size", "--schedule", "--clip-norm", "--max-seconds",
        "--initialisation", "--device", "--threads", "--out", "--data-dir",
    ),
    "run mnist_mlp adam": ("--set", "--data-dir", "--json"),
    "show digits_mlp": ("--layers", "--spread", "--initialisation", "--json", "--batch-size"),
    "show two_d_beale": ("--trajectory", "--samples", "--clip-norm", "--json", "--initialisation"),
    "status STUDY": ("--json",),
    "report STUDY": ("--width", "--figures", "--show", "--label", "--colour", "--json"),
    "claim QUESTION STUDY": ("--json", "--assume"),
    "compact STUDY": ("--undo", "--json"),
    "bench quickstart": ("--until-decided", "--max-seeds", "--out", "--workers", "--data-dir"),
    "import STUDY/study.json STUDY": ("--origin", "--json"),
    "time digits_logreg": ("--optimizers", "--repetitions", "--steps", "--threads", "--out"),
    "data verify": ("--data-dir", "--json"),
    "data list": ("--data-dir", "--json"),
    "list problems": ("--data-dir", "--json"),
}  # fmt: skip
FLAGS = ("--json", "--undo", "--until-decided", "--retry-crashed", "--layers", "--spread")


def _arguments(draws: random.Random) -> list[str]:
    if draws.random() < 0.6:
        template = draws.choice(list(TEMPLATES))
        line = [draws.choice(WORDS) if w == "QUESTION" else w for w in template.split()]
        for _ in range(draws.choice([0, 1, 1, 2])):
            option = draws.choice(TEMPLATES[template])
            line += [option] if option in FLAGS else [option, draws.choice(VALUES + WORDS)]
        return line
    line = [draws.choice(COMMANDS)] if draws.random() < 0.9 else []
    if line == ["claim"]:
        line += [draws.choice(WORDS), draws.choice(["STUDY", "STUDY", "missing", ""])]
    elif line and line[0] in ("status", "report", "compact") and draws.random() < 0.7:
        line.append("STUDY")
    for _ in range(draws.choice([0, 1, 1, 2, 2, 3, 5])):
        kind = draws.randrange(4)
        if kind == 0:
            line.append(draws.choice(OPTIONS))
        elif kind == 1:
            line += [draws.choice(OPTIONS), draws.choice(VALUES)]
        else:
            line.append(draws.choice(WORDS))
    if draws.random() < 0.1:
        draws.shuffle(line)
    return [word.replace("\x00", "") for word in line]


def _fuzz(optiscope: Callable[..., Any], seeds: range) -> None:
    for seed in seeds:
        arguments = _arguments(random.Random(seed))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                outcome = optiscope(*arguments)
            assert outcome.code in (0, 1, 2, 3, 4)
            if outcome.code >= 2:
                assert 1 <= len(outcome.err.splitlines()) <= 40
                last = outcome.err.splitlines()[-1]
                assert len(last) < 2200
                assert len(outcome.err) < 6000
            assert "Traceback" not in outcome.err
        except BaseException as error:
            error.add_note(f"seed {seed}: {arguments!r}"[:2000])
            raise


@pytest.mark.usefixtures("nothing_runs", "folder")
@pytest.mark.parametrize("part", range(2))
def test_a_sample_of_command_lines(optiscope: Callable[..., Any], part: int) -> None:
    _fuzz(optiscope, range(30_000 + 60 * part, 30_060 + 60 * part))


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_runs", "folder")
@pytest.mark.parametrize("part", range(10))
def test_7500_command_lines(optiscope: Callable[..., Any], part: int) -> None:
    _fuzz(optiscope, range(750 * part, 750 * (part + 1)))
