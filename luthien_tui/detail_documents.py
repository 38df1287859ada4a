"""What the parts of an open transaction say, as documents. Everything here may run in a thread."""

from __future__ import annotations

from collections.abc import Iterable

from luthien_tui import figures, glyphs
from luthien_tui.documents import (
    Document,
    LexedDocument,
    Piece,
    PieceDocument,
    add_lines,
    body_document,
    lex_headers,
    lex_plain,
    looks_binary,
)
from luthien_tui.text import cell, decode, visible
from luthien_tui.verdict_documents import verdicts_document
from proxy_core.control.plane import Headers, Timing, TransactionDetail
from proxy_core.control.rows import TransactionRow
from proxy_core.wire.codec import Codec, codec_for
from proxy_core.wire.conversation import Block, ImageBlock, OpaqueBlock, TextBlock, ThinkingBlock, ToolCallBlock, ToolResultBlock
from proxy_core.wire.dialects import Operation

INDENT = 11
"""Cells for the name of a fact or speaker."""
SUMMARY_MESSAGES = 6
"""Latest messages of the request that the summary shows."""
SUMMARY_TEXT = 20_000
"""Characters of one message that the summary shows."""


def content_type(headers: Headers) -> str:
    return next((value.lower() for name, value in headers if name.lower() == "content-type"), "")


def request_document(detail: TransactionDetail, width: int) -> Document:
    if not detail.request_body:
        return note(detail.capture_note or "The request has no body.")
    return body_document(detail.request_body, content_type(detail.request_headers), width)


def response_document(detail: TransactionDetail, width: int) -> Document:
    if not detail.response_body:
        if detail.row.state != "done":
            return note("Nothing has come yet.")
        return note(detail.capture_note or detail.row.error or "The response has no body.")
    return body_document(detail.response_body, content_type(detail.response_headers), width)


def note(text: str) -> Document:
    document = PieceDocument()
    document.line((cell(text), "quiet"))
    return document


def raw_document(detail: TransactionDetail, width: int) -> Document:
    """Headers and bodies as sent, nothing laid out."""
    document = PieceDocument()
    row = detail.row
    status = figures.UNKNOWN if row.status is None else str(row.status)
    parts = (
        ("request", f"{cell(row.method)} {cell(row.path)}", detail.request_headers, detail.request_body),
        ("response", status, detail.response_headers, detail.response_body),
    )
    for name, first_line, headers, body in parts:
        title = f" {name} "
        document.line((title, "badge"), (f" {figures.size(len(body))}", "quiet"))
        document.line((first_line, "strong"))
        for header, value in headers:
            _extend(document, LexedDocument(lex_headers), f"{cell(header)}: {cell(value)}", width)
        document.line(("", ""))
        kind = content_type(headers)
        if body and looks_binary(body):
            _append(document, body_document(body, kind, width))
        elif body:
            lines = LexedDocument(lex_plain)
            add_lines(lines, decode(body), width)
            _append(document, lines)
        document.line(("", ""))
    if detail.redacted:
        document.line(("A secret was taken out of a body; it differs from what was sent.", "warning"))
    if detail.capture_note:
        document.line((cell(detail.capture_note), "quiet"))
    return document


def _extend(document: PieceDocument, part: LexedDocument, line: str, width: int) -> None:
    part.add(line, width)
    _append(document, part)


def _append(document: PieceDocument, part: Document) -> None:
    for index in range(len(part)):
        document.rows.append(part.pieces(index))
        document.texts.append(part.texts[index])
        document.continued.append(part.continued[index])


# --- summary -----------------------------------------------------------------------------------------------------


def summary_document(detail: TransactionDetail, width: int) -> Document:
    """What happened, then the conversation as a person reads it."""
    document = PieceDocument()
    for line in _facts(detail.row, width):
        document.line(*line)
    row = detail.row
    if row.error:
        document.block(row.error, width, head=("error", "error"), indent=INDENT, tone="error")
    if detail.redacted:
        document.line(("redacted".ljust(INDENT), "warning"), ("a secret was taken out of a body", ""))
    document.line(("", ""))
    _conversation(document, detail, width)
    return document


