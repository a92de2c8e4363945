"""Tasks, networks, losses, optimizers and schedules that sound runs are drawn from.

Everything here is a table of makers by name: `loops` draws one of each and trains it. Indices: B
samples in a batch, T places of a sequence, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from optiscope.testing.bugs.script import Attention, digits

__all__ = ["NETWORKS", "OPTIMIZERS", "SCHEDULES", "TASKS", "Task"]

Pair = tuple[Tensor, Tensor]
Loss = Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """Data and what may be trained on them.

    ``losses`` are makers of criteria (modules or functions) by name; ``networks`` names makers of
    `NETWORKS` that fit ``shape`` (of one input) and ``outputs``.
    """

    train: Pair
    valid: Pair
    shape: tuple[int, ...]
    outputs: int
    losses: dict[str, Callable[[], Loss]]
    networks: tuple[str, ...]


# -- networks


class Residual(nn.Module):
    """``x + scale(inner(x))``; the scale may begin at zero."""

    def __init__(self, inner: nn.Module, width: int, zero: bool) -> None:
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.zeros(width) if zero else torch.full((width,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        """The input and what was added to it."""
        shape = (1, -1, *([1] * (x.ndim - 2))) if x.ndim > 3 else (-1,)
        added: Tensor = x + self.scale.view(shape) * self.inner(x)
        return added


class Rows(nn.Module):
    """A recurrent network over the rows of an image; the last state is read out."""

    def __init__(self, kind: Callable[..., nn.Module], outputs: int, *, both: bool = False) -> None:
        super().__init__()
        self.cell: Any = kind(8, 24, batch_first=True, bidirectional=both)
        self.head = nn.Linear(48 if both else 24, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [B, C]."""
        states, _ = self.cell(x[:, 0])
        out: Tensor = self.head(states.mean(1))
        return out


class Patches(nn.Module):
    """A small vision transformer: patches of 2 x 2, a class token, learned positions."""

    def __init__(self, outputs: int, width: int = 24) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, 2, 2)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, 17, width))
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, causal=False)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 48), nn.GELU(), nn.Linear(48, width)
        )
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [B, C]."""
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.position
        h = h + self.attention(self.norm(h))
        h = h + self.mlp(h)
        out: Tensor = self.head(h[:, 0])
        return out


class Mixer(nn.Module):
    """Rows of an image mixed along both axes in turn."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.along = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.across = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(64, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [B, C]."""
        h = x[:, 0]
        h = h + self.along(self.norm(h))
        h = h + self.across(self.norm(h).transpose(1, 2)).transpose(1, 2)
        out: Tensor = self.head(h.flatten(1))
        return out


class Embedded(nn.Module):
    """Mean of embedded tokens that are not padding (id 0), then a perceptron."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.table = nn.Embedding(40, 24, padding_idx=0)
        self.net = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, outputs))

    def forward(self, tokens: Tensor) -> Tensor:
        """Outputs [B, C]."""
        used = (tokens > 0).unsqueeze(-1)
        mean = (self.table(tokens) * used).sum(1) / used.sum(1).clamp_min(1)
        out: Tensor = self.net(mean)
        return out


class Packed(nn.Module):
    """A GRU over tokens whose padding (id 0) is left out by packing."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.table = nn.Embedding(40, 24, padding_idx=0)
        self.rnn = nn.GRU(24, 32, batch_first=True)
        self.head = nn.Linear(32, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """Outputs [B, C]."""
        lengths = (tokens > 0).sum(1).clamp_min(1)
        packed = nn.utils.rnn.pack_padded_sequence(
            self.table(tokens), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, last = self.rnn(packed)
        out: Tensor = self.head(last[-1])
        return out


class Masked(nn.Module):
    """A transformer encoder over tokens with a mask for padding (id 0)."""

    def __init__(self, outputs: int, width: int = 24) -> None:
        super().__init__()
        self.table = nn.Embedding(40, width, padding_idx=0)
        self.position = nn.Parameter(0.02 * torch.randn(1, 24, width))
        layer = nn.TransformerEncoderLayer(width, 2, 48, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(width, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """Outputs [B, C]."""
        padding = tokens == 0
        h = self.table(tokens) + self.position[:, : tokens.shape[1]]
        h = self.encoder(h, src_key_padding_mask=padding)
        used = (~padding).unsqueeze(-1)
        out: Tensor = self.head((h * used).sum(1) / used.sum(1).clamp_min(1))
        return out


def _perceptron(act: Callable[[], nn.Module], *, norm: bool = False, drop: float = 0.0) -> Any:
    def make(shape: tuple[int, ...], outputs: int) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        width = math.prod(shape)
        for _ in range(2):
            layers += [nn.Linear(width, 48), *([nn.BatchNorm1d(48)] if norm else []), act()]
            layers += [nn.Dropout(drop)] if drop else []
            width = 48
        return nn.Sequential(*layers, nn.Linear(48, outputs))

    return make


def _convolution(norm: Callable[[int], nn.Module], act: Callable[[], nn.Module]) -> Any:
    def make(shape: tuple[int, ...], outputs: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(shape[0], 8, 3, padding=1), norm(8), act(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), norm(16), act(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, outputs),
        )  # fmt: skip

    return make


def _residual(zero: bool) -> Any:
    def make(shape: tuple[int, ...], outputs: int) -> nn.Module:
        def block() -> nn.Module:
            inner = nn.Sequential(
                nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1),
                nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1),
            )  # fmt: skip
            return Residual(inner, 8, zero)

        return nn.Sequential(
            nn.Conv2d(shape[0], 8, 3, padding=1), block(), block(), nn.BatchNorm2d(8), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, outputs),
        )  # fmt: skip

    return make


def _depthwise(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(shape[0], 16, 3, padding=1), nn.BatchNorm2d(16), nn.Hardswish(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.Hardswish(),
        nn.Conv2d(16, 24, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2),
        nn.Linear(24, outputs),
    )  # fmt: skip


def _dense(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(shape[0], 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1),
        nn.ReLU(), nn.Conv2d(12, outputs, 1),
    )  # fmt: skip


def _bottleneck(shape: tuple[int, ...], outputs: int) -> nn.Module:
    size = math.prod(shape)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(size, 48), nn.ReLU(), nn.Linear(48, 12), nn.ReLU(),
        nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, outputs),
    )  # fmt: skip


