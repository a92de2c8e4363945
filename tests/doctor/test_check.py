"""The check before training: silent on sound set-ups, and right on each fault."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset

from optiscope.data import load_digits
from optiscope.doctor.check import CheckReport, check


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    data = load_digits()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    x, y = (data.images.float() / 16)[order], data.labels[order]
    return (x[:1100], y[:1100]), (x[1100:1320], y[1100:1320]), (x[1320:1500], y[1320:1500])


TRAIN, VALID, TEST = digits()


def mlp(*last: nn.Module, out: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, out), *last)


def run(model: nn.Module | None = None, loss: Any = None, **kwargs: Any) -> CheckReport:
    kwargs.setdefault("train", TRAIN)
    return check(model or mlp(), loss or nn.CrossEntropyLoss(), seconds=8, **kwargs)


def rules(report: CheckReport) -> list[str]:
    return [f.rule for f in report.findings]


class Regression(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


def table(n: int = 900) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(n, 6, generator=g)
    y = (x[:, :1] * 2 - x[:, 1:2] * x[:, 2:3]) + 0.1 * torch.randn(n, 1, generator=g)
    return x, y


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.rnn = nn.LSTM(16, 24, batch_first=True)
        self.head = nn.Linear(24, 50)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.rnn(self.embed(x))[0]).transpose(1, 2)
        return out


def tokens(n: int, seed: int, length: int = 40) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    steps = torch.randint(1, 4, (n, length + 1), generator=g)
    stream = (torch.randint(50, (n, 1), generator=g) + steps.cumsum(1)) % 50
    return stream[:, :-1], stream[:, 1:]


class Normed(nn.Module):
    """Batch normalization, dropout and a branch that begins at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU())
        self.branch, self.gate = nn.Linear(32, 32), nn.Parameter(torch.zeros(1))
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        out: Tensor = self.head(h + self.gate * self.branch(h))
        return out


def segmentation() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))


CLEAN: dict[str, Callable[[], CheckReport]] = {
    "mlp": lambda: run(valid=VALID, test=TEST),
    "optimizer": lambda: run(m := mlp(), optimizer=torch.optim.Adam(m.parameters())),
    "norm, dropout, gate": lambda: run(Normed(), valid=VALID),
    "log-softmax and nll": lambda: run(mlp(nn.LogSoftmax(1)), nn.NLLLoss()),
    "function as loss": lambda: run(mlp(), functional.cross_entropy),
    "label smoothing": lambda: run(mlp(), nn.CrossEntropyLoss(label_smoothing=0.1)),
    "loader": lambda: run(train=DataLoader(TensorDataset(*TRAIN), 32, shuffle=True)),
    "regression": lambda: run(Regression(), nn.MSELoss(), train=table()),
    "tokens": lambda: run(Tokens(), train=tokens(600, 0), valid=tokens(300, 1)),
    "segmentation": lambda: run(segmentation(), train=(TRAIN[0], (TRAIN[0][:, 0] > 0.5).long())),
    "autoencoder": lambda: run(
        nn.Sequential(
            nn.Flatten(), nn.Linear(64, 16), nn.Linear(16, 64), nn.Unflatten(1, (1, 8, 8))
        ),
        nn.MSELoss(),
        train=(TRAIN[0], TRAIN[0]),
    ),
    "training data hold copies": lambda: run(
        train=(torch.cat([TRAIN[0]] * 3), torch.cat([TRAIN[1]] * 3)), valid=VALID
    ),
    "frozen body": lambda: run(_frozen()),
    "binary": lambda: run(
        nn.Sequential(mlp(out=1), nn.Flatten(0)),
        nn.BCEWithLogitsLoss(),
        train=(TRAIN[0], (TRAIN[1] > 4).float()),
    ),
    "noise as augmentation": lambda: run(augment=lambda x: x + 0.02 * torch.randn_like(x)),
}


def _frozen() -> nn.Module:
    model = mlp()
    for p in list(model.parameters())[:2]:
        p.requires_grad_(False)
    return model


