"""Reads a request of Ollama's chat for translation. Raises UnreadableBody.

Ollama's calls have no ids, or ids that clients leave out: each call gets one from its place in the history, and results find
their calls by id, by the tool's name, or by order.
"""

from __future__ import annotations

from msgspec import Raw

from proxy_core.wire.editing_json import Fields, UnreadableBody, first_byte, open_items, open_object, text_of, value_of
from proxy_core.wire.translate.attachments import from_base64
from proxy_core.wire.translate.form import (
    Call,
    Losses,
    Part,
    Request,
    Result,
    Schema,
    Text,
    Thought,
    Turn,
    arguments_of,
    given,
    json_object,
    number,
    text,
    truth,
    whole_number,
)
from proxy_core.wire.translate.read_chat import read_function

_KNOWN = frozenset({"format", "messages", "model", "options", "stream", "think", "tools"})
_OPTIONS = frozenset({"frequency_penalty", "num_predict", "presence_penalty", "seed", "stop", "temperature", "top_k", "top_p"})


def read_ollama(body: bytes) -> Request:
    """The request in a body of Ollama's chat."""
    fields = open_object(body, _KNOWN)
    losses = Losses()
    losses.add_unknown(fields, _KNOWN)
    request = Request(losses, model=text(fields, "model"), stream=truth(fields, "stream") is not False)
    request.turns = _Turns(losses).read(given(fields, "messages"))
    tools = given(fields, "tools")
    for raw in open_items(tools) if tools is not None else []:
        tool = open_object(raw)
        losses.add_unknown(tool, ("type", "function"))
        request.tools.append(read_function(tool.get("function", Raw(b"")), losses))
    think = given(fields, "think")
    if think is not None:
        value = value_of(think)
        request.thinking = value is not False
        request.effort = value if isinstance(value, str) else ""
    form = given(fields, "format")
    if form is not None and bytes(form) != b'""':
        request.answer_schema = Schema(json_object(form, "format") if first_byte(form) == b"{" else None)
    options = given(fields, "options")
    if options is not None:
        _read_options(open_object(options), request)
    return request


def _read_options(options: Fields, request: Request) -> None:
    request.losses.add_unknown(options, _OPTIONS)
    limit = whole_number(options, "num_predict")
    request.max_tokens = limit if limit is None or limit >= 0 else None
    request.temperature, request.top_p = number(options, "temperature"), number(options, "top_p")
    request.top_k, request.seed = whole_number(options, "top_k"), whole_number(options, "seed")
    request.frequency_penalty = number(options, "frequency_penalty")
    request.presence_penalty = number(options, "presence_penalty")
    stop = given(options, "stop")
    if stop is not None:
        request.stop = tuple(text_of(item) for item in open_items(stop)) if first_byte(stop) == b"[" else (text_of(stop),)


class _Turns:
    """Reads the history, and finds the call of each result."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._open: list[Call] = []
        """Calls whose results have not come."""

    def read(self, messages: Raw | None) -> list[Turn]:
        if messages is None:
            raise UnreadableBody("the body has no messages")
        return [self._turn(number, open_object(raw)) for number, raw in enumerate(open_items(messages))]

    def _turn(self, number: int, message: Fields) -> Turn:
        role = text(message, "role")
        known = ("role", "content", "images", "thinking", "tool_calls", "tool_name", "tool_call_id")
        self._losses.add_unknown(message, known)
        said = text(message, "content")
        if role == "tool":
            call = self._called(text(message, "tool_call_id"), text(message, "tool_name"))
            name = text(message, "tool_name")
            call_id = call.call_id if call is not None else text(message, "tool_call_id") or f"call_{number}_0"
            return Turn("user", (Result(call_id, call.name if call is not None else name, (Text(said),)),))
        if role not in ("system", "user", "assistant"):
            raise UnreadableBody(f"the role {role!r} is none that is known")
        parts: list[Part] = []
        thinking = text(message, "thinking")
        if thinking:
            parts.append(Thought(thinking))
        if said:
            parts.append(Text(said))
        parts += self._images(given(message, "images"))
        calls = given(message, "tool_calls")
        if calls is not None:
            made = [self._call(f"call_{number}_{place}", open_object(raw)) for place, raw in enumerate(open_items(calls))]
            self._open = list(made)
            parts += made
        return Turn(role, tuple(parts))

    def _images(self, images: Raw | None) -> list[Part]:
        found = [from_base64(text_of(raw)) for raw in open_items(images)] if images is not None else []
        if None in found:
            self._losses.add("image data")
        return [image for image in found if image is not None]

    def _call(self, made_id: str, call: Fields) -> Call:
        function = open_object(call.get("function", Raw(b"")))
        arguments = given(function, "arguments") or Raw(b"{}")
        if first_byte(arguments) == b'"':
            arguments = arguments_of(text_of(arguments))
        call_id = text(call, "id") or made_id
        return Call(call_id, text(function, "name"), json_object(arguments, "arguments"))

    def _called(self, call_id: str, name: str) -> Call | None:
        """The call that a result answers, which then is answered."""
        for matches in (
            [call for call in self._open if call_id and call.call_id == call_id],
            [call for call in self._open if name and call.name == name],
            self._open if not name and not call_id else [],
        ):
            if matches:
                found = matches[0]
                self._open.remove(found)
                return found
        return None
