"""Synthetic studies: genuine records of invented runs, written through the package's own store."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from optiscope.records import (
    Entry,
    Measurement,
    Run,
    Seconds,
    Status,
    StudyFolder,
    Trial,
    summarise,
)

ENVIRONMENT = {
    "python": "3.12.3",
    "torch": "2.13.0",
    "numpy": "2.4.6",
    "optiscope": "0.1.0",
    "platform": "Linux-6.8-x86_64",
    "cpu": "invented processor",
    "device": "cpu",
    "threads": 1,
    "deterministic": True,
    "commit": None,
}
STEPS_PER_EPOCH = 50


@dataclass(frozen=True)
class Method:
    """An invented optimizer: its best rate, floor of the loss, speed, and cost per step.

    ``low`` and ``high`` bound its search space; ``second`` adds a weight decay to it.
    """

    label: str
    best_rate: float = 0.05
    floor: float = 0.3
    speed: float = 0.5
    cost: float = 1.0
    low: float = 1e-4
    high: float = 10.0
    tuned: bool = True
    second: bool = False


def methods(count: int) -> list[Method]:
    """``count`` different methods, the first one named SGD."""
    names = ["SGD", "momentum", "Nesterov", "Adam", "AdamW", "PreconditionedSGD", "Lark", "RMSprop"]
    names += [f"method {k}" for k in range(len(names), count)]
    return [
        Method(
            name,
            best_rate=0.3 / 2 ** (k % 6),
            floor=0.5 - 0.25 * math.sin(1.3 * k) * 0.5,
            speed=0.25 + 0.1 * (k % 5),
            cost=1.0 + 0.25 * k,
        )
        for k, name in enumerate(names[:count])
    ]


def make_study(
    path: Path,
    *,
    algorithms: Sequence[Method],
    problems: Sequence[str] = ("digits_mlp",),
    seeds: Sequence[int] = (100, 101, 102, 103, 104),
    tuning_seeds: Sequence[int] = (0,),
    budget: int = 8,
    epochs: int = 10,
    failing: dict[tuple[str, str, int], Status] | None = None,
    missing: int = 0,
    loss_problems: Sequence[str] = (),
    name: str = "invented",
) -> StudyFolder:
    """A study whose reporting runs named in ``failing`` (algorithm, problem, seed) fail so."""
    folder = StudyFolder(path)
    rng = np.random.default_rng(0)
    entries: list[Entry] = []
    runs: list[Run] = []
    for problem_number, problem in enumerate(problems):
        for method in algorithms:
            chosen, best = {"lr": method.best_rate}, math.inf
            for index in range(budget if method.tuned else 0):
                point = _point(method, index, budget, problem_number)
                finals = []
                for seed in tuning_seeds:
                    run = invent(method, problem, point, seed, epochs, rng)
                    runs.append(run)
                    entries.append(_entry(run, method, "tuning", index))
                    finals.append(run.final["valid_loss"] if run.status.complete else math.inf)
                if np.mean(finals) < best:
                    chosen, best = point, float(np.mean(finals))
            for seed in seeds:
                status = (failing or {}).get((method.label, problem, seed))
                run = invent(method, problem, chosen, seed, epochs, rng, status)
                runs.append(run)
                entries.append(_entry(run, method, "reporting", -1))
    for run in runs[: len(runs) - missing]:
        folder.store.write(run)
    folder.write_declaration(
        {
            "schema": 1,
            "name": name,
            "question": "Which of the invented methods is best?",
            "problems": list(problems),
            "epochs": dict.fromkeys(problems, epochs),
            "batch_sizes": dict.fromkeys(problems, 64),
            "reference": algorithms[0].label,
            "metric": {p: "loss" if p in loss_problems else "accuracy" for p in problems},
            "algorithms": [_declared(m, budget) for m in algorithms],
            "tuning": {"seeds": list(tuning_seeds), "select": "valid_loss"},
            "seeds": list(seeds),
            "equivalence_margin": None,
            "level": 0.05,
            "version": "0.1.0",
            "source": f'name = "{name}"\nproblems = {list(problems)}\n',
        }
    )
    folder.write_ledger(sorted(entries, key=lambda e: e.role != "tuning"))
    return folder


def invent(
    method: Method,
    problem: str,
    hyperparameters: dict[str, Any],
    seed: int,
    epochs: int,
    rng: np.random.Generator,
    status: Status | None = None,
) -> Run:
    """One run with exponential learning curves; a rate far above the best one diverges."""
    distance = math.log10(hyperparameters["lr"] / method.best_rate)
    if status is None:
        status = Status.DIVERGED if distance > 1.2 else Status.FINISHED
    last = epochs if status is Status.FINISHED else max(1, epochs // 3)
    metrics: list[Measurement] = []
    shift = 0.03 * rng.standard_normal()
    for epoch in range(last + 1):
        progress = math.exp(-method.speed * epoch * math.exp(-(distance**2)))
        train = method.floor * 0.6 + 1.8 * progress
        if status is Status.DIVERGED and epoch == last:
            train = 1e6
        for split, gap in (("train", 0.0), ("valid", 0.1), ("test", 0.12)):
            loss = train + gap * (1 - progress) + shift + 0.01 * rng.standard_normal()
            accuracy = min(1.0, max(0.1, 1 - 0.38 * loss)) if loss < 1e3 else 0.1
            step = epoch * STEPS_PER_EPOCH
            metrics.append(Measurement(step, float(epoch), split, "loss", loss))
            metrics.append(Measurement(step, float(epoch), split, "accuracy", accuracy))
        if epoch:
            metrics.append(Measurement(step, float(epoch), "batch", "loss", train))
            metrics.append(
                Measurement(step, float(epoch), "optimizer", "lr", hyperparameters["lr"])
            )
    final, best = summarise(metrics)
    steps = last * STEPS_PER_EPOCH
    second = 1e-3 * steps * (1 + 0.03 * abs(rng.standard_normal()))
    reasons = {
        Status.FINISHED: f"finished {epochs} epochs",
        Status.DIVERGED: f"training loss became 1e+06 at step {steps}",
        Status.CRASHED: f"RuntimeError at step {steps}: invented failure <script>alert(1)</script>",
    }
    return Run(
        trial=Trial(
            problem=problem,
            problem_version=1,
            optimizer=method.label,
            hyperparameters=hyperparameters,
            seed=seed,
            epochs=epochs,
            batch_size=64,
        ),
        status=status,
        reason=reasons.get(status, f"{status} at step {steps}"),
        steps=steps,
        seconds={
            "data": Seconds(0.1 * second, 0.1 * second),
            "forward_backward": Seconds(0.7 * second, 0.8 * second),
            "optimizer": Seconds(0.2 * second * method.cost, 0.2 * second * method.cost),
            "instruments": Seconds(0.0, 0.0),
            "evaluation": Seconds(0.4 * second, 0.4 * second),
        },
        counts={"gradient_evaluations": steps, "hessian_products": 0},
        peak_memory_bytes=300_000_000,
        environment=ENVIRONMENT,
        started="2026-01-01T00:00:00+00:00",
        metrics=metrics,
        final=final,
        best=best,
    )


def _point(method: Method, index: int, budget: int, shift: int) -> dict[str, Any]:
    share = ((index + 0.37 * shift) / max(1, budget - 1)) % 1.0001
    point = {"lr": float(method.low * (method.high / method.low) ** share)}
    if method.second:
        point["weight_decay"] = 10.0 ** (-6 + 4 * ((0.618 * index) % 1.0))
    return point


def _entry(run: Run, method: Method, role: str, index: int) -> Entry:
    return Entry(
        trial_hash=run.trial.hash,
        algorithm=method.label,
        problem=run.trial.problem,
        role=role,
        index=index,
        hyperparameters=dict(run.trial.hyperparameters),
        seed=run.trial.seed,
    )


def _declared(method: Method, budget: int) -> dict[str, Any]:
    space = {"lr": {"low": method.low, "high": method.high, "log": True}} if method.tuned else {}
    if method.second:
        space["weight_decay"] = {"low": 1e-6, "high": 1e-2, "log": True}
    return {
        "label": method.label,
        "optimizer": asdict(method)["label"],
        "fixed": {} if method.tuned else {"lr": method.best_rate},
        "space": space,
        "sampler": "random" if method.tuned else "none",
        "budget": budget if method.tuned else 1,
        "schedule": None,
        "clip": None,
        "early_stopping": None,
        "colour": None,
    }
