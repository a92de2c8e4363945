"""A session: hooks on a model, its criterion and its optimizers, turned into events of a step.

Nothing here changes the run: hooks read, copies are made of what must be compared, and random
numbers are drawn from generators of the session's own.
"""

from __future__ import annotations

import logging
import math
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Concatenate, ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from optiscope.monitor.budget import Budget
from optiscope.monitor.events import Forward, LossCall, Observer, ProbeError, WatchedStep
from optiscope.monitor.fingerprint import RowFingerprint
from optiscope.monitor.graph import last_operation, walk
from optiscope.monitor.hooks import Hooks
from optiscope.monitor.looks import Looks
from optiscope.monitor.loss_form import NO_FORM, LossForm, recover_form
from optiscope.monitor.losses import LossHistory
from optiscope.monitor.outputs import main_output, tensors_in
from optiscope.monitor.sentinel import Sentinel, sentinel_of
from optiscope.monitor.unwrap import unwrap_model, unwrap_optimizer
from optiscope.objective.own_loss import named_loss

__all__ = ["Session", "main_output", "tensors_in", "unwrap_model", "unwrap_optimizer"]

logger = logging.getLogger("optiscope")

FORM_STEPS = 70
WHOLE_FORMS = 20
MAX_FORWARDS = 64
KEPT_FORWARDS = 4


P = ParamSpec("P")


def _timed(
    hook: Callable[Concatenate[Session, P], None],
) -> Callable[Concatenate[Session, P], None]:
    """A hook whose time is added to the budget's account of hooks."""

    def call(session: Session, /, *args: P.args, **kwargs: P.kwargs) -> None:
        if session._busy:
            return
        start = time.perf_counter()
        try:
            hook(session, *args, **kwargs)
        finally:
            session.budget.hooks += time.perf_counter() - start

    return call


class _Token:
    """Lives as long as the graph of an output does."""

    __slots__ = ("__weakref__", "forward")

    def __init__(self, forward: Forward) -> None:
        self.forward = weakref.ref(forward)


