"""One trial must not touch the next: what is global is set at its start and put back at its end.

An optimizer may change anything that a process holds: torch's default dtype, a flag of a backend,
the working folder, a generator. Whatever it changes is put back, in words where that cannot be. And
what decides arithmetic is set to the same values for every trial, so that trials of equal hash are
computed alike, whatever the process was used for before.
"""

from __future__ import annotations

import builtins
import contextlib
import copy
import functools
import gc
import itertools
import locale
import logging
import math
import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.autograd import forward_ad
from torch.nn.modules import module as module_hooks
from torch.optim import optimizer as optimizer_hooks

from optiscope.errors import describe
from optiscope.train.device import flushes_denormals
from optiscope.train.seeds import preserved_generators

__all__ = ["ARITHMETIC", "isolated", "unlike_arithmetic"]

ARITHMETIC: dict[str, Any] = {
    "deterministic_algorithms": False,
    "cudnn_benchmark": False,
    "float32_matmul_precision": "highest",
}
"""What the environment of a record says of the arithmetic of every trial."""


@dataclass(frozen=True)
class _Switch:
    """Something global that holds one value.

    Attributes:
        read: its value now.
        write: sets it.
        start: its value at the start of every trial; ``_AS_IT_IS`` where that is the caller's.
    """

    read: Callable[[], Any]
    write: Callable[[Any], object]
    start: Any


NUMPY_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
"""What NumPy does about floating-point errors unless told otherwise."""

_AS_IT_IS = object()
CPU = torch.device("cpu")


def _flag(owner: Any, name: str, start: Any = _AS_IT_IS) -> _Switch:
    """A switch that is an attribute."""
    return _Switch(lambda: getattr(owner, name), lambda value: setattr(owner, name, value), start)


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


