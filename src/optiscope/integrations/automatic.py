"""Watch whatever a script trains, without a change to the script.

``install`` waits for optimizers to be made and for the first call of a module that holds their
parameters; then it attaches a watch to both. ``optiscope watch -- python train.py`` calls it in the
script's process.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import logging
import os
import sys
import weakref
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules.loss import _Loss
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim import Optimizer

from optiscope.doctor.watching import Watch, watch

__all__ = ["Automatic", "install"]

logger = logging.getLogger("optiscope")

FOLDER_VARIABLE = "OPTISCOPE_WATCH_FOLDER"
OPTIONS_VARIABLE = "OPTISCOPE_WATCH_OPTIONS"


class Automatic:
    """Attaches a watch to every pair of optimizer and model that a process trains."""

    def __init__(self, folder: Path, options: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.options = options or {}
        if os.environ.get("RANK", "0") != "0":  # one process of a job draws
            self.options["live"] = False
        self.waiting: list[weakref.ref[Optimizer]] = []
        self.watches: list[Watch] = []
        self._handle: Any = None
        self._init = Optimizer.__init__
        outer = self

        @functools.wraps(self._init)
        def init(optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
            outer._init(optimizer, *args, **kwargs)
            outer._made(optimizer)

        setattr(Optimizer, "__init__", init)  # noqa: B010

    def _made(self, optimizer: Optimizer) -> None:
        owned = any(
            {id(p) for p in _parameters(optimizer)} & session_parameters(w) for w in self.watches
        )
        if owned:
            return  # an optimizer that is made anew is a finding of the watch that is there
        self.waiting.append(weakref.ref(optimizer))
        if self._handle is None:
            self._handle = register_module_forward_pre_hook(self._called)

    def _called(self, module: nn.Module, args: Any) -> None:
        """The outermost module is called first: attach to it if it holds waiting parameters."""
        optimizers = [o for o in (ref() for ref in self.waiting) if o is not None]
        if not optimizers or not self._handle:
            return
        inside = {id(p) for p in module.parameters()}
        held = [
            o
            for o in optimizers
            if hasattr(o, "param_groups") and inside & {id(p) for p in _parameters(o)}
        ]
        if not held:
            return
        try:
            one = watch(module, held, _criterion(), on_finding="log", **self.options)
        except Exception as error:  # a script must run as it does without a watch
            logger.debug("not watched: %s", error)
            held = optimizers
        else:
            one.out = self.folder / f"watch-{os.getpid()}-{len(self.watches)}.html"
            one.title = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else None
            self.watches.append(one)
            one.session._before_forward(module, args, {})
        self.waiting = [ref for ref in self.waiting if ref() is not None and ref() not in held]
        if not self.waiting:
            self._handle.remove()
            self._handle = None

    def finish(self) -> None:
        """Close every watch and leave its findings and page in the folder."""
        setattr(Optimizer, "__init__", self._init)  # noqa: B010
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        for one in self.watches:
            one.close()
            assert one.out is not None
            text = json.dumps(one.data(), allow_nan=False)
            one.out.with_suffix(".json").write_text(text, "utf-8")


def _parameters(optimizer: Optimizer) -> list[Any]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def session_parameters(one: Watch) -> set[int]:
    """Ids of the parameters that a watch knows."""
    return set(one.session.names)


def _criterion() -> nn.Module | None:
    """The loss module of the script, where there is exactly one."""
    losses = [item for item in gc.get_objects() if issubclass(type(item), _Loss)]
    return losses[0] if len(losses) == 1 else None


def install() -> Automatic | None:
    """Watch this process as the environment says; findings are left at its end."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return None
    automatic = Automatic(Path(folder), json.loads(os.environ.get(OPTIONS_VARIABLE, "{}")))
    atexit.register(automatic.finish)
    return automatic
