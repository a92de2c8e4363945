"""Batches as a risk reads them: any iterable, each pass over it the same.

A pass is made the same as the last one by seeding every generator that a loader may draw from
(torch, NumPy, Python, the loader's own); all of them are given back their state afterwards.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from optiscope.errors import OptiscopeError
from optiscope.objective.evaluation import RandomState

__all__ = [
    "BatchError",
    "BatchTypeError",
    "Batches",
    "ModelBatch",
    "all_random_state",
    "mixed",
    "seed_everything",
]

T = TypeVar("T")

TARGET_KEYS = ("labels", "label", "targets", "target", "y")
CACHE_BYTES = 512 * 2**20  # batches of a loader are held in memory up to this size


class BatchError(OptiscopeError, ValueError):
    """Batches without a sample."""


class BatchTypeError(OptiscopeError, TypeError):
    """What was given as batches, or as one of them, is not understood."""


@dataclass(frozen=True)
class ModelBatch:
    """One batch, ready for ``model(*args, **kwargs)``.

    Attributes:
        args: positional arguments of the model.
        kwargs: keyword arguments of the model.
        targets: second argument of the loss; None where the model returns its own loss.
        samples: number of samples B.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    targets: Any
    samples: int

    def to(self, device: torch.device, dtype: torch.dtype | None) -> ModelBatch:
        """The same batch on ``device``; narrower floats are widened to ``dtype``."""

        def move(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            if dtype is not None and leaf.is_floating_point() and leaf.itemsize < dtype.itemsize:
                return leaf.to(device, dtype)
            return leaf.to(device)

        return ModelBatch(
            tree_map(move, self.args),
            tree_map(move, dict(self.kwargs)),
            tree_map(move, self.targets),
            self.samples,
        )

    def select(self, indices: Tensor) -> ModelBatch:
        """The samples at ``indices`` [M]; tensors without a dimension of size B stay whole."""

        def pick(leaf: Any) -> Any:
            return leaf[indices.to(leaf.device)] if self._by_sample(leaf) else leaf

        return ModelBatch(
            tree_map(pick, self.args),
            tree_map(pick, dict(self.kwargs)),
            tree_map(pick, self.targets),
            len(indices),
        )

    def tensors_by_sample(self) -> list[Tensor] | None:
        """Tensors with a first dimension of size B, in order; None where there is none."""
        leaves = tree_leaves((self.args, dict(self.kwargs), self.targets))
        found = [leaf for leaf in leaves if self._by_sample(leaf)]
        return found or None

    def with_tensors(self, tensors: Sequence[Tensor]) -> ModelBatch:
        """The batch with others in place of `tensors_by_sample`, in their order."""
        others = iter(tensors)

        def exchange(leaf: Any) -> Any:
            return next(others) if self._by_sample(leaf) else leaf

        args, kwargs, targets = tree_map(exchange, (self.args, dict(self.kwargs), self.targets))
        return ModelBatch(args, kwargs, targets, len(tensors[0]))

    def _by_sample(self, leaf: Any) -> bool:
        return isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] == self.samples

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        leaves = tree_leaves((self.args, dict(self.kwargs), self.targets))
        return sum(leaf.nbytes for leaf in leaves if isinstance(leaf, Tensor))


