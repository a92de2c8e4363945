"""Faults that let the loss fall: pairing, axes, padding, schedules, evaluation, derivatives."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from optiscope.testing.bugs.kind import registry
from optiscope.testing.bugs.public import (
    accumulated,
    again,
    clipped,
    cosine_per_batch,
    linears,
    new_head,
)
from optiscope.testing.bugs.script import Attention, Block, Gpt, Script

__all__ = ["SUBTLE"]

SUBTLE, kind = registry()
"""Kinds by name."""


def _generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- pairing


@kind(r"label|pair", "mlp", "cnn")
def labels_drawn_anew(script: Script) -> None:
    def shuffle(epoch: int) -> None:
        x, y = script.train
        script.train = x, y[torch.randperm(len(y), generator=script.generator)]

    script.replace(epoch_end=shuffle)


@kind(r"targets?_repeated|targets were the same|index|pair", "mlp", "regression")
def targets_not_indexed(script: Script) -> None:
    script.replace(batch=lambda i: (script.train[0][i], script.train[1][: len(i)]))


@kind(r"repeated|were the same|drawn", "diffusion")
def noise_of_one_seed(script: Script) -> None:
    from optiscope.testing.bugs.script import noised

    flat = script.train[0]
    script.replace(batch=lambda places: noised(flat[places], _generator()))


@kind(r"sorted|shuffl", "regression")
def sorted_by_target(script: Script) -> None:
    order = script.train[1][:, 0].argsort()
    script.replace(order=lambda epoch: iter(order.split(32)[:-1]))


# -- settings of the loss


def _imbalanced(script: Script) -> None:
    x, y = script.train
    keep = (y < 2) | (torch.rand(len(y), generator=_generator()) < 0.3)
    script.train = x[keep], y[keep]


def balanced_weights(script: Script) -> None:
    _imbalanced(script)
    counts = script.train[1].bincount(minlength=10)
    script.criterion = nn.CrossEntropyLoss(counts.sum() / (10.0 * counts))


@kind(r"weight.{0,30}(invert|frequen|class)|class.weight", "mlp", "cnn", mend=balanced_weights)
def weights_by_frequency(script: Script) -> None:
    _imbalanced(script)
    counts = script.train[1].bincount(minlength=10)
    script.criterion = nn.CrossEntropyLoss(10.0 * counts / counts.sum())


def some_labels_unknown(script: Script) -> None:
    x, y = script.train
    unknown = torch.rand(len(y), generator=_generator()) < 0.1
    script.train = x, torch.where(unknown, -100, y)


@kind(r"ignore", "mlp", "cnn", mend=some_labels_unknown)
def class_ignored(script: Script) -> None:
    script.criterion = nn.CrossEntropyLoss(ignore_index=3)


def _even(script: Script, *, numbers: bool) -> None:
    for name in ("train", "valid"):
        x, y = getattr(script, name)
        even = y % 2
        setattr(script, name, (x, even.float()[:, None] if numbers else even * 0))
    new_head(script, 1)
    again(script)


def one_logit(script: Script) -> None:
    _even(script, numbers=True)
    script.criterion = nn.BCEWithLogitsLoss()


@kind(
    r"one (class|output|logit)|of_one_class|loss is (exactly )?(0|zero)", "mlp", "cnn",
    mend=one_logit,
)  # fmt: skip
def cross_entropy_of_one_output(script: Script) -> None:
    _even(script, numbers=False)


def _one_against_all(script: Script, swapped: bool) -> None:
    script.criterion = nn.BCEWithLogitsLoss()

    def loss(x: Tensor, y: Tensor) -> Tensor:
        hot = functional.one_hot(y, 10).float()
        out = script.forward(x)
        value: Tensor = script.criterion(hot, out) if swapped else script.criterion(out, hot)
        return value

    script.replace(loss=loss, evaluate=lambda: None)


@kind(
    r"swap|order of (the )?arguments|gets the targets as|first", "mlp", "cnn",
    mend=lambda script: _one_against_all(script, False),
)  # fmt: skip
def arguments_swapped(script: Script) -> None:
    _one_against_all(script, True)


def _bootstrapped(script: Script, stop: bool) -> None:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        with torch.set_grad_enabled(not stop):
            after = script.model(x.roll(1, 0))
        value: Tensor = script.criterion(script.model(x), y + 0.5 * after)
        return value

    script.criterion = nn.MSELoss()
    if not script.train[1].is_floating_point():
        for name in ("train", "valid"):
            x, y = getattr(script, name)
            setattr(script, name, (x, functional.one_hot(y, 10).float()))
    script.replace(loss=loss)


@kind(
    r"target.{0,60}gradient|detach|stop", "regression", "mlp",
    mend=lambda script: _bootstrapped(script, True),
)  # fmt: skip
def gradient_through_the_target(script: Script) -> None:
    _bootstrapped(script, False)


# -- gradients and steps


@kind(r"accumulat|thrown|cleared before each", "mlp", "adam", mend=accumulated)
def cleared_at_every_batch(script: Script) -> None:
    accumulated(script)
    backward = script.backward

    def clear_first(loss: Tensor) -> None:
        script.optimizer.zero_grad()
        backward(loss)

    script.replace(backward=clear_first)


@kind(r"after the step|clip", "mlp", "lstm", mend=clipped)
def clipped_after_the_step(script: Script) -> None:
    script.replace(after_step=lambda: nn.utils.clip_grad_norm_(script.model.parameters(), 0.1))


class Cells(nn.Module):
    """A recurrent network written out over the rows of an image."""

    def __init__(self, cut: bool) -> None:
        super().__init__()
        self.cell, self.head, self.cut = nn.GRUCell(8, 32), nn.Linear(32, 10), cut

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 32)
        for row in x[:, 0].unbind(1):
            h = self.cell(row, h.detach() if self.cut else h)
        out: Tensor = self.head(h)
        return out


class Branches(nn.Module):
    """A body whose output reaches the head directly and through a second layer."""

    def __init__(self, cut: bool) -> None:
        super().__init__()
        self.body, self.side = nn.Linear(64, 48), nn.Linear(48, 48)
        self.head, self.cut = nn.Linear(48, 10), cut

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x.flatten(1)).relu()
        aside = self.side(h.detach() if self.cut else h).relu()
        out: Tensor = self.head(3 * aside + 0.3 * h)
        return out


def _branches(script: Script, cut: bool) -> None:
    torch.manual_seed(script.seed)
    script.model = Cells(cut) if "rnn" in dict(script.model.named_children()) else Branches(cut)
    again(script)


@kind(
    r"derivative|detach", "mlp", "lstm", mend=lambda script: _branches(script, False)
)  # fmt: skip
def detached_inside(script: Script) -> None:
    _branches(script, True)


class Swish(torch.autograd.Function):
    """x sigmoid(x), with a backward pass written by hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, right: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.right = right
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        slope = s + x * s * (1 - s) if ctx.right else s * (1 - s)
        return gradients[0] * slope, None


