"""Instruments of the cockpit: each is a small observer that adds to the session's series.

Light ones read what a step offers anyway. The others call the model again on a few samples of the
batch, on copies, with generators of their own. Each has a name, and the budget decides how often it
is called.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from optiscope.monitor.budget import Budget
from optiscope.monitor.events import Forward, Observer, WatchedStep, at_looks
from optiscope.monitor.gradient_tests import GradientTests, gradient_tests
from optiscope.monitor.graph import saved_activations
from optiscope.monitor.layer_capture import LayerCapture
from optiscope.monitor.outputs import main_output
from optiscope.monitor.per_sample import SampleGram, per_sample, sample_gram
from optiscope.monitor.probe import probing, rows_of
from optiscope.monitor.series import Series
from optiscope.objective.functional import functional_call

if TYPE_CHECKING:
    from optiscope.monitor.session import Session

__all__ = ["LEVELS", "MEASURES", "Measure", "chosen_measures"]


class Measure(Observer):
    """An instrument: ``measure(view)`` at looked-at steps, as often as the budget allows."""

    name: ClassVar[str] = "measure"

    def __init__(self, series: Series, budget: Budget) -> None:
        self.series, self.budget = series, budget
        self.session: Session
        self.trouble = ""

    def start(self, session: Session) -> None:
        """Keep the session."""
        self.session = session

    def after_step(self, view: WatchedStep) -> None:
        """Measure every so many steps, as the budget allows."""
        if view.tick and not view.index and self.budget.due(self.name, view.number):
            with self.budget.spend(self.name, view.number):
                self.measure(view)

    def measure(self, view: WatchedStep) -> None:
        """Add to the series what this step shows."""
        raise NotImplementedError


class Norms(Measure):
    """Norms of gradients, updates and weights by layer, and the way from the start."""

    name = "norms"

    def __init__(self, series: Series, budget: Budget) -> None:
        super().__init__(series, budget)
        self.first: dict[int, Tensor] = {}

    def wants_before(self, number: int) -> bool:
        """Weights before and after the step."""
        return self.budget.due(self.name, number)

    def before_step(self, view: WatchedStep) -> None:
        """Read the gradients before the optimizer may change them."""
        if view.tick and not view.index and self.budget.due(self.name, view.number):
            start = time.perf_counter()
            _ = view.gradient_norms
            self.budget.charge(self.name, time.perf_counter() - start)

    def measure(self, view: WatchedStep) -> None:
        """Norms of this step, and the distance from the first weights."""
        if not view.before:
            return
        step = view.number
        weights, updates = view.weight_norms, view.update_norms
        gradients = view.gradient_norms
        self.series.add("gradient norm", step, view.gradient_norm)
        self.series.add("update norm", step, _root(updates))
        self.series.add("weight norm", step, _root(weights))
        matrices = {view.name(p) for p in view.parameters if p.ndim > 1}
        self.series.add_layers(
            "gradient norm", step, {n: v for n, v in gradients.items() if n in matrices}
        )
        ratio = {n: updates[n] / weights[n] for n in updates if weights.get(n, 0) > 0}
        self.series.add_layers(
            "update / weight", step, {n: v for n, v in ratio.items() if n in matrices}
        )
        if not self.first and view.number == 0:
            self.first = {i: v.clone() for i, v in view.before.items()}
        if self.first:
            kept = [p for p in view.parameters if id(p) in self.first]
            way = torch._foreach_sub([p.detach() for p in kept], [self.first[id(p)] for p in kept])
            norms = [norm.double().cpu() for norm in torch._foreach_norm(way)]
            self.series.add("distance", step, float(torch.stack(norms).norm()))


class Activations(Measure):
    """Share of dead and saturated units by layer, read from the graph."""

    name = "activations"
    reads_forwards = True

    @at_looks
    def forward(self, forward: Forward) -> None:
        """Read the graph of a looked-at training forward."""
        step = self.session.step
        if not forward.nodes or not forward.look or not self.budget.due(self.name, step):
            return
        with self.budget.spend(self.name, step):
            shares: dict[str, float] = {}
            for number, activation in enumerate(saved_activations(forward.nodes)):
                name = self.session.names.get(id(activation.parameter), "")
                layer = name.rpartition(".")[0] or str(number)
                values = activation.values
                if activation.kind in ("relu", "leaky_relu"):
                    share = float((values <= 0).float().mean())
                elif activation.kind in ("tanh", "sigmoid"):
                    centred = values if activation.kind == "tanh" else 2 * values - 1
                    share = float((centred.abs() > 0.97).float().mean())
                else:
                    share = float((values < -3).float().mean())
                shares[f"{layer} {activation.kind}"] = share
            self.series.add_layers("off or saturated", step, shares)

    def after_step(self, view: WatchedStep) -> None:
        """Nothing: the forward pass said it."""


class Histogram(Measure):
    """Histogram of gradient and weight entries at the latest look."""

    name = "histogram"
    BINS = 41

    def __init__(self, series: Series, budget: Budget) -> None:
        super().__init__(series, budget)
        self.latest: dict[str, Any] = {}

    def measure(self, view: WatchedStep) -> None:
        """Count entries in bins that are even in the logarithm of their size."""
        values = [
            p.grad.detach().flatten().float() for p in view.with_gradient if p.grad is not None
        ]
        if not values:
            return
        size = torch.cat(values).abs()
        size = size[size > 0].log10().cpu()
        if not len(size):
            return
        counts = torch.histc(size, self.BINS, min=-12, max=4)
        self.latest = {
            "step": view.number,
            "low": -12,
            "high": 4,
            "counts": [int(c) for c in counts],
        }


class BatchMeasure(Measure):
    """An instrument that calls model and loss again on samples of the step's batch."""

    samples: ClassVar[int] = 16

    def batch(self, view: WatchedStep) -> tuple[Forward, Tensor, Callable[..., Any]] | None:
        """Samples of the last training forward, their targets and the loss; None without them."""
        training = [f for f in view.forwards if f.grad and f.args]
        if not training:
            return None
        forward = training[-1]
        loss = self.session.loss_function
        target = forward.target
        labels = forward.labels if forward.form is None else forward.form.labels
        known = self.session.form_kind == "cross_entropy"
        if target is None and labels is not None and known and len(labels) == forward.size:
            target = labels
            loss = loss if callable(loss) else nn.functional.cross_entropy
        if target is None or not callable(loss):
            self.trouble = "needs the loss: pass loss= or use watch.loss(...)"
            return None
        carrier = forward
        if forward.target is None:
            carrier.target = target
        small = rows_of(carrier, self.samples)
        if small is None or small.target is None or len(small.inputs) != 1:
            self.trouble = "needs a model of one tensor"
            return None
        return small, small.target, loss


