"""CIFAR-10 and CIFAR-100: 32 x 32 colour images in binary or pickled batches.

What is fetched are the binary archives, which hold nothing but pixels and labels.
"""

from __future__ import annotations

from optiscope.data.dataset import Dataset, RemoteFile, md5, sha256
from optiscope.data.layouts import batch_layout, hub_layout, packed_layout
from optiscope.data.sets import loaders

__all__ = ["CIFAR10", "CIFAR100"]

SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"
LICENCE = "none stated; its authors ask for a citation of Krizhevsky 2009"
BINARY_10 = sha256("c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd")
PYTHON_10 = sha256("6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce")
BINARY_100 = sha256("58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec")
PYTHON_100 = sha256("85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7")
ABOVE_10 = ("", "cifar10/", "CIFAR10/", "cifar-10/")
ABOVE_100 = ("", "cifar100/", "CIFAR100/", "cifar-100/")

CIFAR10 = Dataset(
    name="cifar10",
    description="objects and animals, 32 x 32 colour, 50,000 training and 10,000 test images",
    licence=LICENCE,
    source=SOURCE,
    files=(
        RemoteFile(
            ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            "cifar-10-binary.tar.gz",
            170_052_171,
            BINARY_10,
        ),
    ),
    loader=loaders.images,
    layouts=(
        batch_layout(
            ABOVE_10,
            "cifar-10-batches-bin",
            {
                "data_batch_1.bin": sha256(
                    "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"
                ),
                "data_batch_2.bin": sha256(
                    "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"
                ),
                "data_batch_3.bin": sha256(
                    "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"
                ),
                "data_batch_4.bin": sha256(
                    "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"
                ),
                "data_batch_5.bin": sha256(
                    "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"
                ),
                "test_batch.bin": sha256(
                    "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"
                ),
            },
            pickled=False,
        ),
        batch_layout(
            ABOVE_10,
            "cifar-10-batches-py",
            {
                "data_batch_1": md5("c99cafc152244af753f735de768cd75f"),
                "data_batch_2": md5("d4bba439e000b95fd0a9bffe97cbabec"),
                "data_batch_3": md5("54ebc095f3ab1f0389bbae665268c751"),
                "data_batch_4": md5("634d18415352ddfa80567beed471001a"),
                "data_batch_5": md5("482c414d41f54cd18b22e5b47cb7c3cb"),
                "test_batch": md5("40351d587109b95175f43aff81a1287e"),
            },
            pickled=True,
        ),
        packed_layout(ABOVE_10, "cifar-10-binary.tar.gz", BINARY_10),
        packed_layout(ABOVE_10, "cifar-10-python.tar.gz", PYTHON_10),
        hub_layout(
            "cifar10/plain_text",
            "cifar10",
            digests={
                "train": sha256("7d52ebb7ff9a36d8d162788c05753c1be6647f184101167dae3aeb7eda0b93d7"),
                "test": sha256("e4f593f39704aedbc56fd983d6edc0efeb7677044835953cbcca461adeeac91b"),
            },
        ),
    ),
    shape=(3, 32, 32),
    counts=(50_000, 10_000),
    classes=(
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
    ),
)

# fmt: off
FINE_CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup",
    "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house",
    "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man",
    "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid",
    "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy",
    "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal",
    "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar",
    "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman",
    "worm",
)
# fmt: on

CIFAR100 = Dataset(
    name="cifar100",
    description="100 fine classes, 32 x 32 colour, 50,000 training and 10,000 test images",
    licence=LICENCE,
    source=SOURCE,
    files=(
        RemoteFile(
            ("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",),
            "cifar-100-binary.tar.gz",
            168_513_733,
            BINARY_100,
        ),
    ),
    loader=loaders.images,
    layouts=(
        batch_layout(
            ABOVE_100,
            "cifar-100-binary",
            {
                "train.bin": sha256(
                    "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29"
                ),
                "test.bin": sha256(
                    "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a"
                ),
            },
            pickled=False,
        ),
        batch_layout(
            ABOVE_100,
            "cifar-100-python",
            {
                "train": md5("16019d7e3df5f24257cddd939b257f8d"),
                "test": md5("f0ef6b0ae62326f3e7ffdfab6717acfc"),
            },
            pickled=True,
        ),
        packed_layout(ABOVE_100, "cifar-100-binary.tar.gz", BINARY_100),
        packed_layout(ABOVE_100, "cifar-100-python.tar.gz", PYTHON_100),
        hub_layout("cifar100/cifar100", "cifar100"),
    ),
    shape=(3, 32, 32),
    counts=(50_000, 10_000),
    classes=FINE_CLASSES,
)