class OwnActivation(nn.Module):
    def __init__(self, right: bool) -> None:
        super().__init__()
        self.right = right

    def forward(self, x: Tensor) -> Tensor:
        apply: Any = Swish.apply
        out: Tensor = apply(x, self.right)
        return out


def _own_activation(script: Script, right: bool) -> None:
    for name, module in list(script.model.named_children()):
        if isinstance(module, nn.ReLU):
            setattr(script.model, name, OwnActivation(right))


@kind(
    r"derivative|backward pass", "mlp", "cnn", mend=lambda script: _own_activation(script, True)
)  # fmt: skip
def wrong_backward(script: Script) -> None:
    _own_activation(script, False)


def _deep(script: Script, gain: float) -> None:
    torch.manual_seed(script.seed)
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(10):
        layers += [nn.Linear(64, 64), nn.ReLU()]
    script.model = nn.Sequential(*layers, nn.Linear(64, 10))
    for layer in linears(script.model):
        nn.init.orthogonal_(layer.weight, gain)
    script.optimizer = torch.optim.SGD(script.model.parameters(), 0.05)


@kind(r"explod", "mlp", mend=lambda script: _deep(script, 2**0.5))
def deep_and_loud(script: Script) -> None:
    _deep(script, 4.0)


# -- optimizer and schedule


@kind(r"other optimizer|another optimizer", "mlp", "adam", mend=cosine_per_batch)
def schedule_of_another_optimizer(script: Script) -> None:
    old = torch.optim.SGD(script.model.parameters(), 0.1)
    script.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(old, script.steps)
    script.scheduler_per = "batch"


@kind(r"unit|times as fast|schedul", "mlp", "gpt", mend=cosine_per_batch)
def schedule_stepped_twice(script: Script) -> None:
    cosine_per_batch(script)
    script.replace(after_step=lambda: script.scheduler.step())