class SampleGradients(BatchMeasure):
    """An instrument of per-sample gradients, on samples of the batch."""

    @contextmanager
    def probe(
        self, view: WatchedStep
    ) -> Iterator[tuple[nn.Module, Callable[..., Tensor], tuple[Tensor, Tensor], str] | None]:
        """Model, loss, samples and reduction; buffers and generators are put back afterwards."""
        found = self.batch(view)
        reduction = "mean" if found is None else getattr(found[2], "reduction", "mean")
        if found is not None and (reduction not in ("mean", "sum") or found[0].size < 2):
            self.trouble = "needs a loss with reduction mean or sum"
            found = None
        if found is None:
            yield None
            return
        forward, target, loss = found
        with probing(self.session) as model, torch.enable_grad():
            _fork(model, view.number)
            buffers = {n: b.clone() for n, b in model.named_buffers()}
            try:
                yield model, _on_output(loss), (forward.inputs[0], target), reduction
            finally:
                for name, buffer in model.named_buffers():
                    if not torch.equal(buffer, buffers[name]):
                        buffer.copy_(buffers[name])

    def keep(self, view: WatchedStep, tests: GradientTests, names: Iterable[str]) -> None:
        """Add some of the figures to the series."""
        values = tests.values()
        for name in names:
            if name in values:
                self.series.add(name.replace("_", " "), view.number, values[name])

    def fell_back(self, names: tuple[str, ...]) -> None:
        """Say which parameters had to be differentiated one sample at a time."""
        if names:
            self.trouble = f"vmap(grad) for {', '.join(names[:5])}"