def _normed(kind: str) -> Any:
    def make(shape: tuple[int, ...], outputs: int) -> nn.Module:
        wrap: Any = getattr(nn.utils.parametrizations, kind)
        return nn.Sequential(
            nn.Flatten(), wrap(nn.Linear(math.prod(shape), 48)), nn.ReLU(),
            wrap(nn.Linear(48, 48)), nn.ReLU(), nn.Linear(48, outputs),
        )  # fmt: skip

    return make


NETWORKS: dict[str, Callable[[tuple[int, ...], int], nn.Module]] = {
    "perceptron, relu": _perceptron(nn.ReLU),
    "perceptron, gelu, dropout": _perceptron(nn.GELU, drop=0.3),
    "perceptron, tanh": _perceptron(nn.Tanh),
    "perceptron, sigmoid, batch norm": _perceptron(nn.Sigmoid, norm=True),
    "perceptron, leaky relu": _perceptron(nn.LeakyReLU),
    "perceptron, elu": _perceptron(nn.ELU),
    "perceptron, selu, alpha dropout": _perceptron(nn.SELU),
    "perceptron, silu, batch norm": _perceptron(nn.SiLU, norm=True),
    "linear": lambda shape, outputs: nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(shape), outputs)
    ),
    "weight norm": _normed("weight_norm"),
    "spectral norm": _normed("spectral_norm"),
    "convolution, batch norm": _convolution(nn.BatchNorm2d, nn.ReLU),
    "convolution, group norm": _convolution(lambda c: nn.GroupNorm(4, c), nn.SiLU),
    "convolution": _convolution(lambda c: nn.Identity(), nn.ReLU),
    "convolution, instance norm": _convolution(
        lambda c: nn.InstanceNorm2d(c, affine=True), nn.PReLU
    ),
    "residual": _residual(False),
    "residual, zero scale": _residual(True),
    "depthwise": _depthwise,
    "lstm": lambda shape, outputs: Rows(nn.LSTM, outputs),
    "gru, both ways": lambda shape, outputs: Rows(nn.GRU, outputs, both=True),
    "rnn": lambda shape, outputs: Rows(nn.RNN, outputs),
    "vision transformer": lambda shape, outputs: Patches(outputs),
    "mixer": lambda shape, outputs: Mixer(outputs),
    "dense": _dense,
    "bottleneck": _bottleneck,
    "embedding": lambda shape, outputs: Embedded(outputs),
    "packed gru": lambda shape, outputs: Packed(outputs),
    "masked transformer": lambda shape, outputs: Masked(outputs),
}
IMAGE = tuple(n for n in NETWORKS if n not in ("dense", "bottleneck", "embedding", "packed gru",
                                               "masked transformer"))  # fmt: skip
