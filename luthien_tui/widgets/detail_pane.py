"""The open transaction: a title, tabs, and the text of the chosen tab; a running response grows as it arrives.

Texts are prepared in a thread, and only for the tab that is looked at. Whatever was asked for last wins.
"""

from __future__ import annotations

import asyncio
from codecs import getincrementaldecoder

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.events import Resize

from luthien_tui import detail_documents
from luthien_tui.documents import Document, EventRows, LexedDocument, add_lines, body_lexer, lex_json, lex_plain, lex_sse
from luthien_tui.text import cell, visible
from luthien_tui.widgets.body_view import BodyView
from luthien_tui.widgets.paint import Piece, spread
from luthien_tui.widgets.strip_bar import StripBar
from proxy_core.control.plane import ControlPlane, TransactionDetail
from proxy_core.control.rows import TransactionRow
from proxy_core.tasks import spawn

TABS = ("Summary", "Request", "Response", "Policies", "Raw", "Timing")
LIVE_PIECE = 262_144
"""Bytes of a running response that are taken in at once."""

LONGEST_OPEN_LINE = 65_536
"""Characters of a line without an end after which it is taken as it is."""


class DetailTitle(StripBar):
    """Which transaction is open, and the tabs."""

    DEFAULT_CSS = "DetailTitle { height: 2; background: $surface; }"

    def __init__(self) -> None:
        super().__init__()
        self.row: TransactionRow | None = None
        self.tab = TABS[0]
        self.note = ""

    def line(self, y: int, width: int) -> list[Piece]:
        if y == 0:
            if self.row is None:
                return [(" ", "")]
            return spread(detail_documents.title_pieces(self.row), [], width)
        pieces: list[Piece] = [(" ", "")]
        pieces += [(f" {tab} ", ("tab" if tab == self.tab else "quiet") + f"@show_tab('{tab}')") for tab in TABS]
        return spread(pieces, [(f"{self.note} ", "quiet")], width)


