"""Says a request in Ollama's chat. A text and pictures are all that a message holds there, in no order of their own."""

from __future__ import annotations

from typing import Any

from proxy_core.wire.translate.attachments import text_in
from proxy_core.wire.translate.form import Attachment, Call, Losses, Part, Request, Result, Text, Thought, Turn
from proxy_core.wire.translate.write_chat import effort_of, function_fields, result_text

_LEVELS = {"minimal": "low", "xhigh": "high", "max": "high"}


def write_ollama(request: Request) -> dict[str, Any]:
    """The fields of a body of Ollama's chat."""
    losses = request.losses
    messages: list[dict[str, Any]] = []
    for turn in request.turns:
        messages += _messages(turn, losses)
    fields: dict[str, Any] = {"model": request.model, "messages": messages, "stream": request.stream}
    if request.tools and request.tool_choice != "none":
        tools = [{"type": "function", "function": function_fields(tool)} for tool in request.tools]
        for tool in tools:
            if tool["function"].pop("strict", None):  # type: ignore[attr-defined]
                losses.add("strict tools")
        fields["tools"] = tools
        if request.tool_choice in ("any", "tool"):
            losses.add("tool_choice")
        if request.parallel_calls is False:
            losses.add("parallel_tool_calls")
    if request.user:
        losses.add("user")
    _write_thinking(request, fields)
    if request.answer_schema is not None:
        fields["format"] = request.answer_schema.schema if request.answer_schema.schema is not None else "json"
    options = {
        "num_predict": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "seed": request.seed,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "stop": list(request.stop) or None,
    }
    asked = {name: value for name, value in options.items() if value is not None}
    if asked:
        fields["options"] = asked
    return fields


def _write_thinking(request: Request, fields: dict[str, Any]) -> None:
    """Models of the gpt-oss family take levels; others think by default where they can, and refuse to be asked where not."""
    if request.thinking is False:
        fields["think"] = False
    elif request.thinking and "gpt-oss" in request.model:
        effort = effort_of(request)
        fields["think"] = _LEVELS.get(effort, effort) or "medium"
    elif request.effort:
        request.losses.add("reasoning_effort")
    elif request.thinking_budget is not None:
        request.losses.add("thinking budget")


def _messages(turn: Turn, losses: Losses) -> list[dict[str, Any]]:
    results = [part for part in turn.parts if isinstance(part, Result)]
    messages = [_result(result, losses) for result in results]
    others = [part for part in turn.parts if not isinstance(part, Result)]
    if results and not others:
        return messages
    texts = [text for part in others if (text := _text_of(part)) is not None]
    message: dict[str, Any] = {"role": turn.role, "content": ("" if turn.role == "assistant" else "\n\n").join(texts)}
    thoughts = [part for part in others if isinstance(part, Thought)]
    if any(thought.text for thought in thoughts):
        message["thinking"] = "".join(thought.text for thought in thoughts)
    if any(thought.signature for thought in thoughts):
        losses.add("thinking signature")
    images: list[str] = []
    for part in others:
        if isinstance(part, Attachment):
            if part.kind == "image" and part.data:
                images.append(part.data)
            elif _text_of(part) is None:
                losses.add(part.kind if part.kind != "image" else "image url")
    if images:
        message["images"] = images
    calls = [part for part in others if isinstance(part, Call)]
    if calls:
        message["tool_calls"] = [
            {"id": call.call_id, "function": {"name": call.name, "arguments": call.arguments}} for call in calls
        ]
    return [*messages, message]


def _text_of(part: Part) -> str | None:
    """What it says in words; None for everything else."""
    if isinstance(part, Attachment) and part.kind == "document" and part.media_type.startswith("text/"):
        return text_in(part)
    return part.text if isinstance(part, Text) else None


def _result(result: Result, losses: Losses) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "tool", "content": "".join(result_text(result, losses))}
    if result.name:
        message["tool_name"] = result.name
    if result.call_id:
        message["tool_call_id"] = result.call_id
    return message
