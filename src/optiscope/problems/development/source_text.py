"""Development problems on the sources of Python's standard library: a transformer and a GRU.

Every machine that runs this package has the text; one version of Python gives one text. The
sources are read from the running interpreter's own files and never imported.

Index legend: T characters in a window.
"""

from __future__ import annotations

import sysconfig
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optiscope.data import MissingData
from optiscope.data.samples import Splits, TextWindows
from optiscope.problems.development.parts import RandomParts
from optiscope.problems.losses import TOKEN_ACCURACY, token_cross_entropy
from optiscope.problems.models.recurrent import CharacterGRU
from optiscope.problems.models.transformer import LanguageTransformer
from optiscope.problems.problem import Problem

__all__ = ["dev_gpt", "dev_gru", "source_tokens"]

# fmt: off
MODULES = (
    "argparse", "ast", "bdb", "calendar", "cmd", "codecs", "configparser", "contextlib", "copy",
    "csv", "dataclasses", "difflib", "dis", "doctest", "enum", "fileinput", "fractions",
    "ftplib", "functools", "gettext", "getopt", "heapq", "inspect", "ipaddress", "locale",
    "mailbox", "nntplib", "optparse", "pdb", "pickle", "pickletools", "platform", "plistlib",
    "random", "shelve", "shutil", "smtplib", "socket", "statistics", "string", "subprocess",
    "tarfile", "textwrap", "threading", "tokenize", "traceback", "turtle", "typing", "uuid",
)
# fmt: on
"""Whose sources are read; one that this version of Python lacks is left out."""

BYTES_EACH = 16_384
"""Read from the beginning of each file, so that none dominates."""

PASSAGE = 2_048
"""Characters of a passage, which goes to one split whole: of ten, eight are trained on."""

VOCABULARY = 97
"""Ids: 0 for a line's end, 1 to 95 for the printable ASCII characters, 96 for all others."""

VALID, TRAIN_EVAL, TEST = 200, 40, 80


@lru_cache(maxsize=1)
def source_tokens() -> Tensor:
    """Ids int64 [passages, PASSAGE] of the sources, in the order of `MODULES`.

    Raises:
        MissingData: the interpreter came without its sources.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    parts = []
    for module in MODULES:
        path = folder / f"{module}.py"
        if path.is_file():
            with path.open("rb") as stream:
                parts.append(stream.read(BYTES_EACH).replace(b"\r\n", b"\n"))
    text = np.frombuffer(b"".join(parts), dtype=np.uint8)
    if len(text) < 20 * PASSAGE:
        raise MissingData(
            f"expected the sources of Python's standard library in {folder}, found "
            f"{len(text):,} bytes: use a Python that was installed with its .py files"
        )
    ids = np.full(256, VOCABULARY - 1, dtype=np.int64)
    ids[ord("\n")] = 0
    ids[32:127] = np.arange(1, 96)
    count = len(text) // PASSAGE
    return torch.from_numpy(ids[text[: count * PASSAGE]]).view(count, PASSAGE)


def _windows(data_dir: Any, *, length: int, epoch: int) -> Splits:
    """Windows within passages: overlapping ones to train on, others to evaluate."""
    passages = source_tokens()
    number = torch.arange(len(passages)) * PASSAGE

    def at(chosen: Tensor, stride: int) -> TextWindows:
        inside = torch.arange(0, PASSAGE - length, stride)
        starts = (number[chosen].unsqueeze(1) + inside).flatten()
        return TextWindows(passages.flatten(), starts, length)

    tenth = torch.arange(len(passages)) % 10
    train = at(tenth < 8, length // 4)
    shuffle = torch.randperm(len(train), generator=torch.Generator().manual_seed(42))
    train = train.subset(shuffle)
    valid, test = (at(tenth == which, length) for which in (8, 9))

    def spread(samples: TextWindows, count: int) -> TextWindows:
        return samples.subset(torch.linspace(0, len(samples) - 1, count).long())

    return Splits(
        train=RandomParts(train, epoch),
        train_eval=train.subset(torch.arange(TRAIN_EVAL)),
        valid=spread(valid, VALID),
        test=spread(test, TEST),
    )


_source = partial(
    Problem,
    loss=token_cross_entropy,
    metric=TOKEN_ACCURACY,
    batch_size=8,
    epochs=24,
    dataset="python_sources",
    source="this package, to develop optimizers on",
    licence="PSF License (Python's standard library)",
    notes="The text depends on the version of Python, which is part of every record. An epoch is "
    "256 windows, a fresh random part of all.",
)

dev_gpt = _source(
    name="dev_gpt",
    make_model=partial(
        LanguageTransformer,
        VOCABULARY,
        context=48,
        width=64,
        heads=4,
        blocks=2,
        dropout=0.0,
    ),
    data=partial(_windows, length=48, epoch=256),
    parameters=115_584,
)

dev_gru = _source(
    name="dev_gru",
    make_model=partial(CharacterGRU, VOCABULARY, 48, 96),
    data=partial(_windows, length=32, epoch=256),
    parameters=56_113,
)
