"""Make the figures of docs/textbook.md: ``python docs/figures/textbook/make.py [NAME ...]``.

Every path and every curve is computed here from the problems of ``optiscope.problems.textbook``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.optim import SGD, Adam, Optimizer, RMSprop

from optiscope.optim.baselines.saddle_free_newton import SaddleFreeNewton
from optiscope.problems import Problem, get
from optiscope.problems.initialisation import initialise
from optiscope.problems.losses import cross_entropy
from optiscope.problems.models.dense import multilayer_perceptron
from optiscope.problems.signal_spread import signal_spread
from optiscope.problems.textbook import saddle, wrong_side
from optiscope.problems.textbook.adding import (
    MEMORYLESS_LOSS,
    SequenceReader,
    adding,
    state_gradient_norms,
)
from optiscope.problems.textbook.cliff import cliff_edge
from optiscope.problems.textbook.ill_conditioned import (
    best_gradient_descent,
    best_heavy_ball,
    ill_conditioned_quadratic,
)
from optiscope.problems.textbook.loss_grid import loss_grid
from optiscope.problems.textbook.noisy_quadratic import (
    best_rate,
    excess_after,
    excess_of_constant_rate,
    noisy_quadratic,
    worst_curvature,
    worst_excess_after,
)
from optiscope.problems.textbook.plateau import crossing_time
from optiscope.problems.textbook.repeated_matrix import (
    gradient_norms_back,
    largest_eigenvalue,
    minima,
)
from optiscope.problems.textbook.trajectory import trajectory
from optiscope.report.figures.signal_propagation import Spread, spread_figure
from optiscope.report.figures.textbook import Curve, Ground, Walk, curve_figure, landscape_figure

FOLDER = Path(__file__).parent
Make = Callable[[list[dict[str, Any]]], Optimizer]


def sgd(lr: float, **settings: Any) -> Make:
    """Gradient descent at the rate ``lr``."""
    return partial(SGD, lr=lr, **settings)


def walk(problem: Problem, make: Make, steps: int, **settings: Any) -> Walk:
    """A path as the figures take it."""
    walked = trajectory(problem, make, steps, **settings)
    return Walk(walked.points, walked.losses)


def ground(
    problem: Problem, u: tuple[float, float], v: tuple[float, float], **settings: Any
) -> Ground:
    """The landscape within the limits ``u`` and ``v``."""
    across, up = np.linspace(*u, 161), np.linspace(*v, 161)
    return Ground(across, up, loss_grid(problem, across, up), **settings)


def ill_conditioned() -> Figure:
    """Tuned gradient descent and tuned momentum in a valley."""
    problem = ill_conditioned_quadratic(20.0)
    plain, heavy = best_gradient_descent(20.0), best_heavy_ball(20.0)
    return landscape_figure(
        f"Condition number 20: {plain.contraction:.2f} a step at best, with momentum "
        f"{heavy.contraction:.2f}",
        ground(problem, (-2.2, 2.2), (-0.7, 1.3), minima=[(0.0, 0.0)]),
        {
            f"gradient descent, η = {plain.lr:.2f}": walk(problem, sgd(plain.lr), 40),
            f"momentum {heavy.momentum:.2f}, η = {heavy.lr:.2f}": walk(
                problem, sgd(heavy.lr, momentum=heavy.momentum), 40
            ),
            "one noisy sample a step, η = 0.5": walk(problem, sgd(0.5), 40, batch_size=1),
        },
    )


def symmetry_of_order() -> Figure:
    """Two units that can change places."""
    problem = get("textbook_symmetry_of_order")
    starts = [(1.4, -0.8), (-0.8, 1.4), (0.9, 0.8), (0.8, 0.9)]
    return landscape_figure(
        "Two units change places: mirrored starts end in mirrored, equal minima",
        ground(
            problem,
            (-1.5, 3.0),
            (-1.5, 3.0),
            names=("w₁", "w₂"),
            minima=[(2.0, 0.5), (0.5, 2.0)],
            equal=True,
        ),
        {f"from ({a:g}, {b:g})": walk(problem, sgd(0.5), 200, start=(a, b)) for a, b in starts},
    )


def symmetry_of_sign() -> Figure:
    """One tanh unit that can change the sign of both weights."""
    problem = get("textbook_symmetry_of_sign")
    starts = [(0.2, -0.5), (-0.2, 0.5), (2.0, 0.2), (-2.0, -0.2)]
    return landscape_figure(
        "A unit changes sign: minima at (1, 1) and (-1, -1), a saddle between them",
        ground(
            problem,
            (-2.5, 2.5),
            (-2.0, 2.0),
            names=("w", "v"),
            minima=[(1.0, 1.0), (-1.0, -1.0)],
            equal=True,
        ),
        {f"from ({a:g}, {b:g})": walk(problem, sgd(0.5), 100, start=(a, b)) for a, b in starts},
    )


def saddle_point() -> Figure:
    """First-order methods, Newton's and the saddle-free one."""
    problem = get("textbook_saddle")
    newton = partial(SaddleFreeNewton, absolute=False)
    return landscape_figure(
        "A saddle: first-order methods stall, Newton stays, saddle-free Newton leaves",
        ground(problem, (-1.3, 1.4), (-1.3, 1.4), minima=saddle.MINIMA, equal=True),
        {
            "gradient descent, η = 1": walk(problem, sgd(1.0), 120),
            "momentum 0.9, η = 0.5": walk(problem, sgd(0.5, momentum=0.9), 120),
            "Adam, η = 0.03": walk(problem, partial(Adam, lr=0.03), 120),
            "Newton": walk(problem, newton, 120, closure=True),
            "saddle-free Newton": walk(problem, SaddleFreeNewton, 120, closure=True),
        },
        reference=-0.0125,
    )


