"""Instruments of per-sample gradients: tests of the batch size, noise scale, signal to noise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from optiscope.monitor.budget import Budget
from optiscope.monitor.events import Forward, WatchedStep
from optiscope.monitor.gradient_tests import GradientTests, gradient_tests
from optiscope.monitor.layer_capture import LayerCapture
from optiscope.monitor.measure import BatchMeasure, fork, on_output
from optiscope.monitor.per_sample import SampleGram, per_sample, sample_gram
from optiscope.monitor.probe import probing
from optiscope.monitor.series import Series

__all__ = ["GradientNoise", "SignalToNoise"]


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
            fork(model, view.number)
            buffers = {n: b.clone() for n, b in model.named_buffers()}
            try:
                yield model, on_output(loss), (forward.inputs[0], target), reduction
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