def _facts(row: TransactionRow, width: int) -> Iterable[list[Piece]]:
    face = glyphs.face(row)
    status = figures.UNKNOWN if row.status is None else str(row.status)
    streamed = "  stream" if row.stream else ""
    pairs: list[list[Piece]] = [
        [("state", "quiet"), (f"{face.sign} {face.word}", face.tone), (f"  {status}", glyphs.status_tone(row.status)),
         (streamed, "quiet")],
        [("started", "quiet"), (figures.moment(row.started_at), "")],
        [("model", "quiet"), (cell(row.model) or figures.UNKNOWN, "strong")],
        [("via", "quiet"), (cell(row.upstream) or figures.UNKNOWN, ""), (f"  {cell(row.reason)}" if row.reason else "", "quiet")],
        [("session", "quiet"), (cell(row.session_id) or figures.UNKNOWN, "")],
        [("agent", "quiet"), (cell(row.agent) or figures.UNKNOWN, "")],
        [("tokens", "quiet"), *_tokens(row)],
        [("cost", "quiet"), (figures.usd(row.cost_usd), "" if row.cost_usd is not None else "quiet")],
        [("time", "quiet"), (f"{figures.duration(row.total_ms)}", ""),
         (f"  first token {figures.duration(row.ttft_ms)}", "quiet")],
        [("stopped", "quiet"), (cell(row.stop_reason) or figures.UNKNOWN, ""),
         (_tool_calls(row.tool_calls), "quiet")],
    ]  # fmt: skip
    columns = 2 if width >= 76 else 1
    half = width // columns
    for start in range(0, len(pairs), columns):
        line: list[Piece] = []
        for place, ((name, tone), *values) in enumerate(pairs[start : start + columns]):
            line.append((name.ljust(INDENT), tone))
            line += values
            if place < columns - 1:
                line.append((" " * max(1, half - INDENT - sum(len(text) for text, _ in values)), ""))
        yield line


def _tool_calls(count: int) -> str:
    return f"  {count} tool call{'s' if count > 1 else ''}" if count else ""


def _tokens(row: TransactionRow) -> list[Piece]:
    pieces: list[Piece] = [(f"{figures.count(row.input_tokens)} in", ""), (f"  {figures.count(row.output_tokens)} out", "")]
    if row.cached_tokens:
        pieces.append((f"  {figures.count(row.cached_tokens)} cached", "quiet"))
    if row.reasoning_tokens:
        pieces.append((f"  {figures.count(row.reasoning_tokens)} reasoning", "quiet"))
    return pieces


def _conversation(document: PieceDocument, detail: TransactionDetail, width: int) -> None:
    codec = _codec(detail.row)
    if codec is None:
        document.line(("This call carries no conversation; its bodies are in the other tabs.", "quiet"))
        return
    if detail.request_body:
        add_request(document, codec, detail.request_body, width)
    if detail.response_body:
        add_response(document, codec, detail.response_body, width, is_stream=detail.row.stream)


def _codec(row: TransactionRow) -> Codec | None:
    try:
        return codec_for(Operation(row.operation))
    except ValueError:
        return None


def add_held(document: PieceDocument, row: TransactionRow, stage: str, body: bytes, width: int) -> bool:
    """A request or response that is held, as a person reads it; False where nobody can."""
    codec = _codec(row)
    if codec is None:
        return False
    if stage == "request":
        add_request(document, codec, body, width)
    else:
        add_response(document, codec, body, width, is_stream=row.stream)
    return True


def add_request(document: PieceDocument, codec: Codec, body: bytes, width: int) -> None:
    """The latest messages of a request."""
    conversation = codec.read_request(body)
    if conversation.problem:
        document.line((f"The request could not be read: {cell(conversation.problem)}", "warning"))
    left_out = len(conversation.messages) - SUMMARY_MESSAGES
    if left_out > 0:
        document.line((f"… {left_out} earlier messages".ljust(INDENT), "quiet"))
    for message in conversation.messages[max(0, left_out) :]:
        _blocks(document, message.role, message.blocks, width)


def add_response(document: PieceDocument, codec: Codec, body: bytes, width: int, *, is_stream: bool) -> None:
    """What a response says and calls."""
    if is_stream:
        decoder = codec.stream_decoder()
        for start in range(0, len(body), 65_536):
            decoder.feed(body[start : start + 65_536])
        answer = decoder.finish()
    else:
        answer = codec.read_response(body)
    _blocks(document, "answer", answer.blocks, width)
    if answer.error is not None:
        document.block(
            f"{answer.error.type}: {answer.error.message}", width, head=("error", "error"), indent=INDENT, tone="error"
        )
    elif answer.problem:
        document.block(answer.problem, width, head=("problem", "warning"), indent=INDENT)


def _blocks(document: PieceDocument, role: str, blocks: tuple[Block, ...], width: int) -> None:
    tone = {"user": "accent", "answer": "ok", "assistant": "ok"}.get(role, "quiet")
    head: Piece = (cell(role)[: INDENT - 1], tone)
    for block in blocks:
        text, body_tone = _block_text(block)
        if isinstance(block, ToolCallBlock):
            head = ("▸ tool", "notice")
        elif isinstance(block, ToolResultBlock):
            head = ("◂ result", "error" if block.is_error else "notice")
        elif isinstance(block, ThinkingBlock):
            head = ("thinking", "quiet")
        if len(text) > SUMMARY_TEXT:
            text = f"{text[:SUMMARY_TEXT]}… {len(text) - SUMMARY_TEXT:,} more characters"
        document.block(text, width, head=head, indent=INDENT, tone=body_tone)
        head = ("", "")


