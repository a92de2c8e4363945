"""Facts about the published data sets, checked on the real files where they are at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from optiscope.data import DATASETS, load_images, load_text, verify
from optiscope.data.folders import CACHE_DIR_VARIABLE
from optiscope.data.images import ImageData


def unit(images: torch.Tensor) -> torch.Tensor:
    return images.double() / 255


def load(name: str, folder: Path) -> ImageData:
    if not verify(name, folder).complete:
        pytest.skip(f"{name} is not in {folder}")
    return load_images(name, folder)


def test_mnist(real_data: Path) -> None:
    data = load("mnist", real_data)
    assert data.train_images.shape == (60_000, 1, 28, 28)
    assert data.test_images.shape == (10_000, 1, 28, 28)
    assert data.train_images.dtype == data.test_images.dtype == torch.uint8
    assert data.train_labels.dtype == data.test_labels.dtype == torch.int64
    assert data.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    train, test = (
        torch.bincount(labels).tolist() for labels in (data.train_labels, data.test_labels)
    )
    assert train == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert test == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert round(float(unit(data.train_images).mean()), 4) == 0.1307
    assert round(float(unit(data.train_images).std()), 4) == 0.3081


def test_fashion_mnist(real_data: Path) -> None:
    data = load("fashion_mnist", real_data)
    assert data.train_images.shape == (60_000, 1, 28, 28)
    assert data.test_images.shape == (10_000, 1, 28, 28)
    assert data.train_labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    assert data.test_labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    assert torch.bincount(data.train_labels).tolist() == [6000] * 10
    assert torch.bincount(data.test_labels).tolist() == [1000] * 10
    assert round(float(unit(data.train_images).mean()), 4) == 0.2860
    assert round(float(unit(data.train_images).std()), 4) == 0.3530
    assert data.classes[data.train_labels[0]] == "Ankle boot"


def test_cifar10(real_data: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_DIR_VARIABLE, str(shared_cache))
    data = load("cifar10", real_data)
    assert data.train_images.shape == (50_000, 3, 32, 32)
    assert data.test_images.shape == (10_000, 3, 32, 32)
    assert torch.bincount(data.train_labels).tolist() == [5000] * 10
    assert torch.bincount(data.test_labels).tolist() == [1000] * 10
    mean = unit(data.train_images).mean((0, 2, 3))
    published = torch.tensor([0.4914, 0.4822, 0.4465], dtype=torch.float64)
    torch.testing.assert_close(mean, published, rtol=0, atol=1e-3)

    again = load("cifar10", real_data)  # from the decoded cache
    assert len(list(shared_cache.iterdir())) == 1
    assert torch.equal(again.train_images, data.train_images)
    assert torch.equal(again.test_labels, data.test_labels)


def test_war_and_peace(real_data: Path) -> None:
    if not verify("tolstoi", real_data).complete:
        pytest.skip(f"tolstoi is not in {real_data}")
    text = load_text("tolstoi", real_data)
    assert "Well, Prince, so Genoa and Lucca are now just family estates of the" in text
    assert "\r" not in text
    assert "\ufeff" not in text
    assert 3_150_000 < len(text) < 3_350_000
    letters = set(text)
    assert set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 \n") <= letters
    if verify("tolstoi", real_data).files[0].status == "ok":  # the revision this package knows
        assert len(text) == 3_227_573
        assert len(letters) == 110


@pytest.mark.parametrize("name", list(DATASETS))
def test_nothing_that_is_there_contradicts_its_digest(real_data: Path, name: str) -> None:
    report = verify(name, real_data)
    assert [file for file in report.files if file.status == "wrong"] == []
    assert report.ok == report.complete
