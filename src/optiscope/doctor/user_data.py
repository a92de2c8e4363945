"""A user's data, whatever holds them, as a split of samples that can be read by number.

Index legend: n samples read, ... the shape of one sample.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, default_collate

from optiscope.errors import OptiscopeError, shorten

__all__ = ["DataMisuse", "ReadSamples", "Split", "as_tensor", "split_from", "splits_from"]

INPUT_KEYS = (
    "inputs",
    "input",
    "input_ids",
    "pixel_values",
    "image",
    "images",
    "img",
    "x",
    "data",
    "features",
    "text",
)
TARGET_KEYS = ("targets", "target", "labels", "label", "y")
LONGEST_TEXT = 512  # bytes or tokens of a sample that are compared


class DataMisuse(OptiscopeError, ValueError):
    """Data, model or loss that `check` cannot work with; the message says what to pass."""


@dataclass(frozen=True)
class ReadSamples:
    """n samples of a split: ``inputs`` [n, ...], ``targets`` [n, ...] or None, ``places`` [n]."""

    inputs: Tensor
    targets: Tensor | None
    places: Tensor
    lengths: Tensor | None = None  # [n], where samples of different lengths were padded

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class Split:
    """One split: its name, its samples by number, and the loader that batches them, if any."""

    name: str
    size: int
    sample: Callable[[int], tuple[Any, Any]] = field(repr=False)
    tensors: tuple[Tensor, Tensor | None] | None = field(default=None, repr=False)
    dataset: object = field(default=None, repr=False)
    loader: DataLoader[Any] | None = field(default=None, repr=False)
    select: Callable[[Tensor], tuple[Any, Any]] | None = field(default=None, repr=False)
    batches: tuple[Any, ...] | None = field(default=None, repr=False)

    @property
    def batch_size(self) -> int:
        """Samples in the loader's batch, else 64."""
        if self.batches is not None:
            return len(_parts(self.batches[0])[0])
        size = None if self.loader is None else self.loader.batch_size
        return min(size or 64, self.size)

    def batch(self, places: Sequence[int]) -> tuple[Any, Any]:
        """Inputs and targets of a batch, as the loader would collate them."""
        if self.tensors is not None:
            index = torch.as_tensor(places)
            x, y = self.tensors
            return x[index], None if y is None else y[index]
        if self.select is not None:
            return self.select(torch.as_tensor(places))
        if self.batches is not None:
            return _parts(self.batches[0])
        collate = default_collate if self.loader is None else self.loader.collate_fn
        dataset: Any = self.dataset
        return _parts(collate([dataset[i] for i in places]))

    def read(self, limit: int, seconds: float, seed: int = 0) -> ReadSamples:
        """Up to ``limit`` samples drawn without replacement, as many as ``seconds`` allow."""
        order = torch.randperm(self.size, generator=torch.Generator().manual_seed(seed))
        places = order[:limit].sort().values if limit < self.size else torch.arange(self.size)
        if self.tensors is not None or self.select is not None:
            if self.tensors is not None and len(places) == self.size:
                x, y = self.tensors
            else:
                x, y = self.batch(places.tolist())
            return ReadSamples(as_tensor(x), None if y is None else as_tensor(y), places)
        inputs, targets, read = [], [], []
        end = time.perf_counter() + seconds
        for place in order[:limit].tolist():
            x, y = self.sample(place)
            inputs.append(as_tensor(x).clone())
            targets.append(None if y is None else as_tensor(y))
            read.append(place)
            if time.perf_counter() > end and len(read) >= 32:
                break
        stacked, lengths = _stack(inputs)
        present = [t for t in targets if t is not None]
        labels = _stack(present)[0] if len(present) == len(inputs) else None
        return ReadSamples(stacked, labels, torch.tensor(read), lengths)


def splits_from(train: object, valid: object, test: object) -> dict[str, Split]:
    """The splits by name. ``train`` may hold all three (attributes ``train``, ``valid``, ``test``).

    Raises ``DataMisuse`` where one is empty or of an unknown kind.
    """
    if all(hasattr(train, name) for name in ("train", "valid", "test")):
        holder: Any = train
        train, valid, test = holder.train, valid or holder.valid, test or holder.test
    named = {"train": train, "valid": valid, "test": test}
    return {name: split_from(name, value) for name, value in named.items() if value is not None}


def split_from(name: str, source: Any) -> Split:
    """A split from tensors, a dataset, a loader, samples of this package, or a list of batches."""
    split = _split(name, source)
    if split.size == 0:
        raise DataMisuse(f"{name} holds no samples: pass data with at least one")
    return split