class Session:
    """Hooks of one watch, the events they make and the observers that are told.

    Observers are told of the first steps, of every tick and look (:class:`Looks`) and of steps in
    which something unusual is noticed: then the session is ``attentive``. In all other steps the
    hooks count, and compare versions, rates and losses that are there anyway; forwards without a
    gradient (evaluations) are always told.

    ``step`` is the number of completed steps (of the optimizer that has stepped most). Observers
    that fail are dropped and listed in ``failures``: a run never dies of being watched.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        loss: Any = None,
        *,
        every: int = 10,
        schedulers: Sequence[Any] = (),
        horizon: int | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.every = max(1, every)
        self.budget = budget or Budget(0.05, self.every)
        self.looks = Looks(self.every)
        self.horizon = horizon
        self._root = weakref.ref(model)
        self._inner = weakref.ref(unwrap_model(model))
        self._optimizers = [weakref.ref(o) for o in optimizers]
        self.schedulers = [weakref.ref(s) for s in schedulers]
        self.loss_function = loss
        self.steps = [0] * len(optimizers)
        self.step = 0
        self.forwards_seen = 0
        self.backwards_seen = 0
        self.window: deque[Forward] = deque(maxlen=MAX_FORWARDS)
        self.losses: list[LossCall] = []
        self.loss_values = LossHistory()
        self.names = {id(p): name for name, p in self.model.named_parameters()}
        self.fingerprint = RowFingerprint()
        self.tokens: deque[tuple[int, Any]] = deque(maxlen=64)
        self.other_optimizers: dict[int, tuple[Any, set[int]]] = {}
        self.failures: list[str] = []
        self.raised_by_user: Exception | None = None  # by a callback; passed on, not counted
        self.observers: list[Observer] = []
        self.strangers = 0
        self._version: int | None = None
        self._busy = False
        self._depth = 0
        self._open: list[Forward] = []
        self._views: dict[int, WatchedStep] = {}
        self._pending: list[tuple[int, Tensor]] = []
        self._handlers: dict[str, list[tuple[Observer, Any]]] = {}  # at looks
        self._always: dict[str, list[tuple[Observer, Any]]] = {}  # at every step
        self._wanting: list[Observer] = []
        self._form: LossForm | None = None
        self._mark = (0.0, 0.0)
        self.attentive = True
        self._call: tuple[Any, Any, bool] | None = None
        self._row_readers: list[Observer] = []
        self._reads_forwards = False
        self._rates: list[tuple[float, ...]] = [()] * len(optimizers)
        self._own = {id(o) for o in optimizers}
        self._hooks = Hooks()
        self._sentinels = [Sentinel(sentinel_of(o)) for o in optimizers]
        for sentinel in self._sentinels:
            self._hook_sentinel(sentinel)
        self._hooks.add(model.register_forward_pre_hook, self._before_forward, with_kwargs=True)
        self._hooks.add(model.register_forward_hook, self._after_forward, with_kwargs=True)
        if isinstance(loss, nn.Module):
            self._hooks.add(loss.register_forward_hook, self._after_loss, with_kwargs=True)
        for index, optimizer in enumerate(optimizers):
            self._hooks.add(
                optimizer.register_step_pre_hook,
                lambda o, a, k, index=index: self._before_step(index, o, a, k),
            )
            self._hooks.add(
                optimizer.register_step_post_hook,
                lambda o, a, k, index=index: self._after_step(index, o),
            )
        self._hooks.add(register_optimizer_step_pre_hook, self._any_step)

    # -- what is watched

    @property
    def model(self) -> nn.Module:
        """The unwrapped model; raises ``ReferenceError`` once it is gone."""
        model = self._inner()
        if model is None:
            raise ReferenceError("the watched model no longer exists")
        return model

    @property
    def optimizers(self) -> list[Optimizer]:
        """The watched optimizers that still exist."""
        return [o for o in (ref() for ref in self._optimizers) if o is not None]

    def owned(self) -> set[int]:
        """Ids of the parameters of every optimizer known, watched or seen stepping."""
        ids = {id(p) for o in self.optimizers for g in o.param_groups for p in g["params"]}
        for _, others in self.other_optimizers.values():
            ids |= others
        return ids

    @property
    def looking(self) -> bool:
        """Whether the step that is being prepared is one to look at."""
        return self.looks.due(self.step)

    # -- observers

    def observe(self, observers: Iterable[Observer]) -> None:
        """Tell ``observers`` of every event from now on, in their order."""
        for observer in observers:
            self.observers.append(observer)
            observer.start(self)
            self._reads_forwards |= observer.reads_forwards
            for name in (
                "before_forward", "forward", "loss", "output_gradient", "rates_changed",
                "before_step", "after_step", "finish",
            ):  # fmt: skip
                method = getattr(type(observer), name)
                if method is not getattr(Observer, name):
                    pair = (observer, getattr(observer, name))
                    self._handlers.setdefault(name, []).append(pair)
                    if not getattr(method, "at_looks", False):
                        self._always.setdefault(name, []).append(pair)
            if type(observer).fingerprints is not Observer.fingerprints:
                self._row_readers.append(observer)
            if type(observer).wants_before is not Observer.wants_before:
                self._wanting.append(observer)

    def _tell(self, event: str, look: bool, *values: Any) -> None:
        handlers = (self._handlers if look else self._always).get(event)
        if not handlers:
            return
        busy, self._busy = self._busy, True
        with_graph = torch.is_grad_enabled()
        torch.set_grad_enabled(False)
        try:
            for observer, handle in handlers:
                try:
                    handle(*values)
                except (StopWatching, Warning):
                    raise
                except ProbeError as error:
                    logger.debug("probe failed: %s", error)
                except Exception as error:
                    if error is self.raised_by_user:
                        raise
                    self._drop(observer, event, error)
        finally:
            torch.set_grad_enabled(with_graph)
            self._busy = busy

    def _drop(self, observer: Observer, event: str, error: Exception) -> None:
        name = getattr(observer, "name", type(observer).__name__)
        words = f"{name} failed in {event} at step {self.step}: {type(error).__name__}: {error}"
        self.failures.append(words[:400])
        logger.debug("%s", words, exc_info=error)
        for table in (self._handlers, self._always):  # new lists: one may be walked just now
            for key, handlers in table.items():
                table[key] = [pair for pair in handlers if pair[0] is not observer]
        self._wanting = [other for other in self._wanting if other is not observer]
        self._row_readers = [other for other in self._row_readers if other is not observer]

    # -- hooks on the model

    @_timed
    def _before_forward(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if torch.compiler.is_compiling() or module is not self._root():
            return
        if not self.attentive and module.training and torch.is_grad_enabled():
            self._call = (args, kwargs, True)
            for reader in self._row_readers:
                if reader.wants_fingerprints:
                    self._read_rows(args, kwargs)
                    break
            return
        self._open_forward(module.training, args, kwargs)

    def _read_rows(self, args: Any, kwargs: Any) -> None:
        inputs = tensors_in((args, kwargs))
        rows = self.fingerprint.rows(inputs[0]) if inputs else None
        if rows is not None:
            for reader in self._row_readers:
                if reader.wants_fingerprints:
                    reader.fingerprints(rows, self.step)

    def _open_forward(self, training: bool, args: Any, kwargs: Any) -> None:
        inputs = tuple(tensors_in((args, kwargs)))
        forward = Forward(
            step=self.step,
            number=self.forwards_seen,
            training=training,
            look=self.looking,
            args=args,
            kwargs=kwargs,
            inputs=inputs,
            in_step=self._depth > 0,
        )
        if inputs:
            first = inputs[0]
            if self._reads_forwards:
                forward.rows = self.fingerprint.rows(first)
            if torch.is_autocast_enabled(first.device.type):
                forward.autocast = torch.get_autocast_dtype(first.device.type)
            self._version = None if first.is_inference() else first._version
        self._open.append(forward)
        if training and "before_forward" in self._handlers and torch.is_grad_enabled():
            root = self._root()
            if root is not None:
                self._tell("before_forward", forward.look, root, forward.size)

    @_timed
    def _after_forward(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if not self._open:
            if self._call is not None and module is self._root():
                self._note_own_loss(output)
            return
        if module is not self._root():
            return
        forward = self._open.pop()
        self._open.clear()
        self.forwards_seen += 1
        first = forward.input
        if first is not None and self._version is not None:
            forward.mutated = first._version != self._version
        out = main_output(output)
        if out is not None:
            forward.output = out.detach()
            forward.grad = out.requires_grad
        forward.loss = self._note_own_loss(output)
        # the step after an evaluation, and one in evaluation mode, are told of
        self.attentive |= not forward.grad or not forward.training
        self._release()
        self.window.append(forward)
        if out is not None and forward.grad and out.grad_fn is not None:
            if forward.look and self._reads_forwards:
                forward.operation = last_operation(out)
                forward.nodes = walk(out)
            token = _Token(forward)
            self.tokens.append((forward.number, weakref.ref(token)))
            out.register_hook(lambda gradient: self._output_gradient(token, gradient))
        self._tell("forward", forward.look, forward)
        forward.nodes = []
        forward.operation = None

    def _note_own_loss(self, output: Any) -> Tensor | None:
        """The loss that the model itself returns, where it does."""
        given = None if isinstance(output, Tensor) else named_loss(output)
        if given is None or given.numel() != 1:
            return None
        self._note_loss(given.detach())
        return given.detach()

    def _release(self) -> None:
        """Let go of the tensors of forwards that no rule needs any more (evaluation, old ones)."""
        for position, old in enumerate(reversed(self.window), start=1):
            if old.args and (not old.grad or position >= KEPT_FORWARDS):
                old.args, old.kwargs, old.inputs, old.output = (), {}, old.inputs[:0], None

    @_timed
    def _output_gradient(self, token: _Token, gradient: Tensor) -> None:
        forward = token.forward()
        if forward is None:
            return
        forward.backwards += 1
        self._tell("output_gradient", forward.look, forward, gradient)

    def form(self, forward: Forward, gradient: Tensor) -> LossForm:
        """The form of the loss behind the gradient of ``forward``'s output, computed once."""
        if forward.form is None:
            if forward.output is None:  # an old forward, of which only counts are kept
                return NO_FORM
            forward.form = self._form = recover_form(forward.output, gradient)
            if forward.form.kind != "other":
                self._recovered_loss(forward, forward.form.loss)
        form: LossForm = forward.form
        return form

    def labels(self, forward: Forward, gradient: Tensor) -> Tensor | None:
        """Labels of the rows of ``forward``'s output, recovered from its gradient.

        Once the form is known to be cross-entropy with a label for each sample, the label is where
        the gradient is lowest. None where the loss has no labels.
        """
        known, out = self._form, forward.output
        if (
            forward.form is None
            and not forward.look
            and self.step >= WHOLE_FORMS
            and known is not None
            and out is not None
            and known.kind == "cross_entropy"
            and out.ndim == 2
            and out.shape == gradient.shape
            and out.shape[1] > 2
            and known.total_weight > 0
            and len(known.labels) == known.rows
        ):
            if forward.labels is None:
                lowest, labels = gradient.detach().min(1)
                if bool((lowest >= 0).any()):  # rows that the loss leaves out
                    return self._labels_of_form(forward, gradient)
                if not self.losses and forward.loss is None:
                    loss = F.cross_entropy(out.float(), labels)
                    self._recovered_loss(forward, float(loss))
                forward.labels = labels.cpu()
            return forward.labels
        return self._labels_of_form(forward, gradient)

    @property
    def form_kind(self) -> str:
        """Kind of the latest loss that was recovered; empty before."""
        return "" if self._form is None else self._form.kind

    def _labels_of_form(self, forward: Forward, gradient: Tensor) -> Tensor | None:
        form = self.form(forward, gradient)
        return form.labels if form.kind in ("cross_entropy", "nll") else None

    def _recovered_loss(self, forward: Forward, value: float) -> None:
        if not self.losses and forward.loss is None:
            self.loss_values.append((self.step, value))

    # -- hooks on the loss

    @_timed
    def _after_loss(self, module: Any, args: Any, kwargs: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        if not self.attentive and not self.window:
            if isinstance(output, Tensor) and output.requires_grad and output.numel() == 1:
                self._note_loss(output)
            return
        values = [*args, *kwargs.values()]
        tensors = [v for v in values if isinstance(v, Tensor)]
        value = output if isinstance(output, Tensor) else None
        call = LossCall(
            step=self.step,
            criterion=module,
            prediction=tensors[0].detach() if tensors else None,
            target=tensors[1].detach() if len(tensors) > 1 else None,
            value=None if value is None else value.detach(),
            grad=value is not None and value.requires_grad,
            prediction_grad=bool(tensors) and tensors[0].requires_grad,
            target_grad=len(tensors) > 1 and tensors[1].requires_grad,
            others=tuple(t.detach() for t in tensors[2:]),
            options={k: v for k, v in kwargs.items() if not isinstance(v, Tensor)},
        )
        if self.window:
            call.forward = self.window[-1]
            if call.forward.target is None and call.grad:
                call.forward.target = call.target
                call.forward.prediction = call.prediction
        if value is not None and call.grad and value.requires_grad:
            if value.numel() == 1:
                self._note_loss(call.value)
                if call.forward is not None:
                    call.forward.loss = call.value
            reference = weakref.ref(call)

            def scale(gradient: Tensor) -> None:
                known = reference()
                if known is not None and gradient.numel() == 1 and not self._busy:
                    known.scale = float(gradient) if self._cheap(gradient) else None

            value.register_hook(scale)
            if call.prediction_grad and call.target_grad and self.looking:
                for position, tensor in enumerate(tensors[:2]):
                    tensor.register_hook(partial(self._arrived, reference, position))
            self.losses.append(call)
            del self.losses[:-MAX_FORWARDS]
        self._tell("loss", self.looking, call)

    def _arrived(self, reference: Any, position: int, gradient: Tensor) -> None:
        call = reference()
        if call is not None and not self._busy:
            call.arrived[position] = gradient.detach()

    def _cheap(self, tensor: Tensor) -> bool:
        """Whether reading ``tensor`` stalls no accelerator, or this is a step to look at."""
        return tensor.device.type == "cpu" or self.looking

    def _note_loss(self, value: Tensor | None) -> None:
        if value is None:
            return
        if not value.is_cpu:
            self._pending.append((self.step, value.detach()))
            return
        number = float(value.item())
        self.loss_values.append((self.step, number))
        if not self.attentive and not math.isfinite(number):
            self.attentive = True
            if self._call is not None:  # the forward that nobody was told of
                args, kwargs, training = self._call
                self._open_forward(training, args, kwargs)
                forward = self._open.pop()
                forward.grad = True
                self.window.append(forward)
                self._tell("forward", False, forward)

    def _settle(self) -> None:
        """Read the losses that an accelerator still holds, with one transfer."""
        if self._pending:
            values = torch.stack([v.float() for _, v in self._pending]).tolist()
            for (step, _), value in zip(self._pending, values, strict=True):
                self.loss_values.append((step, value))
            self._pending.clear()

    def call_loss(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Call ``function`` as a watched criterion."""
        output = function(*args, **kwargs)
        self._after_loss(function, args, kwargs, output)
        return output

    # -- hooks on the sentinel

    def _hook_sentinel(self, sentinel: Sentinel) -> None:
        parameter = sentinel.parameter()
        if parameter is None or not parameter.requires_grad or not parameter.is_leaf:
            return

        def fresh(gradient: Tensor) -> None:
            if not self._busy:
                sentinel.added_to = sentinel.is_uncleared()
                if sentinel.wants_fresh:
                    sentinel.fresh = gradient.detach().clone()

        def accumulated(_: Tensor) -> None:
            if not self._busy:
                sentinel.total += 1
                sentinel.since_step += 1
                sentinel.uncleared += sentinel.added_to
                self.backwards_seen += 1
                sentinel.remember()

        sentinel.hooks.add(parameter.register_hook, fresh)
        sentinel.hooks.add(parameter.register_post_accumulate_grad_hook, accumulated)

    def _move_sentinel(self, index: int, optimizer: Optimizer) -> None:
        """Watch a parameter that gets gradients, where the first choice gets none."""
        holders = [
            p
            for group in optimizer.param_groups
            for p in group["params"]
            if p.grad is not None and not p.grad.is_sparse and p.requires_grad and p.is_leaf
        ]
        if holders:
            self._sentinels[index].hooks.remove()
            self._sentinels[index] = Sentinel(min(holders, key=lambda p: p.numel()))
            self._hook_sentinel(self._sentinels[index])
            self._sentinels[index].since_step = 1

    # -- hooks on the optimizers

    def _any_step(self, optimizer: Optimizer, *_: Any) -> None:
        key = id(optimizer)
        if self._busy or key in self._own:
            return
        seen = self.other_optimizers.get(key)
        if seen is not None and seen[0]() is optimizer:
            return
        self.attentive = True
        ids = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self.other_optimizers[key] = (weakref.ref(optimizer), ids)
        self.strangers += bool(ids & self.names.keys())

    @_timed
    def _before_step(self, index: int, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if torch.compiler.is_compiling():
            return
        if index in self._views:  # the step before ended in an exception
            self._views.clear()
            self._depth = 0
        self._depth += 1
        if self._depth > 1 or self._inner() is None:
            return
        sentinel = self._sentinels[index]
        parameter = sentinel.parameter()
        rates = _rates(optimizer)
        if rates != self._rates[index]:
            self._rates[index] = rates
            self._tell("rates_changed", False, index, self.steps[index], rates)
        if not self.attentive and not sentinel.touched():
            return
        if sentinel.total == 0 and self.steps[index] < 3:
            self._move_sentinel(index, optimizer)
            sentinel = self._sentinels[index]
            parameter = sentinel.parameter()
        number = self.steps[index]
        closure = any(callable(a) for a in (*args[1:], *kwargs.values()))
        look, tick = self.looks.due(number), self.looks.tick(number)
        fresh = sentinel.fresh
        view = WatchedStep(
            step=self.step,
            number=number,
            index=index,
            optimizer=optimizer,
            model=self.model,
            names=self.names,
            tick=tick,
            look=look,
            closure=closure,
            forwards=list(self.window),
            losses=self.losses,
            accumulations=sentinel.since_step,
            uncleared=sentinel.uncleared,
            rates=rates,
            sentinel=parameter,
            left=None if sentinel.values is None else sentinel.values.clone(),
            fresh_norm=None if fresh is None or not look else float(fresh.norm()),
        )
        sentinel.fresh = None
        if look or tick:
            self._settle()
            asking = [o for o in self._wanting if o.wants_before(number)]
            start = time.perf_counter()
            deep = look and self.looks.deep(number)
            if asking or (deep and any(o.compares_weights for o in self.observers)):
                view.before = {id(p): p.detach().clone() for p in view.parameters}
            for observer in asking:
                seconds = (time.perf_counter() - start) / len(asking)
                self.budget.charge(getattr(observer, "name", ""), seconds)
        self._views[index] = view
        self._tell("before_step", look, view)

    def _after_step(self, index: int, optimizer: Optimizer) -> None:
        """Close the step, and plan the next look from what this one cost."""
        if self._busy:
            return
        step = self.step
        view = self._views.get(index)
        self._close_step(index, optimizer)
        if self.step > step:
            if view is not None and view.look:
                self.looks.looked(view.number, self.budget.looked(self._mark))
            self._mark = self.budget.mark()
            self.attentive = False
            for sentinel, number in zip(self._sentinels, self.steps, strict=True):
                sentinel.wants_fresh = self.looks.due(number)
                tick = number < FORM_STEPS or self.looks.tick(number)
                self.attentive |= tick or sentinel.wants_fresh

    @_timed
    def _close_step(self, index: int, optimizer: Optimizer) -> None:
        if torch.compiler.is_compiling():
            return
        self._depth = max(0, self._depth - 1)
        if self._depth:
            return
        view = self._views.pop(index, None)
        sentinel = self._sentinels[index]
        if view is not None:
            view.rates_after = _rates(optimizer)
            if view.closure:
                view.forwards = list(self.window)
            view.accumulations, view.uncleared = sentinel.since_step, sentinel.uncleared
            self._tell("after_step", view.look, view)
            view.before = {}
        self.steps[index] += 1
        advanced = max(self.steps) > self.step
        self.step = max(self.steps)
        sentinel.since_step = sentinel.uncleared = 0
        sentinel.remember()
        sentinel.left(self.steps[index])
        if advanced:
            self.window.clear()
            self.losses = []
            self._call = None

    # -- the end

    def close(self) -> None:
        """Tell the observers, remove every hook, let go of the run; a second call does nothing."""
        if not len(self._hooks):
            return
        self._settle()
        if self._inner() is not None:
            self._tell("finish", True)
        self._hooks.remove()
        for sentinel in self._sentinels:
            sentinel.hooks.remove()
            sentinel.state = sentinel.fresh = sentinel.values = None
        self.window.clear()
        self.losses = []
        self._views.clear()
        self._handlers.clear()
        self._always.clear()
        self._wanting.clear()
        self._row_readers.clear()
        self._call = None
        self.observers.clear()
        self.tokens.clear()
        self.other_optimizers.clear()


class StopWatching(Exception):
    """Raised by an observer that wants the run to stop (``on_finding="raise"``)."""


def _rates(optimizer: Optimizer) -> tuple[float, ...]:
    return tuple(float(group.get("lr", float("nan"))) for group in optimizer.param_groups)
