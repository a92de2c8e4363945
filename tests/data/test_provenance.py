"""Files that are not the published ones are told of, in a warning or in the record."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from file_writers import cifar_rows, encoded, idx_bytes, labels, parquet, pixels, tar_gz, write

import optiscope
from optiscope.data import DATASETS, verify
from optiscope.data.dataset import Dataset, Layout, Part, sha256
from optiscope.data.located import locate_files
from optiscope.data.provenance import OtherFilesWarning, compare_all, noted
from optiscope.problems import get

COUNT = 5
IMAGES, LABELS = pixels(COUNT, 3, 32, 32), labels(COUNT)


def digest(content: bytes) -> Any:
    return sha256(hashlib.sha256(content).hexdigest())


def idx(folder: Path, *, packed: bool = True) -> Dataset:
    """A small MNIST in ``folder`` whose digests are known."""
    contents = {
        "train-images-idx3-ubyte": idx_bytes(pixels(COUNT, 28, 28)),
        "train-labels-idx1-ubyte": idx_bytes(np.array(LABELS, dtype=np.uint8)),
        "t10k-images-idx3-ubyte": idx_bytes(pixels(COUNT, 28, 28, seed=1)),
        "t10k-labels-idx1-ubyte": idx_bytes(np.array(LABELS, dtype=np.uint8)),
    }
    for name, content in contents.items():
        write(folder / f"MNIST/raw/{name}{'.gz' if packed else ''}", content, packed=packed)
    layout = DATASETS["mnist"].layouts[0]
    parts = [
        replace(part, digest=digest(content))
        for part, content in zip(layout.parts, contents.values(), strict=True)
    ]
    return known("mnist", replace(layout, parts=tuple(parts)))


def cifar(folder: Path) -> Dataset:
    layout = DATASETS["cifar10"].layouts[0]
    content = cifar_rows(IMAGES[:1], LABELS[:1])
    parts = []
    for part in layout.parts:
        write(folder / part.places[0], content)
        parts.append(replace(part, digest=digest(content)))
    return replace(known("cifar10", replace(layout, parts=tuple(parts))), counts=(5, 1))


def archive(folder: Path) -> Dataset:
    layout = next(lay for lay in DATASETS["cifar10"].layouts if "binary.tar" in lay.name)
    names = [part.role for part in DATASETS["cifar10"].layouts[0].parts]
    content = cifar_rows(IMAGES[:1], LABELS[:1])
    path = tar_gz(folder / layout.parts[0].places[0], {f"a/{name}": content for name in names})
    part = replace(layout.parts[0], digest=digest(path.read_bytes()))
    made = known("cifar10", replace(layout, parts=(part,)))
    return replace(made, counts=(5, 1), layouts=(*made.layouts, DATASETS["cifar10"].layouts[0]))


def hub(folder: Path) -> Dataset:
    layout = DATASETS["cifar10"].layouts[-1]
    parts = []
    for part in layout.parts:
        path = folder / part.places[0].replace("*", "00000-of-00001")
        parquet(path, [encoded(image) for image in IMAGES], LABELS)
        parts.append(replace(part, digest=digest(path.read_bytes())))
    return known("cifar10", replace(layout, parts=tuple(parts)))


def text(folder: Path) -> Dataset:
    layout = DATASETS["tolstoi"].layouts[0]
    write(folder / layout.parts[0].places[0], b"War and Peace\n")
    part = replace(layout.parts[0], digest=digest(b"War and Peace\n"))
    return replace(DATASETS["tolstoi"], layouts=(replace(layout, parts=(part,)),))


def known(name: str, layout: Layout) -> Dataset:
    return replace(DATASETS[name], layouts=(layout,), counts=(COUNT, COUNT))


@pytest.mark.parametrize("make", [idx, cifar, archive, hub, text])
def test_every_format_is_compared_when_it_is_loaded(make: Any, tmp_path: Path) -> None:
    dataset = make(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", OtherFilesWarning)
        dataset.load(tmp_path)
    part = dataset.layouts[0].parts[0]
    other = replace(part, digest=sha256("0" * 64))
    layout = replace(dataset.layouts[0], parts=(other, *dataset.layouts[0].parts[1:]))
    dataset = replace(dataset, layouts=(layout, *dataset.layouts[1:]))
    (path,) = part.find(tmp_path)
    what = part.revised or "not the published file"
    with pytest.warns(OtherFilesWarning, match=rf"{path.name} is {what} \(sha256 [0-9a-f]{{64}}\)"):
        dataset.load(tmp_path)
    with warnings.catch_warnings(), noted() as notes:
        warnings.simplefilter("error", OtherFilesWarning)
        dataset.load(tmp_path)
        dataset.load(tmp_path)
    assert len(notes) == 1
    assert notes[0].startswith(f"{path.name} is {what} (sha256 ")


def test_one_label_that_was_changed_is_seen(tmp_path: Path) -> None:
    dataset = idx(tmp_path, packed=False)
    path = tmp_path / "MNIST/raw/train-labels-idx1-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with noted() as notes:
        dataset.load(tmp_path)
    assert [note.split()[0] for note in notes] == [path.name]


def test_what_nobody_knows_is_not_told_of_and_does_not_count_as_known(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", b"a")
    part = Part("text", ("a.txt",))
    dataset = replace(DATASETS["tolstoi"], layouts=(Layout("text", "text", (part,)),))
    with noted() as notes:
        assert not compare_all(locate_files(dataset, tmp_path))
    assert notes == []


def test_another_copy_of_a_hub_is_not_called_wrong(tmp_path: Path) -> None:
    hub(tmp_path)
    report = verify("cifar10", tmp_path)
    assert report.ok
    assert [file.status for file in report.files] == ["unverified", "unverified"]


def test_the_record_names_other_files(tmp_path: Path) -> None:
    dataset, problem = text(tmp_path), get("digits_logreg")
    part = replace(dataset.layouts[0].parts[0], digest=sha256("0" * 64))
    dataset = replace(dataset, layouts=(replace(dataset.layouts[0], parts=(part,)),))

    def data(data_dir: Path | None) -> Any:
        dataset.load(tmp_path)
        return problem.data(data_dir)

    told: list[str] = []
    other = replace(problem, name="other", data=data)
    settings = {"hyperparameters": {"lr": 0.1}, "epochs": 1, "notify": told.append}
    for _ in range(2):  # the second time the data are kept
        run = optiscope.run(other, "sgd", **settings)
        assert "another revision of the text" in run.environment["data"]
    assert told == [run.environment["data"]] * 2
    assert "data" not in optiscope.run(problem, "sgd", **settings).environment
