"""Encodes streams of Chat Completions and of legacy completions.

Each choice stands for itself: its tool calls are numbered from 0 without gaps, id and name come with the first piece of a call,
and `finish_reason` is changed only where the choice lost all its calls. `[DONE]` is last.
"""

from __future__ import annotations

from proxy_core.wire.conversation import (
    INSERTED,
    EndEvent,
    ErrorEvent,
    OpaqueEvent,
    StopEvent,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    UsageEvent,
)
from proxy_core.wire.encode_chat_chunks import Call, ChunkEncoder, SeenCall, call_piece, choices_with_role
from proxy_core.wire.encode_events import (
    Fields,
    WireEvent,
    chat_usage_fields,
    clean,
    event_bytes,
    illegal,
    sse_fields,
    sse_object,
)
from proxy_core.wire.tolerant_json import as_list, as_object

_DONE = b"data: [DONE]\n\n"
_CALL_REASONS = frozenset({"tool_calls", "function_call"})


class ChatEncoder(ChunkEncoder):
    """Encodes one stream of Chat Completions."""

    # --- pristine ---

    def _pass(self, event: StreamEvent) -> None:
        self._out.append(event.raw)
        kind = type(event)
        if kind is TextDelta:
            if event.index not in self._speakers:  # type: ignore[union-attr]
                self._follow(event, event.raw)
        elif kind is not ToolCallDelta:
            self._follow(event, event.raw)

    def _pass_wire(self, events: list[StreamEvent], raw: bytes) -> None:
        self._out.append(raw)
        for event in events:
            self._follow(event, raw)

    def _follow(self, event: StreamEvent, raw: bytes) -> None:
        if b'"role"' in raw:
            self._roles.update(choices_with_role(sse_object(raw)))
        if isinstance(event, ToolCallStart):
            self._begin_call(event, self._calls_seen.get(event.index))
        elif isinstance(event, ToolCallEnd):
            call = self._calls.get(event.index)
            if call is not None:
                call.ended = True
        elif isinstance(event, StopEvent):
            self._finished.add(event.choice)
        elif isinstance(event, EndEvent):
            self._ended = True
        elif isinstance(event, ErrorEvent):
            self._failed = True
        elif isinstance(event, TextDelta):
            self._choices.add(event.index)
            self._speakers[event.index] = False
        elif isinstance(event, ThinkingDelta):
            self._choices.add(event.index)

    def _begin_call(self, event: ToolCallStart, seen: SeenCall | None) -> Call:
        number = self._counts.get(event.choice, 0)
        if self._altered and event.choice in self._old_form:
            raise illegal("call_forms_apart", "a choice with a call of the old form cannot hold another")
        self._counts[event.choice] = number + 1
        self._choices.add(event.choice)
        self._name_call(event.index, event.call_id, made=self._altered and not event.raw and seen is None)
        call = self._calls[event.index] = Call(event.choice, number)
        if seen is not None:
            call.moved = number != seen.rank
            if call.moved:
                self._renumbered = True
            if b'"custom"' in seen.raw or b'"function_call"' in seen.raw:
                call.kind = self._wire_call(seen)[1]
                if call.kind == "function_call":
                    if self._altered and number:
                        raise illegal("call_forms_apart", "a call of the old form cannot follow another")
                    self._old_form.add(event.choice)
        return call

    # --- altered ---

    def _remember_wire(self, events: list[StreamEvent]) -> None:
        super()._remember_wire(events)
        for event in events:
            if isinstance(event, TextDelta | ThinkingDelta):
                self._choices_seen.add(event.index)

    def _place(self, event: StreamEvent) -> None:
        raw = event.raw
        kind = type(event)
        if kind is OpaqueEvent:
            self._place_opaque(event.kind, raw)  # type: ignore[union-attr]
            return
        self._check_end(event)
        if isinstance(event, TextDelta | ThinkingDelta):
            self._check_choice(event.index)
            if type(event) is TextDelta:
                self._speak(event.index, own=False)
            self._send_raw(raw, choices=(event.index,))
        elif isinstance(event, ToolCallStart):
            call = self._start(event)
            self._send_moved(raw, call) if call.moved else self._send_raw(raw, choices=(call.choice,))
        elif isinstance(event, ToolCallDelta):
            call = self._call(event.index)
            self._send_moved(raw, call) if call.moved else self._send_raw(raw, choices=(call.choice,))
        elif isinstance(event, ToolCallEnd):
            self._call(event.index).ended = True
            self._place_opaque("end", raw)
        elif isinstance(event, StopEvent):
            self._stop(event, raw)
        elif isinstance(event, EndEvent):
            self._end(raw)
        else:
            self._send_raw(raw)
            self._failed = isinstance(event, ErrorEvent)

    def _place_wire(self, wire: WireEvent, came: list[StreamEvent], whole: bool) -> None:
        """`ToolCallEnd` has no bytes of its own, so a wire event is whole without those."""
        said = [event for event in came if type(event) is not ToolCallEnd]
        expected = [event for event in wire.events if type(event) is not ToolCallEnd]
        whole = len(said) == len(expected) and all(one is other for one, other in zip(said, expected, strict=True))
        if not expected or not whole or self._must_be_split(said):
            fields = sse_fields(wire.raw) if said else {}
            for event in came:
                self._put_piece(event, fields)
            return
        stops: list[StopEvent] = []
        spoken: list[int] = []
        for event in came:
            self._check_end(event)
            if isinstance(event, TextDelta | ThinkingDelta):
                self._check_choice(event.index)
                spoken.append(event.index)
                if type(event) is TextDelta:
                    self._speak(event.index, own=False)
            elif isinstance(event, ToolCallStart):
                self._start(event)
            elif isinstance(event, ToolCallDelta):
                self._call(event.index)
            elif isinstance(event, ToolCallEnd):
                self._end_call(event.index)
            elif isinstance(event, StopEvent):
                self._check_choice(event.choice)
                stops.append(event)
        true = {event.choice: self._true_reason(event.choice, event.reason) for event in stops}
        reasons = {event.choice: true[event.choice] for event in stops if true[event.choice] != event.reason}
        self._send_raw(wire.raw, reasons, [*true, *spoken])
        self._finished.update(true)

    def _must_be_split(self, events: list[StreamEvent]) -> bool:
        """Whether a call among `events` does not keep its index."""
        begun: dict[int, int] = {}
        for event in events:
            if isinstance(event, ToolCallStart):
                seen = self._calls_seen.get(event.index)
                number = self._counts.get(event.choice, 0) + begun.get(event.choice, 0)
                begun[event.choice] = begun.get(event.choice, 0) + 1
                if seen is None or seen.rank != number:
                    return True
            elif isinstance(event, ToolCallDelta):
                call = self._calls.get(event.index)
                if call is not None and call.moved:
                    return True
        return False

    def _put(self, event: StreamEvent) -> None:
        self._put_piece(event, {})

    def _put_piece(self, event: StreamEvent, fields: Fields) -> None:
        """Encode one event; `fields` are those of the wire event that it came in."""
        self._check_end(event)
        if isinstance(event, TextDelta):
            choice = self._place_of_ours() if event.index == INSERTED else event.index
            if event.text:
                self._check_made(choice)
                self._speak(choice, own=event.index == INSERTED)
                self._send_delta(choice, {"content": clean(event.text)})
        elif isinstance(event, ThinkingDelta):
            if event.text:
                self._check_made(event.index)
                plain = self._thinking_seen and b'"reasoning_content"' not in self._thinking_seen
                self._send_delta(event.index, {"reasoning" if plain else "reasoning_content": clean(event.text)})
        elif isinstance(event, ToolCallStart):
            if not event.name:
                raise illegal("call_named", f"tool call {event.index} has no name")
            call = self._start(event)
            self._send_delta(call.choice, self._call_start(event, call))
        elif isinstance(event, ToolCallDelta):
            call = self._call(event.index)
            if event.arguments:
                self._send_delta(call.choice, call_piece(call, clean(event.arguments)))
        elif isinstance(event, ToolCallEnd):
            self._end_call(event.index)
        elif isinstance(event, StopEvent):
            self._stop(event, b"")
        elif isinstance(event, UsageEvent):
            usage = fields.get("usage") or chat_usage_fields(event.usage)
            self._out.append(event_bytes({**self._top(), "choices": [], "usage": usage}))
        elif isinstance(event, EndEvent):
            self._end(_DONE, early=not self._end_seen)
        elif isinstance(event, ErrorEvent):
            error = {"message": clean(event.error.message), "type": clean(event.error.type), "param": None, "code": None}
            self._out.append(event_bytes({"error": error}))
            self._failed = True

    def _refuse(self, text: str) -> None:
        for choice in () if self._failed else sorted(self._choices - self._finished):
            if text and choice == 0:
                self._speak(choice, own=True)
                self._send_delta(choice, {"content": text})
            self._send_choice(choice, {}, "content_filter")
        self._out.append(_DONE)

    # --- rules ---

    def _check_end(self, event: StreamEvent) -> None:
        if self._ended or (self._failed and not isinstance(event, EndEvent)):
            raise illegal("done_last", f"{type(event).__name__} comes after the stream's end")

    def _check_choice(self, choice: int) -> None:
        if choice in self._finished:
            raise illegal("delta_before_finish", f"choice {choice} goes on after its finish_reason")
        self._choices.add(choice)

    def _check_made(self, choice: int) -> None:
        """The same for what a policy made: it must not leave choices out."""
        if choice not in self._choices | self._choices_seen and choice - 1 not in self._choices:
            raise illegal("choice_contiguous", f"there is no choice {choice}")
        self._check_choice(choice)

    def _speak(self, choice: int, *, own: bool) -> None:
        """Text comes, of ours or the upstream's: what it does not continue, it is parted from."""
        if self._speakers.get(choice, own) != own:
            self._send_delta(choice, {"content": "\n\n"})
        self._speakers[choice] = own

    def _place_of_ours(self) -> int:
        """The choice that our own text goes to: the first that goes on."""
        return min(self._choices - self._finished, default=0)

    def _start(self, event: ToolCallStart) -> Call:
        self._check_choice(event.choice)
        if event.index in self._calls:
            raise illegal("call_started_once", f"tool call {event.index} starts twice")
        return self._begin_call(event, self._calls_seen.get(event.index))

    def _call(self, index: int) -> Call:
        call = self._calls.get(index)
        if call is None:
            raise illegal("delta_after_start", f"tool call {index} was never begun")
        if call.ended or call.choice in self._finished:
            raise illegal("delta_before_finish", f"tool call {index} goes on after its end")
        return call

    def _end_call(self, index: int) -> None:
        call = self._calls.get(index)
        if call is None:
            raise illegal("stop_after_start", f"tool call {index} was never begun")
        if call.ended:
            raise illegal("call_ended_once", f"tool call {index} ends twice")
        call.ended = True

    def _true_reason(self, choice: int, reason: str) -> str:
        """The reason, where it became false another; a false one of the upstream's own stays."""
        made = reason != self._reasons_seen.get(choice)
        calls = self._counts.get(choice)
        if reason in _CALL_REASONS and not calls and (made or self._counts_seen.get(choice)):
            return "stop"
        if reason == "stop" and calls and (made or not self._counts_seen.get(choice)):
            return "tool_calls"
        return reason

    def _stop(self, event: StopEvent, raw: bytes) -> None:
        if raw and event.choice in self._finished:
            return  # some upstreams end a choice a second time, with nothing new
        self._check_choice(event.choice)
        reason = self._true_reason(event.choice, clean(event.reason))
        if raw:
            self._send_raw(raw, {event.choice: reason} if reason != event.reason else {}, (event.choice,))
        else:
            self._send_choice(event.choice, self._role_owed(event.choice), reason)
        self._finished.add(event.choice)

    def _end(self, raw: bytes, *, early: bool = False) -> None:
        """End the stream: `early` where the upstream goes on."""
        for choice in () if self._failed else sorted((self._choices | self._roles) - self._finished):
            if early or self._reasons_seen or not self._first_chunks:
                self._stop(StopEvent(self._reasons_seen.get(choice, "stop"), b"", choice), b"")
        self._out.append(raw)
        self._ended = True

    def _place_opaque(self, kind: str, raw: bytes) -> None:
        """Chunks without an event of their own: role, filter results, empty pieces of calls."""
        if (self._ended or self._failed) and kind != "comment":
            raise illegal("done_last", "an event comes after the stream's end")
        if self._renumbered or len(self._calls) != len(self._calls_seen):
            fields = sse_object(raw) if b'"tool_calls"' in raw or b'"function_call"' in raw else {}
            for choice in as_list(fields.get("choices")):
                delta = as_object(as_object(choice).get("delta"))
                if delta.pop("tool_calls", None) or delta.pop("function_call", None):
                    if delta:
                        self._send_raw(event_bytes(fields))
                    return
        self._send_raw(raw)


class CompletionsEncoder(ChatEncoder):
    """Encodes one stream of legacy completions, which hold text and nothing else."""

    _object = "text_completion"
    _id_prefix = "cmpl-"

    def _send_delta(self, choice: int, delta: Fields) -> None:
        if "content" not in delta:
            raise illegal("text_only", "completions carry text only")
        self._send_text(choice, delta["content"], None)

    def _send_choice(self, choice: int, delta: Fields, reason: str | None) -> None:
        self._send_text(choice, "", reason)

    def _send_text(self, choice: int, text: str, reason: str | None) -> None:
        value = {"text": text, "index": choice, "logprobs": None, "finish_reason": reason}
        self._out.append(event_bytes({**self._top(), "choices": [value]}))
