from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from file_writers import encoded, pixels, write
from PIL import Image

from optiscope.data.catalogue import DATASETS
from optiscope.data.errors import BadFile, MissingData
from optiscope.data.image_folder import read_image_folder
from optiscope.data.load import load_image_folders


def make_folder(folder: Path) -> Path:
    for number, place in enumerate(["cat/b.png", "cat/a.PNG", "ant/z.jpeg", "dog/x.jpg"]):
        form = "PNG" if place.lower().endswith("png") else "JPEG"
        write(folder / place, encoded(pixels(3, 40 + number, 30, seed=number), form))
    write(folder / "cat/notes.txt", b"not an image")
    write(folder / "cat/.hidden.png", b"")
    write(folder / ".cache/a.png", b"")
    return folder


def test_classes_and_files_are_in_order_of_name(tmp_path: Path) -> None:
    found = read_image_folder(make_folder(tmp_path))
    assert found.classes == ("ant", "cat", "dog")
    assert [str(path.relative_to(tmp_path)) for path in found.paths] == [
        "ant/z.jpeg",
        "cat/a.PNG",
        "cat/b.png",
        "dog/x.jpg",
    ]
    assert found.labels.tolist() == [0, 1, 1, 2]
    assert len(found) == 4


def test_decoding_scales_the_shorter_side_and_cuts_the_centre(tmp_path: Path) -> None:
    values = pixels(3, 40, 30)
    write(tmp_path / "a/one.png", encoded(values))
    images, labels = read_image_folder(tmp_path).decode([0], size=30, resize=30)
    np.testing.assert_array_equal(images[0].numpy(), values[:, 5:35])
    assert labels.tolist() == [0]

    images, _ = read_image_folder(tmp_path).decode(torch.tensor([0, 0]), size=12, resize=15)
    picture = Image.fromarray(values.transpose(1, 2, 0)).resize((15, 20), Image.Resampling.BILINEAR)
    expected = np.asarray(picture)[4:16, 1:13].transpose(2, 0, 1)
    np.testing.assert_array_equal(images[1].numpy(), expected)
    assert images.shape == (2, 3, 12, 12)
    assert images.dtype == torch.uint8


def test_grey_and_transparent_images_become_colour(tmp_path: Path) -> None:
    write(tmp_path / "a/grey.png", encoded(np.full((1, 20, 20), 7, dtype=np.uint8)))
    Image.new("RGBA", (20, 20), (1, 2, 3, 128)).save(tmp_path / "a/see_through.png")
    images, _ = read_image_folder(tmp_path).decode([0, 1], size=4, resize=20)
    assert images[0].unique().tolist() == [7]
    assert images[1, :, 0, 0].tolist() == [1, 2, 3]


def test_threads_decode_the_same(tmp_path: Path) -> None:
    folder = read_image_folder(make_folder(tmp_path))
    alone = folder.decode(range(4), size=8, resize=10)
    with ThreadPoolExecutor(2) as pool:
        together = folder.decode(range(4), size=8, resize=10, pool=pool)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert folder.decode([], size=8, resize=10)[0].shape == (0, 3, 8, 8)


def test_imagenet_is_two_folders_with_the_same_classes(tmp_path: Path) -> None:
    train, val = make_folder(tmp_path / "imagenet/train"), make_folder(tmp_path / "imagenet/val")
    found = load_image_folders("imagenet", tmp_path)
    assert found[0].paths[0].is_relative_to(train)
    assert found[1].paths[0].is_relative_to(val)
    write(val / "eel/a.png", encoded(pixels(3, 9, 9)))
    with pytest.raises(
        BadFile, match=r"expected the 3 class folders .* got 4 \(eel is in one only"
    ):
        load_image_folders("imagenet", tmp_path)


def test_errors_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="not found"):
        read_image_folder(tmp_path / "absent")
    with pytest.raises(MissingData, match="holds no class folders"):
        read_image_folder(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingData, match="holds no image"):
        read_image_folder(tmp_path)
    write(tmp_path / "empty/broken.jpeg", b"\xff\xd8 not a photograph")
    folder = read_image_folder(tmp_path)
    with pytest.raises(BadFile, match=r"broken\.jpeg: not a readable image"):
        folder.decode([0])
    with pytest.raises(ValueError, match=r"size must lie in 1\.\.256"):
        folder.decode([0], size=300)
    with pytest.raises(
        MissingData, match=r"imagenet not found .*never fetched: ask image-net\.org"
    ):
        DATASETS["imagenet"].load(tmp_path)