def _split(name: str, source: Any) -> Split:
    if isinstance(source, DataLoader):
        inner = _split(name, source.dataset)
        return Split(
            name,
            inner.size,
            inner.sample,
            inner.tensors,
            inner.dataset,
            source,
            inner.select,
            inner.batches,
        )
    if isinstance(source, Tensor | np.ndarray):
        return _paired(name, as_tensor(source), None)
    if isinstance(source, tuple | list) and _is_pair(source):
        return _paired(name, as_tensor(source[0]), as_tensor(source[1]))
    if isinstance(source, TensorDataset):
        if len(source.tensors) > 2:
            raise DataMisuse(
                f"{name}: expected a TensorDataset of inputs and targets, got "
                f"{len(source.tensors)} tensors: pass (inputs, targets)"
            )
        x, *rest = source.tensors
        split = _paired(name, x, rest[0] if rest else None)
        return Split(name, split.size, split.sample, split.tensors, source)
    if hasattr(source, "select") and hasattr(source, "subset") and hasattr(source, "__len__"):

        def select(places: Tensor) -> tuple[Any, Any]:
            batch = source.select(places)
            return batch.inputs, batch.targets

        def one(place: int) -> tuple[Any, Any]:
            x, y = select(torch.tensor([place]))
            return x[0], y[0]

        return Split(name, len(source), one, dataset=source, select=select)
    if isinstance(source, IterableDataset):
        source = _first(iter(source), 2048)
        return Split(name, len(source), lambda i: _parts(source[i]), dataset=source)
    if isinstance(source, list | tuple) and source and _is_batch(source[0]):
        pairs = [_parts(batch) for batch in source]
        x = torch.cat([as_tensor(a) for a, _ in pairs])
        y = None if pairs[0][1] is None else torch.cat([as_tensor(b) for _, b in pairs])
        split = _paired(name, x, y)
        return Split(name, split.size, split.sample, split.tensors, None, None, None, tuple(source))
    text = isinstance(source, str | bytes | dict)
    if not text and hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return Split(name, len(source), lambda i: _parts(source[i]), dataset=source)
    raise DataMisuse(
        f"{name}: expected (inputs, targets), a torch Dataset or DataLoader, or splits of this "
        f"package, got {type(source).__name__} {shorten(source, 60)}"
    )


def _first(iterator: Any, count: int) -> list[Any]:
    return [item for _, item in zip(range(count), iterator, strict=False)]


def _is_pair(source: Sequence[Any]) -> bool:
    if len(source) != 2 or not all(isinstance(s, Tensor | np.ndarray) for s in source):
        return False
    return bool(source[0].ndim > 0 and source[1].ndim > 0)


def _is_batch(item: Any) -> bool:
    if isinstance(item, tuple | list) and len(item) == 2:
        x = item[0]
        return isinstance(x, Tensor | np.ndarray) and x.ndim >= 2 and _is_pair(item)
    return False


def _paired(name: str, x: Tensor, y: Tensor | None) -> Split:
    if y is not None and len(x) != len(y):
        raise DataMisuse(
            f"{name}: expected as many targets as inputs, got {len(x):,} inputs and {len(y):,} "
            "targets: pair each input with one target"
        )
    return Split(name, len(x), lambda i: (x[i], None if y is None else y[i]), (x, y))


def _parts(item: Any) -> tuple[Any, Any]:
    """Inputs and targets of a sample or batch."""
    if isinstance(item, Mapping):
        x = next((item[k] for k in INPUT_KEYS if k in item), None)
        if x is None:
            raise DataMisuse(
                f"expected samples with one of the keys {', '.join(INPUT_KEYS)}, got "
                f"{shorten(sorted(map(str, item)))}"
            )
        return x, next((item[k] for k in TARGET_KEYS if k in item), None)
    if isinstance(item, tuple | list) and len(item) >= 2:
        return item[0], item[1]
    if isinstance(item, tuple | list) and len(item) == 1:
        return item[0], None
    return item, None


def as_tensor(value: Any) -> Tensor:
    """A sample as a tensor: arrays, numbers, lists, images (channels first) and text (its bytes).

    Raises ``DataMisuse`` on anything else.
    """
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, str):
        return torch.tensor(list(value.encode()[:LONGEST_TEXT]) or [0])
    if hasattr(value, "getbands") and hasattr(value, "size"):  # an image of PIL
        array = np.array(value)
        tensor = torch.from_numpy(array)
        return tensor.permute(2, 0, 1) if tensor.ndim == 3 else tensor[None]
    try:
        return torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError):
        raise DataMisuse(
            f"expected samples that are tensors, arrays, numbers, images or text, got "
            f"{type(value).__name__} {shorten(value, 60)}"
        ) from None


def _stack(rows: list[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Rows of one shape stacked, else flattened and padded with -1 (and their lengths)."""
    if len({row.shape for row in rows}) == 1:
        return torch.stack(rows), None
    flat = [row.flatten()[:LONGEST_TEXT] for row in rows]
    lengths = torch.tensor([len(row) for row in flat])
    padded = torch.full((len(flat), int(lengths.max())), -1, dtype=flat[0].dtype)
    for place, row in enumerate(flat):
        padded[place, : len(row)] = row
    return padded, lengths
