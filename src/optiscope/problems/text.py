"""Character prediction on War and Peace: a recurrent and an attention network.

Index legend: N windows, T characters in a window.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optiscope.data import BadFile, load_text
from optiscope.data.samples import Splits, TextWindows
from optiscope.data.splits import fixed_split
from optiscope.problems.image_splits import SPLIT_SEED
from optiscope.problems.losses import TOKEN_ACCURACY, token_cross_entropy
from optiscope.problems.models.recurrent import CharacterLSTM
from optiscope.problems.models.transformer import LanguageTransformer
from optiscope.problems.problem import Problem
from optiscope.problems.published import baselines_of

__all__ = ["alphabet", "characters", "tolstoi_char_rnn", "tolstoi_gpt"]

VOCABULARY = 83
"""Character ids: 0 to 81 for the commonest characters of the training text, 82 for all others."""

ENDS = (0.7, 0.8, 1.0)
"""Where training, validation and test text end, as shares; the test set is the source's."""


def characters(text: str, learnt: int, vocabulary: int = VOCABULARY) -> Tensor:
    """Ids int64 [len(text)] of the characters, by their frequency in the first ``learnt`` ones.

    Equal counts are ordered by code point. The last id stands for every other character, so that
    the vocabulary is the same for all editions of the text.
    """
    points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    ranked = _commonest(points[:learnt], vocabulary - 1)
    ids = np.full(int(points.max()) + 1, vocabulary - 1, dtype=np.int64)
    ids[ranked] = np.arange(len(ranked))
    return torch.from_numpy(ids[points])


def _commonest(points: NDArray[np.uint32], count: int) -> NDArray[np.uint32]:
    """The ``count`` commonest code points, commonest first and equal counts in their own order."""
    kinds, counts = np.unique(points, return_counts=True)
    ranked: NDArray[np.uint32] = kinds[np.argsort(-counts, kind="stable")][:count]
    return ranked


def alphabet(data_dir: Any) -> list[str]:
    """The character of each id of the problems on this text; the last id's is ``□``."""
    text = _body(load_text("tolstoi", data_dir))
    points = np.frombuffer(text[: int(len(text) * ENDS[0])].encode("utf-32-le"), dtype="<u4")
    return [chr(point) for point in _commonest(points, VOCABULARY - 1)] + ["□"]


def _body(text: str) -> str:
    """The text between Project Gutenberg's start and end lines, or all of it without them."""
    start, end = text.find("*** START OF"), text.find("*** END OF")
    if start < 0 or end < start:
        return text
    return text[text.index("\n", start) : end].strip()


def _windows(data_dir: Any, *, length: int) -> Splits:
    text = _body(load_text("tolstoi", data_dir))
    ends = [int(len(text) * share) for share in ENDS]
    if min(last - first for first, last in zip([0, *ends], ends, strict=False)) <= length:
        raise BadFile(
            f"expected a text of which each split holds more than {length} characters, got one of "
            f"{len(text)} in all: fetch it again"
        )
    tokens = characters(text, ends[0])
    train, valid, test = (
        TextWindows(tokens, torch.arange(first, last - length, length), length)
        for first, last in zip([0, *ends], ends, strict=False)
    )
    (evaluated,) = fixed_split(len(train), (len(valid),), seed=SPLIT_SEED)
    return Splits(train=train, train_eval=train.subset(evaluated), valid=valid, test=test)


_tolstoi = partial(
    Problem,
    loss=token_cross_entropy,
    metric=TOKEN_ACCURACY,
    dataset="tolstoi",
    licence="public domain (Project Gutenberg)",
)

tolstoi_char_rnn = _tolstoi(
    name="tolstoi_char_rnn",
    make_model=partial(CharacterLSTM, VOCABULARY),
    data=partial(_windows, length=50),
    batch_size=50,
    epochs=200,
    parameters=285_523,
    source="DeepOBS (Schneider, Balles, Hennig 2019)",
    baselines=baselines_of("tolstoi_char_rnn"),
    notes="Windows of 50 characters are drawn in random order and the state starts at zero in "
    "each, so that a sample's loss depends on that sample alone (the original carries the state "
    "along contiguous streams). Dropout between the layers only, as in PyTorch (TensorFlow: on "
    "every layer's input and output). Validation is the last eighth of the original's training "
    "text. Ids: the 82 commonest characters and one for the rest.",
)

tolstoi_gpt = _tolstoi(
    name="tolstoi_gpt",
    make_model=partial(LanguageTransformer, VOCABULARY),
    data=partial(_windows, length=128),
    batch_size=32,
    epochs=20,
    parameters=1_227_520,
    source="the size of govorunov's ptb_gpt_micro, on this text",
    notes="Six blocks of width 128 with four heads, context 128, dropout 0.1, output not tied to "
    "the embedding and without bias.",
)
