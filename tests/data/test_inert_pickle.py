"""A pickle can ask its reader to run anything: this reader must run nothing."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from file_writers import pixels, python2_pickle

from optiscope.data.errors import BadFile
from optiscope.data.inert_pickle import load_inert


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_numbers_strings_containers_and_arrays(protocol: int) -> None:
    array = pixels(3, 4)
    value = {
        "data": array,
        "labels": [1, 2],
        "name": "batch",
        "raw": b"\x00\xff",
        "pair": (1.5, None),
    }
    if protocol == 5:
        value["data"] = np.asfortranarray(array)
    loaded = load_inert(pickle.dumps(value, protocol=protocol), "file")
    np.testing.assert_array_equal(loaded.pop("data"), array)
    value.pop("data")
    assert loaded == value


def test_python_2_batches() -> None:
    images = pixels(2, 3, 32, 32)
    loaded = load_inert(python2_pickle(images, b"labels", [7, 8]), "file")
    assert loaded[b"labels"] == [7, 8]
    np.testing.assert_array_equal(loaded[b"data"], images.reshape(2, -1))


class Runs:
    """Pickles as a call of ``function(*arguments)``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", [os.system, os.mkdir, eval, exec, getattr, __import__])
def test_nothing_is_run(tmp_path: Path, function: Any, protocol: int) -> None:
    victim = tmp_path / "victim"
    argument = {
        os.system: f"touch {victim}",
        os.mkdir: str(victim),
        getattr: (os, "getcwd"),
        __import__: "this",
    }.get(function, f"open({str(victim)!r}, 'w')")
    arguments = argument if isinstance(argument, tuple) else (argument,)
    if function is getattr:
        arguments = (Runs(__import__, "os"), "getcwd")
    content = pickle.dumps({"data": Runs(function, *arguments)}, protocol=protocol)
    with pytest.raises(BadFile, match="it asks for") as raised:
        load_inert(content, "some file")
    assert str(raised.value).startswith("some file: ")
    assert "\n" not in str(raised.value)
    assert not victim.exists()


def integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def text(value: bytes) -> bytes:
    return b"U" + bytes([len(value)]) + value


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + integer(0) + b"\x85U\x01btR"
DTYPE = b"cnumpy\ndtype\n(U\x02u1" + integer(0) + integer(1) + b"tR"
HOSTILE = {
    "a stand-in is altered": b"cnumpy\ndtype\n}U\x04nameU\x02O8sb.",
    "a stand-in's slot is altered": b"cnumpy\ndtype\nN}U\x05_makeU\x01xs\x86b.",
    "an array class is called": b"cnumpy\nndarray\n" + integer(8) + b"\x85R.",
    "an array of objects": b"cnumpy\ndtype\n(U\x01OtR.",
    "an array beyond its data": ARRAY
    + b"("
    + integer(1)
    + integer(10**9)
    + b"\x85"
    + DTYPE
    + b"\x89"
    + text(b"ab")
    + b"tb.",
    "a negative length": ARRAY
    + b"("
    + integer(1)
    + integer(-2)
    + b"\x85"
    + DTYPE
    + b"\x89U\x00tb.",
    "a big-endian type": DTYPE[:-1] + b"R(" + integer(3) + b"U\x01>NNN" + integer(-1) * 2 + b"tb.",
    "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.",
    "a persistent id": b"Pelsewhere\n.",
    "an extension code": b"\x82\x01.",
    "a memo of gigabytes": b"\x80\x02Nr\xff\xff\xff\x7fh\x00.",
    "text as another encoding": b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.",
    "a truncated stream": python2_pickle(pixels(1, 3, 32, 32), b"labels", [1])[:500],
    "no pickle at all": b"\x89PNG\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_and_damaged_pickles_are_one_line(content: bytes) -> None:
    with pytest.raises(BadFile, match=r"^f: not a pickle of plain data \(.+\): fetch it again$"):
        load_inert(content, "f")


def test_a_hostile_pickle_leaves_the_next_reading_as_it_was() -> None:
    for content in HOSTILE.values():
        with pytest.raises(BadFile):
            load_inert(content, "f")
    array = pixels(2, 2)
    np.testing.assert_array_equal(load_inert(pickle.dumps(array), "f"), array)
