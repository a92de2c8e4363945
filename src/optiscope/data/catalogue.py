"""The catalogue of data sets: what each is, its licence, its official files, and how it is loaded.

Importing this module imports no tensor library, so that listing data sets is instant.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from optiscope.data.bytes_of import read_bytes
from optiscope.data.errors import BadFile, MissingData
from optiscope.data.folders import DATA_DIR_VARIABLE, resolve_data_dir
from optiscope.data.layouts import (
    Digest,
    Layout,
    Located,
    Part,
    cifar_layouts,
    hub_layout,
    idx_layout,
    locate_layout,
)

__all__ = [
    "DATASETS",
    "Dataset",
    "FileReport",
    "RemoteFile",
    "Report",
    "dataset_named",
    "locate",
    "verify",
]


@dataclass(frozen=True)
class RemoteFile:
    """An official file: where it is served, where it goes below the data folder, its digest.

    ``digest`` is of the file as served. It is None only where the publisher revises the file.
    """

    urls: tuple[str, ...]
    place: str
    size: int | None
    digest: Digest | None


@dataclass(frozen=True)
class Dataset:
    """A data set by name: description, licence, official files, known layouts, and its loader.

    Attributes:
        name: word by which problems and the command line name it.
        description: what it holds, in one line.
        licence: under which terms the data may be used.
        source: where it was published.
        files: official files to download; empty where it ships with a dependency or cannot be
            downloaded without an account.
        layouts: folder layouts it is read from, the most faithful first.
        load: ``load(data_dir)`` -> `ImageData`, `LabelledImages`, `ImageFolder` or text.
        shape: (channels, height, width) of an image, where all have one.
        counts: (training, test) samples, where they are fixed.
        classes: names of the classes.
        how_to_get: what to do where ``files`` is empty.
    """

    name: str
    description: str
    licence: str
    source: str
    files: tuple[RemoteFile, ...]
    load: Callable[[str | Path | None], Any]
    layouts: tuple[Layout, ...] = ()
    shape: tuple[int, int, int] | None = None
    counts: tuple[int, int] | None = None
    classes: tuple[str, ...] = field(default=(), repr=False)
    how_to_get: str = ""

    @property
    def download_bytes(self) -> int | None:
        """Bytes of all official files, or None where one of them has no fixed size."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)


@dataclass(frozen=True)
class FileReport:
    """What verification found for one file."""

    path: Path
    status: Literal["ok", "wrong", "missing", "unverified"]
    detail: str


@dataclass(frozen=True)
class Report:
    """What verification found for a data set: its layout, if complete, and each file."""

    dataset: str
    folder: Path
    layout: str | None
    files: tuple[FileReport, ...]

    @property
    def complete(self) -> bool:
        """Whether some layout has all its files."""
        return self.layout is not None

    @property
    def ok(self) -> bool:
        """Whether the data set is complete and no file contradicts its digest."""
        return self.complete and all(f.status in ("ok", "unverified") for f in self.files)


def dataset_named(name: str) -> Dataset:
    """The data set called ``name``.

    Raises:
        ValueError: there is none; the message names the nearest ones.
    """
    if name in DATASETS:
        return DATASETS[name]
    import difflib

    near = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(DATASETS)}"
    raise ValueError(f"unknown data set {name!r}: {hint}")


def locate(name: str, data_dir: str | Path | None = None) -> Located:
    """Files of a data set in the first of its layouts that is complete below the data folder.

    Raises:
        MissingData: no layout is complete; the message says where was searched and what to do.
    """
    dataset, folder = dataset_named(name), resolve_data_dir(data_dir)
    partial: tuple[str, tuple[str, ...]] | None = None
    for layout in dataset.layouts:
        located, missing = locate_layout(layout, folder)
        if located is not None:
            return located
        if len(missing) < len(layout.parts) and partial is None:
            partial = (layout.name, missing)
    remedy = dataset.how_to_get or (
        f"run `optiscope data fetch {name}`, or point --data-dir or {DATA_DIR_VARIABLE} "
        "at the folder that holds it"
    )
    if partial is not None:
        raise MissingData(
            f"data set {name} is incomplete in {folder}: its {partial[0]} layout lacks "
            f"{', '.join(partial[1])}: {remedy}"
        )
    raise MissingData(f"data set {name} not found in {folder}: {remedy}")


