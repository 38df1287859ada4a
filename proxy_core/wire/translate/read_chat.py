"""Reads a request of Chat Completions for translation. Raises UnreadableBody."""

from __future__ import annotations

from msgspec import Raw

from proxy_core.wire.editing_json import (
    Fields,
    UnreadableBody,
    first_byte,
    json_of,
    open_items,
    open_object,
    text_of,
    value_of,
)
from proxy_core.wire.translate.attachments import from_url
from proxy_core.wire.translate.form import (
    Attachment,
    Call,
    Losses,
    Part,
    Request,
    Result,
    Schema,
    Text,
    Thought,
    Tool,
    Turn,
    arguments_of,
    given,
    json_object,
    number,
    text,
    truth,
    whole_number,
)

_KNOWN = frozenset(
    {
        "frequency_penalty", "function_call", "functions", "max_completion_tokens", "max_tokens", "messages", "modalities",
        "model", "n", "parallel_tool_calls", "presence_penalty", "reasoning_effort", "response_format", "seed",
        "service_tier", "stop", "stream", "stream_options", "temperature", "tool_choice", "tools", "top_k", "top_p", "user",
    }
)  # fmt: skip


def read_chat(body: bytes) -> Request:
    """The request in a body of Chat Completions."""
    fields = open_object(body, _KNOWN)
    losses = Losses()
    losses.add_unknown(fields, _KNOWN)
    request = Request(losses, model=text(fields, "model"), user=text(fields, "user"))
    request.turns = _Turns(losses).read(given(fields, "messages"))
    _read_tools(fields, request)
    _read_sampling(fields, request)
    _read_format(given(fields, "response_format"), request)
    effort = text(fields, "reasoning_effort")
    if effort:
        request.thinking, request.effort = effort != "none", "" if effort == "none" else effort
    request.stream = truth(fields, "stream") is True
    options = given(fields, "stream_options")
    request.stream_usage = options is not None and truth(open_object(options), "include_usage") is True
    return request


def _read_sampling(fields: Fields, request: Request) -> None:
    limit = whole_number(fields, "max_completion_tokens")
    request.max_tokens = whole_number(fields, "max_tokens") if limit is None else limit
    request.temperature, request.top_p = number(fields, "temperature"), number(fields, "top_p")
    request.top_k, request.seed = whole_number(fields, "top_k"), whole_number(fields, "seed")
    request.frequency_penalty = number(fields, "frequency_penalty")
    request.presence_penalty = number(fields, "presence_penalty")
    stop = given(fields, "stop")
    if stop is not None:
        request.stop = tuple(text_of(item) for item in open_items(stop)) if first_byte(stop) == b"[" else (text_of(stop),)
    for name, plain_value in (("n", 1), ("modalities", ["text"]), ("service_tier", "auto")):
        raw = given(fields, name)
        if raw is not None and value_of(raw) != plain_value:
            request.losses.add(name)


def _read_format(raw: Raw | None, request: Request) -> None:
    if raw is None:
        return
    fields = open_object(raw)
    kind = text(fields, "type")
    if kind == "json_object":
        request.answer_schema = Schema(None)
    elif kind == "json_schema":
        inner = open_object(fields.get("json_schema", Raw(b"")))
        schema = given(inner, "schema")
        strict = truth(inner, "strict")
        request.answer_schema = Schema(json_object(schema, "schema") if schema else None, text(inner, "name"), strict)
        if text(inner, "description"):
            request.losses.add("response_format description")
        request.losses.add_unknown(inner, ("schema", "name", "strict", "description"))
    elif kind != "text":
        request.losses.add(f"response_format {kind}")


def _read_tools(fields: Fields, request: Request) -> None:
    tools = given(fields, "tools")
    for raw in open_items(tools) if tools is not None else []:
        tool = open_object(raw)
        function = given(tool, "function")
        if function is None:
            request.losses.add(f"tool {text(tool, 'type')}")
            continue
        request.losses.add_unknown(tool, ("type", "function"))
        request.tools.append(read_function(function, request.losses))
    functions = given(fields, "functions")
    for raw in open_items(functions) if functions is not None else []:
        request.tools.append(read_function(raw, request.losses))
    request.parallel_calls = truth(fields, "parallel_tool_calls")
    choice = given(fields, "tool_choice") or given(fields, "function_call")
    if choice is None:
        return
    if first_byte(choice) == b'"':
        word = text_of(choice)
        request.tool_choice = "any" if word == "required" else word
        if word not in ("auto", "none", "required", "any"):
            raise UnreadableBody(f"tool_choice {word!r} is none that is known")
        return
    chosen = open_object(choice)
    function = given(chosen, "function")
    name = text(open_object(function) if function is not None else chosen, "name")
    if not name or text(chosen, "type") not in ("", "function"):
        request.losses.add(f"tool_choice {text(chosen, 'type')}")
    else:
        request.tool_choice, request.tool_name = "tool", name