@pytest.mark.parametrize("name", CLEAN)
def test_nothing_is_found_in_a_sound_setup(name: str) -> None:
    report = CLEAN[name]()
    assert report, report.table()
    assert not [f for f in report.findings if f.severity != "note"], report.table()


def leak(change: Callable[[Tensor], Tensor], share: float = 0.2) -> tuple[Tensor, Tensor]:
    x, y = VALID[0].clone(), VALID[1].clone()
    count = int(share * len(x))
    x[:count], y[:count] = change(TRAIN[0][:count]), TRAIN[1][:count]
    return x, y


def shuffled(share: float = 1.0) -> tuple[Tensor, Tensor]:
    y = TRAIN[1].clone()
    count = int(share * len(y))
    y[:count] = y[torch.randperm(count, generator=torch.Generator().manual_seed(3))]
    return TRAIN[0], y


class PlainList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = [nn.Linear(64, 32), nn.Linear(32, 32)]
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = x.flatten(1)
        for layer in self.body:
            h = layer(h).relu()
        out: Tensor = self.head(h)
        return out


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x.flatten(1)).relu().detach())
        return out


def zeroed() -> nn.Module:
    model = mlp()
    for p in model.parameters():
        nn.init.zeros_(p)
    return model


def dead() -> nn.Module:
    model = mlp()
    nn.init.constant_(model[1].bias, -50.0)  # type: ignore[index, arg-type]
    return model


def late_head() -> CheckReport:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model[3] = nn.Linear(32, 10)  # type: ignore[index]
    return run(model, optimizer=optimizer)


class OneSample(Dataset[tuple[Tensor, Tensor]]):
    def __len__(self) -> int:
        return 200

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return TRAIN[0][0], TRAIN[1][i]


class OwnGenerator(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, own: bool = True) -> None:
        self.numbers = np.random.default_rng(0) if own else None

    def __len__(self) -> int:
        return len(TRAIN[0])

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        noise = np.random.randn() if self.numbers is None else self.numbers.normal()
        return TRAIN[0][i] + 0.01 * noise, TRAIN[1][i]


def sorted_loader() -> DataLoader[Any]:
    order = TRAIN[1].argsort()
    return DataLoader(TensorDataset(TRAIN[0][order], TRAIN[1][order]), 32)


def rolled_tokens() -> tuple[Tensor, Tensor]:
    x, y = tokens(600, 0)
    return torch.cat([x[:300, 4:], y[:300, -5:-1]], 1), torch.cat([y[:300, 4:], y[:300, -4:]], 1)


