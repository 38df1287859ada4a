"""A second, plain reading of model API responses, to compare the codecs with.

Written from the providers' API references with the standard library's json alone, over whole bodies, slow and simple.
It shares no code with the codecs; where both agree, a mistake would have to be made twice.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Reading:
    """What a response says, plainly."""

    usage: dict[str, int] = field(default_factory=dict)
    """`input`, `output`, `cached`, `written`, `reasoning`, and where there are any `written 1h`, `audio in`, `audio out`,
    `searches`: only what was reported."""
    elsewhere: list[tuple[str, dict[str, int]]] = field(default_factory=list)
    """What other models used for this answer."""
    tool_calls: list[tuple[str, str, str]] = field(default_factory=list)
    """Call id, name, and arguments as JSON text with sorted keys where they are JSON."""
    text: str = ""
    thinking: str = ""
    is_error: bool = False
    ended: bool = False
    """For a stream: the terminator of its API is there."""


def normal_arguments(arguments: Any) -> str:
    """Arguments as comparable JSON text."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return arguments  # type: ignore[no-any-return]
    return json.dumps(arguments, sort_keys=True)


def read_plainly(api: str, body: bytes, streamed: bool) -> Reading | None:
    """`api` is `chat`, `completions`, `embeddings`, `responses`, `messages`, `count_tokens` or `ollama`; None for no JSON."""
    text = body.decode("utf-8", "replace")
    if api == "ollama":
        return _ollama([json.loads(line) for line in text.split("\n") if line.strip()])
    if streamed:
        events = _sse_payloads(text)
        if api in ("chat", "completions"):
            return _chat_stream(events)
        if api == "responses":
            return _responses_stream(events)
        if api == "messages":
            return _messages_stream(events)
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, dict) or value.get("error") or "detail" in value:
        return Reading(is_error=True)
    if api in ("chat", "completions", "embeddings"):
        return _chat(value)
    if api == "responses":
        return _responses(value)
    if api == "messages":
        return _messages(value)
    if api == "count_tokens":
        return Reading(usage={"input": value["input_tokens"]}, ended=True)
    return None


def _sse_payloads(text: str) -> list[tuple[str, str]]:
    """Event names and data of a stream whose lines end with LF or CRLF."""
    payloads = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        name, data = "", []
        for line in block.split("\n"):
            if line.startswith("event:"):
                name = line[6:].strip()
            elif line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
        if data:
            payloads.append((name, "\n".join(data)))
    return payloads


def _number(usage: dict[str, int], name: str, value: Any) -> None:
    if isinstance(value, int) and not isinstance(value, bool):
        usage[name] = value


def _chat_usage(value: Any) -> dict[str, int]:
    usage: dict[str, int] = {}
    if not isinstance(value, dict):
        return usage
    _number(usage, "input", value.get("prompt_tokens"))
    _number(usage, "output", value.get("completion_tokens"))
    for key in ("num_cached_tokens", "cached_tokens", "prompt_cache_hit_tokens"):
        _number(usage, "cached", value.get(key))
    prompt = value.get("prompt_tokens_details") or {}
    _number(usage, "cached", prompt.get("cached_tokens"))
    _number(usage, "written", prompt.get("cache_write_tokens"))
    completion = value.get("completion_tokens_details") or {}
    _number(usage, "reasoning", completion.get("reasoning_tokens"))
    _number(usage, "audio in", prompt.get("audio_tokens") or None)
    _number(usage, "audio out", completion.get("audio_tokens") or None)
    spent = usage.get("input", 0) + usage.get("output", 0)
    if usage.get("reasoning") and value.get("total_tokens") == spent + usage["reasoning"]:
        usage["output"] += usage["reasoning"]
    if "input" not in usage and "output" not in usage:
        _number(usage, "input", value.get("total_tokens"))
    return usage


