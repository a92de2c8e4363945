"""Every layout that torchvision, the original archives and the hubs leave on people's disks.

The images are few: the counts of the catalogue are replaced for these tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from file_writers import (
    cifar_rows,
    encoded,
    idx_bytes,
    labels,
    matlab,
    parquet,
    pixels,
    python2_pickle,
    tar_gz,
    write,
)

from optiscope.data import catalogue, load_images
from optiscope.data import images as images_module
from optiscope.data.errors import BadFile, MissingData
from optiscope.data.isolated import read_isolated
from optiscope.data.located import digest_of

pytestmark = pytest.mark.filterwarnings("ignore::optiscope.data.provenance.OtherFilesWarning")
TRAIN, TEST = 10, 4
SHAPES = {name: set_.shape for name, set_ in catalogue.DATASETS.items() if set_.counts}
CLASSES = {name: len(catalogue.DATASETS[name].classes) for name in SHAPES}


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {
        name: replace(dataset, counts=(TRAIN, TEST)) if dataset.counts else dataset
        for name, dataset in catalogue.DATASETS.items()
    }
    monkeypatch.setattr(catalogue, "DATASETS", few)


def images_of(name: str) -> np.ndarray:
    return pixels(TRAIN + TEST, *SHAPES[name], seed=CLASSES[name])


def labels_of(name: str) -> list[int]:
    return labels(TRAIN + TEST, CLASSES[name])


def idx(folder: str, end: str = "") -> Callable[[str, Path], None]:
    def make(name: str, root: Path) -> None:
        images, values = images_of(name)[:, 0], np.array(labels_of(name), dtype=np.uint8)
        for prefix, rows in (("train", slice(0, TRAIN)), ("t10k", slice(TRAIN, None))):
            for kind, array in (("images-idx3", images[rows]), ("labels-idx1", values[rows])):
                path = root / folder / f"{prefix}-{kind}-ubyte{end}"
                write(path, idx_bytes(array), packed=bool(end))

    return make


def batches(name: str, *, pickled: bool) -> dict[str, bytes]:
    images, values, end = images_of(name), labels_of(name), "" if pickled else ".bin"

    def batch(rows: slice) -> bytes:
        if pickled:
            key = b"fine_labels" if name == "cifar100" else b"labels"
            return python2_pickle(images[rows], key, values[rows])
        coarse = [[9] * len(values[rows])] if name == "cifar100" else []
        return cifar_rows(images[rows], *coarse, values[rows])

    if name == "cifar100":
        return {f"train{end}": batch(slice(0, TRAIN)), f"test{end}": batch(slice(TRAIN, None))}
    size = TRAIN // 5
    train = {f"data_batch_{k + 1}{end}": batch(slice(k * size, (k + 1) * size)) for k in range(5)}
    return train | {f"test_batch{end}": batch(slice(TRAIN, None))}


def unpacked(folder: str, *, pickled: bool) -> Callable[[str, Path], None]:
    def make(name: str, root: Path) -> None:
        for file, content in batches(name, pickled=pickled).items():
            write(root / folder / file, content)

    return make


def packed(place: str, *, pickled: bool) -> Callable[[str, Path], None]:
    def make(name: str, root: Path) -> None:
        members = batches(name, pickled=pickled)
        tar_gz(root / place, {f"cifar-batches/{file}": bytes_ for file, bytes_ in members.items()})

    return make


def hub(folder: str, image: str, label: str = "label") -> Callable[[str, Path], None]:
    def make(name: str, root: Path) -> None:
        cells, values = [encoded(one) for one in images_of(name)], labels_of(name)
        where = {"image": image, "label": label}
        for shard, rows in enumerate((slice(0, 7), slice(7, TRAIN))):
            path = root / folder / f"train-0000{shard}-of-00002.parquet"
            parquet(path, cells[rows], values[rows], **where)
        path = root / folder / "test-00000-of-00001.parquet"
        parquet(path, cells[TRAIN:], values[TRAIN:], **where)

    return make


def svhn(folder: str) -> Callable[[str, Path], None]:
    def make(name: str, root: Path) -> None:
        images, values = images_of(name), labels_of(name)
        matlab(root / folder / "train_32x32.mat", images[:TRAIN], values[:TRAIN])
        matlab(root / folder / "test_32x32.mat", images[TRAIN:], values[TRAIN:])

    return make


LAYOUTS = [
    ("mnist", "torchvision", idx("MNIST/raw")),
    ("mnist", "torchvision, packed", idx("MNIST/raw", ".gz")),
    ("mnist", "a folder", idx("mnist", ".gz")),
    ("mnist", "hub", hub("mnist/mnist", "image")),
    ("fashion_mnist", "torchvision", idx("FashionMNIST/raw")),
    ("fashion_mnist", "torchvision, packed", idx("FashionMNIST/raw", ".gz")),
    ("fashion_mnist", "hub", hub("fashion_mnist/fashion_mnist", "image")),
    ("cifar10", "torchvision", unpacked("cifar-10-batches-py", pickled=True)),
    ("cifar10", "torchvision archive", packed("cifar-10-python.tar.gz", pickled=True)),
    ("cifar10", "binary", unpacked("cifar-10-batches-bin", pickled=False)),
    ("cifar10", "binary archive", packed("cifar10/cifar-10-binary.tar.gz", pickled=False)),
    ("cifar10", "hub", hub("cifar10/plain_text", "img")),
    ("cifar100", "torchvision", unpacked("cifar-100-python", pickled=True)),
    ("cifar100", "torchvision archive", packed("cifar-100-python.tar.gz", pickled=True)),
    ("cifar100", "binary", unpacked("cifar-100-binary", pickled=False)),
    ("cifar100", "binary archive", packed("cifar-100-binary.tar.gz", pickled=False)),
    ("cifar100", "hub", hub("cifar100/cifar100", "img", "fine_label")),
    ("svhn", "torchvision", svhn("")),
    ("svhn", "a folder", svhn("svhn")),
    ("svhn", "hub", hub("svhn/cropped_digits", "image")),
]


@pytest.mark.parametrize(
    ("name", "make"),
    [(name, make) for name, _, make in LAYOUTS],
    ids=[f"{name}, {where}" for name, where, _ in LAYOUTS],
)
def test_every_layout_holds_the_same_images(
    tmp_path: Path, name: str, make: Callable[[str, Path], None]
) -> None:
    make(name, tmp_path)
    data = load_images(name, tmp_path)
    images, values = torch.from_numpy(images_of(name)), torch.tensor(labels_of(name))
    assert torch.equal(data.train_images, images[:TRAIN])
    assert torch.equal(data.test_images, images[TRAIN:])
    assert torch.equal(data.train_labels, values[:TRAIN])
    assert torch.equal(data.test_labels, values[TRAIN:])
    assert data.train_images.is_contiguous()
    assert data.classes == catalogue.DATASETS[name].classes
    report = catalogue.verify(name, tmp_path)
    assert report.complete
    assert {file.status for file in report.files} <= {"wrong", "unverified"}  # these are made up


def test_the_most_faithful_layout_is_read_first(tmp_path: Path) -> None:
    unpacked("cifar-10-batches-py", pickled=True)("cifar10", tmp_path)
    hub("cifar10/plain_text", "img")("cifar10", tmp_path)
    assert catalogue.locate("cifar10", tmp_path).layout.name == "cifar-10-batches-py"
    (tmp_path / "cifar-10-batches-py/data_batch_3").unlink()
    assert catalogue.locate("cifar10", tmp_path).layout.name == "parquet"


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    unpacked("cifar-10-batches-bin", pickled=False)("cifar10", tmp_path)
    (tmp_path / "cifar-10-batches-bin/data_batch_3.bin").unlink()
    with pytest.raises(
        MissingData, match=r"only cifar-10-batches-bin/data_batch_3\.bin is missing"
    ):
        load_images("cifar10", tmp_path)


def test_mnist_is_never_taken_for_fashion_mnist(tmp_path: Path) -> None:
    idx("MNIST/raw")("mnist", tmp_path)
    with pytest.raises(MissingData, match="data set fashion_mnist not found"):
        load_images("fashion_mnist", tmp_path)
    with pytest.raises(MissingData):
        load_images("fashion_mnist", tmp_path / "MNIST")


def test_counts_and_labels_are_checked(tmp_path: Path) -> None:
    idx("MNIST/raw")("mnist", tmp_path)
    path = tmp_path / "MNIST/raw/train-labels-idx1-ubyte"
    right = path.read_bytes()
    write(path, idx_bytes(np.zeros(TRAIN - 1, dtype=np.uint8)))
    with pytest.raises(
        BadFile, match=r"expected 10 training images .*got \(10, 1, 28, 28\) and \(9,\)"
    ):
        load_images("mnist", tmp_path)
    path.write_bytes(right[:-1] + b"\x0a")
    with pytest.raises(BadFile, match=r"expected training labels in 0\.\.9, got 0\.\.10"):
        load_images("mnist", tmp_path)
    images = tmp_path / "MNIST/raw/t10k-images-idx3-ubyte"
    path.write_bytes(right)
    write(images, idx_bytes(pixels(TEST, 28, 27)))
    with pytest.raises(BadFile, match=r"expected 4 test images of shape \(1, 28, 28\)"):
        load_images("mnist", tmp_path)


@pytest.mark.parametrize(
    ("name", "make"),
    [("svhn", svhn("")), ("cifar10", unpacked("cifar-10-batches-py", pickled=True))],
    ids=["MATLAB", "pickles"],
)
def test_files_of_a_risky_format_are_parsed_here_only_where_their_digest_is_known(
    tmp_path: Path, name: str, make: Callable[[str, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(name, tmp_path)
    apart: list[str] = []
    monkeypatch.setattr(
        images_module,
        "read_isolated",
        lambda reader, *a, **k: apart.append(reader) or read_isolated(reader, *a, **k),
    )
    first = load_images(name, tmp_path)
    assert apart == [{"svhn": "matlab", "cifar10": "cifar_batches"}[name]]
    dataset = catalogue.DATASETS[name]
    known = tuple(
        replace(
            layout,
            parts=tuple(
                replace(part, digest=digest_of(found[0], "sha256")) if found else part
                for part in layout.parts
                for found in [part.find(tmp_path)]
            ),
        )
        for layout in dataset.layouts
    )
    sets = {**catalogue.DATASETS, name: replace(dataset, layouts=known)}
    monkeypatch.setattr(catalogue, "DATASETS", sets)
    again = load_images(name, tmp_path)
    assert len(apart) == 1
    assert torch.equal(first.train_images, again.train_images)
