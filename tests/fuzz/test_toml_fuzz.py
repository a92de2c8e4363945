"""Whatever a study's file holds, it is read as a study or refused in one line."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest

from fuzz.mutations import mutated_bytes
from optiscope.study import StudyError, load_study

GOOD = """\
name = "small"
question = "Which?"
problems = ["digits_logreg"]
epochs = 2
seeds = [11, 12]
level = 0.05
reference = "SGD"
metric = { digits_logreg = "loss" }
schedule = { name = "linear_decay" }
initialisation = { name = "he_normal" }
max_seconds = 60.0
equivalence_margin = 0.01
goals = [{ problem = "digits_logreg", value = 0.5, meaning = "of a paper" }]

[tuning]
sampler = "random"
budget = 2
seeds = [1]
select = "valid_loss"

[[algorithms]]
label = "SGD"
optimizer = "sgd"
fixed = { momentum = 0.9 }
clip = { norm = 1.0 }
early_stopping = { metric = "valid_loss", patience = 2 }

[[algorithms]]
label = "Adam"
optimizer = "adam"
space = { lr = { low = 1e-4, high = 1e-2, points = 3 }, eps = { choice = [1e-8, 1e-7] } }
sampler = "grid"
pruner = { name = "MedianPruner" }
"""
VALUES = (
    "0", "-1", "1", "2.5", "1e400", "-1e-400", "nan", "-inf", "1" * 30, "1" * 400, "9" * 5000,
    "1000000000000", "true", '""', '"x"', '"none"', '"sgd"', '"a\\nb"', '"\\u0000"', '"é"',
    '"' + "y" * 100_000 + '"', '"nowhere:thing"', '":"', '"a:"', '":b"', '"..a:b"', '"\\ud800"',
    "[]", "[[]]", '[""]', '["a", 1]', "[" * 500 + "]" * 500, "[" * 40 + "]" * 40, "{}",
    "{ a = 1 }", "{ choice = [] }", "{ choice = 1 }", "{ choice = [{}, []] }",
    "{ low = 1, high = 0 }", "{ low = 0.0, high = 1.0 }", "{ low = 1e-308, high = 1e308 }",
    "{ low = 1e-4, high = 1e-2, points = 1000000000000 }", '{ name = ["he_normal"] }',
    "{ name = {} }", "{ name = 1 }", '{ name = "CosineAnnealingLR", T_max = "horizon" }',
    "{ name = 'step', steps = [0.5], factor = 1e999 }", "1979-05-27", "07:32:00",
    "1979-05-27T07:32:00Z", "0x10", "1_000", "+1", "[11, 11]", "[-1]", "[9223372036854775808]",
)  # fmt: skip
KEYS = (
    "name", "epochs", "label", '"a\\nb"', '""', "a.b.c", '"' + "k" * 5000 + '"', "space.lr",
    "colour", "lr", "0", "optimizer", "batch_size", "threads", "device", "points",
    "tuning.budget", "é",
)  # fmt: skip
LONGEST = 2100


def _mutated(draws: random.Random) -> bytes:
    text = GOOD
    for _ in range(draws.choice([1, 1, 1, 2, 4])):
        lines = text.splitlines()
        place = draws.randrange(len(lines))
        line, kind = lines[place], draws.randrange(7)
        key, equals, value = line.partition(" = ")
        if kind == 0:
            del lines[place]
        elif kind == 1:
            lines.insert(draws.randrange(len(lines)), line)
        elif kind == 2 and equals:
            lines[place] = f"{draws.choice(KEYS)} = {value}"
        elif kind == 3:
            lines.insert(place, f"{draws.choice(KEYS)} = {draws.choice(VALUES)}")
        elif kind == 4 and "{" in line:
            inner = value.replace(value.split("=")[-1].split(",")[0], f" {draws.choice(VALUES)} }}")
            lines[place] = f"{key} = {inner}"
        elif equals:
            lines[place] = f"{key} = {draws.choice(VALUES)}"
        else:
            heads = ["[tuning", "[[tuning]]", "[a.b]", "[algorithms]", "]]", "="]
            lines[place] = draws.choice(heads)
        text = "\n".join(lines) + "\n"
    content = text.encode("utf-8", "surrogatepass")
    return mutated_bytes(content, draws) if draws.random() < 0.1 else content


def _fuzz(path: Path, seeds: range) -> int:
    refused = 0
    for seed in seeds:
        path.write_bytes(_mutated(random.Random(seed)))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                load_study(path)
        except StudyError as error:
            refused += 1
            message = str(error)
            assert message.isprintable(), (seed, message)
            assert 10 < len(message) <= LONGEST, (seed, message)
            assert "line None" not in message, (seed, message)
        except BaseException as error:
            error.add_note(f"seed {seed}\n{path.read_text(errors='replace')[:3000]}")
            raise
    return refused


def test_the_study_that_is_mutated_is_good(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(GOOD)
    assert load_study(tmp_path / "a.toml").name == "small"


def test_a_sample_of_mutated_studies(tmp_path: Path) -> None:
    assert _fuzz(tmp_path / "a.toml", range(20_000, 20_200)) > 100


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_9400_mutated_studies(tmp_path: Path, part: int) -> None:
    assert _fuzz(tmp_path / "a.toml", range(940 * part, 940 * (part + 1))) > 500
