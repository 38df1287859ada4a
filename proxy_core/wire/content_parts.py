"""Message content as the OpenAI-shaped APIs write it: a string, or a list of typed parts.

Shared by Chat Completions, Responses and Ollama. Functions that take Raw JSON raise only what `tolerant_json.read` catches.
"""

from __future__ import annotations

from typing import Any

import msgspec

from proxy_core.wire.conversation import Block, ImageBlock, OpaqueBlock, TextBlock, ThinkingBlock, ToolCallBlock, ToolDefinition
from proxy_core.wire.tolerant_json import (
    as_list,
    as_object,
    as_text,
    as_text_or_none,
    first_byte,
    plain,
    raw_items,
)

_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})


class ToolShape(msgspec.Struct):
    """One tool, in any of the shapes in which tools are offered."""

    type: Any = None
    name: Any = None
    description: Any = None
    function: msgspec.Raw = msgspec.Raw()
    parameters: msgspec.Raw = msgspec.Raw()
    input_schema: msgspec.Raw = msgspec.Raw()


class CallShape(msgspec.Struct):
    """One tool call in a message."""

    id: Any = None
    type: Any = None
    function: msgspec.Raw = msgspec.Raw()
    custom: msgspec.Raw = msgspec.Raw()


class FunctionShape(msgspec.Struct):
    """The function in a tool call, or in a legacy `function_call`."""

    name: Any = None
    arguments: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()


_tool = msgspec.json.Decoder(ToolShape)
_call = msgspec.json.Decoder(CallShape)
_function = msgspec.json.Decoder(FunctionShape)


def content_blocks(content: msgspec.Raw) -> list[Block]:
    """The blocks of a message's `content`."""
    first = first_byte(content)
    if first == b'"':
        return [TextBlock(as_text(plain(content)), bytes(content))]
    if first == b"[":
        return [part_block(plain(item), item) for item in raw_items(content)]
    if first in (b"", b"n"):
        return []
    return [OpaqueBlock("content", bytes(content))]


def part_block(part: Any, raw: bytes) -> Block:
    """One part of a content list."""
    if isinstance(part, str):
        return TextBlock(part, raw)
    fields = as_object(part)
    kind = as_text(fields.get("type"))
    if kind in _TEXT_PARTS and isinstance(fields.get("text"), str):
        return TextBlock(fields["text"], raw)
    if kind in ("image_url", "input_image"):
        return _image(fields, raw)
    if kind == "input_audio":
        audio_format = as_text(as_object(fields.get("input_audio")).get("format"))
        return ImageBlock("audio", f"audio/{audio_format}" if audio_format else None, None, raw)
    if kind in ("file", "input_file"):
        return ImageBlock("file", None, as_text_or_none(fields.get("file_url")), raw)
    if kind in ("document_url", "video_url"):
        url = fields.get(kind)
        return ImageBlock(kind.removesuffix("_url"), None, as_text(url) or as_text_or_none(as_object(url).get("url")), raw)
    if kind == "thinking":
        return ThinkingBlock(thinking_text(fields.get("thinking")), as_text_or_none(fields.get("signature")), raw)
    return OpaqueBlock(kind or "content part", raw)


def thinking_text(thinking: Any) -> str:
    """Thinking as a string, or as a list of text parts."""
    if isinstance(thinking, str):
        return thinking
    return "".join(as_text(as_object(piece).get("text")) for piece in as_list(thinking))


def _image(fields: dict[str, Any], raw: bytes) -> ImageBlock:
    image = fields.get("image_url")
    url = as_text(image) or as_text(as_object(image).get("url"))
    if url[:5].lower() == "data:":
        media_type = url[5:200].partition(",")[0].partition(";")[0]
        return ImageBlock("image", media_type or None, None, raw)
    return ImageBlock("image", None, url or None, raw)


def raw_text(raw: msgspec.Raw) -> str:
    """A JSON string's text; the exact JSON text of anything else but null."""
    first = first_byte(raw)
    if first == b'"':
        return as_text(plain(raw))
    return "" if first in (b"", b"n") else bytes(raw).decode("utf-8", "replace")


def tool_call_block(raw: bytes) -> Block:
    """One item of `tool_calls`."""
    if raw[:1] != b"{":
        return OpaqueBlock("tool call", raw)
    call = _call.decode(raw)
    call_id = as_text(call.id)
    if first_byte(call.function) == b"{":
        function = _function.decode(call.function)
        return ToolCallBlock(call_id, as_text(function.name), raw_text(function.arguments), raw)
    if first_byte(call.custom) == b"{":
        function = _function.decode(call.custom)
        return ToolCallBlock(call_id, as_text(function.name), raw_text(function.input), raw)
    return OpaqueBlock(as_text(call.type) or "tool call", raw)


def function_call_block(raw: msgspec.Raw) -> Block | None:
    """A legacy `function_call`, which has no id."""
    if first_byte(raw) != b"{":
        return None
    function = _function.decode(raw)
    return ToolCallBlock("", as_text(function.name), raw_text(function.arguments), bytes(raw))


def tool_definitions(tools: msgspec.Raw) -> tuple[ToolDefinition, ...]:
    """The tools that are offered; a tool that the provider runs has its type for a name."""
    definitions: list[ToolDefinition] = []
    for raw in raw_items(tools):
        if raw[:1] != b"{":
            continue
        tool = _tool.decode(raw)
        kind = as_text(tool.type)
        if first_byte(tool.function) == b"{":
            tool = _tool.decode(tool.function)
        schema = tool.parameters if first_byte(tool.parameters) else tool.input_schema
        name = as_text(tool.name) or kind
        definitions.append(ToolDefinition(name, as_text(tool.description), raw_text(schema), raw))
    return tuple(definitions)