def verify(name: str, data_dir: str | Path | None = None) -> Report:
    """Report on the files of a data set: present or not, and whether they match published digests.

    Every layout of which any file is present is reported; where none is, the official files are
    reported as missing. A file nobody publishes a digest of is ``unverified``.
    """
    dataset, folder = dataset_named(name), resolve_data_dir(data_dir)
    complete: str | None = None
    reports: list[FileReport] = []
    for layout in dataset.layouts:
        located, missing = locate_layout(layout, folder)
        if located is not None:
            complete = complete or layout.name
        if len(missing) == len(layout.parts):
            continue
        for part in layout.parts:
            found = part.find(folder)
            reports += [_check(part, path) for path in found] or [
                FileReport(folder / part.places[0], "missing", f"{layout.name} layout needs it")
            ]
    if not dataset.layouts:
        complete = "package"
    elif not reports:
        reports = [
            FileReport(
                folder / file.place, "missing", f"fetch it with `optiscope data fetch {name}`"
            )
            for file in dataset.files
        ] or [FileReport(folder / name, "missing", dataset.how_to_get)]
    return Report(name, folder, complete, tuple(reports))


def _check(part: Part, path: Path) -> FileReport:
    if path.is_dir():
        return FileReport(path, "unverified", "a folder of images")
    if part.digest is None:
        return FileReport(path, "unverified", "no digest is published for this file")
    try:
        got = _digest_of(path, part.digest.algorithm, part.unpack)
    except BadFile as error:
        return FileReport(path, "wrong", str(error))
    if got != part.digest.value:
        return FileReport(
            path, "wrong", f"expected {part.digest.algorithm} {part.digest.value}, got {got}"
        )
    return FileReport(path, "ok", f"{part.digest.algorithm} {got}")


def _digest_of(path: Path, algorithm: str, unpack: bool) -> str:
    if unpack:
        return hashlib.new(algorithm, read_bytes(path), usedforsecurity=False).hexdigest()
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, algorithm).hexdigest()
    except OSError as error:
        raise BadFile(f"{path}: cannot be read ({error.strerror or error})") from error


def _images(name: str) -> Callable[[str | Path | None], Any]:
    def load(data_dir: str | Path | None = None) -> Any:
        from optiscope.data.images import load_images

        return load_images(name, data_dir)

    return load


def _digits(data_dir: str | Path | None = None) -> Any:
    from optiscope.data.images import load_digits

    return load_digits()


def _text(name: str) -> Callable[[str | Path | None], Any]:
    def load(data_dir: str | Path | None = None) -> Any:
        from optiscope.data.text import load_text

        return load_text(name, data_dir)

    return load


def _folder(name: str) -> Callable[[str | Path | None], Any]:
    def load(data_dir: str | Path | None = None) -> Any:
        from optiscope.data.image_folder import load_image_folders

        return load_image_folders(name, data_dir)

    return load


def _sha(value: str) -> Digest:
    return Digest("sha256", value)


def _md5(value: str) -> Digest:
    return Digest("md5", value)


def _idx_files(
    mirrors: tuple[str, ...], folder: str, files: dict[str, tuple[int, str]]
) -> tuple[RemoteFile, ...]:
    return tuple(
        RemoteFile(
            tuple(f"{mirror}{file}" for mirror in mirrors), f"{folder}/{file}", size, _sha(value)
        )
        for file, (size, value) in files.items()
    )


