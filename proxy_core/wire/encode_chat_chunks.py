"""Chunks of Chat Completions as the encoder writes them: templates, roles, and pieces of calls under their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxy_core.wire.conversation import (
    StopEvent,
    StreamEvent,
    ThinkingDelta,
    ToolCallStart,
)
from proxy_core.wire.encode_events import (
    EventEncoder,
    Fields,
    clean,
    event_bytes,
    sse_fields,
    sse_object,
    without,
)
from proxy_core.wire.tolerant_json import JsonObject, as_index, as_list, as_object, as_text

_OF_ONE_CHUNK = frozenset({"choices", "usage", "error", "x_groq", "obfuscation"})
"""Fields that are not taken over from one chunk into another."""


class Call:
    """A tool call that was begun at the client."""

    __slots__ = ("choice", "ended", "kind", "moved", "number")

    def __init__(self, choice: int, number: int, kind: str = "function") -> None:
        self.choice = choice
        self.number = number
        """Its index at the client."""
        self.kind = kind
        """`function`, `custom`, or `function_call` for the legacy form without index."""
        self.moved = False
        """Whether its index is another than the upstream's."""
        self.ended = False


class SeenCall:
    """A tool call of the upstream's."""

    __slots__ = ("choice", "name", "rank", "raw", "wire_id")

    def __init__(self, event: ToolCallStart, rank: int, raw: bytes) -> None:
        self.choice = event.choice
        self.rank = rank
        """How many calls of its choice came before."""
        self.raw = raw
        self.wire_id = event.call_id
        self.name = event.name


