"""Texts beside a conversation: what changed from one turn to the next, and an agent with what it uses. May run in a thread."""

from __future__ import annotations

from collections.abc import Iterable

from luthien_tui import figures
from luthien_tui.conversation_documents import session_facts
from luthien_tui.documents import Document, Piece, PieceDocument
from luthien_tui.text import cell
from luthien_tui.verdict_documents import add_diff
from luthien_tui.widgets.paint import fit
from proxy_core.control.diff import diff_request
from proxy_core.control.plane import TransactionDetail
from proxy_core.control.session_infos import AgentDetail, Count, Totals, Turn
from proxy_core.wire.dialects import Operation

INDENT = 11
BAR = 24
"""Cells of the longest bar."""


def turn_diff_document(before: Turn, after: Turn, one: TransactionDetail, other: TransactionDetail, width: int) -> Document:
    """What the request of a turn has that the one before it had not, and the other way round; then its figures beside those."""
    document = PieceDocument()
    head: tuple[Piece, ...] = ((f"turn {before.number}", "accent"), (" → ", "quiet"), (f"turn {after.number}", "accent"))
    document.line(*head, ("   what the request brings that the one before it had not", "quiet"))
    document.line(("", ""))
    for (name, was), (_, now) in zip(_facts(before), _facts(after), strict=True):
        pieces: list[Piece] = [(name.ljust(INDENT), "quiet"), (was, "quiet")]
        document.line(*pieces, *([] if was == now else [(" → ", "quiet"), (now, "strong")]))
    if before.row.operation != after.row.operation:
        document.line(("the two are calls of different APIs, so only their figures can be compared", "warning"))
        return document
    if not one.request_body or not other.request_body:
        document.line((cell(one.capture_note or other.capture_note or "the body of one of them is not at hand"), "warning"))
        return document
    try:
        operation = Operation(after.row.operation)
    except ValueError:
        operation = Operation.OTHER
    found = diff_request(operation, one.request_body, other.request_body)
    add_diff(document, "request", f"turn {before.number} → turn {after.number}", found, width)
    return document


def _facts(turn: Turn) -> list[Piece]:
    row = turn.row
    return [
        ("model", cell(row.model) or figures.UNKNOWN),
        ("via", cell(row.upstream) or figures.UNKNOWN),
        ("tokens in", figures.count(row.input_tokens)),
        ("cached", figures.count(row.cached_tokens)),
        ("out", figures.count(row.output_tokens)),
        ("cost", figures.usd(row.cost_usd)),
        ("time", figures.duration(row.total_ms)),
    ]


def agent_document(detail: AgentDetail, width: int) -> Document:
    """An agent: its figures, models, tools, days and latest sessions."""
    document = PieceDocument()
    info = detail.info
    document.line(
        ("sessions".ljust(INDENT), "quiet"), (f"{info.sessions:,}", "strong"), (f"  {info.active_sessions:,} active", "")
    )
    for pieces in _totals(info.totals):
        document.line(*pieces)
    if info.workflows:
        document.line(("workflows".ljust(INDENT), "quiet"), (cell(", ".join(info.workflows)), ""))
    if detail.models:
        _heading(document, "models")
        for use in detail.models:
            document.line((fit(cell(use.model) or figures.UNKNOWN, 32), "name"), *_use(use.totals))
    if detail.tools:
        _heading(document, "tools that it called")
        _bars(document, detail.tools)
    unused = [name for name in detail.tools_offered if name not in {one.name for one in detail.tools}]
    if unused:
        head: Piece = ("", "")
        _heading(document, "tools that it may call and has not")
        document.block(", ".join(cell(name) for name in unused), width, head=head, indent=0, tone="quiet")
    if detail.days:
        _heading(document, "days")
        for day in reversed(detail.days):
            document.line((f"{cell(day.day):<12}", "name"), *_use(day.totals))
    if detail.sessions:
        _heading(document, "latest sessions (s lists all of them)")
        for session in detail.sessions:
            document.line((f"{figures.moment(session.last_at)}  ", "quiet"), (cell(session.id), "name"))
            document.line((" " * 21 + "  ".join(session_facts(session)), ""))
    if detail.system:
        _heading(document, "system prompt of its latest request")
        document.block(detail.system, width, head=("", ""), indent=0, tone="quiet")
    return document


def _heading(document: PieceDocument, text: str) -> None:
    document.line(("", ""))
    document.line((text, "accent"))


def _totals(totals: Totals) -> Iterable[list[Piece]]:
    cost = figures.usd(totals.cost_usd)
    yield [("requests".ljust(INDENT), "quiet"), (f"{totals.requests:,}", "strong"), (f"  {totals.running:,} running", "quiet")]
    tokens = f"{figures.count(totals.input_tokens)} in  {figures.count(totals.output_tokens)} out"
    more = f"  {figures.count(totals.cached_tokens)} cached  {figures.count(totals.reasoning_tokens)} reasoning"
    estimated = f"  of {totals.estimated:,} requests estimated" if totals.estimated else ""
    yield [("tokens".ljust(INDENT), "quiet"), (tokens, ""), (more + estimated, "quiet")]
    yield [("cost".ljust(INDENT), "quiet"), (cost, ""),
           (f"  without {totals.unpriced:,} of unknown price" if totals.unpriced else "", "quiet")]  # fmt: skip
    errors: Piece = (f"✗ {totals.errors:,} failed", "error") if totals.errors else ("none failed", "quiet")
    yield [("outcome".ljust(INDENT), "quiet"), errors, (f"  {totals.cancelled:,} left by the client", "quiet")]
    said = f"{totals.flagged:,} flagged  {totals.modified:,} modified  {totals.held:,} held  {totals.denied:,} denied"
    has_acted = totals.flagged + totals.modified + totals.held + totals.denied
    yield [("policies".ljust(INDENT), "quiet"), (said, "" if has_acted else "quiet")]


def _use(totals: Totals) -> list[Piece]:
    pieces: list[Piece] = [(f"{figures.count(totals.requests):>6} requests", ""), (f"{figures.count(totals.tokens):>8} tok", "")]
    pieces.append((f"{figures.usd(totals.cost_usd):>9}", ""))
    if totals.errors:
        pieces.append((f"  ✗ {totals.errors:,}", "error"))
    return pieces


def _bars(document: PieceDocument, counts: Iterable[Count]) -> None:
    shown = list(counts)
    most = max(one.count for one in shown) or 1
    for one in shown:
        full, rest = figures.gauge(one.count / most, BAR)
        document.line(
            (fit(cell(one.name), 32), "name"), (full, "bar"), (rest, "bar-rest"), (f" {figures.count(one.count):>6}", "")
        )
