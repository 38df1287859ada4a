"""Whole answers and errors from one dialect into another. Raises nothing but UnreadableBody.

Ids, model and counts are the upstream's where it gives them. Ollama gives no ids: they are made of the transaction's, so the
same answer has the same ids however often it is translated.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import (
    Answer,
    AnswerError,
    Block,
    OpaqueBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    Usage,
)
from proxy_core.wire.dialects import Dialect, Operation
from proxy_core.wire.editing_json import UnreadableBody, json_of
from proxy_core.wire.encode_events import chat_usage_fields, clean, messages_usage_fields
from proxy_core.wire.errors import error_body
from proxy_core.wire.refusal import unix_seconds
from proxy_core.wire.tolerant_json import as_text, plain, read
from proxy_core.wire.translate.form import arguments_of
from proxy_core.wire.translate.requests import can_translate
from proxy_core.wire.translate.words import error_words, stop_word

NAMELESS = "The upstream's answer has a tool call without a name."
DIALECTS = {
    Operation.CHAT: Dialect.OPENAI,
    Operation.MESSAGES: Dialect.ANTHROPIC,
    Operation.OLLAMA_CHAT: Dialect.OLLAMA,
}


def translate_response(source: Operation, target: Operation, status: int, body: bytes, *, transaction_id: str) -> bytes:
    """The answer of an upstream that speaks `source`, for a client that speaks `target`.

    An error (status 400 and above, or an error in a body with another status) takes the client's shape. Raises UnreadableBody
    where an answer cannot be read, or cannot be said.
    """
    codec = codec_for(source)
    if codec is None or not can_translate(target, source):
        raise UnreadableBody(f"{source.value} cannot be translated to {target.value}")
    answer = codec.read_response(body)
    if status >= 400 or answer.error is not None:
        error = answer.error or AnswerError("", f"The upstream answered with status {status}.")
        return error_answer(target, status, error, transaction_id)
    if answer.problem is not None and not answer.blocks:
        raise UnreadableBody(answer.problem)
    if not all(call.name for call in answer.tool_calls):
        raise UnreadableBody(NAMELESS)
    return _WRITERS[target](answer, clean(transaction_id))


def error_answer(target: Operation, status: int, error: AnswerError, transaction_id: str) -> bytes:
    """An error in the client's shape."""
    words = error_words(status, error.type)
    return error_body(
        DIALECTS[target],
        message=error.message or "The upstream reported an error.",
        openai_type=words.openai_type,
        openai_code=words.openai_code,
        anthropic_type=words.anthropic_type,
        transaction_id=clean(transaction_id),
    )


def made_call_id(transaction_id: str, number: int) -> str:
    """The id of a call whose upstream gave none."""
    return f"call_{clean(transaction_id)}_{number}"


def created_at(transaction_id: str) -> str:
    """The transaction's time as Ollama writes times."""
    return datetime.fromtimestamp(unix_seconds(transaction_id), UTC).isoformat().replace("+00:00", "Z")


def refusal_text(block: Block) -> str | None:
    """What a refusal says; None for every other block."""
    if isinstance(block, OpaqueBlock) and block.kind == "refusal":
        value, _ = read(block.raw, plain)
        return as_text(value) or block.raw.decode("utf-8", "replace")
    return None


def _texts(answer: Answer) -> tuple[list[str], bool]:
    """The texts, and whether one of them is a refusal."""
    texts: list[str] = []
    refused = False
    for block in answer.blocks:
        refusal = refusal_text(block)
        if refusal is not None:
            texts.append(refusal)
            refused = True
        elif isinstance(block, TextBlock):
            texts.append(block.text)
    return texts, refused


def _reason(target: Operation, answer: Answer, refused: bool) -> str:
    return stop_word(target, "refusal" if refused else answer.stop_reason, calls=bool(answer.tool_calls))


def _chat(answer: Answer, transaction_id: str) -> bytes:
    texts, refused = _texts(answer)
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts else None, "refusal": None}
    thoughts = [block for block in answer.blocks if isinstance(block, ThinkingBlock)]
    if any(thought.text for thought in thoughts):
        message["reasoning_content"] = "".join(thought.text for thought in thoughts)
    signed = [thought for thought in thoughts if thought.signature]
    if signed:
        message["reasoning_details"] = [
            {"type": "reasoning.text", "text": thought.text, "signature": thought.signature} for thought in signed
        ]
    calls = [
        {
            "id": call.call_id or made_call_id(transaction_id, number),
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments or "{}"},
        }
        for number, call in enumerate(answer.tool_calls)
    ]
    if calls:
        message["tool_calls"] = calls
    elif not texts:
        message["content"] = ""
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(Operation.CHAT, answer, refused)}
    fields: dict[str, Any] = {
        "id": answer.response_id or f"chatcmpl-{transaction_id}",
        "object": "chat.completion",
        "created": unix_seconds(transaction_id),
        "model": answer.model or "",
        "choices": [choice],
    }
    if answer.usage is not None:
        fields["usage"] = chat_usage_fields(answer.usage)
    return bytes(json_of(fields))


def _messages(answer: Answer, transaction_id: str) -> bytes:
    content: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    refused = False
    for block in answer.blocks:
        refusal = refusal_text(block)
        if refusal is not None or isinstance(block, TextBlock):
            refused = refused or refusal is not None
            text = refusal if refusal is not None else block.text  # type: ignore[union-attr]
            content.append({"type": "text", "text": text})
        elif isinstance(block, ThinkingBlock):
            content.append({"type": "thinking", "thinking": block.text, "signature": block.signature or ""})
        elif isinstance(block, ToolCallBlock):
            call_id = block.call_id or made_call_id(transaction_id, len(calls))
            calls.append({"type": "tool_use", "id": call_id, "name": block.name, "input": arguments_of(block.arguments)})
    fields = {
        "id": answer.response_id or f"msg_{transaction_id}",
        "type": "message",
        "role": "assistant",
        "model": answer.model or "",
        "content": content + calls,
        "stop_reason": _reason(Operation.MESSAGES, answer, refused),
        "stop_sequence": None,
        "usage": {"input_tokens": 0, **messages_usage_fields(answer.usage or Usage())},
    }
    return bytes(json_of(fields))


def _ollama(answer: Answer, transaction_id: str) -> bytes:
    texts, refused = _texts(answer)
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts)}
    thinking = "".join(block.text for block in answer.blocks if isinstance(block, ThinkingBlock))
    if thinking:
        message["thinking"] = thinking
    if answer.tool_calls:
        message["tool_calls"] = [_ollama_call(call) for call in answer.tool_calls]
    fields: dict[str, Any] = {
        "model": answer.model or "",
        "created_at": created_at(transaction_id),
        "message": message,
        "done": True,
        "done_reason": _reason(Operation.OLLAMA_CHAT, answer, refused),
    }
    usage = answer.usage or Usage()
    counts = {"prompt_eval_count": usage.input_tokens, "eval_count": usage.output_tokens}
    fields |= {name: count for name, count in counts.items() if count is not None}
    return bytes(json_of(fields))


def _ollama_call(call: ToolCallBlock) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments_of(call.arguments)}
    return {"id": call.call_id, "function": function} if call.call_id else {"function": function}


_WRITERS = {Operation.CHAT: _chat, Operation.MESSAGES: _messages, Operation.OLLAMA_CHAT: _ollama}