def _switches() -> dict[str, _Switch]:
    """All switches by name, in the order in which they are put back."""
    backends, cuda = torch.backends, torch.backends.cuda
    found = {place: _precision(*words) for place, words in _PRECISIONS.items()}
    found |= {
        "torch function modes": _Switch(
            torch._C._len_torch_function_stack, _pop_function_modes, _AS_IT_IS
        ),
        "torch dispatch modes": _Switch(
            torch._C._len_torch_dispatch_stack, _pop_dispatch_modes, _AS_IT_IS
        ),
        "default device": _Switch(_device_mode, _set_device_mode, None),
        "inference mode": _Switch(torch.is_inference_mode_enabled, _set_inference_mode, False),
        "grad mode": _Switch(torch.is_grad_enabled, torch.set_grad_enabled, True),
        "default dtype": _Switch(torch.get_default_dtype, torch.set_default_dtype, torch.float32),
        "autocast on cpu": _Switch(
            lambda: _autocast("cpu"), lambda v: _set_autocast("cpu", v), (False, torch.bfloat16)
        ),
        "autocast on cuda": _Switch(
            lambda: _autocast("cuda"), lambda v: _set_autocast("cuda", v), (False, torch.float16)
        ),
        "autocast cache": _Switch(
            torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled, True
        ),
        "autocast depth": _Switch(_autocast_depth, _set_autocast_depth, 0),
        "deterministic algorithms": _Switch(
            _deterministic,
            lambda v: torch.use_deterministic_algorithms(v[0], warn_only=v[1]),
            (False, False),
        ),
        "float32 matmul precision": _Switch(
            torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"
        ),
        "denormal numbers": _Switch(flushes_denormals, torch.set_flush_denormal, _AS_IT_IS),
        "threads": _Switch(torch.get_num_threads, torch.set_num_threads, _AS_IT_IS),
        "anomaly mode": _Switch(
            lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
            lambda v: torch.set_anomaly_enabled(*v),
            (False, True),
        ),
        "autograd threads": _Switch(
            torch._C._is_multithreading_enabled, torch._C._set_multithreading_enabled, True
        ),
        "saved tensor hooks": _Switch(
            lambda: torch._C._autograd._top_saved_tensors_default_hooks(True),
            _pop_saved_tensor_hooks,
            _AS_IT_IS,
        ),
        "warn always": _Switch(torch.is_warn_always_enabled, torch.set_warn_always, _AS_IT_IS),
        "cudnn": _flag(backends.cudnn, "enabled", True),
        "cudnn benchmark": _flag(backends.cudnn, "benchmark", False),
        "cudnn deterministic": _flag(backends.cudnn, "deterministic", False),
        "mkldnn": _flag(backends.mkldnn, "enabled", True),
        "mkldnn deterministic": _flag(backends.mkldnn, "deterministic", False),
        "nnpack": _Switch(torch._C._get_nnpack_enabled, torch._C._set_nnpack_enabled, True),
        "opt_einsum": _flag(backends.opt_einsum, "enabled", backends.opt_einsum.is_available()),
        "quantized engine": _flag(backends.quantized, "engine"),
        "attention fast path": _Switch(
            backends.mha.get_fastpath_enabled, backends.mha.set_fastpath_enabled, True
        ),
        "uninitialized memory": _flag(torch.utils.deterministic, "fill_uninitialized_memory", True),
        "module hooks are full": _flag(module_hooks, "_global_is_full_backward_hook"),
        "overwritten parameters": _Switch(
            torch.__future__.get_overwrite_module_params_on_conversion,
            torch.__future__.set_overwrite_module_params_on_conversion,
            _AS_IT_IS,
        ),
        "swapped parameters": _Switch(
            torch.__future__.get_swap_module_params_on_conversion,
            torch.__future__.set_swap_module_params_on_conversion,
            _AS_IT_IS,
        ),
        "numpy's errors": _Switch(np.geterr, lambda v: np.seterr(**v), NUMPY_ERRORS),
        "recursion limit": _Switch(sys.getrecursionlimit, sys.setrecursionlimit, _AS_IT_IS),
        "switch interval": _Switch(sys.getswitchinterval, sys.setswitchinterval, _AS_IT_IS),
        "trace": _Switch(sys.gettrace, sys.settrace, _AS_IT_IS),
        "profile": _Switch(sys.getprofile, sys.setprofile, _AS_IT_IS),
        "garbage collection": _Switch(
            gc.isenabled, lambda on: gc.enable() if on else gc.disable(), _AS_IT_IS
        ),
        "garbage thresholds": _Switch(gc.get_threshold, lambda v: gc.set_threshold(*v), _AS_IT_IS),
        "working folder": _Switch(_folder, _change_folder, _AS_IT_IS),
        "umask": _Switch(_umask, os.umask, _AS_IT_IS),
        "stdout": _flag(sys, "stdout"),
        "stderr": _flag(sys, "stderr"),
        "stdin": _flag(sys, "stdin"),
        "excepthook": _flag(sys, "excepthook"),
        "unraisable hook": _flag(sys, "unraisablehook"),
        "digits of an integer": _Switch(
            sys.get_int_max_str_digits, sys.set_int_max_str_digits, _AS_IT_IS
        ),
        "locale": _Switch(_locale, _set_locale, _AS_IT_IS),
        "shown warnings": _flag(warnings, "showwarning"),
        "environment's object": _flag(os, "environ"),
        "folder for temporary files": _flag(tempfile, "tempdir"),
        "silent logging": _flag(logging.root.manager, "disable"),
        "sockets' patience": _Switch(socket.getdefaulttimeout, socket.setdefaulttimeout, _AS_IT_IS),
        "numpy's reaction": _Switch(np.geterrcall, np.seterrcall, None),
        "numpy's buffer": _Switch(np.getbufsize, np.setbufsize, _AS_IT_IS),
        "start of processes": _Switch(
            lambda: multiprocessing.get_start_method(allow_none=True),
            lambda v: multiprocessing.set_start_method(v, force=True),
            _AS_IT_IS,
        ),
        "sharing of tensors": _Switch(
            torch.multiprocessing.get_sharing_strategy,
            torch.multiprocessing.set_sharing_strategy,
            _AS_IT_IS,
        ),
        "forward derivatives": _Switch(lambda: forward_ad._current_level, _leave_duals, _AS_IT_IS),
        "process group": _Switch(
            lambda: dist.is_available() and dist.is_initialized(), _leave_group, _AS_IT_IS
        ),
    }
    found |= _limits()
    for kind in ("flash", "math", "mem_efficient", "cudnn"):
        read = getattr(cuda, f"{kind}_sdp_enabled")
        found[f"{kind} attention"] = _Switch(read, getattr(cuda, f"enable_{kind}_sdp"), True)
    for name in ("allow_tf32", "allow_fp16_reduced_precision_reduction"):
        found[f"cuda {name}"] = _flag(cuda.matmul, name)
    return found


