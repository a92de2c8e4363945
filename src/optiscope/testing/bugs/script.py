"""A training script as people write it, each of whose lines can be replaced.

A `Script` holds a model, an optimizer, a criterion and data, and runs the usual loop. A fault is a
function that changes a script: a part of it, or one of its lines (a method).

Index legend: B samples in a batch, C classes, T tokens.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["BASES", "Attach", "Script", "base_named"]

Attach = Callable[..., Any]
STEPS = 160  # of a run: enough for rules that need a few epochs, about a second


class Script:
    """One training script. Attributes and methods may be replaced before ``run``."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        criterion: Callable[..., Any],
        train: tuple[Tensor, Tensor],
        valid: tuple[Tensor, Tensor],
        *,
        batch_size: int = 32,
        seed: int = 0,
        steps: int = STEPS,
    ) -> None:
        self.model, self.optimizer, self.criterion = model, optimizer, criterion
        self.train, self.valid = train, valid
        self.scheduler: Any = None
        self.scheduler_per = "epoch"
        self.batch_size, self.steps, self.seed = batch_size, steps, seed
        self.accumulate, self.epochs = 1, 100
        self.generator = torch.Generator().manual_seed(seed + 1000)
        self.losses: list[float] = []
        self.scores: list[float] = []
        self.done = 0
        self.extra: list[tuple[nn.Module, torch.optim.Optimizer, Any]] = []

    def run(self, attach: Attach) -> list[Any]:
        """Train, and return what the tool found, over all pairs it was attached to."""
        watches = [attach(self.model, self.optimizer, self.criterion, scheduler=self.scheduler)]
        watches += [attach(m, o, c, scheduler=None) for m, o, c in self.extra]
        try:
            self.loop()
        finally:
            for watch in watches:
                getattr(watch, "close", lambda: None)()
        return [finding for watch in watches for finding in watch.findings]

    def replace(self, **lines: Any) -> None:
        """Replace lines of the script: methods, by name."""
        for name, line in lines.items():
            if not hasattr(self, name):
                raise AttributeError(f"a script has no line {name!r}")
            setattr(self, name, line)

    def loop(self) -> None:
        """Epochs of training and evaluation."""
        for epoch in range(self.epochs):
            self.train_mode()
            for number, places in enumerate(self.order(epoch)):
                self.iteration(number, places)
                if self.done >= self.steps:
                    break
            if self.scheduler is not None and self.scheduler_per == "epoch":
                self.scheduler.step()
            self.eval_mode()
            self.evaluate()
            self.epoch_end(epoch)
            if self.done >= self.steps or not math.isfinite(self.losses[-1]):
                break

    def order(self, epoch: int) -> Iterator[Tensor]:
        """Places of each batch of an epoch."""
        shuffled = torch.randperm(len(self.train[0]), generator=self.generator)
        for places in shuffled.split(self.batch_size):
            if len(places) == self.batch_size:
                yield places

    def batch(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a batch."""
        return self.train[0][places], self.train[1][places]

    def iteration(self, number: int, places: Tensor) -> None:
        """One batch: clear, forward, backward and, every ``accumulate`` batches, a step."""
        x, y = self.batch(places)
        if number % self.accumulate == 0:
            self.zero()
        loss = self.loss(x, y)
        self.backward(loss / self.accumulate if self.accumulate > 1 else loss)
        self.log(loss)
        if (number + 1) % self.accumulate == 0:
            self.before_step()
            self.step()
            self.after_step()
            self.done += 1
            if self.scheduler is not None and self.scheduler_per == "batch":
                self.scheduler.step()

    def zero(self) -> None:
        """Clear gradients."""
        self.optimizer.zero_grad()

    def forward(self, x: Tensor) -> Any:
        """Output of the model."""
        return self.model(x)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Loss of a batch."""
        value: Tensor = self.criterion(self.forward(x), y)
        return value

    def backward(self, loss: Tensor) -> None:
        """Gradients."""
        loss.backward()

    def log(self, loss: Tensor) -> None:
        """Keep the loss as a number."""
        self.losses.append(float(loss.detach()))

    def before_step(self) -> None:
        """Between gradients and step: clipping, for one."""

    def step(self) -> None:
        """Update the weights."""
        self.optimizer.step()

    def after_step(self) -> None:
        """After the update: averages, for one."""

    def train_mode(self) -> None:
        """Before the batches of an epoch."""
        self.model.train()

    def eval_mode(self) -> None:
        """Before evaluation."""
        self.model.eval()

    def evaluate(self) -> None:
        """Loss of the validation data, batch by batch."""
        with torch.no_grad():
            total = 0.0
            for x, y in zip(self.valid[0].split(100), self.valid[1].split(100), strict=True):
                total += float(self.criterion(self.forward(x), y)) * len(x)
        self.scores.append(total / len(self.valid[0]))

    def epoch_end(self, epoch: int) -> None:
        """After evaluation."""


@functools.cache
def _digits() -> tuple[Tensor, Tensor]:
    from optiscope.data import load_digits

    data = load_digits()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    x = data.images.float()[order]
    return (x - x.mean()) / x.std(), data.labels[order]


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Standardized images [B, 1, 8, 8] and labels: 1,200 to train on, 300 to validate."""
    x, y = _digits()
    return (x[:1200], y[:1200]), (x[1200:1500], y[1200:1500])


class Attention(nn.Module):
    """Causal self-attention of one head."""

    def __init__(self, width: int, causal: bool = True) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        """Attended [B, T, width]."""
        q, k, v = self.qkv(x).chunk(3, -1)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        out: Tensor = self.out(mixed)
        return out


class Block(nn.Module):
    """Attention and a perceptron, each on normalized inputs and added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_a, self.attention = nn.LayerNorm(width), Attention(width)
        self.norm_b = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Updated [B, T, width]."""
        x = x + self.attention(self.norm_a(x))
        added: Tensor = x + self.mlp(self.norm_b(x))
        return added


class Gpt(nn.Module):
    """A small transformer: tokens [B, T] to logits [B, vocabulary, T]."""

    def __init__(self, vocabulary: int = 30, width: int = 32, length: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList([Block(width), Block(width)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [B, vocabulary, T]."""
        x = self.embed(tokens) + self.position[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x)).transpose(1, 2)
        return logits


