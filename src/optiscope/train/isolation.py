"""One trial must not touch the next: what is global is set at its start and put back at its end.

An optimizer may change anything that a process holds: torch's default dtype, a flag of a backend,
the working folder, a generator. Whatever it changes is put back, in words where that cannot be. And
what decides arithmetic is set to the same values for every trial, so that trials of equal hash are
computed alike, whatever the process was used for before.
"""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from optiscope.train.process_state import (
    exits_refused,
    restore_signals,
    signals,
    streams_kept,
    timers,
)
from optiscope.train.replaced import (
    namespaces,
    put_back,
    put_entries_back,
    registries,
    tables_of_ours,
)
from optiscope.train.seeds import preserved_generators
from optiscope.train.switches import AS_IT_IS, read, restore, switches

__all__ = ["ARITHMETIC", "isolated", "unlike_arithmetic"]

ARITHMETIC: dict[str, Any] = {
    "deterministic_algorithms": False,
    "cudnn_benchmark": False,
    "float32_matmul_precision": "highest",
}
"""What the environment of a record says of the arithmetic of every trial."""

CPU = torch.device("cpu")


@contextmanager
def isolated(
    threads: int | None = None, device: torch.device = CPU, *, imports: bool = False
) -> Iterator[None]:
    """Run what is inside with the arithmetic of every trial, and put everything global back.

    Generators of torch, NumPy and Python, single values (:mod:`optiscope.train.switches`), tables
    of hooks, the environment, ``sys.path``, filters of warnings, handlers of signals, timers, and
    functions that were replaced in torch, NumPy and ``sys.modules``, and the standard streams. What
    a trial prints or writes stays, and so do modules that it imports and threads that it starts;
    what cannot be put back is warned of.

    Args:
        threads: torch's threads inside; by default as many as before.
        device: whose generator is put back besides the CPU's.
        imports: whether what is inside imports code, which may extend ``sys.path`` for good.
    """
    values = switches()
    before = {name: read(switch) for name, switch in values.items()}
    tables = [*registries(), *([] if imports else tables_of_ours())]
    entries = [(table, dict(table)) for table in tables]
    spaces = [(space, dict(vars(space))) for space in namespaces()]
    path, filters, modules = list(sys.path), list(warnings.filters), dict(sys.modules)
    handlers, running = signals(), timers()
    stack = ExitStack()
    stack.enter_context(streams_kept())
    stack.enter_context(exits_refused())
    stack.enter_context(preserved_generators(device))
    try:
        for name, switch in values.items():
            if switch.start is not AS_IT_IS and before[name] != switch.start:
                switch.write(switch.start)
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        for space, contents in spaces:
            put_back(space, contents)
        for kind in timers() - running if handlers else ():
            signal.setitimer(kind, 0.0)
        restore_signals(handlers)
        list(restore(values, before))  # some of them move others
        stuck = list(restore(values, before))
        for table, old in entries:
            put_entries_back(table, old)
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
