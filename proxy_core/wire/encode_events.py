"""What the encoders of all dialects share: telling the untouched from the touched, and reading and writing wire events.

While every event comes back in its order, an encoder is pristine: events are compared with a queue of what was seen, and a
dialect only follows along. The first event that is missing, moved or new makes it altered for good: from then on each event is
looked up, checked and encoded by the dialect's rules.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from proxy_core.wire.conversation import (
    EndEvent,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
)
from proxy_core.wire.encoder import IllegalStream
from proxy_core.wire.sse import SseParser
from proxy_core.wire.tolerant_json import UNREADABLE, JsonObject, plain, read

Fields = dict[str, Any]
"""A JSON object whose values are Raw where nobody touched them."""
_fields = msgspec.json.Decoder(dict[str, Raw])
_DELTAS = frozenset({TextDelta, ToolCallDelta, ThinkingDelta})


class WireEvent:
    """One wire event that gave several events."""

    __slots__ = ("came", "events", "raw")

    def __init__(self, events: list[StreamEvent]) -> None:
        self.events = events
        self.raw = events[0].raw
        self.came: list[StreamEvent] = []
        """Those that came back and are not encoded yet, in the order in which they came."""

    @property
    def whole(self) -> bool:
        came, events = self.came, self.events
        return len(came) == len(events) and all(one is other for one, other in zip(came, events, strict=True))


class EventEncoder:
    """Base of the encoders. A dialect says what passing on, placing and putting mean; it writes to `_out`."""

    def __init__(self, model: str = "", transaction_id: str = "") -> None:
        self._model = model
        self._transaction_id = transaction_id
        self._out: list[bytes] = []
        self._ended = False
        """Whether the terminator, or an error that ends the stream, was sent."""
        self._end_seen = False
        self._call_ids: dict[str, int] = {}
        self._made_ids: set[str] = set()
        """Ids of calls that a policy made or began anew."""
        self._altered = False
        self._queue: deque[StreamEvent] = deque()
        """Pristine: events that were seen and have not come back."""
        self._known: dict[int, bytes] = {}
        """Altered: the bytes of the single events that were seen, by identity. Identity of the bytes is compared too,
        so an identity that is used again cannot be mistaken, and nothing has to be kept alive."""
        self._wires: dict[int, WireEvent] = {}
        """Altered: the wire events of several events, by the identity of those that have not come back."""
        self._waiting: WireEvent | None = None
        self._begun_wire: list[StreamEvent] = []
        """Pristine: the first events of a wire event whose others have not come back."""

    @property
    def altered(self) -> bool:
        return self._altered

    def _name_call(self, index: int, call_id: str, *, made: bool = False) -> None:
        """Note the id of a call that goes out; one that was `made` must not have another's, nor another its."""
        if not call_id:
            return
        if made:
            self._made_ids.add(call_id)
        if self._call_ids.setdefault(call_id, index) != index and call_id in self._made_ids:
            raise illegal("call_ids_distinct", f"tool call {index} has the id of another")

    # --- the interface ---

    def seen(self, events: Sequence[StreamEvent]) -> None:
        for event in events:
            kind = type(event)
            if kind not in _DELTAS:
                if kind is EndEvent:
                    self._end_seen = True
                self._learn(event)
        if self._altered:
            self._remember(events)
        else:
            self._queue.extend(events)

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        out: list[bytes] = []
        self._out = out
        queue = self._queue
        try:
            for event in events:
                if not self._altered:
                    if queue and queue[0] is event:
                        queue.popleft()
                        if queue and not queue[0].raw:
                            self._begun_wire.append(event)
                        elif self._begun_wire:
                            wire = [*self._begun_wire, event]
                            self._begun_wire.clear()
                            self._pass_wire(wire, wire[0].raw)
                        else:
                            self._pass(event)
                        continue
                    self._alter()
                self._take(event)
        except IllegalStream as error:
            error.before = b"".join(out)
            raise
        return out[0] if len(out) == 1 else b"".join(out)

    def finish(self) -> bytes:
        out: list[bytes] = []
        self._out = out
        if (self._queue or self._begun_wire) and not self._altered:
            self._alter()
        if not self._altered:
            self._release_held()
        try:
            if self._waiting is not None:
                self._release()
            if self._end_seen and not self._ended:
                self._put(EndEvent())
        except IllegalStream as error:
            error.before = b"".join(out)
            raise
        return b"".join(out)

    def heartbeat(self) -> bytes:
        return b": keep-alive\n\n"

    def refusal(self, text: str) -> bytes:
        if self._ended:
            return b""
        out: list[bytes] = []
        self._out = out
        if not self._altered:
            self._alter()
        self._waiting = None
        self._refuse(clean(text))
        self._ended = True
        return b"".join(out)

    # --- for a dialect to say ---

    def _learn(self, event: StreamEvent) -> None:
        """Note what is needed later of an event that is not a delta, when it is seen."""
        raise NotImplementedError

    def _pass(self, event: StreamEvent) -> None:
        """Pristine: send the bytes of a wire event of one event, and follow along. Never raises."""
        raise NotImplementedError

    def _pass_wire(self, events: list[StreamEvent], raw: bytes) -> None:
        """Pristine: the same for a wire event of several events."""
        raise NotImplementedError

    def _release_held(self) -> None:
        """Pristine: send what waited for content to come."""
        return

    def _place(self, event: StreamEvent) -> None:
        """Altered: send an untouched wire event of one event where it stands now."""
        raise NotImplementedError

    def _place_wire(self, wire: WireEvent, came: list[StreamEvent], whole: bool) -> None:
        """Altered: send what came of a wire event of several events; `whole` where all came in order."""
        raise NotImplementedError

    def _put(self, event: StreamEvent) -> None:
        """Altered: encode an event that is new or was changed."""
        raise NotImplementedError

    def _refuse(self, text: str) -> None:
        """End the stream with a refusal."""
        raise NotImplementedError

    # --- altered streams ---

    def _alter(self) -> None:
        """From here on the stream differs from the upstream's."""
        self._altered = True
        coming = [*self._begun_wire, *self._queue]
        begun = len(self._begun_wire)
        self._begun_wire.clear()
        self._queue.clear()
        self._remember(coming)
        if begun:
            wire = self._wires[id(coming[0])]
            for event in coming[:begun]:
                del self._wires[id(event)]
                wire.came.append(event)
            self._waiting = wire

    def _remember(self, events: Sequence[StreamEvent]) -> None:
        wire: list[StreamEvent] = []
        for event in events:
            if event.raw and wire:
                self._remember_wire(wire)
                wire = []
            wire.append(event)
        if wire:
            self._remember_wire(wire)

    def _remember_wire(self, events: list[StreamEvent]) -> None:
        if len(events) == 1:
            self._known[id(events[0])] = events[0].raw
            return
        wire = WireEvent(events)
        for event in events:
            self._wires[id(event)] = wire

    def _take(self, event: StreamEvent) -> None:
        wire = self._wires.get(id(event))
        if self._waiting is not None and wire is not self._waiting:
            self._release()
        raw = event.raw
        if wire is not None:
            del self._wires[id(event)]
            wire.came.append(event)
            self._waiting = wire
            if event is wire.events[-1]:
                self._release()
        elif raw and self._known.pop(id(event), None) is raw:
            self._place(event)
        else:
            self._put(event)

    def _release(self) -> None:
        """Send what came of the wire event that waits."""
        wire = self._waiting
        self._waiting = None
        if wire is not None:
            whole = wire.whole
            came, wire.came = wire.came, []
            self._place_wire(wire, came, whole)


