"""A first look at a problem's landscape: train briefly from two seeds, then measure and draw."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from optiscope import landscape
from optiscope.cli.landscape_drawings import Drawing, draw_line, draw_path, draw_plane
from optiscope.cores import available_cores
from optiscope.problems import Problem
from optiscope.problems.risk import risk_of

__all__ = ["look_at"]

RATES = (0.05, 0.01, 0.002)
"""Learning rates of momentum SGD, the next where training diverges."""

KEPT = 60
"""Points of the trajectory that are kept, more at the start, where training moves fastest."""

PLANE_SECONDS, PATH_SECONDS = 15.0, 12.0
"""Time for the plane and the path on an idle machine: points and gradients are chosen by it."""

OnStep = Callable[[str, int, int], None]


def look_at(
    problem: Problem,
    *,
    epochs: int,
    seed: int,
    samples: int | None,
    data_dir: Path | None,
    on_step: OnStep,
) -> list[Drawing]:
    """Drawings of the plane with the first training's way, the line, and a path.

    Args:
        problem: small enough to be trained in seconds.
        epochs: of momentum SGD, for each of two seeds.
        seed: the first; the second is the next.
        samples: training samples on which the loss is evaluated; None: all.
        data_dir: where the data are.
        on_step: told of a stage, the steps done and all of its steps.
    """
    trained = [
        _trained(problem, epochs, s, data_dir, functools.partial(on_step, f"training, seed {s}"))
        for s in (seed, seed + 1)
    ]
    model, way = trained[0]
    ends = [way[-1], trained[1][1][-1]]
    risk = risk_of(problem, "train", model, data_dir=data_dir, samples=samples)
    test = risk_of(problem, "test", model, data_dir=data_dir)
    forward, gradient = _seconds(lambda: risk.value(ends[0])), _seconds(risk.gradient)
    directions = landscape.trajectory_directions(risk, way)
    plane = landscape.plane(
        risk,
        directions,
        points=_points(forward),
        on_progress=lambda done, total: on_step("plane", done, total),
    )
    losses = [float(risk.value(state)) for state in way]
    line = landscape.line(
        risk,
        *ends,
        points=61,
        others={"test": test},
        on_progress=lambda done, total: on_step("line", done, total),
    )
    path = landscape.connect(
        risk,
        *ends,
        gradients=max(60, min(1000, int(PATH_SECONDS / gradient))),
        points=101,
        require_converged=False,
        on_progress=lambda done, total: on_step("path", done, total),
    )
    return [
        draw_plane(problem.name, plane, losses),
        draw_line(problem.name, line),
        draw_path(problem.name, path),
    ]


def _points(seconds: float) -> int:
    """Points along each axis of a plane that takes about `PLANE_SECONDS`."""
    affordable = math.sqrt(PLANE_SECONDS * available_cores() / max(seconds, 1e-4))
    return max(15, min(41, int(affordable) // 2 * 2 + 1))


def _seconds(function: Callable[[], Any]) -> float:
    function()
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def _trained(
    problem: Problem,
    epochs: int,
    seed: int,
    data_dir: Path | None,
    on_progress: Callable[[int, int], None],
) -> tuple[nn.Module, list[dict[str, Tensor]]]:
    """A model trained by momentum SGD whose rate falls to zero, and its way as state dicts."""
    data = problem.data(data_dir).train
    batch = min(problem.batch_size, len(data))
    per_epoch = len(data) // batch
    total = epochs * per_epoch
    kept = {round(total * (k / (KEPT - 1)) ** 2) for k in range(KEPT)}
    way: list[dict[str, Tensor]] = []
    model: nn.Module | None = None
    for rate in RATES:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = problem.make_model()
            optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
            way, finite = [_copy(model)], True
            for step in range(total):
                if step % per_epoch == 0:
                    order = torch.randperm(len(data))[: per_epoch * batch].view(per_epoch, batch)
                inputs, targets = data.select(order[step % per_epoch])
                for group in optimizer.param_groups:
                    group["lr"] = rate * (1 - step / total)
                optimizer.zero_grad()
                loss = problem.loss(model(inputs), targets).mean()
                finite = math.isfinite(float(loss.detach()))
                if not finite:
                    break
                loss.backward()
                optimizer.step()
                if step + 1 in kept:
                    way.append(_copy(model))
                on_progress(step + 1, total)
        if finite:
            break
    assert model is not None
    return model, way


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
