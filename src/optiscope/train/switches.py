"""What a process holds in single values: switches of torch, NumPy, Python and the system.

Each can be read and set. What decides arithmetic has a value that every trial starts with.
"""

from __future__ import annotations

import gc
import locale
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.autograd import forward_ad
from torch.nn.modules import module as module_hooks

from optiscope.errors import describe
from optiscope.train.device import flushes_denormals

__all__ = ["AS_IT_IS", "Switch", "read", "restore", "switches"]


@dataclass(frozen=True)
class Switch:
    """Something global that holds one value.

    Attributes:
        read: its value now.
        write: sets it.
        start: its value at the start of every trial; ``AS_IT_IS`` where that is the caller's.
    """

    read: Callable[[], Any]
    write: Callable[[Any], object]
    start: Any


NUMPY_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
"""What NumPy does about floating-point errors unless told otherwise."""

AS_IT_IS = object()


def _flag(owner: Any, name: str, start: Any = AS_IT_IS) -> Switch:
    """A switch that is an attribute."""
    return Switch(lambda: getattr(owner, name), lambda value: setattr(owner, name, value), start)


def _deterministic() -> tuple[bool, bool]:
    enabled = torch.are_deterministic_algorithms_enabled()
    return enabled, torch.is_deterministic_algorithms_warn_only_enabled()


def _autocast(device: str) -> tuple[bool, torch.dtype]:
    return torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)


def _set_autocast(device: str, value: tuple[bool, torch.dtype]) -> None:
    torch.set_autocast_enabled(device, value[0])
    torch.set_autocast_dtype(device, value[1])


def _autocast_depth() -> int:
    depth = torch.autocast_increment_nesting() - 1
    torch.autocast_decrement_nesting()
    return depth


def _set_autocast_depth(depth: int) -> None:
    while _autocast_depth() > depth:
        torch.autocast_decrement_nesting()
    while _autocast_depth() < depth:
        torch.autocast_increment_nesting()
    torch.clear_autocast_cache()


_guards: list[Any] = []  # inference mode is held by an object: those that undo what another left on


def _set_inference_mode(enabled: bool) -> None:
    guard = torch.inference_mode(enabled)
    guard.__enter__()
    _guards.append(guard)


def _device_mode() -> Any:
    return getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)


def _set_device_mode(mode: Any) -> None:
    torch.set_default_device(None if mode is None else mode.device)


def _pop_function_modes(depth: int) -> None:
    while torch._C._len_torch_function_stack() > depth:
        torch._C._pop_torch_function_stack()


def _pop_dispatch_modes(depth: int) -> None:
    while torch._C._len_torch_dispatch_stack() > depth:
        torch._C._pop_torch_dispatch_stack(None)


def _pop_saved_tensor_hooks(top: Any) -> None:
    autograd = torch._C._autograd
    while (now := autograd._top_saved_tensors_default_hooks(True)) is not None and now != top:
        autograd._pop_saved_tensors_default_hooks()