def _plateau(script: Script, mode: Any) -> None:
    script.scheduler_per = "never"
    script.steps = 300
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(script.optimizer, mode, patience=1)
    script.scheduler = plateau
    script.replace(epoch_end=lambda epoch: plateau.step(script.scores[-1]))


@kind(r"plateau|mode", "mlp", "adam", mend=lambda script: _plateau(script, "min"))
def plateau_of_the_other_mode(script: Script) -> None:
    _plateau(script, "max")


def _adam(script: Script, **settings: Any) -> None:
    script.optimizer = torch.optim.AdamW(script.model.parameters(), 2e-3, **settings)


@kind(r"beta", "adam", "gpt")
def betas_exchanged(script: Script) -> None:
    _adam(script, betas=(0.999, 0.9))


@kind(r"eps", "adam", "gpt", mend=lambda script: _adam(script, eps=1e-6))
def eps_of_one(script: Script) -> None:
    _adam(script, eps=1.0)


def _groups(script: Script, factor: float) -> None:
    parameters = list(script.model.parameters())
    rate = script.optimizer.param_groups[0]["lr"]
    script.optimizer = type(
        script.optimizer
    )(  # type: ignore[call-arg]
        [{"params": parameters[:-2], "lr": factor * rate}, {"params": parameters[-2:]}], lr=rate
    )


@kind(r"group|too_small|hardly move", "mlp", "gpt", mend=lambda script: _groups(script, 0.1))
def body_rate_in_other_unit(script: Script) -> None:
    _groups(script, 1e-5)


# -- axes


