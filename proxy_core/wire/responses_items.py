"""The items of the Responses API: what stands in `input` of a request and in `output` of a response.

Calls that the client must carry out (functions, custom tools, shells, patches, computers) are tool calls; tools that
the provider runs itself are opaque under their own type. Raises only what `tolerant_json.read` catches.
"""

from __future__ import annotations

from typing import Any

import msgspec

from proxy_core.wire.content_parts import content_blocks, raw_text
from proxy_core.wire.conversation import (
    Answer,
    Block,
    Message,
    OpaqueBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from proxy_core.wire.reported import error_of, reported_error
from proxy_core.wire.tolerant_json import as_list, as_object, as_text, as_text_or_none, first_byte, plain, raw_items
from proxy_core.wire.usage import at_tier, responses_usage


class ItemShape(msgspec.Struct):
    """One item, of any type."""

    type: Any = None
    role: Any = None
    id: Any = None
    call_id: Any = None
    name: Any = None
    execution: Any = None
    status: Any = None
    encrypted_content: Any = None
    summary: Any = None
    content: msgspec.Raw = msgspec.Raw()
    arguments: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    action: msgspec.Raw = msgspec.Raw()
    operation: msgspec.Raw = msgspec.Raw()
    output: msgspec.Raw = msgspec.Raw()


class ResponseShape(msgspec.Struct):
    """A whole response, in a body or in the event that ends a stream."""

    id: Any = None
    model: Any = None
    status: Any = None
    usage: Any = None
    error: Any = None
    object: Any = None
    output: msgspec.Raw = msgspec.Raw()
    service_tier: Any = None


_item = msgspec.json.Decoder(ItemShape)
_response = msgspec.json.Decoder(ResponseShape)
_CLIENT_ACTIONS = {
    "local_shell_call": "local_shell",
    "shell_call": "shell",
    "computer_call": "computer",
    "apply_patch_call": "apply_patch",
}


def call_of(item: ItemShape, raw: bytes) -> ToolCallBlock | None:
    """The tool call that an item is, or None where it is none that the client carries out."""
    kind = as_text(item.type)
    call_id = as_text(item.call_id)
    if kind == "function_call":
        return ToolCallBlock(call_id or as_text(item.id), as_text(item.name), raw_text(item.arguments), raw)
    if kind == "custom_tool_call":
        return ToolCallBlock(call_id or as_text(item.id), as_text(item.name), raw_text(item.input), raw)
    if kind in _CLIENT_ACTIONS:
        action = item.action if first_byte(item.action) else item.operation
        return ToolCallBlock(call_id or as_text(item.id), _CLIENT_ACTIONS[kind], raw_text(action), raw)
    if kind == "tool_search_call" and item.execution == "client":
        return ToolCallBlock(call_id or as_text(item.id), "tool_search", raw_text(item.arguments), raw)
    return None


def read_item(raw: bytes) -> ItemShape:
    """An item's fields; empty where it is no object."""
    return _item.decode(raw) if raw[:1] == b"{" else ItemShape()


def item_blocks(raw: bytes) -> list[Block]:
    """The blocks of one item."""
    item = read_item(raw)
    kind = as_text(item.type)
    call = call_of(item, raw)
    if call is not None:
        return [call]
    if kind == "message" or (not kind and item.role is not None):
        return content_blocks(item.content)
    if kind == "reasoning":
        text = _texts(item.summary)
        if not text and first_byte(item.content) == b"[":
            text = _texts(plain(item.content))
        return [ThinkingBlock(text, as_text_or_none(item.encrypted_content), raw)]
    if kind.endswith(("_call_output", "_approval_response")):
        return [ToolResultBlock(as_text(item.call_id), _output_text(item.output), item.status == "failed", raw)]
    return [OpaqueBlock(kind or "item", raw)]


def item_message(raw: bytes) -> Message:
    """One item of the history as a message."""
    item = read_item(raw)
    blocks = tuple(item_blocks(raw))
    role = as_text(item.role)
    if not role:
        kind = as_text(item.type)
        first = blocks[0] if blocks else None
        if isinstance(first, ToolResultBlock):
            role = "tool"
        elif isinstance(first, ToolCallBlock | ThinkingBlock) or kind.endswith("_call"):
            role = "assistant"
        else:
            role = kind
    return Message(role, blocks, raw)


def response_answer(body: bytes | msgspec.Raw) -> Answer:
    """The answer in a whole response."""
    response = _response.decode(body)
    usage = at_tier(responses_usage(response.usage), response.service_tier)
    model, response_id = as_text_or_none(response.model), as_text_or_none(response.id)
    status = as_text_or_none(response.status)
    error = error_of(response.error, {}) if response.error else None
    if first_byte(response.output) != b"[":
        if error is None and response.object != "response":
            error = reported_error(plain(body))
        problem = None if error or status else "the body has no output"
        return Answer((), usage, status, error, model, response_id, True, problem)
    blocks: list[Block] = []
    for raw in raw_items(response.output):
        blocks += item_blocks(raw)
    return Answer(tuple(blocks), usage, status, error, model, response_id, True, None)


def _texts(parts: Any) -> str:
    """The texts of a list of parts, one paragraph each."""
    return "\n\n".join(text for text in (as_text(as_object(part).get("text")) for part in as_list(parts)) if text)


def _output_text(output: msgspec.Raw) -> str:
    """A tool's output as text: the text parts joined, or the JSON of anything else."""
    if first_byte(output) != b"[":
        return raw_text(output)
    blocks = content_blocks(output)
    if all(isinstance(block, TextBlock) for block in blocks):
        return "".join(block.text for block in blocks if isinstance(block, TextBlock))
    return raw_text(output)