def switches() -> dict[str, Switch]:
    """All switches by name, in the order in which they are put back."""
    backends, cuda = torch.backends, torch.backends.cuda
    found = {place: _precision(*words) for place, words in _PRECISIONS.items()}
    found |= {
        "torch function modes": Switch(
            torch._C._len_torch_function_stack, _pop_function_modes, AS_IT_IS
        ),
        "torch dispatch modes": Switch(
            torch._C._len_torch_dispatch_stack, _pop_dispatch_modes, AS_IT_IS
        ),
        "default device": Switch(_device_mode, _set_device_mode, None),
        "inference mode": Switch(torch.is_inference_mode_enabled, _set_inference_mode, False),
        "grad mode": Switch(torch.is_grad_enabled, torch.set_grad_enabled, True),
        "default dtype": Switch(torch.get_default_dtype, torch.set_default_dtype, torch.float32),
        "autocast on cpu": Switch(
            lambda: _autocast("cpu"), lambda v: _set_autocast("cpu", v), (False, torch.bfloat16)
        ),
        "autocast on cuda": Switch(
            lambda: _autocast("cuda"), lambda v: _set_autocast("cuda", v), (False, torch.float16)
        ),
        "autocast cache": Switch(
            torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled, True
        ),
        "autocast depth": Switch(_autocast_depth, _set_autocast_depth, 0),
        "deterministic algorithms": Switch(
            _deterministic,
            lambda v: torch.use_deterministic_algorithms(v[0], warn_only=v[1]),
            (False, False),
        ),
        "float32 matmul precision": Switch(
            torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"
        ),
        "denormal numbers": Switch(flushes_denormals, torch.set_flush_denormal, AS_IT_IS),
        "threads": Switch(torch.get_num_threads, torch.set_num_threads, AS_IT_IS),
        "anomaly mode": Switch(
            lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
            lambda v: torch.set_anomaly_enabled(*v),
            (False, True),
        ),
        "autograd threads": Switch(
            torch._C._is_multithreading_enabled, torch._C._set_multithreading_enabled, True
        ),
        "saved tensor hooks": Switch(
            lambda: torch._C._autograd._top_saved_tensors_default_hooks(True),
            _pop_saved_tensor_hooks,
            AS_IT_IS,
        ),
        "warn always": Switch(torch.is_warn_always_enabled, torch.set_warn_always, AS_IT_IS),
        "cudnn": _flag(backends.cudnn, "enabled", True),
        "cudnn benchmark": _flag(backends.cudnn, "benchmark", False),
        "cudnn deterministic": _flag(backends.cudnn, "deterministic", False),
        "mkldnn": _flag(backends.mkldnn, "enabled", True),
        "mkldnn deterministic": _flag(backends.mkldnn, "deterministic", False),
        "nnpack": Switch(torch._C._get_nnpack_enabled, torch._C._set_nnpack_enabled, True),
        "opt_einsum": _flag(backends.opt_einsum, "enabled", backends.opt_einsum.is_available()),
        "quantized engine": _flag(backends.quantized, "engine"),
        "attention fast path": Switch(
            backends.mha.get_fastpath_enabled, backends.mha.set_fastpath_enabled, True
        ),
        "uninitialized memory": _flag(torch.utils.deterministic, "fill_uninitialized_memory", True),
        "module hooks are full": _flag(module_hooks, "_global_is_full_backward_hook"),
        "overwritten parameters": Switch(
            torch.__future__.get_overwrite_module_params_on_conversion,
            torch.__future__.set_overwrite_module_params_on_conversion,
            AS_IT_IS,
        ),
        "swapped parameters": Switch(
            torch.__future__.get_swap_module_params_on_conversion,
            torch.__future__.set_swap_module_params_on_conversion,
            AS_IT_IS,
        ),
        "numpy's errors": Switch(np.geterr, lambda v: np.seterr(**v), NUMPY_ERRORS),
        "recursion limit": Switch(sys.getrecursionlimit, sys.setrecursionlimit, AS_IT_IS),
        "switch interval": Switch(sys.getswitchinterval, sys.setswitchinterval, AS_IT_IS),
        "trace": Switch(sys.gettrace, sys.settrace, AS_IT_IS),
        "profile": Switch(sys.getprofile, sys.setprofile, AS_IT_IS),
        "garbage collection": Switch(
            gc.isenabled, lambda on: gc.enable() if on else gc.disable(), AS_IT_IS
        ),
        "garbage thresholds": Switch(gc.get_threshold, lambda v: gc.set_threshold(*v), AS_IT_IS),
        "working folder": Switch(_folder, _change_folder, AS_IT_IS),
        "umask": Switch(_umask, os.umask, AS_IT_IS),
        "stdout": _flag(sys, "stdout"),
        "stderr": _flag(sys, "stderr"),
        "stdin": _flag(sys, "stdin"),
        "excepthook": _flag(sys, "excepthook"),
        "unraisable hook": _flag(sys, "unraisablehook"),
        "digits of an integer": Switch(
            sys.get_int_max_str_digits, sys.set_int_max_str_digits, AS_IT_IS
        ),
        "locale": Switch(_locale, _set_locale, AS_IT_IS),
        "shown warnings": _flag(warnings, "showwarning"),
        "environment's object": _flag(os, "environ"),
        "folder for temporary files": _flag(tempfile, "tempdir"),
        "silent logging": _flag(logging.root.manager, "disable"),
        "sockets' patience": Switch(socket.getdefaulttimeout, socket.setdefaulttimeout, AS_IT_IS),
        "numpy's reaction": Switch(np.geterrcall, np.seterrcall, None),
        "numpy's buffer": Switch(np.getbufsize, np.setbufsize, AS_IT_IS),
        "start of processes": Switch(
            lambda: multiprocessing.get_start_method(allow_none=True),
            lambda v: multiprocessing.set_start_method(v, force=True),
            AS_IT_IS,
        ),
        "sharing of tensors": Switch(
            torch.multiprocessing.get_sharing_strategy,
            torch.multiprocessing.set_sharing_strategy,
            AS_IT_IS,
        ),
        "forward derivatives": Switch(lambda: forward_ad._current_level, _leave_duals, AS_IT_IS),
        "process group": Switch(
            lambda: dist.is_available() and dist.is_initialized(), _leave_group, AS_IT_IS
        ),
    }
    found |= _limits()
    for kind in ("flash", "math", "mem_efficient", "cudnn"):
        read = getattr(cuda, f"{kind}_sdp_enabled")
        found[f"{kind} attention"] = Switch(read, getattr(cuda, f"enable_{kind}_sdp"), True)
    for name in ("allow_tf32", "allow_fp16_reduced_precision_reduction"):
        found[f"cuda {name}"] = _flag(cuda.matmul, name)
    return found


