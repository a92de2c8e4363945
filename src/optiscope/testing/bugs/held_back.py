"""Kinds of fault that were written without sight of any rule, to be scored once.

The figure that counts is how many of these a tool names. Whoever writes rules does not look here.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from optiscope.testing.bugs.kind import registry
from optiscope.testing.bugs.public import again, linears
from optiscope.testing.bugs.script import Attention, Gan, Recurrent, Script

__all__ = ["HELD_BACK"]

HELD_BACK, kind = registry()
"""Kinds by name."""


@kind(r"state|recreat|re-?creat|new optimizer|rebuilt|reset|momentum", "adam", "cnn")
def optimizer_recreated_each_step(script: Script) -> None:
    def clear() -> None:
        again(script)
        script.optimizer.zero_grad()

    script.replace(zero=clear)


@kind(r"reset|restor|overwrit|reload|load_state|outside|changed between|went back", "mlp", "adam")
def weights_reloaded_each_epoch(script: Script) -> None:
    start = copy.deepcopy(script.model.state_dict())
    script.replace(epoch_end=lambda epoch: script.model.load_state_dict(start))


class PartlyNoGrad(nn.Module):
    def __init__(self, parts: list[nn.Module], off: bool) -> None:
        super().__init__()
        self.body, self.head, self.off = nn.Sequential(*parts[:-1]), parts[-1], off

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.off):
            h = self.body(x)
        out: Tensor = self.head(h)
        return out


def grad_left_on(script: Script) -> None:
    script.model = PartlyNoGrad(list(script.model.children()), False)


@kind(r"unused|no_grad|no gradient|detach|never (get|receive)", "mlp", "cnn", mend=grad_left_on)
def no_grad_around_the_body(script: Script) -> None:
    script.model = PartlyNoGrad(list(script.model.children()), True)


@kind(r"detach|no gradient|without gradient|unused|never (get|receive|reach)", "mlp", "lstm")
def loss_on_a_copy_of_the_output(script: Script) -> None:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        copied = script.forward(x).detach().clone().requires_grad_()
        value: Tensor = script.criterion(copied, y)
        return value

    script.replace(loss=loss)


def gradient_hooked(script: Script) -> None:
    for p in script.model.parameters():
        p.register_hook(lambda g: g.clone())


@kind(r"sign|ascent|uphill|revers|negat|opposite|maximi", "mlp", "adam", mend=gradient_hooked)
def gradient_reversed_by_a_hook(script: Script) -> None:
    for p in script.model.parameters():
        p.register_hook(lambda g: -g)


def scaled_and_unscaled(script: Script) -> None:
    backward = script.backward
    script.replace(backward=lambda loss: backward(loss * 1024))

    def unscale() -> None:
        for p in script.model.parameters():
            if p.grad is not None:
                p.grad /= 1024

    script.replace(before_step=unscale)


@kind(
    r"scal(e|ed|ing)|unscal|loss.{0,20}(multipl|factor)|sum|too_large|too large",
    "mlp", "cnn",
    mend=scaled_and_unscaled,
)  # fmt: skip
def scaled_loss_never_unscaled(script: Script) -> None:
    backward = script.backward
    script.replace(backward=lambda loss: backward(loss * 1024))


@kind(r"divid|scal|too_small|too small|tiny", "mlp", "regression")
def loss_divided_by_the_data_set(script: Script) -> None:
    backward = script.backward
    script.replace(backward=lambda loss: backward(loss / 60_000))
    script.optimizer = torch.optim.SGD(script.model.parameters(), 0.05)


def batches_of_eight(script: Script) -> None:
    script.batch_size = 8


@kind(
    r"batch.?(norm|size).{0,40}(one|1|single)|single sample|batch_norm|of one",
    "cnn",
    mend=batches_of_eight,
)
def batch_norm_of_single_samples(script: Script) -> None:
    script.batch_size = 1


@kind(r"mix|batch_first|other samples|axis|batch dim", "lstm")
def batch_axis_taken_for_time(script: Script) -> None:
    script.model = Recurrent(batch_first=False)
    again(script)


@kind(r"causal|future|leak|ahead|sees? (the )?target", "gpt")
def mask_forgotten(script: Script) -> None:
    for module in script.model.modules():
        if isinstance(module, Attention):
            module.causal = False


@kind(r"shift|copy|copies|same as (the )?input|target.{0,20}input|input.{0,20}target|leak", "gpt")
def targets_not_shifted(script: Script) -> None:
    script.train = script.train[0], script.train[0]
    script.valid = script.valid[0], script.valid[0]


@kind(r"twice|two backward|double|backward.{0,30}(step|2)|sum|accumul", "mlp", "regression")
def backward_twice(script: Script) -> None:
    def backward(loss: Tensor) -> None:
        loss.backward(retain_graph=True)
        loss.backward()

    script.replace(backward=backward)


@kind(r"twice|two steps|double|steps?.{0,30}(same|one) (gradient|backward)|stale", "mlp", "cnn")
def step_twice(script: Script) -> None:
    script.replace(step=lambda: (script.optimizer.step(), script.optimizer.step())[1])


def average_beside(script: Script) -> None:
    kept = copy.deepcopy(script.model)

    def update() -> None:
        with torch.no_grad():
            for a, p in zip(kept.parameters(), script.model.parameters(), strict=True):
                a.lerp_(p, 0.01)

    script.replace(after_step=update)


@kind(
    r"overwrit|outside|changed (between|after)|undone|restor|not by the optimizer|moved",
    "mlp",
    "adam",
    mend=average_beside,
)
def average_written_back(script: Script) -> None:
    kept = copy.deepcopy(script.model)

    def update() -> None:
        with torch.no_grad():
            for a, p in zip(kept.parameters(), script.model.parameters(), strict=True):
                a.lerp_(p, 0.001)
                p.copy_(a)

    script.replace(after_step=update)


@kind(
    r"clamp|clip|overwrit|outside|changed (between|after)|not by the optimizer|bound",
    "mlp",
    "regression",
)
def weights_clamped(script: Script) -> None:
    def clamp() -> None:
        with torch.no_grad():
            for p in script.model.parameters():
                p.clamp_(-0.01, 0.01)

    script.replace(after_step=clamp)


@kind(r"foreign|not_in_optimizer|not hold|other model|another|never_step|wrong", "gan")
def optimizers_swapped(script: Script) -> None:
    assert isinstance(script, Gan)
    script.optimizer, script.generator_optimizer = script.generator_optimizer, script.optimizer
    script.extra = [(script.generator_net, script.generator_optimizer, script.criterion)]


@kind(
    r"overlap|same (data|samples|inputs|batch)|leak|in both|evaluat.{0,30}train",
    "mlp",
    "adam",
    "segmentation",
)
def validated_on_training_data(script: Script) -> None:
    script.valid = script.train[0][:300], script.train[1][:300]


class AlwaysDropout(nn.Module):
    def __init__(self, model: nn.Module, right: bool) -> None:
        super().__init__()
        self.model, self.right = model, right

    def forward(self, x: Tensor) -> Tensor:
        on = self.training if self.right else True
        out: Tensor = self.model(functional.dropout(x, 0.3, training=on))
        return out


def dropout_by_mode(script: Script) -> None:
    script.model = AlwaysDropout(script.model, True)


@kind(
    r"dropout|random|stochastic|differ.{0,30}same|not determin|evaluat",
    "mlp",
    "regression",
    mend=dropout_by_mode,
)
def dropout_stays_on_in_evaluation(script: Script) -> None:
    script.model = AlwaysDropout(script.model, False)


def weighted_classes(script: Script) -> None:
    weight = torch.ones(10)
    weight[3] = 2.0
    script.criterion = nn.CrossEntropyLoss(weight=weight)


@kind(
    r"class.{0,40}(weight|never|no gradient|ignored|missing)|weight.{0,20}(0|zero)|never|ignor",
    "mlp",
    "cnn",
    mend=weighted_classes,
)
def class_of_weight_zero(script: Script) -> None:
    weight = torch.ones(10)
    weight[3] = 0.0
    script.criterion = nn.CrossEntropyLoss(weight=weight)


def ignores_padding(script: Script) -> None:
    script.criterion = nn.CrossEntropyLoss(ignore_index=-100)


@kind(
    r"ignor|class.{0,40}(never|no gradient|missing)|never|mask|weight",
    "mlp",
    "gpt",
    mend=ignores_padding,
)
def real_class_ignored(script: Script) -> None:
    script.criterion = nn.CrossEntropyLoss(ignore_index=0)


def masked(script: Script, keep: bool) -> None:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        each = functional.cross_entropy(script.forward(x), y, reduction="none")
        padded = torch.zeros_like(each, dtype=torch.bool)
        padded[..., -1] = True
        mask = (~padded if keep else padded).float()
        return (each * mask).sum() / mask.sum()

    script.replace(loss=loss)


def mask_upright(script: Script) -> None:
    masked(script, True)


@kind(
    r"mask|ignor|few (samples|positions)|weight|no gradient",
    "gpt",
    "segmentation",
    mend=mask_upright,
)
def mask_inverted(script: Script) -> None:
    masked(script, False)


@kind(r"constant|identical|same (sample|input)|all inputs|vary|blank|zero", "mlp", "cnn")
def loader_returns_blanks(script: Script) -> None:
    batch = script.batch
    script.replace(batch=lambda places: (batch(places)[0] * 0, batch(places)[1]))


@kind(r"running|momentum|batch.?norm|statist", "cnn")
def running_statistics_never_updated(script: Script) -> None:
    for module in script.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0


def default_epsilon(script: Script) -> None:
    for group in script.optimizer.param_groups:
        group["eps"] = 1e-7


@kind(r"eps|too_small|too small", "adam", "diffusion", mend=default_epsilon)
def epsilon_of_a_thousand(script: Script) -> None:
    for group in script.optimizer.param_groups:
        group["eps"] = 1e3


def more_momentum(script: Script) -> None:
    for group in script.optimizer.param_groups:
        group["momentum"] = 0.95


@kind(r"momentum|overshoot|oscillat|too_large|too large|accumulat", "cnn", mend=more_momentum)
def momentum_without_loss(script: Script) -> None:
    for group in script.optimizer.param_groups:
        group["momentum"] = 0.9999


def two_rates(script: Script, small: float) -> None:
    layers = linears(script.model)
    head = list(layers[-1].parameters())
    held = {id(p) for p in head}
    body = [p for p in script.model.parameters() if id(p) not in held]
    groups: list[dict[str, Any]] = [{"params": body, "lr": 0.1 * small}, {"params": head}]
    script.optimizer = torch.optim.SGD(groups, 0.1)


def discriminative_rates(script: Script) -> None:
    two_rates(script, 0.3)


@kind(
    r"rate_zero|group|rate (of|is) (0|zero)|frozen|not (train|mov)|unchanged|never move|too_small",
    "mlp",
    "cnn",
    mend=discriminative_rates,
)
def one_group_at_rate_zero(script: Script) -> None:
    two_rates(script, 0.0)


@kind(r"target.{0,40}(scale|large|normali|standard)|scale|initial_loss|initial loss", "regression")
def targets_in_the_ten_thousands(script: Script) -> None:
    script.train = script.train[0], script.train[1] * 1e4 + 5e4
    script.valid = script.valid[0], script.valid[1] * 1e4 + 5e4


@kind(r"repeat|same (noise|random|numbers|target|draw)|seed|same_order|random", "diffusion")
def noise_seeded_in_every_step(script: Script) -> None:
    flat = script.train[0]

    def batch(places: Tensor) -> tuple[Tensor, Tensor]:
        from optiscope.testing.bugs.script import noised

        return noised(flat[places], torch.Generator().manual_seed(0))

    script.replace(batch=batch)


@kind(
    r"constant|targets?.{0,30}(same|vary|constant|one value)|one class|single class|all label",
    "mlp",
    "regression",
)
def targets_constant(script: Script) -> None:
    script.train = script.train[0], torch.zeros_like(script.train[1])


@kind(
    r"stale|old (loss|graph|batch)|same (loss|batch)|previous|lag|pairing|unrelated|prior|label",
    "mlp",
    "adam",
)
def labels_of_the_batch_before(script: Script) -> None:
    last: list[Tensor] = []
    batch = script.batch

    def late(places: Tensor) -> tuple[Tensor, Tensor]:
        x, y = batch(places)
        last.append(y)
        return x, last[-2] if len(last) > 1 else y

    script.replace(batch=late)