# --- JSON and SSE ---


def clean(text: str) -> str:
    """Text that can be sent: lone surrogates become question marks."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


_LINE_BREAKS = ((b"\xc2\x85", b"\\u0085"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))
"""Characters that some clients take for the end of a line, and how JSON can say them."""


def to_json(value: Any) -> bytes:
    """JSON of a value made of plain values and Raw, on what every client takes for one line."""
    text = msgspec.json.encode(value)
    if not text.isascii():
        for character, escaped in _LINE_BREAKS:
            text = text.replace(character, escaped)
    return text


def sse_data(raw: bytes) -> bytes:
    """The data of one whole event; empty where there is none."""
    if raw.endswith(b"\n\n") and b"\r" not in raw:
        start = raw.find(b"\n") + 1 if raw.startswith(b"event: ") else 0
        if raw.startswith(b"data: ", start) and raw.find(b"\n", start) == len(raw) - 2:
            return raw[start + 6 : -2]
    parser = SseParser()
    for event in [*parser.feed(raw), *parser.finish()]:
        if event.data is not None:
            return event.data
    return b""


def sse_object(raw: bytes) -> JsonObject:
    """The JSON object in an event's data; empty where there is none."""
    value, _ = read(sse_data(raw), plain)
    return value if isinstance(value, dict) else {}


