"""Peak memory of a run."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import torch

__all__ = ["peak_memory_bytes", "reset_peak_memory"]


def reset_peak_memory(device: torch.device) -> None:
    """Start measuring the peak anew, where the system can (Linux and CUDA)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
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
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found.group(1)) * 1024 if found else 0