class DetailPane(Vertical):
    """Shows one transaction by id."""

    DEFAULT_CSS = """
    DetailPane { background: $background; display: none; }
    DetailPane.-open { display: block; }
    """

    def __init__(self, plane: ControlPlane) -> None:
        super().__init__(id="detail")
        self.plane = plane
        self.header = DetailTitle()
        self.body = BodyView(id="body")
        self.detail: TransactionDetail | None = None
        self.transaction_id: str | None = None
        self.tab = TABS[0]
        self._asked = 0
        self._built_version = -1
        self._built_width = 0
        self._loading = False
        self._live: LiveText | None = None
        self._tops: dict[str, int] = {}

    def compose(self) -> ComposeResult:
        yield self.header
        yield self.body

    @property
    def is_open(self) -> bool:
        return self.has_class("-open")

    @property
    def is_growing(self) -> bool:
        """Whether the shown text is a response that still arrives."""
        return self._live is not None

    def open(self, row: TransactionRow) -> None:
        """Show this transaction."""
        self.add_class("-open")
        self.header.row = row
        self.header.refresh()
        if row.transaction_id != self.transaction_id:
            self.transaction_id = row.transaction_id
            self.detail = None
            self._tops.clear()
            self._load()

    def close(self) -> None:
        self.remove_class("-open")
        self.transaction_id = None
        self.detail = None
        self._live = None
        self._asked += 1
        self.body.follow = False
        self.body.show(Document())

    def show_tab(self, tab: str) -> None:
        if tab == self.tab or self.transaction_id is None:
            return
        self._tops[self.tab] = self.body.top
        self.tab = tab
        self._load(keep_detail=True)

    def step_tab(self, step: int) -> None:
        self.show_tab(TABS[(TABS.index(self.tab) + step) % len(TABS)])

    def tick(self) -> None:
        """Follow the transaction; called by the frame pump."""
        row = self.header.row
        if row is None or not self.is_open or self._loading:
            return
        if row.version != self._built_version:
            if self._live is None or row.state == "done":
                self._tops[self.tab] = self.body.top
                self._load()
            else:
                self._built_version = row.version
            self.header.refresh()
        elif self._live is not None:
            self._grow_live()

    def _load(self, *, keep_detail: bool = False) -> None:
        self._asked += 1
        self._live = None
        self._loading = True
        self.header.tab = self.tab
        self.header.refresh()
        spawn(self._load_or_tell(self._asked, keep_detail), name="detail")

    async def _load_or_tell(self, asked: int, keep_detail: bool) -> None:
        try:
            await self._load_tab(asked, keep_detail)
        except Exception as error:
            if asked == self._asked and self.is_attached:
                self._loading = False
                self._built_version = self.header.row.version if self.header.row is not None else -1
                self.body.show(
                    detail_documents.note(f"This part cannot be shown: {type(error).__name__}. The log has the details.")
                )
            raise

    async def _load_tab(self, asked: int, keep_detail: bool) -> None:
        transaction_id = self.transaction_id
        if transaction_id is None:
            return
        row = self.header.row
        version = row.version if row is not None else 0
        running = row is not None and row.state != "done"
        detail = self.detail if keep_detail and not running else None
        if detail is None:
            detail = await self.plane.detail(transaction_id)
        if asked != self._asked or not self.body.size.width:
            return
        width = self._built_width = self.body.text_width
        if detail is None:
            document = detail_documents.note("Its record is not at hand any more.")
        elif self.tab == "Response" and running:
            document = self._begin_live(detail, transaction_id, width)
        else:
            document = await asyncio.to_thread(detail_documents.build, self.tab, detail, width)
        if asked != self._asked or not self.is_attached:
            return
        self.detail = detail
        self._built_version = version
        self._loading = False
        self.header.note = self._note(detail)
        self.header.refresh()
        self.body.follow = self._live is not None
        self.body.show(document, top=self._tops.get(self.tab, 0))
        self._tops[self.tab] = self.body.top

    def _note(self, detail: TransactionDetail | None) -> str:
        if detail is None:
            return ""
        parts = ["redacted"] if detail.redacted else []
        if detail.capture_note:
            parts.append(cell(detail.capture_note))
        return " · ".join(parts)

    def _begin_live(self, detail: TransactionDetail, transaction_id: str, width: int) -> Document:
        kind = detail_documents.content_type(detail.response_headers)
        self._live = LiveText(transaction_id, kind, width)
        self._take_live(self._live)
        return self._live.document

    def _grow_live(self) -> None:
        if self._live is not None:
            first_changed = len(self._live.document) - self._live.open_rows
            if self._take_live(self._live):
                self.body.grown(first_changed)

    def _take_live(self, live: LiveText) -> bool:
        found = self.plane.live_body(live.transaction_id, live.offset)
        if found is None or not found[0]:
            return False
        live.take(found[0][:LIVE_PIECE])
        return True

    def on_resize(self, event: Resize) -> None:
        if self.is_open and self.transaction_id is not None:
            self._tops[self.tab] = self.body.top
            self.call_after_refresh(self._reload)

    def _reload(self) -> None:
        if self.is_open and self.body.text_width != self._built_width:
            self._load(keep_detail=True)


class LiveText:
    """A response while it arrives: whole lines are final, the last one is drawn again as it grows."""

    def __init__(self, transaction_id: str, content_type: str, width: int) -> None:
        self.transaction_id = transaction_id
        self.width = width
        self.offset = 0
        self.open_rows = 0
        """Rows at the end that belong to a line that is not complete."""
        self.document = LexedDocument(
            lex_sse if "event-stream" in content_type else lex_json if "json" in content_type else lex_plain
        )
        self._is_typed = "event-stream" in content_type or "json" in content_type
        self._decoder = getincrementaldecoder("utf-8")("backslashreplace")
        self._rest = ""
        self._events = EventRows()

    def take(self, piece: bytes) -> None:
        if not self._is_typed and self.offset == 0:
            self.document.lexer = body_lexer(piece, "")
        self.offset += len(piece)
        if self.open_rows:
            del self.document.texts[-self.open_rows :], self.document.continued[-self.open_rows :]
        text = self._rest + self._decoder.decode(piece)
        cut = text.rfind("\n") + 1 if len(text) - text.rfind("\n") < LONGEST_OPEN_LINE else len(text)
        if cut and self.document.lexer is lex_sse:
            for line in self._events.lines(text[:cut].removesuffix("\n")):
                self.document.add(visible(line), self.width)
        elif cut:
            add_lines(self.document, text[:cut], self.width)
        self._rest = text[cut:]
        before = len(self.document)
        if self._rest:
            add_lines(self.document, self._rest, self.width)
        self.open_rows = len(self.document) - before
