"""Per-sample gradients from the run's own forward and backward pass, without one of our own.

For one step, hooks on the layers copy the inputs a of the first samples and the gradients b of the
layers' outputs: all that the inner products of these samples' gradients need. It works where the
pass is plain: one call of the model, one loss on its output, one backward pass of that loss, no
batch statistics, nothing compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from optiscope.monitor.events import WatchedStep
from optiscope.monitor.hooks import Hooks
from optiscope.monitor.per_sample import (
    COUPLING,
    BatchPass,
    LayerUse,
    SampleGram,
    argument_names,
    held_by,
    holds_samples,
    layer_grams,
    parameter_owners,
)

__all__ = ["LayerCapture"]


class LayerCapture:
    """Layers' inputs and output gradients of the first ``samples`` samples of one batch."""

    def __init__(self, model: nn.Module, size: int, samples: int) -> None:
        self.model, self.size, self.samples = model, size, min(size, samples)
        self.uses: list[LayerUse] = []
        self._hooks = Hooks()

    @staticmethod
    def works_for(root: nn.Module, model: nn.Module) -> bool:
        """Whether hooks on the layers of ``model``, called through ``root``, see the whole pass."""
        if hasattr(root, "_orig_mod") or (root is model and not list(model.children())):
            return False  # of a model that is one layer, the session's hooks come and go with ours
        return not any(
            hasattr(m, "_orig_mod")
            or getattr(m, "_compiled_call_impl", None) is not None
            or (m.training and isinstance(m, COUPLING))
            for m in model.modules()
        )

    def start(self) -> None:
        """Hook every layer that holds parameters, until :meth:`stop`."""
        for name, layer in parameter_owners(self.model):
            self._hooks.add(layer.register_forward_hook, self._remember(name), with_kwargs=True)

    def stop(self) -> None:
        """Remove the hooks on the layers; a second call does nothing."""
        self._hooks.remove()

    def _remember(self, name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if not isinstance(first, Tensor) or not first.requires_grad:
                return
            use = LayerUse(
                layer,
                name,
                tuple(self._cut(layer, n, v) for n, v in argument_names(layer, args)),
                {k: self._cut(layer, k, v) for k, v in kwargs.items()},
                None,
            )
            self.uses.append(use)

            def arrived(gradient: Tensor) -> None:
                if gradient.ndim and gradient.shape[0] % self.size == 0:
                    use.backward = self._rows(gradient.detach())

            first.register_hook(arrived)

        return hook

    def _cut(self, layer: nn.Module, name: str, value: Any) -> Any:
        return self._rows(value.detach()) if holds_samples(layer, name, value, self.size) else value

    def _rows(self, values: Tensor) -> Tensor:
        """The rows of the first samples, copied: what follows may change them in place."""
        return values[: self.samples * (values.shape[0] // self.size)].clone()

    def gram(self, view: WatchedStep) -> SampleGram | None:
        """Inner products of the gradients of the samples' own losses; None where it cannot say."""
        own = [f for f in view.forwards if f.grad]
        losses = [call for call in view.losses if call.grad]
        if len(own) != 1 or len(losses) != 1 or view.closure or view.accumulations != 1:
            return None
        forward, call = own[0], losses[0]
        plain = (
            forward.backwards == 1
            and forward.autocast is None
            and forward.output is not None
            and call.prediction is not None
            and call.prediction.data_ptr() == forward.output.data_ptr()
            and call.scale == 1.0
            and call.value is not None
        )
        reduction = call.options.get("reduction", getattr(call.criterion, "reduction", "mean"))
        if not plain or forward.size != self.size or reduction not in ("mean", "sum"):
            return None
        names = {id(p): n for n, p in self.model.named_parameters() if p.requires_grad}
        used = [use for use in self.uses if use.backward is not None]
        held = {id(p) for use in used for p in held_by(use).values()}
        if any(id(p) in names and id(p) not in held and p.grad is not None
               for p in self.model.parameters()):  # fmt: skip
            return None  # a parameter that no layer accounts for
        assert call.value is not None
        loss = float(call.value)
        if reduction == "mean":
            for use in used:
                assert use.backward is not None
                use.backward = use.backward * self.size
        else:
            loss /= self.size
        with torch.no_grad():
            total, left = layer_grams(BatchPass(used, {}, loss, self.samples, None), names)
        return None if left or not used else SampleGram(self.samples, loss, total)
