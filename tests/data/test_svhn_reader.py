from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from file_writers import labels, matlab, pixels
from scipy.io import savemat

from optiscope.data.errors import BadFile
from optiscope.data.svhn import read_svhn


def test_images_turn_channels_first_and_label_10_is_the_digit_0(tmp_path: Path) -> None:
    images, digits = pixels(5, 3, 32, 32), [0, 1, 9, 0, 5]
    found, values = read_svhn(matlab(tmp_path / "train_32x32.mat", images, digits))
    np.testing.assert_array_equal(found, images)
    assert values.tolist() == digits
    assert found.flags.c_contiguous


def test_damage_is_one_line(tmp_path: Path) -> None:
    images = pixels(3, 3, 32, 32)
    path = matlab(tmp_path / "a.mat", images, labels(3))
    content = path.read_bytes()
    for damaged in (content[:-50], content[:100], b"", b"MATLAB 5.0 but not really" * 20):
        path.write_bytes(damaged)
        with pytest.raises(BadFile, match=r"MATLAB|expected X") as raised:
            read_svhn(path)
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)


def test_other_contents_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    right = pixels(32, 32, 3, 4)
    for variables, said in (
        ({"Z": right}, "got neither"),
        ({"X": right}, "expected X uint8"),
        ({"X": right.astype(float), "y": np.ones((4, 1))}, "float64"),
        ({"X": right[:16], "y": np.ones((4, 1))}, r"\(16, 32, 3, 4\)"),
        ({"X": right, "y": np.ones((3, 1))}, r"\(3, 1\)"),
        ({"X": right, "y": np.full((4, 1), 11)}, r"labels must lie in 1\.\.10.*got 11\.\.11"),
        ({"X": right, "y": np.zeros((4, 1))}, r"got 0\.\.0"),
    ):
        savemat(path, variables)
        with pytest.raises(BadFile, match=said):
            read_svhn(path)