class Recurrent(nn.Module):
    """An LSTM over the rows of an image [B, 1, 8, 8], and a linear layer on its last state."""

    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.rnn = nn.LSTM(8, 32, batch_first=batch_first)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, 10]."""
        states, _ = self.rnn(x[:, 0])
        logits: Tensor = self.head(states[:, -1])
        return logits


class Denoiser(nn.Module):
    """Noise in an image [B, 65] whose last entry is the time in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(65, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 64)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Noise [B, 64]."""
        noise: Tensor = self.net(x)
        return noise


def mlp(seed: int, act: type[nn.Module] = nn.ReLU, dropout: float = 0.0) -> nn.Sequential:
    """A perceptron of three layers for the digits."""
    torch.manual_seed(seed)
    drop: list[nn.Module] = [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), act(), *drop, nn.Linear(64, 64), act(), nn.Linear(64, 10)
    )


def base_mlp(seed: int) -> Script:
    """Perceptron, digits, SGD."""
    model = mlp(seed)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return Script(model, optimizer, nn.CrossEntropyLoss(), *digits(), seed=seed)


def base_adam(seed: int) -> Script:
    """Perceptron with GELU and dropout, digits, AdamW."""
    model = mlp(seed, nn.GELU, 0.1)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    return Script(model, optimizer, nn.CrossEntropyLoss(), *digits(), seed=seed)


def base_cnn(seed: int) -> Script:
    """Convolutions with batch normalization, digits, SGD with momentum."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(256, 10),
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
    return Script(model, optimizer, nn.CrossEntropyLoss(), *digits(), seed=seed)


def base_lstm(seed: int) -> Script:
    """LSTM over image rows, digits, Adam."""
    torch.manual_seed(seed)
    model = Recurrent()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    return Script(model, optimizer, nn.CrossEntropyLoss(), *digits(), seed=seed)


def tokens(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Sequences [count, 16] of a noisy counting rule over 30 tokens, and the tokens that follow."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.where(
        torch.rand(count, 17, generator=generator) < 0.6,
        1,
        torch.randint(2, 30, (count, 17), generator=generator),
    )
    stream = (torch.randint(30, (count, 1), generator=generator) + steps.cumsum(1)) % 30
    return stream[:, :-1].contiguous(), stream[:, 1:].contiguous()


def base_gpt(seed: int) -> Script:
    """Small transformer, tokens, AdamW."""
    torch.manual_seed(seed)
    model = Gpt()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    return Script(
        model,
        optimizer,
        nn.CrossEntropyLoss(),
        tokens(1200, 10),
        tokens(200, 11),
        seed=seed,
    )


