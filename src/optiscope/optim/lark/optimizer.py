"""Lark, low-rank adaptive Kronecker: an untuned optimizer for any mix of parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from optiscope.linalg.precision import full_precision
from optiscope.optim.checks import warn_caller
from optiscope.optim.lark import factors, matrix_step
from optiscope.optim.lark.batching import LayerStacks
from optiscope.optim.lark.gradients import GradientScreen, LiveGradient
from optiscope.optim.lark.layer_log import LayerLog, describe_layer
from optiscope.optim.lark.matrix_step import MatrixRule, first_length
from optiscope.optim.lark.schedule import Plan, Turn, last_renewal, plan_step, take_turn
from optiscope.optim.lark.settings import check_parameter, check_settings, check_state
from optiscope.optim.lark.vector_step import first_vector_state, vector_directions

__all__ = ["Lark"]

_VECTOR_LENGTH = (
    0.2  # a vector's step per entry, relative to the mean length of the matrices' steps
)
_SLOWEST = 0.05  # of lr: less is a learning rate meant for another optimizer
_LOW_PRECISION = (torch.bfloat16, torch.float16)
_STACKED = 65_536  # entries up to which equal layers are worth copying together on a CPU

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _uncompiled(function: _Function) -> _Function:
    """Run as it is inside torch.compile: bookkeeping around library calls gains nothing there."""
    return cast(_Function, torch.compiler.disable(function))


class Lark(Optimizer):
    """Normalised momentum, whitened by low-rank factors of each layer's gradients on both sides.

    A weight of two or more dimensions is read as a matrix (outputs by inputs, kernels flattened).
    Its momentum M becomes the direction f(L) M f(R), where L and R are the running second moments
    E[G G'] and E[G' G] of its gradient, of which the ``rank`` leading eigenpairs and the mean of
    the rest are kept, and f(A) = (A / rest)^-power. The step has a length of its own, in units of
    an orthogonal matrix's step, that the layer finds itself: it grows while fresh gradients still
    agree with the momentum and shrinks once they oppose it. Vectors and scalars take Adam's step
    at a length tied to the matrices'. Scaling the loss changes nothing.

    With ``horizon`` the steps shrink linearly to zero over that many steps. Without it they do
    not, and the weights to use are an average of those visited: call ``eval()`` before evaluating
    or saving a model and ``train()`` before training on.

    Args:
        params: parameters, named parameters, or groups of them.
        lr: factor on the built-in length, for torch's schedulers. What a layer finds too long
            with a factor above one it may shorten to what it is without.
        horizon: steps of the whole training, or None if not known.
        weight_decay: decoupled: each step also multiplies matrices by 1 - weight_decay * the
            first step's length, annealed alike; vectors and scalars do not decay.
        rank: eigenpairs kept of each factor, at most; 0 leaves normalised momentum.
        full_up_to: rows or columns up to which a factor keeps all its eigenpairs, whatever rank.
        power: of each factor's inverse.
        momentum: of the average of gradients.
        memory: steps over which the factors are averaged.
        gather_every: steps between gradients that enter the factors; the first ones all do.
        renew_every: steps between renewals of the factors and of the length. A layer counts those
            steps in which it has a gradient.
        growth: most by which a step's length changes for each step since it was last renewed, of
            which ten count at most, as a logarithm.

    A step with a gradient that is not finite changes nothing but the count of steps, and warns (on
    a GPU when ``get_log``, ``eval`` or ``state_dict`` is next called, so as not to wait); ten in a
    row end training on a CPU with a FloatingPointError. A parameter whose gradient is exactly zero
    is left as it is. Sparse gradients are made dense.

    Raises:
        ValueError: a setting out of its range.
        TypeError: sharded (DTensor) or complex parameters.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1.0,
        horizon: int | None = None,
        weight_decay: float = 0.0,
        *,
        rank: int = 32,
        full_up_to: int = 0,
        power: float = 0.4,
        momentum: float = 0.95,
        memory: float = 100.0,
        gather_every: int = 2,
        renew_every: int = 10,
        growth: float = 0.07,
    ) -> None:
        self._set_up()
        defaults = {
            "lr": lr,
            "horizon": horizon,
            "weight_decay": weight_decay,
            "rank": rank,
            "full_up_to": full_up_to,
            "power": power,
            "momentum": momentum,
            "memory": memory,
            "gather_every": gather_every,
            "renew_every": renew_every,
            "growth": growth,
        }
        check_settings(defaults)
        super().__init__(params, {**defaults, "step": 0, "training": True, "averaged": False})

    def _set_up(self) -> None:
        self._stacks = LayerStacks()
        self._spaces: dict[tuple[torch.dtype, torch.device], Tensor] = {}
        self._screen = GradientScreen()
        self._ended = False  # whether steps past the horizon have been reported

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from a pickle or a copy."""
        super().__setstate__(state)
        self._set_up()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a copy of a group; it anneals on the others' clock."""
        param_group = dict(param_group)  # the clock is this optimizer's, not its caller's
        if self.param_groups:
            param_group.setdefault("step", self.param_groups[0]["step"])
            param_group.setdefault("training", self.param_groups[0]["training"])
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            check_settings(group)
            for parameter in group["params"]:
                check_parameter(parameter)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise
        if 0 < float(group["lr"]) < _SLOWEST:
            warn_caller(
                f"lr is a factor on the built-in length, 1.0, and no learning rate: with "
                f"lr={float(group['lr']):g} training hardly moves; leave it out"
            )

    # --- the step -------------------------------------------------------------------------------

    @_uncompiled
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns the closure's loss where one is given.

        Raises:
            RuntimeError: the optimizer is in ``eval()`` mode.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = self._gradients()
        with full_precision({p.device.type for p in gradients}):
            self._update(gradients)
        return loss

    def _update(self, gradients: dict[Tensor, Tensor]) -> None:
        found, taken = self._screen.screen(gradients)
        plans = [self._plan(group, taken) for group in self.param_groups]
        lengths: list[Tensor] = []
        for matrices in (True, False):
            for group, plan in zip(self.param_groups, plans, strict=True):
                for turn, bunch in self._bunches(group, found, matrices=matrices):
                    if turn is not None:
                        lengths += self._matrix_steps(group, plan, turn, bunch)
                    else:
                        self._vector_steps(group, plan, bunch, lengths)
        for group, plan in zip(self.param_groups, plans, strict=True):
            for p in group["params"]:
                if plan.averages and p not in found and "average" in self.state.get(p, {}):
                    self._average(p, self._weights(p), plan)  # at rest: its average comes to it

    def _gradients(self) -> dict[Tensor, Tensor]:
        """Dense gradients, in float32 at least, of the parameters that have one."""
        found = {}
        for group in self.param_groups:
            if not group["training"]:
                raise RuntimeError(
                    "expected training mode, got eval mode: call optimizer.train() before step()"
                )
            for p in group["params"]:
                if p.grad is None or p.numel() == 0:
                    continue
                check_parameter(p)
                gradient = p.grad.to_dense() if p.grad.layout != torch.strided else p.grad
                low = gradient.dtype in _LOW_PRECISION
                found[p] = gradient.float() if low else gradient
        return found

    def _plan(self, group: dict[str, Any], taken: float | Tensor) -> Plan:
        """What the group does now; advances its clock. ``taken``: one, or zero if skipped."""
        step, horizon = group["step"], group["horizon"]
        group["step"] = step + 1
        if horizon is not None and step >= horizon and not self._ended:
            self._ended = True
            warn_caller(
                f"expected at most horizon={horizon} steps, got one more: it and those after it "
                "have length zero; pass the whole training's number of steps, or set "
                "group['horizon'] in every one of param_groups (load_state_dict brings the saved "
                "one back)"
            )
        return plan_step(step, group, taken)

    def _bunches(
        self, group: dict[str, Any], found: dict[Tensor, LiveGradient], *, matrices: bool
    ) -> Iterator[tuple[Turn | None, list[tuple[Tensor, LiveGradient]]]]:
        """Parameters of a group, with gradients, that are treated at once; matrices' turn."""
        bunches: dict[Any, list[tuple[Tensor, LiveGradient]]] = {}
        for place, p in enumerate(group["params"]):
            if p not in found or (p.ndim > 1) != matrices:
                continue
            gradient = found[p].value
            together = not matrices or p.device.type != "cpu" or p.numel() <= _STACKED
            shape = (p.shape[0], p.numel() // p.shape[0]) if matrices else ()
            kept = self._kept_pairs(p, group) if matrices else ()
            turn = take_turn(self._seen(p), group) if matrices else None
            key = (turn, shape, kept, gradient.dtype, p.device, None if together else place)
            bunches.setdefault(key, []).append((p, found[p]))
        for key, bunch in bunches.items():
            yield key[0], bunch

    def _seen(self, p: Tensor) -> int:
        """Gradients that a matrix has had."""
        return int(self.state.get(p, {}).get("step", 0))

    def _kept_pairs(self, p: Tensor, group: dict[str, Any]) -> tuple[int, int]:
        """Eigenpairs kept on either side: those of p's first gradient, whatever rank is now."""
        state = self.state.get(p)
        if state:
            return int(state["left"].shape[-1]), int(state["right"].shape[-1])
        m, n = p.shape[0], p.numel() // p.shape[0]
        rank, full = group["rank"], group["full_up_to"]
        return matrix_step.kept_pairs(m, rank, full), matrix_step.kept_pairs(n, rank, full)

    def _matrix_steps(
        self,
        group: dict[str, Any],
        plan: Plan,
        turn: Turn,
        bunch: list[tuple[Tensor, LiveGradient]],
    ) -> list[Tensor]:
        """Move matrices of equal shape; returns the logarithms of their lengths."""
        rule = MatrixRule(
            power=group["power"],
            momentum=group["momentum"],
            forget=1 - (1 - 1 / group["memory"]) ** group["gather_every"],
        )
        for p, gradient in bunch:
            if not self.state[p]:
                first = matrix_step.first_state(
                    gradient.value.flatten(1),
                    self._kept_pairs(p, group),
                    first_length(group["horizon"]),
                )
                self.state[p].update(
                    vars(first), step=torch.tensor(0.0, dtype=torch.float32, device="cpu")
                )
            self.state[p]["step"] += 1
        states = [self.state[p] for p, _ in bunch]
        flat = [gradient.value.flatten(1) for _, gradient in bunch]
        single = len(bunch) == 1
        gradients = flat[0] if single else torch.stack(flat)
        live = bunch[0][1].live if single else torch.stack([g.live for _, g in bunch])
        state = self._stacks.stack(states)
        if turn.elapsed or turn.gather:
            thin = factors.thin_parts(gradients, state.by)
        if turn.elapsed:
            growth, least = group["growth"], matrix_step.least_log_length(group["lr"])
            state = matrix_step.lengthen(state, gradients, thin, growth, turn.elapsed, live, least)
        if turn.gather:
            state = matrix_step.gather(state, gradients, thin, rule, live)
        if turn.elapsed and state.left.shape[-1]:
            state = matrix_step.renew(state, rule)
        space = self._space(gradients)
        directions, scales = matrix_step.advance(state, gradients, rule, live, space)
        self._stacks.unstack(state, states)
        scales = scales * plan.factor
        decays = live * plan.decay if group["weight_decay"] else None
        if single:
            self._move(bunch[0][0], directions, scales, decays, plan)
        else:
            for i, (p, _) in enumerate(bunch):
                decay = None if decays is None else decays[i]
                self._move(p, directions[i], scales[i], decay, plan)
        return [state["log_length"] for state in states]

    def _space(self, like: Tensor) -> Tensor:
        """Memory of a tensor's shape that lasts until the next call."""
        key = (like.dtype, like.device)
        if key not in self._spaces or self._spaces[key].numel() < like.numel():
            self._spaces[key] = torch.empty(like.numel(), dtype=like.dtype, device=like.device)
        return self._spaces[key][: like.numel()].view(like.shape)

    def _vector_steps(
        self,
        group: dict[str, Any],
        plan: Plan,
        bunch: list[tuple[Tensor, LiveGradient]],
        lengths: list[Tensor],
    ) -> None:
        """Move vectors of one device; their length follows the matrices' of this step."""
        for p, gradient in bunch:
            if not self.state[p]:
                self.state[p].update(first_vector_state(gradient.value))
        live = [gradient.live for _, gradient in bunch]
        values = [gradient.value for _, gradient in bunch]
        directions = vector_directions([self.state[p] for p, _ in bunch], values, live)
        if lengths:
            mean = torch.stack([length.to(values[0]) for length in lengths]).mean().exp()
        else:
            mean = values[0].new_full((), first_length(group["horizon"]))
        length = mean * _VECTOR_LENGTH * plan.factor
        for (p, _), direction in zip(bunch, directions, strict=True):
            self._move(p, direction, length, None, plan)

    def _weights(self, p: Tensor) -> Tensor:
        """What a step moves: p, or where p is of low precision the copy that p is a rounding of.

        Where p is no rounding of it, p has been changed from outside, and the copy follows.
        """
        state = self.state[p]
        if p.dtype not in _LOW_PRECISION:
            state.pop("precise", None)
            return p
        precise: Tensor | None = state.get("precise")
        if precise is None:
            state["precise"] = precise = p.detach().float()
        else:
            precise.copy_(torch.where(precise.to(p.dtype) == p, precise, p.float()))
        return precise

    def _average(self, p: Tensor, weights: Tensor, plan: Plan) -> None:
        """Draw p's average towards the weights that p now has."""
        average, share = self.state[p]["average"], plan.share
        if isinstance(share, Tensor):
            share = share.to(average)
        average.lerp_(weights.to(average.dtype), share)

    def _move(
        self,
        p: Tensor,
        direction: Tensor,
        factor: Tensor,
        decay: Tensor | None,
        plan: Plan,
    ) -> None:
        """p <- p (1 - decay) - factor direction, and its average."""
        state, weights = self.state[p], self._weights(p)
        if not plan.averages:
            state.pop("average", None)  # of the time before there was a horizon
        elif "average" not in state:
            state["average"] = weights.detach().to(
                torch.promote_types(p.dtype, torch.float32), copy=True
            )
        if decay is not None:
            weights.mul_(1 - decay)
        weights.addcmul_(direction.view_as(p), -factor)
        if weights is not p:
            p.copy_(weights)
        if plan.averages:
            self._average(p, weights, plan)

    # --- modes, state, log ----------------------------------------------------------------------

    def train(self) -> None:
        """Put the weights visited last into the parameters, to train on. Twice does nothing."""
        self._switch(training=True)

    @torch.no_grad()
    def _switch(self, *, training: bool) -> None:
        for group in self.param_groups:
            if group["training"] == training:
                continue
            group["training"] = training
            averaged = group.get("averaged", group["horizon"] is None)
            group["averaged"] = not training and group["horizon"] is None
            if not (averaged if training else group["averaged"]):
                continue
            for p in group["params"]:
                state = self.state.get(p, {})
                if "average" not in state:
                    continue
                if "precise" in state:
                    p.copy_(state["precise" if training else "average"])
                else:
                    here = p.clone()
                    p.copy_(state["average"])
                    state["average"].copy_(here)

    def eval(self) -> None:
        """Put the average of weights into the parameters, to evaluate or save. Twice does nothing.

        With a horizon there is no average, and the parameters stay as they are.
        """
        self._screen.tell()
        self._switch(training=False)

    def state_dict(self) -> dict[str, Any]:
        """State to save, as of every optimizer of torch; bit for bit what was."""
        self._screen.tell()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a copy of a state, in float32 at least where torch would take p's precision.

        Settings are those of the state, the horizon too: to train on for longer set
        ``group["horizon"]`` afterwards.

        Raises:
            ValueError: the state is another optimizer's, or of parameters of other shapes.
        """
        given = [group["horizon"] for group in self.param_groups]
        hooked: list[dict[str, Any]] = []  # what hooks of the user's have made of it

        def take(_: Optimizer, state: dict[str, Any]) -> None:
            check_state(state, [p for group in self.param_groups for p in group["params"]])
            hooked.append(state)

        before = self.register_load_state_dict_pre_hook(take)
        after = self.register_load_state_dict_post_hook(
            lambda _: self._restore(hooked[-1]), prepend=True
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            before.remove()
            after.remove()
        for old, group in zip(given, self.param_groups, strict=True):
            if old != group["horizon"] and old is not None:
                warn_caller(
                    f"the loaded state's horizon={group['horizon']} replaces horizon={old}: to "
                    "train for another number of steps set group['horizon'] after loading"
                )
                break

    def _restore(self, state_dict: dict[str, Any]) -> None:
        """The saved tensors, in the precision that a step of ours keeps them in."""
        groups = state_dict["param_groups"]
        places = [place for group in groups for place in group["params"]]
        steps = [group["step"] for group in groups for _ in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        for place, p, step in zip(places, params, steps, strict=True):
            if place in state_dict["state"]:
                dtype = torch.promote_types(p.dtype, torch.float32)
                self.state[p] = {
                    name: v.detach().to(p.device, dtype, copy=True)
                    if name != "step"
                    else v.detach().to("cpu", copy=True)
                    for name, v in state_dict["state"][place].items()
                }
                if "momentum" in self.state[p]:  # once a layer followed its group's clock
                    self.state[p].setdefault("step", torch.tensor(float(step), device="cpu"))

    def get_log(self) -> list[LayerLog]:
        """What is believed of each matrix that has had a gradient, in the parameters' order."""
        self._screen.tell()
        logs, place = [], 0
        for group in self.param_groups:
            names = group.get("param_names")
            for inner, p in enumerate(group["params"]):
                if "momentum" in self.state.get(p, {}):
                    name = names[inner] if names else str(place)
                    newest = self._seen(p) - 1
                    age = newest - last_renewal(newest, group["renew_every"])
                    logs.append(describe_layer(name, tuple(p.shape), self.state[p], age))
                place += 1
        return logs