_DIGITS = tuple("0123456789")
_FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_CIFAR10 = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_CIFAR100 = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
    camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
    dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
    leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
    otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
    road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
    sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
    """.split()
)

_MNIST = Dataset(
    name="mnist",
    description="handwritten digits, 28 x 28 grey, 60,000 training and 10,000 test images",
    licence="CC BY-SA 3.0",
    source="http://yann.lecun.com/exdb/mnist/",
    files=_idx_files(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        "MNIST/raw",
        {
            "train-images-idx3-ubyte.gz": (
                9_912_422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            "train-labels-idx1-ubyte.gz": (
                28_881,
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            "t10k-images-idx3-ubyte.gz": (
                1_648_877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            "t10k-labels-idx1-ubyte.gz": (
                4_542,
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        },
    ),
    load=_images("mnist"),
    layouts=(
        idx_layout(
            ("MNIST/raw", "mnist/raw", "MNIST", "mnist"),
            {
                "train_images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "train_labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "test_images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "test_labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            },
        ),
        hub_layout("mnist/mnist", "MNIST/mnist", "mnist"),
    ),
    shape=(1, 28, 28),
    counts=(60_000, 10_000),
    classes=_DIGITS,
)

_FASHION_MNIST = Dataset(
    name="fashion_mnist",
    description="articles of clothing, 28 x 28 grey, 60,000 training and 10,000 test images",
    licence="MIT",
    source="https://github.com/zalandoresearch/fashion-mnist",
    files=_idx_files(
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        "FashionMNIST/raw",
        {
            "train-images-idx3-ubyte.gz": (
                26_421_880,
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            "train-labels-idx1-ubyte.gz": (
                29_515,
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
            "t10k-images-idx3-ubyte.gz": (
                4_422_102,
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            "t10k-labels-idx1-ubyte.gz": (
                5_148,
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        },
    ),
    load=_images("fashion_mnist"),
    layouts=(
        idx_layout(
            (
                "FashionMNIST/raw",
                "fashion_mnist/raw",
                "FashionMNIST",
                "fashion_mnist",
                "fashion-mnist",
            ),
            {
                "train_images": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "train_labels": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "test_images": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "test_labels": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            },
        ),
        hub_layout("fashion_mnist/fashion_mnist", "fashion_mnist"),
    ),
    shape=(1, 28, 28),
    counts=(60_000, 10_000),
    classes=_FASHION,
)

_CIFAR_10 = Dataset(
    name="cifar10",
    description="objects and animals, 32 x 32 colour, 50,000 training and 10,000 test images",
    licence="none stated; free for research with a citation of Krizhevsky 2009",
    source="https://www.cs.toronto.edu/~kriz/cifar.html",
    files=(
        RemoteFile(
            ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            "cifar-10-binary.tar.gz",
            170_052_171,
            _sha("c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),
        ),
    ),
    load=_images("cifar10"),
    layouts=(
        *cifar_layouts(
            ("", "cifar10/", "CIFAR10/"),
            binary=(
                "cifar-10-batches-bin",
                {
                    "data_batch_1.bin": _sha(
                        "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"
                    ),
                    "data_batch_2.bin": _sha(
                        "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"
                    ),
                    "data_batch_3.bin": _sha(
                        "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"
                    ),
                    "data_batch_4.bin": _sha(
                        "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"
                    ),
                    "data_batch_5.bin": _sha(
                        "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"
                    ),
                    "test_batch.bin": _sha(
                        "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"
                    ),
                },
            ),
            pickled=(
                "cifar-10-batches-py",
                {
                    "data_batch_1": _md5("c99cafc152244af753f735de768cd75f"),
                    "data_batch_2": _md5("d4bba439e000b95fd0a9bffe97cbabec"),
                    "data_batch_3": _md5("54ebc095f3ab1f0389bbae665268c751"),
                    "data_batch_4": _md5("634d18415352ddfa80567beed471001a"),
                    "data_batch_5": _md5("482c414d41f54cd18b22e5b47cb7c3cb"),
                    "test_batch": _md5("40351d587109b95175f43aff81a1287e"),
                },
            ),
            archives={
                "cifar-10-binary.tar.gz": _sha(
                    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
                ),
                "cifar-10-python.tar.gz": _sha(
                    "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
                ),
            },
        ),
        hub_layout("cifar10/plain_text", "cifar10"),
    ),
    shape=(3, 32, 32),
    counts=(50_000, 10_000),
    classes=_CIFAR10,
)

_CIFAR_100 = Dataset(
    name="cifar100",
    description="100 fine classes, 32 x 32 colour, 50,000 training and 10,000 test images",
    licence="none stated; free for research with a citation of Krizhevsky 2009",
    source="https://www.cs.toronto.edu/~kriz/cifar.html",
    files=(
        RemoteFile(
            ("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",),
            "cifar-100-binary.tar.gz",
            None,
            _sha("58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"),
        ),
    ),
    load=_images("cifar100"),
    layouts=(
        *cifar_layouts(
            ("", "cifar100/", "CIFAR100/"),
            binary=(
                "cifar-100-binary",
                {
                    "train.bin": _sha(
                        "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29"
                    ),
                    "test.bin": None,
                },
            ),
            pickled=(
                "cifar-100-python",
                {
                    "train": _md5("16019d7e3df5f24257cddd939b257f8d"),
                    "test": _md5("f0ef6b0ae62326f3e7ffdfab6717acfc"),
                },
            ),
            archives={
                "cifar-100-binary.tar.gz": _sha(
                    "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"
                ),
                "cifar-100-python.tar.gz": _sha(
                    "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"
                ),
            },
        ),
        hub_layout("cifar100/cifar100", "cifar100"),
    ),
    shape=(3, 32, 32),
    counts=(50_000, 10_000),
    classes=_CIFAR100,
)

_SVHN_DIGESTS = {
    "train": _sha("435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"),
    "test": _sha("cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"),
}
_SVHN = Dataset(
    name="svhn",
    description="house numbers, cropped digits, 32 x 32 colour, 73,257 training and 26,032 test images",
    licence="for non-commercial use only",
    source="http://ufldl.stanford.edu/housenumbers/",
    files=tuple(
        RemoteFile(
            (f"http://ufldl.stanford.edu/housenumbers/{split}_32x32.mat",),
            f"svhn/{split}_32x32.mat",
            size,
            _SVHN_DIGESTS[split],
        )
        for split, size in (("train", 182_040_794), ("test", 64_275_384))
    ),
    load=_images("svhn"),
    layouts=(
        Layout(
            "matlab",
            "matlab",
            tuple(
                Part(
                    split,
                    tuple(f"{folder}{split}_32x32.mat" for folder in ("svhn/", "SVHN/", "")),
                    _SVHN_DIGESTS[split],
                )
                for split in ("train", "test")
            ),
        ),
        hub_layout("svhn/cropped_digits", "svhn"),
    ),
    shape=(3, 32, 32),
    counts=(73_257, 26_032),
    classes=_DIGITS,
)

_TOLSTOI = Dataset(
    name="tolstoi",
    description="War and Peace by Leo Tolstoy in English, one text of about 3.2 million characters",
    licence="public domain (Project Gutenberg licence)",
    source="https://www.gutenberg.org/ebooks/2600",
    files=(
        RemoteFile(
            ("https://www.gutenberg.org/files/2600/2600-0.txt",),
            "tolstoi/war_and_peace.txt",
            None,
            None,
        ),
    ),
    load=_text("tolstoi"),
    layouts=(
        Layout(
            "text",
            "text",
            (
                Part(
                    "text",
                    tuple(
                        f"{folder}{file}"
                        for folder in ("tolstoi/", "")
                        for file in (
                            "war_and_peace.txt",
                            "war_and_peace.txt.gz",
                            "2600-0.txt",
                            "2600-0.txt.gz",
                        )
                    ),
                ),
            ),
        ),
    ),
)

_DIGITS_SET = Dataset(
    name="digits",
    description="handwritten digits, 8 x 8 grey with 17 levels, 1,797 images, ships with scikit-learn",
    licence="CC BY 4.0",
    source="https://archive.ics.uci.edu/dataset/80",
    files=(),
    load=_digits,
    shape=(1, 8, 8),
    classes=_DIGITS,
    how_to_get="it ships with scikit-learn: nothing to fetch",
)

_IMAGENET = Dataset(
    name="imagenet",
    description="ILSVRC 2012, 1,000 classes, 1.28 million training and 50,000 validation photographs",
    licence="non-commercial research and education only, by agreement with image-net.org",
    source="https://www.image-net.org/challenges/LSVRC/2012/",
    files=(),
    load=_folder("imagenet"),
    layouts=(
        Layout(
            "class folders",
            "folders",
            (
                Part("train", ("imagenet/train/*/*", "ImageNet/train/*/*", "train/*/*")),
                Part("val", ("imagenet/val/*/*", "ImageNet/val/*/*", "val/*/*")),
            ),
        ),
    ),
    how_to_get=(
        "it is never fetched: ask image-net.org for access, unpack it as imagenet/train/CLASS/*.JPEG and "
        f"imagenet/val/CLASS/*.JPEG, and point --data-dir or {DATA_DIR_VARIABLE} at the folder above"
    ),
)

DATASETS: MappingProxyType[str, Dataset] = MappingProxyType(
    {
        dataset.name: dataset
        for dataset in (
            _DIGITS_SET,
            _MNIST,
            _FASHION_MNIST,
            _CIFAR_10,
            _CIFAR_100,
            _SVHN,
            _TOLSTOI,
            _IMAGENET,
        )
    }
)
"""All data sets by name, in the order in which they are listed."""
