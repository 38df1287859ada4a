"""The canonical form: provider-neutral blocks, messages, stream events and answers.

Every piece carries the raw bytes it was read from, so what nobody touches is sent on unchanged.
Reading never raises: what a codec cannot read becomes an opaque piece that names the problem.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct


class TextBlock(Struct, frozen=True):
    """Text that a person or a model wrote."""

    text: str
    raw: bytes = b""


class ImageBlock(Struct, frozen=True):
    """A picture, document or sound by reference or inline; the bytes stay in `raw`."""

    kind: str
    """`image`, `document`, `audio`, `video` or `file`."""
    media_type: str | None = None
    url: str | None = None
    """The reference where one was given; inline data is not copied here."""
    raw: bytes = b""


class ToolCallBlock(Struct, frozen=True):
    """One call of a tool that the model asks for."""

    call_id: str
    """The id as on the wire; empty where the dialect has none (Ollama)."""
    name: str
    arguments: str
    """JSON text exactly as the model gave it; it may be invalid JSON."""
    raw: bytes = b""


class ToolResultBlock(Struct, frozen=True):
    """What a tool answered, sent back by the client."""

    call_id: str
    content: str
    is_error: bool = False
    raw: bytes = b""


class ThinkingBlock(Struct, frozen=True):
    """Reasoning shown by the model; `signature` must stay byte-exact."""

    text: str
    signature: str | None = None
    raw: bytes = b""


class OpaqueBlock(Struct, frozen=True):
    """Something that is carried but not understood; `kind` says what it called itself or what is wrong with it."""

    kind: str
    raw: bytes = b""


Block: TypeAlias = TextBlock | ImageBlock | ToolCallBlock | ToolResultBlock | ThinkingBlock | OpaqueBlock


class Message(Struct, frozen=True):
    """One entry of the history: who said it, and what."""

    role: str
    """`system`, `developer`, `user`, `assistant`, `tool`, or the wire's own word."""
    blocks: tuple[Block, ...] = ()
    raw: bytes = b""


class ToolDefinition(Struct, frozen=True):
    """A tool offered to the model; `parameters` is its JSON schema as JSON text."""

    name: str
    description: str = ""
    parameters: str = ""
    raw: bytes = b""


class Conversation(Struct, frozen=True):
    """A request as a person reads it."""

    model: str | None = None
    messages: tuple[Message, ...] = ()
    """In wire order; a system prompt that stands outside the history (Anthropic, `instructions`) comes first."""
    tools: tuple[ToolDefinition, ...] = ()
    stream: bool = False
    problem: str | None = None
    """Why the body could not be read as this dialect; None where it was."""


class Usage(Struct, frozen=True):
    """Token counts as reported; None means not reported, never zero by default.

    `input_tokens` always includes cached tokens and cache writes, whatever the dialect's own habit
    (Anthropic's wire number excludes them). `output_tokens` includes reasoning tokens.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    """Those of the cache writes that are kept for an hour, which cost more."""
    input_audio_tokens: int | None = None
    """Those of the input that are audio."""
    output_audio_tokens: int | None = None
    web_searches: int | None = None
    """Searches of the provider's own tool, which cost apart from tokens."""
    tier: str = ""
    """`priority`, `flex` or `batch` where it was served so, at another price; empty where it was served as usual."""
    elsewhere: tuple[tuple[str, Usage], ...] = ()
    """What other models used for this answer, by their names; counted in none of the above."""


class AnswerError(Struct, frozen=True):
    """An error that the upstream reported, in a body or inside a stream."""

    type: str
    message: str


class Answer(Struct, frozen=True):
    """A whole response, read from one body or gathered from a stream."""

    blocks: tuple[Block, ...] = ()
    """In order; of a response with several choices, the blocks of all choices in order."""
    usage: Usage | None = None
    stop_reason: str | None = None
    """The dialect's own word: `stop`, `tool_calls`, `end_turn`, `tool_use`, `completed`, …"""
    error: AnswerError | None = None
    model: str | None = None
    response_id: str | None = None
    complete: bool = True
    """False for a stream without its dialect's terminator, and for a body that was cut off."""
    problem: str | None = None
    """What could not be read, if anything; the rest of the answer still holds."""

    @property
    def tool_calls(self) -> tuple[ToolCallBlock, ...]:
        return tuple(block for block in self.blocks if isinstance(block, ToolCallBlock))

    @property
    def text(self) -> str:
        return "".join(block.text for block in self.blocks if isinstance(block, TextBlock))


INSERTED = -1
"""The index of text that a policy adds: it becomes a text block of its own."""


class TextDelta(Struct, frozen=True):
    """A piece of visible text; `index` is the block (or choice) it belongs to."""

    index: int
    text: str
    raw: bytes = b""


class ThinkingDelta(Struct, frozen=True):
    index: int
    text: str
    raw: bytes = b""


class ToolCallStart(Struct, frozen=True):
    index: int
    call_id: str
    name: str
    raw: bytes = b""
    choice: int = 0
    """Which of several choices calls (Chat Completions)."""


class ToolCallDelta(Struct, frozen=True):
    index: int
    arguments: str
    """The next piece of the arguments' JSON text."""
    raw: bytes = b""


class ToolCallEnd(Struct, frozen=True):
    index: int
    raw: bytes = b""


class UsageEvent(Struct, frozen=True):
    usage: Usage
    raw: bytes = b""


class StopEvent(Struct, frozen=True):
    reason: str
    raw: bytes = b""
    choice: int = 0
    """Which of several choices ends (Chat Completions)."""


class ErrorEvent(Struct, frozen=True):
    error: AnswerError
    raw: bytes = b""


class EndEvent(Struct, frozen=True):
    """The dialect's own terminator: `[DONE]`, `message_stop`, `response.completed`, `"done":true`."""

    raw: bytes = b""


class OpaqueEvent(Struct, frozen=True):
    """An event that is passed on as it is; `kind` is its type, or what is wrong with it."""

    kind: str
    raw: bytes = b""


StreamEvent: TypeAlias = (
    TextDelta
    | ThinkingDelta
    | ToolCallStart
    | ToolCallDelta
    | ToolCallEnd
    | UsageEvent
    | StopEvent
    | ErrorEvent
    | EndEvent
    | OpaqueEvent
)
EVENT_TYPES: frozenset[type] = frozenset(StreamEvent.__args__)
"""The types of all stream events."""
