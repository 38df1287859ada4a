"""The diff tells what policies changed, in the words of the canonical form, for streams as for whole bodies."""

from __future__ import annotations

import json
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy_core.control.diff import MAX_CHANGES, MAX_VALUE, diff_request, diff_response
from proxy_core.wire.dialects import Operation


def chat(**changes: Any) -> bytes:
    body = {
        "model": "gpt-4o",
        "temperature": 0.2,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "My key is hunter2."},
            {"role": "assistant", "content": None, "tool_calls": [call("c1", "ls", '{"path": "/"}')]},
            {"role": "tool", "tool_call_id": "c1", "content": "bin etc"},
        ],
        "tools": [{"type": "function", "function": {"name": "ls", "parameters": {"type": "object"}}}],
    }
    return json.dumps({**body, **changes}).encode()


def call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def messages(**changed: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(chat())["messages"]
    for place, message in changed.items():
        found[int(place[1:])] = message
    return found


def told(operation: Operation, before: bytes, after: bytes) -> list[tuple[str, str, str | None, str | None]]:
    return [(one.path, one.kind, one.before, one.after) for one in diff_request(operation, before, after).changes]


def answered(operation: Operation, before: bytes, after: bytes) -> list[tuple[str, str, str | None, str | None]]:
    return [(one.path, one.kind, one.before, one.after) for one in diff_response(operation, before, after).changes]


def chat_stream(*pieces: str) -> bytes:
    chunks = [{"id": "x", "model": "m", "choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
    chunks.append({"id": "x", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


def anthropic_stream(*events: dict[str, Any]) -> bytes:
    return b"".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in events)


def anthropic_tool(command: str, *, stop: str = "tool_use") -> bytes:
    arguments = json.dumps({"command": command})
    return anthropic_stream(
        {"type": "message_start", "message": {"id": "msg", "model": "claude", "usage": {"input_tokens": 5}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t", "name": "sh", "input": {}}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": piece}}
            for piece in (arguments[:4], arguments[4:])
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    )


def test_the_same_bytes_do_not_differ() -> None:
    assert not diff_request(Operation.CHAT, chat(), chat())
    assert not diff_response(Operation.CHAT, chat_stream("a"), chat_stream("a"))


def test_a_changed_text_is_named_by_its_message_and_block() -> None:
    after = chat(messages=messages(m1={"role": "user", "content": "My key is [redacted]."}))
    assert told(Operation.CHAT, chat(), after) == [
        ("messages[1].content[0].text", "changed", "My key is hunter2.", "My key is [redacted].")
    ]


def test_an_inserted_message_does_not_make_the_others_differ() -> None:
    history = messages()
    history.insert(1, {"role": "system", "content": "Ask first."})
    assert told(Operation.CHAT, chat(), chat(messages=history)) == [("messages[1]", "added", None, "system: Ask first.")]
    assert told(Operation.CHAT, chat(messages=history), chat()) == [("messages[1]", "removed", "system: Ask first.", None)]


def test_fields_tools_and_model_are_named() -> None:
    after = chat(model="gpt-4o-mini", temperature=1, seed=7, tools=[])
    assert told(Operation.CHAT, chat(), after) == [
        ("model", "changed", "gpt-4o", "gpt-4o-mini"),
        ("tools.ls", "removed", '{"type": "function", "function": {"name": "ls", "parameters": {"type": "object"}}}', None),
        ("temperature", "changed", "0.2", "1"),
        ("seed", "added", None, "7"),
    ]


def test_a_field_that_the_canonical_form_lacks_is_found_in_its_message() -> None:
    after = chat(messages=messages(m1={"role": "user", "content": "My key is hunter2.", "name": "ann"}))
    assert told(Operation.CHAT, chat(), after) == [("messages[1].name", "added", None, "ann")]


def test_another_way_to_write_the_same_json_is_no_difference() -> None:
    assert not diff_request(Operation.CHAT, chat(), json.dumps(json.loads(chat()), indent=2, sort_keys=True).encode())


def test_the_anthropic_system_prompt_comes_first() -> None:
    before = json.dumps({"model": "c", "system": "Be kind.", "messages": [{"role": "user", "content": "hi"}]}).encode()
    after = before.replace(b"Be kind.", b"Be curt.")
    assert told(Operation.MESSAGES, before, after) == [("messages[0].content[0].text", "changed", "Be kind.", "Be curt.")]


def test_a_stream_in_other_chunks_does_not_differ() -> None:
    assert not diff_response(Operation.CHAT, chat_stream("hel", "lo"), chat_stream("h", "", "ello"))


@given(st.text(max_size=30), st.text(max_size=30), st.lists(st.integers(0, 30), max_size=4))
def test_a_stream_differs_exactly_where_its_text_does(before: str, after: str, cuts: list[int]) -> None:
    places = sorted({min(cut, len(after)) for cut in cuts})
    pieces = [after[a:b] for a, b in zip([0, *places], [*places, len(after)], strict=True)]
    changes = answered(Operation.CHAT, chat_stream(before), chat_stream(*pieces))
    assert bool(changes) == (before != after)


def test_a_text_that_was_changed_in_a_stream_is_shown_whole() -> None:
    assert answered(Operation.CHAT, chat_stream("hel", "lo"), chat_stream("HEL", "LO")) == [
        ("content[0].text", "changed", "hello", "HELLO")
    ]


def test_an_edited_tool_call_in_a_stream() -> None:
    assert answered(Operation.MESSAGES, anthropic_tool("rm -rf /"), anthropic_tool("ls")) == [
        ("content[0].arguments", "changed", '{"command": "rm -rf /"}', '{"command": "ls"}')
    ]


def test_a_blocked_tool_call_is_removed_and_its_text_added() -> None:
    after = anthropic_stream(
        {"type": "message_start", "message": {"id": "msg", "model": "claude", "usage": {"input_tokens": 5}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Blocked."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    )
    assert answered(Operation.MESSAGES, anthropic_tool("rm"), after) == [
        ("content[0]", "removed", 'sh({"command": "rm"})', None),
        ("content[0]", "added", None, "Blocked."),
        ("stop_reason", "changed", "tool_use", "end_turn"),
    ]


def test_a_stream_against_an_error_body() -> None:
    denied = b'{"type":"error","error":{"type":"invalid_request_error","message":"denied"}}'
    paths = {one[0]: one[1] for one in answered(Operation.MESSAGES, anthropic_tool("rm"), denied)}
    assert paths["content[0]"] == "removed"
    assert paths["error"] == "added"


def test_ollama_lines() -> None:
    def lines(*pieces: str) -> bytes:
        parts = [{"model": "m", "message": {"role": "assistant", "content": piece}, "done": False} for piece in pieces]
        parts.append({"model": "m", "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"})
        return b"".join(json.dumps(part).encode() + b"\n" for part in parts)

    assert not diff_response(Operation.OLLAMA_CHAT, lines("ab", "c"), lines("a", "bc"))
    assert answered(Operation.OLLAMA_CHAT, lines("ab", "c"), lines("abd")) == [("content[0].text", "changed", "abc", "abd")]


def test_bodies_that_no_codec_reads() -> None:
    assert told(Operation.OTHER, b'{"a": [1, 2, 3]}', b'{"a": [1, 3]}') == [("a[1]", "removed", "2", None)]
    assert told(Operation.OTHER, b"one", b"two") == [("body", "changed", "one", "two")]
    assert told(Operation.CHAT, chat(), b"\xff\xfe")[0][0] == "body"
    assert told(Operation.CHAT, b"", chat())[0][0] == "body"


def test_hostile_bodies_stay_cheap() -> None:
    begun = time.thread_time()
    many = [json.dumps({"x": [["ab"[(i + j + k) % 2] for i in range(300)] for j in range(1_000)]}).encode() for k in (0, 1)]
    found = diff_request(Operation.OTHER, *many)
    assert found.truncated
    assert len(found.changes) == MAX_CHANGES
    deep = b"[" * 100_000
    assert diff_request(Operation.OTHER, deep, deep + b"]")
    long = "x" * 2_000_000
    before, after = (chat(messages=[{"role": "user", "content": long + mark + long}]) for mark in "ab")
    (change,) = diff_request(Operation.CHAT, before, after).changes
    assert change.cut
    assert change.before is not None and change.after is not None
    assert len(change.before) <= MAX_VALUE + 2
    assert "xax" in change.before and "xbx" in change.after
    assert time.thread_time() - begun < 5
