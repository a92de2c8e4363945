"""Layouts that several data sets share, as the tools that made them left them on people's disks."""

from __future__ import annotations

from collections.abc import Mapping

from optiscope.data.dataset import Digest, Layout, Part

__all__ = ["batch_layout", "hub_layout", "idx_layout", "packed_layout"]

IDX_NAMES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


def idx_layout(folders: tuple[str, ...], digests: Mapping[str, Digest]) -> Layout:
    """The four IDX files of the MNIST family, gzipped or not; ``digests`` of the unpacked files."""
    return Layout(
        "idx",
        "idx",
        tuple(
            Part(
                role,
                tuple(f"{folder}/{name}{end}" for folder in folders for end in ("", ".gz")),
                digests[role],
                unpacked=True,
            )
            for role, name in IDX_NAMES.items()
        ),
    )


def batch_layout(
    above: tuple[str, ...], folder: str, batches: Mapping[str, Digest | None], *, pickled: bool
) -> Layout:
    """Unpacked CIFAR batches in ``folder``: training batches first, the test batch last.

    ``above`` are the places, ending in ``/`` or empty, where ``folder`` may lie.
    """
    return Layout(
        folder,
        "cifar_pickle" if pickled else "cifar_binary",
        tuple(
            Part(file, tuple(f"{place}{folder}/{file}" for place in above), digest)
            for file, digest in batches.items()
        ),
    )


def packed_layout(above: tuple[str, ...], file: str, digest: Digest) -> Layout:
    """A CIFAR archive as it was downloaded."""
    return Layout(
        file, "cifar_archive", (Part(file, tuple(f"{place}{file}" for place in above), digest),)
    )


def hub_layout(*folders: str, digests: Mapping[str, Digest] | None = None) -> Layout:
    """Parquet files of encoded images, as data set hubs serve them.

    Hubs encode images anew now and then: ``digests`` are of the copy that this package's own
    figures rest on, by split, where there is one.
    """
    known = digests or {}
    return Layout(
        "parquet",
        "parquet",
        tuple(
            Part(
                split,
                tuple(f"{folder}/{split}-*.parquet" for folder in folders),
                known.get(split),
                revised="another copy of the images than this package's figures rest on",
            )
            for split in ("train", "test")
        ),
    )
