"""What a run wants of its device: that it is there, memory and its layout, fast small numbers."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "flushes_denormals",
    "in_fast_layout",
    "peak_memory_bytes",
    "prepare_process",
    "reset_peak_memory",
    "reuse_freed_memory",
]

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of mallopt, from glibc's malloc.h
NEVER = 2**31 - 1


def _c_library() -> ctypes.CDLL | None:
    """The C library where it is glibc."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None


def reuse_freed_memory() -> None:
    """Have this process keep the memory that it frees, for the next tensors, where glibc allows.

    As it comes, glibc hands large tensors back to the system in every step and gets them anew, page
    by page: a seventh of the time of a small convolutional network. What was kept is given back
    when the next run begins.
    """
    library = _c_library()
    if library is not None:
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, NEVER)


def reset_peak_memory(device: torch.device) -> None:
    """Start measuring the peak anew, where the system can (Linux and CUDA).

    Memory that an earlier run left behind goes back to the system first.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    library = _c_library()
    if library is not None:
        library.malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory_bytes(device: torch.device) -> int:
    """Largest resident memory of the process (CPU) or largest allocation (CUDA), in bytes.

    Where the system cannot reset the peak, it is that of the process since its start.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        if sys.platform == "win32":
            return 0  # not known
        import resource

        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found.group(1)) * 1024 if found else 0


def prepare_process() -> None:
    """Have this process keep the memory that it frees, and count denormal numbers as zero.

    Weights that only an L2 term still moves, those of units that are dead, shrink to below 1e-38
    under optimizers like Adam. Arithmetic with such numbers is slow on a CPU: a step of a
    convolutional network of which half the filters have come to this took forty times as long.
    Threads take the setting over when they begin, so this comes before torch's first parallel
    work. For processes whose only work is training; a library has no business to set this for its
    host.
    """
    torch.set_flush_denormal(True)
    reuse_freed_memory()


def backend(device: torch.device) -> Any:
    """Torch's module for a kind of device: ``torch.cuda``, ``torch.xpu``, ``torch.mps``."""
    return torch.get_device_module(device)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    kind = backend(device)
    if device.type == "mps":
        kind.synchronize()
    else:
        kind.synchronize(device)


def device_name(device: torch.device) -> str:
    """What the hardware calls itself, or the kind of device where it does not."""
    name = getattr(backend(device), "get_device_name", None) if device.type != "cpu" else None
    return str(name(device)) if name is not None else device.type


def flushes_denormals() -> bool:
    """Whether numbers below float32's smallest normal one count as zero in this thread."""
    smallest = torch.tensor(torch.finfo(torch.float32).tiny)
    return bool(smallest * 0.5 == 0)


def in_fast_layout(inputs: Any) -> Any:
    """``inputs``, images [B, C, H, W] on the CPU with the channels last in memory.

    Torch's convolutions keep the layout of their input, so that this alone puts a whole network
    into the one that its CPU kernels like; values and shapes are the same. Other inputs, also
    several at once, and those on a GPU, where single precision prefers the usual order, come back
    as they are.
    """
    if not isinstance(inputs, Tensor) or inputs.dim() != 4:
        return inputs
    if inputs.device.type != "cpu" or not inputs.is_floating_point():
        return inputs
    _, channels, height, width = inputs.shape
    if channels == 1 and inputs.is_contiguous():  # laid out so already: only the strides differ
        return inputs.as_strided(inputs.shape, (height * width, 1, width, 1))
    return inputs.to(memory_format=torch.channels_last)
