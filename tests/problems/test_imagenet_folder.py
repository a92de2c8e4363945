"""ImageNet's problems on a made-up folder of a few images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from optiscope import problems
from optiscope.data import MissingData
from optiscope.problems.imagenet import RandomCropAndFlip

CLASSES, PER_CLASS = ("n01440764", "n01443537", "n01484850"), 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split in ("train", "val"):
        for name in CLASSES:
            place = root / "imagenet" / split / name
            place.mkdir(parents=True)
            for i in range(PER_CLASS):
                pixels = rng.integers(0, 256, (300 + 20 * i, 420, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{name}_{i}.JPEG")
    return root


@pytest.mark.parametrize(
    ("name", "side", "crop"), [("imagenet_vgg16", 256, 224), ("imagenet_inception_v3", 342, 299)]
)
def test_splits_and_shapes(folder: Path, name: str, side: int, crop: int) -> None:
    splits = problems.get(name).data(folder)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (9, 3, 12)
    assert len(splits.train_eval) == 3
    train, valid = (set(s.indices.tolist()) for s in (splits.train, splits.valid))
    assert train | valid == set(range(12))
    assert not train & valid
    assert set(splits.train_eval.indices.tolist()) <= train
    batch = splits.test.select(torch.tensor([0, 5, 11]))
    assert batch.inputs.shape == (3, 3, side, side)
    assert batch.inputs.dtype == torch.float32
    assert 0.0 <= batch.inputs.min().item() < batch.inputs.max().item() <= 1.0
    assert batch.targets.tolist() == [0, 1, 2]
    assert splits.test.targets.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    some = splits.test.subset(torch.tensor([11, 0]))
    assert torch.equal(some.select(torch.tensor([1])).inputs, batch.inputs[:1])
    augmented = splits.augment(batch.inputs, torch.Generator().manual_seed(0))
    assert augmented.shape == (3, 3, crop, crop)


def test_random_crops_are_windows_of_the_image() -> None:
    images = torch.arange(2 * 3 * 6 * 6, dtype=torch.float32).view(2, 3, 6, 6)
    augment, seen = RandomCropAndFlip(4), set()
    for seed in range(200):
        out = augment(images, torch.Generator().manual_seed(seed))
        assert out.shape == (2, 3, 4, 4)
        for image, window in zip(images, out, strict=True):
            found = [
                (top, left, flipped)
                for top in range(3)
                for left in range(3)
                for flipped in (False, True)
                if torch.equal(
                    window.flip(-1) if flipped else window,
                    image[:, top : top + 4, left : left + 4],
                )
            ]
            assert len(found) == 1
            seen.add(found[0])
    assert len(seen) == 18  # every window, mirrored and not


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MissingData) as caught:
        problems.get("imagenet_vgg16").data(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_inception_trains_on_the_folder(folder: Path) -> None:
    """Loss of a few images falls; main and auxiliary head both count in training."""
    problem = problems.get("imagenet_inception_v3")
    splits = problem.data(folder)
    model = problem.make_model().train()
    batch = splits.train.select(torch.arange(2))
    inputs = splits.augment(batch.inputs, torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = problem.loss(model(inputs), batch.targets).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert losses[0] > 1.5 * torch.log(torch.tensor(1000.0)).item()
    model.eval()
    with torch.no_grad():
        evaluated = problem.loss(model(inputs), batch.targets)
    assert evaluated.shape == (2,)