def sse_fields(raw: bytes) -> Fields:
    """The fields of the JSON object in an event's data, with their bytes; empty where there is none."""
    return fields_of(sse_data(raw))


def fields_of(data: bytes | Raw | Any) -> Fields:
    """The fields of a JSON object with their bytes; empty where it is none."""
    if not isinstance(data, bytes | Raw):
        return dict(data) if isinstance(data, dict) else {}
    fields: Fields | None = read(bytes(data), _fields.decode)[0]
    return fields or {}


def event_bytes(value: Any, name: str = "") -> bytes:
    """One SSE event."""
    if name:
        return b"event: " + name.encode() + b"\ndata: " + to_json(value) + b"\n\n"
    return b"data: " + to_json(value) + b"\n\n"


def illegal(rule: str, message: str) -> IllegalStream:
    return IllegalStream(rule, message)


def decoded(raw: Any) -> Any:
    """The plain value of Raw JSON; any other value as it is; None where it cannot be read."""
    if not isinstance(raw, Raw):
        return raw
    try:
        return plain(raw)
    except UNREADABLE:
        return None


def without(fields: Fields, names: Iterable[str]) -> Fields:
    return {name: value for name, value in fields.items() if name not in names}


# --- usage ---


def chat_usage_fields(usage: Usage) -> Fields:
    """Token counts as Chat Completions report them."""
    fields: Fields = {
        "prompt_tokens": usage.input_tokens or 0,
        "completion_tokens": usage.output_tokens or 0,
        "total_tokens": (usage.input_tokens or 0) + (usage.output_tokens or 0),
    }
    if usage.cached_input_tokens is not None:
        fields["prompt_tokens_details"] = {"cached_tokens": usage.cached_input_tokens}
    if usage.cache_write_tokens is not None:
        fields.setdefault("prompt_tokens_details", {})["cache_write_tokens"] = usage.cache_write_tokens
    if usage.reasoning_tokens is not None:
        fields["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return fields


def responses_usage_fields(usage: Usage) -> Fields:
    """Token counts as Responses report them."""
    return {
        "input_tokens": usage.input_tokens or 0,
        "input_tokens_details": {"cached_tokens": usage.cached_input_tokens or 0},
        "output_tokens": usage.output_tokens or 0,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": (usage.input_tokens or 0) + (usage.output_tokens or 0),
    }


def messages_usage_fields(usage: Usage) -> Fields:
    """Token counts as Anthropic reports them: input without what was read from or written to the cache."""
    fields: Fields = {}
    if usage.input_tokens is not None:
        cached = (usage.cached_input_tokens or 0) + (usage.cache_write_tokens or 0)
        fields["input_tokens"] = max(0, usage.input_tokens - cached)
    if usage.cached_input_tokens is not None:
        fields["cache_read_input_tokens"] = usage.cached_input_tokens
    if usage.cache_write_tokens is not None:
        fields["cache_creation_input_tokens"] = usage.cache_write_tokens
    fields["output_tokens"] = usage.output_tokens or 0
    if usage.reasoning_tokens is not None:
        fields["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return fields
