"""Streams that use much of each dialect's grammar, written as their servers write them; and what policies may do to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import strategies as st

from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import (
    INSERTED,
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


def data(value: Any) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def named(value: dict[str, Any]) -> bytes:
    return b"event: " + str(value["type"]).encode() + b"\n" + data(value)


# --- chat ---


def chunk(delta: dict[str, Any] | None, *, choice: int = 0, finish: str | None = None, **more: Any) -> bytes:
    choices = [] if delta is None else [{"index": choice, "delta": delta, "logprobs": None, "finish_reason": finish}]
    top = {"id": "chatcmpl-7", "object": "chat.completion.chunk", "created": 17, "model": "g-1", "system_fingerprint": "fp_1"}
    return data({**top, "choices": choices, **more})


def chat_call(index: int, call_id: str, name: str, arguments: str = "") -> dict[str, Any]:
    return {
        "tool_calls": [{"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}]
    }


def chat_piece(index: int, arguments: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}


USAGE = {"prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 29, "x_detail": {"kept": 1}}
CHAT_TOOLS = b"".join(
    [
        b": hello\n\n",
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning_content": "hm, "}),
        chunk({"content": "Let me "}),
        chunk({"content": "look — 巴黎."}),
        chunk(chat_call(0, "call_a", "bash")),
        chunk(chat_piece(0, '{"command": ')),
        chunk(chat_piece(0, '"ls"}')),
        chunk(chat_call(1, "call_b", "read", '{"path"')),
        chunk(chat_piece(1, ': "a"}')),
        chunk({}, finish="tool_calls"),
        chunk(None, usage=USAGE),
        b"data: [DONE]\n\n",
    ]
)
CHAT_ONE_CALL = b"".join(
    [
        chunk({"role": "assistant", "content": None, **chat_call(0, "call_a", "bash", '{"command": "ls"}')}),
        chunk({}, finish="tool_calls", usage=USAGE),
        b"data: [DONE]\n\n",
    ]
)
CHAT_TWO_CHOICES = b"".join(
    [
        chunk({"role": "assistant", "content": "a"}),
        chunk({"role": "assistant", "content": "b"}, choice=1),
        chunk(chat_call(0, "call_x", "one", "{}")),
        chunk(chat_call(0, "call_y", "two", "{}"), choice=1),
        chunk({"content": " more"}, choice=1),
        chunk({}, finish="tool_calls"),
        chunk({}, choice=1, finish="tool_calls"),
        b"data: [DONE]\n\n",
    ]
)
CHAT_LEGACY_CALL = b"".join(
    [
        chunk({"role": "assistant", "content": None, "function_call": {"name": "bash", "arguments": ""}}),
        chunk({"function_call": {"arguments": '{"command"'}}),
        chunk({"function_call": {"arguments": ': "ls"}'}}),
        chunk({}, finish="function_call"),
        b"data: [DONE]\n\n",
    ]
)
COMPLETIONS = b"".join(
    data({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "g", "choices": [choice]})
    for choice in (
        {"text": "Once ", "index": 0, "logprobs": None, "finish_reason": None},
        {"text": "upon", "index": 0, "logprobs": None, "finish_reason": None},
        {"text": "", "index": 0, "logprobs": None, "finish_reason": "stop"},
    )
) + (b"data: [DONE]\n\n")

# --- messages ---


def block_start(index: int, block: dict[str, Any]) -> bytes:
    return named({"type": "content_block_start", "index": index, "content_block": block})


def block_delta(index: int, kind: str, field: str, value: str) -> bytes:
    return named({"type": "content_block_delta", "index": index, "delta": {"type": kind, field: value}})


def block_stop(index: int) -> bytes:
    return named({"type": "content_block_stop", "index": index})


def text_block(index: int, *texts: str) -> bytes:
    deltas = b"".join(block_delta(index, "text_delta", "text", text) for text in texts)
    return block_start(index, {"type": "text", "text": ""}) + deltas + block_stop(index)


def tool_block(index: int, call_id: str, name: str, *pieces: str) -> bytes:
    deltas = b"".join(block_delta(index, "input_json_delta", "partial_json", piece) for piece in pieces)
    return block_start(index, {"type": "tool_use", "id": call_id, "name": name, "input": {}}) + deltas + block_stop(index)


THINKING = (
    block_start(0, {"type": "thinking", "thinking": "", "signature": ""})
    + block_delta(0, "thinking_delta", "thinking", "hm, ")
    + block_delta(0, "thinking_delta", "thinking", "so")
    + block_delta(0, "signature_delta", "signature", "c2ln+/=")
    + block_stop(0)
)
MESSAGE_START = named(
    {
        "type": "message_start",
        "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "c-1", "content": [], "stop_reason": None,
                    "stop_sequence": None, "usage": {"input_tokens": 7, "cache_read_input_tokens": 3, "output_tokens": 1}},
    }
)  # fmt: skip
PING = named({"type": "ping"})


def message_end(reason: str) -> bytes:
    delta = {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": {"output_tokens": 42}}
    return named(delta) + named({"type": "message_stop"})


MESSAGES_TOOLS = (
    MESSAGE_START
    + PING
    + THINKING
    + text_block(1, "Let me ", "look — 巴黎.")
    + tool_block(2, "toolu_a", "bash", '{"command": ', '"ls"}')
    + PING
    + tool_block(3, "toolu_b", "read", '{"path": "a"}')
    + message_end("tool_use")
)
MESSAGES_ONE_CALL = MESSAGE_START + tool_block(0, "toolu_a", "bash", '{"command": "ls"}') + message_end("tool_use")
MESSAGES_TEXT = MESSAGE_START + text_block(0, "Hello ", "world") + message_end("end_turn")
MESSAGES_SERVER_TOOL = (
    MESSAGE_START
    + text_block(0, "Searching")
    + block_start(1, {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}})
    + block_delta(1, "input_json_delta", "partial_json", '{"query": "x"}')
    + block_stop(1)
    + block_start(2, {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []})
    + block_stop(2)
    + text_block(3, "Found")
    + block_start(4, {"type": "tool_use", "id": "toolu_w", "name": "write", "input": {"path": "b"}})
    + block_stop(4)
    + message_end("tool_use")
)

# --- responses ---


class ResponsesScript:
    """Writes the events of a Responses stream with their numbers, and the response that they add up to."""

    def __init__(self) -> None:
        self.out = b""
        self.number = 0
        self.items: list[dict[str, Any]] = []
        self.whole = {"id": "resp_1", "object": "response", "created_at": 3, "status": "in_progress", "error": None,
                      "incomplete_details": None, "instructions": None, "metadata": {}, "model": "r-1", "output": [],
                      "parallel_tool_calls": True, "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0,
                      "usage": None}  # fmt: skip
        self.say("response.created", response=self.whole)
        self.say("response.in_progress", response=self.whole)

    def say(self, kind: str, **fields: Any) -> None:
        self.out += named({"type": kind, **fields, "sequence_number": self.number})
        self.number += 1

    def done(self, item: dict[str, Any]) -> None:
        self.say("response.output_item.done", output_index=len(self.items), item=item)
        self.items.append(item)

    def reasoning(self, *summaries: tuple[str, ...]) -> ResponsesScript:
        at, item_id = len(self.items), f"rs_{len(self.items)}"
        item: dict[str, Any] = {"id": item_id, "type": "reasoning", "summary": []}
        self.say("response.output_item.added", output_index=at, item=item)
        parts = []
        for index, texts in enumerate(summaries):
            place = {"item_id": item_id, "output_index": at, "summary_index": index}
            whole = {"type": "summary_text", "text": "".join(texts)}
            self.say("response.reasoning_summary_part.added", **place, part={**whole, "text": ""})
            for text in texts:
                self.say("response.reasoning_summary_text.delta", **place, delta=text)
            self.say("response.reasoning_summary_text.done", **place, text=whole["text"])
            self.say("response.reasoning_summary_part.done", **place, part=whole)
            parts.append(whole)
        self.done({**item, "encrypted_content": "Zm9v", "summary": parts})
        return self

    def message(self, *parts: tuple[str, ...]) -> ResponsesScript:
        at, item_id = len(self.items), f"msg_{len(self.items)}"
        item = {"id": item_id, "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        self.say("response.output_item.added", output_index=at, item=item)
        wholes = []
        for index, texts in enumerate(parts):
            place = {"item_id": item_id, "output_index": at, "content_index": index}
            part = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
            self.say("response.content_part.added", **place, part=part)
            for text in texts:
                self.say("response.output_text.delta", **place, delta=text, logprobs=[])
            whole = {**part, "text": "".join(texts)}
            self.say("response.output_text.done", **place, text=whole["text"], logprobs=[])
            self.say("response.content_part.done", **place, part=whole)
            wholes.append(whole)
        self.done({**item, "status": "completed", "content": wholes})
        return self

    def call(self, call_id: str, name: str, *pieces: str, kind: str = "function_call") -> ResponsesScript:
        at, item_id = len(self.items), f"fc_{len(self.items)}"
        field, events = (
            ("input", "custom_tool_call_input") if kind == "custom_tool_call" else ("arguments", "function_call_arguments")
        )
        item = {"id": item_id, "type": kind, "status": "in_progress", field: "", "call_id": call_id, "name": name}
        self.say("response.output_item.added", output_index=at, item=item)
        for piece in pieces:
            self.say(f"response.{events}.delta", item_id=item_id, output_index=at, delta=piece)
        self.say(f"response.{events}.done", item_id=item_id, output_index=at, **{field: "".join(pieces)})
        self.done({**item, "status": "completed", field: "".join(pieces)})
        return self

    def whole_call(self, call_id: str, name: str, arguments: str) -> ResponsesScript:
        """A call whose arguments are said only where they end."""
        at, item_id = len(self.items), f"fc_{len(self.items)}"
        item = {"id": item_id, "type": "function_call", "status": "in_progress", "arguments": "", "call_id": call_id,
                "name": name}  # fmt: skip
        self.say("response.output_item.added", output_index=at, item=item)
        self.say("response.function_call_arguments.done", item_id=item_id, output_index=at, arguments=arguments)
        self.done({**item, "status": "completed", "arguments": arguments})
        return self

    def refusal(self, *texts: str) -> ResponsesScript:
        at, item_id = len(self.items), f"msg_{len(self.items)}"
        item = {"id": item_id, "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        place = {"item_id": item_id, "output_index": at, "content_index": 0}
        whole = {"type": "refusal", "refusal": "".join(texts)}
        self.say("response.output_item.added", output_index=at, item=item)
        self.say("response.content_part.added", **place, part={**whole, "refusal": ""})
        for text in texts:
            self.say("response.refusal.delta", **place, delta=text)
        self.say("response.refusal.done", **place, refusal=whole["refusal"])
        self.say("response.content_part.done", **place, part=whole)
        self.done({**item, "status": "completed", "content": [whole]})
        return self

    def reasoning_text(self, *texts: str) -> ResponsesScript:
        at, item_id = len(self.items), f"rs_{len(self.items)}"
        item: dict[str, Any] = {"id": item_id, "type": "reasoning", "summary": [], "content": []}
        place = {"item_id": item_id, "output_index": at, "content_index": 0}
        whole = {"type": "reasoning_text", "text": "".join(texts)}
        self.say("response.output_item.added", output_index=at, item=item)
        self.say("response.content_part.added", **place, part={**whole, "text": ""})
        for text in texts:
            self.say("response.reasoning_text.delta", **place, delta=text)
        self.say("response.reasoning_text.done", **place, text=whole["text"])
        self.say("response.content_part.done", **place, part=whole)
        self.done({**item, "content": [whole]})
        return self

    def search(self) -> ResponsesScript:
        at, item_id = len(self.items), f"ws_{len(self.items)}"
        action = {"type": "search", "query": "x"}
        item = {"id": item_id, "type": "web_search_call", "status": "in_progress", "action": action}
        self.say("response.output_item.added", output_index=at, item=item)
        for state in ("in_progress", "searching", "completed"):
            self.say(f"response.web_search_call.{state}", output_index=at, item_id=item_id)
        self.done({**item, "status": "completed"})
        return self

    def shell(self, call_id: str, command: list[str]) -> ResponsesScript:
        item = {"id": f"lsh_{len(self.items)}", "type": "local_shell_call", "status": "in_progress", "call_id": call_id,
                "action": {"type": "exec", "command": command, "env": {}}}  # fmt: skip
        self.say("response.output_item.added", output_index=len(self.items), item=item)
        self.done({**item, "status": "completed"})
        return self

    def end(self) -> bytes:
        usage = {"input_tokens": 5, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 7,
                 "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 12}  # fmt: skip
        response = {**self.whole, "status": "completed", "output": self.items, "usage": usage}
        self.say("response.completed", response=response)
        return self.out


RESPONSES_TOOLS = (
    ResponsesScript()
    .reasoning(("hm, ", "so"), ("then",))
    .message(("Let me ", "look — 巴黎."), ("And more.",))
    .call("call_a", "bash", '{"command": ', '"ls"}')
    .call("call_b", "read", '{"path": "a"}')
    .end()
)
RESPONSES_ONE_CALL = ResponsesScript().call("call_a", "bash", '{"command": "ls"}').end()
RESPONSES_TEXT = ResponsesScript().message(("Hello ", "world")).end()
RESPONSES_OTHER_CALLS = (
    ResponsesScript()
    .call("call_p", "patch", "*** Begin", " Patch", kind="custom_tool_call")
    .shell("call_s", ["rm", "-rf", "/"])
    .message(("done",))
    .end()
)
RESPONSES_OTHER_PARTS = (
    ResponsesScript()
    .reasoning_text("hm, ", "so")
    .search()
    .message(("Found ", "it."))
    .whole_call("call_w", "bash", '{"command": "ls"}')
    .refusal("I ", "cannot")
    .end()
)

# --- ollama ---


def line(message: dict[str, Any], **more: Any) -> bytes:
    value = {"model": "o-1", "created_at": "2025-01-01T00:00:00.5Z", "message": {"role": "assistant", "content": "", **message}}
    return json.dumps({**value, "done": False, **more}, ensure_ascii=False).encode() + b"\n"


def ollama_call(name: str, arguments: dict[str, Any], index: int) -> dict[str, Any]:
    return {"function": {"index": index, "name": name, "arguments": arguments}}


COUNTS = {"total_duration": 9, "prompt_eval_count": 11, "eval_count": 5}
OLLAMA_TOOLS = b"".join(
    [
        line({"thinking": "hm"}),
        line({"content": "Let me "}),
        line({"content": "look — 巴黎."}),
        line({"tool_calls": [ollama_call("bash", {"command": "ls"}, 0), ollama_call("read", {"path": "a"}, 1)]}),
        line({}, done=True, done_reason="stop", **COUNTS),
    ]
)
OLLAMA_ONE_CALL = line({"tool_calls": [ollama_call("bash", {"command": "ls"}, 0)]}) + line(
    {}, done=True, done_reason="stop", **COUNTS
)
OLLAMA_TEXT = line({"content": "Hello "}) + line({"content": "world"}, done=True, done_reason="stop", **COUNTS)
OLLAMA_GENERATE = b"".join(
    json.dumps({"model": "o-1", "created_at": "2025-01-01T00:00:00Z", **fields}).encode() + b"\n"
    for fields in ({"response": "Once ", "done": False}, {"response": "upon", "done": False},
                   {"response": "", "done": True, "done_reason": "stop", **COUNTS})
)  # fmt: skip

STREAMS: dict[str, tuple[Operation, bytes]] = {
    "chat tools": (Operation.CHAT, CHAT_TOOLS),
    "chat one call": (Operation.CHAT, CHAT_ONE_CALL),
    "chat two choices": (Operation.CHAT, CHAT_TWO_CHOICES),
    "chat legacy call": (Operation.CHAT, CHAT_LEGACY_CALL),
    "completions": (Operation.COMPLETIONS, COMPLETIONS),
    "messages tools": (Operation.MESSAGES, MESSAGES_TOOLS),
    "messages one call": (Operation.MESSAGES, MESSAGES_ONE_CALL),
    "messages text": (Operation.MESSAGES, MESSAGES_TEXT),
    "messages server tool": (Operation.MESSAGES, MESSAGES_SERVER_TOOL),
    "responses tools": (Operation.RESPONSES, RESPONSES_TOOLS),
    "responses one call": (Operation.RESPONSES, RESPONSES_ONE_CALL),
    "responses text": (Operation.RESPONSES, RESPONSES_TEXT),
    "responses other calls": (Operation.RESPONSES, RESPONSES_OTHER_CALLS),
    "responses other parts": (Operation.RESPONSES, RESPONSES_OTHER_PARTS),
    "ollama tools": (Operation.OLLAMA_CHAT, OLLAMA_TOOLS),
    "ollama one call": (Operation.OLLAMA_CHAT, OLLAMA_ONE_CALL),
    "ollama text": (Operation.OLLAMA_CHAT, OLLAMA_TEXT),
    "ollama generate": (Operation.OLLAMA_GENERATE, OLLAMA_GENERATE),
}


def decode(operation: Operation, body: bytes) -> list[StreamEvent]:
    codec = codec_for(operation)
    assert codec is not None
    return codec.stream_decoder().feed(body)


def without_calls(events: list[StreamEvent], *indices: int, marker: str = "") -> list[StreamEvent]:
    """The events without some tool calls; `marker` is said in the place of the first."""
    left: list[StreamEvent] = []
    for event in events:
        if isinstance(event, ToolCallStart | ToolCallDelta | ToolCallEnd) and event.index in indices:
            if marker and isinstance(event, ToolCallStart) and event.index == indices[0]:
                left.append(TextDelta(INSERTED, marker))
            continue
        left.append(event)
    return left


def with_arguments(events: list[StreamEvent], index: int, arguments: str) -> list[StreamEvent]:
    """The events with other arguments for one tool call: its start, one delta, its end."""
    left: list[StreamEvent] = []
    for event in events:
        if isinstance(event, ToolCallDelta) and event.index == index:
            continue
        if isinstance(event, ToolCallEnd) and event.index == index:
            left.append(ToolCallDelta(index, arguments))
        left.append(event)
    return left


def with_texts(events: list[StreamEvent], change: Any) -> list[StreamEvent]:
    """The events with `change` done to every piece of text; empty results are dropped."""
    left: list[StreamEvent] = []
    for event in events:
        if isinstance(event, TextDelta):
            text = change(event.text)
            if text:
                left.append(msgspec.structs.replace(event, text=text, raw=b""))
        else:
            left.append(event)
    return left


@st.composite
def edits(draw: st.DrawFn, events: list[StreamEvent], *, wild: bool) -> list[StreamEvent]:
    """What a policy may make of `events`. Tame: whole calls go or change, texts change, go or come. Wild: anything."""
    calls = [event.index for event in events if isinstance(event, ToolCallStart)]
    fates = {index: draw(st.sampled_from(("keep", "hold", "drop", "mark", "edit"))) for index in calls}
    left: list[StreamEvent] = []
    held: dict[int, list[StreamEvent]] = {}
    for event in events:
        if isinstance(event, ToolCallStart | ToolCallDelta | ToolCallEnd):
            fate = fates.get(event.index, "keep")
            if fate == "keep":
                left.append(event)
                continue
            pieces = held.setdefault(event.index, [])
            pieces.append(event)
            if isinstance(event, ToolCallEnd):
                if fate == "hold":
                    left += pieces
                elif fate == "mark":
                    left.append(TextDelta(INSERTED, "[blocked]"))
                elif fate == "edit":
                    left += [pieces[0], ToolCallDelta(event.index, '{"edited": true}'), event]
            continue
        if isinstance(event, TextDelta | ThinkingDelta):
            fate = draw(st.sampled_from(("keep", "keep", "drop", "change", "double", "before", "after")))
            new = msgspec.structs.replace(event, text=f"<{event.text}>", raw=b"")
            if fate == "before":
                left.append(TextDelta(INSERTED, "note"))
            if fate in ("keep", "before", "after"):
                left.append(event)
            elif fate in ("change", "double"):
                left += [new] * (2 if fate == "double" else 1)
            if fate == "after":
                left.append(TextDelta(INSERTED, "note"))
            continue
        left.append(event)
    if not wild:
        return left
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(left) - 1)))
        what = draw(st.sampled_from(("drop", "again", "swap", "move", *_MADE)))
        index = draw(st.integers(-1, 5))
        if not left:
            break
        if what == "drop":
            del left[at]
        elif what == "again":
            left.insert(at, left[at])
        elif what == "swap":
            other = draw(st.integers(0, len(left) - 1))
            left[at], left[other] = left[other], left[at]
        elif what == "move":
            left.insert(draw(st.integers(0, len(left) - 1)), left.pop(at))
        else:
            left[at:at] = _MADE[what](index)
    return left


_MADE: dict[str, Callable[[int], list[StreamEvent]]] = {
    "call": lambda index: [ToolCallStart(index, "id_new", "tool"), ToolCallDelta(index, "{}"), ToolCallEnd(index)],
    "start without a name": lambda index: [ToolCallStart(index, "id_new", "")],
    "start without an id": lambda index: [ToolCallStart(index, "", "tool")],
    "delta": lambda index: [ToolCallDelta(index, '{"a": "\ud800"}')],
    "end of a call": lambda index: [ToolCallEnd(index)],
    "text": lambda index: [TextDelta(index, "x\ud800\x00")],
    "thinking": lambda index: [ThinkingDelta(index, "hm")],
    "opaque": lambda index: [OpaqueEvent("made up", b"data: {}\n\n")],
    "stop": lambda index: [
        StopEvent(("stop", "tool_calls", "end_turn", "tool_use", "completed", "incomplete", "max_tokens")[index])
    ],
    "usage": lambda index: [UsageEvent(Usage(3, 2))],
    "error": lambda index: [ErrorEvent(AnswerError("overloaded_error", "busy"))],
    "end": lambda index: [EndEvent()],
}
"""What a policy may make up, for an index from -1 to 5."""
