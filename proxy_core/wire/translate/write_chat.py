"""Says a request in Chat Completions. Order of text and calls within an answer is not kept: text stands first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxy_core.wire.editing_json import json_text
from proxy_core.wire.translate.attachments import data_url
from proxy_core.wire.translate.form import Attachment, Call, Losses, Part, Request, Result, Text, Thought, Tool, Turn

_MAX_STOPS = 4
_ERROR_WORD = "Error: "
_LEAST_BUDGETS = ((4096, "high"), (2048, "medium"), (0, "low"))
"""Tokens of a thinking budget from which on an effort is meant."""


def write_chat(request: Request) -> dict[str, Any]:
    """The fields of a body of Chat Completions."""
    losses = request.losses
    fields: dict[str, Any] = {"model": request.model}
    messages: list[dict[str, Any]] = []
    for turn in request.turns:
        messages += _messages(turn, losses)
    fields["messages"] = messages
    if request.stream:
        fields["stream"] = True
        if request.stream_usage:
            fields["stream_options"] = {"include_usage": True}
    if request.tools:
        fields["tools"] = [{"type": "function", "function": function_fields(tool)} for tool in request.tools]
        _choose(request, fields)
    sampling = {
        "max_completion_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
    }
    fields |= {name: value for name, value in sampling.items() if value is not None}
    if request.top_k is not None:
        losses.add("top_k")
    if request.stop:
        fields["stop"] = list(request.stop[:_MAX_STOPS])
        if len(request.stop) > _MAX_STOPS:
            losses.add("stop sequences beyond 4")
    if request.user:
        fields["user"] = request.user
    _write_effort(request, fields)
    if request.answer_schema is not None:
        form = request.answer_schema
        if form.schema is None:
            fields["response_format"] = {"type": "json_object"}
        else:
            schema: dict[str, Any] = {"name": form.name or "structured_output", "schema": form.schema}
            if form.strict is not None:
                schema["strict"] = form.strict
            fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    last = request.turns[-1] if request.turns else None
    if last is not None and last.role == "assistant" and not any(isinstance(part, Call) for part in last.parts):
        losses.add("prefilled answer")
    return fields


def function_fields(tool: Tool) -> dict[str, Any]:
    """A function as Chat Completions and Ollama offer it."""
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.schema is not None:
        function["parameters"] = tool.schema
    if tool.strict:
        function["strict"] = True
    return function


def result_text(result: Result, losses: Losses) -> list[str]:
    """The texts of a result; a failure, which has no field of its own, is said in the first."""
    texts = [part.text for part in result.parts if isinstance(part, Text)]
    for part in result.parts:
        if isinstance(part, Attachment):
            losses.add(f"{part.kind} in a tool result")
    if result.is_error and not "".join(texts).lstrip().lower().startswith("error"):
        texts = [_ERROR_WORD + texts[0], *texts[1:]] if texts else [_ERROR_WORD.rstrip(": ")]
    return texts


def _choose(request: Request, fields: dict[str, Any]) -> None:
    if request.tool_choice == "tool":
        fields["tool_choice"] = {"type": "function", "function": {"name": request.tool_name}}
    elif request.tool_choice:
        fields["tool_choice"] = "required" if request.tool_choice == "any" else request.tool_choice
    if request.parallel_calls is not None:
        fields["parallel_tool_calls"] = request.parallel_calls


def _write_effort(request: Request, fields: dict[str, Any]) -> None:
    effort = effort_of(request)
    if request.thinking and effort:
        fields["reasoning_effort"] = "xhigh" if effort == "max" else effort
    elif request.effort:
        request.losses.add("effort")


def effort_of(request: Request) -> str:
    """The effort that is asked for, in a word or as a budget; empty where nothing is said of it."""
    budget = request.thinking_budget
    if request.effort or budget is None:
        return request.effort
    return next((word for least, word in _LEAST_BUDGETS if budget >= least), "low")


def _messages(turn: Turn, losses: Losses) -> list[dict[str, Any]]:
    if turn.role == "assistant":
        return [_said(turn, losses)]
    results = [part for part in turn.parts if isinstance(part, Result)]
    messages: list[dict[str, Any]] = [
        {
            "role": "tool",
            "tool_call_id": result.call_id,
            "content": _content([Text(text) for text in result_text(result, losses)], losses),
        }
        for result in results
    ]
    others = [part for part in turn.parts if not isinstance(part, Result)]
    if others or not results:
        messages.append({"role": turn.role, "content": _content(others, losses)})
    return messages


def _content(parts: Sequence[Part], losses: Losses) -> str | list[dict[str, Any]]:
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    said: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, Attachment) and part.kind == "document" and part.url:
            losses.add("document url")
        elif isinstance(part, Text | Attachment):
            said.append(_part(part))
    return said


def _part(part: Text | Attachment) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if part.kind == "image":
        return {"type": "image_url", "image_url": {"url": data_url(part)}}
    return {"type": "file", "file": {"filename": part.name or "document.pdf", "file_data": data_url(part)}}


def _said(turn: Turn, losses: Losses) -> dict[str, Any]:
    texts = [part.text for part in turn.parts if isinstance(part, Text)]
    thoughts = [part for part in turn.parts if isinstance(part, Thought)]
    calls = [part for part in turn.parts if isinstance(part, Call)]
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts or not calls else None}
    if any(thought.text for thought in thoughts):
        message["reasoning_content"] = "".join(thought.text for thought in thoughts)
    if any(thought.signature for thought in thoughts):
        losses.add("thinking signature")
    if any(isinstance(part, Attachment) for part in turn.parts):
        losses.add("image of the assistant")
    if calls:
        message["tool_calls"] = [
            {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": json_text(call.arguments)}}
            for call in calls
        ]
    return message