def plateau() -> Figure:
    """A plain on which the gradient's length says nothing."""
    problem = get("textbook_plateau")
    return landscape_figure(
        f"A plateau: {crossing_time(4.0, 1.0):.0f}/η steps at a small rate η, unless a method "
        "ignores the gradient's length",
        ground(problem, (-4.0, 1.5), (-1.5, 3.2), minima=[(0.0, 0.0)], equal=True),
        {
            "gradient descent, η = 1": walk(problem, sgd(1.0), 260),
            "momentum 0.9, η = 1": walk(problem, sgd(1.0, momentum=0.9), 260),
            "Adam, η = 0.1": walk(problem, partial(Adam, lr=0.1), 260),
            "RMSprop, η = 0.03": walk(problem, partial(RMSprop, lr=0.03), 260),
        },
    )


def cliff() -> Figure:
    """One recurrent unit, with and without clipping."""
    problem = get("textbook_cliff")
    weights = np.array([4.2553, 7.0])
    edge = np.stack([weights, [cliff_edge(w) for w in weights]], 1)
    return landscape_figure(
        "A cliff: one step from its edge throws descent away, clipping holds it",
        ground(
            problem,
            (2.0, 7.0),
            (-4.0, -0.6),
            names=("weight w", "bias b"),
            lines={"edge b = ½ - σ(½) w": edge},
        ),
        {
            "η = 3": walk(problem, sgd(3.0), 120),
            "η = 3, norm clipped to 0.1": walk(problem, sgd(3.0), 120, clip=0.1),
        },
    )


def misled() -> Figure:
    """Descent that goes down for ever without getting anywhere."""
    problem = get("textbook_wrong_side")
    return landscape_figure(
        "Poor correspondence: left of the pass, every step down leads away from the minimum",
        ground(
            problem,
            (-7.0, 3.5),
            (-2.0, 2.0),
            minima=[wrong_side.MINIMUM],
        ),
        {
            "gradient descent from (-1.5, 1)": walk(problem, sgd(0.5), 150),
            "Adam from (-1.5, 1)": walk(problem, partial(Adam, lr=0.1), 150),
            "gradient descent from (-0.9, 1)": walk(problem, sgd(0.5), 150, start=(-0.9, 1.0)),
        },
        reference=wrong_side.LIMIT,
    )


