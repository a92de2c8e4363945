"""A table of the page, as plain values for the template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from optiscope.report.legend import Key

__all__ = ["Cell", "DataTable", "Row"]


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: shown.
        style: CSS classes.
        hint: shown when the pointer rests on it.
        letters: small letters after the text, empty for none.
    """

    text: str
    style: str = ""
    hint: str = ""
    letters: str = ""


@dataclass(frozen=True)
class Row:
    """One row; its first cell is its heading.

    Attributes:
        cells: one per column.
        key: legend entry drawn before the heading, or None.
        number: of the algorithm with which the row is shown and hidden, or None.
    """

    cells: Sequence[Cell]
    key: Key | None = None
    number: int | None = None


@dataclass(frozen=True)
class DataTable:
    """Columns and rows.

    Attributes:
        columns: headings; one that starts with ``#`` is for numbers and stands to the right.
        rows: in order.
        caption: said below the table, may be empty.
    """

    columns: Sequence[str]
    rows: Sequence[Row] = field(default=())
    caption: str = ""

    @property
    def headings(self) -> list[tuple[str, bool]]:
        """Heading of each column, and whether it holds numbers."""
        return [(column.removeprefix("#"), column.startswith("#")) for column in self.columns]