class ChunkEncoder(EventEncoder):
    """Learns from the upstream's chunks, and writes chunks."""

    _object = "chat.completion.chunk"
    _id_prefix = "chatcmpl-"

    def __init__(self, model: str = "", transaction_id: str = "") -> None:
        super().__init__(model, transaction_id)
        self._roles: set[int] = set()
        """Choices whose role was sent."""
        self._own_roles: set[int] = set()
        """Choices whose role we sent, because they began with something of ours."""
        self._first_chunks: list[bytes] = []
        self._thinking_seen = b""
        self._upstream_says_roles = False
        self._template: Fields | None = None
        self._calls_seen: dict[int, SeenCall] = {}
        self._counts_seen: dict[int, int] = {}
        self._reasons_seen: dict[int, str] = {}
        self._calls: dict[int, Call] = {}
        self._counts: dict[int, int] = {}
        """Calls that were begun at the client, by choice."""
        self._choices: set[int] = {0}
        self._choices_seen: set[int] = set()
        """Altered: choices of the upstream's."""
        self._finished: set[int] = set()
        self._failed = False
        """Whether an error was sent: nothing but the stream's end may follow."""
        self._speakers: dict[int, bool] = {}
        """Whether the last text of each choice was our own; a blank line stands between the upstream's and ours."""
        self._renumbered = False
        """Whether a call was left out or moved."""
        self._old_form: set[int] = set()
        """Choices with a call of the old form: it has no number, so it is the only one."""

    # --- learning ---

    def seen(self, events: Any) -> None:
        if len(self._first_chunks) < 2:
            self._first_chunks += [event.raw for event in events if event.raw and event.raw[:1] != b":"][:2]
            self._upstream_says_roles = any(b'"role"' in raw for raw in self._first_chunks)
        if not self._thinking_seen:
            self._thinking_seen = next((event.raw for event in events if type(event) is ThinkingDelta), b"")
        super().seen(events)
        if len(events) > 1 and self._calls_seen:
            self._learn_raws(events)

    def _learn(self, event: StreamEvent) -> None:
        if type(event) is ToolCallStart:
            rank = self._counts_seen.get(event.choice, 0)
            self._counts_seen[event.choice] = rank + 1
            self._calls_seen[event.index] = SeenCall(event, rank, event.raw)
        elif type(event) is StopEvent:
            self._reasons_seen[event.choice] = event.reason

    def _learn_raws(self, events: Any) -> None:
        """Where a call did not begin its wire event, note the bytes in which it stands."""
        raw = b""
        for event in events:
            raw = event.raw or raw
            if type(event) is ToolCallStart and not event.raw:
                self._calls_seen[event.index].raw = raw

    # --- bytes ---

    def _top(self) -> Fields:
        """The fields that every chunk of this stream has."""
        if self._template is None:
            self._template = {}
            for raw in self._first_chunks:
                fields = sse_fields(raw)
                if not self._template or self._template.get("id") in (None, b'""'):
                    self._template |= without(fields, _OF_ONE_CHUNK)
        if not self._template:
            self._template = {
                "id": f"{self._id_prefix}{self._transaction_id or 'luthien'}",
                "object": self._object,
                "created": 0,
                "model": self._model,
            }
        return self._template

    def _send_delta(self, choice: int, delta: Fields) -> None:
        self._send_choice(choice, {**self._role_owed(choice), **delta}, None)

    def _role_owed(self, choice: int) -> Fields:
        """The role, where a choice begins with something of ours."""
        if choice in self._roles:
            return {}
        self._roles.add(choice)
        self._own_roles.add(choice)
        return {"role": "assistant"}

    def _send_choice(self, choice: int, delta: Fields, reason: str | None) -> None:
        value = {"index": choice, "delta": delta, "logprobs": None, "finish_reason": reason}
        self._out.append(event_bytes({**self._top(), "choices": [value]}))

    def _send_raw(self, raw: bytes, reasons: dict[int, str] | None = None, choices: Sequence[int] = ()) -> None:
        """An untouched chunk, with other reasons where its own became false, and with the role of each choice once.

        `choices` are those that the chunk says something of.
        """
        says_role = b'"role"' in raw
        lacks_role = self._upstream_says_roles and not says_role and any(choice not in self._roles for choice in choices)
        if not reasons and not says_role and not lacks_role:
            self._out.append(raw)
            return
        fields: JsonObject = sse_object(raw)
        changed = bool(reasons)
        for value in as_list(fields.get("choices")):
            one = as_object(value)
            index = as_index(one.get("index"))
            delta = one.get("delta")
            if reasons and index in reasons:
                one["finish_reason"] = reasons[index]
            if isinstance(delta, dict) and "role" in delta and index in self._own_roles:
                del delta["role"]
                changed = True
            elif isinstance(delta, dict) and lacks_role and index in choices and index not in self._roles:
                delta["role"] = "assistant"
                self._own_roles.add(index)
                changed = True
            if isinstance(delta, dict) and "role" in delta:
                self._roles.add(index)
        self._out.append(event_bytes({**sse_fields(raw), "choices": fields["choices"]}) if changed else raw)

    def _send_moved(self, raw: bytes, call: Call) -> None:
        """A chunk with one piece of one call, under the call's new index."""
        fields: JsonObject = sse_object(raw)
        for choice in as_list(fields.get("choices")):
            for piece in as_list(as_object(as_object(choice).get("delta")).get("tool_calls")):
                if isinstance(piece, dict):
                    piece["index"] = call.number
        self._send_raw(event_bytes({**sse_fields(raw), "choices": fields.get("choices")}), choices=(call.choice,))

    def _wire_call(self, seen: SeenCall) -> tuple[JsonObject, str]:
        """The first piece of a call as the upstream sent it, and its kind."""
        for choice in as_list(sse_object(seen.raw).get("choices")):
            delta = as_object(as_object(choice).get("delta")) or as_object(as_object(choice).get("message"))
            for piece in as_list(delta.get("tool_calls")):
                fields = as_object(piece)
                kind = "custom" if isinstance(fields.get("custom"), dict) else "function"
                if as_text(fields.get("id")) == seen.wire_id and as_text(as_object(fields.get(kind)).get("name")) == seen.name:
                    return fields, kind
            if isinstance(delta.get("function_call"), dict) and as_index(choice.get("index")) == seen.choice:
                return as_object(delta["function_call"]), "function_call"
        return {}, "function"

    def _call_start(self, event: ToolCallStart, call: Call) -> Fields:
        name = clean(event.name)
        if call.kind == "function_call":
            return {"function_call": {"name": name, "arguments": ""}}
        seen = self._calls_seen.get(event.index)
        fields = self._wire_call(seen)[0] if seen is not None else {}
        field = "input" if call.kind == "custom" else "arguments"
        function = {**as_object(fields.get(call.kind)), "name": name, field: ""}
        call_id = clean(event.call_id) or f"call_{self._transaction_id}{call.choice}_{call.number}"
        return {"tool_calls": [{**fields, "index": call.number, "id": call_id, "type": call.kind, call.kind: function}]}


def choices_with_role(fields: JsonObject) -> list[int]:
    choices = [as_object(choice) for choice in as_list(fields.get("choices"))]
    return [as_index(choice.get("index")) for choice in choices if "role" in as_object(choice.get("delta"))]


def call_piece(call: Call, arguments: str) -> Fields:
    if call.kind == "function_call":
        return {"function_call": {"arguments": arguments}}
    field = "input" if call.kind == "custom" else "arguments"
    return {"tool_calls": [{"index": call.number, call.kind: {field: arguments}}]}
