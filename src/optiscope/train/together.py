"""Many trials of one problem in one batch: their gradients in one computation, for GPUs.

Each member keeps its own weights, optimizer, schedule, generators, instruments and measurements, as
if it trained alone; ``torch.func`` evaluates the losses and gradients of all of them at once, of
weights [K, ...] stacked for K members. Sums run in another order than alone, so members agree with
single runs up to rounding, and a trial says that it trains so (``together``). One that diverges
leaves, and the others never see its numbers. On a CPU this is slower than one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad_and_value, vmap
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from optiscope.data.samples import Batch
from optiscope.objective.functional import functional_call
from optiscope.problems.problem import Problem, regularization
from optiscope.records import Run, Status, Trial
from optiscope.records.trial import ALIKE
from optiscope.train.device import backend
from optiscope.train.environment import environment
from optiscope.train.gradient import BatchGradient, together_faults
from optiscope.train.isolation import isolated
from optiscope.train.loop import (
    OptimizerFactory,
    Training,
    TrialError,
    check_device,
    load_splits,
)
from optiscope.train.weights import WeightKeeper

__all__ = ["run_together"]

DROPOUTS = (
    functional.dropout,
    functional.dropout1d,
    functional.dropout2d,
    functional.dropout3d,
)


def run_together(
    trials: Sequence[Trial],
    problem: Problem,
    factories: Sequence[OptimizerFactory],
    *,
    data_dir: Path | None = None,
    weights: Sequence[WeightKeeper | None] | None = None,
) -> Iterator[Run]:
    """Runs of trials that are alike but for optimizer, hyperparameters, schedule and seed.

    Args:
        trials: of one problem, each with ``together``.
        problem: the problem that they name.
        factories: make their optimizers.
        data_dir: where the data sets are.
        weights: keep the model's state at chosen epochs, one for each trial or None.

    Raises:
        TrialError: they are not alike, an optimizer is none of ``TOGETHER`` (of
            ``optiscope.train.gradient``), or the model does what cannot be batched.
        MissingData: the data set is not at hand.
        KeyboardInterrupt: Ctrl-C ends them all; a batch has no checkpoint and starts over.
    """
    _check_alike(trials)
    device = torch.device(trials[0].device)
    check_device(device)
    splits = load_splits(problem.data, data_dir, device)
    with isolated(trials[0].threads, device):
        members = []
        keepers = [None] * len(trials) if weights is None else weights
        for trial, factory, keeper in zip(trials, factories, keepers, strict=True):
            training = Training(trial, problem, factory, splits, device)
            training.weights = keeper
            members.append(_Member(training, _noise_state(device)))
        _Together(problem, members, device).train()
        where = environment(device, splits.other_files) | {"together": len(members)}
        runs = [member.training.record(where, *member.outcome) for member in members]
    yield from runs


def _check_alike(trials: Sequence[Trial]) -> None:
    first = trials[0]
    for trial in trials:
        odd = [name for name in ALIKE if getattr(trial, name) != getattr(first, name)]
        if odd:
            raise TrialError(
                f"expected trials alike in {', '.join(ALIKE)}, got another {odd[0]}: "
                "train it in a batch of its own"
            )
        for _, message in together_faults(trial.recipe, trial.optimizer):
            raise TrialError(message)


class _Share(BatchGradient):
    """A member's part of the gradient of all, which the batch has computed before its step."""

    parameters: Sequence[Tensor]
    loss: Tensor
    gradients: Sequence[Tensor]

    def evaluate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss and objective; the gradient of the penalty is the member's own."""
        for p, gradient in zip(self.parameters, self.gradients, strict=True):
            p.grad = gradient
        penalty = regularization(self.groups)
        if penalty is None:
            return self.loss, self.loss
        penalty.backward()
        return self.loss, self.loss + penalty.detach()

    @classmethod
    def of(cls, training: Training) -> _Share:
        """In place of what a training evaluates alone."""
        recipe, create_graph = training.trial.recipe, False
        share = cls(
            training.problem, training.model, training.groups, recipe, training.device,
            create_graph=create_graph,
        )  # fmt: skip
        share.parameters = [p for p in training.model.parameters() if p.requires_grad]
        training.stepping.gradient = share
        return share


class _Member:
    """One trial of the batch, and what became of it."""

    def __init__(self, training: Training, noise: Tensor) -> None:
        self.training, self.noise = training, noise
        self.share = _Share.of(training)
        self.ended: tuple[Status, str] | None = None

    @property
    def outcome(self) -> tuple[Status, str]:
        """How it ended."""
        return self.ended or self.training.horizon_reached()

    def attempt(self, act: Callable[[], object]) -> None:
        """Do something of its own; an error, or an instrument, ends this member alone."""
        if self.ended is None:
            self.ended = self.training.attempt(act)
        if self.ended is not None and self.ended[0] is Status.INTERRUPTED:
            raise KeyboardInterrupt


class _LossOf(nn.Module):
    """The mean loss of a batch as a module's output, so that its weights can be handed over."""

    def __init__(self, problem: Problem, model: nn.Module) -> None:
        super().__init__()
        self.problem, self.model = problem, model

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return self.problem.losses(self.model, Batch(inputs, targets)).mean()


