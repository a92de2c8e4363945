"""What the checks before training share: the user's objects, samples that were read, pictures."""

from __future__ import annotations

import base64
import contextlib
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from optiscope.doctor.augmentation import Augmenter, AugmentFailed
from optiscope.doctor.finding import Finding
from optiscope.doctor.probe import Probe, has_class_axis, logits_of
from optiscope.doctor.user_data import ReadSamples, Split

__all__ = ["Context", "Picture", "Skipped", "picture_of"]


class Skipped(Exception):
    """A check that cannot be made here; the message says why."""


@dataclass(frozen=True)
class Picture:
    """Images with captions under a title: what a person should look at."""

    title: str
    pngs: tuple[bytes, ...] = field(repr=False)
    captions: tuple[str, ...]

    def data_uris(self) -> list[str]:
        """The images as addresses that a page can hold."""
        return ["data:image/png;base64," + base64.b64encode(p).decode() for p in self.pngs]


@dataclass
class Context:
    """Everything a check may ask for. Samples and the first batch are read once."""

    probe: Probe
    loss: Callable[..., Any]
    optimizer: torch.optim.Optimizer | None
    splits: dict[str, Split]
    augment: Callable[..., Any] | None
    seconds: float
    seed: int
    started: float = field(default_factory=time.perf_counter)
    pictures: list[Picture] = field(default_factory=list)
    measured: dict[str, float] = field(default_factory=dict)
    plain: Any = None  # inputs of the batch before augmentation, once it is read
    _samples: dict[str, ReadSamples] = field(default_factory=dict)
    _batch: tuple[Any, Any] | None = None

    @property
    def model(self) -> nn.Module:
        """The user's model."""
        return self.probe.model

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.seconds - (time.perf_counter() - self.started)

    def samples(self, name: str) -> ReadSamples:
        """Samples of a split, as many as a tenth of the time allows (tensors: up to 100,000)."""
        if name not in self._samples:
            split = self.splits[name]
            self._samples[name] = split.read(100_000, 0.08 * self.seconds, self.seed)
        return self._samples[name]

    @property
    def batch(self) -> tuple[Any, Any]:
        """Inputs and targets of a training batch, on the model's device."""
        if self._batch is None:
            split = self.splits["train"]
            generator = torch.Generator().manual_seed(self.seed)
            places = torch.randperm(split.size, generator=generator)[: split.batch_size]
            inputs, targets = split.batch(places.tolist())
            if isinstance(inputs, np.ndarray):
                inputs = torch.from_numpy(inputs)
            self.plain = inputs
            if self.augment is not None and isinstance(inputs, Tensor):
                with contextlib.suppress(AugmentFailed):  # the check of augmentation says so
                    inputs = Augmenter(self.augment, inputs)(inputs, self.seed)
            self._batch = self.probe.to_device(inputs), self.probe.to_device(targets)
        return self._batch

    def few(self, count: int) -> tuple[Any, Any]:
        """The first ``count`` samples of the batch."""
        inputs, targets = self.batch

        def cut(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value[:count]
            if isinstance(value, dict):
                return {key: cut(item) for key, item in value.items()}
            return value

        return cut(inputs), cut(targets)

    def objective(self, output: Any, targets: Any, inputs: Any = None) -> Tensor:
        """The user's loss as a scalar; without targets, inputs are the targets."""
        value = self.loss(output, inputs if targets is None else targets)
        if not isinstance(value, Tensor):
            raise Skipped(f"the loss returned {type(value).__name__}, no tensor")
        return value.mean() if value.ndim else value

    @property
    def classes(self) -> int | None:
        """Number of classes C where targets choose along axis 1 of the output, else None."""
        if not self._asked:
            self._asked = True
            inputs, targets = self.few(4)
            with torch.no_grad():
                output = logits_of(self.probe(inputs, training=False))
            if output is not None and has_class_axis(output, targets):
                self._classes = output.shape[1]
        assert self._classes is None or isinstance(self._classes, int)
        return self._classes

    _classes: Any = field(default=None, repr=False)
    _asked: bool = False

    def labels(self, name: str = "train") -> Tensor:
        """Labels [n] of a split as whole numbers 0..C-1.

        Raises ``Skipped`` where targets are no labels, one for each sample.
        """
        targets = self.samples(name).targets
        if targets is None or targets.is_floating_point() or targets.is_complex():
            raise Skipped("targets are no class labels")
        if targets.ndim == 2 and targets.shape[1] == 1:
            targets = targets[:, 0]
        if targets.ndim != 1:
            raise Skipped("samples have no single label each")
        targets = targets.to(torch.int64)
        if int(targets.min()) < 0 or int(targets.max()) > 10_000:
            raise Skipped("targets are no class labels")
        return targets

    def show(self, title: str, images: Sequence[Tensor], captions: Sequence[str]) -> None:
        """Keep a picture, where samples can be drawn."""
        pngs = [png for png in (picture_of(image) for image in images) if png is not None]
        if pngs and len(pngs) == len(images):
            self.pictures.append(Picture(title, tuple(pngs), tuple(captions)))


Check = Callable[[Context], list[Finding]]


def picture_of(sample: Tensor) -> bytes | None:
    """PNG of an image [C, H, W] or [H, W], its values stretched to black and white; else None."""
    from PIL import Image

    sample = sample.detach().cpu()
    if sample.ndim == 2 and sample.is_floating_point():
        sample = sample[None]
    if sample.ndim != 3 or sample.shape[0] not in (1, 3, 4) or min(sample.shape[1:]) < 3:
        return None
    values = torch.nan_to_num(sample[:3].float())
    low, high = values.min(), values.max()
    pixels = ((values - low) / (high - low).clamp_min(1e-12) * 255).round().to(torch.uint8)
    array = pixels.permute(1, 2, 0).numpy()
    image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    factor = max(1, 84 // max(image.size))
    if factor > 1:
        image = image.resize(
            (image.width * factor, image.height * factor), Image.Resampling.NEAREST
        )
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
