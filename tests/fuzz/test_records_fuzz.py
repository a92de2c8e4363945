"""Whatever stands in a study's files, every command that reads them ends in words."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fuzz.mutations import mutated_bytes, mutated_json, mutated_values
from optiscope.records import StudyFolder
from optiscope.records.record_file import digest_of
from optiscope.records.schema import SchemaError, parse_json
from stats.small_study import study

COMMANDS = (
    ("status",),
    ("status", "--json"),
    ("claim", "A better than B on fmnist_2c2d"),
    ("claim", "A equals B within 0.1 on fmnist_2c2d", "--json"),
    ("claim", "A beats B everywhere"),
)
LONGEST_LINE = 700


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = study(
        tmp_path_factory.mktemp("fuzz") / "study",
        {"A": (0.9, 0.8, 0.85), "B": (0.7, 0.6, 0.65)},
        seeds=(1, 2, 3),
        goals=[{"problem": "fmnist_2c2d", "value": 0.9, "meaning": "of a paper"}],
        level=0.05,
    )
    return folder.path


def _damage(folder: Path, draws: random.Random) -> str:
    """Change one or more files of a study; the digest fits, is gone, or is left as it was."""
    runs = sorted((folder / "runs").iterdir())
    told = []
    for _ in range(draws.choice([1, 1, 2])):
        name = draws.choice(["study.json", "study.json", "ledger.json", "run.json", "metrics"])
        run = draws.choice(runs)
        path = folder / name
        if name == "run.json":
            path = run / name
        elif name == "metrics":
            path = run / "metrics.parquet"
            path.write_bytes(mutated_bytes(path.read_bytes(), draws))
            told.append(str(path))
            continue
        try:
            values: Any = parse_json(path.read_bytes())
        except SchemaError:
            continue
        kind = draws.randrange(3)
        if kind == 0:
            path.write_bytes(mutated_json(values, draws))
        else:
            if isinstance(values, dict):
                values.pop("digest", None)
            changed = mutated_values(values, draws, draws.choice([1, 1, 2, 4]))
            if kind == 1 and isinstance(changed, dict):
                changed["digest"] = _digest(changed)
            whole = draws.random() < 0.7
            path.write_bytes(_json(changed) if whole else mutated_json(changed, draws))
        told.append(f"{path}: {path.read_bytes()[:3000]!r}")
    return "\n".join(told)


def _digest(values: dict[str, Any]) -> str:
    try:
        return digest_of({key: item for key, item in values.items() if key != "digest"})
    except (ValueError, TypeError, RecursionError):
        return "0" * 64


def _json(values: Any) -> bytes:
    return json.dumps(values).encode("utf-8", "surrogatepass")


def _check(optiscope: Callable[..., Any], folder: Path, command: tuple[str, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning on somebody's terminal is an escape too
        outcome = optiscope(*command, folder)
    assert outcome.code in (0, 1, 2, 4)
    lines = outcome.err.splitlines()
    assert len(lines) <= 1
    assert all(len(line) <= LONGEST_LINE for line in lines)
    if outcome.code in (2, 4):
        assert outcome.err.startswith("optiscope: ")


def _fuzz(
    optiscope: Callable[..., Any], original: Path, tmp_path: Path, seeds: range, report_every: int
) -> None:
    for seed in seeds:
        draws = random.Random(seed)
        folder = tmp_path / "study"
        shutil.copytree(original, folder)
        told = _damage(folder, draws)
        commands = [draws.choice(COMMANDS), COMMANDS[seed % len(COMMANDS)]]
        if seed % report_every == 0:
            commands.append(("report",))
        for command in commands:
            try:
                _check(optiscope, folder, command)
            except BaseException as error:
                error.add_note(f"seed {seed}, {command}\n{told}")
                raise
        shutil.rmtree(folder)


@pytest.mark.parametrize("part", range(4))
def test_a_sample_of_damaged_studies(
    optiscope: Callable[..., Any], original: Path, tmp_path: Path, part: int
) -> None:
    _fuzz(optiscope, original, tmp_path, range(10_000 + 25 * part, 10_025 + 25 * part), 12)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(7))
def test_seven_hundred_damaged_studies(
    optiscope: Callable[..., Any], original: Path, tmp_path: Path, part: int
) -> None:
    _fuzz(optiscope, original, tmp_path, range(100 * part, 100 * part + 100), 1)


def test_the_undamaged_study_is_read(optiscope: Callable[..., Any], original: Path) -> None:
    assert len(StudyFolder(original).ledger()) == 14
    assert optiscope(*COMMANDS[2], original).out.startswith("undecided")