class Batches:
    """Any iterable of batches, read again and again in the same order.

    Args:
        source: a list, a ``DataLoader``, one pair of tensors, or any iterable. A one-shot iterator
            is read once and held in memory.
        model: whose ``forward`` decides how a dictionary is passed on.
        own_loss: whether the model returns its loss, so that a batch has no targets of its own.
        target_key: key of the targets in a dictionary; None: the first of `TARGET_KEYS`.
        batch_size: samples per batch into which one pair of tensors is divided; None: one batch.

    Raises:
        BatchTypeError: ``source`` is not an iterable of batches.
        BatchError: there is none.
    """

    def __init__(
        self,
        source: Any,
        model: nn.Module,
        *,
        own_loss: bool = False,
        target_key: str | None = None,
        batch_size: int | None = None,
    ) -> None:
        self._keywords = _keywords(model)
        self._own_loss = own_loss
        self._target_key = target_key
        self._cache: list[ModelBatch] | None = None
        if _is_pair(source) or isinstance(source, Mapping):
            parts = [self.read(source)]
            if batch_size is not None:
                order = torch.arange(parts[0].samples)
                parts = [parts[0].select(indices) for indices in order.split(batch_size)]
            self._source: Iterable[Any] = []
            self._cache = parts
            self._iterable = False
            return
        self._iterable = True
        if not isinstance(source, Iterable) or isinstance(source, (str, bytes, Tensor)):
            raise BatchTypeError(
                "expected batches as a list of (inputs, targets), a DataLoader or a pair of "
                f"tensors, got {type(source).__name__}: wrap it, as in [(inputs, targets)]"
            )
        if isinstance(source, Iterator):
            source = list(source)
        self._source = source
        if isinstance(source, Sequence) and not len(source):
            raise BatchError("expected at least one batch, got none")

    def __iter__(self) -> Iterator[ModelBatch]:
        """Batches in order, without seeding anything."""
        if self._cache is not None:
            yield from self._cache
        else:
            yield from map(self.read, self._source)

    def replay(self, seed: int, *, fresh: bool = False) -> Iterator[ModelBatch]:
        """Batches in the order that ``seed`` gives; no generator is moved by it.

        Small data are held in memory after the first pass with seed 0, unless ``fresh``.
        """
        if self._cache is not None and not (fresh and self._iterable):
            yield from self._cache
            return
        fixed = isinstance(self._source, (list, tuple))
        seen: list[ModelBatch] | None = None if fixed or fresh else []
        size, index = 0, 0
        iterator = self._seeded(lambda: iter(self._source), seed, -1)
        while True:
            try:
                batch = self.read(self._seeded(lambda: next(iterator), seed, index))
            except StopIteration:
                break
            if seen is not None:
                size += batch.nbytes
                seen = [*seen, batch] if size <= CACHE_BYTES else None
            yield batch
            index += 1
        self._cache = seen

    def _seeded(self, draw: Callable[[], T], seed: int, index: int) -> T:
        """What ``draw`` returns with all generators seeded; afterwards they have not moved."""
        if isinstance(self._source, (list, tuple)):
            return draw()
        with all_random_state([], self.generators()):
            seed_everything(mixed(seed, index), self.generators())
            return draw()

    def generators(self) -> list[torch.Generator]:
        """The generators that a loader holds."""
        holders = [self._source]
        for name in ("sampler", "batch_sampler"):
            holders += [h for s in list(holders) if (h := getattr(s, name, None)) is not None]
        members = {id(g): g for h in holders if (g := getattr(h, "generator", None)) is not None}
        return [g for g in members.values() if isinstance(g, torch.Generator)]

    def read(self, raw: Any) -> ModelBatch:
        """What the model and the loss get of one element of the iterable.

        Raises:
            BatchTypeError: it cannot be told which part is the input and which the target.
        """
        if isinstance(raw, ModelBatch):
            return raw
        if hasattr(raw, "inputs") and hasattr(raw, "targets"):
            raw = (raw.inputs, raw.targets)
        if isinstance(raw, Mapping):
            return self._read_mapping(raw)
        if self._own_loss:
            args = tuple(raw) if isinstance(raw, (tuple, list)) else (raw,)
            return ModelBatch(args, {}, None, _count(args))
        if not isinstance(raw, (tuple, list)) or len(raw) != 2:
            shape = f"{len(raw)} elements" if isinstance(raw, (tuple, list)) else type(raw).__name__
            raise BatchTypeError(
                f"expected each batch to be (inputs, targets) or a dictionary, got {shape}: put "
                "several inputs into one tuple, or pass loss=None if the model returns its loss"
            )
        inputs, targets = raw
        samples = _count(targets) or _count(inputs) or 1
        if isinstance(inputs, Mapping):
            return ModelBatch((), dict(inputs), targets, samples)
        args = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
        return ModelBatch(args, {}, targets, samples)

    def _read_mapping(self, raw: Mapping[str, Any]) -> ModelBatch:
        values = dict(raw)
        if self._own_loss:
            return ModelBatch((), values, None, _count(values) or 1)
        keys = TARGET_KEYS if self._target_key is None else (self._target_key,)
        key = next((k for k in keys if k in values), None)
        if key is None:
            raise BatchTypeError(
                f"expected targets under one of {', '.join(keys)}, got a batch with the keys "
                f"{', '.join(map(str, values))[:80]}: name the right one as target_key"
            )
        targets = values.pop(key)
        samples = _count(targets) or _count(values) or 1
        if len(values) == 1 and not (self._keywords & set(values)):
            return ModelBatch(tuple(values.values()), {}, targets, samples)
        return ModelBatch((), values, targets, samples)


def _is_pair(source: Any) -> bool:
    """Whether ``source`` is one (inputs, targets) of as many samples, not a list of batches."""
    if not isinstance(source, (tuple, list)) or len(source) != 2:
        return hasattr(source, "inputs") and hasattr(source, "targets")
    return all(isinstance(part, Tensor) for part in source)


def _count(part: Any) -> int:
    """Size of the first dimension of the first tensor, or 0 where there is none."""
    for leaf in tree_leaves(part):
        if isinstance(leaf, Tensor) and leaf.ndim:
            return leaf.shape[0]
    return 0


def _keywords(model: nn.Module) -> set[str]:
    """Names that ``model.forward`` takes."""
    try:
        return set(inspect.signature(model.forward).parameters)
    except (TypeError, ValueError):
        return set()


def mixed(*numbers: int) -> int:
    """A seed in [0, 2^31) that differs with each of ``numbers``."""
    return hash(numbers) % 2**31


def seed_everything(
    seed: int, generators: Iterable[torch.Generator] = (), device: torch.device | None = None
) -> None:
    """Seed torch's (of the CPU and ``device``), NumPy's and Python's, and ``generators``."""
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    for generator in generators:
        generator.manual_seed(seed)


@contextmanager
def all_random_state(
    devices: Iterable[torch.device], generators: Sequence[torch.Generator]
) -> Iterator[None]:
    """Give every global generator, and ``generators``, their state back on leaving."""
    present = RandomState.now(devices)
    numpy_state, python_state = np.random.get_state(), random.getstate()
    states = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        present.restore()
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
