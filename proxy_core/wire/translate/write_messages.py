"""Says a request in Anthropic Messages, with what that API insists on.

`max_tokens` is always set, ids have only its characters, results of one turn stand together, empty texts are left out, and
thinking is asked for in the form that the model's generation takes. Source of the limits: Anthropic's API reference.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any

from msgspec import Raw

from proxy_core.wire.translate.attachments import text_in
from proxy_core.wire.translate.form import Attachment, Call, Losses, Part, Request, Result, Text, Thought, Turn

DEFAULT_MAX_TOKENS = 4096
"""Of models that are not known to give more."""
_VERSION = re.compile(r"claude-(?:[a-z]+-)*(\d)(?:[-.](\d{1,2}))?(?!\d)")
_PLAIN_ID = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192, "max": 16384}
_LEAST_BUDGET = 1024
_EFFORTS = {"minimal": "low", "xhigh": "high"}


def write_messages(request: Request) -> dict[str, Any]:
    """The fields of a body of Messages."""
    losses = request.losses
    fields: dict[str, Any] = {"model": request.model}
    system, turns = _parted(request)
    if system:
        fields["system"] = system[0] if len(system) == 1 else [{"type": "text", "text": text} for text in system]
    fields["messages"] = _messages(turns, losses)
    fields["max_tokens"] = request.max_tokens or _most_tokens(request.model)
    if request.stream:
        fields["stream"] = True
    if request.tools:
        fields["tools"] = [_tool(tool.name, tool.description, tool.schema, tool.strict) for tool in request.tools]
        _choose(request, fields)
    _write_sampling(request, fields)
    if request.user:
        fields["metadata"] = {"user_id": request.user}
    _write_thinking(request, turns, fields)
    if request.answer_schema is not None:
        if request.answer_schema.schema is None:
            losses.add("response_format json_object")
        else:
            form = {"type": "json_schema", "schema": request.answer_schema.schema}
            fields["output_config"] = {**fields.get("output_config", {}), "format": form}
    return fields


def _version(model: str) -> tuple[int, int]:
    found = _VERSION.search(model)
    return (int(found.group(1)), int(found.group(2) or 0)) if found else (0, 0)


def _most_tokens(model: str) -> int:
    version = _version(model)
    if version >= (4, 0):
        return 32_000
    return 8192 if version >= (3, 5) else DEFAULT_MAX_TOKENS


def _write_sampling(request: Request, fields: dict[str, Any]) -> None:
    losses = request.losses
    if request.temperature is not None:
        if request.temperature > 1:
            losses.add("temperature above 1")
        fields["temperature"] = min(request.temperature, 1)
    if request.top_p is not None:
        if request.temperature is not None and _version(request.model) >= (4, 1):
            losses.add("top_p beside temperature")
        else:
            fields["top_p"] = request.top_p
    if request.top_k is not None:
        fields["top_k"] = request.top_k
    for name in ("seed", "frequency_penalty", "presence_penalty"):
        if getattr(request, name):
            losses.add(name)
    stops = [stop for stop in request.stop if stop.strip()]
    if len(stops) < len(request.stop):
        losses.add("stop sequence of white space")
    if stops:
        fields["stop_sequences"] = stops


def _write_thinking(request: Request, turns: list[Turn], fields: dict[str, Any]) -> None:
    """Ask for thinking: as much as the model likes where it knows that, else within a budget below `max_tokens`."""
    if not request.thinking:
        return
    effort = request.effort or "medium"
    if fields.get("tool_choice", {}).get("type") in ("any", "tool"):
        request.losses.add("reasoning_effort")
        return
    if _version(request.model) >= (4, 6):
        fields["thinking"] = {"type": "adaptive"}
        fields["output_config"] = {"effort": _EFFORTS.get(effort, effort)}
    else:
        budget = request.thinking_budget or _BUDGETS.get(effort, _BUDGETS["medium"])
        if request.max_tokens is None:
            fields["max_tokens"] = max(_most_tokens(request.model), budget + DEFAULT_MAX_TOKENS)
        budget = min(budget, fields["max_tokens"] - 1)
        if budget < _LEAST_BUDGET or _goes_on_unsigned(turns):
            request.losses.add("reasoning_effort")
            return
        fields["thinking"] = {"type": "enabled", "budget_tokens": budget}
    if fields.get("temperature", 1) != 1:
        request.losses.add("temperature while thinking")
    fields.pop("temperature", None)
    for name in ("top_p", "top_k"):
        if fields.pop(name, None) is not None:
            request.losses.add(f"{name} while thinking")


def _goes_on_unsigned(turns: list[Turn]) -> bool:
    """Whether the model would have to go on after calls whose thinking is gone: it would refuse to think."""
    last = next((turn for turn in reversed(turns) if turn.role == "assistant"), None)
    if last is None or not any(isinstance(part, Call) for part in last.parts):
        return False
    return not any(isinstance(part, Thought) and part.signature for part in last.parts)


def _tool(name: str, description: str, schema: Raw | None, strict: bool) -> dict[str, Any]:
    tool: dict[str, Any] = {"name": name}
    if description:
        tool["description"] = description
    tool["input_schema"] = schema if schema is not None else {"type": "object", "properties": {}}
    if strict:
        tool["strict"] = True
    return tool


def _choose(request: Request, fields: dict[str, Any]) -> None:
    choice: dict[str, Any] = {"type": request.tool_choice} if request.tool_choice else {}
    if request.tool_choice == "tool":
        choice["name"] = request.tool_name
    asks = request.parallel_calls is False or (request.parallel_calls is True and bool(choice))
    if asks and request.tool_choice != "none":
        choice = {"type": "auto", **choice, "disable_parallel_tool_use": not request.parallel_calls}
    if choice:
        fields["tool_choice"] = choice


# --- the history ---


def _parted(request: Request) -> tuple[list[str], list[Turn]]:
    """The texts of the system prompt, and the turns."""
    system: list[str] = []
    turns: list[Turn] = []
    for turn in request.turns:
        if turn.role != "system":
            turns.append(turn)
            continue
        if turns:
            request.losses.add("place of a system message")
        system += [part.text for part in turn.parts if isinstance(part, Text) and part.text]
    return system, turns


def _messages(turns: list[Turn], losses: Losses) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    results_only = False
    """Whether the last message holds results and nothing else, so that what the user adds belongs to it."""
    for turn in turns:
        parts = sorted(turn.parts, key=lambda part: not isinstance(part, Result))
        blocks = [block for part in parts if (block := _block(part, turn.role, losses)) is not None]
        if not blocks:
            continue
        if turn.role == "user" and results_only:
            messages[-1]["content"] += blocks
        elif len(blocks) == 1 and blocks[0]["type"] == "text":
            messages.append({"role": turn.role, "content": blocks[0]["text"]})
        else:
            messages.append({"role": turn.role, "content": blocks})
        results_only = turn.role == "user" and all(block["type"] == "tool_result" for block in blocks)
    return messages


def _block(part: Part, role: str, losses: Losses) -> dict[str, Any] | None:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text} if part.text.strip() else None
    if isinstance(part, Attachment):
        if role == "assistant":
            losses.add(f"{part.kind} of the assistant")
            return None
        return _attachment(part)
    if isinstance(part, Call):
        return {"type": "tool_use", "id": _plain_id(part.call_id), "name": part.name, "input": part.arguments}
    if isinstance(part, Result):
        inner = [block for item in part.parts if (block := _block(item, "user", losses)) is not None]
        content: Any = inner[0]["text"] if len(inner) == 1 and inner[0]["type"] == "text" else inner
        result: dict[str, Any] = {"type": "tool_result", "tool_use_id": _plain_id(part.call_id)}
        if inner:
            result["content"] = content
        return {**result, "is_error": True} if part.is_error else result
    if part.signature:
        return {"type": "thinking", "thinking": part.text, "signature": part.signature}
    losses.add("thinking without signature")
    return None


def _attachment(part: Attachment) -> dict[str, Any]:
    text = text_in(part) if part.kind == "document" and part.media_type.startswith("text/") else None
    if part.url:
        source = {"type": "url", "url": part.url}
    elif text is not None:
        source = {"type": "text", "media_type": "text/plain", "data": text}
    else:
        source = {"type": "base64", "media_type": part.media_type, "data": part.data}
    block: dict[str, Any] = {"type": part.kind, "source": source}
    if part.kind == "document" and part.name:
        block["title"] = part.name
    return block


def _plain_id(call_id: str) -> str:
    """An id of the characters that are allowed; the same one for the same call."""
    if _PLAIN_ID.fullmatch(call_id):
        return call_id
    return f"call_{sha256(call_id.encode('utf-8', 'replace')).hexdigest()[:24]}"
