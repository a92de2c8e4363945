"""Character ids, the text's shares, and windows that never cross from one split to another."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from optiscope import problems
from optiscope.data import BadFile
from optiscope.problems.text import characters

HEAD = "Header of the publisher\n*** START OF THIS EBOOK ***\n"
TAIL = "\n*** END OF THIS EBOOK ***\nLicence\n"


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, str]:
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlu ETAOIN.,éЖ"))
    weights = np.linspace(3.0, 0.1, len(letters))
    body = "".join(rng.choice(letters, 20_000, p=weights / weights.sum())).strip()
    (tmp_path / "tolstoi").mkdir()
    with gzip.open(tmp_path / "tolstoi" / "war_and_peace.txt.gz", "wt", encoding="utf-8") as file:
        file.write(HEAD + body + TAIL)
    return tmp_path, body


def test_ids_are_ranks_in_the_learnt_part() -> None:
    ids = characters("aaabbcz" + "zzzzzq", learnt=7, vocabulary=4)
    assert ids.tolist() == [0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 3, 3, 3]


def test_a_short_vocabulary_leaves_ids_free() -> None:
    assert characters("ab", learnt=2).tolist() == [0, 1]
    assert characters("ab?", learnt=2).tolist() == [0, 1, 82]


def test_a_text_too_short_for_its_splits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tolstoi").mkdir()
    (tmp_path / "tolstoi" / "war_and_peace.txt").write_text("abc")
    with pytest.raises(BadFile, match="each split holds more than 50 characters, got one of 3"):
        problems.get("tolstoi_char_rnn").data(tmp_path)


@pytest.mark.parametrize(("name", "length"), [("tolstoi_char_rnn", 50), ("tolstoi_gpt", 128)])
def test_windows(folder: tuple[Path, str], name: str, length: int) -> None:
    data_dir, body = folder
    splits = problems.get(name).data(data_dir)
    total = len(body)
    ends = [0, int(0.7 * total), int(0.8 * total), total]
    spelled = characters(body, ends[1])
    used: list[set[int]] = []
    for i, part in enumerate((splits.train, splits.valid, splits.test)):
        assert len(part) == len(range(ends[i], ends[i + 1] - length, length))
        starts = part.starts
        assert starts.diff().eq(length).all()
        used.append({s + k for s in starts.tolist() for k in range(length + 1)})
        assert min(used[-1]) == ends[i]
        assert max(used[-1]) < ends[i + 1]
        batch = part.select(torch.arange(len(part)))
        for start, x, y in zip(starts.tolist(), *batch, strict=True):
            assert torch.equal(x, spelled[start : start + length])
            assert torch.equal(y, spelled[start + 1 : start + length + 1])
    assert not used[0] & used[1]
    assert not used[1] & used[2]
    evaluated = splits.train_eval.starts.tolist()
    assert len(evaluated) == len(set(evaluated)) == len(splits.valid)
    assert set(evaluated) <= set(splits.train.starts.tolist())


@pytest.mark.slow
def test_the_real_text(real_data: Path) -> None:
    splits = problems.get("tolstoi_char_rnn").data(real_data)
    assert int(splits.train.tokens.max()) == 82
    rare = (splits.train.tokens == 82).double().mean().item()
    assert 0 < rare < 2e-4
    share = len(splits.test) / (len(splits.train) + len(splits.valid) + len(splits.test))
    assert share == pytest.approx(0.2, abs=1e-3)