class _Together:
    """Takes the members' steps side by side."""

    def __init__(self, problem: Problem, members: list[_Member], device: torch.device) -> None:
        self.problem, self.members, self.device = problem, members, device

    @property
    def alive(self) -> list[_Member]:
        """Members that have not ended."""
        return [member for member in self.members if member.ended is None]

    def train(self) -> None:
        """Train all members to their ends."""
        for member in self.members:
            member.attempt(member.training.begin)
        for _ in range(self.members[0].training.trial.epochs):
            streams = {id(m): m.training.epoch_batches() for m in self.alive}
            for _ in range(self.members[0].training.steps_per_epoch):
                pairs = [(member, next(streams[id(member)])) for member in self.alive]
                if not pairs:
                    break
                self._evaluate(pairs)
                for member, batch in pairs:
                    member.attempt(partial(member.training.take, batch))
            for member in self.alive:
                member.attempt(member.training.close_epoch)
        for member in self.members:
            member.training.instruments.close()

    def _evaluate(self, pairs: Sequence[tuple[_Member, Batch]]) -> None:
        """Give each member its batch's loss and gradient, computed with all the others'."""
        models = [member.training.model for member, _ in pairs]
        module = _LossOf(self.problem, models[0])
        trained = [_named(model.named_parameters(), trained=True) for model in models]
        fixed = [
            _named(model.named_parameters(), trained=False) | _named(model.named_buffers())
            for model in models
        ]
        weights, others = _stacked(trained), _stacked(fixed)

        def loss(
            own: dict[str, Tensor], rest: dict[str, Tensor], inputs: Tensor, targets: Tensor
        ) -> Tensor:
            value: Tensor = functional_call(module, {**own, **rest}, (inputs, targets))
            return value

        try:
            inputs = torch.stack([batch.inputs for _, batch in pairs])
            targets = torch.stack([batch.targets for _, batch in pairs])
            with _OwnNoise([member for member, _ in pairs], self.device):
                gradients, losses = vmap(grad_and_value(loss), randomness="error")(
                    weights, others, inputs, targets
                )
        except Exception as error:
            words = " ".join(str(error).split())[:200]
            raise TrialError(
                f"{self.problem.name} cannot train in a batch of trials ({words}): leave "
                "`together` out of its trials"
            ) from error
        for place, (member, _) in enumerate(pairs):
            member.share.loss = losses[place].detach()
            member.share.gradients = [value[place] for value in gradients.values()]
            for name, buffer in fixed[place].items():
                buffer.copy_(others[name][place])  # running statistics, which the model counts


def _named(tensors: Iterator[tuple[str, Tensor]], trained: bool | None = None) -> dict[str, Tensor]:
    """Tensors as :class:`_LossOf` names them: those that are trained, that are not, or all."""
    return {
        f"model.{name}": value
        for name, value in tensors
        if trained is None or value.requires_grad is trained
    }


def _stacked(members: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Each tensor of all members, [K, ...]."""
    names = members[0]
    return {name: torch.stack([one[name].detach() for one in members]) for name in names}


class _OwnNoise(TorchFunctionMode):
    """Has dropout draw each member's mask from the member's own generator, as it does alone."""

    def __init__(self, members: Sequence[_Member], device: torch.device) -> None:
        super().__init__()
        self.members, self.device = members, device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(zip(("input", "p", "training", "inplace"), args, strict=False))
        named |= kwargs or {}
        if func in DROPOUTS and named.get("training", True) and named.get("p", 0.5) > 0:
            values: Tensor = named["input"]
            draw = partial(self._draw, func, named.get("p", 0.5))
            return values * _noise_of(values.detach(), draw)
        return func(*args, **(kwargs or {}))

    def _draw(self, dropout: Any, rate: float, place: int, like: Tensor) -> Tensor:
        """The factors by which dropout would multiply a member's values."""
        member = self.members[place]
        _set_noise_state(member.noise, self.device)
        noise: Tensor = dropout(torch.ones_like(like), rate, True)
        member.noise = _noise_state(self.device)
        return noise


def _noise_of(like: Tensor, draw: Callable[[int, Tensor], Tensor]) -> Tensor:
    apply: Callable[..., Tensor] = _Noise.apply
    return apply(like, draw)


class _Noise(torch.autograd.Function):
    """Factors [K, ...], drawn below ``vmap``: one member after the other."""

    generate_vmap_rule = False

    @staticmethod
    def forward(like: Tensor, draw: Callable[[int, Tensor], Tensor]) -> Tensor:
        return draw(0, like)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        return None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, like: Tensor, draw: Callable[[int, Tensor], Tensor]
    ) -> tuple[Tensor, int]:
        place = in_dims[0]
        each = [like] * info.batch_size if place is None else list(like.unbind(place))
        return torch.stack([draw(k, value) for k, value in enumerate(each)]), 0


def _noise_state(device: torch.device) -> Tensor:
    state: Tensor = (
        torch.get_rng_state() if device.type == "cpu" else backend(device).get_rng_state()
    )
    return state


def _set_noise_state(state: Tensor, device: torch.device) -> None:
    if device.type == "cpu":
        torch.set_rng_state(state)
    else:
        backend(device).set_rng_state(state)
