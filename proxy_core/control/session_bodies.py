"""What the bodies of recorded requests say, as blocks of bounded text. Pure, and never failing on bad bodies."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from proxy_core.control.session_infos import StoryBlock
from proxy_core.journal.session_reads import RecordedTurn
from proxy_core.wire.codec import Codec, codec_for
from proxy_core.wire.conversation import (
    Answer,
    Block,
    ImageBlock,
    Message,
    OpaqueBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from proxy_core.wire.dialects import Operation
from proxy_core.wire.glance import Glance, glance

TEXT_CHARS = 20_000
MAX_TOOLS = 200

HISTORY = {
    Operation.CHAT: "messages",
    Operation.MESSAGES: "messages",
    Operation.OLLAMA_CHAT: "messages",
    Operation.RESPONSES: "input",
}
"""Where the history stands in a body; of other operations the whole body is new every time."""
SYSTEM_FIELDS = {Operation.MESSAGES: "system", Operation.RESPONSES: "instructions"}
INSTRUCTING = ("system", "developer")


def system_text(codec: Codec, operation: Operation, seen: Glance, messages: Sequence[Message] = ()) -> str:
    """The system prompt, at most 20,000 characters: of its own field, else what system messages begin the history."""
    own = SYSTEM_FIELDS.get(operation)
    if own is not None and seen.system and not _is_message(seen.system):
        messages = codec.read_request(b'{"%b":%b}' % (own.encode(), seen.system)).messages
    elif seen.system:
        where = HISTORY.get(operation, "messages")
        messages = codec.read_request(b'{"%b":[%b]}' % (where.encode(), seen.system)).messages
    texts: list[str] = []
    for message in messages:
        if message.role not in INSTRUCTING:
            break
        texts += [block.text for block in message.blocks if isinstance(block, TextBlock)]
    return "\n\n".join(texts)[:TEXT_CHARS]


class Room:
    """Cuts text so that a turn stays within its share."""

    def __init__(self, chars: int, text_chars: int) -> None:
        self._left = chars
        self._text_chars = text_chars

    def block(self, block: Block) -> StoryBlock:
        match block:
            case TextBlock():
                return self._of("text", block.text)
            case ThinkingBlock():
                return self._of("thinking", block.text)
            case ToolCallBlock():
                cut = self._of("tool_call", block.arguments)
                return msgspec.structs.replace(cut, name=block.name[:200], call_id=block.call_id[:200])
            case ToolResultBlock():
                cut = self._of("tool_result", block.content)
                return msgspec.structs.replace(cut, call_id=block.call_id[:200], is_error=block.is_error)
            case ImageBlock():
                where = block.url if block.url and not block.url.startswith("data:") else block.media_type or ""
                return StoryBlock(kind="image", text=where[:500], name=block.kind[:40])
            case OpaqueBlock():
                return StoryBlock(kind="opaque", name=block.kind[:200])

    def _of(self, kind: str, text: str) -> StoryBlock:
        shown = text[: max(0, min(self._text_chars, self._left))]
        self._left -= len(shown)
        return StoryBlock(kind=kind, text=shown, omitted=len(text) - len(shown))  # type: ignore[arg-type]


def system_of(operation: str, body: bytes) -> str:
    """The system prompt of a request, at most 20,000 characters."""
    codec = codec_of(operation)
    return "" if codec is None else system_text(codec, Operation(operation), glance(body))


def offered_tools(operation: str, body: bytes) -> tuple[str, ...]:
    """Names of the tools that a request offers, at most 200."""
    codec = codec_of(operation)
    return () if codec is None else tuple(tool.name[:200] for tool in codec.read_request(body).tools[:MAX_TOOLS])


def codec_of(operation: str) -> Codec | None:
    try:
        return codec_for(Operation(operation))
    except ValueError:
        return None


def answer_of(codec: Codec, recorded: RecordedTurn) -> Answer | None:
    body = recorded.response_body
    if not body:
        return None
    if not recorded.response_type.startswith(("text/event-stream", "application/x-ndjson")):
        return codec.read_response(body)
    decoder = codec.stream_decoder()
    for start in range(0, len(body), 65_536):
        decoder.feed(body[start : start + 65_536])
    return decoder.finish()


def _is_message(raw: bytes) -> bool:
    return raw[:1] == b"{"
