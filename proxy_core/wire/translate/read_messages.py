"""Reads a request of Anthropic Messages for translation. Raises UnreadableBody."""

from __future__ import annotations

from msgspec import Raw

from proxy_core.wire.editing_json import Fields, UnreadableBody, first_byte, open_items, open_object, text_of
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
    given,
    json_object,
    number,
    text,
    truth,
    whole_number,
)

_KNOWN = frozenset(
    {
        "max_tokens", "messages", "metadata", "model", "output_config", "service_tier", "stop_sequences", "stream", "system",
        "temperature", "thinking", "tool_choice", "tools", "top_k", "top_p",
    }
)  # fmt: skip
_CHOICES = frozenset({"auto", "any", "none", "tool"})


def read_messages(body: bytes) -> Request:
    """The request in a body of Messages."""
    fields = open_object(body, _KNOWN)
    losses = Losses()
    losses.add_unknown(fields, _KNOWN)
    request = Request(losses, model=text(fields, "model"), stream=truth(fields, "stream") is True)
    turns = _Turns(losses)
    request.turns = turns.system(given(fields, "system")) + turns.read(given(fields, "messages"))
    _read_tools(fields, request)
    request.max_tokens = whole_number(fields, "max_tokens")
    request.temperature, request.top_p = number(fields, "temperature"), number(fields, "top_p")
    request.top_k = whole_number(fields, "top_k")
    stop = given(fields, "stop_sequences")
    request.stop = tuple(text_of(item) for item in open_items(stop)) if stop is not None else ()
    if text(fields, "service_tier") not in ("", "auto", "standard_only"):
        losses.add("service_tier")
    metadata = given(fields, "metadata")
    if metadata is not None:
        about = open_object(metadata)
        if len(about) > ("user_id" in about):
            losses.add("metadata")
        request.user = text(about, "user_id")
    _read_thinking(given(fields, "thinking"), given(fields, "output_config"), request)
    return request


def _read_thinking(thinking: Raw | None, config: Raw | None, request: Request) -> None:
    if thinking is not None:
        fields = open_object(thinking)
        request.thinking = text(fields, "type") != "disabled"
        request.thinking_budget = whole_number(fields, "budget_tokens")
    if config is None:
        return
    fields = open_object(config)
    request.losses.add_unknown(fields, ("effort", "format"))
    request.effort = text(fields, "effort")
    form = given(fields, "format")
    if form is not None:
        inner = open_object(form)
        schema = given(inner, "schema")
        if text(inner, "type") == "json_schema" and schema is not None:
            request.answer_schema = Schema(json_object(schema, "schema"))
        else:
            request.losses.add("output format")


def _read_tools(fields: Fields, request: Request) -> None:
    tools = given(fields, "tools")
    for raw in open_items(tools) if tools is not None else []:
        tool = open_object(raw)
        kind = text(tool, "type")
        if kind not in ("", "custom"):
            request.losses.add(f"tool {kind}")
            continue
        request.losses.add_unknown(tool, ("type", "name", "description", "input_schema", "strict"))
        schema = given(tool, "input_schema")
        schema = json_object(schema, "input_schema") if schema is not None else None
        request.tools.append(Tool(text(tool, "name"), text(tool, "description"), schema, truth(tool, "strict") is True))
    choice = given(fields, "tool_choice")
    if choice is not None:
        chosen = open_object(choice)
        request.tool_choice, request.tool_name = text(chosen, "type"), text(chosen, "name")
        if request.tool_choice not in _CHOICES:
            raise UnreadableBody(f"tool_choice {request.tool_choice!r} is none that is known")
        alone = truth(chosen, "disable_parallel_tool_use")
        request.parallel_calls = None if alone is None else not alone


class _Turns:
    """Reads the history, in which results name their calls."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._names: dict[str, str] = {}
        """Tools by the ids of their calls."""

    def system(self, raw: Raw | None) -> list[Turn]:
        parts = self._content(raw)
        return [Turn("system", tuple(parts))] if parts else []

    def read(self, messages: Raw | None) -> list[Turn]:
        if messages is None:
            raise UnreadableBody("the body has no messages")
        turns: list[Turn] = []
        for raw in open_items(messages):
            message = open_object(raw)
            role = text(message, "role")
            if role not in ("user", "assistant", "system"):
                raise UnreadableBody(f"the role {role!r} is none that is known")
            turns.append(Turn(role, tuple(self._content(given(message, "content")))))
        return turns

    def _content(self, content: Raw | None) -> list[Part]:
        if content is None:
            return []
        if first_byte(content) == b'"':
            return [Text(text_of(content))]
        parts = [self._block(open_object(raw)) for raw in open_items(content)]
        return [part for part in parts if part is not None]

    def _block(self, block: Fields) -> Part | None:
        kind = text(block, "type")
        losses = self._losses
        if kind == "text":
            losses.add_unknown(block, ("type", "text"))
            return Text(text(block, "text"))
        if kind == "tool_use":
            losses.add_unknown(block, ("type", "id", "name", "input", "caller"))
            call_id, name = text(block, "id"), text(block, "name")
            self._names[call_id] = name
            return Call(call_id, name, json_object(block.get("input", Raw(b"{}")), "input"))
        if kind == "tool_result":
            losses.add_unknown(block, ("type", "tool_use_id", "content", "is_error"))
            call_id = text(block, "tool_use_id")
            parts = tuple(part for part in self._content(given(block, "content")) if isinstance(part, Text | Attachment))
            return Result(call_id, self._names.get(call_id, ""), parts, truth(block, "is_error") is True)
        if kind == "thinking":
            return Thought(text(block, "thinking"), text(block, "signature"))
        if kind in ("image", "document"):
            losses.add_unknown(block, ("type", "source", "title"))
            return self._attachment(kind, open_object(block.get("source", Raw(b""))), text(block, "title"))
        losses.add(kind or "content block")
        return None

    def _attachment(self, kind: str, source: Fields, title: str) -> Part | None:
        form = text(source, "type")
        if form == "base64":
            return Attachment(kind, text(source, "media_type"), text(source, "data"), name=title)
        if form == "url":
            return Attachment(kind, "", url=text(source, "url"), name=title)
        if form == "text":
            if title:
                self._losses.add("document title")
            return Text(text(source, "data"))
        self._losses.add(f"{kind} {form}")
        return None