FAULTS: dict[str, tuple[str, Callable[[], CheckReport]]] = {
    "equal samples": ("overlap_exact", lambda: run(valid=leak(lambda x: x))),
    "the same data": ("overlap_exact", lambda: run(valid=TRAIN)),
    "shared by test and valid": ("overlap_exact", lambda: run(valid=VALID, test=VALID)),
    "mirrored": ("overlap_near", lambda: run(valid=leak(lambda x: x.flip(-1)))),
    "noisy": ("overlap_near", lambda: run(valid=leak(lambda x: x + 0.02 * torch.randn_like(x)))),
    "noisy table": (
        "overlap_near",
        lambda: run(
            Regression(),
            nn.MSELoss(),
            train=table(),
            valid=(table()[0][:200] + 1e-4, table()[1][:200]),
        ),
    ),
    "equal table": (
        "overlap_exact",
        lambda: run(
            Regression(), nn.MSELoss(), train=table(), valid=tuple(t[:90] for t in table())
        ),
    ),
    "equal tokens": (
        "overlap_exact",
        lambda: run(Tokens(), train=tokens(600, 0), valid=tuple(t[:60] for t in tokens(600, 0))),
    ),
    "shifted tokens": (
        "overlap_near",
        lambda: run(Tokens(), train=tokens(600, 0), valid=rolled_tokens()),
    ),
    "shuffled labels": ("labels_unrelated", lambda: run(train=shuffled())),
    "labels moved by one": ("labels_unrelated", lambda: run(train=(TRAIN[0], TRAIN[1].roll(1)))),
    "shuffled targets": (
        "labels_unrelated",
        lambda: run(
            Regression(), nn.MSELoss(), train=(table()[0], table()[1][torch.randperm(900)])
        ),
    ),
    "a third shuffled": ("labels_partly_random", lambda: run(train=shuffled(0.35))),
    "valid labels permuted": (
        "labels_differ_between_splits",
        lambda: run(valid=(VALID[0], (VALID[1] + 3) % 10)),
    ),
    "valid bytes": ("inputs_differ", lambda: run(valid=(VALID[0] * 255, VALID[1]))),
    "bytes": ("inputs_not_normalized", lambda: run(train=(TRAIN[0] * 255, TRAIN[1]))),
    "nan": (
        "inputs_not_finite",
        lambda: run(train=(torch.where(TRAIN[0] == 1, torch.nan, TRAIN[0]), TRAIN[1])),
    ),
    "constant": ("same_sample", lambda: run(train=(TRAIN[0] * 0 + 1, TRAIN[1]))),
    "one sample": ("same_sample", lambda: run(train=OneSample())),
    "one class": ("one_class", lambda: run(train=(TRAIN[0], TRAIN[1] * 0))),
    "label too large": ("label_out_of_range", lambda: run(train=(TRAIN[0], TRAIN[1] + 1))),
    "labels from one": (
        "labels_start_at_one",
        lambda: run(mlp(out=11), train=(TRAIN[0], TRAIN[1] + 1)),
    ),
    "class left out": (
        "class_missing",
        lambda: run(train=tuple(t[TRAIN[1] != 4] for t in TRAIN)),
    ),
    "split by class": (
        "class_not_in_train",
        lambda: run(train=tuple(t[TRAIN[1] < 8] for t in TRAIN), valid=VALID),
    ),
    "softmax": ("softmax_before_cross_entropy", lambda: run(mlp(nn.Softmax(1)))),
    "softmax over the batch": ("samples_mix", lambda: run(mlp(nn.Softmax(0)))),
    "log-softmax over the batch": (
        "samples_mix",
        lambda: run(mlp(nn.LogSoftmax(0)), nn.NLLLoss()),
    ),
    "sigmoid": ("squashed_before_cross_entropy", lambda: run(mlp(nn.Sigmoid()))),
    "rectifier": ("rectified_before_cross_entropy", lambda: run(mlp(nn.ReLU()))),
    "raw outputs to nll": ("nll_of_non_log_probabilities", lambda: run(mlp(), nn.NLLLoss())),
    "broadcast": (
        "loss_broadcasts",
        lambda: run(Regression(), nn.MSELoss(), train=(table()[0], table()[1][:, 0])),
    ),
    "sigmoid cannot reach": (
        "targets_out_of_reach",
        lambda: run(nn.Sequential(Regression(), nn.Sigmoid()), nn.MSELoss(), train=table()),
    ),
    "zero weights": ("output_ignores_input", lambda: run(zeroed())),
    "dead units": ("output_ignores_input", lambda: run(dead())),
    "plain list": ("module_not_registered", lambda: run(PlainList())),
    "detached": ("parameter_unused", lambda: run(Detached())),
    "head replaced": ("trainable_not_in_optimizer", late_head),
    "another model's optimizer": (
        "optimizer_holds_foreign",
        lambda: run(optimizer=torch.optim.SGD(mlp().parameters(), 0.1)),
    ),
    "ascent": (
        "maximizes",
        lambda: run(m := mlp(), optimizer=torch.optim.SGD(m.parameters(), 0.1, maximize=True)),
    ),
    "frozen": ("nothing_trainable", lambda: run(mlp().requires_grad_(False))),
    "dropout": ("dropout_too_high", lambda: run(mlp(nn.Dropout(0.95)))),
    "sorted": ("batches_sorted_by_label", lambda: run(train=sorted_loader())),
    "not shuffled": ("not_shuffled", lambda: run(train=DataLoader(TensorDataset(*TRAIN), 32))),
    "workers": (
        "workers_draw_the_same",
        lambda: run(train=DataLoader(OwnGenerator(), 32, shuffle=True, num_workers=2)),
    ),
    "wrong shape": (
        "forward_fails",
        lambda: run(nn.Sequential(nn.Flatten(), nn.Linear(63, 10))),
    ),
    "augmented in place": ("augmentation_in_place", lambda: run(augment=lambda x: x.mul_(0.9))),
    "augmented twice 255": ("augmentation_out_of_range", lambda: run(augment=lambda x: x * 255)),
    "augmented to nothing": ("augmentation_fails", lambda: run(augment=lambda x: None)),
}


