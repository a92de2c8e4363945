"""Axes: views that exchange dimensions without moving the data, and softmax over the wrong one."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from optiscope.doctor.rule import Rule
from optiscope.monitor.events import Forward, LossCall

__all__ = ["RULES", "exchanged"]

VIEWS = ("ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0")


def exchanged(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Whether a view from ``before`` to ``after`` gives dimensions each other's place.

    A view keeps the order of the entries: sizes in another order, or a split dimension that ends on
    the other side of its neighbor ([T, H D] to [H, T, D], and back), mix entries that do not belong
    together. Dimensions of size 1 may stand anywhere.
    """
    a, b = [s for s in before if s > 1], [s for s in after if s > 1]
    while a and b and a[0] == b[0]:
        del a[0], b[0]
    while a and b and a[-1] == b[-1]:
        del a[-1], b[-1]
    if len(a) == len(b) >= 2:
        return sorted(a) == sorted(b)
    if len(a) > len(b):
        a, b = b, a
    # [T, E] against [H, T, D] with E = H D, nothing else having changed
    return len(a) == 2 and len(b) == 3 and b[1] == a[0] and b[0] * b[2] == a[1] and b[0] != b[1]


class Axes(Rule):
    """Views in the graph and at the loss, and the axis of every softmax."""

    name = "view_exchanges_axes"
    family = "loss_form"
    severity = "error"
    exact = True
    also = ("softmax_over_batch", "softmax_over_queries")

    def __init__(self) -> None:
        super().__init__()
        self.views = 0
        self.done: set[str] = set()

    def forward(self, forward: Forward) -> None:
        """Look at the graphs of the first forwards."""
        if not forward.nodes or forward.step > 3:
            return
        # torch's own attention joins batch and heads in one view: [B, H D] to [B H, D]
        joins = any(isinstance(m, nn.MultiheadAttention) for m in self.session.model.modules())
        axes: dict[tuple[int, ...], set[int]] = {}
        for node in forward.nodes:
            name = node.name()
            if name in VIEWS and not joins:
                self._view(node)
            elif name in ("SoftmaxBackward0", "LogSoftmaxBackward0"):
                self._softmax(node, forward, axes)
        for shape, dims in axes.items():
            self._queries(shape, dims)

    def _view(self, node: Any) -> None:
        sizes = getattr(node, "_saved_self_sym_sizes", None)
        made = getattr(node, "_input_metadata", None)
        if sizes is None or not made:
            return
        before, after = tuple(map(int, sizes)), tuple(map(int, made[0].shape))
        if exchanged(before, after):
            self._say(before, after, "")

    def _say(self, before: tuple[int, ...], after: tuple[int, ...], place: str) -> None:
        if "view" in self.done:
            return
        self.done.add("view")
        self.report(
            f"A view turns {list(before)} into {list(after)}{place}: the sizes change places, the "
            "entries do not, so that parts of different rows are mixed.",
            "Use transpose or permute to exchange dimensions; view and reshape only split and join "
            "neighbors.",
            measured={"dimensions": len(after)},
        )

    def _softmax(self, node: Any, forward: Forward, axes: dict[tuple[int, ...], set[int]]) -> None:
        result = getattr(node, "_saved_result", None)
        dim = getattr(node, "_saved_dim", None)
        if not isinstance(result, Tensor) or dim is None or result.ndim < 2:
            return
        dim = int(dim - 2**64 if dim >= 2**63 else dim) % result.ndim
        shape, out = result.shape, forward.output
        over_batch = (
            dim == 0
            and shape[0] == forward.size > 1
            and out is not None
            and out.ndim == 2
            and out.shape[0] == forward.size
            and max(shape[1:]) > 1
        )
        if over_batch and "batch" not in self.done:
            self.done.add("batch")
            self.report(
                f"A softmax over {list(shape)} runs along dimension 0, the samples of the batch: "
                "they compete with each other.",
                "Use dim=1, or dim=-1.",
                rule="softmax_over_batch",
                measured={"dimension": 0},
            )
        axes.setdefault(tuple(shape), set()).add(dim)

    def _queries(self, shape: tuple[int, ...], dims: set[int]) -> None:
        """Square weights whose softmax runs over the last dimension but one, and never the last."""
        dim = len(shape) - 2
        square = len(shape) in (3, 4) and shape[-1] == shape[-2] > 1
        if square and dims == {dim} and "queries" not in self.done:
            self.done.add("queries")
            self.report(
                f"The softmax of an attention {list(shape)} runs along dimension {dim}, its "
                "queries: the weights of a query do not sum to 1.",
                "Use dim=-1, the keys.",
                rule="softmax_over_queries",
                measured={"dimension": dim},
                confidence=0.95,
            )

    def loss(self, call: LossCall) -> None:
        """A view between the output and the loss."""
        forward = call.forward
        if not call.grad or call.step > 3 or forward is None or call.prediction is None:
            return
        out, p = forward.output, call.prediction
        if out is None or p.shape == out.shape or p.data_ptr() != out.data_ptr():
            return
        if (
            p.is_contiguous()
            and out.is_contiguous()
            and exchanged(tuple(out.shape), tuple(p.shape))
        ):
            self._say(tuple(out.shape), tuple(p.shape), " before the loss")


class Interleaved(Rule):
    """Images whose color values lie side by side along a row."""

    name = "image_axes_mixed"
    family = "inputs"
    severity = "error"
    BATCHES = 4

    def __init__(self) -> None:
        super().__init__()
        self.ratios: list[float] = []

    def forward(self, forward: Forward) -> None:
        """Compare steps to the next pixel with steps over as many pixels as there are colors."""
        x = forward.input
        if not forward.grad or len(self.ratios) >= self.BATCHES or x is None or x.ndim != 4:
            return
        colors = x.shape[1]
        if colors not in (3, 4) or x.shape[3] < 12 or not x.is_floating_point():
            return
        near = float((x[..., 1:] - x[..., :-1]).abs().mean())
        far = float((x[..., colors:] - x[..., :-colors]).abs().mean())
        self.ratios.append(far / max(near, 1e-12))
        if len(self.ratios) == self.BATCHES and max(self.ratios) < 0.7:
            ratio = self.ratios[-1]
            self.report(
                f"In the images a pixel is nearer to the one {colors} places on than to the next "
                f"(differences {ratio:.2f} : 1): color values lie side by side along the rows.",
                "Images [H, W, C] become [C, H, W] by permute(2, 0, 1), not by view or reshape.",
                measured={"ratio": ratio},
                threshold={"ratio": 0.7},
            )


RULES: tuple[type[Rule], ...] = (Axes, Interleaved)
