"""Sequences: padding that is learned or seen, and an order or a past that is not.

Indices: B samples, T places, C classes.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from optiscope.doctor.rule import Rule
from optiscope.monitor.events import Forward, WatchedStep
from optiscope.monitor.outputs import main_output
from optiscope.monitor.probe import ProbeError, output_at, rows_of

__all__ = ["RULES", "by_place", "padding"]


def padding(inputs: Tensor) -> Tensor | None:
    """Places [B, T] after the end of each sequence, None where nothing looks like padding.

    Padding is one token (or a row of zeros) that ends many sequences, several places long and of
    several lengths, and that hardly occurs before.
    """
    if inputs.ndim == 2 and not inputs.is_floating_point() and inputs.dtype != torch.bool:
        last = inputs[:, -1]
        token = last.mode().values
        same = inputs == token
    elif inputs.ndim == 3 and inputs.is_floating_point():
        same = (inputs == 0).all(-1)
    else:
        return None
    if inputs.shape[1] < 5 or inputs.shape[0] < 4:
        return None
    ends = same.flip(1).cumprod(1).flip(1).bool()
    lengths = ends.sum(1)
    if float((lengths >= 2).double().mean()) < 0.2 or len(lengths.unique()) < 3:
        return None
    inside = float((same & ~ends).double().sum() / max(1, int((~ends).sum())))
    return ends if inside < 0.02 and not bool((lengths == inputs.shape[1]).all()) else None


def by_place(output: Tensor, size: int, length: int) -> Tensor | None:
    """Outputs as [B, T, C], from [B, T, C], [B, C, T] or [B T, C]; None for anything else."""
    if output.ndim == 3 and output.shape[:2] == (size, length):
        return output
    if output.ndim == 3 and (output.shape[0], output.shape[2]) == (size, length):
        return output.transpose(1, 2)
    if output.ndim == 2 and output.shape[0] == size * length and length > 1:
        return output.view(size, length, -1)
    return None


class PaddingLearned(Rule):
    """A loss that counts places after the end of a sequence."""

    name = "padding_in_loss"
    family = "loss_form"
    exact = True
    BATCHES = 3

    def __init__(self) -> None:
        super().__init__()
        self.count = self.inverted = self.looked = 0

    def output_gradient(self, forward: Forward, gradient: Tensor) -> None:
        """Which places of the first batches have a gradient."""
        x = forward.input
        if x is None or self.looked >= 8 or len(forward.inputs) > 3:
            return
        ends = padding(x)
        if ends is None:
            self.looked += 1
            return
        at = by_place(gradient, x.shape[0], x.shape[1])
        if at is None:
            return
        self.looked += 1
        used = (at != 0).any(-1)
        later = ends.clone()
        later[:, 1:] &= ends[:, :-1]  # the first place after the end may be an end token
        if int(later.sum()) < 8 or int((~ends).sum()) < 8:
            return
        learned = float(used[later].double().mean())
        real = float(used[~ends].double().mean())
        self.count = self.count + 1 if learned > 0.5 else 0
        self.inverted = self.inverted + 1 if learned > 0.5 and real < 0.05 else 0
        if self.count < self.BATCHES:
            return
        share = float(later.double().mean())
        wrong = self.inverted >= self.BATCHES
        self.report(
            (
                "The loss counts only padding: places of the sequences themselves have no gradient."
                if wrong
                else f"The loss counts padding: {share:.0%} of the places in a batch lie after the "
                "end of their sequence, and have a gradient."
            ),
            "Give padding a label that is ignored (ignore_index), or average over the mask of real "
            "places." + (" The mask is inverted." if wrong else ""),
            severity="error" if wrong else "warning",
            measured={"padding": share, "with gradient": learned},
            threshold={"with gradient": 0.5},
        )


class PaddingSeen(Rule):
    """Outputs that depend on how much padding follows a sequence."""

    name = "padding_changes_output"
    family = "inputs"
    also = ("order_invisible",)
    STEP = 10

    def __init__(self) -> None:
        super().__init__()
        self.done = False

    def after_step(self, view: WatchedStep) -> None:
        """Ask the model once: with less padding, with tokens in another order."""
        if self.done or view.index or view.number < self.STEP or not view.look:
            return
        self.done = True
        forwards = [f for f in view.forwards if f.grad and f.args and len(f.inputs) == 1]
        x = forwards[-1].input if forwards else None
        if x is None or forwards[-1].autocast is not None:
            return
        whole = not x.is_floating_point() and x.dtype != torch.bool
        if x.ndim == 2 and whole and x.shape[1] >= 4:
            self._padding(forwards[-1], x)
            self._order(forwards[-1], x)
        elif x.ndim == 3 and not whole and x.shape[1] >= 5:
            self._padding(forwards[-1], x)

    def _padding(self, forward: Forward, x: Tensor) -> None:
        ends = padding(x)
        if ends is None or any(
            isinstance(m, nn.Conv1d | nn.Conv2d) for m in self.session.model.modules()
        ):
            return  # a convolution sees a few places beyond the end
        lengths = (~ends).sum(1)
        candidates = ((lengths >= 2) & (ends.sum(1) >= 2)).nonzero()[:4, 0].tolist()
        changes = []
        for row in candidates:
            short = int(lengths[row])
            outputs = []
            for width in (short, x.shape[1]):
                only = rows_of(forward, 1)
                if only is None:
                    return
                value = output_at(
                    self.session,
                    only,
                    inputs=partial(_cut, x[row : row + 1, :width]),
                    evaluation=True,
                )
                out = main_output(value)
                if out is None:
                    return
                at = by_place(out, 1, width) if out.ndim > 1 and width > 1 else None
                outputs.append(out if at is None else at[:, :short])
            if outputs[0].shape != outputs[1].shape:
                return
            scale = float(outputs[1].abs().max())
            changes.append(float((outputs[0] - outputs[1]).abs().max()) / max(scale, 1e-9))
        if len(changes) >= 2 and sorted(changes)[len(changes) // 2] > 1e-2:
            change = sorted(changes)[len(changes) // 2]
            self.report(
                f"Padding changes the output: without the padding after a sequence its output "
                f"moves by {change:.0%} of its size.",
                "Mask the padding (key_padding_mask, pack_padded_sequence) and pool over real "
                "places only, divided by their number.",
                measured={"change": change},
                threshold={"change": 1e-2},
                confidence=0.9,
            )

    def _order(self, forward: Forward, x: Tensor) -> None:
        """Attention whose output for a sample is the same in every order of its tokens."""
        if not self._attends(forward) or forward.output is None or forward.output.ndim != 2:
            return
        if forward.output.shape[0] != x.shape[0]:
            return
        small = rows_of(forward, 4)
        if small is None or small.input is None or padding(x) is not None:
            return
        base = main_output(output_at(self.session, small, evaluation=True))
        other = main_output(
            output_at(self.session, small, inputs=lambda t: t.roll(1, 1).flip(1), evaluation=True)
        )
        if base is None or other is None or base.shape != other.shape:
            return
        change = float((base - other).abs().max()) / max(float(base.abs().max()), 1e-9)
        if change < 1e-4:
            self.report(
                "The model gives the same output for its tokens in another order: attention has no "
                "order of its own, and no position is added.",
                "Add positions (learned, sinusoidal or rotary) to the embedded tokens.",
                rule="order_invisible",
                measured={"change": change},
                threshold={"change": 1e-4},
                confidence=0.9,
            )

    def _attends(self, forward: Forward) -> bool:
        modules = self.session.model.modules()
        if any(isinstance(m, nn.MultiheadAttention) for m in modules):
            return True
        return getattr(self, "attention", False)

    def forward(self, forward: Forward) -> None:
        """Whether the graph holds an attention."""
        if forward.nodes and not getattr(self, "attention", False):
            self.attention = any(n.name().startswith("ScaledDotProduct") for n in forward.nodes)


def _cut(part: Tensor, _: Tensor) -> Tensor:
    """A copy of ``part``, whatever the model was called with."""
    return part.clone()


class Past(Rule):
    """Sequence models that see what they should predict, or nothing of what came before."""

    name = "future_visible"
    family = "labels"
    severity = "error"
    exact = True
    also = ("past_invisible",)

    def __init__(self) -> None:
        super().__init__()
        self.next = self.looked = 0

    def output_gradient(self, forward: Forward, gradient: Tensor) -> None:
        """Targets that are the inputs of the next place; then ask the model, once."""
        x, out = forward.input, forward.output
        if x is None or out is None or self.looked >= 6 or len(forward.inputs) != 1 or x.ndim < 2:
            return
        if x.shape[1] < 4 or x.dtype == torch.bool:
            return
        self.looked += 1
        target = self._target(forward, gradient, x)
        if target is None:
            return
        ahead = x[:, 1:]
        used = (target[:, :-1] >= 0) if not target.is_floating_point() else None
        equal = target[:, :-1] == ahead.to(target.device)
        share = float((equal if used is None else equal[used]).double().mean())
        self.next = self.next + 1 if share > 0.95 else 0
        if self.next == 2:
            self._ask(forward, x)

    def _target(self, forward: Forward, gradient: Tensor, x: Tensor) -> Tensor | None:
        target = forward.target
        if target is not None:
            if target.numel() == x.numel() and target.is_floating_point() == x.is_floating_point():
                return target.reshape(x.shape)
            return None
        if x.is_floating_point() or x.ndim != 2:
            return None
        at = by_place(gradient, x.shape[0], x.shape[1])
        if at is None or self.session.form(forward, gradient).kind not in ("cross_entropy", "nll"):
            return None
        labels = at.argmin(-1)
        labels[at.abs().sum(-1) == 0] = -1
        return labels

    def _ask(self, forward: Forward, x: Tensor) -> None:
        small = rows_of(forward, 2)
        if small is None or small.input is None:
            return
        length = x.shape[1]
        base = self._output(small, None, length)
        if base is None:
            return
        scale = max(float(base.abs().max()), 1e-6)
        last = self._output(small, -1, length)
        if last is not None:
            change = float((base - last)[:, :-1].abs().max()) / scale
            if change > 1e-4:
                self.report(
                    "The model sees what it should predict: changing the last place of a sequence "
                    "changes the outputs before it.",
                    "Add a causal mask (is_causal=True); run recurrent layers in one direction.",
                    measured={"change": change},
                    threshold={"change": 1e-4},
                )
                return
        first = self._output(small, 0, length)
        matrices = sum(p.ndim > 1 for p in self.session.model.parameters())
        if first is not None and matrices >= 4:
            change = float((base - first)[:, 1:].abs().max()) / scale
            if change == 0.0:
                self.report(
                    "The outputs of a place do not depend on the places before it: the model "
                    "predicts from the last one alone.",
                    "Look at the attention mask (True may mean: do not attend) and at the axis "
                    "that the layers run along.",
                    rule="past_invisible",
                    measured={"change": change},
                    threshold={"change": 0.0},
                )

    def _output(self, small: Forward, place: int | None, length: int) -> Tensor | None:
        """Outputs [B, T, C] after a change of one place."""

        def changed(values: Tensor) -> Tensor:
            other = values.clone()
            if place is not None and values.is_floating_point():
                other[:, place] = other[:, place].neg() + 1.0
            elif place is not None:
                other[:, place] = (other[:, place] + 1) % (int(values.max()) + 1)
            return other

        try:
            out = main_output(output_at(self.session, small, inputs=changed, evaluation=True))
        except ProbeError:
            return None
        return None if out is None else by_place(out, 2, length)


RULES: tuple[type[Rule], ...] = (PaddingLearned, PaddingSeen, Past)
