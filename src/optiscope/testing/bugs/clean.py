"""Sound runs of random settings: whatever a tool says of them is a false alarm."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from optiscope.testing.bugs.loops import sound_loops
from optiscope.testing.bugs.public import (
    cleared_after_step,
    clipped,
    cosine_per_batch,
    warm_up,
)
from optiscope.testing.bugs.script import BASES, Attach, Script

__all__ = ["clean_scripts"]

Change = Callable[[Script], None]


class Sound(Protocol):
    """What can be run under a tool."""

    def run(self, attach: Attach) -> list[Any]:
        """Train, and return what the tool found."""


def clean_scripts(count: int = 200, seed: int = 1) -> Iterator[tuple[str, Callable[[], Sound]]]:
    """``count`` sound runs, each with its name.

    By turns a script of the suite (base, optimizer, up to three usual habits) and a loop of
    `loops`, whose tasks, networks and losses the suite does not have.
    """
    numbers = random.Random(seed)
    others = sound_loops(count, seed)
    for number in range(count):
        loop = next(others)
        if number % 2:
            yield f"{number} {loop.name}", _always(loop)
            continue
        base = numbers.choice(list(BASES))
        own = base in ("gan", "lark")
        optimizer = "own" if own else numbers.choice(list(OPTIMIZERS))
        possible = [] if own else [n for n, (bases, _) in HABITS.items() if base in bases]
        if optimizer in ("lark",):
            possible = [n for n in possible if n in SAFE]
        habits = numbers.sample(possible, min(numbers.randint(0, 3), len(possible)))
        schedules = [h for h in habits if h in SCHEDULES]
        habits = [h for h in habits if h not in schedules[1:]]
        if "accumulation" in habits:
            habits = [h for h in habits if h not in ("mixup", "bfloat16 autocast")]
        name = " + ".join([f"{number} {base}", optimizer, *habits])

        def make(
            base: str = base,
            optimizer: str = optimizer,
            habits: list[str] = habits,
            at: int = number,
        ) -> Script:
            script = BASES[base](1000 * seed + at)
            if optimizer in OPTIMIZERS:
                OPTIMIZERS[optimizer](script)
            for habit in habits:
                HABITS[habit][1](script)
            return script

        yield name, make


def _always(loop: Sound) -> Callable[[], Sound]:
    return lambda: loop


def _sgd(script: Script) -> None:
    script.optimizer = torch.optim.SGD(script.model.parameters(), 0.05, momentum=0.9, nesterov=True)


def _rebuild(make: Callable[[Script], torch.optim.Optimizer]) -> Change:
    def change(script: Script) -> None:
        script.optimizer = make(script)

    return change


def _lark(script: Script) -> None:
    from optiscope.optim import Lark

    script.optimizer = Lark(script.model.parameters(), total_steps=script.steps)


def _nadam(script: Script) -> None:
    script.optimizer = torch.optim.NAdam(script.model.parameters(), 2e-3)


OPTIMIZERS: dict[str, Change] = {
    "as is": lambda script: None,
    "adam": _rebuild(lambda s: torch.optim.Adam(s.model.parameters(), 2e-3)),
    "adam, fused": _rebuild(lambda s: torch.optim.Adam(s.model.parameters(), 2e-3, fused=True)),
    "adamw, foreach": _rebuild(
        lambda s: torch.optim.AdamW(s.model.parameters(), 3e-3, foreach=True)
    ),
    "sgd, nesterov": _sgd,
    "rmsprop": _rebuild(lambda s: torch.optim.RMSprop(s.model.parameters(), 1e-3)),
    "adagrad": _rebuild(lambda s: torch.optim.Adagrad(s.model.parameters(), 2e-2)),
    "nadam": _nadam,
    "lark": _lark,
}


def _accumulation(script: Script) -> None:
    script.accumulate, script.batch_size, script.steps = 2, 16, 120


def _set_to_zero(script: Script) -> None:
    script.replace(zero=lambda: script.optimizer.zero_grad(set_to_none=False))


def _smoothing(script: Script) -> None:
    script.criterion = nn.CrossEntropyLoss(label_smoothing=0.1)


def _mixup(script: Script) -> None:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        share = float(torch.rand((), generator=script.generator)) * 0.4
        other = torch.randperm(len(x), generator=script.generator)
        out = script.forward((1 - share) * x + share * x[other])
        value: Tensor = (1 - share) * script.criterion(out, y) + share * script.criterion(
            out, y[other]
        )
        return value

    script.replace(loss=loss)


def _autocast(script: Script) -> None:
    def forward(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out: Tensor = script.model(x)
        return out.float()

    script.replace(forward=forward)


def _average(script: Script) -> None:
    kept = copy.deepcopy(script.model)
    before = script.after_step

    def update() -> None:
        before()
        with torch.no_grad():
            for a, p in zip(kept.parameters(), script.model.parameters(), strict=True):
                a.lerp_(p, 0.05)

    script.replace(after_step=update)


def _noise(script: Script) -> None:
    batch = script.batch

    def noisy(places: Tensor) -> tuple[Tensor, Tensor]:
        x, y = batch(places)
        return x + 0.05 * torch.randn(x.shape, generator=script.generator), y

    script.replace(batch=noisy)


def _function_loss(script: Script) -> None:
    script.criterion = functional.cross_entropy


def _penalty(script: Script) -> None:
    loss = script.loss

    def penalized(x: Tensor, y: Tensor) -> Tensor:
        return loss(x, y) + 1e-4 * sum(p.square().sum() for p in script.model.parameters())

    script.replace(loss=penalized)


def _two_groups(script: Script) -> None:
    parameters = list(script.model.parameters())
    flat = [p for p in parameters if p.ndim < 2]
    matrices = [p for p in parameters if p.ndim >= 2]
    script.optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": flat, "weight_decay": 0.0}], 2e-3
    )


def _step_decay(script: Script) -> None:
    script.scheduler = torch.optim.lr_scheduler.StepLR(script.optimizer, 3, 0.5)


def _twice_as_large(script: Script) -> None:
    script.batch_size, script.steps = 64, 120


_CLASSES = ("mlp", "adam", "cnn", "lstm")
_ALL = (*_CLASSES, "gpt", "diffusion", "regression", "segmentation")
HABITS: dict[str, tuple[tuple[str, ...], Change]] = {
    "accumulation": (_ALL, _accumulation),
    "clearing after the step": (_ALL, cleared_after_step),
    "gradients set to zero": (_ALL, _set_to_zero),
    "label smoothing": ((*_CLASSES, "gpt", "segmentation"), _smoothing),
    "mixup": (_CLASSES, _mixup),
    "bfloat16 autocast": (("mlp", "adam", "cnn"), _autocast),
    "average of weights": (_ALL, _average),
    "noise on inputs": ((*_CLASSES, "regression", "segmentation"), _noise),
    "clipping": (_ALL, clipped),
    "cosine": (_ALL, cosine_per_batch),
    "warm-up": (_ALL, warm_up),
    "step decay": (_ALL, _step_decay),
    "function as loss": (_CLASSES, _function_loss),
    "penalty in the loss": (_ALL, _penalty),
    "larger batches": (_ALL, _twice_as_large),
}
SCHEDULES = ("cosine", "warm-up", "step decay")
SAFE = ("clearing after the step", "gradients set to zero", "label smoothing", "noise on inputs")
