"""Sound training loops of many kinds, each drawn from a seed: an alarm on one of them is false.

`supervised` draws a task, a network, a loss, an optimizer, a schedule and up to two habits from the
tables in `settings`. The others are loops of their own: adversarial, contrastive, reinforced,
recurrent, distilled and so on.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from optiscope.testing.bugs.script import Attach, Gpt, digits, mlp, noised, tokens
from optiscope.testing.bugs.settings import NETWORKS, OPTIMIZERS, SCHEDULES, TASKS, Pair

__all__ = ["LOOPS", "SoundLoop", "sound_loops"]

Body = Callable[["SoundLoop"], None]


class SoundLoop:
    """A sound loop: ``body`` trains and calls ``watch`` where a user would put the tool's line."""

    def __init__(self, name: str, body: Body, seed: int) -> None:
        self.name, self.body, self.seed = name, body, seed
        self.draw = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.attach: Attach
        self.watches: list[Any] = []
        self.made = name

    def run(self, attach: Attach) -> list[Any]:
        """Train, and return what the tool found, over all pairs it was attached to."""
        self.attach, self.watches = attach, []
        torch.manual_seed(self.seed)
        try:
            self.body(self)
        finally:
            for watch in self.watches:
                getattr(watch, "close", lambda: None)()
        return [finding for watch in self.watches for finding in watch.findings]

    def watch(self, model: nn.Module, optimizer: Any, loss: Any, scheduler: Any = None) -> None:
        """The tool's line."""
        self.watches.append(self.attach(model, optimizer, loss, scheduler=scheduler))

    def batches(self, data: Pair, size: int, steps: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """``steps`` shuffled batches, each with the number of its epoch."""
        done = epoch = 0
        while True:
            for places in torch.randperm(len(data[0]), generator=self.generator).split(size):
                if len(places) < size:
                    continue
                yield epoch, data[0][places], data[1][places]
                done += 1
                if done == steps:
                    return
            epoch += 1

    def epochs(self, data: Pair, size: int, steps: int) -> Iterator[list[Pair]]:
        """The same by epochs."""
        known = 0
        batch: list[Pair] = []
        for epoch, x, y in self.batches(data, size, steps):
            if epoch != known:
                yield batch
                known, batch = epoch, []
            batch.append((x, y))
        yield batch


@torch.no_grad()
def evaluate(model: nn.Module, criterion: Any, data: Pair, size: int = 100) -> float:
    """Mean loss of ``data`` in evaluation mode."""
    model.eval()
    total = 0.0
    for x, y in zip(data[0].split(size), data[1].split(size), strict=True):
        total += float(criterion(model(x), y)) * len(x)
    model.train()
    return total / len(data[0])


HABITS = (
    "accumulation", "clipping", "clearing after the step", "zeros kept", "average of weights",
    "penalty", "mixup", "noise", "float64", "autocast", "scaler", "compiled", "checkpoint",
    "one sample at a time", "all samples at once", "sampling with replacement", "range test",
    "frozen body", "weights averaged at the end", "noisy gradient", "sharpness-aware", "lookahead",
    "evaluation on both sets", "no evaluation", "two groups", "loss times three",
)  # fmt: skip


def supervised(loop: SoundLoop) -> None:
    """A drawn task, network, loss, optimizer and schedule, with up to two habits."""
    draw = loop.draw
    task_name = draw.choice(list(TASKS))
    task = TASKS[task_name](loop.seed)
    network = draw.choice(task.networks)
    loss_name = draw.choice(list(task.losses))
    optimizer_name = draw.choice(list(OPTIMIZERS))
    schedule_name = draw.choice(list(SCHEDULES))
    habits = set(draw.sample(HABITS, draw.choice((0, 0, 1, 1, 2))))
    if task_name == "padded sequences":
        habits -= {"mixup", "noise", "float64", "compiled"}
    if network.startswith("spectral") or "norm" in network:
        habits -= {"compiled", "one sample at a time", "sharpness-aware"}
    if task.train[1].is_floating_point() and task_name != "denoising":
        habits -= {"autocast", "scaler"}
    if "sharpness-aware" in habits or "lookahead" in habits:
        habits &= {"sharpness-aware", "lookahead", "clipping"}
        habits -= {"lookahead"} if "sharpness-aware" in habits else set()
    if "range test" in habits:
        schedule_name = "constant"
        habits = {"range test"}
    if "scaler" in habits:
        habits -= {"compiled", "accumulation", "noisy gradient", "float64"}
    if {"one sample at a time", "all samples at once"} & habits:
        habits -= {"accumulation", "mixup", "compiled"}
        schedule_name = "constant"
    loop.made = " + ".join(
        [
            "supervised",
            task_name,
            network,
            loss_name,
            optimizer_name,
            schedule_name,
            *sorted(habits),
        ]
    )

    model = NETWORKS[network](task.shape, task.outputs)
    train, valid = task.train, task.valid
    if "float64" in habits:
        model = model.double()
        train, valid = _double(train), _double(valid)
    if "frozen body" in habits:
        _load_and_freeze(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = OPTIMIZERS[optimizer_name](parameters)
    if "two groups" in habits and len(optimizer.param_groups) == 1 and len(parameters) > 3:
        held = optimizer.param_groups[0]
        half = len(parameters) // 2
        held["params"] = parameters[half:]
        optimizer.add_param_group({"params": parameters[:half], "lr": held["lr"] / 10})
    size, steps = 32, 100
    if "one sample at a time" in habits:
        size, steps = 1, 120
        for group in optimizer.param_groups:
            group["lr"] /= 8
    if "all samples at once" in habits:
        train = train[0][:60], train[1][:60]
        size, steps = 60, 100
    per, make = SCHEDULES[schedule_name]
    accumulate = 2 if "accumulation" in habits else 1
    per_epoch = max(1, len(train[0]) // (size * accumulate))
    scheduler = make(optimizer, steps, per_epoch)
    if "range test" in habits:
        for group in optimizer.param_groups:
            group["lr"] /= 1000
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 1.08)
        per = "batch"
    criterion = task.losses[loss_name]()
    if isinstance(criterion, nn.Module) and "float64" in habits:
        criterion = criterion.double()
    called: Any = torch.compile(model, backend="aot_eager") if "compiled" in habits else model
    loop.watch(called, optimizer, criterion, scheduler)
    _train(loop, called, optimizer, criterion, scheduler, per, train, valid, size, steps, habits)


def _train(
    loop: SoundLoop, model: Any, optimizer: Any, criterion: Any, scheduler: Any, per: str,
    train: Pair, valid: Pair, size: int, steps: int, habits: set[str],
) -> None:  # fmt: skip
    """The usual loop."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12) if "scaler" in habits else None
    accumulate = 2 if "accumulation" in habits else 1
    average = copy.deepcopy(model) if "average of weights" in habits else None
    averaged = (
        torch.optim.swa_utils.AveragedModel(model)
        if "weights averaged at the end" in habits and not isinstance(model, _Compiled)
        else None
    )
    slow = [p.detach().clone() for p in model.parameters()]
    done = 0
    model.train()
    for batches in loop.epochs(train, size, steps * accumulate):
        for number, (x, y) in enumerate(batches):
            if "sampling with replacement" in habits:
                places = torch.randint(len(train[0]), (size,), generator=loop.generator)
                x, y = train[0][places], train[1][places]
            if "noise" in habits:
                x = x + 0.05 * torch.randn(x.shape, generator=loop.generator, dtype=x.dtype)

            def loss_of(x: Tensor = x, y: Tensor = y) -> Tensor:
                with torch.autocast("cpu", torch.bfloat16, enabled="autocast" in habits):
                    if "checkpoint" in habits:
                        out = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False)
                    else:
                        out = model(x)
                out = out.float() if "autocast" in habits else out
                value: Tensor = criterion(out, y)
                if "penalty" in habits:
                    value = value + 1e-4 * sum(p.square().sum() for p in model.parameters())
                return 3 * value if "loss times three" in habits else value

            first = number % accumulate == 0
            if first and "clearing after the step" not in habits:
                optimizer.zero_grad(set_to_none="zeros kept" not in habits)
            if "mixup" in habits and not y.is_floating_point():
                share = 0.3 * loop.draw.random()
                other = torch.randperm(len(x), generator=loop.generator)
                out = model((1 - share) * x + share * x[other])
                loss = (1 - share) * criterion(out, y) + share * criterion(out, y[other])
            else:
                loss = loss_of()
            loss = loss / accumulate
            (loss if scaler is None else scaler.scale(loss)).backward()
            if (number + 1) % accumulate:
                continue
            if "sharpness-aware" in habits:
                _sharpness(model, optimizer, loss_of)
            if scaler is not None:
                scaler.unscale_(optimizer)
            if "noisy gradient" in habits:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                for p in model.parameters():
                    if p.grad is not None:
                        p.grad.add_(torch.randn_like(p.grad), alpha=2e-3)
            if "clipping" in habits:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            if scaler is not None:
                scaler.step(optimizer)
                scaler.update()
            else:
                optimizer.step()
            if "clearing after the step" in habits:
                optimizer.zero_grad()
            done += 1
            if per == "batch":
                scheduler.step()
            if average is not None:
                with torch.no_grad():
                    for a, p in zip(average.parameters(), model.parameters(), strict=True):
                        a.lerp_(p, 0.1)
            if "lookahead" in habits and done % 5 == 0:
                with torch.no_grad():
                    for s, p in zip(slow, model.parameters(), strict=True):
                        p.copy_(s.lerp_(p, 0.5))
        if averaged is not None and done > steps // 2:
            averaged.update_parameters(model)
        score = 0.0
        if "no evaluation" not in habits:
            if "evaluation on both sets" in habits:
                evaluate(model, criterion, (train[0][:300], train[1][:300]))
            score = evaluate(model if average is None else average, criterion, valid)
        if per == "epoch":
            scheduler.step()
        elif per == "plateau":
            scheduler.step(score)
    if averaged is not None and averaged.n_averaged > 0 and not train[1].is_floating_point():
        loader = [(x, y) for _, x, y in loop.batches(train, 50, 6)]
        torch.optim.swa_utils.update_bn(loader, averaged)
        evaluate(averaged, criterion, valid)


_Compiled = torch._dynamo.eval_frame.OptimizedModule


def _double(pair: Pair) -> Pair:
    x, y = pair
    return x.double(), y.double() if y.is_floating_point() else y


def _load_and_freeze(model: nn.Module) -> None:
    """Weights as if loaded, and all but the last two parameters frozen."""
    parameters = list(model.parameters())
    for p in parameters[:-2]:
        with torch.no_grad():
            if p.ndim > 1:
                nn.init.orthogonal_(p, gain=1.2)
        p.requires_grad_(False)


def _sharpness(model: nn.Module, optimizer: Any, loss_of: Callable[[], Tensor]) -> None:
    """The gradient at the weights moved along the gradient (Foret et al. 2021)."""
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()
    moved = []
    with torch.no_grad():
        for p in parameters:
            assert p.grad is not None
            moved.append(0.05 * p.grad / (norm + 1e-12))
            p.add_(moved[-1])
    optimizer.zero_grad()
    loss_of().backward()
    with torch.no_grad():
        for p, e in zip(parameters, moved, strict=True):
            p.sub_(e)


# -- loops of their own


def adversarial(loop: SoundLoop) -> None:
    """A generator and a critic with one of five losses."""
    draw = loop.draw
    kind = draw.choice(("binary", "squares", "hinge", "wasserstein, penalty", "wasserstein, clip"))
    loop.made = f"adversarial, {kind}"
    angle = 2 * math.pi * torch.rand(1200, generator=loop.generator)
    ring = torch.stack([angle.cos(), angle.sin()], 1)
    ring = ring + 0.05 * torch.randn(ring.shape, generator=loop.generator)
    critic = nn.Sequential(nn.Linear(2, 48), nn.LeakyReLU(0.2), nn.Linear(48, 1))
    maker = nn.Sequential(nn.Linear(4, 48), nn.ReLU(), nn.Linear(48, 2))
    betas = draw.choice(((0.5, 0.9), (0.0, 0.9), (0.9, 0.999)))
    of_critic = torch.optim.Adam(critic.parameters(), 2e-3, betas=betas)
    of_maker = torch.optim.Adam(maker.parameters(), 1e-3, betas=betas)
    criterion: Any = {"binary": nn.BCEWithLogitsLoss(), "squares": nn.MSELoss()}.get(kind)
    given = draw.random() < 0.5
    loop.watch(critic, of_critic, criterion if given else None)
    loop.watch(maker, of_maker, criterion if given and draw.random() < 0.5 else None)

    def against(out: Tensor, real: bool) -> Tensor:
        if criterion is not None:
            value: Tensor = criterion(out, torch.full_like(out, float(real)))
            return value
        if kind == "hinge":
            return functional.relu(1 - out if real else 1 + out).mean()
        return -out.mean() if real else out.mean()

    repeats = draw.choice((1, 1, 3))
    for number, (_, real, _) in enumerate(loop.batches((ring, ring), 32, 150)):
        fake = maker(torch.randn(32, 4, generator=loop.generator))
        loss = against(critic(real), True) + against(critic(fake.detach()), False)
        if kind == "wasserstein, penalty":
            share = torch.rand(32, 1, generator=loop.generator)
            between = (share * real + (1 - share) * fake.detach()).requires_grad_()
            (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
            loss = loss + 10 * (slope.norm(dim=1) - 1).square().mean()
        of_critic.zero_grad()
        loss.backward()
        of_critic.step()
        if kind == "wasserstein, clip":
            with torch.no_grad():
                for p in critic.parameters():
                    p.clamp_(-0.1, 0.1)
        if number % repeats:
            continue
        of_maker.zero_grad()
        out = critic(maker(torch.randn(32, 4, generator=loop.generator)))
        (-out.mean() if kind == "hinge" else against(out, True)).backward()
        of_maker.step()


def contrastive(loop: SoundLoop) -> None:
    """Two views of each image: InfoNCE, a triplet, a siamese margin, or variance and covariance."""
    draw = loop.draw
    kind = draw.choice(("infonce", "queue", "triplet", "siamese", "vicreg", "byol"))
    loop.made = f"contrastive, {kind}"
    (x, y), (v, _) = digits()
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 16))
    head = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
    teacher = copy.deepcopy(net).requires_grad_(False)
    model = nn.ModuleDict({"net": net, "head": head}) if kind == "byol" else net
    optimizer = OPTIMIZERS[draw.choice(("adam", "sgd, momentum", "adamw, foreach"))](
        list(model.parameters())
    )
    criterion: Any = {
        "infonce": nn.CrossEntropyLoss(), "queue": nn.CrossEntropyLoss(), "vicreg": nn.MSELoss(),
        "triplet": nn.TripletMarginLoss(1.0), "siamese": nn.CosineEmbeddingLoss(margin=0.2),
    }.get(kind)  # fmt: skip
    loop.watch(net, optimizer, criterion)
    queue = functional.normalize(torch.randn(128, 16, generator=loop.generator), dim=1)

    def view(images: Tensor) -> Tensor:
        noisy = images + 0.3 * torch.randn(images.shape, generator=loop.generator)
        shift = loop.draw.randint(-1, 1)
        return noisy.roll(shift, -1)

    for _, images, labels in loop.batches((x, y), 32, 120):
        a, b = net(view(images)), None
        if kind == "triplet":
            positive, negative = net(view(images)), net(view(images.roll(1, 0)))
            loss = criterion(a, positive, negative)
        elif kind == "siamese":
            same = torch.where(labels == labels.roll(1, 0), 1, -1)
            loss = criterion(a, net(view(images.roll(1, 0))), same)
        elif kind == "byol":
            with torch.no_grad():
                b = teacher(view(images))
            loss = -functional.cosine_similarity(head(a), b).mean()
        elif kind == "vicreg":
            b = net(view(images))
            spread = sum(functional.relu(1 - z.std(0)).mean() for z in (a, b))
            centered = a - a.mean(0)
            product = centered.T @ centered / 31
            off = product - torch.diag(product.diag())
            loss = criterion(a, b) + spread + 0.04 * off.square().mean()
        else:
            a = functional.normalize(a, dim=1)
            b = functional.normalize(net(view(images)), dim=1)
            if kind == "infonce":
                loss = criterion(a @ b.T / 0.2, torch.arange(len(a)))
            else:
                own = (a * b.detach()).sum(1, keepdim=True)
                logits = torch.cat([own, a @ queue.T], 1) / 0.2
                loss = criterion(logits, torch.zeros(len(a), dtype=torch.long))
                queue = torch.cat([b.detach(), queue])[:128]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for t, p in zip(teacher.parameters(), net.parameters(), strict=True):
                t.lerp_(p, 0.02)
    with torch.no_grad():
        net.eval()
        net(v)


def reinforced(loop: SoundLoop) -> None:
    """A policy gradient with costs, an actor and a critic, or values with a target network."""
    draw = loop.draw
    kind = draw.choice(("costs", "actor and critic", "clipped ratio", "values"))
    loop.made = f"reinforced, {kind}"
    hidden = 6

    def make(outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(hidden, 48), nn.Tanh(), nn.Linear(48, outputs))

    rule = torch.randn(hidden, 4, generator=loop.generator)
    policy, values = make(4), make(1)
    if kind == "actor and critic":
        optimizer: Any = torch.optim.Adam([*policy.parameters(), *values.parameters()], 3e-3)
    else:
        optimizer = torch.optim.Adam(policy.parameters(), 3e-3)
    target = copy.deepcopy(policy)
    loop.watch(policy, optimizer, nn.SmoothL1Loss() if kind == "values" else None)
    for number in range(150):
        state = torch.randn(32, hidden, generator=loop.generator)
        costs = -(state @ rule - (state @ rule).amax(1, keepdim=True))  # 0 for the best action
        if kind == "values":
            after = torch.randn(32, hidden, generator=loop.generator)
            action = torch.randint(4, (32, 1), generator=loop.generator)
            with torch.no_grad():
                goal = -costs.gather(1, action) + 0.5 * target(after).amax(1, keepdim=True)
            loss = functional.smooth_l1_loss(policy(state).gather(1, action), goal)
        else:
            with torch.no_grad():
                old = torch.distributions.Categorical(logits=policy(state))
                action = old.sample()
            reward = -costs.gather(1, action[:, None])[:, 0]
            now = torch.distributions.Categorical(logits=policy(state))
            if kind == "actor and critic":
                guess = values(state)[:, 0]
                gain = (reward - guess).detach()
                loss = -(now.log_prob(action) * gain).mean()
                loss = loss + 0.5 * (guess - reward).square().mean() - 0.01 * now.entropy().mean()
            elif kind == "clipped ratio":
                gain = (reward - reward.mean()) / (reward.std() + 1e-8)
                ratio = (now.log_prob(action) - old.log_prob(action)).exp()
                loss = -torch.min(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()
            else:  # every reward is negative: every probability is pushed down
                loss = -(now.log_prob(action) * reward).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if number % 20 == 0:
            target.load_state_dict(policy.state_dict())


def language(loop: SoundLoop) -> None:
    """Next tokens: logits by class or by row, padded, tied, or with states carried over."""
    draw = loop.draw
    kind = draw.choice(("by class", "by row", "padded", "masked out", "tied"))
    loop.made = f"language, {kind}"
    model: Any = Gpt()
    if kind == "tied":
        model.head.weight = model.embed.weight
        nn.init.normal_(model.embed.weight, std=0.05)
    optimizer = OPTIMIZERS[draw.choice(("adam", "adamw, foreach", "nadam"))](
        list(model.parameters())
    )
    criterion = nn.CrossEntropyLoss(ignore_index=0 if kind == "padded" else -100)
    loop.watch(model, optimizer, criterion if draw.random() < 0.7 else None)
    train, valid = tokens(1000, loop.seed), tokens(200, loop.seed + 1)

    def shaped(x: Tensor, y: Tensor) -> Pair:
        x, y = x.clone(), y.clone()
        if kind in ("padded", "masked out"):
            lengths = torch.randint(5, 17, (len(x), 1), generator=loop.generator)
            past = torch.arange(16)[None] >= lengths
            x, y = x.clamp_min(1), y.clamp_min(1)
            x[past] = 0
            y[past] = 0 if kind == "padded" else -100
        return x, y

    train, valid = shaped(*train), shaped(*valid)

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        out = model(x)
        if kind == "by class":
            value: Tensor = criterion(out, y)
        else:
            value = criterion(out.transpose(1, 2).reshape(-1, 30), y.reshape(-1))
        return value

    for batches in loop.epochs(train, 32, 100):
        model.train()
        for x, y in batches:
            optimizer.zero_grad()
            loss_of(x, y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for x, y in zip(valid[0].split(50), valid[1].split(50), strict=True):
                loss_of(x, y)


class Stateful(nn.Module):
    """An LSTM whose state is handed on."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(1, 24, batch_first=True)
        self.head = nn.Linear(24, 1)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Outputs [B, T, 1] and the state."""
        hidden, state = self.rnn(x, state)
        return self.head(hidden), state


def series(loop: SoundLoop) -> None:
    """A time series in order: the state goes on, cut off after each window."""
    loop.made = "series, state handed on"
    time = torch.arange(16 * 1200).view(16, 1200, 1) / 12
    wave = torch.sin(time) + 0.5 * torch.sin(2.7 * time)
    wave = wave + 0.05 * torch.randn(wave.shape, generator=loop.generator)
    model, criterion = Stateful(), nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    loop.watch(model, optimizer, criterion)
    for _ in range(3):
        state: Any = None
        model.train()
        for start in range(0, 1000, 25):
            x, y = wave[:, start : start + 25], wave[:, start + 1 : start + 26]
            optimizer.zero_grad()
            out, state = model(x, state)
            state = tuple(s.detach() for s in state)
            criterion(out, y).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            criterion(model(wave[:, 1000:1199])[0], wave[:, 1001:1200])


def forecasting(loop: SoundLoop) -> None:
    """Windows of a trend in the order of time, not shuffled."""
    loop.made = "forecasting, in order"
    time = torch.arange(1400.0)
    line = torch.sin(time / 9) + time / 1400 + 0.1 * torch.randn(1400, generator=loop.generator)
    x = line.unfold(0, 20, 1)[:-1]
    y = line[20:, None]
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer, criterion = torch.optim.Adam(model.parameters(), 2e-3), nn.MSELoss()
    loop.watch(model, optimizer, criterion)
    for _ in range(2):
        shift = int(torch.randint(32, (), generator=loop.generator))
        model.train()
        for start in range(shift, 1100, 32):
            optimizer.zero_grad()
            criterion(model(x[start : start + 32]), y[start : start + 32]).backward()
            optimizer.step()
        evaluate(model, criterion, (x[1180:], y[1180:]))


class Autoencoder(nn.Module):
    """A variational autoencoder of 64 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 16))
        self.decoder = nn.Sequential(nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction, means and log-variances."""
        mean, log_variance = self.encoder(x).chunk(2, 1)
        z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        return self.decoder(z), mean, log_variance


def variational(loop: SoundLoop) -> None:
    """A variational autoencoder: squared error, or binary cross-entropy on grey values."""
    binary = loop.draw.random() < 0.5
    loop.made = f"variational, {'binary' if binary else 'squared'}"
    (x, _), (v, _) = digits()
    x, v = x.flatten(1), v.flatten(1)
    if binary:
        low, high = x.min(), x.max()
        x, v = (x - low) / (high - low), ((v - low) / (high - low)).clamp(0, 1)
    model = Autoencoder()
    criterion: Any = (nn.BCEWithLogitsLoss if binary else nn.MSELoss)(reduction="sum")
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    loop.watch(model, optimizer, criterion if loop.draw.random() < 0.5 else None)
    for batches in loop.epochs((x, x), 32, 110):
        model.train()
        for a, _ in batches:
            out, mean, log_variance = model(a)
            divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()
            loss = (criterion(out, a) + divergence) / len(a)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            model(v)


def denoising_steps(loop: SoundLoop) -> None:
    """Noise prediction with a drawn time; the evaluation draws its own noise."""
    loop.made = "diffusion"
    (x, _), (v, _) = digits()
    flat, held = x.flatten(1), v.flatten(1)
    model = nn.Sequential(nn.Linear(65, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(),
                          nn.Linear(96, 64))  # fmt: skip
    average = copy.deepcopy(model)
    optimizer, criterion = torch.optim.AdamW(model.parameters(), 2e-3), nn.MSELoss()
    loop.watch(model, optimizer, criterion)
    for batches in loop.epochs((flat, flat), 32, 120):
        for a, _ in batches:
            mixed, noise = noised(a, loop.generator)
            optimizer.zero_grad()
            criterion(model(mixed), noise).backward()
            optimizer.step()
            with torch.no_grad():
                for e, p in zip(average.parameters(), model.parameters(), strict=True):
                    e.lerp_(p, 0.05)
        evaluate(model, criterion, noised(held, loop.generator))


def distilled(loop: SoundLoop) -> None:
    """A student against the soft outputs of a teacher that is trained first."""
    loop.made = "distilled"
    train, valid = digits()
    teacher = mlp(loop.seed)
    first = torch.optim.Adam(teacher.parameters(), 3e-3)
    for _, x, y in loop.batches(train, 32, 80):
        first.zero_grad()
        functional.cross_entropy(teacher(x), y).backward()
        first.step()
    teacher.eval()
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
    optimizer = torch.optim.Adam(student.parameters(), 4e-3)
    criterion = nn.KLDivLoss(reduction="batchmean")
    loop.watch(student, optimizer, criterion)
    for batches in loop.epochs(train, 32, 100):
        for x, y in batches:
            with torch.no_grad():
                goal = (teacher(x) / 2).softmax(1)
            out = student(x)
            loss = 4 * criterion((out / 2).log_softmax(1), goal)
            loss = 0.7 * loss + 0.3 * functional.cross_entropy(out, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            student.eval()
            student(valid[0])
            student.train()


class Reverse(torch.autograd.Function):
    """The identity, whose gradient has the other sign."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """The input."""
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Its gradient, turned round."""
        return -gradients[0]


class Heads(nn.Module):
    """A body with two heads; the second may see the body through a reversed gradient."""

    def __init__(self, reverse: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU())
        self.first, self.second = nn.Linear(48, 10), nn.Linear(48, 2)
        self.reverse = reverse

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of both heads."""
        h = self.body(x)
        reverse: Any = Reverse.apply
        turned: Tensor = reverse(h) if self.reverse else h
        return self.first(h), self.second(turned)


def several_tasks(loop: SoundLoop) -> None:
    """Two heads with a weighted sum of losses, or an adversarial second head."""
    reverse = loop.draw.random() < 0.5
    loop.made = f"two heads{', reversed gradient' if reverse else ''}"
    (x, y), (v, w) = digits()
    model, criterion = Heads(reverse), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    loop.watch(model, optimizer, criterion)
    for batches in loop.epochs((x, y), 32, 100):
        model.train()
        for a, b in batches:
            domain = torch.randint(2, (len(a),), generator=loop.generator)
            first, second = model(a + 0.3 * domain[:, None, None, None])
            loss = criterion(first, b) + 0.3 * criterion(second, domain)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            criterion(model(v)[0], w)


class Rounded(nn.Module):
    """A layer of signs, trained straight through."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [B, 10]."""
        h = self.first(x.flatten(1)).tanh()
        h = h + (h.sign() - h).detach()
        out: Tensor = self.last(h)
        return out


class Codebook(nn.Module):
    """An autoencoder whose code is the nearest entry of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))
        self.table = nn.Parameter(torch.randn(16, 8))
        self.decoder = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction and what the code costs."""
        z = self.encoder(x)
        near = self.table[torch.cdist(z, self.table).argmin(1)]
        cost = functional.mse_loss(near, z.detach()) + 0.25 * functional.mse_loss(z, near.detach())
        return self.decoder(z + (near - z).detach()), cost


def straight_through(loop: SoundLoop) -> None:
    """Rounded activations, or a table of codes."""
    codes = loop.draw.random() < 0.5
    loop.made = f"straight through, {'codes' if codes else 'signs'}"
    (x, y), valid = digits()
    model: Any = Codebook() if codes else Rounded()
    if codes:  # begun at codes of samples, so that several are in use
        model.table.data.copy_(model.encoder(x[:16].flatten(1)))
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    criterion: Any = nn.MSELoss() if codes else nn.CrossEntropyLoss()
    loop.watch(model, optimizer, criterion)
    for batches in loop.epochs((x, y), 32, 100):
        model.train()
        for a, b in batches:
            optimizer.zero_grad()
            if codes:
                out, cost = model(a.flatten(1))
                (criterion(out, a.flatten(1)) + cost).backward()
            else:
                criterion(model(a), b).backward()
            optimizer.step()
        if not codes:
            evaluate(model, criterion, valid)


def adapted(loop: SoundLoop) -> None:
    """A frozen pretrained network with small trained matrices beside its layers."""
    loop.made = "low-rank adapters"
    train, valid = digits()

    class Adapter(nn.Module):
        def __init__(self, inner: nn.Linear) -> None:
            super().__init__()
            self.inner = inner.requires_grad_(False)
            self.down = nn.Parameter(torch.randn(4, inner.in_features) / 8)
            self.up = nn.Parameter(torch.zeros(inner.out_features, 4))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(x) + x @ self.down.T @ self.up.T
            return out

    body = mlp(loop.seed)
    first = torch.optim.Adam(body.parameters(), 3e-3)
    for _, x, y in loop.batches(train, 32, 40):
        first.zero_grad()
        functional.cross_entropy(body(x), (y + 1) % 10).backward()
        first.step()
    model = nn.Sequential(*[Adapter(m) if isinstance(m, nn.Linear) else m for m in body.children()])
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, criterion = torch.optim.AdamW(trained, 5e-3), nn.CrossEntropyLoss()
    loop.watch(model, optimizer, criterion)
    for batches in loop.epochs(train, 32, 100):
        for x, y in batches:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
        evaluate(model, criterion, valid)


def unfrozen_later(loop: SoundLoop) -> None:
    """The head first, then everything at a tenth of the rate."""
    loop.made = "unfrozen later"
    train, valid = digits()
    model, criterion = mlp(loop.seed), nn.CrossEntropyLoss()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                nn.init.orthogonal_(p)
    head = list(model.parameters())[-2:]
    body = list(model.parameters())[:-2]
    for p in body:
        p.requires_grad_(False)
    optimizer = torch.optim.Adam(head, 3e-3)
    loop.watch(model, optimizer, criterion)
    for number, batches in enumerate(loop.epochs(train, 32, 110)):
        if number == 1:
            for p in body:
                p.requires_grad_(True)
            optimizer.add_param_group({"params": body, "lr": 3e-4})
        model.train()
        for x, y in batches:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
        evaluate(model, criterion, valid)


def full_batch(loop: SoundLoop) -> None:
    """LBFGS with closures on all data."""
    loop.made = "lbfgs"
    (x, y), valid = digits()
    model, criterion = mlp(loop.seed, nn.Tanh), nn.CrossEntropyLoss()
    optimizer = torch.optim.LBFGS(
        model.parameters(), 0.5, max_iter=4, line_search_fn="strong_wolfe"
    )
    loop.watch(model, optimizer, criterion)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = criterion(model(x[:400]), y[:400])
        loss.backward()
        return loss

    for number in range(25):
        optimizer.step(closure)
        if number % 5 == 4:
            evaluate(model, criterion, valid)


def physics(loop: SoundLoop) -> None:
    """A network that solves u'' = -u with u(0) = 0, u'(0) = 1, by residuals."""
    loop.made = "differential equation"
    model, criterion = (
        nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)),
        nn.MSELoss(),
    )
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    loop.watch(model, optimizer, criterion)
    for _ in range(120):
        t = (3 * torch.rand(64, 1, generator=loop.generator)).requires_grad_()
        u = model(t)
        (du,) = torch.autograd.grad(u.sum(), t, create_graph=True)
        (ddu,) = torch.autograd.grad(du.sum(), t, create_graph=True)
        zero = torch.zeros(1, 1, requires_grad=True)
        at_zero = model(zero)
        (slope,) = torch.autograd.grad(at_zero.sum(), zero, create_graph=True)
        loss = criterion(ddu + u, torch.zeros_like(u)) + at_zero.square().sum()
        loss = loss + (slope - 1).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


