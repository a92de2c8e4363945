"""State dicts in files that cannot execute code: safetensors, and torch's with weights only.

A safetensors file is the length of a header (8 bytes, little-endian), the header (JSON: type, shape
and place of each tensor), and the numbers.
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optiscope.atomic_file import replacing
from optiscope.errors import ExitCode, OptiscopeError, shorten

__all__ = ["WeightFileError", "read_weights", "write_weights"]

LONGEST_HEADER = 100 * 2**20  # bytes, as in the reference implementation

_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}
_NESTED = ("state_dict", "model_state_dict", "model")


class WeightFileError(OptiscopeError):
    """A file that holds no state dict, or cannot be written."""

    exit_code = ExitCode.DATA


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The state dict in a file: ``.safetensors``, or what ``torch.save(model.state_dict())`` wrote.

    A checkpoint whose state dict lies under ``state_dict``, ``model_state_dict`` or ``model`` is
    understood.

    Raises:
        WeightFileError: no such file, or it holds something else.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return _safetensors(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightFileError(f"cannot read {path}: {error.strerror or error}") from None
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        words = " ".join(str(error).split())
        raise WeightFileError(
            f"expected weights in {path}, as torch.save(model.state_dict(), path) writes them, got "
            f"a file that cannot be read without executing code or is damaged: {words[:80]}"
        ) from None
    for name in _NESTED:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict) or not any(isinstance(v, Tensor) for v in found.values()):
        raise WeightFileError(
            f"expected a state dict in {path}, got {shorten(found)}: save model.state_dict()"
        )
    return {str(key): value for key, value in found.items() if isinstance(value, Tensor)}


def write_weights(state: Mapping[str, Any], path: Path | str) -> None:
    """Write the tensors of a state dict as safetensors, whole or not at all, synced to disk.

    Tensors that share memory are written each; what is no tensor is left out.

    Raises:
        WeightFileError: a tensor's type has no place in the format, or the file cannot be written.
    """
    path = Path(path)
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES or tensor.layout is not torch.strided:
            raise WeightFileError(
                f"expected plain tensors, got {tensor.dtype} ({tensor.layout}) for "
                f"{shorten(name)}: safetensors cannot hold it"
            )
        end = place + tensor.numel() * tensor.dtype.itemsize
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [place, end],
        }
        place = end
    words = json.dumps(header, separators=(",", ":")).encode()
    words += b" " * (-len(words) % 8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as written, written.open("wb") as file:  # closed, then renamed
            file.write(len(words).to_bytes(8, "little") + words)
            for tensor in tensors.values():
                flat = tensor.detach().cpu().contiguous().reshape(-1)
                file.write(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    except OSError as error:
        raise WeightFileError(f"cannot write {path}: {error.strerror or error}") from None


def _safetensors(path: Path) -> dict[str, Tensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(LONGEST_HEADER, size - 8):
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        header = json.loads(file.read(length))
        numbers = bytearray(file.read())
    if not isinstance(header, dict):
        raise ValueError("a header that is no object")
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            tensors[str(name)] = _tensor(str(name), entry, numbers)
    return tensors


def _tensor(name: str, entry: Any, numbers: bytearray) -> Tensor:
    try:
        dtype, shape = _TYPES[entry["dtype"]], [int(n) for n in entry["shape"]]
        start, end = (int(n) for n in entry["data_offsets"])
    except (TypeError, KeyError) as error:
        raise ValueError(f"tensor {shorten(name)} is not described as expected: {error}") from None
    size = math.prod(shape) * dtype.itemsize
    if min([start, *shape]) < 0 or end - start != size or end > len(numbers):
        raise ValueError(f"tensor {shorten(name)} of shape {shape} does not fit {start} to {end}")
    if size == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(numbers[start:end], dtype=dtype).view(shape)