def read_function(raw: Raw, losses: Losses) -> Tool:
    """A function as Chat Completions and Ollama offer it."""
    function = open_object(raw)
    losses.add_unknown(function, ("name", "description", "parameters", "strict"))
    schema = given(function, "parameters")
    return Tool(
        text(function, "name"),
        text(function, "description"),
        json_object(schema, "parameters") if schema is not None else None,
        truth(function, "strict") is True,
    )


class _Turns:
    """Reads the history, in which results name their calls."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._names: dict[str, str] = {}
        """Tools by the ids of their calls."""
        self._legacy = ""
        """The id that was made for the latest call without one."""

    def read(self, messages: Raw | None) -> list[Turn]:
        if messages is None:
            raise UnreadableBody("the body has no messages")
        return [self._turn(number, open_object(raw)) for number, raw in enumerate(open_items(messages))]

    def _turn(self, number: int, message: Fields) -> Turn:
        role = text(message, "role")
        content = given(message, "content")
        if role in ("system", "developer", "user"):
            self._losses.add_unknown(message, ("role", "content"))
            return Turn("user" if role == "user" else "system", tuple(self._content(content)))
        if role == "assistant":
            return Turn(role, tuple(self._said(number, message)))
        if role in ("tool", "function"):
            self._losses.add_unknown(message, ("role", "content", "tool_call_id", "name"))
            call_id = text(message, "tool_call_id") or self._legacy
            parts = tuple(part for part in self._content(content) if isinstance(part, Text | Attachment))
            return Turn("user", (Result(call_id, self._names.get(call_id) or text(message, "name"), parts),))
        raise UnreadableBody(f"the role {role!r} is none that is known")

    def _content(self, content: Raw | None) -> list[Part]:
        if content is None:
            return []
        if first_byte(content) == b'"':
            return [Text(text_of(content))]
        parts = [self._part(open_object(raw)) for raw in open_items(content)]
        return [part for part in parts if part is not None]

    def _part(self, part: Fields) -> Part | None:
        kind = text(part, "type")
        if kind in ("text", "refusal"):
            self._losses.add_unknown(part, ("type", "text", "refusal"))
            return Text(text(part, kind))
        if kind == "image_url":
            self._losses.add_unknown(part, ("type", "image_url"))
            raw = part.get("image_url", Raw(b""))
            image: Fields = {"url": raw} if first_byte(raw) == b'"' else open_object(raw)
            if text(image, "detail") not in ("", "auto"):
                self._losses.add("image detail")
            found = from_url("image", text(image, "url"))
            if found is None:
                self._losses.add("image data")
            return found
        if kind == "file":
            file = open_object(part.get("file", Raw(b"")))
            data = text(file, "file_data")
            document = from_url("document", data, text(file, "filename")) if data[:5].lower() == "data:" else None
            if document is None:
                self._losses.add("file")
            return document
        self._losses.add("audio" if kind == "input_audio" else kind or "content part")
        return None

    def _said(self, number: int, message: Fields) -> list[Part]:
        known = ("role", "content", "refusal", "tool_calls", "function_call", "audio", "annotations")
        thinking = ("reasoning_content", "reasoning", "reasoning_details")
        self._losses.add_unknown(message, (*known, *thinking))
        parts: list[Part] = []
        thought = text(message, "reasoning_content") or text(message, "reasoning")
        signed, signature = self._details(given(message, "reasoning_details"))
        if thought or signed or signature:
            parts.append(Thought(thought or signed, signature))
        parts += self._content(given(message, "content"))
        refusal = text(message, "refusal")
        if refusal:
            parts.append(Text(refusal))
        if given(message, "audio") is not None:
            self._losses.add("audio")
        calls = given(message, "tool_calls")
        for place, raw in enumerate(open_items(calls) if calls is not None else []):
            parts.append(self._call(f"call_{number}_{place}", open_object(raw)))
        legacy = given(message, "function_call")
        if legacy is not None:
            self._legacy = f"call_{number}_0"
            parts.append(self._call(self._legacy, {"function": legacy}))
        return parts

    def _details(self, details: Raw | None) -> tuple[str, str]:
        """Text and signature of thinking that an Anthropic model said."""
        texts, signature = "", ""
        for raw in open_items(details) if details is not None else []:
            detail = open_object(raw)
            texts += text(detail, "text")
            signature += text(detail, "signature")
            if given(detail, "data") is not None:
                self._losses.add("encrypted reasoning")
        return texts, signature

    def _call(self, made_id: str, call: Fields) -> Call:
        call_id = text(call, "id") or made_id
        custom = given(call, "custom")
        if custom is not None:
            self._losses.add("custom tool call")
            fields = open_object(custom)
            arguments = json_of({"input": text(fields, "input")})
        else:
            fields = open_object(call.get("function", Raw(b"")))
            arguments = arguments_of(text(fields, "arguments"))
        name = self._names[call_id] = text(fields, "name")
        return Call(call_id, name, arguments)
