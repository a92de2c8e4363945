"""Trials on the GPUs of this machine: one worker process for each slot, some slots to a GPU.

Several small trials on one GPU share its memory and its time: their losses are what they would be
alone, their seconds are not, and their records say so (``packing`` in the environment).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from optiscope.errors import ExitCode, OptiscopeError
from optiscope.executors.process_pool import WorkerPool

__all__ = ["SLOT", "GpuError", "gpu_devices", "gpu_pool", "gpu_slots"]

VISIBLE = "CUDA_VISIBLE_DEVICES"
SLOT = "OPTISCOPE_SLOT"
"""``GPU of SLOTS``: which GPU a worker has, and how many workers it shares it with."""


class GpuError(OptiscopeError, RuntimeError):
    """No GPU on this machine that torch can use; one line."""

    exit_code = ExitCode.USAGE


def gpu_devices() -> list[str]:
    """GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them.

    Raises:
        GpuError: there is none.
    """
    import torch

    count = torch.cuda.device_count()  # asks the driver, takes no device
    if not count:
        raise GpuError(
            "expected a GPU that torch can use on this machine, got none: leave --on out to train "
            "on its cores"
        )
    named = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]


def gpu_slots(devices: Sequence[str], per_gpu: int) -> list[dict[str, str]]:
    """The environment of each worker; all GPUs have one before any has two."""
    if per_gpu < 1:
        raise ValueError(f"expected at least one trial per GPU, got {per_gpu}")
    return [
        {VISIBLE: device, SLOT: f"{device} of {per_gpu}"}
        for _ in range(per_gpu)
        for device in devices
    ]


def gpu_pool(per_gpu: int = 1, devices: Sequence[str] | None = None) -> Callable[[int], WorkerPool]:
    """Maker of executors with a worker for each slot, for ``run_study(executor=...)``.

    Give ``run_study`` as many ``workers`` as there are slots, ``per_gpu * len(devices)``.

    Args:
        per_gpu: trials at a time on each GPU.
        devices: as ``CUDA_VISIBLE_DEVICES`` names them; those of this machine unless given.

    Raises:
        GpuError: there is no GPU.
    """
    slots = gpu_slots(gpu_devices() if devices is None else devices, per_gpu)
    return lambda workers: WorkerPool(min(workers, len(slots)), slots[:workers])
