"""Units: dead and saturated activations, read from the graph without hooks on submodules."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from optiscope.doctor.rule import Rule
from optiscope.doctor.rules.modes import dropouts
from optiscope.monitor.events import Forward, WatchedStep, at_looks
from optiscope.monitor.graph import SavedActivation, saved_activations

__all__ = ["RULES", "ActivationState"]

LOOKS = 6
SATURATED = 0.97


@dataclass
class ActivationState:
    """What several looks at one activation say of each of its units."""

    kind: str
    looks: int = 0
    alive: Tensor | None = None
    saturated: list[float] = field(default_factory=list)


class Units(Rule):
    """Units that are off, or at their limit, for every sample of several batches."""

    name = "dead_units"
    family = "units"
    also = ("saturated_units",)
    SHARE = 0.9

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[str, ActivationState] = {}
        self.reported: set[str] = set()

    @at_looks
    def forward(self, forward: Forward) -> None:
        """Read the activations that the graph of a training forward keeps."""
        if not forward.look or not forward.nodes or (not forward.training and not forward.grad):
            return
        if self.session.step in (1, 2):
            return
        counts: dict[str, int] = defaultdict(int)
        for activation in saved_activations(forward.nodes):
            if activation.values.ndim < 2:
                continue
            layer = self._layer(activation)
            counts[layer] += 1
            name = layer if counts[layer] == 1 else f"{layer} (call {counts[layer]})"
            if counts[layer] > 4:
                continue
            self._look(name, activation)

    def _layer(self, activation: SavedActivation) -> str:
        parameter = activation.parameter
        name = "" if parameter is None else self.session.names.get(id(parameter), "")
        return f"{activation.kind} after {name.rpartition('.')[0] or 'the input'}"

    def _look(self, name: str, activation: SavedActivation) -> None:
        units = _by_unit(activation.values)
        if units.shape[1] < 4 or units.shape[0] < 2:
            return
        state = self.states.get(name)
        if state is None or state.alive is None or len(state.alive) != units.shape[1]:
            state = ActivationState(activation.kind)
            state.alive = torch.zeros(units.shape[1], dtype=torch.bool, device=units.device)
            self.states[name] = state
        assert state.alive is not None
        state.looks += 1
        if activation.kind == "relu":
            state.alive |= (units != 0).any(0)
        elif activation.kind in ("gelu", "silu"):
            state.alive |= (units > -6.0).any(0)
        elif activation.kind in ("tanh", "sigmoid"):
            centred = units if activation.kind == "tanh" else 2 * units - 1
            state.saturated.append(float((centred.abs() > SATURATED).double().mean()))
            del state.saturated[:-LOOKS]
        if state.looks >= LOOKS and name not in self.reported:
            self._judge(name, state)
        if state.looks % (2 * LOOKS) == 0:
            state.alive.zero_()
            state.looks = 0

    def _judge(self, name: str, state: ActivationState) -> None:
        assert state.alive is not None
        if state.kind in ("relu", "gelu", "silu"):
            dead = 1 - float(state.alive.double().mean())
            if dead >= self.SHARE:
                self.reported.add(name)
                self.report(
                    f"{dead:.0%} of the units of {name} are off for every sample of {state.looks} "
                    "batches: no gradient passes them.",
                    "Lower the rate, set the biases to zero, use He initialization; leaky relu "
                    "keeps a gradient.",
                    where=[name],
                    measured={"share": dead},
                    threshold={"share": self.SHARE},
                )
        elif len(state.saturated) >= LOOKS:
            share = sorted(state.saturated)[0]
            limit = 0.5
            if share > limit and state.kind in ("tanh", "sigmoid"):
                self.reported.add(name)
                self.report(
                    f"{share:.0%} of the values of {name} are beyond {SATURATED} of their limit: "
                    "hardly any gradient passes.",
                    "Use Xavier initialization or smaller weights, normalize the inputs, or use "
                    "relu.",
                    rule="saturated_units",
                    where=[name],
                    measured={"share": share},
                    threshold={"share": limit},
                )


def _by_unit(values: Tensor) -> Tensor:
    """Activations as [positions, units]: channels are dim 1 of images, else the last."""
    if values.ndim in (4, 5):
        values = values.movedim(1, -1)
    flat = values.reshape(-1, values.shape[-1])
    if len(flat) > 4096:
        flat = flat[:: len(flat) // 2048]
    return flat


class SameOutputs(Rule):
    """Outputs that are equal for all samples of a batch, in look after look."""

    name = "outputs_all_equal"
    family = "units"
    severity = "error"
    LOOKS = 3

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.evaluated = -1

    def forward(self, forward: Forward) -> None:
        """Compare the outputs of a training batch, or of an evaluation, with each other."""
        out, rows = forward.output, forward.rows
        if out is None or rows is None or out.ndim < 2 or self.session.step < 20:
            return
        if forward.grad:
            if not forward.look or any(m.training for _, m in dropouts(self.session.model)):
                return  # dropout makes any two outputs differ
        elif self.evaluated == self.session.step:
            return
        else:
            self.evaluated = self.session.step
        if len(rows) < 4 or out.shape[0] != len(rows):
            return
        if len(rows.unique()) < 3 or not out.is_floating_point():
            return
        flat = out.detach().reshape(len(rows), -1)[:, :4096].double()
        spread = float((flat - flat[:1]).abs().max())
        size = float(flat.abs().max())
        self.count = self.count + 1 if spread <= 1e-6 * max(size, 1e-6) else 0
        if self.count >= self.LOOKS:
            self.report(
                f"The model gives the same output for every sample (they differ by {spread:.1e}): "
                "its inputs do not reach the output.",
                "Look for the first layer whose output is the same for all samples: units that are "
                "off, weights of zero, a value that is read from elsewhere.",
                measured={"spread": spread},
                threshold={"spread": 1e-6},
            )


class ActivationHint(Rule):
    """Hidden layers with tanh or sigmoid: a hint for tuning, never an alarm."""

    name = "activation_hint"
    family = "units"
    severity = "note"

    def __init__(self) -> None:
        super().__init__()
        self.done = False

    def after_step(self, view: WatchedStep) -> None:
        """Say it once, after some steps."""
        if self.done or view.index or view.number < 30:
            return
        self.done = True
        modules = [(n, m) for n, m in view.model.named_modules() if not list(m.children())]
        hidden = [n for n, m in modules[:-1] if isinstance(m, nn.Tanh | nn.Sigmoid)]
        if hidden:
            self.report(
                f"{len(hidden)} hidden layers use tanh or sigmoid; relu often learns faster.",
                "`optiscope doctor activations my_module:setup` trains short pairs of runs and "
                "says whether that holds here.",
                where=hidden,
                confidence=0.5,
            )


RULES: tuple[type[Rule], ...] = (Units, SameOutputs, ActivationHint)