_PRECISIONS = {
    f"{backend} {operation} precision": (backend, operation)
    for backend in ("mkldnn", "cuda")
    for operation in ("all", "conv", "rnn", "matmul")
}


def _precision(backend: str, operation: str) -> _Switch:
    """How float32 is rounded inside one kind of product (torch 2.9 and later)."""
    return _Switch(
        lambda: torch._C._get_fp32_precision_getter(backend, operation),
        lambda value: torch._C._set_fp32_precision_setter(backend, operation, value),
        "none" if backend == "mkldnn" or operation in ("all", "matmul") else _AS_IT_IS,
    )


def _locale() -> str:
    return locale.setlocale(locale.LC_ALL)


def _set_locale(name: str) -> None:
    locale.setlocale(locale.LC_ALL, name)


def _limits() -> dict[str, _Switch]:
    """What the system lets this process use and tells it: files, memory, cores, signals."""
    found: dict[str, _Switch] = {}
    if hasattr(os, "getpriority"):
        found["priority"] = _Switch(
            lambda: os.getpriority(os.PRIO_PROCESS, 0),
            lambda v: os.setpriority(os.PRIO_PROCESS, 0, v),
            _AS_IT_IS,
        )
    if hasattr(signal, "pthread_sigmask"):
        found["blocked signals"] = _Switch(
            lambda: frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
            lambda v: signal.pthread_sigmask(signal.SIG_SETMASK, v),
            _AS_IT_IS,
        )
    if hasattr(os, "sched_setaffinity"):
        found["cores"] = _Switch(
            lambda: os.sched_getaffinity(0), lambda v: os.sched_setaffinity(0, v), _AS_IT_IS
        )
    try:
        import resource
    except ImportError:  # Windows
        return found
    for name in ("AS", "CPU", "DATA", "FSIZE", "NOFILE", "NPROC", "STACK"):
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is not None:
            found[f"limit {name}"] = _Switch(
                partial(resource.getrlimit, kind), partial(resource.setrlimit, kind), _AS_IT_IS
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


def _registries() -> list[MutableMapping[Any, Any]]:
    """Tables of hooks and the environment: what is in them is put back, entry by entry."""
    names = [n for n in vars(module_hooks) if n.startswith("_global_")]
    tables = [vars(module_hooks)[n] for n in names]
    tables += [v for n, v in vars(optimizer_hooks).items() if n.startswith("_global_optimizer_")]
    return [os.environ, *(table for table in tables if isinstance(table, MutableMapping))]


def _namespaces() -> list[Any]:
    """Modules and classes whose functions somebody may have replaced."""
    optimizers = [c for c in vars(torch.optim).values() if isinstance(c, type)]
    layers = [c for c in vars(nn).values() if isinstance(c, type) and issubclass(c, nn.Module)]
    schedules = [c for c in vars(torch.optim.lr_scheduler).values() if isinstance(c, type)]
    modules = [torch, nn.functional, nn.init, nn.utils, torch.autograd, torch.random, np, random]
    modules += [torch.linalg, torch.fft, torch.special, torch.nn.parallel, torch.utils.data]
    modules += [np.random, np.linalg, np.fft, builtins, math, time, os, os.path, signal, sys]
    modules += [copy, functools, itertools, gc, threading, warnings]
    ours = [m for name, m in sys.modules.items() if name.partition(".")[0] == "optiscope"]
    classes = [torch.Tensor, torch.Generator, nn.Parameter, torch.autograd.Function]
    theirs = [
        module
        for name, module in sys.modules.items()
        if name.startswith(("torch.optim", "torch.nn.")) and isinstance(module, ModuleType)
    ]
    bases = [c for module in theirs for c in vars(module).values() if _is_class_of(c, "torch")]
    ours += [c for module in ours for c in vars(module).values() if _is_class_of(c, "optiscope")]
    found = [*modules, *ours, *classes, *optimizers, *schedules, *layers, *theirs, *bases]
    return list({id(space): space for space in found}.values())


def _is_class_of(value: Any, package: str) -> bool:
    return isinstance(value, type) and str(value.__module__).partition(".")[0] == package


def _tables_of_ours() -> list[MutableMapping[Any, Any]]:
    """Tables that modules of this package hold as constants."""
    ours = [m for name, m in sys.modules.items() if name.partition(".")[0] == "optiscope"]
    return [
        table
        for module in ours
        for name, table in vars(module).items()
        if name.isupper() and isinstance(table, dict)
    ]


def _put_back(namespace: Any, before: dict[str, Any]) -> None:
    """Undo assignments to functions, classes and constants that a module or class had.

    New names stay, unless they hide a function that was found under them. Other values stay too,
    such as the counts and caches that modules keep for themselves.
    """
    now = vars(namespace)
    for name, value in before.items():
        if now.get(name, _AS_IT_IS) is not value and (_is_code(value) or _is_constant(name)):
            with contextlib.suppress(AttributeError, TypeError):
                setattr(namespace, name, value)
    hidden = [name for name in now.keys() - before.keys() if _hides(namespace, name)]
    for name in hidden:
        with contextlib.suppress(AttributeError, TypeError):
            delattr(namespace, name)


def _is_code(value: Any) -> bool:
    return callable(value) or isinstance(value, property | classmethod | staticmethod)


def _is_constant(name: str) -> bool:
    return name.isupper() or name in ("pi", "e", "tau", "inf", "nan")


def _hides(namespace: Any, name: str) -> bool:
    """Whether a new name of a class hides what it inherits, or one of a module a built-in."""
    if isinstance(namespace, type):
        return any(name in vars(base) for base in namespace.__mro__[1:])
    return hasattr(builtins, name) and not name.startswith("__")


def _put_entries_back(table: MutableMapping[Any, Any], entries: dict[Any, Any]) -> None:
    """Give a table its entries again, in their order."""
    if list(table.items()) == list(entries.items()):
        return
    if table is os.environ:
        for name in set(table) - set(entries):
            del table[name]
        table.update({k: v for k, v in entries.items() if table.get(k) != v})
        return
    table.clear()
    table.update(entries)


def _timers() -> set[int]:
    """Those timers of this process that run."""
    if not hasattr(signal, "getitimer"):
        return set()
    kinds = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
    return {kind for kind in kinds if signal.getitimer(kind)[0] > 0}


def _signals() -> dict[int, Any]:
    """Handlers of all signals; only the main thread may set any."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def _restore_signals(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) is not handler:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, handler)


_refusing = {"depth": 0, "process": 0}
_lock = threading.Lock()
ENDINGS = ("_exit", "execv", "execve")
_ENDINGS = {name: getattr(os, name) for name in ENDINGS}


@contextmanager
def _exits_refused() -> Iterator[None]:
    """Have calls that end or replace this process without a word raise SystemExit instead.

    Only here: in a process that was forked from this one they do what they say.
    """
    with _lock:
        _refusing["depth"] += 1
        _refusing["process"] = os.getpid()
        for name, function in _ENDINGS.items():
            setattr(os, name, partial(_refuse_ending, name, function))
    try:
        yield
    finally:
        with _lock:
            _refusing["depth"] -= 1
            if not _refusing["depth"]:
                for name, function in _ENDINGS.items():
                    setattr(os, name, function)


def _refuse_ending(name: str, function: Callable[..., object], *arguments: Any) -> object:
    if os.getpid() != _refusing["process"] or not _refusing["depth"]:  # kept for later
        return function(*arguments)
    raise SystemExit(f"os.{name}({', '.join(map(repr, arguments))})")


@contextmanager
def _streams_kept() -> Iterator[None]:
    """Open the standard streams again where they are closed or led elsewhere inside."""
    copies: dict[int, int] = {}
    for number in (0, 1, 2):
        with contextlib.suppress(OSError):  # it is not open
            copies[number] = os.dup(number)
    numbers = {name: _number(getattr(sys, name)) for name in ("stdout", "stderr")}
    try:
        yield
    finally:
        for number, copy in copies.items():
            with contextlib.suppress(OSError):
                if not _same_file(number, copy):
                    os.dup2(copy, number)
                os.close(copy)
        for name, number in numbers.items():
            stream = getattr(sys, name)
            if number in copies and getattr(stream, "closed", False):
                again = open(  # noqa: SIM115 - it takes the place of the stream
                    number, "w", encoding="utf-8", errors="replace", closefd=False
                )
                setattr(sys, name, again)
                if getattr(sys, f"__{name}__") is stream:
                    setattr(sys, f"__{name}__", again)


def _number(stream: Any) -> int:
    """Descriptor of a stream; -1 where it has none."""
    try:
        return int(stream.fileno())
    except Exception:
        return -1


def _same_file(one: int, other: int) -> bool:
    try:
        return os.path.samestat(os.fstat(one), os.fstat(other))
    except OSError:
        return False


class _Unreadable:
    """Stands for the value of a switch that cannot be read."""


def _read(switch: _Switch) -> Any:
    try:
        return switch.read()
    except Exception:  # torch refuses to tell what two of its interfaces have set differently
        return _Unreadable


def _restore(switches: dict[str, _Switch], before: dict[str, Any]) -> Iterator[str]:
    """Put switches back; yield, in words, what could not be."""
    for name, switch in switches.items():
        if before[name] is _Unreadable or _read(switch) == before[name]:
            continue
        try:
            switch.write(before[name])
        except Exception as error:
            yield f"{name} ({describe(error)})"


@contextmanager
def isolated(
    threads: int | None = None, device: torch.device = CPU, *, imports: bool = False
) -> Iterator[None]:
    """Run what is inside with the arithmetic of every trial, and put everything global back.

    Generators of torch, NumPy and Python, the switches above, tables of hooks, the environment,
    ``sys.path``, filters of warnings, handlers of signals, timers, and functions that were
    replaced in torch, NumPy and ``sys.modules``, and the standard streams. What a trial prints or
    writes stays, and so do modules that it imports and threads that it starts; what cannot be put
    back is warned of.

    Args:
        threads: torch's threads inside; by default as many as before.
        device: whose generator is put back besides the CPU's.
        imports: whether what is inside imports code, which may extend ``sys.path`` for good.
    """
    switches = _switches()
    before = {name: _read(switch) for name, switch in switches.items()}
    registries = [*_registries(), *([] if imports else _tables_of_ours())]
    tables = [(table, dict(table)) for table in registries]
    spaces = [(space, dict(vars(space))) for space in _namespaces()]
    path, filters, modules = list(sys.path), list(warnings.filters), dict(sys.modules)
    handlers, timers = _signals(), _timers()
    stack = ExitStack()
    stack.enter_context(_streams_kept())
    stack.enter_context(_exits_refused())
    stack.enter_context(preserved_generators(device))
    try:
        for name, switch in switches.items():
            if switch.start is not _AS_IT_IS and before[name] != switch.start:
                switch.write(switch.start)
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        for space, contents in spaces:
            _put_back(space, contents)
        for kind in _timers() - timers if handlers else ():
            signal.setitimer(kind, 0.0)
        _restore_signals(handlers)
        list(_restore(switches, before))  # some of them move others
        stuck = list(_restore(switches, before))
        for table, entries in tables:
            _put_entries_back(table, entries)
        if sys.path != path and not imports:
            sys.path[:] = path
        sys.modules.update({k: v for k, v in modules.items() if sys.modules.get(k, v) is not v})
        if list(warnings.filters) != filters:
            warnings.resetwarnings()
            present = warnings.filters
            assert isinstance(present, list)  # the one that Python looks at, which is put back
            present[:] = filters
        stack.close()
        if stuck:
            what = "; ".join(stuck)
            warnings.warn(
                f"a trial changed what cannot be put back for the next one: {what}", stacklevel=2
            )


def unlike_arithmetic(environment: Mapping[str, Any], *, flush_denormal: bool) -> str | None:
    """In words, how the arithmetic of a record is not that of a trial now; None where it is.

    Args:
        environment: of the record.
        flush_denormal: whether the process that would train counts denormal numbers as zero: those
            whose only work is training do, a library has no business to.
    """
    for name, value in {**ARITHMETIC, "flush_denormal": flush_denormal}.items():
        recorded = environment.get(name, value)
        if recorded != value:
            return f"recorded with {name} {recorded}, now it is {value}"
    return None
