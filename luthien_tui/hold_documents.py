"""What the hold screen says of one hold, in reading order: what will happen, why, who asks.

What a decision is bound to stands there exactly, behind a bar of its own that no content can draw, so nothing in it can
pass for luthien's words; `content_end` is the row after it. What a request or response says, and laid-out JSON, are additions
for reading. May run in a thread.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from luthien_tui import figures, glyphs
from luthien_tui.detail_documents import add_held
from luthien_tui.documents import SHOWN_LIMIT, Piece, PieceDocument, lay_out_json, lex_json, wrap
from luthien_tui.text import cell, exact, visible
from proxy_core.control.plane import HoldInfo
from proxy_core.control.rows import TransactionRow
from proxy_core.verdicts import Verdict

INDENT = 11
BAR = "┃ "
CONTINUED = "╏ "
LAID_OUT_LIMIT = 200_000
"""Characters of content above which it is not laid out a second time."""
STAGES = {"tool_call": "tool call", "request": "request", "response": "response"}


class Story(NamedTuple):
    """The text, and where in it the content ends."""

    document: PieceDocument
    content_end: int
    is_whole: bool
    """Whether all of the content is in the text."""


def stage_name(hold: HoldInfo) -> str:
    return STAGES.get(hold.stage, cell(hold.stage))


def one_line(hold: HoldInfo, row: TransactionRow | None) -> str:
    """What would happen, for a list: the call with its arguments, or how the request begins."""
    if hold.stage == "tool_call":
        return f"{cell(hold.tool) or '?'} {cell(hold.content[:300])}"
    if hold.stage == "request" and row is not None and row.preview:
        return cell(row.preview)
    return cell(hold.content[:300])


def story(hold: HoldInfo, row: TransactionRow | None, verdicts: Sequence[Verdict], width: int) -> Story:
    """Everything an operator needs for the decision; `verdicts`: what was said of the transaction so far."""
    document = PieceDocument()
    _heading(document, "what will happen" if hold.status == "pending" else "what it was")
    _fact(document, stage_name(hold), _target(hold, row), width, "strong")
    if hold.stage != "tool_call" and row is not None:
        document.line(("", ""))
        body = hold.content[:SHOWN_LIMIT].encode("utf-8", "backslashreplace")
        if add_held(document, row, hold.stage, body, width):
            document.line(("", ""))
        document.line(("exactly", "accent"))
    content_end, is_whole = _content(document, hold, width)
    _size(document, hold, is_whole)
    if len(hold.content) <= LAID_OUT_LIMIT:
        _laid_out(document, hold, width)
    document.line(("", ""))
    _heading(document, "why")
    _fact(document, "policy", cell(hold.policy), width)
    document.block(hold.reason or figures.UNKNOWN, width, head=("reason", "quiet"), indent=INDENT)
    for verdict in verdicts:
        if verdict.action not in ("allow", "route") or verdict.score is not None:
            _verdict(document, verdict, width)
    document.line(("", ""))
    _heading(document, "who")
    for name, value in (
        ("model", hold.model),
        ("agent", hold.agent),
        ("session", hold.session_id),
        ("key", hold.key),
        ("request", row.preview if row is not None and hold.stage != "request" else ""),
        ("id", hold.transaction_id),
    ):
        if value:
            document.block(cell(value), width, head=(name, "quiet"), indent=INDENT)
    ends = {"deny": "denied", "approve": "approved"}.get(hold.on_timeout, cell(hold.on_timeout))
    _fact(document, "deadline", f"{figures.clock(hold.deadline)}; then it is {ends} by itself", width)
    if hold.waiting != 1:
        many = f"{hold.waiting} requests wait for this one decision" if hold.waiting else "the client has left; a retry may come"
        _fact(document, "waiting", many, width, "notice")
    if hold.status != "pending":
        document.line(("", ""))
        _heading(document, "decided")
        face = glyphs.HOLDS[hold.status]
        by = f" by {cell(hold.decided_by)}" if hold.decided_by else ""
        document.line((f"{face.sign} {face.word}{by}", face.tone))
        if hold.message:
            document.block(hold.message, width, head=("message", "quiet"), indent=INDENT)
    return Story(document, content_end, is_whole)


def _target(hold: HoldInfo, row: TransactionRow | None) -> str:
    if hold.stage == "tool_call":
        return f"{cell(hold.tool) or '?'}  {cell(hold.call_id)}"
    return f"{cell(row.method)} {cell(row.path)}" if row is not None else ""


def _heading(document: PieceDocument, text: str) -> None:
    document.line((text, "accent"))


def _fact(document: PieceDocument, name: str, value: str, width: int, tone: str = "") -> None:
    for place, part in enumerate(wrap(value, max(8, width - INDENT))):
        document.line((name.ljust(INDENT) if place == 0 else " " * INDENT, "quiet"), (part, tone))
        document.continued[-1] = place > 0


def _content(document: PieceDocument, hold: HoldInfo, width: int) -> tuple[int, bool]:
    """The content as it is; returns the row after it, and whether it is all there."""
    content = hold.content[:SHOWN_LIMIT]
    room = max(8, width - len(BAR))
    for line in content.split("\n"):
        for place, part in enumerate(wrap(exact(line), room)):
            document.line((BAR if place == 0 else CONTINUED, "bar"), (part, ""))
            document.continued[-1] = place > 0
    return len(document), len(content) == len(hold.content)


def _size(document: PieceDocument, hold: HoldInfo, is_whole: bool) -> None:
    lines = hold.content.count("\n") + 1
    size = f"{len(hold.content):,} characters, {lines:,} line{'s' if lines > 1 else ''}"
    document.line((f"{size} · bound to {cell(hold.shown[:12])}", "quiet"))
    if not is_whole:
        document.line(("too long to be shown whole: it can be denied here, not approved", "warning"))


def _laid_out(document: PieceDocument, hold: HoldInfo, width: int) -> None:
    """JSON in lines, where that says more than the content itself."""
    content = hold.content
    if content.lstrip()[:1] not in ("{", "[") or ("\\" not in content and len(content) <= width):
        return
    document.line(("", ""))
    document.line(("the same, laid out for reading", "quiet"))
    for line in _readable(content):
        for place, part in enumerate(wrap(line, max(8, width - 2))):
            document.line(("  ", ""), *_toned(part))
            document.continued[-1] = place > 0


def _toned(part: str) -> list[Piece]:
    return lex_json(part, 0) if part.lstrip()[:1] in ('"', "{", "}", "[", "]") else [(part, "string")]


def _readable(content: str) -> list[str]:
    """Arguments whose values are texts with their line ends; anything else token by token."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and any(isinstance(one, str) and "\n" in one for one in value.values()):
        lines: list[str] = []
        for name, one in value.items():
            text = one if isinstance(one, str) else json.dumps(one, ensure_ascii=False)
            lines.append(f"{cell(str(name))}:")
            lines += [f"  {exact(line)}" for line in text.split("\n")]
        return lines
    return [visible(line).replace("\n", "␊") for line in lay_out_json(content)]


def _verdict(document: PieceDocument, verdict: Verdict, width: int) -> None:
    face = glyphs.VERDICTS.get(verdict.action, glyphs.Face("?", cell(verdict.action), "notice"))
    score = "" if verdict.score is None else f" {verdict.score:.2f}"
    shadow = " (shadow)" if verdict.mode == "shadow" else ""
    said = f": {verdict.message}" if verdict.message else ""
    document.block(
        f"{face.sign} {face.word}{shadow} {verdict.reason.value}{score}{said}",
        width,
        head=(f"{cell(verdict.policy)} ", "quiet"),
        indent=max(INDENT, min(24, len(verdict.policy) + 1)),
    )
