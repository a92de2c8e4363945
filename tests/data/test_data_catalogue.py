from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from file_writers import write

import optiscope.data
from optiscope.data import DATASETS, BadFile, MissingData, dataset_named, load_digits, load_images
from optiscope.data.catalogue import digest_of, locate, verify
from optiscope.data.dataset import Digest
from optiscope.data.folders import DATA_DIR_VARIABLE, resolve_data_dir

NAMES = ["digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "tolstoi", "imagenet"]


def test_every_data_set_is_listed_with_all_a_user_asks() -> None:
    assert list(DATASETS) == NAMES
    for name, dataset in DATASETS.items():
        assert dataset.name == name
        assert dataset.description
        assert dataset.licence
        assert dataset.source.startswith("http")
        assert bool(dataset.files) != bool(dataset.how_to_get)


def test_every_download_is_pinned_to_a_digest() -> None:
    for dataset in DATASETS.values():
        for file in dataset.files:
            if file.digest is None:
                assert (dataset.name, file.size) == ("tolstoi", None)
                assert file.marker
            else:
                assert file.digest.algorithm == "sha256"
                assert file.size
    for digest in every_digest():
        length = {"sha256": 64, "md5": 32}[digest.algorithm]
        assert len(digest.value) == length
        assert set(digest.value) <= set("0123456789abcdef")


def every_digest() -> list[Digest]:
    files = [file.digest for dataset in DATASETS.values() for file in dataset.files]
    parts = [
        part.digest for d in DATASETS.values() for layout in d.layouts for part in layout.parts
    ]
    return [digest for digest in files + parts if digest is not None]


def test_no_two_files_share_a_digest() -> None:
    digests = [
        part.digest
        for dataset in DATASETS.values()
        for layout in dataset.layouts
        for part in layout.parts
        if part.digest
    ]
    assert len(set(digests)) == len(digests)


def test_listing_needs_no_tensor_library() -> None:
    code = (
        "import sys; from optiscope.data import DATASETS, verify; "
        "[d.description for d in DATASETS.values()]; verify('mnist', '.'); "
        "print({'torch', 'numpy', 'scipy', 'pandas', 'pyarrow', 'requests'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


def test_every_public_name_is_there_when_asked_for() -> None:
    values = {name: getattr(optiscope.data, name) for name in optiscope.data.__all__}
    assert {name for name, value in values.items() if not callable(value)} == {"DATASETS"}
    assert set(dir(optiscope.data)) == set(optiscope.data.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = optiscope.data.nonsense


def test_unknown_names_get_the_nearest_one() -> None:
    with pytest.raises(
        ValueError, match=r"^unknown data set 'fashionmnist': did you mean 'fashion_mn"
    ):
        dataset_named("fashionmnist")
    with pytest.raises(ValueError, match=r"known: digits, mnist, .*, imagenet$"):
        dataset_named("qqq")
    with pytest.raises(ValueError, match="'tolstoi' has no fixed training and test images"):
        load_images("tolstoi")


def test_the_folder_is_the_argument_then_the_variable_then_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve_data_dir().parts[-2:] == ("optiscope", "data")
    monkeypatch.setenv(DATA_DIR_VARIABLE, "")
    assert resolve_data_dir().parts[-2:] == ("optiscope", "data")
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "variable"))
    assert resolve_data_dir() == tmp_path / "variable"
    assert resolve_data_dir(tmp_path / "argument") == tmp_path / "argument"
    assert resolve_data_dir("~/argument") == Path.home() / "argument"
    with pytest.raises(MissingData, match="expected a data folder, got the file"):
        resolve_data_dir(write(tmp_path / "file", b""))


def test_missing_data_says_where_it_looked_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MissingData) as raised:
        locate("cifar10", tmp_path)
    assert str(raised.value) == (
        f"data set cifar10 not found in {tmp_path}: run `optiscope data fetch cifar10`, or name "
        "the folder that holds it with --data-dir or OPTISCOPE_DATA_DIR"
    )


def test_verification_tells_right_from_wrong_and_missing(tmp_path: Path) -> None:
    report = verify("mnist", tmp_path)
    assert not report.complete
    assert [file.status for file in report.files] == ["missing"] * 4
    assert report.files[0].detail == "run `optiscope data fetch mnist`"

    raw = tmp_path / "MNIST/raw"
    write(raw / "train-images-idx3-ubyte", b"not it")
    write(raw / "train-labels-idx1-ubyte.gz", b"\x1f\x8b damaged")
    report = verify("mnist", tmp_path)
    assert not report.ok
    assert [file.status for file in report.files] == ["wrong", "wrong", "missing", "missing"]
    assert hashlib.sha256(b"not it").hexdigest() in report.files[0].detail
    assert "damaged gzip stream" in report.files[1].detail


def test_what_ships_with_scikit_learn_is_always_there(tmp_path: Path) -> None:
    report = verify("digits", tmp_path)
    assert report.ok
    assert report.files == ()
    with pytest.raises(MissingData, match="ships with scikit-learn: nothing to fetch"):
        locate("digits", tmp_path)


def test_another_revision_of_the_text_is_not_called_wrong(tmp_path: Path) -> None:
    write(tmp_path / "tolstoi/war_and_peace.txt", b"War and Peace, revised")
    report = verify("tolstoi", tmp_path)
    assert report.ok
    assert report.files[0].status == "unverified"
    assert "another revision" in report.files[0].detail


def test_folders_of_photographs_are_not_read_to_be_found(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "imagenet" / split).mkdir(parents=True)
    report = verify("imagenet", tmp_path)
    assert report.complete
    assert [file.status for file in report.files] == ["unverified"] * 2


def test_digests_of_files_and_of_what_they_unpack_to(tmp_path: Path) -> None:
    packed = write(tmp_path / "a.gz", b"content", packed=True)
    unpacked = hashlib.sha256(b"content").hexdigest()
    assert digest_of(packed, "sha256", unpacked=True).value == unpacked
    assert digest_of(packed, "md5").value == hashlib.md5(packed.read_bytes()).hexdigest()
    assert gzip.decompress(packed.read_bytes()) == b"content"
    with pytest.raises(BadFile, match="cannot be read"):
        digest_of(tmp_path / "absent", "md5")
    with pytest.raises(ValueError, match="sha256 or md5"):
        digest_of(packed, "crc")


def test_the_digits_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits as reference

    digits, expected = load_digits(), reference()
    assert digits.images.shape == (1797, 1, 8, 8)
    assert digits.images.dtype.itemsize == 1
    assert (digits.images[:, 0].numpy() == expected.images).all()
    assert (digits.labels.numpy() == expected.target).all()
    assert digits.classes == tuple("0123456789")
    assert DATASETS["digits"].load(None).images.equal(digits.images)
