"""Samples of a split: tensors held in memory, windows of a text, or any PyTorch data set.

A batch is an index selection. Inputs and targets may be any nesting of tuples, lists and
dictionaries of tensors (a pytree).

Index legend: N samples in a split, B samples in a batch, ... the shape of one sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader, IterableDataset, Subset, default_collate

from optiscope.errors import OptiscopeError, shorten

__all__ = [
    "Augment",
    "Batch",
    "DatasetSamples",
    "Samples",
    "SamplesError",
    "Splits",
    "TensorSamples",
    "TextWindows",
    "as_samples",
    "batches",
]

Augment = Callable[[Any, torch.Generator], Any]
"""Maps a whole batch of inputs [B, ...] to augmented inputs of the same shape."""

TARGET_NAMES = ("labels", "label", "targets", "target")
"""Keys under which a dictionary batch may hold its targets, the first one present is taken."""


class SamplesError(OptiscopeError, TypeError):
    """Something that cannot serve as the samples of a split."""


class Batch(NamedTuple):
    """Inputs and targets of B samples: pytrees of tensors whose first dimension is B.

    Ragged batches, padded by a ``collate_fn``, may hold tensors of other shapes too.
    """

    inputs: Any
    targets: Any


@runtime_checkable
class Samples(Protocol):
    """N samples that can be selected by index."""

    def __len__(self) -> int: ...

    def select(self, indices: Tensor) -> Batch:
        """Batch of the samples at ``indices`` [B] (int64, on the samples' device)."""
        ...

    def to(self, device: torch.device) -> Samples:
        """The same samples on ``device``."""
        ...

    def subset(self, indices: Tensor) -> Samples:
        """The samples at ``indices``, as samples of their own."""
        ...


@dataclass(frozen=True)
class TensorSamples:
    """Paired tensors, or pytrees of tensors: inputs [N, ...] and targets [N, ...].

    Raises:
        ValueError: the tensors are not equally many samples long.
    """

    inputs: Any
    targets: Any

    def __post_init__(self) -> None:
        leaves = _tensors((self.inputs, self.targets))
        if not leaves or any(leaf.ndim == 0 for leaf in leaves):
            raise ValueError("expected tensors with one entry per sample, got none or a scalar")
        lengths = [len(leaf) for leaf in leaves]
        if len(set(lengths)) > 1:
            inputs, targets = _tensors(self.inputs), _tensors(self.targets)
            if len(inputs) == len(targets) == 1:
                raise ValueError(
                    f"expected as many targets as inputs, got {lengths[0]} inputs "
                    f"and {lengths[1]} targets"
                )
            raise ValueError(
                f"expected tensors with one entry per sample, got lengths {sorted(set(lengths))}"
            )

    def __len__(self) -> int:
        if isinstance(self.targets, Tensor):
            return len(self.targets)
        return len(_tensors((self.inputs, self.targets))[0])

    def select(self, indices: Tensor) -> Batch:
        """Batch of the samples at ``indices`` [B]."""
        return Batch(_selected(self.inputs, indices), _selected(self.targets, indices))

    def to(self, device: torch.device) -> TensorSamples:
        """The same samples on ``device``."""
        return TensorSamples(_moved(self.inputs, device), _moved(self.targets, device))

    def subset(self, indices: Tensor) -> TensorSamples:
        """The samples at ``indices``, as samples of their own."""
        return TensorSamples(*self.select(indices))


@dataclass(frozen=True)
class TextWindows:
    """Windows of ``length`` tokens and the same windows one token later.

    ``tokens`` [T] is one int64 stream; ``starts`` [N] the first position of each window.
    """

    tokens: Tensor
    starts: Tensor
    length: int

    def __post_init__(self) -> None:
        if len(self.starts) and int(self.starts.max()) + self.length + 1 > len(self.tokens):
            raise ValueError(
                f"a window of {self.length} tokens and its target reach past the end of "
                f"{len(self.tokens)} tokens: drop the last start"
            )

    def __len__(self) -> int:
        return len(self.starts)

    def select(self, indices: Tensor) -> Batch:
        """Inputs [B, length] and targets [B, length]."""
        offsets = torch.arange(self.length + 1, device=self.tokens.device)
        window = self.tokens[self.starts[indices].unsqueeze(1) + offsets]
        return Batch(window[:, :-1], window[:, 1:])

    def to(self, device: torch.device) -> TextWindows:
        """The same windows on ``device``."""
        return replace(self, tokens=self.tokens.to(device), starts=self.starts.to(device))

    def subset(self, indices: Tensor) -> TextWindows:
        """The windows at ``indices``, over the same stream."""
        return replace(self, starts=self.starts[indices])


@dataclass(frozen=True)
class DatasetSamples:
    """Samples of a map-style PyTorch data set, collated into batches when they are selected.

    Attributes:
        dataset: has ``__len__`` and ``__getitem__``.
        collate_fn: makes a batch of a list of samples, as for PyTorch's ``DataLoader``; one that
            pads allows samples of different lengths.
        workers: processes that prepare batches in advance while training; 0 for none.
        divide: splits a collated batch into (inputs, targets). By default a pair is a pair; of a
            longer tuple the last entry is the target; of a dictionary the targets are the entry
            ``labels``, ``label``, ``targets`` or ``target`` and the inputs are the whole
            dictionary, so that a model may compute its own loss.
        device: where batches go.
    """

    dataset: Any
    collate_fn: Callable[[list[Any]], Any] = default_collate
    workers: int = 0
    divide: Callable[[Any], tuple[Any, Any]] | None = None
    device: torch.device = field(default=torch.device("cpu"))

    def __len__(self) -> int:
        return len(self.dataset)

    def select(self, indices: Tensor) -> Batch:
        """Batch of the samples at ``indices`` [B], in this process."""
        samples = [self.dataset[i] for i in indices.tolist()]
        try:
            return self._batch(self.collate_fn(samples))
        except RuntimeError as error:
            if self.collate_fn is not default_collate or "equal size" not in str(error):
                raise
            raise SamplesError(
                "expected samples of one shape, got several: use DatasetSamples(dataset, "
                "collate_fn) with a collate_fn that pads"
            ) from None

    def batches(self, order: Tensor, generator: torch.Generator) -> Iterator[Batch]:
        """The batches of ``order`` [steps, B], prepared by the workers.

        Args:
            order: indices of the samples of each step.
            generator: seeds the workers.
        """
        if not self.workers:
            for indices in order:
                yield self.select(indices)
            return
        loader: DataLoader[Any] = DataLoader(
            self.dataset,
            batch_sampler=order.tolist(),
            collate_fn=self.collate_fn,
            num_workers=self.workers,
            generator=generator,
        )
        for collated in loader:
            yield self._batch(collated)

    def to(self, device: torch.device) -> DatasetSamples:
        """The same samples, whose batches go to ``device``."""
        return replace(self, device=device)

    def subset(self, indices: Tensor) -> DatasetSamples:
        """The samples at ``indices``, as samples of their own."""
        return replace(self, dataset=Subset(self.dataset, indices.tolist()))

    def _batch(self, collated: Any) -> Batch:
        inputs, targets = (self.divide or _divided)(collated)
        return Batch(_moved(inputs, self.device), _moved(targets, self.device))


def batches(samples: Samples, order: Tensor, generator: torch.Generator) -> Iterator[Batch]:
    """The batches of ``order`` [steps, B], prepared in advance where the samples can."""
    prepared = getattr(samples, "batches", None)
    if prepared is not None:
        yield from prepared(order, generator)
        return
    for indices in order:
        yield samples.select(indices)


def as_samples(data: Any) -> Samples:
    """Whatever holds the samples of a split, as `Samples`.

    Args:
        data: `Samples`; a pair (inputs, targets) of tensors, arrays or pytrees of them; a PyTorch
            ``Dataset`` with a length; or a ``DataLoader``, of which the data set, ``collate_fn``
            and number of workers are taken (batch size and order are the problem's and the
            trial's).

    Raises:
        SamplesError: anything else.
    """
    if isinstance(data, Samples):
        return data
    if isinstance(data, DataLoader):
        if isinstance(data.dataset, IterableDataset):
            raise SamplesError(_NO_STREAM)
        return DatasetSamples(data.dataset, data.collate_fn, data.num_workers)
    if isinstance(data, IterableDataset):
        raise SamplesError(_NO_STREAM)
    if isinstance(data, tuple) and len(data) == 2 and _tensors(_as_tensors(data)):
        try:
            return TensorSamples(_as_tensors(data[0]), _as_tensors(data[1]))
        except ValueError as error:
            raise SamplesError(f"{error}: give a pair (inputs, targets)") from None
    if isinstance(data, tuple) and len(data) == 2 and any(isinstance(d, list) for d in data):
        raise SamplesError(
            "expected a pair (inputs, targets) of tensors or arrays, got lists: make them tensors, "
            "as in torch.tensor(inputs)"
        )
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, Mapping):
        return DatasetSamples(data)
    raise SamplesError(
        "expected Samples, a pair (inputs, targets) of tensors, a Dataset with a length or a "
        f"DataLoader, got {shorten(data)}"
    )


