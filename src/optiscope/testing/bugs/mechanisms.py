"""Kinds of fault by mechanism: what a step consists of, and what each part may get wrong unseen.

Most let the loss fall. They were written before any rule named them; `docs/doctor-score.md` says
how many were named then.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from optiscope.testing.bugs.kind import registry
from optiscope.testing.bugs.public import again, some_dropout, with_last
from optiscope.testing.bugs.script import Gpt, Script

__all__ = ["MECHANISMS"]

MECHANISMS, kind = registry()
"""Kinds by name."""


# -- data and pairing


def _standardized(script: Script, *, by_batch: bool) -> None:
    x = script.train[0]
    mean, deviation = x.mean(), x.std()
    batch = script.batch

    def made(places: Tensor) -> tuple[Tensor, Tensor]:
        x, y = batch(places)
        if by_batch:
            return (x - x.mean()) / x.std(), y
        return (x - mean) / deviation, y

    script.replace(batch=made)


def standardized_by_the_set(script: Script) -> None:
    _standardized(script, by_batch=False)


@kind(r"batch'?s? own|by (its|their|the) batch", "mlp", "cnn", mend=standardized_by_the_set)
def standardized_by_the_batch(script: Script) -> None:
    _standardized(script, by_batch=True)


@kind(r"label|pair", "mlp", "cnn")
def labels_rolled_by_one(script: Script) -> None:
    batch = script.batch

    def rolled(places: Tensor) -> tuple[Tensor, Tensor]:
        x, y = batch(places)
        return x, y.roll(1)

    script.replace(batch=rolled)


def _dollars(script: Script, scaled: bool) -> None:
    for name in ("train", "valid"):
        x, y = getattr(script, name)
        y = 200_000 + 50_000 * y
        setattr(script, name, (x, (y - 200_000) / 50_000 if scaled else y))


def targets_scaled(script: Script) -> None:
    _dollars(script, scaled=True)


@kind(r"target.{0,40}(scale|normali|standardi)", "regression", mend=targets_scaled)
def targets_in_dollars(script: Script) -> None:
    _dollars(script, scaled=False)


# -- forward


class PlacedGpt(Gpt):
    """A transformer whose positions are added along the first axis."""

    def __init__(self) -> None:
        super().__init__(length=200)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [B, vocabulary, T]."""
        x = self.embed(tokens) + self.position[: len(tokens), None]
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x)).transpose(1, 2)
        return logits


@kind(r"place.{0,20}batch", "gpt")
def positions_along_the_batch(script: Script) -> None:
    script.model = PlacedGpt()
    again(script)


@kind(r"dropout.{0,30}output|output.{0,30}dropout", "mlp", "regression", mend=some_dropout)
def dropout_of_the_output(script: Script) -> None:
    with_last(script, nn.Dropout(0.3))


class DropMade(nn.Module):
    """A perceptron that makes its dropout layer in every call."""

    def __init__(self, body: nn.Sequential, made: bool) -> None:
        super().__init__()
        self.body, self.head, self.made = body[:-1], body[-1], made

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        h = nn.Dropout(0.3)(h) if self.made else functional.dropout(h, 0.3, self.training)
        out: Tensor = self.head(h)
        return out


def dropout_by_mode(script: Script) -> None:
    assert isinstance(script.model, nn.Sequential)
    script.model = DropMade(script.model, made=False)


@kind(r"dropout", "mlp", mend=dropout_by_mode)
def dropout_made_in_forward(script: Script) -> None:
    assert isinstance(script.model, nn.Sequential)
    script.model = DropMade(script.model, made=True)


class Timed(nn.Module):
    """A denoiser that gets images and times as two arguments."""

    def __init__(self, used: bool) -> None:
        super().__init__()
        self.time, self.first = nn.Linear(1, 96), nn.Linear(64, 96)
        self.last, self.used = nn.Linear(96, 64), used

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.first(x)
        if self.used:
            h = h + self.time(time)
        out: Tensor = self.last(functional.silu(h))
        return out


def _timed(script: Script, used: bool) -> None:
    model = Timed(used)
    if not used:
        del model.time
    script.model = model
    again(script)
    script.replace(forward=lambda x: script.model(x[:, :64], x[:, 64:]))


def time_used(script: Script) -> None:
    _timed(script, used=True)


@kind(r"argument.{0,40}(ignored|no influence|not depend)", "diffusion", mend=time_used)
def time_ignored(script: Script) -> None:
    _timed(script, used=False)


def _deeper(script: Script, repeated: bool) -> None:
    layers = [nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(3)]
    script.model = nn.Sequential(
        nn.Flatten(), *([layers[0]] * 3 if repeated else layers), nn.Linear(64, 10)
    )
    again(script)


def blocks_made_one_by_one(script: Script) -> None:
    _deeper(script, repeated=False)


@kind(r"same (module|layer|object)|module_repeated", "mlp", mend=blocks_made_one_by_one)
def blocks_multiplied(script: Script) -> None:
    _deeper(script, repeated=True)


# -- loss


def _divergence(script: Script, *, log: bool) -> None:
    divergence = nn.KLDivLoss(reduction="batchmean")
    with_last(script, nn.LogSoftmax(1) if log else nn.Softmax(1))
    script.criterion = divergence
    for name in ("train", "valid"):
        x, y = getattr(script, name)
        soft = 0.9 * functional.one_hot(y, 10).float() + 0.01
        setattr(script, name, (x, soft))


def divergence_of_logarithms(script: Script) -> None:
    _divergence(script, log=True)