def redundancy() -> Figure:
    """Two weights where one would do."""
    problem = get("textbook_redundancy")
    starts = [(1.5, 1.2), (1.5, 1.45), (-0.4, 1.2), (-1.5, -1.0)]
    return landscape_figure(
        "Two weights for one: the minima fill both axes, and the start decides where descent ends",
        ground(problem, (-1.8, 1.8), (-1.8, 1.8), names=("w₁", "w₂"), equal=True),
        {f"from ({a:g}, {b:g})": walk(problem, sgd(0.05), 100, start=(a, b)) for a, b in starts},
    )


def repeated_matrix() -> Figure:
    """A plateau inside the circle, a wall outside, and the minima on it."""
    problem = get("textbook_repeated_matrix")
    outside = (1.12 * math.cos(0.4), 1.12 * math.sin(0.4))
    return landscape_figure(
        "One matrix twenty times: no gradient inside the circle, too much outside",
        ground(
            problem,
            (0.55, 1.25),
            (-0.25, 0.55),
            names=("a", "b"),
            minima=[m for m in minima() if m[0] > 0.55 and -0.25 < m[1] < 0.55],
            equal=True,
        ),
        {
            "inside, η = 0.002": walk(problem, sgd(0.002), 400),
            "inside, Adam, η = 0.01": walk(problem, partial(Adam, lr=0.01), 300),
            "outside, η = 0.002": walk(problem, sgd(0.002), 300, start=outside),
            "outside, η = 0.002, norm clipped to 1": walk(
                problem, sgd(0.002), 300, start=outside, clip=1.0
            ),
        },
    )


def vanishing() -> Figure:
    """Gradients through a matrix, and through a recurrent network, against the eigenvalue."""
    through_matrix: list[Curve] = []
    through_network: list[Curve] = []
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    matrix /= torch.linalg.eigvals(matrix).abs().max()
    last = torch.randn(12, generator=generator, dtype=torch.float64)
    back = np.arange(61.0)
    sequences = adding(61).data(None).train.select(torch.arange(100)).inputs
    for radius in (0.9, 1.0, 1.1):
        label = f"λ = {radius:g}"
        norms = gradient_norms_back(radius * matrix, last, 60).numpy()
        predicted = largest_eigenvalue(radius * matrix)
        line = norms[60] * predicted ** (back - 60)
        through_matrix += [
            Curve(label, back, norms),
            Curve("λᵗ, λ by the power method", back, line, theory=True),
        ]
        torch.manual_seed(0)
        model = SequenceReader(32, radius)
        norms = state_gradient_norms(model, sequences, torch.zeros(100, 1)).numpy()[::-1]
        predicted = largest_eigenvalue(model.recur.weight.detach())
        through_network += [
            Curve(label, back, norms),
            Curve("λᵗ, λ by the power method", back, norms[0] * predicted**back, theory=True),
        ]
    return curve_figure(
        "Gradients many steps back vanish or explode by the largest eigenvalue λ",
        {"random 12 × 12 matrix": through_matrix, "tanh network": through_network},
        x="steps back, t",
        y="norm of the gradient by the state",
    )


def adding_problem() -> Figure:
    """Learning to add, with recurrent weights that carry gradients and with such that do not."""
    steps, length = 1600, 20
    every = np.arange(0, steps + 1, 20)
    curves = []
    for gain in (1.0, 0.8, 0.1):
        walked = trajectory(
            adding(length, gain=gain), partial(Adam, lr=2e-3), steps, dtype=torch.float32
        )
        label = f"λ = {gain:g} at the start"
        curves.append(Curve(label, every.astype(float), walked.losses[every]))
    ends = np.array([0.0, steps])
    curves.append(Curve("no memory: 1/6", ends, np.array([MEMORYLESS_LOSS] * 2), theory=True))
    return curve_figure(
        f"The adding problem, {length} steps: Adam at rate 0.002",
        {"": curves},
        x="step",
        y="loss",
    )


