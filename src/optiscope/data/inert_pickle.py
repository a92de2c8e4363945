"""Pickles read without executing them: only numbers, strings, containers and arrays come out.

A pickle names functions for its reader to call. This reader knows exactly the names that numpy
arrays and Python 3 bytes need, and has stand-ins of its own for them, which build plain arrays from
checked arguments. Any other name is an error before anything is called.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from optiscope.data.errors import BadFile

__all__ = ["load_inert"]

DTYPES = {"u1": np.uint8, "i1": np.int8, "i4": np.int32, "i8": np.int64}


def load_inert(content: bytes, where: str) -> Any:
    """Object held in the pickle ``content``, with Python 2 strings as bytes.

    ``where`` names the file in errors.

    Raises:
        BadFile: the pickle is damaged, or asks for anything but inert data.
    """
    try:
        return _plain(_InertUnpickler(io.BytesIO(content), encoding="bytes").load())
    except Exception as error:  # a damaged pickle raises almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadFile(f"{where}: not a pickle of plain data ({reason}): fetch it again") from error


class _StandIn:
    """Callable in place of the one a pickle names; the pickle cannot alter it."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it alters a function")


class _DType:
    """Stand-in of a numpy dtype: a name out of `DTYPES`."""

    __slots__ = ("name",)

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = name.decode("ascii") if isinstance(name, bytes) else name
        if self.name not in DTYPES:
            raise pickle.UnpicklingError(f"it holds an array of type {self.name!r}")

    def __setstate__(self, state: Any) -> None:
        if not (
            isinstance(state, tuple) and len(state) > 1 and _ascii(state[1]) in ("<", "|", "=")
        ):
            raise pickle.UnpicklingError("it holds an array that is not little-endian")


class _Array:
    """Stand-in of a numpy array whose content arrives by `__setstate__`."""

    __slots__ = ("values",)

    def __init__(self, *_: Any) -> None:
        self.values: Any = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.fill(data, dtype, shape, "F" if fortran else "C")

    def fill(self, data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
        """Take ``data`` for the values of an array of ``shape``, stored in ``order``."""
        kind = np.dtype(DTYPES[dtype.name])
        if isinstance(data, str):
            data = data.encode("latin-1")
        if (
            not isinstance(data, bytes | bytearray)
            or order not in ("C", "F")
            or not all(isinstance(length, int) and length >= 0 for length in shape)
            or len(data) != math.prod(shape) * kind.itemsize
        ):
            raise pickle.UnpicklingError(f"an array's data do not fill its shape {shape}")
        self.values = np.frombuffer(data, dtype=kind).reshape(shape, order=order)
        return self


def _ascii(value: Any) -> Any:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if _ascii(encoding) not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it encodes text as {encoding!r}")
    return text.encode("latin-1")


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    return _Array().fill(data, dtype, shape, order)


def _refuse(*_: Any) -> Any:
    raise pickle.UnpicklingError("it builds an array in an unknown way")


class _InertUnpickler(pickle._Unpickler):
    """Unpickler whose every name is a stand-in.

    The one in Python, for the one in C reserves whatever memory a pickle asks for.
    """

    def find_class(self, module: str, name: str, /) -> Any:
        makers: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy.core.multiarray", "_reconstruct"): _Array,
            ("numpy._core.multiarray", "_reconstruct"): _Array,
            ("numpy.core.numeric", "_frombuffer"): _from_buffer,
            ("numpy._core.numeric", "_frombuffer"): _from_buffer,
            ("numpy", "ndarray"): _refuse,
            ("numpy", "dtype"): _DType,
            ("_codecs", "encode"): _encode,
        }
        if (module, name) not in makers:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _StandIn(makers[module, name])


def _plain(value: Any) -> Any:
    """The same value with array stand-ins, at the top or inside one container, as arrays."""
    if isinstance(value, _Array):
        return value.values
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
