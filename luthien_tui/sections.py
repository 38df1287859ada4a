"""Rows of a long text in sections: each is built for itself, and each row knows what it belongs to and how it is coloured.

Text of the traffic stands behind two columns that it cannot draw on: the margin, and the column of the speakers.
Everything may run in a thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, NamedTuple

from rich.cells import cell_len

from luthien_tui.documents import Document, Piece, wrap
from luthien_tui.text import visible
from luthien_tui.widgets.paint import fit
from proxy_core.control.session_infos import SessionInfo

MARGIN = 2
"""Cells for signs beside the text."""
INDENT = 11
"""Cells before the text, the margin included."""
NOTHING: Piece = ("", "")


class Anchor(NamedTuple):
    """What a row belongs to."""

    kind: Literal["turn", "fold", "session", "earlier"]
    """`turn`: the turn as such; `fold`: something that can be unfolded; `session`: a sub-session; `earlier`: turns not here."""
    turn: int = 0
    key: str = ""
    """Of what can be unfolded its name within the session, of a sub-session its id."""


@dataclass(frozen=True, slots=True)
class Folding:
    """What is unfolded: what is by itself, and not what was toggled."""

    all_open: bool = False
    toggled: frozenset[str] = frozenset()

    def is_open(self, key: str, *, usually: bool = False) -> bool:
        return (usually or self.all_open) != (key in self.toggled)

    def toggle(self, key: str) -> Folding:
        return Folding(self.all_open, self.toggled ^ {key})


@dataclass(frozen=True, slots=True)
class Setting:
    """What a turn's section depends on besides the turn."""

    width: int
    folding: Folding
    told_calls: Collection[str] = ()
    """Calls of turns before: their results stand there."""
    sessions: Mapping[str, SessionInfo] = field(default_factory=dict)
    """What is known of sub-sessions."""


class Section(Document):
    """Rows with their pieces, and what each belongs to."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[Piece]] = []
        self.anchors: list[Anchor] = []

    def pieces(self, index: int) -> list[Piece]:
        return self.rows[index]

    def row(self, anchor: Anchor, *pieces: Piece, continues: bool = False) -> None:
        """Append one row, not wrapped."""
        self.rows.append(list(pieces))
        self.texts.append("".join(text for text, _ in pieces))
        self.anchors.append(anchor)
        self.continued.append(continues)

    def extend(self, other: Section) -> None:
        """Append all rows of another section."""
        self.rows += other.rows
        self.texts += other.texts
        self.anchors += other.anchors
        self.continued += other.continued

    def trim(self) -> None:
        """Take empty rows off the end."""
        while self.texts and not self.texts[-1]:
            for rows in (self.rows, self.texts, self.anchors, self.continued):
                rows.pop()

    def beside(self, anchor: Anchor, head: Piece, *said: Piece, sign: Piece = NOTHING) -> None:
        """Append one row of something said beside its head, with a sign in the margin."""
        self.row(anchor, (fit(sign[0], MARGIN), sign[1]), (padded(head[0]), head[1]), *said)

    def text(
        self,
        setting: Setting,
        anchor: Anchor,
        text: str,
        head: Piece,
        *,
        tone: str,
        most: int,
        sign: Piece = NOTHING,
        omitted: int = 0,
    ) -> None:
        """Append text beside its head; after `most` rows the rest is folded, if there is more of it than the row that says so.

        `omitted`: characters that are missing at the end of `text`. An anchor that is no fold is never unfolded.
        """
        folds = anchor.kind == "fold"
        is_open = folds and setting.folding.is_open(anchor.key)
        rows = wrapped_rows(text.strip("\n"), setting.width - INDENT)
        shown = list(rows if is_open else islice(rows, most + 2))
        is_cut = not is_open and len(shown) > most + 1
        if is_cut:
            del shown[most:]
        if not is_cut and not is_open:
            anchor = Anchor("turn", anchor.turn)
        for place, (row, continues) in enumerate(shown):
            lead: Piece = (padded(head[0]), head[1]) if place == 0 else (padded(""), "")
            margin: Piece = (fit(sign[0], MARGIN), sign[1]) if place == 0 else (" " * MARGIN, "")
            self.row(anchor, margin, lead, (row, tone), continues=continues)
        if is_cut:
            left = max(1, len(text) - sum(len(row) for row, _ in shown)) + omitted
            how: tuple[Piece, ...] = (("  enter", "key"), (" unfolds", "quiet")) if folds else ()
            self.row(anchor, (" " * INDENT, ""), (f"… {left:,} more characters", "quiet"), *how)
        elif omitted:
            self.row(anchor, (" " * INDENT, ""), (f"… {omitted:,} more characters are in the transaction", "quiet"))


def padded(head: str) -> str:
    """A head in the column of the speakers; a longer one goes beyond it."""
    return head + " " * max(0, INDENT - MARGIN - cell_len(head))


def wrapped_rows(text: str, width: int) -> Iterator[tuple[str, bool]]:
    """The rows of a text of the traffic, and whether each goes on from the one above."""
    for line in visible(text).split("\n"):
        for place, row in enumerate(wrap(line, max(8, width))):
            yield row, place > 0