FLAT = (*[n for n in NETWORKS if n.startswith("perceptron")], "weight norm", "linear")


# -- losses


def focal(out: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy with less weight on samples that are right."""
    each = functional.cross_entropy(out, y, reduction="none")
    return ((1 - (-each).exp()) ** 2 * each).mean()


def squared_one_hot(out: Tensor, y: Tensor) -> Tensor:
    """Squared error of outputs against one-hot labels."""
    return functional.mse_loss(out, functional.one_hot(y, out.shape[1]).to(out.dtype))


def one_against_all(out: Tensor, y: Tensor) -> Tensor:
    """A binary cross-entropy for each class."""
    hot = functional.one_hot(y, out.shape[1]).to(out.dtype)
    return functional.binary_cross_entropy_with_logits(out, hot)


def soft_targets(out: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy against probabilities."""
    hot = functional.one_hot(y, out.shape[1]).to(out.dtype)
    return functional.cross_entropy(out, 0.9 * hot + 0.01)


def hard_samples(out: Tensor, y: Tensor) -> Tensor:
    """Mean over the half of the batch with the largest losses."""
    each = functional.cross_entropy(out, y, reduction="none")
    return each.topk(max(1, len(each) // 2)).values.mean()


def own_log_softmax(out: Tensor, y: Tensor) -> Tensor:
    """Negative log-likelihood, with the log-softmax outside of the model."""
    return functional.nll_loss(out.log_softmax(1), y)


def quantile(out: Tensor, y: Tensor) -> Tensor:
    """Pinball loss of the 0.7 quantile."""
    rest = y - out
    return torch.maximum(0.7 * rest, -0.3 * rest).mean()


def log_cosh(out: Tensor, y: Tensor) -> Tensor:
    """Logarithm of the hyperbolic cosine of the error."""
    rest = out - y
    return (rest + functional.softplus(-2 * rest) - math.log(2)).mean()


def gaussian(out: Tensor, y: Tensor) -> Tensor:
    """Gaussian likelihood of a mean and a log-variance."""
    return functional.gaussian_nll_loss(out[:, :1], y, out[:, 1:].clamp(-6, 6).exp())


def dice(out: Tensor, y: Tensor) -> Tensor:
    """One minus the soft overlap of the second class, with a share of cross-entropy."""
    p = out.softmax(1)[:, 1]
    overlap = (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
    return 1 - overlap + 0.5 * functional.cross_entropy(out, y)


CLASSES: dict[str, Callable[[], Loss]] = {
    "cross-entropy": nn.CrossEntropyLoss,
    "cross-entropy, smoothed": lambda: nn.CrossEntropyLoss(label_smoothing=0.1),
    "cross-entropy, weights": lambda: nn.CrossEntropyLoss(torch.linspace(0.8, 1.2, 10)),
    "cross-entropy, function": lambda: functional.cross_entropy,
    "nll": lambda: own_log_softmax,
    "focal": lambda: focal,
    "squared one-hot": lambda: squared_one_hot,
    "one against all": lambda: one_against_all,
    "soft targets": lambda: soft_targets,
    "hard samples": lambda: hard_samples,
    "margin": nn.MultiMarginLoss,
}
NUMBERS: dict[str, Callable[[], Loss]] = {
    "squared": nn.MSELoss,
    "absolute": nn.L1Loss,
    "huber": nn.HuberLoss,
    "smooth absolute": nn.SmoothL1Loss,
    "squared, function": lambda: functional.mse_loss,
    "quantile": lambda: quantile,
    "log-cosh": lambda: log_cosh,
}


# -- tasks


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _split(x: Tensor, y: Tensor, train: int = 1000) -> tuple[Pair, Pair]:
    return (x[:train], y[:train]), (x[train:], y[train:])


def _digits(seed: int) -> Task:
    train, valid = digits()
    return Task(train, valid, (1, 8, 8), 10, CLASSES, IMAGE)


def _two_digits(seed: int) -> Task:
    """Two classes of which one is rare."""
    (x, y), (v, w) = digits()
    loss = {k: CLASSES[k] for k in ("cross-entropy", "focal")}
    return Task((x, (y == 3).long()), (v, (w == 3).long()), (1, 8, 8), 2, loss, IMAGE)


def _one_logit(seed: int) -> Task:
    """Two classes, one output, binary cross-entropy."""
    (x, y), (v, w) = digits()
    loss: dict[str, Callable[[], Loss]] = {
        "binary": nn.BCEWithLogitsLoss,
        "binary, weighted": lambda: nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.5])),
    }
    train, valid = (x, (y > 4).float()[:, None]), (v, (w > 4).float()[:, None])
    return Task(train, valid, (1, 8, 8), 1, loss, IMAGE)


def _table(seed: int) -> Task:
    g = _generator(seed)
    x = torch.randn(1300, 12, generator=g)
    y = x[:, :2].sum(1, keepdim=True) + torch.sin(2 * x[:, 2:3]) + 0.5 * x[:, 3:4] * x[:, 4:5]
    y = (y + 0.2 * torch.randn(1300, 1, generator=g)) / 2
    train, valid = _split(x, y)
    return Task(train, valid, (12,), 1, NUMBERS, FLAT)


def _several_targets(seed: int) -> Task:
    g = _generator(seed)
    x = torch.randn(1300, 10, generator=g)
    mix = torch.randn(10, 3, generator=g) / 3
    y = (x @ mix).tanh() + 0.1 * torch.randn(1300, 3, generator=g)
    train, valid = _split(x, y)
    return Task(train, valid, (10,), 3, NUMBERS, FLAT)


def _spread(seed: int) -> Task:
    """A mean and a variance for each sample."""
    task = _table(seed)
    return Task(task.train, task.valid, (12,), 2, {"gaussian": lambda: gaussian}, FLAT)


def _counts(seed: int) -> Task:
    g = _generator(seed)
    x = torch.randn(1300, 8, generator=g)
    y = torch.poisson((0.5 * x[:, :3].sum(1, keepdim=True)).exp(), generator=g)
    train, valid = _split(x, y)
    return Task(train, valid, (8,), 1, {"poisson": nn.PoissonNLLLoss}, FLAT)


def _several_labels(seed: int) -> Task:
    g = _generator(seed)
    x = torch.randn(1300, 16, generator=g)
    y = ((x @ torch.randn(16, 6, generator=g)) > 1).float()
    train, valid = _split(x, y)
    return Task(train, valid, (16,), 6, {"binary": nn.BCEWithLogitsLoss}, FLAT)


def _pixels(seed: int) -> Task:
    (x, _), (v, _) = digits()
    g = _generator(seed)

    def pair(images: Tensor) -> Pair:
        noisy = images + 0.6 * torch.randn(images.shape, generator=g)
        return noisy, (images[:, 0] > 0.2).long()

    loss: dict[str, Callable[[], Loss]] = {
        "cross-entropy": nn.CrossEntropyLoss,
        "dice": lambda: dice,
    }
    return Task(pair(x), pair(v), (1, 8, 8), 2, loss, ("dense",))


def _denoising(seed: int) -> Task:
    (x, _), (v, _) = digits()
    g = _generator(seed)

    def pair(images: Tensor) -> Pair:
        return images + 0.5 * torch.randn(images.shape, generator=g), images

    return Task(pair(x), pair(v), (1, 8, 8), 1, {"squared": nn.MSELoss}, ("dense",))


def _codes(seed: int) -> Task:
    """An autoencoder: inputs are the targets."""
    (x, _), (v, _) = digits()
    x, v = x.flatten(1), v.flatten(1)
    loss: dict[str, Callable[[], Loss]] = {"squared": nn.MSELoss, "absolute": nn.L1Loss}
    return Task((x, x), (v, v), (64,), 64, loss, ("bottleneck", "perceptron, gelu, dropout"))


def _padded(seed: int) -> Task:
    """Sequences [B, T] of several lengths, padded with zeros; which of two groups has more."""
    g = _generator(seed)
    tokens = torch.randint(1, 40, (1300, 20), generator=g)
    lengths = torch.randint(6, 21, (1300,), generator=g)
    tokens[torch.arange(20)[None] >= lengths[:, None]] = 0
    share = ((tokens > 20).sum(1) / lengths).double()
    y = (share > 0.45).long() + (share > 0.6).long()
    train, valid = _split(tokens, y)
    loss: dict[str, Callable[[], Loss]] = {
        k: CLASSES[k] for k in ("cross-entropy", "cross-entropy, function", "focal")
    }
    return Task(train, valid, (20,), 3, loss, ("embedding", "packed gru", "masked transformer"))


TASKS: dict[str, Callable[[int], Task]] = {
    "digits": _digits,
    "rare class": _two_digits,
    "one logit": _one_logit,
    "table": _table,
    "several targets": _several_targets,
    "mean and variance": _spread,
    "counts": _counts,
    "several labels": _several_labels,
    "pixels": _pixels,
    "denoising": _denoising,
    "autoencoder": _codes,
    "padded sequences": _padded,
}


# -- optimizers and schedules


class Lion(torch.optim.Optimizer):
    """Sign of an interpolated momentum (Chen et al. 2023)."""

    def __init__(self, params: Any, lr: float = 1e-3) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.99), "weight_decay": 0.01})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                mean = state.setdefault("mean", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * mean.lerp(p.grad, 0.1).sign())
                mean.lerp_(p.grad, 0.01)