@kind(r"(kl|kullback|divergence).{0,60}log", "mlp", mend=divergence_of_logarithms)
def divergence_of_probabilities(script: Script) -> None:
    _divergence(script, log=False)


# -- backward


@kind(r"divided.{0,40}(twice|batch|again)", "mlp", "gpt")
def loss_divided_twice(script: Script) -> None:
    script.replace(backward=lambda loss: (loss / 32).backward())


def _gradients_divided(script: Script, by: float) -> None:
    for p in script.model.parameters():
        if p.grad is not None:
            p.grad.div_(by)


def scaled_and_unscaled(script: Script) -> None:
    script.replace(
        backward=lambda loss: (32 * loss).backward(),
        before_step=lambda: _gradients_divided(script, 32.0),
    )


@kind(r"divided.{0,40}(twice|batch|again)", "mlp", mend=scaled_and_unscaled)
def gradients_divided_by_hand(script: Script) -> None:
    script.replace(before_step=lambda: _gradients_divided(script, 32.0))


# -- update and state


def _averaging(script: Script, *, wrong: bool) -> None:
    kept = copy.deepcopy(script.model)

    def average() -> None:
        with torch.no_grad():
            for a, p in zip(kept.parameters(), script.model.parameters(), strict=True):
                if wrong:
                    p.lerp_(a, 0.99)
                    a.copy_(p)
                else:
                    a.lerp_(p, 0.01)

    script.replace(after_step=average)


def average_follows_weights(script: Script) -> None:
    _averaging(script, wrong=False)


@kind(r"und(one|oes)|taken back|moved back", "mlp", "adam", mend=average_follows_weights)
def weights_follow_average(script: Script) -> None:
    _averaging(script, wrong=True)


def _tuned(script: Script, frozen_mode: bool) -> None:
    optimizer = torch.optim.SGD(script.model.parameters(), 0.05, momentum=0.9)
    x, y = script.train
    for _ in range(40):
        places = torch.randint(len(x), (32,), generator=script.generator)
        optimizer.zero_grad()
        script.criterion(script.model(x[places]), y[places]).backward()
        optimizer.step()
    parts = list(script.model.children())
    body, head = nn.Sequential(*parts[:-1]), nn.Linear(256, 10)
    body.requires_grad_(False)
    script.model = nn.Sequential(body, head)
    script.optimizer = torch.optim.SGD(head.parameters(), 0.02, momentum=0.9)
    mode = script.train_mode

    def train_mode() -> None:
        mode()
        script.model.train()
        if frozen_mode:
            for module in body.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

    script.replace(train_mode=train_mode)


def frozen_body_in_evaluation_mode(script: Script) -> None:
    _tuned(script, frozen_mode=True)


@kind(r"frozen.{0,40}(batch norm|statistics)", "cnn", mend=frozen_body_in_evaluation_mode)
def frozen_body_with_moving_statistics(script: Script) -> None:
    _tuned(script, frozen_mode=False)


def _best(script: Script, *, copied: bool) -> None:
    best: list[Any] = [float("inf"), None]

    def keep(epoch: int) -> None:
        if script.scores[-1] < best[0]:
            state = script.model.state_dict()
            best[:] = [script.scores[-1], copy.deepcopy(state) if copied else state]
        if script.done >= script.steps:
            script.model.load_state_dict(best[1])
            script.eval_mode()
            script.evaluate()

    script.replace(epoch_end=keep)


def best_weights_copied(script: Script) -> None:
    _best(script, copied=True)


@kind(r"not a copy|copied|state_dict", "mlp", "adam", mend=best_weights_copied)
def best_weights_by_reference(script: Script) -> None:
    _best(script, copied=False)


# -- schedule


def _by_lambda(script: Script, factor: float) -> None:
    script.scheduler = torch.optim.lr_scheduler.LambdaLR(
        script.optimizer, lambda epoch: factor * 0.97**epoch
    )


def lambda_of_factors(script: Script) -> None:
    _by_lambda(script, 1.0)


@kind(r"factor", "adam", "lstm", mend=lambda_of_factors)
def lambda_of_rates(script: Script) -> None:
    _by_lambda(script, float(script.optimizer.param_groups[0]["lr"]))


def rate_set_in_groups(script: Script) -> None:
    def lower(epoch: int) -> None:
        for group in script.optimizer.param_groups:
            group["lr"] *= 0.8

    script.replace(epoch_end=lower)


@kind(r"no effect|without_effect", "mlp", "adam", mend=rate_set_in_groups)
def rate_set_as_attribute(script: Script) -> None:
    optimizer: Any = script.optimizer
    rate = float(optimizer.param_groups[0]["lr"])

    def lower(epoch: int) -> None:
        optimizer.lr = rate * 0.8 ** (epoch + 1)

    script.replace(epoch_end=lower)


def cosine_over_the_run(script: Script) -> None:
    script.scheduler_per = "batch"
    script.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(script.optimizer, script.steps)


@kind(r"wrong_unit|unit|cosine", "mlp", mend=cosine_over_the_run)
def cosine_counted_in_epochs(script: Script) -> None:
    script.scheduler_per = "batch"
    script.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(script.optimizer, 5)


def one_cycle_per_batch(script: Script) -> None:
    script.scheduler_per = "batch"
    script.scheduler = torch.optim.lr_scheduler.OneCycleLR(
        script.optimizer, 0.1, total_steps=script.steps
    )


@kind(r"wrong_unit|unit|warm", "mlp", mend=one_cycle_per_batch)
def one_cycle_per_epoch(script: Script) -> None:
    script.scheduler = torch.optim.lr_scheduler.OneCycleLR(
        script.optimizer, 0.1, total_steps=script.steps
    )