class GradientNoise(SampleGradients):
    """Norm, inner product and orthogonality test, noise scale and CABS, from a Gram matrix.

    The matrix comes from the step's own forward and backward pass where that is plain
    (:class:`LayerCapture`); else the model is called again on the samples.
    """

    name = "gradient tests"
    FIGURES = (
        "variance", "norm", "inner_product", "orthogonality", "noise_scale", "suggested_batch",
        "cabs",
    )  # fmt: skip

    def __init__(self, series: Series, budget: Budget) -> None:
        super().__init__(series, budget)
        self.capture: LayerCapture | None = None
        self.known: SampleGram | None = None

    def before_forward(self, root: nn.Module, size: int) -> None:
        """Watch the layers in the forward pass of a step that is measured."""
        self.finish()
        number = self.session.steps[0]
        if size < 2 or not self.session.looks.tick(number):
            return
        if not self.budget.due(self.name, number):
            return
        start = time.perf_counter()
        model = self.session.model
        if LayerCapture.works_for(root, model):
            self.capture = LayerCapture(model, size, self.samples)
            self.capture.start()
        self.budget.charge(self.name, time.perf_counter() - start)

    def forward(self, forward: Forward) -> None:
        """The layers were called: their hooks go."""
        if self.capture is not None:
            self.capture.stop()

    def before_step(self, view: WatchedStep) -> None:
        """Use what the layers left, at the weights of the backward pass."""
        if self.capture is not None and not view.index:
            start = time.perf_counter()
            self.known = self.capture.gram(view)
            self.finish()
            self.budget.charge(self.name, time.perf_counter() - start)

    def finish(self) -> None:
        """Leave no hook and no tensor behind."""
        if self.capture is not None:
            self.capture.stop()
            self.capture = None

    def measure(self, view: WatchedStep) -> None:
        """Inner products of the gradients of 16 samples."""
        known, self.known = self.known, None
        if known is not None:
            self.keep(view, gradient_tests(known, rate=view.rates[0]), self.FIGURES)
            return
        with self.probe(view) as probe:
            if probe is None:
                return
            model, loss, samples, reduction = probe
            gram = sample_gram(model, loss, samples, reduction=reduction)
        self.keep(view, gradient_tests(gram, rate=view.rates[0]), self.FIGURES)
        self.fell_back(gram.fallback)


class SignalToNoise(SampleGradients):
    """GSNR and the EB criterion: the spread of every single parameter's gradient."""

    name = "signal to noise"
    FIGURES = ("gsnr", "early_stopping")

    def measure(self, view: WatchedStep) -> None:
        """Per-sample quantities of 16 samples at the weights after the step."""
        with self.probe(view) as probe:
            if probe is None:
                return
            model, loss, samples, reduction = probe
            quantities = per_sample(model, loss, [samples], reduction=reduction)
        self.keep(view, gradient_tests(quantities), self.FIGURES)
        self.fell_back(quantities.fallback)


class Alpha(BatchMeasure):
    """Where in the parabola along the step it ended: -1 at the start, 0 the minimum, 1 beyond."""

    name = "alpha"
    samples = 64

    def wants_before(self, number: int) -> bool:
        """Weights before and after the step."""
        return self.budget.due(self.name, number)

    def measure(self, view: WatchedStep) -> None:
        """Fit a parabola to loss and slope at both ends of the step."""
        found = self.batch(view)
        if found is None or not view.before:
            return
        forward, target, loss = found
        with probing(self.session) as model:
            values = dict(model.named_parameters())
            moved = {n: values[n] for n in values if id(values[n]) in view.before}
            ends = []
            for place in (
                {n: view.before[id(p)] for n, p in moved.items()},
                {n: p.detach().clone() for n, p in moved.items()},
            ):
                _fork(model, view.number)
                ends.append(_value_and_gradient(model, forward, target, loss, place))
            step = {n: p.detach() - view.before[id(p)] for n, p in moved.items()}
        (f0, g0), (f1, g1) = ends
        slopes = [sum(float((g[n] * step[n]).sum()) for n in step) for g in (g0, g1)]
        alpha = parabola_position(f0, f1, slopes[0], slopes[1])
        if alpha is not None:
            self.series.add("alpha", view.number, alpha)


def parabola_position(f0: float, f1: float, slope0: float, slope1: float) -> float | None:
    """Position of the end of a step (t = 1) in the parabola fitted along it.

    -1 is the start, 0 the minimum, 1 the point beyond it at the height of the start. Least squares
    through both values and both slopes; None where the parabola opens downwards.
    """
    # f0 + b t + c t^2 with f(1) = f1, f'(0) = slope0, f'(1) = slope1
    rows = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    right = torch.tensor([f1 - f0, slope0, slope1], dtype=torch.float64)
    if not bool(torch.isfinite(right).all()):
        return None
    b, c = torch.linalg.lstsq(rows, right[:, None]).solution.flatten().tolist()
    if c <= 0 or b >= 0:
        return None
    return max(-1.0, min(1.0 / (-float(b) / (2 * float(c))) - 1.0, 10.0))


