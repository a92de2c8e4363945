"""Where and on what a run happened."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from optiscope.cores import available_cores
from optiscope.train.device import device_name, flushes_denormals

__all__ = ["environment", "learn_surroundings"]


@functools.cache
def _commit() -> str | None:
    """Commit of the checkout the package was installed from, with ``+`` where it was changed."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    git = ["git", "--no-optional-locks", "-C", str(root)]  # a worker may be killed meanwhile
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no", "--", "src"],
            capture_output=True,
            text=True,
        )
    except OSError:
        return None
    if commit.returncode != 0:
        return None
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")


@functools.cache
def _versions() -> dict[str, str]:
    packages = ("optiscope", "torch", "numpy", "scipy", "optuna")
    return {name: metadata.version(name) for name in packages}


@functools.cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _packing() -> dict[str, Any] | None:
    """The slot of a worker of ``optiscope.executors.gpus``: trials that share a GPU say so."""
    gpu, _, slots = os.environ.get("OPTISCOPE_SLOT", "").rpartition(" of ")
    if not gpu:
        return None
    pipe = os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")
    return {"gpu": gpu, "per_gpu": int(slots), "mps": Path(pipe).is_dir()}


def environment(device: torch.device, other_files: Sequence[str] = ()) -> dict[str, Any]:
    """Versions, hardware, threads, determinism flags and commit, as plain values.

    ``data`` names the files of a known data set that are not the published ones, if there are any.
    """
    packing = _packing()
    found: dict[str, Any] = {} if packing is None else {"packing": packing}
    if other_files:
        found["data"] = "; ".join(other_files)
    return found | {
        "python": platform.python_version(),
        "packages": dict(_versions()),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "device": device_name(device),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_benchmark": bool(torch.backends.cudnn.benchmark),
        "flush_denormal": flushes_denormals(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "commit": _commit(),
    }


def learn_surroundings() -> None:
    """Look up what no trial can change (commit, versions, processor), for this process to keep."""
    _commit()
    _versions()
    _processor()