def _groups(parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
    """Weight decay for matrices only."""
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


optim = torch.optim
OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda p: optim.SGD(p, 0.1),
    "sgd, momentum": lambda p: optim.SGD(p, 0.03, momentum=0.9),
    "sgd, nesterov, decay": lambda p: optim.SGD(
        p, 0.03, momentum=0.9, nesterov=True, weight_decay=5e-4
    ),
    "adam": lambda p: optim.Adam(p, 2e-3),
    "adam, amsgrad": lambda p: optim.Adam(p, 2e-3, amsgrad=True),
    "adam, fused": lambda p: optim.Adam(p, 2e-3, fused=True),
    "adam, eps 1e-3": lambda p: optim.Adam(p, 5e-3, eps=1e-3),
    "adam, beta2 0.95": lambda p: optim.Adam(p, 2e-3, betas=(0.9, 0.95)),
    "adamw, foreach": lambda p: optim.AdamW(p, 2e-3, foreach=True),
    "adamw, groups": lambda p: (
        optim.AdamW(_groups(p), 3e-3) if len(p) > 1 else optim.AdamW(p, 3e-3)
    ),
    "nadam": lambda p: optim.NAdam(p, 2e-3),
    "radam": lambda p: optim.RAdam(p, 4e-3),
    "rmsprop": lambda p: optim.RMSprop(p, 1e-3),
    "rmsprop, momentum": lambda p: optim.RMSprop(p, 5e-4, momentum=0.9, centered=True),
    "adagrad": lambda p: optim.Adagrad(p, 0.03),
    "adamax": lambda p: optim.Adamax(p, 4e-3),
    "rprop": lambda p: optim.Adadelta(p, 1.0),
    "lion": lambda p: Lion(p, 7e-4),
}
SCHEDULES: dict[str, tuple[str, Callable[[torch.optim.Optimizer, int, int], Any]]] = {
    "constant": ("never", lambda o, steps, epoch: None),
    "cosine by step": ("batch", lambda o, n, e: optim.lr_scheduler.CosineAnnealingLR(o, n)),
    "cosine by epoch": (
        "epoch", lambda o, n, e: optim.lr_scheduler.CosineAnnealingLR(o, n // e + 1)
    ),
    "steps": ("epoch", lambda o, n, e: optim.lr_scheduler.StepLR(o, 2, 0.5)),
    "exponential": ("epoch", lambda o, n, e: optim.lr_scheduler.ExponentialLR(o, 0.9)),
    "one cycle": (
        "batch",
        lambda o, n, e: optim.lr_scheduler.OneCycleLR(
            o, [2 * g["lr"] for g in o.param_groups], n + 2, cycle_momentum=False
        ),
    ),
    "warm restarts": (
        "batch", lambda o, n, e: optim.lr_scheduler.CosineAnnealingWarmRestarts(o, max(10, n // 3))
    ),
    "warm-up and cosine": (
        "batch",
        lambda o, n, e: optim.lr_scheduler.SequentialLR(
            o,
            [
                optim.lr_scheduler.LinearLR(o, 0.01, total_iters=20),
                optim.lr_scheduler.CosineAnnealingLR(o, n - 20),
            ],
            [20],
        ),
    ),
    "warm-up by hand": (
        "batch", lambda o, n, e: optim.lr_scheduler.LambdaLR(o, lambda s: min(1.0, (s + 1) / 25))
    ),
    "linear to zero": (
        "batch", lambda o, n, e: optim.lr_scheduler.LambdaLR(o, lambda s: max(0.0, 1 - s / n))
    ),
    "plateau": ("plateau", lambda o, n, e: optim.lr_scheduler.ReduceLROnPlateau(o, patience=1)),
    "cyclic": (
        "batch",
        lambda o, n, e: optim.lr_scheduler.CyclicLR(
            o, [0.3 * g["lr"] for g in o.param_groups], [g["lr"] for g in o.param_groups],
            step_size_up=15, cycle_momentum=False,
        ),
    ),
}  # fmt: skip