class HeadsByView(nn.Module):
    """Causal self-attention of four heads, split by a view."""

    def __init__(self, width: int, split: str) -> None:
        super().__init__()
        self.qkv, self.out, self.split = nn.Linear(width, 3 * width), nn.Linear(width, width), split

    def forward(self, x: Tensor) -> Tensor:
        b, t, width = x.shape

        def heads(part: Tensor) -> Tensor:
            if self.split == "view":
                return part.contiguous().view(b, 4, t, width // 4)
            return part.reshape(b, t, 4, width // 4).transpose(1, 2)

        q, k, v = map(heads, self.qkv(x).chunk(3, -1))
        scores = q @ k.transpose(2, 3) / (width // 4) ** 0.5
        if self.split == "queries":
            weights = scores.softmax(-2)
        else:
            hidden = torch.ones(t, t, dtype=torch.bool).triu(1)
            weights = scores.masked_fill(hidden, -1e9).softmax(-1)
        joined = (weights @ v).transpose(1, 2).reshape(b, t, width)
        out: Tensor = self.out(joined)
        return out


def _heads(script: Script, split: str) -> None:
    torch.manual_seed(script.seed)
    for block in script.model.modules():
        if isinstance(block, Block):
            block.add_module("attention", HeadsByView(32, split))
    again(script)


@kind(
    r"view|axes|exchang|permut|transpos", "gpt", mend=lambda script: _heads(script, "transpose")
)  # fmt: skip
def heads_by_view(script: Script) -> None:
    _heads(script, "view")


@kind(
    r"softmax.{0,60}(quer|dim|axis)|future", "gpt", mend=lambda script: _heads(script, "transpose")
)  # fmt: skip
def softmax_over_queries(script: Script) -> None:
    _heads(script, "queries")


class Last(nn.Module):
    """A model whose class dimension is put last, or has been moved by a view."""

    def __init__(self, model: nn.Module, view: bool) -> None:
        super().__init__()
        self.model, self.view = model, view

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        if not self.view:
            return out
        back = out.movedim(1, -1).contiguous()
        return back.view(out.shape)


@kind(r"view|axes|exchang|permut|transpos", "gpt", "segmentation")
def logits_by_view(script: Script) -> None:
    script.model = Last(script.model, True)


def _colored(script: Script, view: bool) -> None:
    for name in ("train", "valid"):
        x, y = getattr(script, name)
        large = functional.interpolate(x, scale_factor=2, mode="bilinear")
        color = torch.tensor([1.0, 0.5, -0.7]) + 0.5 * torch.tensor([0.0, 1.0, 2.0])
        image = large[:, 0, :, :, None] * color + torch.tensor([0.0, 1.0, -1.0])
        moved = image.reshape(len(x), 3, 16, 16) if view else image.permute(0, 3, 1, 2)
        setattr(script, name, (moved.contiguous(), y))
    torch.manual_seed(script.seed)
    script.model.add_module("0", nn.Conv2d(3, 8, 3, stride=2, padding=1))
    again(script)


@kind(
    r"axes|pixel|permut|color values|interleav", "cnn", mend=lambda script: _colored(script, False)
)  # fmt: skip
def image_by_reshape(script: Script) -> None:
    _colored(script, True)


class OfOne(nn.Module):
    """A normalization over a dimension of size one, or over the features."""

    def __init__(self, model: nn.Module, single: bool) -> None:
        super().__init__()
        self.model, self.single = model, single
        self.norm = nn.LayerNorm(1 if single else 64)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        h = self.norm(flat[..., None])[..., 0] if self.single else self.norm(flat)
        out: Tensor = self.model(h.view_as(x))
        return out


def _normalized(script: Script, single: bool) -> None:
    script.model = OfOne(script.model, single)
    again(script)


@kind(
    r"same output|outputs_all_equal|do not reach|inputs? (is|are) (ignored|not used)", "mlp", "cnn",
    mend=lambda script: _normalized(script, False),
)  # fmt: skip
def norm_over_one(script: Script) -> None:
    _normalized(script, True)


def _momentum(script: Script, momentum: float) -> None:
    for module in script.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum


@kind(r"momentum|running statistic", "cnn", mend=lambda script: _momentum(script, 0.05))
def statistics_that_lag(script: Script) -> None:
    _momentum(script, 1e-3)


# -- sequences


def _padded(script: Script, ignored: bool) -> None:
    for name in ("train", "valid"):
        x, y = (t.clamp_min(1) for t in getattr(script, name))
        lengths = torch.randint(5, 17, (len(x), 1), generator=_generator())
        past = torch.arange(16)[None] >= lengths
        setattr(script, name, (x.masked_fill(past, 0), y.masked_fill(past, 0)))
    script.criterion = nn.CrossEntropyLoss(ignore_index=0 if ignored else -100)


@kind(r"padding", "gpt", mend=lambda script: _padded(script, True))
def padding_learned(script: Script) -> None:
    _padded(script, False)


class Sentences(nn.Module):
    """A classifier of padded tokens: a mean, a recurrent network or a transformer."""

    def __init__(self, kind: str, masked: bool = True, positions: bool = True) -> None:
        super().__init__()
        self.kind, self.masked, self.positions = kind, masked, positions
        self.table = nn.Embedding(40, 24)
        self.position = nn.Parameter(0.3 * torch.randn(1, 20, 24))
        self.rnn = nn.GRU(24, 24, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(24, 2, 48, dropout=0.0, batch_first=True)
        self.head = nn.Linear(24, 3)
        for name in ("rnn", "encoder", "position"):
            used = {"rnn": "rnn", "encoder": "attention", "position": "attention"}[name]
            if kind != used or (name == "position" and not positions):
                delattr(self, name)

    def forward(self, tokens: Tensor) -> Tensor:
        pad = tokens == 0
        h = self.table(tokens)
        lengths = (~pad).sum(1)
        if self.kind == "rnn":
            states, _ = self.rnn(h)
            places = lengths - 1 if self.masked else torch.full_like(lengths, h.shape[1] - 1)
            h = states[torch.arange(len(h)), places]
        else:
            if self.kind == "attention":
                h = h + self.position[:, : h.shape[1]] if self.positions else h
                h = self.encoder(h, src_key_padding_mask=pad if self.masked else None)
            used = (~pad).unsqueeze(-1) if self.masked else torch.ones_like(pad)[..., None]
            h = (h * used).sum(1) / used.sum(1)
        out: Tensor = self.head(h)
        return out


def _sentences(script: Script, kind: str, **how: bool) -> None:
    g = _generator()
    tokens = torch.randint(1, 40, (1500, 20), generator=g)
    if how.pop("padded", True):
        lengths = torch.randint(6, 21, (1500, 1), generator=g)
        tokens[torch.arange(20)[None] >= lengths] = 0
    y = (tokens[:, 0] > 20).long() + (tokens[:, 1] > 20).long()
    torch.manual_seed(script.seed)
    script.model = Sentences(kind, **how)
    script.train, script.valid = (tokens[:1200], y[:1200]), (tokens[1200:], y[1200:])
    script.optimizer = torch.optim.Adam(script.model.parameters(), 3e-3)


def _masked(script: Script) -> None:
    _sentences(script, "rnn" if "rnn" in dict(script.model.named_children()) else "mean")


@kind(r"padding", "lstm", "mlp", mend=_masked)
def padding_seen(script: Script) -> None:
    kind_of = "rnn" if "rnn" in dict(script.model.named_children()) else "mean"
    _sentences(script, kind_of, masked=False)


@kind(r"padding", "gpt", mend=lambda script: _sentences(script, "attention"))
def padding_attended(script: Script) -> None:
    _sentences(script, "attention", masked=False)


@kind(
    r"order|position", "gpt", mend=lambda script: _sentences(script, "attention", padded=False)
)  # fmt: skip
def positions_missing(script: Script) -> None:
    _sentences(script, "attention", positions=False, padded=False)


class Itself(nn.Module):
    """Attention whose mask lets a token see itself alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        mask = torch.eye(x.shape[1], dtype=torch.bool)
        out: Tensor = self.out(functional.scaled_dot_product_attention(q, k, v, mask))
        return out


@kind(r"past|before it|mask", "gpt")
def mask_hides_the_past(script: Script) -> None:
    torch.manual_seed(script.seed)
    for block in script.model.modules():
        if isinstance(block, Block):
            block.add_module("attention", Itself(32))
    again(script)


@kind(r"future|causal", "gpt")
def no_causal_mask(script: Script) -> None:
    assert isinstance(script.model, Gpt)
    for module in script.model.modules():
        if isinstance(module, Attention):
            module.causal = False


# -- evaluation


@kind(r"trained on|training data|overlap", "mlp", "cnn")
def evaluated_on_training_data(script: Script) -> None:
    script.valid = script.train


@kind(r"evaluat.{0,80}(label|coded|differ)", "mlp", "adam")
def validation_labels_in_other_order(script: Script) -> None:
    x, y = script.valid
    script.valid = x, (y * 3 + 1) % 10


@kind(r"evaluat.{0,80}(target|differ)", "regression")
def validation_targets_not_scaled(script: Script) -> None:
    x, y = script.valid
    script.valid = x, 12 * y + 40


@kind(r"evaluat.{0,120}(differ|input)|reorder|order is not", "regression")
def validation_columns_in_other_order(script: Script) -> None:
    for name in ("train", "valid"):
        x, y = getattr(script, name)
        setattr(script, name, (x + torch.linspace(-2, 2, 10), y))
    script.valid = script.valid[0].flip(1), script.valid[1]


def _noisy(script: Script, everywhere: bool) -> None:
    batch, held = script.batch, script.valid

    def noise(x: Tensor) -> Tensor:
        return x + 0.3 * torch.randn(x.shape, generator=script.generator)

    def evaluation() -> None:
        script.model.eval()
        script.valid = noise(held[0]), held[1]

    script.replace(batch=lambda i: (noise(batch(i)[0]), batch(i)[1]))
    if everywhere:
        script.replace(eval_mode=evaluation)


@kind(
    r"evaluat.{0,160}(augment|random|noise|new)", "mlp", "cnn",
    mend=lambda script: _noisy(script, False),
)  # fmt: skip
def evaluation_augmented(script: Script) -> None:
    _noisy(script, True)


def _averaged(script: Script, back: bool) -> None:
    average = copy.deepcopy(script.model)
    held: dict[str, Tensor] = {}

    def update() -> None:
        with torch.no_grad():
            for a, p in zip(average.parameters(), script.model.parameters(), strict=True):
                a.lerp_(p, 0.05)

    def swap_in() -> None:
        held.update({k: v.clone() for k, v in script.model.state_dict().items()})
        with torch.no_grad():
            for a, p in zip(average.parameters(), script.model.parameters(), strict=True):
                p.copy_(a)
        script.model.eval()

    def swap_out(epoch: int) -> None:
        if back:
            script.model.load_state_dict(held)

    script.replace(after_step=update, eval_mode=swap_in, epoch_end=swap_out)


@kind(
    r"evaluat.{0,120}weights|weights.{0,120}evaluat|restor|put .{0,40}back", "mlp", "adam",
    mend=lambda script: _averaged(script, True),
)  # fmt: skip
def averages_not_taken_out(script: Script) -> None:
    _averaged(script, False)


def _swa(script: Script, fed: bool) -> None:
    average = torch.optim.swa_utils.AveragedModel(script.model)
    script.replace(  # the average lives as long as the script, whether it is fed or not
        after_step=lambda: average.update_parameters(script.model) if fed else None
    )


@kind(r"averag", "mlp", "cnn", mend=lambda script: _swa(script, True))
def average_never_fed(script: Script) -> None:
    _swa(script, False)