def _chat(value: dict[str, Any]) -> Reading:
    reading = Reading(usage=_chat_usage(value.get("usage")), ended=True)
    for choice in value.get("choices", []):
        message = choice.get("message") or {}
        content: Any = message.get("content") or choice.get("text") or ""
        parts: list[dict[str, Any]] = content if isinstance(content, list) else [{"type": "text", "text": content}]
        for part in parts:
            if part.get("type") == "text":
                reading.text += part["text"]
            elif part.get("type") == "thinking":
                reading.thinking += "".join(piece["text"] for piece in part["thinking"])
        reading.thinking += message.get("reasoning_content") or message.get("reasoning") or ""
        calls = list(message.get("tool_calls") or [])
        if message.get("function_call"):
            calls.append({"id": "", "function": message["function_call"]})
        for call in calls:
            function = call["function"]
            reading.tool_calls.append((call["id"], function["name"], normal_arguments(function["arguments"])))
    return reading


def _chat_stream(events: list[tuple[str, str]]) -> Reading:
    reading = Reading()
    calls: dict[tuple[int, int], list[str]] = {}
    texts: dict[int, str] = {}
    for _, data in events:
        if data.strip() == "[DONE]":
            reading.ended = True
            continue
        chunk = json.loads(data)
        reading.is_error = reading.is_error or bool(chunk.get("error"))
        usage = chunk.get("usage") or (chunk.get("x_groq") or {}).get("usage")
        if usage:
            reading.usage = _chat_usage(usage)
        for choice in chunk.get("choices") or []:
            number = choice.get("index", 0)
            delta = choice.get("delta") or {"content": choice.get("text")}
            texts[number] = texts.get(number, "") + (delta.get("content") or "")
            reading.thinking += delta.get("reasoning_content") or delta.get("reasoning") or ""
            for call in delta.get("tool_calls") or []:
                gathered = calls.setdefault((number, call.get("index", 0)), ["", "", ""])
                gathered[0] += call.get("id") or ""
                gathered[1] += call["function"].get("name") or ""
                gathered[2] += call["function"].get("arguments") or ""
    reading.text = "".join(texts[number] for number in sorted(texts))
    reading.tool_calls = [(call[0], call[1], normal_arguments(call[2])) for _, call in sorted(calls.items())]
    return reading


def _responses_usage(value: Any) -> dict[str, int]:
    usage: dict[str, int] = {}
    if isinstance(value, dict):
        _number(usage, "input", value.get("input_tokens"))
        _number(usage, "output", value.get("output_tokens"))
        details = value.get("input_tokens_details") or {}
        _number(usage, "cached", details.get("cached_tokens"))
        _number(usage, "written", details.get("cache_write_tokens"))
        _number(usage, "reasoning", (value.get("output_tokens_details") or {}).get("reasoning_tokens"))
    return usage


def _responses(value: dict[str, Any]) -> Reading:
    reading = Reading(usage=_responses_usage(value.get("usage")), ended=True)
    for item in value.get("output", []):
        if item["type"] == "message":
            reading.text += "".join(part["text"] for part in item["content"] if part["type"] == "output_text")
        elif item["type"] == "function_call":
            reading.tool_calls.append((item["call_id"], item["name"], normal_arguments(item["arguments"])))
        elif item["type"] == "custom_tool_call":
            reading.tool_calls.append((item["call_id"], item["name"], normal_arguments(item["input"])))
        elif item["type"] == "tool_search_call" and item.get("execution") == "client":
            reading.tool_calls.append((item["call_id"], "tool_search", normal_arguments(item["arguments"])))
        elif item["type"] == "reasoning":
            parts = item.get("summary") or item.get("content") or []
            reading.thinking += "\n\n".join(part["text"] for part in parts)
    return reading


def _responses_stream(events: list[tuple[str, str]]) -> Reading:
    reading = Reading()
    deltas = ""
    for name, data in events:
        if data.strip() == "[DONE]":
            continue
        event = json.loads(data)
        kind = event.get("type", name)
        if kind == "response.output_text.delta":
            deltas += event["delta"]
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            reading = _responses(event["response"])
            reading.is_error = bool(event["response"].get("error"))
        elif kind == "error":
            reading.is_error = True
            reading.ended = True
    if reading.ended and not reading.is_error and deltas != reading.text:
        raise ValueError("the deltas of the stream are not the text of its response")
    return reading


