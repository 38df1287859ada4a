"""Streams from one dialect into another, event by event. Never raises once it was made.

The upstream's events are read by its decoder, said again in order, one block at a time, and written by the client's encoder.
What comes while a tool call is open waits for the call's end, because Messages and Ollama cannot say two things at once.
The same bytes give the same bytes, however they are cut.
"""

from __future__ import annotations

from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import (
    Answer,
    AnswerError,
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
    Usage,
    UsageEvent,
)
from proxy_core.wire.dialects import Operation
from proxy_core.wire.editing_json import UnreadableBody
from proxy_core.wire.encode_events import clean, event_bytes, sse_object, to_json
from proxy_core.wire.encoder import IllegalStream, StreamEncoder, encoder_for
from proxy_core.wire.errors import stream_error
from proxy_core.wire.refusal import unix_seconds
from proxy_core.wire.stream_editing import opening_of
from proxy_core.wire.tolerant_json import JsonObject, as_list, as_object, as_text, plain, read
from proxy_core.wire.translate.answers import DIALECTS, NAMELESS, created_at, made_call_id
from proxy_core.wire.translate.requests import can_translate
from proxy_core.wire.translate.words import error_words, stop_word

_ID_PREFIXES = {Operation.CHAT: "chatcmpl-", Operation.MESSAGES: "msg_", Operation.OLLAMA_CHAT: ""}
_NO_STREAM = "The upstream's answer is no stream."


class _Block:
    """A text, some thinking or a call, from its first event to its last."""

    __slots__ = ("ended", "kind", "number", "said", "waiting")

    def __init__(self, kind: str, number: int) -> None:
        self.kind = kind
        """`text`, `thinking` or `call`."""
        self.number = number
        """Its index at the client."""
        self.waiting: list[StreamEvent] = []
        self.said = False
        """Whether any of a call's arguments have come."""
        self.ended = False