def noised(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images [B, 64] with noise of a random time appended, and the noise."""
    time = torch.rand(len(images), 1, generator=generator)
    noise = torch.randn(images.shape, generator=generator)
    mixed = (1 - time).sqrt() * images + time.sqrt() * noise
    return torch.cat([mixed, time], 1), noise


def base_diffusion(seed: int) -> Script:
    """Noise prediction on digits, Adam; noise is drawn anew for each batch."""
    torch.manual_seed(seed)
    (x, _), (v, _) = digits()
    flat, held = x.flatten(1), v.flatten(1)
    model = Denoiser()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(seed)
    script = Script(
        model, optimizer, nn.MSELoss(), (flat, flat), noised(held, generator), seed=seed
    )
    script.replace(batch=lambda places: noised(flat[places], generator))
    return script


def base_regression(seed: int) -> Script:
    """Perceptron on a table, mean squared error, RMSprop."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(1400, 10, generator=generator)
    noise = 0.1 * torch.randn(1400, 1, generator=generator)
    y = (x[:, :3].sum(1, keepdim=True) + torch.sin(2 * x[:, 3:4]) + noise) / 2
    model = nn.Sequential(
        nn.Linear(10, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 1)
    )
    optimizer = torch.optim.RMSprop(model.parameters(), 2e-3)
    return Script(
        model, optimizer, nn.MSELoss(), (x[:1200], y[:1200]), (x[1200:], y[1200:]), seed=seed
    )


def base_segmentation(seed: int) -> Script:
    """Convolutions to two classes a pixel, digits, Adam."""
    torch.manual_seed(seed)
    (x, _), (v, _) = digits()
    generator = torch.Generator().manual_seed(3)

    def pair(images: Tensor) -> tuple[Tensor, Tensor]:
        noisy = images + 0.7 * torch.randn(images.shape, generator=generator)
        return noisy, (images[:, 0] > 0.3).long()

    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 12, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 2, 1),
    )
    optimizer = torch.optim.Adam(model.parameters(), 4e-3)
    return Script(model, optimizer, nn.CrossEntropyLoss(), pair(x), pair(v), seed=seed)


def base_lark(seed: int) -> Script:
    """Perceptron, digits, this package's Lark."""
    from optiscope.optim import Lark

    model = mlp(seed)
    return Script(
        model,
        Lark(model.parameters(), total_steps=STEPS),
        nn.CrossEntropyLoss(),
        *digits(),
        seed=seed,
    )


class Gan(Script):
    """A generator of points on a ring and its critic, each with Adam; ``model`` is the critic."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        critic = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
        self.generator_net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
        self.generator_optimizer = torch.optim.Adam(
            self.generator_net.parameters(), 2e-3, betas=(0.5, 0.9)
        )
        angle = 2 * math.pi * torch.rand(1200, generator=torch.Generator().manual_seed(2))
        ring = torch.stack([angle.cos(), angle.sin()], 1)
        ones = torch.ones(1200, 1)
        optimizer = torch.optim.Adam(critic.parameters(), 2e-3, betas=(0.5, 0.9))
        criterion = nn.BCEWithLogitsLoss()
        super().__init__(
            critic,
            optimizer,
            criterion,
            (ring[:1000], ones[:1000]),
            (ring[1000:], ones[1000:]),
            seed=seed,
        )
        self.extra = [(self.generator_net, self.generator_optimizer, criterion)]

    def fake(self, count: int) -> Tensor:
        """Points [count, 2] of the generator."""
        noise = torch.randn(count, 4, generator=self.generator)
        points: Tensor = self.generator_net(noise)
        return points

    def for_critic(self, points: Tensor) -> Tensor:
        """Generated points as the critic's step sees them."""
        return points.detach()

    def for_generator(self, points: Tensor) -> Tensor:
        """Generated points as the generator's step sees them."""
        return points

    def generator_zero(self) -> None:
        """Clear the generator's gradients."""
        self.generator_optimizer.zero_grad()

    def iteration(self, number: int, places: Tensor) -> None:
        """A step of the critic and one of the generator."""
        real, ones = self.batch(places)
        self.zero()
        points = self.for_critic(self.fake(len(real)))
        loss = self.criterion(self.model(real), ones) + self.criterion(
            self.model(points), torch.zeros(len(real), 1)
        )
        loss.backward()
        self.step()
        self.generator_zero()
        fooled = self.criterion(self.model(self.for_generator(self.fake(len(real)))), ones)
        fooled.backward()
        self.generator_optimizer.step()
        self.after_step()
        self.log(loss)
        self.done += 1

    def train_mode(self) -> None:
        """Both in training mode."""
        self.model.train()
        self.generator_net.train()


def base_gan(seed: int) -> Script:
    """Generator and critic on a ring, two Adams."""
    return Gan(seed)


BASES: dict[str, Callable[[int], Script]] = {
    "mlp": base_mlp,
    "adam": base_adam,
    "cnn": base_cnn,
    "lstm": base_lstm,
    "gpt": base_gpt,
    "diffusion": base_diffusion,
    "regression": base_regression,
    "segmentation": base_segmentation,
    "lark": base_lark,
    "gan": base_gan,
}
"""Sound scripts by name, each made from a seed."""


def base_named(name: str, seed: int) -> Script:
    """A sound script; raises KeyError on an unknown name."""
    return BASES[name](seed)
