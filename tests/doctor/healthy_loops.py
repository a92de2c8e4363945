"""Healthy training loops of many kinds: none of them may raise an alarm."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

Attach = Callable[..., Any]


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    data = load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32), torch.tensor(data.target)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    x, y = (x[order] - x.mean()) / x.std(), y[order]
    return x[:1200], y[:1200], x[1200:1500], y[1200:1500]


def mlp(act: type[nn.Module] = nn.ReLU, out: int = 10, *, bn: bool = False) -> nn.Sequential:
    norm = [nn.BatchNorm1d(64)] if bn else []
    return nn.Sequential(
        nn.Linear(64, 64), *norm, act(), nn.Linear(64, 64), act(), nn.Linear(64, out)
    )


def batches(steps: int, size: int = 32, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    x, y, _, _ = digits()
    generator = torch.Generator().manual_seed(seed)
    done = 0
    while True:
        order = torch.randperm(len(x), generator=generator)
        for i in range(0, len(x) - size + 1, size):
            if done == steps:
                return
            done += 1
            yield x[order[i : i + size]], y[order[i : i + size]]


def evaluate(model: nn.Module) -> None:
    _, _, xv, _ = digits()
    mode = model.training
    model.eval()
    with torch.no_grad():
        for i in range(0, 300, 100):
            model(xv[i : i + 100])
    model.train(mode)


def plain(
    attach: Attach,
    model: nn.Module | None = None,
    make: Callable[[Any], Any] | None = None,
    steps: int = 120,
    criterion: nn.Module | None = None,
    called: nn.Module | None = None,
) -> Any:
    model = model or mlp()
    optimizer = (make or (lambda p: torch.optim.SGD(p, 0.1)))(model.parameters())
    criterion = criterion or nn.CrossEntropyLoss()
    called = called or model
    watched = attach(called, optimizer, criterion)
    for step, (x, y) in enumerate(batches(steps)):
        optimizer.zero_grad()
        criterion(called(x), y).backward()
        optimizer.step()
        if step % 37 == 36:
            evaluate(called)
    return watched


def accumulation(attach: Attach) -> Any:
    model, criterion = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    watched = attach(model, optimizer, criterion)
    for step, (x, y) in enumerate(batches(200, 16)):
        if step % 4 == 0:
            optimizer.zero_grad()
        (criterion(model(x), y) / 4).backward()
        if step % 4 == 3:
            optimizer.step()
    return watched


def lbfgs(attach: Attach) -> Any:
    model, criterion = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
    watched = attach(model, optimizer, criterion)
    x, y, _, _ = digits()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = criterion(model(x), y)
        loss.backward()
        return loss

    for _ in range(15):
        optimizer.step(closure)
    return watched


def closures(make: Callable[[nn.Module], Any]) -> Callable[[Attach], Any]:
    def loop(attach: Attach) -> Any:
        model, criterion = mlp(), nn.CrossEntropyLoss()
        optimizer = make(model)
        watched = attach(model, optimizer, criterion)
        for step, (x, y) in enumerate(batches(60)):

            def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
                optimizer.zero_grad()
                loss: Tensor = criterion(model(x), y)
                loss.backward()
                return loss

            optimizer.step(closure)
            if step == 36:
                evaluate(model)
        return watched

    return loop


def gan(attach: Attach) -> Any:
    generator = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64), nn.Tanh())
    critic = nn.Sequential(nn.Linear(64, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    first = torch.optim.Adam(generator.parameters(), 1e-3, betas=(0.5, 0.999))
    second = torch.optim.Adam(critic.parameters(), 1e-3, betas=(0.5, 0.999))
    criterion = nn.BCEWithLogitsLoss()
    watched = [attach(critic, second, criterion), attach(generator, first, None)]
    for x, _ in batches(150):
        ones, zeros = torch.ones(len(x), 1), torch.zeros(len(x), 1)
        fake = generator(torch.randn(len(x), 8))
        second.zero_grad()
        loss = criterion(critic(x.tanh()), ones) + criterion(critic(fake.detach()), zeros)
        loss.backward()
        second.step()
        first.zero_grad()
        criterion(critic(fake), ones).backward()
        first.step()
    return watched


def wgan_gp(attach: Attach) -> Any:
    generator = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64))
    critic = nn.Sequential(nn.Linear(64, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    first = torch.optim.Adam(generator.parameters(), 1e-4, betas=(0.0, 0.9))
    second = torch.optim.Adam(critic.parameters(), 1e-4, betas=(0.0, 0.9))
    watched = [attach(critic, second, None), attach(generator, first, None)]
    for step, (x, _) in enumerate(batches(150)):
        with torch.no_grad():
            fake = generator(torch.randn(len(x), 8))
        share = torch.rand(len(x), 1)
        mixed = (share * x + (1 - share) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
        penalty = (slope.norm(dim=1) - 1).square().mean()
        second.zero_grad()
        (critic(fake).mean() - critic(x).mean() + 10 * penalty).backward()
        second.step()
        if step % 5 == 4:
            first.zero_grad()
            (-critic(generator(torch.randn(len(x), 8))).mean()).backward()
            first.step()
    return watched


def grad_scaler(attach: Attach) -> Any:
    model, criterion = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    watched = attach(model, optimizer, criterion)
    for x, y in batches(100):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = criterion(model(x), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
    return watched


def schedule_free(attach: Attach) -> Any:
    from schedulefree import AdamWScheduleFree

    model, criterion = mlp(), nn.CrossEntropyLoss()
    optimizer = AdamWScheduleFree(model.parameters(), lr=3e-3)
    watched = attach(model, optimizer, criterion)
    for step, (x, y) in enumerate(batches(120)):
        optimizer.train()
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
        if step % 37 == 36:
            optimizer.eval()
            evaluate(model)
    return watched


class TinyLanguageModel(nn.Module):
    """A causal transformer with tied weights and rare tokens."""

    def __init__(self, vocabulary: int = 40, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(16, width)
        layer = nn.TransformerEncoderLayer(width, 4, 64, 0.1, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary, bias=False)
        nn.init.normal_(self.embed.weight, 0, 0.02)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        t = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(t)
        h = self.embed(tokens) + self.position(torch.arange(t))
        return self.head(self.body(h, mask=mask, is_causal=True))


def tokens(seed: int = 0, length: int = 4000) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randint(0, 3, (length,), generator=generator)
    return (steps.cumsum(0) * 7) % 31


def language_model(attach: Attach) -> Any:
    model = TinyLanguageModel()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.1)
    watched = attach(model, optimizer, None)
    text, generator = tokens(), torch.Generator().manual_seed(1)
    for _ in range(120):
        start = torch.randint(0, len(text) - 17, (16,), generator=generator)
        block = torch.stack([text[s : s + 17] for s in start.tolist()])
        logits = model(block[:, :-1])
        loss = F.cross_entropy(logits.reshape(-1, 40), block[:, 1:].reshape(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return watched


def recurrent(attach: Attach) -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(31, 16)
            self.lstm = nn.LSTM(16, 32, batch_first=True)
            self.head = nn.Linear(32, 31)

        def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
            h, state = self.lstm(self.embed(x), state)
            return self.head(h), state

    model, criterion = Net(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    watched = attach(model, optimizer, criterion)
    text = tokens()[: 16 * 241].reshape(16, 241)
    state = None
    for step in range(120):
        i = (step * 12) % 240
        state = None if i == 0 or state is None else tuple(s.detach() for s in state)
        out, state = model(text[:, i : i + 12], state)
        loss = criterion(out.transpose(1, 2), text[:, i + 1 : i + 13])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return watched


def update_bn(attach: Attach) -> Any:
    model, criterion = mlp(bn=True), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    average = torch.optim.swa_utils.AveragedModel(model)
    watched = [attach(model, optimizer, criterion)]
    for step, (x, y) in enumerate(batches(100)):
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
        if step % 25 == 24:
            average.update_parameters(model)
            torch.optim.swa_utils.update_bn(list(batches(20)), model)
            torch.optim.swa_utils.update_bn(list(batches(20)), average)
            evaluate(average)
            evaluate(model)
    return watched


def frozen_body(attach: Attach) -> Any:
    body, criterion = mlp(bn=True), nn.CrossEntropyLoss()
    pretraining = torch.optim.Adam(body.parameters(), 1e-2)
    for x, y in batches(60):
        pretraining.zero_grad()
        criterion(body(x), y).backward()
        pretraining.step()
    body.requires_grad_(False)
    body[-1] = nn.Linear(64, 10)
    for module in body:
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    optimizer = torch.optim.Adam(body[-1].parameters(), 1e-2)
    watched = attach(body, optimizer, criterion)
    for x, y in batches(80):
        optimizer.zero_grad()
        criterion(body(x), y).backward()
        optimizer.step()
    return watched


def two_optimizers(attach: Attach) -> Any:
    model, criterion = mlp(), nn.CrossEntropyLoss()
    first = torch.optim.SGD(model[:3].parameters(), 0.05, momentum=0.9)
    second = torch.optim.Adam(model[3:].parameters(), 1e-3)
    watched = attach(model, [first, second], criterion)
    for step, (x, y) in enumerate(batches(120)):
        first.zero_grad()
        second.zero_grad()
        criterion(model(x), y).backward()
        first.step()
        second.step()
        if step % 37 == 36:
            evaluate(model)
    return watched


def second_optimizer_unknown(attach: Attach) -> Any:
    model, criterion = mlp(), nn.CrossEntropyLoss()
    first = torch.optim.SGD(model[:3].parameters(), 0.05, momentum=0.9)
    second = torch.optim.Adam(model[3:].parameters(), 1e-3)
    watched = attach(model, first, criterion)
    for step, (x, y) in enumerate(batches(100)):
        model.zero_grad()
        criterion(model(x), y).backward()
        first.step()
        if step % 5 == 4:
            second.step()
    return watched


def mixup(attach: Attach) -> Any:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    watched = attach(model, optimizer, None)
    for step, (x, y) in enumerate(batches(120)):
        share = float(torch.distributions.Beta(0.4, 0.4).sample())
        other = torch.randperm(len(x))
        out = model(share * x + (1 - share) * x[other])
        loss = share * F.cross_entropy(out, y) + (1 - share) * F.cross_entropy(out, y[other])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 37 == 36:
            evaluate(model)
    return watched


def range_test(attach: Attach) -> Any:
    model, criterion = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 1e-5)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 1.1)
    start = copy.deepcopy(model.state_dict())
    watched = attach(model, optimizer, criterion)
    for x, y in batches(120):
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
        schedule.step()
    model.load_state_dict(start)
    return watched


def regression(attach: Attach) -> Any:
    x, _, xv, _ = digits()
    weights = torch.randn(64, 1, generator=torch.Generator().manual_seed(3)) / 8
    target = (x @ weights).sin() + 0.1 * torch.randn(len(x), 1)
    model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    criterion = nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    watched = attach(model, optimizer, criterion)
    generator = torch.Generator().manual_seed(0)
    for epoch in range(4):
        order = torch.randperm(len(x), generator=generator)
        for i in range(0, 1184, 32):
            picked = order[i : i + 32]
            optimizer.zero_grad()
            criterion(model(x[picked]), target[picked]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            model(xv)
        model.train(epoch >= 0)
    return watched


def segmentation(attach: Attach) -> Any:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1)
    )
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    criterion = nn.CrossEntropyLoss()
    watched = attach(model, optimizer, criterion)
    for x, _ in batches(100, 16):
        image = x.reshape(-1, 1, 8, 8)
        mask = (image[:, 0] > 0).long() + (image[:, 0] > 1).long()
        optimizer.zero_grad()
        criterion(model(image), mask).backward()
        optimizer.step()
    return watched


def multi_label(attach: Attach) -> Any:
    model, criterion = mlp(out=4), nn.BCEWithLogitsLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    watched = attach(model, optimizer, criterion)
    for x, y in batches(120):
        bits = torch.stack([(y >> k) & 1 for k in range(4)], 1).float()
        optimizer.zero_grad()
        criterion(model(x), bits).backward()
        optimizer.step()
    return watched


def autoencoder(attach: Attach) -> Any:
    model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 64))
    criterion = nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    watched = attach(model, optimizer, criterion)
    for x, _ in batches(120):
        optimizer.zero_grad()
        criterion(model(x), x).backward()
        optimizer.step()
    return watched


def variational(attach: Attach) -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.Linear(64, 16), nn.Linear(8, 64)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            mean, log_variance = self.encoder(x).chunk(2, 1)
            z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
            return self.decoder(z).sigmoid(), mean, log_variance

    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    watched = attach(model, optimizer, None)
    for step, (x, _) in enumerate(batches(120)):
        x = x.sigmoid()
        out, mean, log_variance = model(x)
        loss = F.binary_cross_entropy(out, x, reduction="sum")
        loss = loss - 0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 37 == 36:
            model.eval()
            with torch.no_grad():
                model(x)
            model.train()
    return watched


def physics_informed(attach: Attach) -> Any:
    model = nn.Sequential(
        nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)
    )
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    watched = attach(model, optimizer, None)
    for _ in range(120):
        t = torch.linspace(0, 1, 32)[:, None].requires_grad_()
        u = model(t)
        (slope,) = torch.autograd.grad(u.sum(), t, create_graph=True)
        loss = (slope + u).square().mean() + (u[0] - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return watched


def compiled(attach: Attach) -> Any:
    model = mlp()
    return plain(attach, model, steps=60, called=torch.compile(model, backend="aot_eager"))


def sharpness_aware(attach: Attach) -> Any:
    model, criterion = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    watched = attach(model, optimizer, criterion)
    for x, y in batches(100):
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        with torch.no_grad():
            norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
            shifts = [0.05 * p.grad / norm for p in model.parameters()]
            for p, e in zip(model.parameters(), shifts, strict=True):
                p.add_(e)
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        with torch.no_grad():
            for p, e in zip(model.parameters(), shifts, strict=True):
                p.sub_(e)
        optimizer.step()
    return watched


def residual_convolution(attach: Attach) -> Any:
    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.first, self.second = (
                nn.Conv2d(width, width, 3, padding=1),
                nn.Conv2d(width, width, 3, padding=1),
            )
            self.norm, self.other = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
            nn.init.zeros_(self.other.weight)

        def forward(self, x: Tensor) -> Tensor:
            return (x + self.other(self.second(self.norm(self.first(x)).relu()))).relu()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.body = nn.Conv2d(1, 8, 3, padding=1), nn.Sequential(Block(8), Block(8))
            self.head = nn.Linear(8 * 16, 10)
            nn.init.zeros_(self.head.weight)

        def forward(self, x: Tensor) -> Tensor:
            h = F.avg_pool2d(self.body(self.stem(x.reshape(-1, 1, 8, 8)).relu()), 2)
            return self.head(h.flatten(1))

    return plain(attach, Net(), lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True), 80)


def _lark(model: nn.Module) -> Any:
    from optiscope import Lark

    return Lark(model.parameters(), lr=0.02)


def _preconditioned(model: nn.Module) -> Any:
    from optiscope import PreconditionedSGD

    return PreconditionedSGD(model.parameters())


def least_squares_gan(attach: Attach) -> Any:
    """Generator and critic both end and begin with linear layers, and one watch sees both."""
    generator = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64))
    critic = nn.Sequential(nn.Linear(64, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    first = torch.optim.Adam(generator.parameters(), 1e-3, betas=(0.5, 0.9))
    second = torch.optim.Adam(critic.parameters(), 1e-3, betas=(0.5, 0.9))
    criterion, ones = nn.MSELoss(), torch.ones(32, 1)
    watched = attach(critic, second, criterion)
    for x, _ in batches(60):
        first.zero_grad()
        made = generator(torch.randn(32, 8))
        criterion(critic(made), ones).backward()
        first.step()
        second.zero_grad()
        real, false = criterion(critic(x), ones), criterion(critic(made.detach()), 0 * ones)
        (0.5 * (real + false)).backward()
        second.step()
    return watched


class _Signs(torch.autograd.Function):
    """Weights of one size, trained straight through."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        return weight.sign() * weight.abs().mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0]


