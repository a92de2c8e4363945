"""Optimizers that change what is global, each in its first step (import paths: ``wicked:name``)."""

from __future__ import annotations

import builtins
import copy
import gc
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
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


class _Doubling(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def _alarm() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 3600.0)


def _replaced_function() -> None:
    original = nn.functional.linear
    nn.functional.linear = lambda *a, **k: original(*a, **k) * 1.0001  # type: ignore[assignment]


def _replaced_method() -> None:
    original = torch.optim.SGD.step
    torch.optim.SGD.step = lambda self, closure=None: None  # type: ignore[assignment, method-assign]
    assert original is not torch.optim.SGD.step


class _Rounding(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return result.mul(1.001) if func is torch.ops.aten.mm.default else result


def _no_more_files() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def _replaced_evaluation() -> None:
    from optiscope.train import loop

    loop.evaluate = lambda *a, **k: {"loss": 0.0}  # type: ignore[assignment]


def _new_precisions() -> None:
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"  # type: ignore[attr-defined]


def _replaced_base() -> None:
    base = nn.BatchNorm1d.__mro__[1]
    original = base.forward
    base.forward = lambda self, x: 2 * original(self, x)  # type: ignore[method-assign]


ACTS: dict[str, Callable[[], object]] = {
    "default dtype": lambda: torch.set_default_dtype(torch.float64),
    "default device": lambda: torch.set_default_device("meta"),
    "no grad": lambda: torch.set_grad_enabled(False),
    "inference": lambda: KEPT.append(torch.inference_mode(True)) or KEPT[-1].__enter__(),
    "function mode": lambda: KEPT.append(_Doubling()) or KEPT[-1].__enter__(),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16).__enter__(),
    "autocast flag": lambda: torch.set_autocast_enabled("cpu", True),
    "deterministic": lambda: torch.use_deterministic_algorithms(True),
    "matmul precision": lambda: torch.set_float32_matmul_precision("medium"),
    "fp32 precision": _new_precisions,
    "denormal": lambda: torch.set_flush_denormal(False),
    "mkldnn": lambda: setattr(torch.backends.mkldnn, "enabled", False),
    "anomaly": lambda: torch.autograd.set_detect_anomaly(True),
    "saved tensors": lambda: torch.autograd.graph.saved_tensors_hooks(
        lambda x: x * 1.01, lambda x: x
    ).__enter__(),
    "math attention": lambda: torch.backends.cuda.enable_math_sdp(False),
    "threads": lambda: torch.set_num_threads(2),
    "module hook": lambda: nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: output * 1.5 if isinstance(output, torch.Tensor) else None
    ),
    "optimizer hook": lambda: torch.optim.optimizer.register_optimizer_step_pre_hook(
        lambda optimizer, args, kwargs: optimizer.zero_grad()
    ),
    "function": _replaced_function,
    "method": _replaced_method,
    "dispatch mode": lambda: KEPT.append(_Rounding()) or KEPT[-1].__enter__(),
    "evaluation": _replaced_evaluation,
    "builtin": lambda: setattr(builtins, "sum", lambda *a, **k: 0),
    "mathematics": lambda: setattr(math, "sqrt", lambda x: 1.0),
    "clock": lambda: setattr(time, "perf_counter", lambda: 0.0),
    "linear algebra": lambda: setattr(torch.linalg, "vector_norm", lambda *a, **k: torch.zeros(())),
    "a schedule": lambda: setattr(torch.optim.lr_scheduler.StepLR, "step", lambda self: None),
    "files": _no_more_files,
    "cores": lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    "locale": lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8"),
    "digits": lambda: sys.set_int_max_str_digits(640),
    "torch seed": lambda: torch.manual_seed(1),
    "numpy seed": lambda: np.random.seed(1),
    "python seed": lambda: random.seed(1),
    "numpy errors": lambda: np.seterr(all="raise"),
    "environment": lambda: os.environ.update(OPTISCOPE_DATA_DIR="/nowhere", HOME="/nowhere"),
    "folder": lambda: os.chdir(tempfile.gettempdir()),
    "umask": lambda: os.umask(0o777),
    "path": lambda: sys.path.insert(0, "/nowhere"),
    "recursion": lambda: sys.setrecursionlimit(200),
    "warnings": lambda: warnings.simplefilter("error"),
    "signals": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "alarm": _alarm,
    "no garbage collection": gc.disable,
    "stdout": lambda: setattr(sys, "stdout", None),
    "blocked signals": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM}),
    "processor timer": lambda: signal.setitimer(signal.ITIMER_PROF, 3600.0),
    "inherited method": lambda: setattr(torch.optim.SGD, "zero_grad", lambda *a, **k: None),
    "base of layers": lambda: setattr(nn.Linear.__mro__[1], "__call__", lambda self, x: x),
    "hidden base": _replaced_base,
    "function of an optimizer": lambda: setattr(
        sys.modules["torch.optim.sgd"], "sgd", lambda *a, **k: None
    ),
    "hidden built-in": lambda: setattr(sys.modules["optiscope.train.loop"], "len", lambda x: 1),
    "constant": lambda: setattr(math, "pi", 3.0),
    "own constant": lambda: setattr(sys.modules["optiscope.train.loop"], "SYNC_EVERY", 1),
    "own table": lambda: sys.modules["optiscope.problems.problem"].METRICS.clear(),
    "environment's object": lambda: setattr(os, "environ", {}),
    "start of processes": lambda: multiprocessing.set_start_method("spawn", force=True),
    "temporary files": lambda: setattr(tempfile, "tempdir", "/nowhere"),
    "logging": lambda: logging.disable(logging.CRITICAL),
    "sockets": lambda: socket.setdefaulttimeout(0.001),
    "duals": torch.autograd.forward_ad.enter_dual_level,
    "exit": lambda: setattr(sys, "exit", lambda *a: None),
    "copies": lambda: setattr(copy, "deepcopy", lambda x, memo=None: x),
    "numpy's reaction": lambda: np.seterrcall(print),
}
KEPT: list[Any] = []


class Wicked(torch.optim.SGD):
    """SGD that does one of ``ACTS`` in its third step."""

    def __init__(self, params: Any, lr: float = 0.1, act: str = "") -> None:
        super().__init__(params, lr=lr)
        self.act, self.taken = act, 0

    def step(self, closure: Any = None) -> Any:
        self.taken += 1
        if self.taken == 3:
            ACTS[self.act]()
        return super().step(closure)