def noisy() -> Figure:
    """Excess error of the noisy quadratic model against its theory."""
    steps = 1500
    k = np.arange(1.0, steps + 1)

    def excess(rate: Callable[[int], float] | None, lr: float, h: float) -> Any:
        walked = trajectory(noisy_quadratic(h), sgd(lr), steps, rate=rate)
        return 0.5 * h * (walked.points**2).mean(1)[1:]

    one = [
        Curve("best rate of each step", k, excess(best_rate, 1.0, 1.0)),
        Curve("theory", k, np.array([excess_after(int(i)) for i in k]), theory=True),
    ]
    for rate in (0.1, 0.01):
        predicted = np.array([excess_of_constant_rate(int(i), rate) for i in k])
        one += [
            Curve(f"η = {rate:g}", k, excess(None, rate, 1.0)),
            Curve("theory", k, predicted, theory=True),
        ]
    worst = []
    for horizon in (5, 50, 500):
        h = worst_curvature(horizon)
        rates = partial(best_rate, curvature=h)
        worst.append(Curve(f"curvature 1/√{horizon}", k, excess(rates, 1.0, h)))
    limit = np.array([worst_excess_after(int(i)) for i in k])
    worst.append(Curve("theory", k, limit, theory=True))
    return curve_figure(
        "The noisy quadratic model: O(1/k) for one curvature, O(1/√k) for the worst",
        {"curvature 1": one, "the worst curvature for k = 5, 50, 500": worst},
        x="step k",
        y="excess loss",
        log="xy",
    )


def initialisation() -> Figure:
    """Signals through ten layers of ReLU under five rules, before training."""
    data = get("digits_mlp").data(None).train
    batch = data.select(torch.arange(256))
    rules: list[dict[str, Any]] = [
        {"name": "uniform"},
        {"name": "glorot_uniform"},
        {"name": "he_normal"},
        {"name": "orthogonal", "gain": math.sqrt(2)},
        {"name": "sparse", "nonzero": 15, "std": 0.5},
    ]
    drawn = {}
    for rule in rules:
        model = multilayer_perceptron((64, *[200] * 9, 10), torch.nn.init.zeros_)
        initialise(model, rule, generator=torch.Generator().manual_seed(0))
        rows = [r for r in signal_spread(model, cross_entropy, batch) if r.kind == "Linear"]
        settings = [f"{k} {v:.3g}" for k, v in rule.items() if k != "name"]
        drawn[", ".join([rule["name"], *settings])] = Spread(
            [f"layer {i}" for i in range(1, len(rows) + 1)],
            [row.std for row in rows],
            [row.gradient or math.nan for row in rows],
        )
    return spread_figure("Ten linear layers of 200 units with ReLU, before training", drawn)


FIGURES: dict[str, Callable[[], Figure]] = {
    "ill_conditioned": ill_conditioned,
    "symmetry_of_order": symmetry_of_order,
    "symmetry_of_sign": symmetry_of_sign,
    "saddle": saddle_point,
    "plateau": plateau,
    "cliff": cliff,
    "wrong_side": misled,
    "redundancy": redundancy,
    "repeated_matrix": repeated_matrix,
    "vanishing": vanishing,
    "adding": adding_problem,
    "noisy_quadratic": noisy,
    "initialisation": initialisation,
}


def main(names: list[str]) -> None:
    """Write the named figures, or all of them, beside this file."""
    for name in names or list(FIGURES):
        path = FOLDER / f"{name}.png"
        FIGURES[name]().savefig(path, dpi=110, metadata={"Software": None})
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} kB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
