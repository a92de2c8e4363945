"""Which units of a model can change places, found by running it once and watching its operations.

Every index of every axis of every tensor in the state dict gets a label. An operation that treats
all units alike joins the labels of the units that it pairs: a matrix product those of the output
of one layer and the input of the next, an addition those of a residual stream. Whatever is not
understood pins its units to their places, so that what is left can change places without changing
the function.

Index legend: n entries along an axis, U units of a group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from optiscope.objective.substitution import differentiable_kernels

__all__ = ["Place", "UnitGroup", "exchangeable_units"]

Labels = NDArray[np.int64]
"""Label of each entry along an axis [n]; ``CONSTANT`` for padding."""

PINNED = 0  # label of what must stay in its place
CONSTANT = -1  # an entry that no unit feeds, such as padding with zeros


@dataclass(frozen=True)
class Place:
    """Where a group's units lie along one axis of one tensor.

    Attributes:
        tensor: name in the state dict.
        axis: of the tensor.
        indices: entries of each unit along the axis [U, entries per unit], ascending in a row.
    """

    tensor: str
    axis: int
    indices: Tensor


@dataclass(frozen=True)
class UnitGroup:
    """U units that can be permuted among themselves, at all places at once."""

    places: tuple[Place, ...]

    @property
    def size(self) -> int:
        """Number of units U."""
        return len(self.places[0].indices)


def exchangeable_units(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[UnitGroup]:
    """Groups of units whose permutation leaves the outputs of ``model(*args, **kwargs)`` alone.

    Args:
        model: in evaluation mode; it is run once, without gradients.
        args, kwargs: an example input.
    """
    tracker = _Tracker(t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor))
    tensors: dict[int, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor) and id(tensor) not in tensors:
            tensors[id(tensor)] = name
            tracker.register(name, tensor)
    with torch.no_grad(), differentiable_kernels(model), tracker:
        outputs = model(*args, **kwargs)
    for tensor in tree_leaves(outputs):
        if isinstance(tensor, Tensor):
            tracker.pin(tensor)
    tracker.pin_unused()
    return tracker.groups()


class _Tracker(TorchDispatchMode):
    """Labels of all tensors that operations inside the mode see, and what has been joined."""

    def __init__(self, data: Iterable[Tensor]) -> None:
        TorchDispatchMode.__init__(self)
        self._alive = list(data)  # so that no id is used twice
        self._data = set(map(id, self._alive))  # inputs, and what was computed from them
        self._parents = [PINNED]
        self._of: dict[int, list[Labels | None]] = {}
        self._registered: dict[str, tuple[Tensor, list[Labels | None]]] = {}
        self._seen: set[int] = set()

    # Labels

    def register(self, name: str, tensor: Tensor) -> None:
        """Give every entry along every axis of a model's tensor a label of its own."""
        labels: list[Labels | None] = []
        for size in tensor.shape:
            first = len(self._parents)
            self._parents.extend(range(first, first + size))
            labels.append(np.arange(first, first + size, dtype=np.int64))
        self._registered[name] = (tensor, labels)
        self._put(tensor, labels)

    def labels(self, tensor: Tensor) -> list[Labels | None]:
        """Labels along each axis; None where the entries are no units."""
        return list(self._of.get(id(tensor), [None] * tensor.ndim))

    def _put(self, tensor: Any, labels: Sequence[Labels | None]) -> None:
        if isinstance(tensor, Tensor) and any(each is not None for each in labels):
            self._of[id(tensor)] = list(labels)
            self._alive.append(tensor)

    def _root(self, label: int) -> int:
        while self._parents[label] != label:
            self._parents[label] = self._parents[self._parents[label]]
            label = self._parents[label]
        return label

    def join(self, left: Labels | None, right: Labels | None) -> Labels | None:
        """Make the units at equal entries one; what is joined with no unit is pinned."""
        if left is None and right is None:
            return None
        if left is None or right is None:
            self._pin_labels(left if right is None else right)
            return None
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            if a != CONSTANT and b != CONSTANT:
                one, other = sorted((self._root(a), self._root(b)))
                self._parents[other] = one  # the pinned label is the smallest
        return np.where(left == CONSTANT, right, left)

    def _pin_labels(self, labels: Labels | None) -> None:
        if labels is not None:
            for label in np.unique(labels).tolist():
                if label != CONSTANT:
                    self._parents[self._root(label)] = PINNED

    def pin(self, tensor: Tensor) -> None:
        """Keep all units along all axes of a tensor in their places."""
        for labels in self.labels(tensor):
            self._pin_labels(labels)

    def pin_unused(self) -> None:
        """Pin tensors of the model that no operation saw."""
        for tensor, _ in self._registered.values():
            if id(tensor) not in self._seen:
                self.pin(tensor)

    # Operations

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        self._seen.update(map(id, tensors))
        result = func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        if name not in _SHAPE_ONLY and any(id(t) in self._data for t in tensors):
            results = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
            self._data.update(map(id, results))
            self._alive.extend(results)
        if not any(id(t) in self._of for t in tensors):
            return result
        rule = _RULES.get(name)
        if rule is not None:
            rule(self, result, *args, **kwargs)
        elif torch.Tag.pointwise in func.tags or name in _POINTWISE:
            self._pointwise(result, tensors)
        elif name not in _SHAPE_ONLY:
            for tensor in tensors:
                self.pin(tensor)
        return result

    def _pointwise(self, result: Any, tensors: Sequence[Tensor]) -> None:
        """Joins units at equal places after broadcasting."""
        if not isinstance(result, Tensor):
            for tensor in tensors:
                self.pin(tensor)
            return
        out: list[Labels | None] = [None] * result.ndim
        for k in range(result.ndim):
            size, plain = result.shape[k], False
            together: Labels | None = None
            for tensor in tensors:
                axis = k - result.ndim + tensor.ndim
                if axis < 0 or tensor.shape[axis] != size:
                    continue
                labels = self.labels(tensor)[axis]
                if labels is None:
                    plain = plain or not self._uniform(tensor, axis)
                else:
                    together = labels if together is None else self.join(together, labels)
            if plain and size > 1:
                self._pin_labels(together)
                together = None
            out[k] = together
        self._put(result, out)

    def _uniform(self, tensor: Tensor, axis: int) -> bool:
        """Whether all entries along an axis are equal, whatever the data.

        Units beside them may change places.
        """
        first = tensor.narrow(axis, 0, 1)
        return id(tensor) not in self._data and bool((tensor == first).all())

    def contract(self, left: Tensor, first: int, right: Tensor, second: int) -> None:
        """A sum over products of entries at equal places along an axis of each tensor.

        Beside entries that are all equal, such as a first state of zeros, units are free.
        """
        a, b = self.labels(left)[first], self.labels(right)[second]
        free = (a is None and self._uniform(left, first)) or (
            b is None and self._uniform(right, second)
        )
        if not free:
            self.join(a, b)

    def groups(self) -> list[UnitGroup]:
        """Units with the same places, by the places."""
        members: dict[int, dict[tuple[str, int], list[int]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for name, (_, axes) in self._registered.items():
            for axis, labels in enumerate(axes):
                for index, label in enumerate([] if labels is None else labels.tolist()):
                    root = self._root(label)
                    if root != PINNED:
                        members[root][name, axis].append(index)
        alike: dict[tuple[tuple[str, int, int], ...], list[int]] = defaultdict(list)
        for root, places in members.items():
            alike[tuple((*place, len(found)) for place, found in places.items())].append(root)
        return [
            UnitGroup(
                tuple(
                    Place(name, axis, torch.tensor([members[root][name, axis] for root in roots]))
                    for name, axis, _ in signature
                )
            )
            for signature, roots in alike.items()
            if len(roots) > 1
        ]


# Rules: what an operation does to the labels of its arguments. ``track`` is the tracker, ``out``
# the operation's result.

Rule = Callable[..., None]
_RULES: dict[str, Rule] = {}

_POINTWISE = {"copy_", "clone", "_to_copy", "detach", "alias", "contiguous", "lift_fresh", "gelu",
              "_prelu_kernel"}  # fmt: skip
_SHAPE_ONLY = {
    f"{kind}{ending}"
    for kind in ("zeros", "ones", "full", "empty", "rand", "randn")
    for ending in ("_like", "")
} | {"new_zeros", "new_ones", "new_full", "new_empty", "sym_size", "is_same_size"}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def add(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(names, rule))
        return rule

    return add


@_rule("t")
def _transposed(track: _Tracker, out: Tensor, x: Tensor) -> None:
    track._put(out, track.labels(x)[::-1])


@_rule("transpose", "transpose_")
def _swapped(track: _Tracker, out: Tensor, x: Tensor, first: int, second: int) -> None:
    labels = track.labels(x)
    labels[first], labels[second] = labels[second], labels[first]
    track._put(out, labels)


@_rule("permute")
def _permuted(track: _Tracker, out: Tensor, x: Tensor, order: Sequence[int]) -> None:
    labels = track.labels(x)
    track._put(out, [labels[k] for k in order])


@_rule("view", "_unsafe_view", "reshape", "_reshape_alias", "_reshape_copy")
def _reshaped(track: _Tracker, out: Tensor, x: Tensor, *_: Any) -> None:
    track._put(out, _regrouped(track, track.labels(x), x.shape, out.shape))


@_rule("unsqueeze")
def _unsqueezed(track: _Tracker, out: Tensor, x: Tensor, axis: int) -> None:
    labels = track.labels(x)
    labels.insert(axis % out.ndim, None)
    track._put(out, labels)


@_rule("squeeze")
def _squeezed(track: _Tracker, out: Tensor, x: Tensor, axes: Any = None) -> None:
    chosen = range(x.ndim) if axes is None else [axes] if isinstance(axes, int) else axes
    gone = {axis % x.ndim for axis in chosen if x.shape[axis] == 1}
    track._put(out, [each for k, each in enumerate(track.labels(x)) if k not in gone])


@_rule("expand")
def _expanded(track: _Tracker, out: Tensor, x: Tensor, *_: Any, **__: Any) -> None:
    same = out.shape[out.ndim - x.ndim :]
    kept = [
        labels if size == new else None
        for labels, size, new in zip(track.labels(x), x.shape, same, strict=True)
    ]
    track._put(out, [None] * (out.ndim - x.ndim) + kept)


@_rule("repeat")
def _repeated(track: _Tracker, out: Tensor, x: Tensor, times: Sequence[int]) -> None:
    labels = [None] * (out.ndim - x.ndim) + track.labels(x)
    track._put(
        out, [None if n is None else np.tile(n, k) for n, k in zip(labels, times, strict=True)]
    )


@_rule("slice")
def _sliced(
    track: _Tracker,
    out: Tensor,
    x: Tensor,
    axis: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> None:
    labels = track.labels(x)
    along = labels[axis]
    if along is not None:
        labels[axis] = along[start:end:step]
    track._put(out, labels)


@_rule("select")
def _selected(track: _Tracker, out: Tensor, x: Tensor, axis: int, index: int) -> None:
    labels = track.labels(x)
    track._pin_labels(labels.pop(axis))
    track._put(out, labels)


@_rule("unbind")
def _unbound(track: _Tracker, out: Sequence[Tensor], x: Tensor, axis: int = 0) -> None:
    for piece in out:
        _selected(track, piece, x, axis, 0)


@_rule("split", "split_with_sizes", "chunk", "unsafe_chunk", "unsafe_split", "tensor_split")
def _split(
    track: _Tracker, out: Sequence[Tensor], x: Tensor, _: Any, axis: int = 0, **kwargs: Any
) -> None:
    axis = kwargs.get("dim", axis)
    start = 0
    for piece in out:
        labels = track.labels(x)
        along = labels[axis]
        if along is not None:
            labels[axis] = along[start : start + piece.shape[axis]]
        start += piece.shape[axis]
        track._put(piece, labels)


@_rule("cat")
def _concatenated(track: _Tracker, out: Tensor, pieces: Sequence[Tensor], axis: int = 0) -> None:
    pieces = [piece for piece in pieces if piece.ndim == out.ndim]
    axis %= out.ndim
    labels: list[Labels | None] = track.labels(pieces[0])
    for piece in pieces[1:]:
        for k, along in enumerate(track.labels(piece)):
            if k != axis:
                labels[k] = track.join(labels[k], along)
    parts = [track.labels(piece)[axis] for piece in pieces]
    if all(part is None for part in parts):
        labels[axis] = None
    else:
        labels[axis] = np.concatenate(
            [
                np.full(piece.shape[axis], PINNED, dtype=np.int64) if part is None else part
                for part, piece in zip(parts, pieces, strict=True)
            ]
        )
    track._put(out, labels)


@_rule("stack")
def _stacked(track: _Tracker, out: Tensor, pieces: Sequence[Tensor], axis: int = 0) -> None:
    labels = track.labels(pieces[0])
    for piece in pieces[1:]:
        labels = [track.join(a, b) for a, b in zip(labels, track.labels(piece), strict=True)]
    labels.insert(axis % out.ndim, None)
    track._put(out, labels)


@_rule("constant_pad_nd")
def _padded(track: _Tracker, out: Tensor, x: Tensor, pad: Sequence[int], value: Any = 0) -> None:
    labels = track.labels(x)
    for k in range(len(pad) // 2):
        axis = x.ndim - 1 - k
        along = labels[axis]
        before, after = pad[2 * k], pad[2 * k + 1]
        if along is None or before == after == 0:
            continue
        along = along[max(0, -before) : len(along) - max(0, -after)]
        labels[axis] = np.pad(along, (max(0, before), max(0, after)), constant_values=CONSTANT)
    track._put(out, labels)


@_rule("mm", "bmm")
def _multiplied(track: _Tracker, out: Tensor, left: Tensor, right: Tensor) -> None:
    a, b = track.labels(left), track.labels(right)
    track.contract(left, -1, right, -2)
    shared = [track.join(x, y) for x, y in zip(a[:-2], b[:-2], strict=True)]
    track._put(out, [*shared, a[-2], b[-1]])


@_rule("addmm", "baddbmm")
def _multiplied_and_added(
    track: _Tracker, out: Tensor, bias: Tensor, left: Tensor, right: Tensor, **_: Any
) -> None:
    _multiplied(track, out, left, right)
    track._pointwise(out, [bias, out])


@_rule("mv")
def _applied(track: _Tracker, out: Tensor, matrix: Tensor, vector: Tensor) -> None:
    labels = track.labels(matrix)
    track.contract(matrix, 1, vector, 0)
    track._put(out, labels[:1])


@_rule("dot")
def _dotted(track: _Tracker, out: Tensor, left: Tensor, right: Tensor) -> None:
    track.contract(left, 0, right, 0)


@_rule("convolution", "mkldnn_convolution", "cudnn_convolution")
def _convolved(
    track: _Tracker,
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool = False,
    output_padding: Any = (),
    groups: int = 1,
) -> None:
    image, kernel = track.labels(x), track.labels(weight)
    for along in [*image[2:], *kernel[2:]]:
        track._pin_labels(along)
    made = kernel[1] if transposed else kernel[0]
    if groups == 1:
        track.contract(x, 1, weight, 0 if transposed else 1)
    elif groups == x.shape[1] == out.shape[1]:
        made = track.join(image[1], kernel[0])
    else:
        for tensor in (x, weight, *(() if bias is None else (bias,))):
            track.pin(tensor)
        return
    if bias is not None:
        made = track.join(made, track.labels(bias)[0])
    track._put(out, [image[0], made, *[None] * (out.ndim - 2)])


@_rule(
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm",
    "miopen_batch_norm",
)
def _batch_normalized(track: _Tracker, out: Any, x: Tensor, *args: Any, **_: Any) -> None:
    labels = track.labels(x)
    for tensor in args:
        if isinstance(tensor, Tensor) and tensor.ndim == 1:
            labels[1] = track.join(labels[1], track.labels(tensor)[0])
    track._put(out[0], labels)


@_rule("native_layer_norm")
def _layer_normalized(
    track: _Tracker,
    out: Any,
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> None:
    labels = track.labels(x)
    for tensor in (weight, bias):
        if tensor is not None:
            for k, along in enumerate(track.labels(tensor)):
                axis = x.ndim - len(shape) + k
                labels[axis] = track.join(labels[axis], along)
    track._put(out[0], labels)


@_rule("native_group_norm")
def _group_normalized(
    track: _Tracker,
    out: Any,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    n: Any,
    c: Any,
    hw: Any,
    groups: int,
    eps: float,
) -> None:
    labels = track.labels(x)
    for tensor in (weight, bias):
        if tensor is not None:
            labels[1] = track.join(labels[1], track.labels(tensor)[0])
    if groups > 1:
        track._pin_labels(labels[1])
        labels[1] = None
    track._put(out[0], labels)


@_rule(
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
    "avg_pool2d",
    "avg_pool3d",
    "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d",
    "adaptive_max_pool2d",
    "upsample_nearest2d",
    "upsample_bilinear2d",
    "reflection_pad2d",
    "replication_pad2d",
)
def _pooled(track: _Tracker, out: Any, x: Tensor, *_: Any, **__: Any) -> None:
    labels = track.labels(x)
    for along in labels[2:]:
        track._pin_labels(along)
    first = out if isinstance(out, Tensor) else out[0]
    track._put(first, [*labels[:2], *[None] * (x.ndim - 2)])


@_rule("mean", "sum", "amax", "amin", "var", "std", "logsumexp", "linalg_vector_norm")
def _reduced(track: _Tracker, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> None:
    labels = track.labels(x)
    if out.ndim == x.ndim:  # dimensions kept
        track._put(
            out,
            [along if out.shape[k] == x.shape[k] else None for k, along in enumerate(labels)],
        )
        return
    found = next((a for a in (*args, kwargs.get("dim")) if isinstance(a, (list, tuple))), None)
    if found is None and out.ndim:
        for along in labels:
            track._pin_labels(along)
        return
    gone = {axis % x.ndim for axis in (found or range(x.ndim))}
    track._put(out, [along for k, along in enumerate(labels) if k not in gone])


@_rule("_softmax", "_log_softmax")
def _softmax(track: _Tracker, out: Tensor, x: Tensor, *_: Any) -> None:
    track._put(out, track.labels(x))


@_rule("embedding")
def _embedded(track: _Tracker, out: Tensor, weight: Tensor, indices: Tensor, *_: Any) -> None:
    rows, columns = track.labels(weight)
    track._pin_labels(rows)
    track._put(out, [*[None] * indices.ndim, columns])


def _regrouped(
    track: _Tracker, labels: list[Labels | None], old: Sequence[int], new: Sequence[int]
) -> list[Labels | None]:
    """Labels after a change of shape; what cannot be followed is pinned."""
    out: list[Labels | None] = [None] * len(new)
    for olds, news in _matching_runs(old, new):
        known = [k for k in olds if labels[k] is not None and old[k] > 1]
        if not known:
            continue
        sizes = [old[k] for k in olds]
        grid = np.zeros(sizes, dtype=np.int64)
        if len(known) == 1:
            shape = [old[k] if k == known[0] else 1 for k in olds]
            along = labels[known[0]]
            assert along is not None
            grid = np.broadcast_to(along.reshape(shape), sizes).reshape([new[k] for k in news])
            for place, axis in enumerate(news):
                line = np.moveaxis(grid, place, 0).reshape(new[axis], -1)
                if (line == line[:, :1]).all():
                    out[axis] = line[:, 0].copy()
                    break
            else:
                track._pin_labels(along)
        else:
            for k in known:
                track._pin_labels(labels[k])
    return out


def _matching_runs(old: Sequence[int], new: Sequence[int]) -> Iterable[tuple[list[int], list[int]]]:
    """Runs of axes of two shapes that hold the same entries."""
    i = j = 0
    while i < len(old) and j < len(new):
        olds, news = [i], [j]
        left, right = old[i], new[j]
        while left != right:
            if left < right:
                i += 1
                olds.append(i)
                left *= old[i]
            else:
                j += 1
                news.append(j)
                right *= new[j]
        yield olds, news
        i, j = i + 1, j + 1
