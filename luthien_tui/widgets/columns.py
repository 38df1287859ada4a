"""Columns of a table that is drawn by lines: which of them fit a width, and how wide each is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from luthien_tui.widgets.paint import Piece, fit

Row = TypeVar("Row")
GAP = 1
MOST_EXTRA = 14
"""Cells beyond its least width that a column takes at most."""


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """One column: its least width, how much of the spare room it takes, and from which table width on it shows."""

    name: str
    title: str
    width: int
    piece: Callable[[Row, float], Piece]
    """What stands in it, for a row and the time now."""
    share: int = 0
    from_width: int = 0
    right: bool = False
    until_width: int = 1_000_000
    """The table width from which on it does not show."""


Placed = list[tuple[Column[Row], int]]
"""Columns with their widths."""


def arrange(columns: Sequence[Column[Row]], width: int, *, expendable: Sequence[str], widest: Sequence[str]) -> Placed[Row]:
    """The columns that fill `width` cells exactly; the mark before them takes one more cell.

    `expendable` go first where the width does not hold them all; the first of `widest` that shows takes what is left over.
    """
    columns = [column for column in columns if column.from_width <= width < column.until_width]
    for name in expendable:
        if sum(column.width + GAP for column in columns) > width:
            columns = [column for column in columns if column.name != name]
    spare = max(0, width - 1 - sum(column.width + GAP for column in columns) + GAP)
    shares = sum(column.share for column in columns)
    extras = {column.name: spare * column.share // shares if shares else 0 for column in columns}
    last = next(name for name in widest if name in extras)
    extras = {name: extra if name == last else min(extra, MOST_EXTRA) for name, extra in extras.items()}
    extras[last] += spare - sum(extras.values())
    return [(column, column.width + extras[column.name]) for column in columns]


def head(columns: Placed[Row], marks: Mapping[str, str] | None = None) -> str:
    """The titles over the columns; `marks` stand behind the titles of the columns that they name."""
    titles = []
    for column, width in columns:
        mark = (marks or {}).get(column.name, "")
        titles.append(fit(column.title[: max(0, width - len(mark))] + mark, width, right=column.right))
    return " " + " ".join(titles)