class StreamTranslator:
    """Translates one stream of an upstream that speaks `source` for a client that speaks `target`."""

    def __init__(
        self, source: Operation, target: Operation, *, transaction_id: str, model: str = "", stream_usage: bool = True
    ) -> None:
        """`model` is named where the upstream names none; `stream_usage` gives Chat Completions their chunk of counts.

        Raises UnreadableBody where the two operations have nothing to say to each other.
        """
        codec, own_codec = codec_for(source), codec_for(target)
        if codec is None or own_codec is None or not can_translate(target, source):
            raise UnreadableBody(f"{source.value} cannot be translated to {target.value}")
        self._source = source
        self._target = target
        self._transaction_id = clean(transaction_id)
        self._model = model
        self._response_id = ""
        self._stream_usage = stream_usage
        self._decoder = codec.stream_decoder()
        self._own_codec = own_codec
        self._encoder: StreamEncoder | None = None
        """None until the stream was opened at the client."""
        self._out: list[bytes] = []
        self._over = False
        self._raw = b""
        """The wire event that is being read."""
        self._queue: list[_Block] = []
        """Blocks that are not over at the client; the first of them is being said."""
        self._calls: dict[int, _Block] = {}
        """Calls by their index at the upstream."""
        self._blocks_begun = 0
        self._calls_begun = 0
        self._signature = ""
        self._usage: Usage | None = None
        self._reason: str | None = None
        self._refused = False

    @property
    def usage(self) -> Usage | None:
        """The upstream's counts as far as they have come, also where the client wants none."""
        return self._usage

    def feed(self, chunk: bytes) -> bytes:
        """What the client gets for the next bytes of the upstream's."""
        return self._translated(self._decoder.feed(chunk))

    def finish(self) -> bytes:
        """What the client is owed when the upstream's bytes have ended.

        A stream whose model said why it stopped is ended for the client; one that was cut off stays without its end.
        """
        if self._over:
            return b""
        rest = self._decoder.rest
        if self._encoder is None and self._source is not Operation.OLLAMA_CHAT and rest.lstrip()[:1] in (b"{", b"[", b"<"):
            return self._fail(self._decoder.finish().error or AnswerError("", _NO_STREAM))
        out = self._translated(self._decoder.feed(b"\n" if self._source is Operation.OLLAMA_CHAT else b"\n\n")) if rest else b""
        self._out = []
        if self._reason is not None:
            self._end()
        else:
            self._say_waiting(everything=True)
        self._over = True
        return out + b"".join(self._out)

    # --- reading ---

    def _translated(self, events: list[StreamEvent]) -> bytes:
        self._out = []
        for event in events:
            if self._over:
                break
            self._raw = event.raw or self._raw
            self._take(event)
        return b"".join(self._out)

    def _take(self, event: StreamEvent) -> None:
        if isinstance(event, ErrorEvent):
            self._out.append(self._fail(event.error))
            return
        if self._encoder is None and event.raw and self._first_fields().get("model"):
            self._open()
        if isinstance(event, TextDelta | ThinkingDelta):
            if event.text and (self._source is not Operation.CHAT or event.index == 0):
                self._say("text" if isinstance(event, TextDelta) else "thinking", event.text)
        elif isinstance(event, ToolCallStart):
            if event.choice == 0:
                self._call(event)
        elif isinstance(event, ToolCallDelta | ToolCallEnd):
            self._go_on(event)
        elif isinstance(event, UsageEvent):
            self._usage = event.usage
        elif isinstance(event, StopEvent):
            if event.choice == 0:
                self._reason = event.reason
        elif isinstance(event, EndEvent):
            self._end()
        else:
            self._take_opaque(event)

    def _say(self, kind: str, text: str) -> None:
        if not self._queue or self._queue[-1].kind != kind:
            self._begin(kind)
        block = self._queue[-1]
        index = 0 if self._target is Operation.CHAT else block.number
        block.waiting.append(TextDelta(index, text) if kind == "text" else ThinkingDelta(index, text))
        self._say_waiting()

    def _begin(self, kind: str) -> _Block:
        block = _Block(kind, self._blocks_begun)
        self._blocks_begun += 1
        self._queue.append(block)
        return block

    def _call(self, event: ToolCallStart) -> None:
        if not event.name:
            self._out.append(self._fail(AnswerError("", NAMELESS)))
            return
        block = self._calls[event.index] = self._begin("call")
        call_id = event.call_id or made_call_id(self._transaction_id, self._calls_begun)
        self._calls_begun += 1
        block.waiting.append(ToolCallStart(block.number, call_id, event.name))
        self._say_waiting()

    def _go_on(self, event: ToolCallDelta | ToolCallEnd) -> None:
        block = self._calls.get(event.index)
        if block is None or block.ended:
            return
        if isinstance(event, ToolCallEnd):
            block.ended = True
        elif event.arguments:
            block.said = True
            block.waiting.append(ToolCallDelta(block.number, event.arguments))
        self._say_waiting()

    def _take_opaque(self, event: OpaqueEvent) -> None:
        """What is not of the canonical form: signatures, refusals and signs of life; the rest has no words at the client."""
        if event.kind in ("ping", "comment"):
            if self._encoder is not None:
                self._out.append(self._encoder.heartbeat())
        elif event.kind == "refusal":
            choice = as_object(next(iter(as_list(sse_object(self._raw).get("choices"))), None))
            self._refused = True
            self._say("text", as_text(as_object(choice.get("delta")).get("refusal")))
        elif event.kind == "signature_delta":
            self._signature += as_text(as_object(sse_object(event.raw).get("delta")).get("signature"))
        elif event.kind == "content_block_stop" and self._signature:
            self._sign()

    def _sign(self) -> None:
        """Tell a client of Chat Completions what its next request must bring back."""
        signature, self._signature = self._signature, ""
        if self._target is not Operation.CHAT or not self._queue or self._queue[-1].kind != "thinking":
            return
        delta = {"reasoning_details": [{"type": "reasoning.text", "signature": clean(signature)}]}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        top = {"id": self._response_id, "object": "chat.completion.chunk", "created": unix_seconds(self._transaction_id)}
        chunk = event_bytes({**top, "model": self._model, "choices": [choice]})
        self._queue[-1].waiting += self._own_codec.stream_decoder().feed(chunk)
        self._say_waiting()

    # --- saying ---

    def _say_waiting(self, *, everything: bool = False) -> None:
        """Say what the first block has, and what follows it as soon as it is over."""
        while self._queue:
            block = self._queue[0]
            waiting, block.waiting = block.waiting, []
            for event in waiting:
                self._encode(event)
            over = block.ended if block.kind == "call" else len(self._queue) > 1
            if not over and not everything:
                return
            if block.kind == "call":
                if not block.said and self._target is Operation.CHAT:
                    self._encode(ToolCallDelta(block.number, "{}"))
                self._encode(ToolCallEnd(block.number))
            self._queue.pop(0)

    def _end(self) -> None:
        """The end of the message: why it stopped, what it cost, and the terminator."""
        if self._over:
            return
        self._open()
        self._say_waiting(everything=True)
        reason = "refusal" if self._refused else self._reason
        stop = StopEvent(stop_word(self._target, reason, calls=self._calls_begun > 0))
        wanted = self._usage is not None and (self._stream_usage or self._target is not Operation.CHAT)
        usage: list[StreamEvent] = [UsageEvent(self._usage)] if wanted and self._usage is not None else []
        for event in [stop, *usage] if self._target is Operation.CHAT else [*usage, stop]:
            self._encode(event)
        self._encode(EndEvent())
        self._over = True

    def _encode(self, event: StreamEvent) -> None:
        if self._over:
            return
        encoder = self._encoder or self._open()
        try:
            if event.raw:
                encoder.seen([event])
            self._out.append(encoder.encode([event]))
        except IllegalStream as error:
            self._out.append(error.before)
            self._out.append(self._fail(AnswerError("", f"The upstream's answer cannot be said to this client: {error}.")))

    def _fail(self, error: AnswerError) -> bytes:
        """The error that ends the stream."""
        self._over = True
        words = error_words(0, error.type)
        return stream_error(
            DIALECTS[self._target],
            self._target,
            message=error.message or "The upstream reported an error.",
            openai_type=words.openai_type,
            openai_code=words.openai_code,
            anthropic_type=words.anthropic_type,
            transaction_id=self._transaction_id,
        )

    # --- the beginning ---

    def _open(self) -> StreamEncoder:
        """Open the stream at the client, with the upstream's id and model where it has given them."""
        if self._encoder is not None:
            return self._encoder
        said = self._first_fields()
        self._model = clean(as_text(said.get("model")) or self._model)
        self._response_id = clean(as_text(said.get("id"))) or f"{_ID_PREFIXES[self._target]}{self._transaction_id}"
        encoder = encoder_for(self._target, model=self._model, transaction_id=self._transaction_id)
        if encoder is None:
            raise AssertionError(f"{self._target.value} has no streams")
        self._encoder = encoder
        if self._target is Operation.OLLAMA_CHAT:
            top = {"model": self._model, "created_at": created_at(self._transaction_id)}
            line = to_json({**top, "message": {"role": "assistant", "content": ""}, "done": False}) + b"\n"
            encoder.seen(self._own_codec.stream_decoder().feed(line))
            return encoder
        answer = Answer(model=self._model, response_id=self._response_id)
        opening = opening_of(self._target, answer, self._transaction_id, unix_seconds(self._transaction_id))
        events = self._own_codec.stream_decoder().feed(opening)
        encoder.seen(events)
        self._out.append(encoder.encode(events))
        return encoder

    def _first_fields(self) -> JsonObject:
        if self._source is Operation.OLLAMA_CHAT:
            return as_object(read(self._raw, plain)[0])
        fields = sse_object(self._raw)
        return as_object(fields.get("message")) if self._source is Operation.MESSAGES else fields