_NO_STREAM = (
    "expected data whose samples can be selected by index, got an IterableDataset: seeds decide "
    "the order of samples, so wrap it in a Dataset with __len__ and __getitem__"
)


@dataclass(frozen=True)
class Splits:
    """Fixed splits of a problem's data; each may be anything that `as_samples` takes.

    ``train`` is what is trained on; ``train_eval`` the part of it on which the training loss is
    evaluated, without augmentation; ``valid`` and ``test`` are disjoint from both. ``augment``
    acts on training batches only. ``other_files`` says, in words, which files of a known data set
    they were read from that are not the published ones; the loop fills it in.

    Raises:
        SamplesError: a split cannot be read as samples.
    """

    train: Samples
    train_eval: Samples
    valid: Samples
    test: Samples
    augment: Augment | None = None
    other_files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("train", "train_eval", "valid", "test"):
            data = getattr(self, name)
            try:
                object.__setattr__(self, name, as_samples(data))
            except SamplesError as error:
                raise SamplesError(f"split {name!r}: {error}") from None

    @classmethod
    def of(
        cls,
        train: Any,
        valid: Any,
        test: Any,
        *,
        train_eval: Any = None,
        augment: Augment | None = None,
    ) -> Splits:
        """Splits of anything that `as_samples` takes.

        Args:
            train: what is trained on.
            valid: what hyperparameters are chosen by.
            test: what results are reported on.
            train_eval: where the training loss is evaluated; by default as many training samples
                as there are in ``valid``, evenly spread.
            augment: acts on training batches only.
        """
        samples, judged = as_samples(train), as_samples(valid)
        if train_eval is None:
            count = max(1, min(len(judged), len(samples)))
            spread = torch.linspace(0, len(samples) - 1, count).round().long()
            train_eval = samples.subset(spread)
        return cls(samples, as_samples(train_eval), judged, as_samples(test), augment)

    def to(self, device: torch.device) -> Splits:
        """The same splits on ``device``."""
        return replace(
            self,
            train=self.train.to(device),
            train_eval=self.train_eval.to(device),
            valid=self.valid.to(device),
            test=self.test.to(device),
        )

    def evaluation(self) -> dict[str, Samples]:
        """The evaluation sets by the name they have in records."""
        return {"train": self.train_eval, "valid": self.valid, "test": self.test}


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _selected(tree: Any, indices: Tensor) -> Any:
    if isinstance(tree, Tensor):
        return tree.index_select(0, indices)
    return tree_map(lambda t: t.index_select(0, indices) if isinstance(t, Tensor) else t, tree)


def _moved(tree: Any, device: torch.device) -> Any:
    if isinstance(tree, Tensor):
        return tree.to(device)
    mover = getattr(tree, "to", None)
    if isinstance(tree, Mapping) and callable(mover):  # a tokenizer's batch moves itself
        return mover(device)
    return tree_map(lambda t: t.to(device) if isinstance(t, Tensor) else t, tree)


def _as_tensors(tree: Any) -> Any:
    """The tree with NumPy arrays as tensors; lists of numbers stay what they are."""
    return tree_map(lambda t: torch.from_numpy(t) if isinstance(t, np.ndarray) else t, tree)


def _divided(collated: Any) -> tuple[Any, Any]:
    """(inputs, targets) of a collated batch."""
    if isinstance(collated, Mapping):
        targets = next((collated[name] for name in TARGET_NAMES if name in collated), None)
        return collated, targets
    if isinstance(collated, Sequence) and len(collated) == 2:
        return collated[0], collated[1]
    if isinstance(collated, Sequence) and len(collated) > 2:
        return tuple(collated[:-1]), collated[-1]
    raise SamplesError(
        "expected a batch of (inputs, targets) or a dictionary from the data set, got "
        f"{type(collated).__name__}: give DatasetSamples a `divide` that returns both"
    )
