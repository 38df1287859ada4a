"""A denial as a whole answer that its dialect can carry: HTTP 200, a text, and the stop reason that says refusal.

Token counts are zero where the dialect requires them, for no model was asked. The same arguments give the same bytes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from proxy_core.wire.dialects import Operation
from proxy_core.wire.editing_json import UnreadableBody

CAN_REFUSE = frozenset(
    {
        Operation.CHAT,
        Operation.COMPLETIONS,
        Operation.RESPONSES,
        Operation.MESSAGES,
        Operation.OLLAMA_CHAT,
        Operation.OLLAMA_GENERATE,
    }
)
"""The operations whose answers hold text; others can only be denied by an error."""
_CROCKFORD = {digit: number for number, digit in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")}


def refusal_body(operation: Operation, *, model: str, text: str, transaction_id: str) -> bytes:
    """The answer to `operation` that says `text`.

    `transaction_id` names the answer, and its time stands in the answer where it is a ULID. Raises UnreadableBody for an
    operation outside CAN_REFUSE.
    """
    model, text, name = _clean(model), _clean(text) or "The request was refused.", _clean(transaction_id)
    at_s = unix_seconds(name)
    if operation is Operation.CHAT:
        message = {"role": "assistant", "content": text, "refusal": None}
        choice: dict[str, Any] = {"index": 0, "message": message, "logprobs": None, "finish_reason": "content_filter"}
        answer = _completion(f"chatcmpl-{name}", "chat.completion", at_s, model, choice)
    elif operation is Operation.COMPLETIONS:
        choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": "content_filter"}
        answer = _completion(f"cmpl-{name}", "text_completion", at_s, model, choice)
    elif operation is Operation.RESPONSES:
        answer = _response(name, at_s, model, text)
    elif operation is Operation.MESSAGES:
        answer = {
            "id": f"msg_{name}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [{"type": "text", "text": text}],
            "stop_reason": "refusal",
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
    elif operation in (Operation.OLLAMA_CHAT, Operation.OLLAMA_GENERATE):
        created_at = datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")
        chat = operation is Operation.OLLAMA_CHAT
        said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if chat else {"response": text}
        counts = {"total_duration": 0, "prompt_eval_count": 0, "eval_count": 0}
        answer = {"model": model, "created_at": created_at, **said, "done": True, "done_reason": "stop", **counts}
    else:
        raise UnreadableBody(f"an answer to {operation.value} cannot carry a refusal")
    return msgspec.json.encode(answer)


def _completion(name: str, shape: str, at_s: int, model: str, choice: dict[str, Any]) -> dict[str, Any]:
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return {"id": name, "object": shape, "created": at_s, "model": model, "choices": [choice], "usage": usage}


def _response(name: str, at_s: int, model: str, text: str) -> dict[str, Any]:
    part = {"type": "refusal", "refusal": text}
    item = {"type": "message", "id": f"msg_{name}", "status": "completed", "role": "assistant", "content": [part]}
    return {
        "id": f"resp_{name}",
        "object": "response",
        "created_at": at_s,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": model,
        "output": [item],
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": {
            "input_tokens": 0,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 0,
        },
    }


def _clean(text: str) -> str:
    """Text that every JSON can carry."""
    return text.encode("utf-8", "replace").decode()


def unix_seconds(ulid: str) -> int:
    """The time in a ULID; 0 where it is none. Source: the ULID specification."""
    milliseconds = 0
    if len(ulid) != 26:
        return 0
    for digit in ulid[:10]:
        if digit not in _CROCKFORD:
            return 0
        milliseconds = milliseconds * 32 + _CROCKFORD[digit]
    return milliseconds // 1000 if milliseconds < 2**48 else 0