class _SignLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, _Signs.apply(self.weight), self.bias)


def weights_of_one_size(attach: Attach) -> Any:
    model = nn.Sequential(_SignLinear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    return plain(attach, model, make=lambda p: torch.optim.Adam(p, 1e-3), steps=30)


def targets_in_thousands(attach: Attach) -> Any:
    x = torch.randn(600, 6)
    y = 1000 * (x[:, :2].sum(1, keepdim=True) + 0.1 * torch.randn(600, 1))
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer, criterion = torch.optim.Adam(model.parameters(), 0.3), nn.MSELoss()
    watched = attach(model, optimizer, criterion)
    for _ in range(60):
        places = torch.randint(600, (32,))
        optimizer.zero_grad()
        criterion(model(x[places]), y[places]).backward()
        optimizer.step()
    return watched


def masked_tokens(attach: Attach) -> Any:
    """The criterion gets the output with its axes exchanged, and most targets are left out."""
    embed, head = nn.Embedding(31, 24), nn.Linear(24, 31)
    layer = nn.TransformerEncoderLayer(24, 2, 48, 0.0, batch_first=True)
    model = nn.Sequential(embed, layer, head)
    optimizer, criterion = torch.optim.AdamW(model.parameters(), 3e-3), nn.CrossEntropyLoss()
    watched = attach(model, optimizer, criterion)
    for _ in range(60):
        x = (torch.randint(30, (32, 1)) + torch.arange(12)) % 30
        hidden = torch.rand(x.shape) < 0.15
        hidden[:, 0] |= ~hidden.any(1)
        optimizer.zero_grad()
        out = model(x.masked_fill(hidden, 30)).transpose(1, 2)
        criterion(out, x.masked_fill(~hidden, -100)).backward()
        optimizer.step()
    return watched


def meta_learned(attach: Attach) -> Any:
    """Gradients of gradients through ``functional_call``; many forwards in one step."""
    model = nn.Sequential(nn.Linear(1, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    watched = attach(model, optimizer)
    for _ in range(40):
        optimizer.zero_grad()
        total = torch.zeros(())
        for _ in range(4):
            start = dict(model.named_parameters())
            x = torch.rand(20, 1) * 6 - 3
            y = (0.5 + 3 * torch.rand(())) * torch.sin(x + 3 * torch.rand(()))
            loss = F.mse_loss(torch.func.functional_call(model, start, (x[:10],)), y[:10])
            grads = torch.autograd.grad(loss, list(start.values()), create_graph=True)
            moved = {n: p - 0.05 * g for (n, p), g in zip(start.items(), grads, strict=True)}
            total = total + F.mse_loss(torch.func.functional_call(model, moved, (x[10:],)), y[10:])
        (total / 4).backward()
        optimizer.step()
    return watched


def sampled_dropout(attach: Attach) -> Any:
    """Uncertainty from dropout left on, before the usual evaluation."""
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))
    optimizer, criterion = torch.optim.Adam(model.parameters(), 2e-3), nn.CrossEntropyLoss()
    watched = attach(model, optimizer, criterion)
    for step, (x, y) in enumerate(batches(100)):
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
        if step % 37 == 36:
            with torch.no_grad():
                for _ in range(4):
                    model(digits()[2][:100])
            evaluate(model)
    return watched


def gradients_joined_by_hand(attach: Attach) -> Any:
    """Gradients of two tasks by ``autograd.grad``, added and put where the optimizer looks."""
    model = mlp(out=15)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    watched = attach(model, optimizer)
    for x, y in batches(60):
        out = model(x)
        tasks = (F.cross_entropy(out[:, :10], y), F.cross_entropy(out[:, 10:], y % 5))
        found = [torch.autograd.grad(t, list(model.parameters()), retain_graph=True) for t in tasks]
        optimizer.zero_grad()
        for p, a, b in zip(model.parameters(), *found, strict=True):
            p.grad = a + b
        optimizer.step()
    return watched


def tuned_further(attach: Attach) -> Any:
    """A trained network at a rate that hardly moves it."""
    model, criterion = mlp(), nn.CrossEntropyLoss()
    first = torch.optim.Adam(model.parameters(), 3e-3)
    for x, y in batches(250):
        first.zero_grad()
        criterion(model(x), y).backward()
        first.step()
    return plain(attach, model, make=lambda p: torch.optim.AdamW(p, 1e-5), steps=120)


def parity(attach: Attach) -> Any:
    """Neighbors never share a label, and the loss stays at that of guessing for long."""
    x = (torch.rand(1500, 12) < 0.5).float() * 2 - 1
    y = (x[:, :5].prod(1) > 0).long()
    model = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer, criterion = torch.optim.Adam(model.parameters(), 1e-3), nn.CrossEntropyLoss()
    watched = attach(model, optimizer, criterion)
    for _ in range(160):
        places = torch.randint(1500, (32,))
        optimizer.zero_grad()
        criterion(model(x[places]), y[places]).backward()
        optimizer.step()
    return watched


LOOPS: dict[str, Callable[[Attach], Any]] = {
    "plain": plain,
    "tanh": lambda a: plain(a, mlp(nn.Tanh)),
    "batch_norm": lambda a: plain(a, mlp(bn=True)),
    "fused": lambda a: plain(a, make=lambda p: torch.optim.Adam(p, 1e-3, fused=True)),
    "foreach": lambda a: plain(a, make=lambda p: torch.optim.AdamW(p, 2e-3, foreach=True)),
    "label_smoothing": lambda a: plain(a, criterion=nn.CrossEntropyLoss(label_smoothing=0.1)),
    "slow_but_learning": lambda a: plain(a, make=lambda p: torch.optim.Adam(p, 3e-4), steps=200),
    "accumulation": accumulation,
    "lbfgs": lbfgs,
    "gan": gan,
    "wgan_gp": wgan_gp,
    "grad_scaler": grad_scaler,
    "compiled": compiled,
    "schedule_free": schedule_free,
    "language_model": language_model,
    "recurrent": recurrent,
    "update_bn": update_bn,
    "frozen_body": frozen_body,
    "two_optimizers": two_optimizers,
    "second_optimizer_unknown": second_optimizer_unknown,
    "mixup": mixup,
    "range_test": range_test,
    "regression": regression,
    "segmentation": segmentation,
    "multi_label": multi_label,
    "autoencoder": autoencoder,
    "variational": variational,
    "physics_informed": physics_informed,
    "sharpness_aware": sharpness_aware,
    "residual_convolution": residual_convolution,
    "lark": closures(_lark),
    "preconditioned": closures(_preconditioned),
    "least_squares_gan": least_squares_gan,
    "weights_of_one_size": weights_of_one_size,
    "targets_in_thousands": targets_in_thousands,
    "masked_tokens": masked_tokens,
    "meta_learned": meta_learned,
    "sampled_dropout": sampled_dropout,
    "gradients_joined_by_hand": gradients_joined_by_hand,
    "tuned_further": tuned_further,
    "parity": parity,
}