_PRECISIONS = {
    f"{backend} {operation} precision": (backend, operation)
    for backend in ("mkldnn", "cuda")
    for operation in ("all", "conv", "rnn", "matmul")
}


def _precision(backend: str, operation: str) -> Switch:
    """How float32 is rounded inside one kind of product (torch 2.9 and later)."""
    return Switch(
        lambda: torch._C._get_fp32_precision_getter(backend, operation),
        lambda value: torch._C._set_fp32_precision_setter(backend, operation, value),
        "none" if backend == "mkldnn" or operation in ("all", "matmul") else AS_IT_IS,
    )


def _locale() -> str:
    return locale.setlocale(locale.LC_ALL)


def _set_locale(name: str) -> None:
    locale.setlocale(locale.LC_ALL, name)


def _limits() -> dict[str, Switch]:
    """What the system lets this process use and tells it: files, memory, cores, signals."""
    found: dict[str, Switch] = {}
    if hasattr(os, "getpriority"):
        found["priority"] = Switch(
            lambda: os.getpriority(os.PRIO_PROCESS, 0),
            lambda v: os.setpriority(os.PRIO_PROCESS, 0, v),
            AS_IT_IS,
        )
    if hasattr(signal, "pthread_sigmask"):
        found["blocked signals"] = Switch(
            lambda: frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
            lambda v: signal.pthread_sigmask(signal.SIG_SETMASK, v),
            AS_IT_IS,
        )
    if hasattr(os, "sched_setaffinity"):
        found["cores"] = Switch(
            lambda: os.sched_getaffinity(0), lambda v: os.sched_setaffinity(0, v), AS_IT_IS
        )
    try:
        import resource
    except ImportError:  # Windows
        return found
    for name in ("AS", "CPU", "DATA", "FSIZE", "NOFILE", "NPROC", "STACK"):
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is not None:
            found[f"limit {name}"] = Switch(
                partial(resource.getrlimit, kind), partial(resource.setrlimit, kind), AS_IT_IS
            )
    return found


def _leave_duals(level: int) -> None:
    while forward_ad._current_level > level:
        forward_ad.exit_dual_level()


def _leave_group(initialized: bool) -> None:
    if not initialized:
        dist.destroy_process_group()


def _folder() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _change_folder(path: str | None) -> None:
    if path is not None:
        os.chdir(path)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


class _Unreadable:
    """Stands for the value of a switch that cannot be read."""


def read(switch: Switch) -> Any:
    """Its value now, or what stands for one that cannot be read."""
    try:
        return switch.read()
    except Exception:  # torch refuses to tell what two of its interfaces have set differently
        return _Unreadable


def restore(switches: dict[str, Switch], before: dict[str, Any]) -> Iterator[str]:
    """Put switches back; yield, in words, what could not be."""
    for name, switch in switches.items():
        if before[name] is _Unreadable or read(switch) == before[name]:
            continue
        try:
            switch.write(before[name])
        except Exception as error:
            yield f"{name} ({describe(error)})"
