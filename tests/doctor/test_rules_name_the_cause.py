"""One injected bug for each rule: the rule is named, and no other alarm stands before it."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

from healthy_loops import TinyLanguageModel, batches, digits, evaluate, mlp, tokens

from optiscope.doctor.watching import watch

Attach = Callable[..., Any]
SGD = torch.optim.SGD


def loop(
    attach: Attach,
    model: nn.Module | None = None,
    make: Callable[[nn.Module], Any] = lambda m: SGD(m.parameters(), 0.1),
    *,
    steps: int = 60,
    criterion: Any = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    data: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda x, y: (x, y),
    feed: Any = None,
    before: Callable[[int, nn.Module, Any], None] = lambda step, model, optimizer: None,
    after: Callable[[int, nn.Module, Any], None] = lambda step, model, optimizer: None,
    schedule: Callable[[Any], Any] | None = None,
    per_epoch: bool = True,
) -> None:
    model = model or mlp()
    optimizer = make(model)
    criterion = criterion or nn.CrossEntropyLoss()
    scheduler = schedule(optimizer) if schedule else None
    attach(model, optimizer, criterion if loss is None else None)
    for step, (x, y) in enumerate(feed or batches(steps)):
        x, y = data(x, y)
        before(step, model, optimizer)
        optimizer.zero_grad()
        out = model(x)
        (criterion(out, y) if loss is None else loss(out, y)).backward()
        optimizer.step()
        if scheduler is not None and (not per_epoch or step % 12 == 11):
            scheduler.step()
        after(step, model, optimizer)


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).relu().detach())


class Unused(Detached):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


class PlainList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = [nn.Linear(64, 64)], nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body[0](x).relu())


class FunctionalDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(self.body(x).relu(), 0.3))


class Mixing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        return self.head(h * h.softmax(0) * 10)


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.1
        return self.head(x)


def frozen(attach: Attach) -> None:
    model = mlp()
    model[0].requires_grad_(False)
    loop(attach, model)


def replaced_head(attach: Attach) -> None:
    def make(m: nn.Module) -> Any:
        optimizer = SGD(m.parameters(), 0.1)
        m[4] = nn.Linear(64, 10)  # type: ignore[operator]
        return optimizer

    loop(attach, make=make)


def copied(attach: Attach) -> None:
    original = mlp()
    loop(attach, copy.deepcopy(original), lambda m: SGD(original.parameters(), 0.1))


def recreated(attach: Attach) -> None:
    model, criterion = mlp(), nn.CrossEntropyLoss()
    attach(model, torch.optim.Adam(model.parameters(), 1e-3), criterion)
    for x, y in batches(30):
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        criterion(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()


def no_zero_grad(attach: Attach) -> None:
    model, criterion = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    attach(model, optimizer, criterion)
    for x, y in batches(20):
        criterion(model(x), y).backward()
        optimizer.step()


def cleared(attach: Attach) -> None:
    model, criterion = mlp(), nn.CrossEntropyLoss()
    optimizer = SGD(model.parameters(), 0.1)
    attach(model, optimizer, criterion)
    for x, y in batches(20):
        criterion(model(x), y).backward()
        optimizer.zero_grad()
        optimizer.step()


def never_stepped(attach: Attach) -> None:
    model, criterion = mlp(), nn.CrossEntropyLoss()
    optimizer = SGD(model.parameters(), 0.1)
    attach(model, optimizer, criterion)
    for x, y in batches(60):
        optimizer.zero_grad()
        criterion(model(x), y).backward()


def stepped_twice(attach: Attach) -> None:
    loop(attach, after=lambda step, model, optimizer: optimizer.step(), steps=20)


def graph_kept(attach: Attach) -> None:
    kept = []

    def loss(out: Tensor, y: Tensor) -> Tensor:
        kept.append(F.cross_entropy(out, y))
        return kept[-1]

    loop(attach, loss=loss)


def clipped(attach: Attach) -> None:
    model, criterion = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    attach(model, optimizer, criterion)
    for x, y in batches(60):
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()


def summed(attach: Attach) -> None:
    loss = lambda out, y: F.cross_entropy(out, y, reduction="sum")  # noqa: E731
    loop(attach, make=adam(1e-3), loss=loss)


def accumulated(attach: Attach) -> None:
    model, criterion = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    attach(model, optimizer, criterion)
    for step, (x, y) in enumerate(batches(80)):
        criterion(model(x), y).backward()
        if step % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()


def broadcast(attach: Attach, *, criterion: bool = True) -> None:
    model = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 1))
    loss = None if criterion else lambda out, y: ((out - y) ** 2).mean()
    data = lambda x, y: (x, x[:, 20] - x[:, 30])  # noqa: E731
    loop(attach, model, criterion=nn.MSELoss(), loss=loss, data=data)


def relu_regression(attach: Attach) -> None:
    model = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 1), nn.ReLU())
    data = lambda x, y: (x, (x[:, 20] - x[:, 30])[:, None])  # noqa: E731
    loop(attach, model, criterion=nn.MSELoss(), data=data)


def eval_left_on(attach: Attach) -> None:
    def after(step: int, model: nn.Module, optimizer: Any) -> None:
        if step == 20:
            model.eval()
            with torch.no_grad():
                model(digits()[2])

    loop(attach, mlp(bn=True), after=after)


def eval_missing(attach: Attach) -> None:
    def after(step: int, model: nn.Module, optimizer: Any) -> None:
        if step == 20:
            with torch.no_grad():
                model(digits()[2])

    loop(attach, mlp(bn=True), after=after)


def evaluates(step: int, model: nn.Module, optimizer: Any) -> None:
    if step % 12 == 11:
        evaluate(model)


def with_graph(attach: Attach) -> None:
    def after(step: int, model: nn.Module, optimizer: Any) -> None:
        if step % 20 == 19:
            model.eval()
            for i in range(3):
                model(digits()[2][i * 100 : i * 100 + 100])
            model.train()

    loop(attach, after=after)


def scaled_evaluation(attach: Attach) -> None:
    def after(step: int, model: nn.Module, optimizer: Any) -> None:
        if step % 20 == 19:
            model.eval()
            with torch.no_grad():
                model(digits()[2] * 6 + 8)
            model.train()

    loop(attach, after=after)


def leaked_split(attach: Attach) -> None:
    x, _, xv, _ = digits()

    def after(step: int, model: nn.Module, optimizer: Any) -> None:
        if step % 37 == 36:
            model.eval()
            with torch.no_grad():
                mixed = torch.stack([x[:150], xv[:150]], 1).reshape(-1, 64)
                for i in range(0, 300, 50):
                    model(mixed[i : i + 50])
            model.train()

    loop(attach, after=after, steps=80)


def same_order(attach: Attach) -> None:
    x, y, _, _ = digits()
    feed = [(x[i : i + 100], y[i : i + 100]) for _ in range(4) for i in range(0, 1200, 100)]
    loop(attach, feed=feed)


def sorted_labels(attach: Attach) -> None:
    x, y, _, _ = digits()
    order = y.argsort()
    feed = [(x[order[i : i + 32]], y[order[i : i + 32]]) for i in range(0, 1184, 32)]
    loop(attach, feed=feed)


def duplicated_workers(attach: Attach) -> None:
    loop(attach, feed=[b for b in batches(30) for _ in range(2)])


def duplicated_samples(attach: Attach) -> None:
    loop(attach, data=lambda x, y: (x[:1].expand(32, 64), y[:1].expand(32)))


def one_batch(attach: Attach) -> None:
    (x, y), *_ = list(batches(1))
    loop(attach, feed=[(x, y)] * 40, after=evaluates)


def off_by_one(attach: Attach) -> None:
    loop(attach, mlp(out=11), data=lambda x, y: (x, y + 1), steps=90)


def shuffled(attach: Attach) -> None:
    x, y, *_ = digits()
    generator = torch.Generator().manual_seed(5)
    y = y[torch.randperm(len(y), generator=generator)]
    draws = (torch.randperm(len(y), generator=generator)[:32] for _ in range(130))
    loop(
        attach,
        make=lambda m: torch.optim.Adam(m.parameters(), 1e-3),
        feed=((x[i], y[i]) for i in draws),
    )


def drawn_anew(attach: Attach) -> None:
    generator = torch.Generator().manual_seed(5)
    loop(
        attach,
        make=lambda m: torch.optim.Adam(m.parameters(), 1e-3),
        data=lambda x, y: (x, y[torch.randperm(len(y), generator=generator)]),
        steps=130,
    )


def leak(attach: Attach) -> None:
    loop(
        attach,
        nn.Sequential(nn.Linear(65, 32), nn.ReLU(), nn.Linear(32, 10)),
        data=lambda x, y: (torch.cat([x, y[:, None] / 10.0], 1), y),
    )


def missing_values(attach: Attach) -> None:
    def data(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x = x.clone()
        x[0, 0] = float("nan")
        return x, y

    loop(attach, data=data, steps=12)


def in_place(attach: Attach) -> None:
    x, y, _, _ = digits()
    x = x.clone()
    feed = ((x[i : i + 32], y[i : i + 32]) for i in range(0, 600, 32))
    loop(attach, InPlace(), feed=feed)


def text_loop(attach: Attach, *, shift: int, causal: bool) -> None:
    model = TinyLanguageModel()
    if not causal:
        forward = model.body.forward
        model.body.forward = lambda h, mask=None, is_causal=False: forward(h)  # type: ignore
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    attach(model, optimizer, None)
    text = tokens()
    for _ in range(12):
        start = torch.randint(0, len(text) - 17, (16,))
        block = torch.stack([text[s : s + 17] for s in start.tolist()])
        logits = model(block[:, :-1]).reshape(-1, 40)
        target = block[:, 1:] if shift else block[:, :-1]
        optimizer.zero_grad()
        F.cross_entropy(logits, target.reshape(-1)).backward()
        optimizer.step()


def zeroed(attach: Attach) -> None:
    model = mlp()
    for p in model.parameters():
        nn.init.zeros_(p)
    loop(attach, model)


def constant(attach: Attach) -> None:
    model = mlp()
    for m in model[:3]:
        if isinstance(m, nn.Linear):
            nn.init.constant_(m.weight, 0.02)
    loop(attach, model)


def dead(attach: Attach) -> None:
    model = mlp()
    nn.init.constant_(model[2].bias, -9.0)  # type: ignore[arg-type]
    loop(attach, model, lambda m: torch.optim.AdamW(m.parameters(), 1e-3))


def saturated(attach: Attach) -> None:
    model = mlp(nn.Tanh)
    for m in model:
        if isinstance(m, nn.Linear):
            nn.init.normal_(m.weight, 0, 1.5)
    loop(attach, model, lambda m: torch.optim.Adam(m.parameters(), 1e-4))


def large_output(attach: Attach) -> None:
    model = mlp()
    nn.init.normal_(model[-1].weight, 0, 20.0)  # type: ignore[arg-type]
    loop(attach, model, lambda m: torch.optim.Adam(m.parameters(), 1e-4), steps=20)


def low_precision(attach: Attach) -> None:
    model = mlp().to(torch.bfloat16)
    data = lambda x, y: (x.to(torch.bfloat16), y)  # noqa: E731
    loop(attach, model, lambda m: SGD(m.parameters(), 1e-3), data=data)


def unscaled(attach: Attach) -> None:
    model, criterion = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    scaler = torch.amp.GradScaler("cpu")
    attach(model, optimizer, criterion)
    for x, y in batches(20):
        optimizer.zero_grad()
        scaler.scale(criterion(model(x), y)).backward()
        optimizer.step()


def swapped_decay(attach: Attach) -> None:
    def make(m: nn.Module) -> Any:
        p = list(m.parameters())
        groups = [
            {"params": [q for q in p if q.ndim > 1], "weight_decay": 0.0},
            {"params": [q for q in p if q.ndim < 2], "weight_decay": 0.1},
        ]
        return torch.optim.AdamW(groups, 1e-3)

    loop(attach, make=make, steps=12)


def schedule_free_mode(attach: Attach) -> None:
    from schedulefree import AdamWScheduleFree

    def make(m: nn.Module) -> Any:
        optimizer = AdamWScheduleFree(m.parameters(), lr=3e-3)
        optimizer.train()
        return optimizer

    loop(attach, make=make, after=evaluates)


def state_cleared(attach: Attach) -> None:
    loop(
        attach,
        make=lambda m: torch.optim.Adam(m.parameters(), 1e-3),
        after=lambda step, model, optimizer: optimizer.state.clear(),
        steps=20,
    )


def untied(attach: Attach) -> None:
    model = TinyLanguageModel()
    model.head.weight = nn.Parameter(model.embed.weight.detach().clone())
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    attach(model, optimizer, None)
    for start in range(4):
        block = tokens()[start : start + 17][None]
        optimizer.zero_grad()
        F.cross_entropy(model(block[:, :-1])[0], block[0, 1:]).backward()
        optimizer.step()


def lr(name: str, **settings: Any) -> Callable[[Any], Any]:
    return lambda o: getattr(torch.optim.lr_scheduler, name)(o, **settings)


def adam(rate: float, **settings: Any) -> Callable[[nn.Module], Any]:
    return lambda m: torch.optim.Adam(m.parameters(), rate, **settings)


BUGS: dict[str, tuple[str, Callable[[Attach], Any]]] = {
    "no zero_grad": ("gradient_not_cleared", no_zero_grad),
    "zero_grad after backward": ("gradient_cleared_before_step", cleared),
    "no step": ("never_stepped", never_stepped),
    "step twice": ("stale_gradient", stepped_twice),
    "graph kept": ("graph_retained", graph_kept),
    "clipped to nothing": ("clipping_always", clipped),
    "frozen random layer": ("frozen_at_random_init", frozen),
    "plain list": ("trainable_not_in_optimizer", lambda a: loop(a, PlainList())),
    "head replaced": ("trainable_not_in_optimizer", replaced_head),
    "model copied": ("trainable_not_in_optimizer", copied),
    "only the head": (
        "trainable_not_in_optimizer",
        lambda a: loop(a, make=lambda m: SGD(m[-1].parameters(), 0.1)),  # type: ignore[index]
    ),
    "detached": ("optimizer_param_unused", lambda a: loop(a, Detached())),
    "layer never called": ("optimizer_param_unused", lambda a: loop(a, Unused())),
    "optimizer made in the loop": ("optimizer_recreated", recreated),
    "state cleared": ("optimizer_state_lost", state_cleared),
    "weights copied, not tied": ("copied_not_tied", untied),
    "softmax": (
        "softmax_before_cross_entropy",
        lambda a: loop(a, nn.Sequential(*mlp(), nn.Softmax(1))),
    ),
    "sigmoid": (
        "squashed_before_cross_entropy",
        lambda a: loop(a, nn.Sequential(*mlp(), nn.Sigmoid())),
    ),
    "relu": ("rectified_logits", lambda a: loop(a, nn.Sequential(*mlp(), nn.ReLU()))),
    "log_softmax over the batch": (
        "log_softmax_over_batch",
        lambda a: loop(a, nn.Sequential(*mlp(), nn.LogSoftmax(0)), criterion=nn.NLLLoss()),
    ),
    "nll of logits": (
        "nll_of_non_log_probabilities",
        lambda a: loop(a, mlp(), adam(1e-3), criterion=nn.NLLLoss()),
    ),
    "sigmoid before BCE with logits": (
        "squashed_before_bce",
        lambda a: loop(
            a,
            nn.Sequential(*mlp(out=1), nn.Sigmoid()),
            criterion=nn.BCEWithLogitsLoss(),
            data=lambda x, y: (x, (y % 2).float()[:, None]),
        ),
    ),
    "broadcasting": ("loss_broadcasts", broadcast),
    "broadcasting, unseen loss": ("loss_broadcasts", lambda a: broadcast(a, criterion=False)),
    "relu before regression": ("output_cannot_reach_target", relu_regression),
    "targets of 255": (
        "target_out_of_range",
        lambda a: loop(
            a,
            mlp(out=1),
            criterion=nn.BCEWithLogitsLoss(),
            data=lambda x, y: (x, (y % 2).float()[:, None] * 255),
        ),
    ),
    "sum": ("loss_summed", summed),
    "accumulated": ("accumulation_not_divided", accumulated),
    "ascent": ("loss_ascends", lambda a: loop(a, loss=lambda o, y: -F.cross_entropy(o, y))),
    "maximize": (
        "loss_ascends",
        lambda a: loop(a, make=lambda m: SGD(m.parameters(), 0.1, maximize=True)),
    ),
    "eval left on": ("trained_in_eval", eval_left_on),
    "eval missing": ("evaluated_in_train", eval_missing),
    "dropout of 0.95": (
        "dropout_too_high",
        lambda a: loop(a, nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.95), nn.Linear(64, 10))),
    ),
    "dropout twice": (
        "dropout_twice",
        lambda a: loop(
            a, nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.5), nn.Dropout(0.5), nn.Linear(64, 10))
        ),
    ),
    "functional dropout": (
        "dropout_in_evaluation",
        lambda a: loop(a, FunctionalDropout(), after=evaluates),
    ),
    "batch norm's momentum": (
        "batch_norm_momentum_confused",
        lambda a: loop(
            a,
            nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64, momentum=0.99), nn.Linear(64, 10)),
        ),
    ),
    "batch norm that never moves": (
        "batch_norm_statistics_unused",
        lambda a: loop(
            a,
            nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64, momentum=0.0), nn.Linear(64, 10)),
            after=evaluates,
        ),
    ),
    "samples mix": ("samples_mix", lambda a: loop(a, Mixing())),
    "evaluation with a graph": ("evaluated_with_gradients", with_graph),
    "evaluation in training weights": ("optimizer_in_train_mode", schedule_free_mode),
    "evaluation scaled otherwise": ("inputs_differ_train_eval", scaled_evaluation),
    "leak across the split": ("evaluation_overlaps_training", leaked_split),
    "same order": ("same_order_every_epoch", same_order),
    "sorted": ("batches_sorted", sorted_labels),
    "workers with one seed": ("batches_repeated", duplicated_workers),
    "samples duplicated": ("samples_duplicated", duplicated_samples),
    "one batch": ("same_batch_every_step", one_batch),
    "labels off by one": ("output_never_a_label", off_by_one),
    "labels shuffled": ("labels_unrelated_to_inputs", shuffled),
    "labels drawn anew": ("labels_change", drawn_anew),
    "label among the inputs": ("target_leaks_into_input", leak),
    "targets not shifted": ("target_is_input", lambda a: text_loop(a, shift=0, causal=True)),
    "no causal mask": ("future_visible", lambda a: text_loop(a, shift=1, causal=False)),
    "inputs of 255": (
        "inputs_not_normalized",
        lambda a: loop(a, make=adam(1e-3), data=lambda x, y: ((x + 1) * 60, y)),
    ),
    "inputs missing": ("inputs_not_finite", missing_values),
    "inputs all zero": (
        "inputs_constant",
        lambda a: loop(a, data=lambda x, y: ((x / 255).to(torch.uint8).float(), y)),
    ),
    "input changed in place": ("input_changed_in_place", in_place),
    "zero init": ("zero_weights", zeroed),
    "constant init": ("symmetric_units", constant),
    "dead": ("dead_units", dead),
    "saturated": ("saturated_units", saturated),
    "initial loss": ("initial_loss_high", large_output),
    "rate too small": ("rate_too_small", lambda a: loop(a, make=adam(1e-7), steps=100)),
    "rate too large": ("rate_too_large", lambda a: loop(a, make=adam(3.0), steps=60)),
    "rate zero": ("rate_zero", lambda a: loop(a, make=adam(0.0), steps=100)),
    "rate rising": (
        "rate_rising",
        lambda a: loop(a, make=adam(1e-3), schedule=lr("ExponentialLR", gamma=1.3), steps=80),
    ),
    "rate collapsed": (
        "rate_collapsed",
        lambda a: loop(
            a, schedule=lr("StepLR", step_size=3, gamma=0.1), per_epoch=False, after=evaluates
        ),
    ),
    "cosine past its end": (
        "schedule_in_wrong_unit",
        lambda a: loop(
            a, schedule=lr("CosineAnnealingLR", T_max=10), per_epoch=False, after=evaluates
        ),
    ),
    "one cycle per epoch": (
        "schedule_in_wrong_unit",
        lambda a: loop(
            a, schedule=lr("OneCycleLR", max_lr=0.3, total_steps=1200), after=evaluates
        ),
    ),
    "warm-up per epoch": (
        "schedule_in_wrong_unit",
        lambda a: loop(
            a,
            schedule=lr("LinearLR", start_factor=0.01, total_iters=500),
            after=evaluates,
            steps=80,
        ),
    ),
    "warm-up that never ends": (
        "warmup_never_ends",
        lambda a: loop(
            a,
            schedule=lr("LinearLR", start_factor=0.05, total_iters=50_000),
            per_epoch=False,
            after=evaluates,
            steps=80,
        ),
    ),
    "scheduler never stepped": (
        "scheduler_never_stepped",
        lambda a: loop(
            a, make=scheduled, after=evaluates, steps=60
        ),
    ),
    "decay": ("decay_dominates", lambda a: loop(a, make=adam(1e-3, weight_decay=1.0))),
    "decay on biases": ("decay_on_wrong_parameters", swapped_decay),
    "betas": (
        "adam_betas_confused",
        lambda a: loop(a, make=adam(1e-4, betas=(0.1, 0.001)), steps=12),
    ),
    "updates lost": ("update_lost", low_precision),
    "loss scale left in": ("loss_scale_left_in", unscaled),
    "no activation": (
        "activation_missing",
        lambda a: loop(a, nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 10)), steps=12),
    ),
    "loss of the first sample": (
        "samples_ignored",
        lambda a: loop(a, loss=lambda o, y: F.cross_entropy(o[:8], y[:8])),
    ),
    "seeded in the loop": (
        "generator_reset",
        lambda a: loop(
            a,
            nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10)),
            before=lambda step, model, optimizer: torch.manual_seed(0) and None,
            steps=30,
        ),
    ),
    "a group without rate": (
        "weights_unchanged",
        lambda a: loop(
            a,
            make=lambda m: SGD(
                [{"params": m[0].parameters(), "lr": 0.0}, {"params": m[2:].parameters()}], 0.1
            ),
            steps=82,
        ),
    ),
}  # fmt: skip

KEPT: list[Any] = []


def scheduled(m: nn.Module) -> Any:
    optimizer = SGD(m.parameters(), 0.1)
    KEPT[:] = [torch.optim.lr_scheduler.StepLR(optimizer, 10)]
    return optimizer


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "bug",
    # every second one in the plain suite: all of them take a minute
    [pytest.param(b, marks=pytest.mark.slow) if i % 2 else b for i, b in enumerate(BUGS)],
)
def test_the_cause_is_named_first(bug: str) -> None:
    expected, run = BUGS[bug]
    watches = []

    def attach(model: Any, optimizer: Any, loss: Any = None) -> Any:
        watches.append(watch(model, optimizer, loss, on_finding="log"))
        return watches[-1]

    run(attach)
    (one,) = watches
    one.close()
    assert not one.failures
    alarms = [f for f in one.findings if f.is_alarm]
    assert expected in [f.rule for f in alarms]
    assert alarms[0].rule == expected, [str(f) for f in alarms]
    assert all(f.remedy and f.sentence for f in alarms)


def test_every_rule_has_a_bug() -> None:
    from optiscope.doctor.rules import RULES

    known = {name for rule in RULES for name in rule.names()}
    tested = {rule for rule, _ in BUGS.values()}
    assert tested <= known
    others = {
        "step_without_gradient", "step_after_next_forward", "zero_gradient", "gradient_vanishes",
        "gradient_explodes", "not_finite", "optimizer_holds_foreign",
        "update_ascends", "weights_reset",
        "parameters_replaced", "parameters_share_storage", "model_bypassed", "double_log_softmax",
        "batch_norm_of_one", "inputs_drift", "loss_at_prior", "targets_unrelated",
        "rate_range_test", "activation_hint", "momentum_too_large", "fp16_without_loss_scale",
        "ranks_differ",
        "ranks_see_same_data",
        # those of test_subtle_faults.py
        "accumulation_cleared", "gradient_changed_after_step", "gradient_is_not_the_derivative",
        "label_smoothing_too_high", "cross_entropy_of_one_class", "class_ignored",
        "class_weight_zero", "class_weights_inverted", "loss_arguments_swapped",
        "target_has_gradient", "loss_is_zero", "margin_target_not_sign",
        "ctc_of_non_log_probabilities", "blank_is_a_label", "rate_given_as_logarithm",
        "count_negative", "view_exchanges_axes", "softmax_over_batch", "softmax_over_queries",
        "image_axes_mixed", "targets_repeated", "targets_sorted", "padding_in_loss",
        "padding_changes_output", "order_invisible", "past_invisible", "adam_eps_underflows",
        "adam_eps_too_large", "group_rates_far_apart", "scheduler_of_other_optimizer",
        "plateau_mode_wrong", "outputs_all_equal", "evaluation_on_training_data",
        "evaluation_unlike_training", "labels_differ_train_eval", "targets_differ_train_eval",
        "evaluation_is_random", "weights_changed_by_evaluation", "average_never_updated",
        "features_reordered", "argument_ignored", "divergence_of_non_log_probabilities",
        "dropout_of_output", "frozen_batch_norm_moves", "inputs_scaled_by_batch",
        "kept_weights_not_copied", "loss_divided_twice", "module_repeated",
        "place_in_batch_matters", "rate_set_without_effect", "schedule_factor_is_a_rate",
        "targets_not_scaled", "update_undone",
    }  # fmt: skip
    assert known - tested <= others