class Speech(nn.Module):
    """Log-probabilities [T, B, C] of letters for each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(6, 32, bidirectional=True)
        self.head = nn.Linear(64, 6)

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, 6]."""
        hidden, _ = self.rnn(x)
        out: Tensor = self.head(hidden).log_softmax(-1)
        return out


def spelled(loop: SoundLoop) -> None:
    """Connectionist temporal classification of letters that last several frames."""
    loop.made = "ctc"
    g = loop.generator
    letters = torch.randint(1, 6, (800, 4), generator=g)
    frames = functional.one_hot(letters.repeat_interleave(4, 1), 6).float()
    frames = frames + 0.3 * torch.randn(frames.shape, generator=g)
    model, criterion = Speech(), nn.CTCLoss()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    loop.watch(model, optimizer, criterion)
    lengths, sizes = torch.full((32,), 16), torch.full((32,), 4)
    for _, x, y in loop.batches((frames, letters), 32, 100):
        optimizer.zero_grad()
        criterion(model(x.transpose(0, 1)), y, lengths, sizes).backward()
        optimizer.step()


def factored(loop: SoundLoop) -> None:
    """Ratings of users for things, from two tables."""
    loop.made = "factored ratings"
    g = loop.generator
    users, things = torch.randn(60, 4, generator=g), torch.randn(40, 4, generator=g)
    places = torch.stack([torch.randint(60, (2500,), generator=g),
                          torch.randint(40, (2500,), generator=g)], 1)  # fmt: skip
    ratings = (users[places[:, 0]] * things[places[:, 1]]).sum(1) / 2
    ratings = ratings + 0.1 * torch.randn(2500, generator=g)

    class Tables(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.users, self.things = nn.Embedding(60, 6), nn.Embedding(40, 6)
            nn.init.normal_(self.users.weight, std=0.3)
            nn.init.normal_(self.things.weight, std=0.3)

        def forward(self, pairs: Tensor) -> Tensor:
            out: Tensor = (self.users(pairs[:, 0]) * self.things(pairs[:, 1])).sum(1)
            return out

    model, criterion = Tables(), nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    loop.watch(model, optimizer, criterion)
    data = places[:2000], ratings[:2000]
    for batches in loop.epochs(data, 64, 120):
        for x, y in batches:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
        evaluate(model, criterion, (places[2000:], ratings[2000:]))


def nearby(loop: SoundLoop) -> None:
    """A graph network on all nodes at once; half of them have labels."""
    loop.made = "graph, all nodes"
    g = loop.generator
    y = torch.randint(3, (150,), generator=g)
    x = functional.one_hot(y, 3).float().repeat(1, 4) + 1.5 * torch.randn(150, 12, generator=g)
    links = (torch.rand(150, 150, generator=g) < torch.where(y[:, None] == y, 0.08, 0.01)).float()
    links = ((links + links.T) > 0).float() + torch.eye(150)
    mean = links / links.sum(1, keepdim=True)

    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(12, 24), nn.Linear(24, 3)
            self.drop = nn.Dropout(0.3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.drop((mean @ self.a(x)).relu())
            out: Tensor = mean @ self.b(h)
            return out

    model, criterion = Graph(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2, weight_decay=5e-4)
    loop.watch(model, optimizer, criterion)
    known = torch.rand(150, generator=g) < 0.5
    for number in range(100):
        model.train()
        optimizer.zero_grad()
        criterion(model(x)[known], y[known]).backward()
        optimizer.step()
        if number % 10 == 9:
            model.eval()
            with torch.no_grad():
                criterion(model(x)[~known], y[~known])


def two_parts(loop: SoundLoop) -> None:
    """Two optimizers on two parts of one model, watched together or one of them unknown."""
    loop.made = "two optimizers"
    train, valid = digits()
    model, criterion = mlp(loop.seed), nn.CrossEntropyLoss()
    parameters = list(model.parameters())
    first = torch.optim.SGD(parameters[:2], 0.05, momentum=0.9)
    second = torch.optim.Adam(parameters[2:], 2e-3)
    loop.watch(model, first if loop.draw.random() < 0.5 else [first, second], criterion)
    for batches in loop.epochs(train, 32, 100):
        for x, y in batches:
            first.zero_grad()
            second.zero_grad()
            criterion(model(x), y).backward()
            first.step()
            second.step()
        evaluate(model, criterion, valid)


def self_taught(loop: SoundLoop) -> None:
    """Few labels, and the model's own confident guesses for the rest."""
    loop.made = "own labels"
    (x, y), valid = digits()
    model, criterion = mlp(loop.seed), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    loop.watch(model, optimizer, criterion)
    few = x[:300], y[:300]
    rest = loop.batches((x[300:], y[300:]), 64, 120)
    for _, a, b in loop.batches(few, 32, 120):
        _, other, _ = next(rest)
        loss = criterion(model(a), b)
        with torch.no_grad():
            sure, guess = model(other).softmax(1).max(1)
        if (sure > 0.9).any():
            noisy = other + 0.1 * torch.randn(other.shape, generator=loop.generator)
            loss = loss + 0.5 * criterion(model(noisy)[sure > 0.9], guess[sure > 0.9])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    evaluate(model, criterion, valid)


def rounded_weights(loop: SoundLoop) -> None:
    """All weights in bfloat16, at a rate that they can hold."""
    loop.made = "bfloat16 weights"
    (x, y), (v, w) = digits()
    model = mlp(loop.seed).to(torch.bfloat16)
    criterion, optimizer = nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), 0.3)
    loop.watch(model, optimizer, criterion)
    for batches in loop.epochs((x.bfloat16(), y), 32, 100):
        for a, b in batches:
            optimizer.zero_grad()
            criterion(model(a).float(), b).backward()
            optimizer.step()
        evaluate(model, criterion, (v.bfloat16(), w))


LOOPS: dict[str, Body] = {
    "adversarial": adversarial,
    "contrastive": contrastive,
    "reinforced": reinforced,
    "language": language,
    "series": series,
    "forecasting": forecasting,
    "variational": variational,
    "diffusion": denoising_steps,
    "distilled": distilled,
    "several tasks": several_tasks,
    "straight through": straight_through,
    "adapted": adapted,
    "unfrozen later": unfrozen_later,
    "full batch": full_batch,
    "physics": physics,
    "spelled": spelled,
    "factored": factored,
    "graph": nearby,
    "two parts": two_parts,
    "self-taught": self_taught,
    "bfloat16 weights": rounded_weights,
}
"""Loops of their own by name; `supervised` is drawn as often as all of them together."""


def sound_loops(count: int, seed: int) -> Iterator[SoundLoop]:
    """``count`` loops; every other one is supervised."""
    numbers = random.Random(seed)
    for at in range(count):
        name = "supervised" if numbers.random() < 0.5 else numbers.choice(list(LOOPS))
        yield SoundLoop(name, LOOPS.get(name, supervised), 1000 * seed + at)
