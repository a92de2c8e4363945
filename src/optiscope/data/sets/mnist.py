"""MNIST and Fashion-MNIST: 28 x 28 grey images in IDX files."""

from __future__ import annotations

from optiscope.data.dataset import Dataset, RemoteFile, sha256
from optiscope.data.layouts import hub_layout, idx_layout
from optiscope.data.sets import loaders

__all__ = ["FASHION_MNIST", "MNIST"]


def _files(
    mirrors: tuple[str, ...], folder: str, files: dict[str, tuple[int, str]]
) -> tuple[RemoteFile, ...]:
    return tuple(
        RemoteFile(
            tuple(f"{mirror}{file}" for mirror in mirrors), f"{folder}/{file}", size, sha256(digest)
        )
        for file, (size, digest) in files.items()
    )


MNIST = Dataset(
    name="mnist",
    description="handwritten digits, 28 x 28 grey, 60,000 training and 10,000 test images",
    licence="CC BY-SA 3.0",
    source="http://yann.lecun.com/exdb/mnist/",
    files=_files(
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
    loader=loaders.images,
    layouts=(
        idx_layout(
            ("MNIST/raw", "mnist/raw", "MNIST", "mnist"),
            {
                "train_images": sha256(
                    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
                ),
                "train_labels": sha256(
                    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
                ),
                "test_images": sha256(
                    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
                ),
                "test_labels": sha256(
                    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
                ),
            },
        ),
        hub_layout("mnist/mnist", "mnist"),
    ),
    shape=(1, 28, 28),
    counts=(60_000, 10_000),
    classes=tuple("0123456789"),
)

FASHION_MNIST = Dataset(
    name="fashion_mnist",
    description="articles of clothing, 28 x 28 grey, 60,000 training and 10,000 test images",
    licence="MIT",
    source="https://github.com/zalandoresearch/fashion-mnist",
    files=_files(
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
    loader=loaders.images,
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
                "train_images": sha256(
                    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
                ),
                "train_labels": sha256(
                    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
                ),
                "test_images": sha256(
                    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
                ),
                "test_labels": sha256(
                    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
                ),
            },
        ),
        hub_layout("fashion_mnist/fashion_mnist", "fashion_mnist"),
    ),
    shape=(1, 28, 28),
    counts=(60_000, 10_000),
    classes=(
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
    ),
)
