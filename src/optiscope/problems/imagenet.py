"""DeepOBS's problems on ImageNet (ILSVRC 2012), decoded from files a batch at a time.

Index legend: N images, B images in a batch, R × R pixels of the square that is cut out.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from optiscope.data.image_folder import ImageFolder
from optiscope.data.load import load_image_folders
from optiscope.data.samples import Batch, Splits
from optiscope.problems.image_splits import pixels_in_unit_interval, split_indices
from optiscope.problems.losses import ACCURACY, cross_entropy
from optiscope.problems.models.inception import InceptionV3, inception_hits, inception_loss
from optiscope.problems.models.input_layers import on_standardised
from optiscope.problems.models.vgg import vgg
from optiscope.problems.problem import Metric, Problem, l2_on_weights

__all__ = [
    "DecodedFolder",
    "RandomCropAndFlip",
    "imagenet_inception_v3",
    "imagenet_vgg16",
    "imagenet_vgg19",
]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of each channel, as torchvision's models use them."""

CLASSES = 1000
HELD_OUT = 50_000


@dataclass(frozen=True)
class DecodedFolder:
    """Some images of a folder, decoded when a batch is selected.

    Each image's shorter side is scaled to ``side`` pixels and the central square is cut out.

    Attributes:
        folder: files and labels.
        indices: which of them, int64 [N].
        side: R.
        device: where batches go.
    """

    folder: ImageFolder
    indices: Tensor
    side: int
    device: torch.device = field(default_factory=partial(torch.device, "cpu"))

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def targets(self) -> Tensor:
        """Labels [N]; no image is decoded for them."""
        return self.folder.labels[self.indices]

    def select(self, indices: Tensor) -> Batch:
        """Images float32 [B, 3, R, R] in [0, 1] and labels [B] at ``indices`` [B]."""
        chosen = self.indices[indices.cpu()]
        with ThreadPoolExecutor() as pool:
            images, labels = self.folder.decode(chosen, self.side, self.side, pool)
        return Batch(pixels_in_unit_interval(images.to(self.device)), labels.to(self.device))

    def to(self, device: torch.device) -> DecodedFolder:
        """The same images, delivered on ``device``."""
        return replace(self, device=device)

    def subset(self, indices: Tensor) -> DecodedFolder:
        """The images at ``indices``, as samples of their own."""
        return replace(self, indices=self.indices[indices.cpu()])


@dataclass(frozen=True)
class RandomCropAndFlip:
    """A random square of ``pixels`` out of each image, mirrored or not with equal probability."""

    pixels: int

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images [B, C, R, R] -> [B, C, pixels, pixels]."""
        count, room = len(images), images.shape[-1] - self.pixels + 1
        device = generator.device
        corners = torch.randint(room, (2, count), generator=generator, device=device)
        mirrored = torch.rand(count, generator=generator, device=device) < 0.5
        span = torch.arange(self.pixels, device=images.device)
        top, left = corners.to(images.device)
        columns = torch.where(mirrored.to(images.device)[:, None], span.flip(0), span)
        batch = torch.arange(count, device=images.device)[:, None, None]
        rows = (top[:, None] + span)[:, :, None]
        cropped = images.movedim(1, -1)[batch, rows, (left[:, None] + columns)[:, None]]
        return cropped.movedim(-1, 1)


def _splits(data_dir: Any, *, side: int, crop: int) -> Splits:
    learnt, test = load_image_folders("imagenet", data_dir)
    valid = min(HELD_OUT, len(learnt) // 4)
    held_out, evaluated, trained = split_indices(len(learnt), valid)
    return Splits(
        train=DecodedFolder(learnt, trained, side),
        train_eval=DecodedFolder(learnt, evaluated, side),
        valid=DecodedFolder(learnt, held_out, side),
        test=DecodedFolder(test, torch.arange(len(test)), side),
        augment=RandomCropAndFlip(crop),
    )


_imagenet = partial(
    Problem,
    loss=cross_entropy,
    data=partial(_splits, side=256, crop=224),
    metric=ACCURACY,
    dataset="imagenet",
    param_groups=l2_on_weights(5e-4),
    licence="non-commercial research and education only (Russakovsky et al. 2015)",
)

NOTES = (
    "1,000 classes (TensorFlow has 1,001 with a background class, the PyTorch branch 100 by "
    "mistake). Training: random square out of the image scaled to a shorter side of 256, random "
    "flip; evaluation: its centre. 50,000 training images validate; the official validation "
    "images are the test set. The original sets neither batch size nor horizon: they are the "
    "papers'."
)

imagenet_vgg16 = _imagenet(
    name="imagenet_vgg16",
    make_model=on_standardised(partial(vgg, 16, CLASSES), MEAN, STD, crop=224),
    batch_size=256,
    epochs=74,
    parameters=138_357_544,
    source="DeepOBS; Simonyan & Zisserman 2015",
    notes=NOTES,
)

imagenet_vgg19 = replace(
    imagenet_vgg16,
    name="imagenet_vgg19",
    make_model=on_standardised(partial(vgg, 19, CLASSES), MEAN, STD, crop=224),
    parameters=143_667_240,
)

imagenet_inception_v3 = _imagenet(
    name="imagenet_inception_v3",
    make_model=on_standardised(partial(InceptionV3, CLASSES), MEAN, STD, crop=299),
    loss=inception_loss,
    metric=Metric("accuracy", inception_hits, higher_is_better=True),
    data=partial(_splits, side=342, crop=299),
    batch_size=128,
    epochs=100,
    parameters=27_161_264,
    source="DeepOBS 1.1 (TensorFlow); Szegedy et al. 2016",
    notes=f"{NOTES} Here the shorter side is 342 and the square 299 (the original enlarges "
    "squares of 224). Dropout drops 0.2 (the original 0.8, which the paper keeps). In training "
    "the loss is that of the main head plus that of the auxiliary head, in evaluation the main "
    "head's.",
)