def _messages_usage(value: dict[str, Any]) -> dict[str, int]:
    usage: dict[str, int] = {}
    _number(usage, "cached", value.get("cache_read_input_tokens"))
    _number(usage, "written", value.get("cache_creation_input_tokens"))
    if "input_tokens" in value:
        usage["input"] = value["input_tokens"] + usage.get("cached", 0) + usage.get("written", 0)
    _number(usage, "output", value.get("output_tokens"))
    _number(usage, "reasoning", (value.get("output_tokens_details") or {}).get("thinking_tokens"))
    _number(usage, "written 1h", (value.get("cache_creation") or {}).get("ephemeral_1h_input_tokens") or None)
    _number(usage, "searches", (value.get("server_tool_use") or {}).get("web_search_requests") or None)
    return usage


def _messages(value: dict[str, Any]) -> Reading:
    reading = Reading(ended=True)
    parts = value.get("usage", {}).get("iterations") or [value.get("usage", {})]
    for part in parts:
        if part.get("type") == "advisor_message":
            reading.elsewhere.append((part["model"], _messages_usage(part)))
            continue
        for name, count in _messages_usage(part).items():
            reading.usage[name] = reading.usage.get(name, 0) + count
    whole = _messages_usage(value.get("usage", {}))
    reading.usage |= {name: whole[name] for name in ("reasoning", "searches") if name in whole}
    for block in value["content"]:
        if block["type"] == "text":
            reading.text += block["text"]
        elif block["type"] == "thinking":
            reading.thinking += block["thinking"]
        elif block["type"] == "tool_use":
            reading.tool_calls.append((block["id"], block["name"], normal_arguments(block["input"])))
    return reading


def _messages_stream(events: list[tuple[str, str]]) -> Reading:
    reading = Reading()
    blocks: dict[int, dict[str, Any]] = {}
    usage: dict[str, Any] = {}
    for _, data in events:
        event = json.loads(data)
        kind = event["type"]
        if kind == "message_start":
            usage.update(event["message"]["usage"])
        elif kind == "content_block_start":
            blocks[event["index"]] = {"json": "", **event["content_block"]}
        elif kind == "content_block_delta":
            block, delta = blocks[event["index"]], event["delta"]
            if delta["type"] == "text_delta":
                block["text"] += delta["text"]
            elif delta["type"] == "thinking_delta":
                block["thinking"] += delta["thinking"]
            elif delta["type"] == "input_json_delta":
                block["json"] += delta["partial_json"]
        elif kind == "message_delta":
            usage.update(event["usage"])
        elif kind == "message_stop":
            reading.ended = True
        elif kind == "error":
            reading.is_error = True
    for block in blocks.values():
        if block["type"] == "tool_use" and block["json"]:
            block["input"] = json.loads(block["json"])
    ended, is_error = reading.ended, reading.is_error
    reading = _messages({"content": list(blocks.values()), "usage": usage})
    reading.ended, reading.is_error = ended, is_error
    return reading


def _ollama(lines: list[dict[str, Any]]) -> Reading:
    reading = Reading()
    for line in lines:
        if line.get("error"):
            return Reading(is_error=True)
        message = line.get("message") or {}
        reading.text += message.get("content") or line.get("response") or ""
        reading.thinking += message.get("thinking") or line.get("thinking") or ""
        for call in message.get("tool_calls") or []:
            function = call["function"]
            reading.tool_calls.append((call.get("id", ""), function["name"], normal_arguments(function["arguments"])))
        reading.ended = reading.ended or bool(line.get("done"))
        _number(reading.usage, "input", line.get("prompt_eval_count"))
        _number(reading.usage, "output", line.get("eval_count"))
    return reading