MORE = {
    "shared by test and valid", "equal tokens", "noisy table", "valid bytes", "split by class",
    "raw outputs to nll", "rectifier", "sigmoid cannot reach", "another model's optimizer",
    "ascent", "frozen", "augmented twice 255", "label too large", "labels from one",
    "not shuffled", "nan", "softmax over the batch", "a third shuffled", "equal table",
}  # fmt: skip
"""Faults whose tests run with the slow ones."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in MORE else ()) for n in FAULTS]
)
def test_a_fault_is_found(name: str) -> None:
    rule, make = FAULTS[name]
    report = make()
    assert rule in rules(report), report.table()


class Dictionaries(Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return 900

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": TRAIN[0][i], "label": int(TRAIN[1][i])}


class Pictures(Dataset[tuple[Any, int]]):
    def __len__(self) -> int:
        return 50

    def __getitem__(self, i: int) -> tuple[Any, int]:
        from PIL import Image

        return Image.fromarray((TRAIN[0][i, 0] * 255).byte().numpy()), int(TRAIN[1][i])


def test_samples_may_be_dictionaries() -> None:
    train, valid = Dictionaries(), torch.utils.data.Subset(Dictionaries(), range(90))
    report = run(train=DataLoader(train, 32, shuffle=True), valid=DataLoader(valid, 32))
    assert rules(report) == ["overlap_exact"], report.table()


def test_samples_without_a_transform_are_named() -> None:
    assert rules(run(train=Pictures())) == ["batch_fails"]


@pytest.mark.parametrize("name", ["digits_logreg", "digits_autoencoder", "digits_rnn"])
def test_the_problems_of_this_package_are_sound(name: str) -> None:
    from optiscope import problems

    problem = problems.get(name)
    report = check(
        problem.make_model(),
        lambda output, targets: problem.loss(output, targets).mean(),
        train=problem.data(None),
        seconds=8,
    )
    assert report, report.table()


def test_shifts_that_lose_content_are_found() -> None:
    def shifted(images: Tensor) -> Tensor:
        rows = torch.randint(-6, 7, (len(images),))
        moved = [
            functional.pad(x, (0, 0, 6, 6))[:, 6 + r : 14 + r]
            for x, r in zip(images, rows.tolist(), strict=True)
        ]
        return torch.stack(moved)

    blank = torch.nn.functional.pad(TRAIN[0][:, :, 1:-1, 1:-1], (1, 1, 1, 1))
    assert "augmentation_loses_content" in rules(run(train=(blank, TRAIN[1]), augment=shifted))


def test_nothing_is_changed() -> None:
    model = Normed()
    model.train()
    model.head.eval()
    optimizer = torch.optim.Adam(model.parameters())
    model(TRAIN[0][:8]).sum().backward()
    optimizer.step()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    grads = [p.grad for p in model.parameters()]
    values = [None if g is None else g.clone() for g in grads]
    state = repr(optimizer.state_dict())
    generator = torch.Generator().manual_seed(4)
    loader = DataLoader(OwnGenerator(), 32, shuffle=True, num_workers=2, generator=generator)
    numbers = loader.dataset.numbers.bit_generator.state  # type: ignore[attr-defined]
    kept = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index, union-attr]
    mine = generator.get_state()

    run(model, optimizer=optimizer, train=loader, valid=VALID, augment=lambda x: x + torch.rand(1))

    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert modes == [m.training for m in model.modules()]
    for p, grad, value in zip(model.parameters(), grads, values, strict=True):
        assert p.grad is grad
        assert grad is None or torch.equal(grad, value)  # type: ignore[arg-type]
    assert repr(optimizer.state_dict()) == state
    assert torch.equal(torch.get_rng_state(), kept[0])
    assert (np.random.get_state()[1] == kept[1]).all()  # type: ignore[index]
    assert random.getstate() == kept[2]
    assert torch.equal(generator.get_state(), mine)
    assert loader.dataset.numbers.bit_generator.state == numbers  # type: ignore[attr-defined]


def test_workers_that_use_the_global_generators_differ() -> None:
    report = run(train=DataLoader(OwnGenerator(False), 32, shuffle=True, num_workers=2))
    assert report, report.table()


def test_the_page_holds_pictures_and_escapes() -> None:
    report = run(valid=leak(lambda x: x))
    text = report._repr_html_()
    assert text.count("data:image/png") > 12
    assert "http" not in text
    assert "<script" not in text
    assert "overlap_exact" in report.table()


def test_misuse_is_one_line() -> None:
    from optiscope.doctor.user_data import DataMisuse

    for wrong in ([], 3, (TRAIN[0], TRAIN[1][:5]), "data"):
        with pytest.raises(DataMisuse) as caught:
            run(train=wrong)
        assert "\n" not in str(caught.value)


def turned(images: Tensor, generator: torch.Generator, degrees: float) -> Tensor:
    angle = (2 * torch.rand(len(images), generator=generator) - 1) * degrees * torch.pi / 180
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    turns = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3)
    grid = functional.affine_grid(turns, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


@pytest.mark.parametrize("degrees", [12, 180])
def test_a_six_on_its_head_is_a_nine(degrees: float) -> None:
    x, y = (torch.cat(pair) for pair in zip(TRAIN, VALID, strict=True))
    report = check(
        mlp(),
        nn.CrossEntropyLoss(),
        train=(x, y),
        augment=lambda images, generator: turned(images, generator, degrees),
        seconds=8,
    )
    pairs = [f.where for f in report.findings if f.rule == "augmentation_breaks_labels"]
    assert pairs == ([("6-9",)] if degrees == 180 else []), report.table()


SETUP = """
import torch
from torch import nn
torch.manual_seed(0)
x = torch.randn(400, 6)
y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()

def good():
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    return {"model": model, "loss": nn.CrossEntropyLoss(), "train": (x, y), "seconds": 5}

def bad():
    return {**good(), "valid": (x[:50], y[:50])}

def wrong():
    return {**good(), "vaild": (x, y)}

def raising():
    raise ValueError("no data here")
"""


@pytest.mark.parametrize(
    ("setup", "code", "says"),
    [
        ("good", 0, "checks made"),
        ("bad", 1, "overlap_exact"),
        ("wrong", 2, "did you mean 'valid'"),
        ("raising", 2, "no data here"),
        ("absent", 2, "expected a function 'absent'"),
    ],
)
def test_the_command(
    setup: str,
    code: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from optiscope.cli import main

    (tmp_path / "my_checked_setup.py").write_text(SETUP)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.html"
    with pytest.raises(SystemExit) as left:
        main(["check", f"my_checked_setup:{setup}", "--page", str(page)])
    captured = capsys.readouterr()
    assert left.value.code == code, captured
    assert says in captured.out + captured.err
    assert page.exists() == (code < 2)
    if code < 2:
        with pytest.raises(SystemExit):
            main(["check", f"my_checked_setup:{setup}", "--json"])
        assert json.loads(capsys.readouterr().out)["clean"] is (code == 0)
