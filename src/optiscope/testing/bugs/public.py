"""Kinds of fault that are known to whoever writes rules: they measure regressions, not quality."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from optiscope.testing.bugs.kind import registry
from optiscope.testing.bugs.script import Script

__all__ = ["PUBLIC"]

PUBLIC, kind = registry()
"""Kinds by name."""


def linears(model: nn.Module) -> list[nn.Linear]:
    """Linear layers in order."""
    return [m for m in model.modules() if isinstance(m, nn.Linear)]


def again(script: Script) -> None:
    """Build the optimizer anew, with its settings, for the model as it is now."""
    kind_of = type(script.optimizer)
    known = inspect.signature(kind_of).parameters
    settings = {k: v for k, v in script.optimizer.defaults.items() if k in known}
    script.optimizer = kind_of(script.model.parameters(), **settings)


def new_head(script: Script, classes: int) -> None:
    """Put a new last layer into a sequential model."""
    name, head = list(script.model.named_children())[-1]
    script.model.add_module(name, nn.Linear(linears(head)[0].in_features, classes))


def with_last(script: Script, *layers: nn.Module) -> None:
    """Append layers to the model."""
    script.model = nn.Sequential(script.model, *layers)


def cleared_after_step(script: Script) -> None:
    """Clear gradients at the end of a step instead of its beginning."""
    before = script.after_step

    def clear() -> None:
        before()
        script.optimizer.zero_grad()

    script.replace(zero=lambda: None, after_step=clear)


@kind(
    r"zero_grad|not_cleared|cleared",
    "mlp", "adam", "cnn", "lstm", "gpt", "diffusion", "regression", "segmentation", "gan",
    mend=cleared_after_step,
)  # fmt: skip
def no_zero_grad(script: Script) -> None:
    script.replace(zero=lambda: None)


@kind(r"without (a )?gradient|zero_grad|no gradient|cleared before", "mlp", "gpt")
def zero_after_backward(script: Script) -> None:
    script.replace(before_step=lambda: script.optimizer.zero_grad())


@kind(r"never_step|step\(\)|no step", "mlp", "lstm")
def no_step(script: Script) -> None:
    script.replace(step=lambda: None)


def log_softmax_and_nll(script: Script) -> None:
    with_last(script, nn.LogSoftmax(1))
    script.criterion = nn.NLLLoss()


@kind(r"softmax", "mlp", "adam", "cnn", "gpt", "segmentation", mend=log_softmax_and_nll)
def softmax_before_loss(script: Script) -> None:
    with_last(script, nn.Softmax(1))


@kind(r"squash|sigmoid|activation", "mlp", "adam")
def sigmoid_before_loss(script: Script) -> None:
    with_last(script, nn.Sigmoid())


@kind(r"rectif|relu|activation", "mlp", "cnn")
def rectifier_before_loss(script: Script) -> None:
    with_last(script, nn.ReLU())


@kind(r"nll|log.?prob|axis|mix|dim", "mlp", "adam", mend=log_softmax_and_nll)
def log_softmax_over_batch(script: Script) -> None:
    with_last(script, nn.LogSoftmax(0))
    script.criterion = nn.NLLLoss()


@kind(r"symmetr|zero.?init|initiali|constant weights|dead|same", "mlp", "adam")
def zero_weights(script: Script) -> None:
    for p in script.model.parameters():
        nn.init.zeros_(p)


@kind(r"symmetr|identical|same|initiali|constant", "mlp", "regression")
def constant_weights(script: Script) -> None:
    for layer in linears(script.model):
        nn.init.constant_(layer.weight, 0.02)


@kind(r"dead", "mlp")
def dead_units(script: Script) -> None:
    for layer in linears(script.model)[:-1]:
        nn.init.constant_(layer.bias, -12.0)


def tanh(script: Script) -> None:
    script.model = nn.Sequential(
        *[nn.Tanh() if isinstance(m, nn.ReLU) else m for m in script.model.children()]
    )


@kind(r"saturat", "mlp", mend=tanh)
def saturated_units(script: Script) -> None:
    tanh(script)
    for layer in linears(script.model):
        nn.init.normal_(layer.weight)


@kind(r"initial_loss|initial loss|starts? at|initiali", "mlp", "adam", "cnn")
def large_initial_weights(script: Script) -> None:
    for layer in linears(script.model):
        nn.init.normal_(layer.weight)


def frozen_pretrained(script: Script) -> None:
    first = linears(script.model)[0]
    with torch.no_grad():
        first.weight.copy_(torch.nn.init.orthogonal_(torch.empty_like(first.weight)))
    first.requires_grad_(False)
    trainable = [p for p in script.model.parameters() if p.requires_grad]
    script.optimizer = torch.optim.SGD(trainable, 0.1)


@kind(r"frozen|requires_grad|not train", "mlp", "adam", mend=frozen_pretrained)
def frozen_at_random(script: Script) -> None:
    for layer in linears(script.model)[:-1]:
        layer.requires_grad_(False)


class PlainList(nn.Module):
    def __init__(self, container: type[Any]) -> None:
        super().__init__()
        self.body = container([nn.Linear(64, 64), nn.Linear(64, 64)])
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = x.flatten(1)
        for layer in self.body:
            h = layer(h).relu()
        out: Tensor = self.head(h)
        return out


def module_list(script: Script) -> None:
    script.model = PlainList(nn.ModuleList)
    again(script)


@kind(r"not_in_optimizer|not regist|ModuleList|not hold", "mlp", mend=module_list)
def plain_list(script: Script) -> None:
    script.model = PlainList(list)
    again(script)


class Cut(nn.Module):
    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x).detach())
        return out


@kind(r"unused|detach|no gradient|never (get|receive)", "mlp", "cnn")
def detached_body(script: Script) -> None:
    parts = list(script.model.children())
    script.model = Cut(nn.Sequential(*parts[:-1]), parts[-1])


def slow_but_moving(script: Script) -> None:
    for group in script.optimizer.param_groups:
        group["lr"] *= 0.5


@kind(
    r"too_small|too small|too low|tiny rate", "mlp", "adam", "lstm", "regression",
    mend=slow_but_moving,
)  # fmt: skip
def rate_too_small(script: Script) -> None:
    for group in script.optimizer.param_groups:
        group["lr"] *= 1e-4


@kind(r"rate.{0,20}(too_large|too large|too high)|too_large", "mlp", "adam", "lstm", "gpt")
def rate_too_large(script: Script) -> None:
    factor = 300.0 if isinstance(script.optimizer, torch.optim.SGD) else 1000.0
    for group in script.optimizer.param_groups:
        group["lr"] *= factor


def decaying(script: Script) -> None:
    script.scheduler = torch.optim.lr_scheduler.ExponentialLR(script.optimizer, 0.8)


@kind(r"rising|rises|grows|increas", "mlp", "adam", mend=decaying)
def rate_rising(script: Script) -> None:
    for group in script.optimizer.param_groups:
        group["lr"] *= 0.02
    script.scheduler = torch.optim.lr_scheduler.ExponentialLR(script.optimizer, 1.8)


def cosine_per_batch(script: Script) -> None:
    script.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(script.optimizer, script.steps)
    script.scheduler_per = "batch"


@kind(r"collaps|per (batch|epoch)|decay(s|ed)? too|vanish", "mlp", "cnn", mend=cosine_per_batch)
def schedule_per_batch(script: Script) -> None:
    script.scheduler = torch.optim.lr_scheduler.StepLR(script.optimizer, 3, 0.1)
    script.scheduler_per = "batch"


def warm_up(script: Script) -> None:
    script.scheduler = torch.optim.lr_scheduler.LinearLR(script.optimizer, 0.01, total_iters=40)
    script.scheduler_per = "batch"


@kind(r"warm|schedul|too_small|too small", "mlp", "adam", mend=warm_up)
def warm_up_never_ends(script: Script) -> None:
    script.scheduler = torch.optim.lr_scheduler.LinearLR(script.optimizer, 1e-4, total_iters=10**6)
    script.scheduler_per = "batch"


def mild_decay(script: Script) -> None:
    for group in script.optimizer.param_groups:
        group["weight_decay"] = 1e-4


@kind(r"decay", "mlp", "cnn", mend=mild_decay)
def decay_too_large(script: Script) -> None:
    for group in script.optimizer.param_groups:
        group["weight_decay"] = 1.0


def head_replaced_before(script: Script) -> None:
    head_replaced(script)
    again(script)


@kind(r"not_in_optimizer|foreign|not hold", "mlp", "adam", mend=head_replaced_before)
def head_replaced(script: Script) -> None:
    new_head(script, 10)


@kind(r"foreign|not_in_optimizer|no parameters? of|not hold", "mlp", "gpt")
def model_copied(script: Script) -> None:
    script.model = copy.deepcopy(script.model)


@kind(r"not_in_optimizer|not hold", "mlp", "cnn")
def only_head_in_optimizer(script: Script) -> None:
    script.optimizer = torch.optim.SGD(linears(script.model)[-1].parameters(), 0.1)


@kind(r"prior|pairing|label|unrelated", "mlp", "adam", "cnn")
def labels_shuffled(script: Script) -> None:
    x, y = script.train
    script.train = x, y[torch.randperm(len(y), generator=torch.Generator().manual_seed(1))]


@kind(r"normali|scale of (the )?input|inputs? (have|has|reach)", "mlp", "adam", "lstm")
def inputs_as_bytes(script: Script) -> None:
    script.train = script.train[0] * 80 + 60, script.train[1]
    script.valid = script.valid[0] * 80 + 60, script.valid[1]


@kind(r"inputs?_differ|differ", "mlp", "cnn")
def valid_as_bytes(script: Script) -> None:
    script.valid = script.valid[0] * 80 + 60, script.valid[1]


@kind(r"never|label coding|start at|no label|class", "mlp", "adam")
def labels_from_one(script: Script) -> None:
    new_head(script, 11)
    again(script)
    script.train = script.train[0], script.train[1] + 1
    script.valid = script.valid[0], script.valid[1]


@kind(r"sorted", "mlp", "adam", "cnn")
def sorted_by_label(script: Script) -> None:
    order = script.train[1].argsort()
    script.replace(order=lambda epoch: iter(order.split(32)[:-1]))


@kind(r"same_order|same order|one order|not shuffled|shuffl", "mlp", "regression", "segmentation")
def same_order(script: Script) -> None:
    order = torch.randperm(1200, generator=torch.Generator().manual_seed(1))
    script.replace(order=lambda epoch: iter(order.split(32)[:-1]))


@kind(r"same (batch|sample|data|inputs?)|one batch|repeat|same_order", "mlp", "gpt")
def one_batch_forever(script: Script) -> None:
    places = torch.arange(32)
    script.replace(order=lambda epoch: iter([places] * 30))


@kind(r"eval", "cnn", "adam")
def evaluation_mode_left_on(script: Script) -> None:
    script.replace(train_mode=lambda: script.model.train() if not script.done else None)


@kind(r"evaluat.{0,40}train|train.{0,20}mode|eval\(\)", "cnn", "adam")
def evaluation_in_training_mode(script: Script) -> None:
    script.replace(eval_mode=lambda: None)


def sum_divided(script: Script) -> None:
    script.criterion = nn.CrossEntropyLoss(reduction="sum")
    script.replace(loss=lambda x, y: script.criterion(script.forward(x), y) / len(x))


@kind(r"sum", "mlp", "adam", mend=sum_divided)
def summed_loss(script: Script) -> None:
    script.criterion = nn.CrossEntropyLoss(reduction="sum")


def accumulated(script: Script) -> None:
    script.accumulate, script.batch_size, script.steps = 4, 16, 80


@kind(r"sum|accumul|divid", "mlp", "adam", mend=accumulated)
def accumulation_not_divided(script: Script) -> None:
    accumulated(script)
    backward = script.backward
    script.replace(backward=lambda loss: backward(loss * 4))


@kind(r"ascent|maximi|sign|uphill", "mlp", "adam")
def ascent(script: Script) -> None:
    backward = script.backward
    script.replace(backward=lambda loss: backward(-loss))


@kind(r"graph|retain|memory", "mlp", "lstm")
def graph_kept(script: Script) -> None:
    kept: list[Tensor] = []
    log = script.log

    def keep(loss: Tensor) -> None:
        kept.append(loss)
        log(loss)

    script.replace(log=keep)


def clipped(script: Script) -> None:
    script.replace(before_step=lambda: nn.utils.clip_grad_norm_(script.model.parameters(), 5.0))


@kind(r"clip", "mlp", "lstm", mend=clipped)
def clipped_to_nothing(script: Script) -> None:
    script.replace(before_step=lambda: nn.utils.clip_grad_norm_(script.model.parameters(), 1e-3))


def some_dropout(script: Script) -> None:
    parts = list(script.model.children())
    script.model = nn.Sequential(*parts[:-1], nn.Dropout(0.3), parts[-1])


@kind(r"dropout", "mlp", "adam", mend=some_dropout)
def dropout_confused(script: Script) -> None:
    parts = list(script.model.children())
    script.model = nn.Sequential(*parts[:-1], nn.Dropout(0.95), parts[-1])


def squeezed(script: Script) -> None:
    script.model = nn.Sequential(script.model, nn.Flatten(0))
    script.train = script.train[0], script.train[1][:, 0]
    script.valid = script.valid[0], script.valid[1][:, 0]


@kind(r"broadcast|shape", "regression", mend=squeezed)
def targets_broadcast(script: Script) -> None:
    script.train = script.train[0], script.train[1][:, 0]
    script.valid = script.valid[0], script.valid[1][:, 0]


@kind(r"precision|bfloat16|bf16|rounding|lost|half", "mlp", "regression")
def updates_lost_to_rounding(script: Script) -> None:
    script.model.to(torch.bfloat16)
    script.optimizer = torch.optim.SGD(script.model.parameters(), 2e-4)
    script.train = script.train[0].bfloat16(), _as(script.train[1])
    script.valid = script.valid[0].bfloat16(), _as(script.valid[1])


def _as(targets: Tensor) -> Tensor:
    return targets.bfloat16() if targets.is_floating_point() else targets


@kind(r"finite|nan", "mlp", "regression")
def nan_in_the_inputs(script: Script) -> None:
    x = script.train[0].clone()
    x[500, ..., 0] = torch.nan
    script.train = x, script.train[1]


@kind(r"mix|other samples|axis|batch dim|over.batch", "mlp")
def softmax_over_batch_inside(script: Script) -> None:
    parts = list(script.model.children())
    script.model = nn.Sequential(*parts[:-1], nn.Softmax(0), parts[-1])


@kind(r"reach|range|activation|negative|target", "regression")
def targets_out_of_reach(script: Script) -> None:
    with_last(script, nn.ReLU())


@kind(r"unused|never (called|used)|no gradient", "gpt", "lstm")
def layer_never_used(script: Script) -> None:
    script.model.add_module("spare", nn.Linear(32, 32))
    again(script)


@kind(r"detach|no gradient|without gradient|step_without", "gan")
def generator_detached(script: Script) -> None:
    script.replace(for_generator=lambda points: points.detach())


@kind(r"zero_grad|not_cleared|cleared", "gan")
def critic_not_cleared(script: Script) -> None:
    script.replace(zero=lambda: None)


def smooth_labels(script: Script) -> None:
    script.criterion = nn.CrossEntropyLoss(label_smoothing=0.1)


@kind(r"smooth", "mlp", "adam", mend=smooth_labels)
def smoothed_to_nothing(script: Script) -> None:
    script.criterion = nn.CrossEntropyLoss(label_smoothing=0.95)