def _block_text(block: Block) -> tuple[str, str]:
    match block:
        case TextBlock():
            return block.text, ""
        case ThinkingBlock():
            return block.text, "quiet"
        case ToolCallBlock():
            return f"{block.name}  {block.arguments}", ""
        case ToolResultBlock():
            return block.content, "quiet"
        case ImageBlock():
            return f"[{block.kind} {block.media_type or block.url or ''}]", "quiet"
        case OpaqueBlock():
            return f"[{block.kind}]", "quiet"


# --- timing ------------------------------------------------------------------------------------------------------

_PHASES = (
    ("received", "request read"),
    ("recorded", "intent recorded"),
    ("connected", "upstream connected"),
    ("responded", "waited for headers"),
    ("first_token", "waited for first token"),
    ("last_byte", "response read"),
    ("finished", "outcome recorded"),
)


def timing_document(timing: Timing, row: TransactionRow, width: int) -> Document:
    """Each phase as a bar over the whole time."""
    document = PieceDocument()
    points = [(title, getattr(timing, name)) for name, title in _PHASES]
    known = [point for _, point in points if point is not None]
    whole = max(known, default=0.0)
    room = max(10, width - 24 - 10 - 10 - 2)
    document.line(("phase".ljust(24), "quiet"), ("took".rjust(8), "quiet"), ("at".rjust(9), "quiet"))
    previous = 0.0
    for title, point in points:
        if point is None:
            document.line((title.ljust(24), "quiet"), (figures.UNKNOWN.rjust(8), "quiet"), (figures.UNKNOWN.rjust(9), "quiet"))
            continue
        took = max(0.0, point - previous)
        start = round(previous / whole * room) if whole else 0
        length = max(1, round(point / whole * room) - start) if whole else 1
        start = min(start, room - 1)
        document.line(
            (title.ljust(24), ""),
            (figures.duration(took).rjust(8), "strong"),
            (figures.duration(point).rjust(9), "quiet"),
            ("  ", ""),
            ("·" * start, "bar-rest"),
            ("█" * min(length, room - start), "bar"),
            ("·" * max(0, room - start - length), "bar-rest"),
        )
        previous = point
    document.line(("", ""))
    document.line(
        ("time in luthien".ljust(24), "quiet"),
        (figures.duration(row.overhead_ms).rjust(8), "strong"),
        ("  before the request was sent", "quiet"),
    )
    if row.output_tokens and row.total_ms is not None and row.ttft_ms is not None and row.total_ms > row.ttft_ms:
        speed = row.output_tokens / (row.total_ms - row.ttft_ms) * 1_000
        document.line(
            ("speed".ljust(24), "quiet"), (figures.rate(speed).rjust(8), "strong"), ("  tokens/s after the first", "quiet")
        )
    document.line(
        ("transferred".ljust(24), "quiet"),
        (figures.size(row.request_bytes).rjust(8), "strong"), (" up, ", "quiet"),
        (figures.size(row.response_bytes), "strong"), (f" down in {row.chunks:,} pieces", "quiet"),
    )  # fmt: skip
    return document


def build(tab: str, detail: TransactionDetail, width: int) -> Document:
    """The document of one tab."""
    match tab:
        case "Request":
            return request_document(detail, width)
        case "Response":
            return response_document(detail, width)
        case "Raw":
            return raw_document(detail, width)
        case "Policies":
            return verdicts_document(detail, width)
        case "Timing":
            return timing_document(detail.timing, detail.row, width)
    return summary_document(detail, width)


def curl(detail: TransactionDetail, address: str) -> str:
    """A command that sends the request again through this gateway; credentials are left for the shell to fill in."""
    import shlex

    left_out = {"host", "content-length", "connection", "accept-encoding", "transfer-encoding"}
    secret = {"authorization": "$OPENAI_API_KEY", "x-api-key": "$ANTHROPIC_API_KEY", "cookie": ""}
    parts = ["curl", "-X", shlex.quote(detail.row.method), shlex.quote(f"http://{address}{detail.row.path}")]
    for name, value in detail.request_headers:
        lowered = name.lower()
        if lowered in left_out or lowered.startswith("x-luthien-"):
            continue
        if lowered in secret:
            if secret[lowered]:
                scheme = "Bearer " if lowered == "authorization" else ""
                parts += ["-H", f'"{lowered}: {scheme}{secret[lowered]}"']
            continue
        parts += ["-H", shlex.quote(f"{name}: {value}")]
    if detail.request_body:
        parts += ["--data-binary", shlex.quote(decode(detail.request_body))]
    return " ".join(parts)


def title_pieces(row: TransactionRow) -> list[Piece]:
    """The line over an open transaction."""
    face = glyphs.face(row)
    pieces: list[Piece] = [(f" {face.sign} {face.word} ", face.tone)]
    for text, tone in (
        (row.session_id, "strong"),
        (row.transaction_id, "quiet"),
        (f"{row.method} {row.path}", ""),
        (f"{row.model} via {row.upstream}" if row.upstream else row.model, ""),
    ):
        if text:
            pieces += [(" · ", "quiet"), (cell(visible(text)), tone)]
    return pieces
