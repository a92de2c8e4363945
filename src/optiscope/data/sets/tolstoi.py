"""War and Peace, for language models of characters.

Project Gutenberg corrects its files now and then, so the file as served today has no fixed digest.
The digest below is of the revision on which this package's own figures rest.
"""

from __future__ import annotations

from optiscope.data.dataset import Dataset, Layout, Part, RemoteFile, sha256
from optiscope.data.sets import loaders

__all__ = ["TOLSTOI"]

TOLSTOI = Dataset(
    name="tolstoi",
    description="War and Peace by Leo Tolstoy in English, one text of 3.2 million characters",
    licence="public domain in the USA (Project Gutenberg licence)",
    source="https://www.gutenberg.org/ebooks/2600",
    files=(
        RemoteFile(
            (
                "https://www.gutenberg.org/files/2600/2600-0.txt",
                "https://www.gutenberg.org/ebooks/2600.txt.utf-8",
            ),
            "tolstoi/war_and_peace.txt",
            None,
            None,
            marker=b"War and Peace",
            ending=b"END OF TH",  # "*** END OF THE PROJECT ..." or "THIS PROJECT ..."
        ),
    ),
    loader=loaders.text,
    layouts=(
        Layout(
            "text",
            "text",
            (
                Part(
                    "text",
                    tuple(
                        f"{folder}{file}{end}"
                        for folder in ("tolstoi/", "")
                        for file in ("war_and_peace.txt", "2600-0.txt")
                        for end in ("", ".gz")
                    ),
                    sha256("6cbcc5ca5e590fb9ace161a5b93e4ecf280d7118104be0d63b686c004cfa70ae"),
                    unpacked=True,
                    largest=2**26,
                    revised="another revision of the text than this package's figures rest on",
                ),
            ),
        ),
    ),
)