class Sharpness(BatchMeasure):
    """Largest Hessian eigenvalue of the batch against 2 / rate, and the trace."""

    name = "curvature"
    samples = 64

    def __init__(self, series: Series, budget: Budget) -> None:
        super().__init__(series, budget)
        self.direction: dict[str, Tensor] | None = None

    def measure(self, view: WatchedStep) -> None:
        """Power iteration from the direction of the last look, and a probe of the trace."""
        found = self.batch(view)
        if found is None:
            return
        forward, target, loss = found
        with probing(self.session) as model:
            names = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
            generator = torch.Generator().manual_seed(view.number)
            warm = self.direction
            v = warm or {n: _signs(p, generator) for n, p in names.items()}
            value = 0.0
            for _ in range(2 if warm else 8):
                size = math.sqrt(sum(float(x.square().sum()) for x in v.values()))
                v = {n: x / max(size, 1e-30) for n, x in v.items()}
                _fork(model, view.number)
                product = _hessian_product(model, forward, target, loss, names, v)
                value = sum(float((product[n] * v[n]).sum()) for n in v)
                if sum(float(x.square().sum()) for x in product.values()) == 0:
                    return
                v = product
            size = math.sqrt(sum(float(x.square().sum()) for x in v.values()))
            self.direction = {n: x / size for n, x in v.items()}
            signs = {n: _signs(p, generator) for n, p in names.items()}
            _fork(model, view.number)
            product = _hessian_product(model, forward, target, loss, names, signs)
        self.series.add("sharpness", view.number, value)
        self.series.add("sharpness x rate", view.number, value * view.rates[0])
        trace = sum(float((product[n] * signs[n]).sum()) for n in signs)
        self.series.add("trace", view.number, trace)


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    signs = torch.randint(0, 2, like.shape, generator=generator, device="cpu") * 2 - 1
    return signs.to(like.device, like.dtype)


def _on_output(loss: Callable[..., Any]) -> Callable[[Any, Tensor], Tensor]:
    """The loss on the main output of a structured one."""

    def call(output: Any, target: Tensor) -> Tensor:
        main = main_output(output)
        value: Tensor = loss(output if main is None else main, target)
        return value

    return call


def _fork(model: nn.Module, seed: int) -> None:
    """Seed the generators that ``probing`` has forked."""
    torch.default_generator.manual_seed(seed)
    for index in {p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"}:
        torch.cuda.default_generators[index].manual_seed(seed)


def _value_and_gradient(
    model: nn.Module,
    forward: Forward,
    target: Tensor,
    loss: Callable[..., Any],
    place: Mapping[str, Tensor],
) -> tuple[float, dict[str, Tensor]]:
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    with torch.enable_grad():
        leaves = {n: p.clone().requires_grad_() for n, p in place.items()}
        output = functional_call(model, {**buffers, **leaves}, forward.args, forward.kwargs)
        value = _on_output(loss)(output, target)
        gradients = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    return float(value.detach()), {
        n: torch.zeros_like(p) if g is None else g
        for (n, p), g in zip(leaves.items(), gradients, strict=True)
    }


def _hessian_product(
    model: nn.Module,
    forward: Forward,
    target: Tensor,
    loss: Callable[..., Any],
    place: Mapping[str, Tensor],
    v: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    with torch.enable_grad():
        leaves = {n: p.clone().requires_grad_() for n, p in place.items()}
        output = functional_call(model, {**buffers, **leaves}, forward.args, forward.kwargs)
        value = _on_output(loss)(output, target)
        first = torch.autograd.grad(
            value, list(leaves.values()), create_graph=True, allow_unused=True
        )
        pairs = [(g, v[n]) for n, g in zip(leaves, first, strict=True) if g is not None]
        along = torch.stack([(g * x).sum() for g, x in pairs]).sum()
        second = torch.autograd.grad(along, list(leaves.values()), allow_unused=True)
    return {
        n: torch.zeros_like(p) if g is None else g
        for (n, p), g in zip(leaves.items(), second, strict=True)
    }


def _root(values: Mapping[str, float]) -> float:
    return math.sqrt(sum(v * v for v in values.values()))


MEASURES: dict[str, type[Measure]] = {
    one.name: one
    for one in (Norms, Activations, Alpha, GradientNoise, SignalToNoise, Histogram, Sharpness)
}
LEVELS: dict[str, tuple[str, ...]] = {
    "light": ("norms", "activations"),
    "noise": ("norms", "activations", "alpha", "gradient tests", "signal to noise"),
    "full": tuple(MEASURES),
}


def chosen_measures(instruments: str | list[str], series: Series, budget: Budget) -> list[Measure]:
    """Instruments of a level or by name; raises ``KeyError`` with the unknown name."""
    names = LEVELS[instruments] if isinstance(instruments, str) else instruments
    return [MEASURES[name](series, budget) for name in names]
