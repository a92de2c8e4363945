"""Lark, low-rank adaptive Kronecker: an untuned optimizer for any mix of parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optiscope.linalg.precision import full_precision
from optiscope.objective.statistics import recompute_statistics
from optiscope.optim.checks import warn_caller
from optiscope.optim.lark import matrix_step
from optiscope.optim.lark.batching import (
    EqualLayers,
    LayerStacks,
    equal_layers,
    pairs_of,
    seen,
    vectors_by_type,
)
from optiscope.optim.lark.eval_notice import notice_evaluation
from optiscope.optim.lark.gradients import GradientScreen, LiveGradient, dense_gradients
from optiscope.optim.lark.layer_log import LayerLog, describe_layers
from optiscope.optim.lark.matrix_step import first_length
from optiscope.optim.lark.memory import LarkMemory, memory_of
from optiscope.optim.lark.reading import groups_of, matrix_shape
from optiscope.optim.lark.saved_state import check_state, restored_states
from optiscope.optim.lark.schedule import Plan, last_renewal, plan_step
from optiscope.optim.lark.settings import LarkSettings, check_parameter, read_settings
from optiscope.optim.lark.sharded import whole
from optiscope.optim.lark.vector_step import first_vector_state, vector_directions, vector_length
from optiscope.optim.lark.weights import (
    begin_average,
    draw_average,
    exact_weights,
    move,
    swap_average,
)

__all__ = ["Lark"]

_WATCHED = 100  # steps in which a factor that ever matters has been seen
_FORMER_NAME = "Lark: horizon is now named total_steps; the old name will go"
_SMALLEST_FACTOR = 0.05  # lr below this is a learning rate meant for another optimizer

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _uncompiled(function: _Function) -> _Function:
    """Run as it is inside torch.compile: bookkeeping around library calls gains nothing there."""
    return cast(_Function, torch.compiler.disable(function))


class Lark(Optimizer):
    """Normalized momentum, whitened by low-rank factors of each layer's gradients on both sides.

    A weight of two or more dimensions is read as a matrix (outputs by inputs, kernels flattened;
    of more, see ``read_as``). Its momentum M becomes the direction f(L) M f(R), where L and R are
    the running second moments E[G G'] and E[G' G] of its gradient, of which the ``rank`` leading
    eigenpairs and the mean of the rest are kept, and f(A) = (A / rest)^-power. The step has a
    length of its own, in units of an orthogonal matrix's step, that the layer finds itself: it
    grows while fresh gradients still agree with the momentum and shrinks once they oppose it.
    Vectors and scalars take Adam's step at a length tied to the matrices'. Scaling the loss
    changes nothing. The whole step of a matrix is
    :func:`optiscope.optim.lark.matrix_step.update`.

    With ``total_steps`` the steps shrink linearly to zero over that many steps. Without it they do
    not, and the weights to use are an average of those visited: call ``eval()`` before evaluating
    or saving a model and ``train()`` before training on. An optimizer made of a model warns once
    where the model is evaluated without it.

    Args:
        params: a model, or parameters, named parameters, or groups of them. A model tells its
            names, which weights are kernels, and when it is evaluated.
        lr: factor on the built-in length, for torch's schedulers. What a layer finds too long
            with a factor above one it may shorten to what it is without.
        total_steps: steps of the whole training, or None if not known.
        weight_decay: decoupled: each step also multiplies matrices by 1 - weight_decay * the
            first step's length, annealed alike; vectors and scalars do not decay.
        horizon: former name of ``total_steps``, with a FutureWarning.
        rank: eigenpairs kept of each factor, at most; 0 leaves normalized momentum.
        full_up_to: rows or columns up to which a factor keeps all its eigenpairs, whatever rank.
        power: of each factor's inverse.
        momentum: of the average of gradients.
        memory: steps over which the factors are averaged.
        gather_every: steps between gradients that enter the factors; the first ones all do.
        renew_every: steps between renewals of the factors and of the length. A layer counts those
            steps in which it has a gradient.
        growth: most by which a step's length changes for each step since it was last renewed, of
            which ten count at most, as a logarithm.
        read_as: of weights of three dimensions and more: ``"kernel"``, outputs (the first
            dimension) by the rest; ``"stack"``, of matrices in the last two dimensions (experts);
            ``"auto"`` tells by the shape, see :mod:`optiscope.optim.lark.reading`.

    A step with a gradient that is not finite changes nothing but the count of steps, and warns (on
    a GPU when ``get_log``, ``eval`` or ``state_dict`` is next called, so as not to wait); ten in a
    row end training on a CPU with a FloatingPointError. A parameter whose gradient is exactly zero
    is left as it is, and so (but for decay) are rows and columns of a matrix in which no gradient
    has been other than zero. A step without any gradient other than zero does not count. Sparse
    gradients are made dense.

    Memory: the momentum, and at most 16 more numbers for each of a layer's, often one or two: 2 k
    (M + N) with k = min(rank, side, 8 times the other side). Without ``total_steps`` one more for
    the average, and in bfloat16 or float16 one for the precise weights. Under ``fully_shard`` every
    process holds all of it, and gathers the gradients and weights of each step.

    Raises:
        ValueError: a setting out of its range, or a key of torch's optimizers that Lark does not
            honor, such as ``maximize``, here or in a group whenever it was written.
        TypeError: flat (``FullyShardedDataParallel``) or complex parameters.
    """

    _model: nn.Module | None

    def __init__(
        self,
        params: nn.Module | Iterable[Any],
        lr: float | Tensor = 1.0,
        total_steps: int | None = None,
        weight_decay: float = 0.0,
        *,
        horizon: int | None = None,
        rank: int = 32,
        full_up_to: int = 0,
        power: float = 0.4,
        momentum: float = 0.95,
        memory: float = 100.0,
        gather_every: int = 2,
        renew_every: int = 10,
        growth: float = 0.07,
        read_as: str = "auto",
    ) -> None:
        if total_steps is not None and horizon is not None:
            raise ValueError(
                f"expected total_steps or horizon, its former name, got total_steps={total_steps} "
                f"and horizon={horizon}: leave horizon out"
            )
        if horizon is not None:
            warn_caller(_FORMER_NAME, FutureWarning)
        self._set_up()
        defaults = read_settings(
            {
                "lr": lr,
                "total_steps": horizon if total_steps is None else total_steps,
                "weight_decay": weight_decay,
                "rank": rank,
                "full_up_to": full_up_to,
                "power": power,
                "momentum": momentum,
                "memory": memory,
                "gather_every": gather_every,
                "renew_every": renew_every,
                "growth": growth,
                "read_as": read_as,
            }
        )
        self._model = params if isinstance(params, nn.Module) else None
        given: Any = params if self._model is None else groups_of(self._model)
        super().__init__(
            given, {**defaults.as_group, "step": 0, "training": True, "averaged": False}
        )
        if self._model is not None and defaults.total_steps is None:
            notice_evaluation(self._model, self)

    def _set_up(self) -> None:
        self._stacks = LayerStacks()
        self._spaces: dict[tuple[torch.dtype, torch.device], Tensor] = {}
        self._screen = GradientScreen()
        self._settings: dict[int, LarkSettings] = {}  # by the group's id
        self._ended = False  # whether steps past the last one have been reported
        self._highest = 0.0  # factor lr so far, until it is known to be no learning rate
        self._model = None
        self._buffers: dict[str, Tensor] = {}  # of the training weights, in eval mode

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from a pickle or a copy."""
        super().__setstate__(state)
        self._set_up()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a copy of a group; it anneals on the others' clock."""
        param_group = dict(param_group)  # the clock is this optimizer's, not its caller's
        if "horizon" in param_group and "total_steps" not in param_group:
            warn_caller(_FORMER_NAME, FutureWarning)
        for name, other in (("total_steps", "horizon"), ("horizon", "total_steps")):
            if name in param_group:
                param_group.setdefault(other, param_group[name])
        if self.param_groups:
            param_group.setdefault("step", self.param_groups[0]["step"])
            param_group.setdefault("training", self.param_groups[0]["training"])
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            settings = self._settings_of(group)
            for parameter in group["params"]:
                check_parameter(parameter)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise
        if 0 < float(settings.lr) < _SMALLEST_FACTOR:
            warn_caller(
                f"lr is a factor on the built-in length, 1.0, and no learning rate: with "
                f"lr={float(settings.lr):g} training hardly moves; leave it out"
            )

    def _settings_of(self, group: dict[str, Any]) -> LarkSettings:
        """Settings of a group, read anew where the group has changed since."""
        settings = self._settings.get(id(group))
        if settings is None or not settings.agrees_with(group):
            settings = read_settings(group, settings)
            group.update(settings.as_group)
            self._settings[id(group)] = settings
        return settings

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
        if not all(group["training"] for group in self.param_groups):
            raise RuntimeError(
                "expected training mode, got eval mode: call optimizer.train() before step()"
            )
        gradients = dense_gradients(p for group in self.param_groups for p in group["params"])
        with full_precision({p.device.type for p in gradients}):
            self._update(gradients)
        return loss

    def _update(self, gradients: dict[Tensor, Tensor]) -> None:
        """Move the matrices, each at its own length, then the vectors at a share of theirs."""
        at_rest = all(_is_zero(group["lr"]) for group in self.param_groups)
        screened, taken, moves = self._screen.screen(gradients, ask=at_rest)
        if not moves:
            self._begin(screened)
            return
        plans = [self._plan(group, taken) for group in self.param_groups]
        lengths: list[Tensor] = []
        for group, plan in zip(self.param_groups, plans, strict=True):
            for equal in equal_layers(group["params"], screened, self.state, plan.settings):
                lengths += self._move_matrices(equal, plan)
        for group, plan in zip(self.param_groups, plans, strict=True):
            for vectors in vectors_by_type(group["params"], screened, plan.settings):
                self._move_vectors(vectors, plan, lengths)
        for group, plan in zip(self.param_groups, plans, strict=True):
            for p in group["params"]:
                if plan.share is not None and p not in screened:  # at rest: its average follows
                    state = self.state.get(p, {})
                    if "average" in state:
                        draw_average(state, exact_weights(whole(p), state), plan.share)

    def _plan(self, group: dict[str, Any], taken: float | Tensor) -> Plan:
        """What the group does now; advances its clock. ``taken``: one, or zero if skipped."""
        settings, step = self._settings_of(group), group["step"]
        group["step"] = step + 1
        total = settings.total_steps
        if total is not None and step >= total and not self._ended:
            self._ended = True
            warn_caller(
                f"expected at most total_steps={total} steps, got one more: it and those after it "
                "have length zero; pass the whole training's number of steps, or set "
                "group['total_steps'] in every one of param_groups (load_state_dict brings the "
                "saved one back)"
            )
        self._watch_factor(step, settings)
        return plan_step(step, settings, taken)

    def _watch_factor(self, step: int, settings: LarkSettings) -> None:
        """Warn once where a scheduler's factors are another optimizer's learning rates."""
        if step > _WATCHED or isinstance(settings.lr, Tensor):
            return
        self._highest = max(self._highest, settings.lr)
        last = min(_WATCHED, (settings.total_steps or _WATCHED) // 2)
        if step == last and 0 < self._highest < _SMALLEST_FACTOR:
            highest, self._highest = self._highest, 1.0
            warn_caller(
                f"lr is a factor on the built-in length, 1.0, and was at most {highest:g} "
                f"in the first {step + 1} steps: a scheduler made for learning rates all but stops "
                "training; let its peak be 1.0, or leave it out"
            )

    def _move_matrices(self, equal: EqualLayers, plan: Plan) -> list[Tensor]:
        """Move matrices of equal shape; returns the logarithms of their lengths."""
        layers, settings = equal.layers, plan.settings
        parts = [g.as_matrix(matrix_shape(p.shape, settings.read_as)) for p, g in layers]
        states = [
            self._matrix_state(p, gradient, settings)
            for (p, _), (gradient, _) in zip(layers, parts, strict=True)
        ]
        for state in states:
            state["step"] += 1
        single = len(layers) == 1
        gradients = parts[0][0] if single else torch.stack([gradient for gradient, _ in parts])
        live = parts[0][1] if single else torch.stack([weight for _, weight in parts])
        moved, directions, scales = matrix_step.update(
            self._stacks.stack(states),
            gradients,
            settings,
            gather_now=equal.due.gather,
            elapsed=equal.due.elapsed,
            live=live,
            out=self._space(gradients),
        )
        self._stacks.unstack(moved, states)
        scales = scales * plan.factor
        decays = live * plan.decay if settings.weight_decay else None
        for i, (p, _) in enumerate(layers):
            here: Any = () if single else i
            decay = None if decays is None else decays[here]
            move(p, self.state[p], directions[here], scales[here], decay, plan.share)
        return [state["log_length"].mean() for state in states]

    def _matrix_state(
        self, p: Tensor, gradient: Tensor, settings: LarkSettings
    ) -> dict[str, Tensor]:
        """State of a matrix, begun with its first gradient, in the matrix's shape."""
        state: dict[str, Tensor] = self.state[p]
        if not seen(state):
            pairs, length = pairs_of(p, {}, settings), first_length(settings.total_steps)
            first = matrix_step.first_state(gradient, pairs, length)
            state.update(vars(first), step=torch.tensor(0.0, dtype=torch.float32, device="cpu"))
        return state

    def _begin(self, gradients: dict[Tensor, LiveGradient]) -> None:
        """Make the states of parameters whose gradient is zero, as yet without a step.

        By a step of zero gradients torch's distributed checkpoints ask for the states' shapes.
        """
        for group in self.param_groups:
            settings = self._settings_of(group)
            for p in group["params"]:
                if p not in gradients:
                    continue
                shape, gradient = matrix_shape(p.shape, settings.read_as), gradients[p].value
                if shape:
                    self._matrix_state(p, gradient.reshape(shape), settings)
                elif not self.state[p]:
                    self.state[p].update(first_vector_state(gradient))
                if settings.total_steps is None:
                    begin_average(whole(p), self.state[p])

    def _space(self, like: Tensor) -> Tensor:
        """Memory of a tensor's shape that lasts until the next call."""
        key = (like.dtype, like.device)
        if key not in self._spaces or self._spaces[key].numel() < like.numel():
            self._spaces[key] = torch.empty(like.numel(), dtype=like.dtype, device=like.device)
        return self._spaces[key][: like.numel()].view(like.shape)

    def _move_vectors(
        self, vectors: list[tuple[Tensor, LiveGradient]], plan: Plan, lengths: list[Tensor]
    ) -> None:
        """Move vectors of one device; their length follows the matrices' of this step."""
        for p, gradient in vectors:
            if not self.state[p]:
                self.state[p].update(first_vector_state(gradient.value))
        live = [gradient.live for _, gradient in vectors]
        values = [gradient.value for _, gradient in vectors]
        directions = vector_directions([self.state[p] for p, _ in vectors], values, live)
        otherwise = first_length(plan.settings.total_steps)
        scale = vector_length(lengths, otherwise, like=values[0]) * plan.factor
        for (p, _), direction in zip(vectors, directions, strict=True):
            move(p, self.state[p], direction, scale, None, plan.share)

    # --- modes, state, log ----------------------------------------------------------------------

    def train(self) -> None:
        """Put the weights visited last into the parameters, to train on. Twice does nothing."""
        self._switch(training=True)
        buffers = dict(self._model.named_buffers()) if self._model else {}
        with torch.no_grad():
            for name, buffer in self._buffers.items():
                buffers[name].copy_(buffer)
        self._buffers = {}

    def eval(self, batches: Iterable[Any] | None = None, model: nn.Module | None = None) -> None:
        """Put the average of weights into the parameters, to evaluate or save. Twice does nothing.

        With ``total_steps`` there is no average, and the parameters stay as they are.

        Args:
            batches: of training data. Batch norm's statistics are recomputed from them for the
                averaged weights, until ``train()``; without them they are those of other weights.
            model: whose parameters these are, where the optimizer was not made of the model.

        Raises:
            ValueError: there are batches, but no model is known.
        """
        self._screen.tell()
        self._switch(training=False)
        averaged = any(group["averaged"] for group in self.param_groups)
        if batches is None or not averaged or self._buffers:
            return
        self._model = model or self._model
        if self._model is None:
            raise ValueError(
                "expected a model whose statistics to recompute, got batches alone: call "
                "eval(batches, model), or make the optimizer of the model, Lark(model)"
            )
        self._buffers = {name: b.detach().clone() for name, b in self._model.named_buffers()}
        recompute_statistics(self._model, batches)

    def memory(self) -> LarkMemory:
        """Bytes that the state will take once every parameter has had a gradient."""
        return memory_of(
            (p, self._settings_of(group)) for group in self.param_groups for p in group["params"]
        )

    @torch.no_grad()
    def _switch(self, *, training: bool) -> None:
        for group in self.param_groups:
            if group["training"] == training:
                continue
            group["training"] = training
            averages = self._settings_of(group).total_steps is None
            averaged = group.get("averaged", averages)
            group["averaged"] = not training and averages
            if averaged if training else averages:
                for p in group["params"]:
                    swap_average(p, self.state.get(p, {}), training=training)

    def state_dict(self) -> dict[str, Any]:
        """State to save, as of every optimizer of torch; bit for bit what was."""
        self._screen.tell()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a copy of a state, in float32 at least where torch would take p's precision.

        Settings are those of the state, ``total_steps`` too: to train on for longer set
        ``group["total_steps"]`` afterwards.

        Raises:
            ValueError: the state is another optimizer's, or of parameters of other shapes.
        """
        given = [self._settings_of(group).total_steps for group in self.param_groups]
        hooked: list[dict[str, Any]] = []  # what hooks of the user's have made of it

        def take(_: Optimizer, state: dict[str, Any]) -> None:
            check_state(state, [p for group in self.param_groups for p in group["params"]])
            hooked.append(state)

        def restore(_: Optimizer) -> None:
            params = [p for group in self.param_groups for p in group["params"]]
            self.state.update(restored_states(hooked[-1], params))

        before = self.register_load_state_dict_pre_hook(take)
        after = self.register_load_state_dict_post_hook(restore, prepend=True)
        try:
            super().load_state_dict(state_dict)
        finally:
            before.remove()
            after.remove()
        self._settings.clear()
        for old, group in zip(given, self.param_groups, strict=True):
            total = self._settings_of(group).total_steps
            if old != total and old is not None:
                warn_caller(
                    f"the loaded state's total_steps={total} replaces total_steps={old}: to train "
                    "for another number of steps set group['total_steps'] after loading"
                )
                break

    def get_log(self) -> list[LayerLog]:
        """What is believed of each matrix that has had a gradient, in the parameters' order."""
        self._screen.tell()
        logs, place = [], 0
        for group in self.param_groups:
            names, every = group.get("param_names"), self._settings_of(group).renew_every
            for inner, p in enumerate(group["params"]):
                state = self.state.get(p, {})
                if seen(state):
                    name = names[inner] if names else str(place)
                    newest = seen(state) - 1
                    age = newest - last_renewal(newest, every)
                    logs += describe_layers(name, tuple(p.shape), state, age)
                place += 1
        return logs


def _is_zero(lr: float | Tensor) -> bool:
    """Whether a factor is zero, without waiting for a device; True where that is not known."""
    return lr.device.type != "cpu" or not bool(lr) if isinstance(lr, Tensor) else lr == 0
