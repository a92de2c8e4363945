"""Leave everything as it was: weights, modes, generators and counters, also after an exception."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["generators_in", "seeded", "unchanged"]

DEPTH = 5  # a generator sits in loader.dataset.transform.steps[2], seldom deeper
PLAIN = (bool, int, float, str, type(None))
Restore = Callable[[], None]


@contextlib.contextmanager
def unchanged(*things: object) -> Iterator[None]:
    """Restore modules, optimizers and generators among ``things``, and the global generators.

    Modules: parameters, buffers, modes and plain attributes (counters). Generators: the global
    ones of torch, NumPy and Python, and every generator that can be reached from ``things`` through
    attributes, containers, closures and partial functions.
    """
    restores = [_global_generators(), *(_generator_state(g) for g in generators_in(*things))]
    for thing in things:
        if isinstance(thing, nn.Module):
            restores.append(_module_state(thing))
    try:
        yield
    finally:
        for restore in restores:
            restore()


@contextlib.contextmanager
def seeded(seed: int, *generators: object) -> Iterator[None]:
    """Global generators seeded as a worker process would, ``generators`` at their present state.

    All are as before when the block ends, so that a second block draws the same again.
    """
    restores = [_global_generators(), *(_generator_state(g) for g in generators)]
    try:
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield
    finally:
        for restore in restores:
            restore()


def generators_in(*things: object) -> list[object]:
    """Generators of torch, NumPy or Python that can be reached from ``things``."""
    kinds = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
    seen: set[int] = set()
    reached: list[object] = []
    queue = [(thing, 0) for thing in things]
    while queue:
        thing, depth = queue.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, kinds):
            reached.append(thing)
        elif depth < DEPTH and len(seen) < 10_000:
            queue += [(inner, depth + 1) for inner in _inside(thing)]
    return reached


def _inside(thing: object) -> list[object]:
    if isinstance(thing, torch.Tensor | np.ndarray | str | bytes | int | float | type):
        return []
    inner: list[object] = []
    if isinstance(thing, dict):
        inner += list(thing.values())[:1000]
    elif isinstance(thing, list | tuple | set | frozenset):
        inner += list(thing)[:1000]
    else:
        inner += list(getattr(thing, "__dict__", {}).values())
        for cell in getattr(thing, "__closure__", None) or ():
            with contextlib.suppress(ValueError):  # an empty cell
                inner.append(cell.cell_contents)
        inner += [getattr(thing, "__self__", None), getattr(thing, "func", None)]
        inner += list(getattr(thing, "__defaults__", None) or ())
    return [x for x in inner if x is not None and type(x).__name__ != "module"]


def _global_generators() -> Restore:
    numbers, words, state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None

    def restore() -> None:
        random.setstate(numbers)
        np.random.set_state(words)
        torch.set_rng_state(state)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)

    return restore


def _generator_state(generator: Any) -> Restore:
    if isinstance(generator, torch.Generator):
        drawn = generator.get_state()

        def set_back() -> None:
            generator.set_state(drawn)

        return set_back
    if isinstance(generator, np.random.Generator):
        bits, state = generator.bit_generator, generator.bit_generator.state
        return lambda: setattr(bits, "state", state)
    if isinstance(generator, np.random.RandomState):
        legacy = generator.get_state()
        return lambda: generator.set_state(legacy)
    plain = generator.getstate()
    return lambda: generator.setstate(plain)


def _module_state(model: nn.Module) -> Restore:
    modules = list(model.modules())
    modes = [module.training for module in modules]
    plain = [{k: v for k, v in vars(module).items() if isinstance(v, PLAIN)} for module in modules]
    tensors = [*model.parameters(), *model.buffers()]
    tensors = [
        t for t in tensors if not isinstance(t, nn.UninitializedParameter | nn.UninitializedBuffer)
    ]
    values = [t.detach().clone() for t in tensors]
    grads = [t.grad for t in tensors]

    def restore() -> None:
        for module, mode, attributes in zip(modules, modes, plain, strict=True):
            for name, attribute in attributes.items():
                if vars(module).get(name) is not attribute:
                    vars(module)[name] = attribute
            module.training = mode
        with torch.no_grad():
            for tensor, value, grad in zip(tensors, values, grads, strict=True):
                if not torch.equal(tensor, value) and not _both_nan(tensor, value):
                    tensor.copy_(value)
                if tensor.grad is not grad:
                    tensor.grad = grad

    return restore


def _both_nan(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.is_floating_point() and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
