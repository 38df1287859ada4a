"""Anthropic Messages: bodies, streams, and token counts whose input includes what came from the cache."""

from __future__ import annotations

import json
from typing import Any

from proxy_core.wire.anthropic_messages import CODEC, COUNT_TOKENS_CODEC
from proxy_core.wire.conversation import (
    Answer,
    AnswerError,
    ImageBlock,
    OpaqueBlock,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    ToolCallBlock,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolResultBlock,
    Usage,
)
from tests.proxy_core.wire.streams import MESSAGES


def streamed(*events: dict[str, Any]) -> Answer:
    decoder = CODEC.stream_decoder()
    for event in events:
        decoder.feed(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
    return decoder.finish()


def test_a_request_becomes_a_conversation_with_its_system_prompt_first() -> None:
    request = (
        b'{"model":"c-1","stream":true,"system":[{"type":"text","text":"Be kind."}],"messages":['
        b'{"role":"user","content":"hi"},'
        b'{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"c2ln"},'
        b'{"type":"tool_use","id":"toolu_1","name":"run","input":{"n": 1.0}},{"type":"server_tool_use","id":"s"}]},'
        b'{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_1","is_error":true,"content":"boom"},'
        b'{"type":"image","source":{"type":"url","url":"https://pictures.example/1.png"}},'
        b'{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"AAAA"}}]}],'
        b'"tools":[{"name":"run","description":"Runs.","input_schema":{"type":"object"}},{"type":"web_search_1","name":"search"}]}'
    )
    conversation = CODEC.read_request(request)
    assert (conversation.model, conversation.stream, conversation.problem) == ("c-1", True, None)
    system, user, assistant, results = conversation.messages
    assert (system.role, [block.raw for block in system.blocks]) == ("system", [b'{"type":"text","text":"Be kind."}'])
    assert user.blocks == (TextBlock("hi", b'"hi"'),)
    thinking, call, server_call = assistant.blocks
    assert isinstance(thinking, ThinkingBlock)
    assert (thinking.text, thinking.signature) == ("hm", "c2ln")
    assert isinstance(call, ToolCallBlock)
    assert (call.call_id, call.name, call.arguments) == ("toolu_1", "run", '{"n": 1.0}')
    assert server_call == OpaqueBlock("server_tool_use", b'{"type":"server_tool_use","id":"s"}')
    result, image, document = results.blocks
    assert isinstance(result, ToolResultBlock)
    assert (result.call_id, result.content, result.is_error) == ("toolu_1", "boom", True)
    assert isinstance(image, ImageBlock)
    assert image.url == "https://pictures.example/1.png"
    assert isinstance(document, ImageBlock)
    assert (document.kind, document.media_type) == ("document", "application/pdf")
    assert [(tool.name, tool.parameters) for tool in conversation.tools] == [("run", '{"type":"object"}'), ("search", "")]


def test_an_answer() -> None:
    answer = CODEC.read_response(
        b'{"id":"msg_1","type":"message","role":"assistant","model":"c-1","content":[{"type":"text","text":"hi","citations":[]},'
        b'{"type":"tool_use","id":"t","name":"f","input":{"a":  1}},{"type":"redacted_thinking","data":"eA"}],'
        b'"stop_reason":"tool_use","usage":{"input_tokens":3,"cache_creation_input_tokens":10,"cache_read_input_tokens":200,'
        b'"output_tokens":7,"output_tokens_details":{"thinking_tokens":2}}}'
    )
    assert answer.text == "hi"
    assert [(call.call_id, call.name, call.arguments) for call in answer.tool_calls] == [("t", "f", '{"a":  1}')]
    assert answer.blocks[2] == OpaqueBlock("redacted_thinking", b'{"type":"redacted_thinking","data":"eA"}')
    assert answer.usage == Usage(213, 7, 200, 10, 2)
    assert (answer.stop_reason, answer.model, answer.response_id) == ("tool_use", "c-1", "msg_1")


def test_errors() -> None:
    overloaded = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_1"}'
    assert CODEC.read_response(overloaded).error == AnswerError("overloaded_error", "Overloaded")
    event = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    answer = streamed({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}, event)
    assert (answer.text, answer.error, answer.complete) == ("x", AnswerError("overloaded_error", "Overloaded"), False)


def test_the_golden_stream() -> None:
    decoder = CODEC.stream_decoder()
    events = [event for event in decoder.feed(MESSAGES) if isinstance(event, TextDelta | ThinkingDelta | ToolCallDelta)]
    assert [event.index for event in events] == [0, 1, 2, 2]
    assert decoder.finish() == Answer(
        (
            ThinkingBlock("hm", "c2ln+/="),
            TextBlock('event: message_stop "type":"message_stop"'),
            ToolCallBlock("toolu_1", "read_file", '{"path": "a.txt"}'),
            ToolCallBlock("toolu_2", "now", "{}"),
        ),
        Usage(127, 42, 100, 20),
        "tool_use",
        None,
        "c-1",
        "msg_1",
    )


def test_calls_begin_and_end() -> None:
    decoder = CODEC.stream_decoder()
    edges = [event for event in decoder.feed(MESSAGES) if isinstance(event, ToolCallStart | ToolCallEnd)]
    assert [(type(event), event.index) for event in edges] == [
        (ToolCallStart, 2),
        (ToolCallEnd, 2),
        (ToolCallStart, 3),
        (ToolCallEnd, 3),
    ]


def test_server_tools_stay_opaque_with_their_input() -> None:
    block = {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {}}
    piece = {"type": "input_json_delta", "partial_json": '{"query":"x"}'}
    answer = streamed(
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": piece},
        {"type": "content_block_stop", "index": 0},
    )
    assert answer.tool_calls == ()
    (opaque,) = answer.blocks
    assert isinstance(opaque, OpaqueBlock)
    assert opaque.kind == "server_tool_use"
    assert json.loads(opaque.raw) == {**block, "input": {"query": "x"}}


def test_deltas_without_a_start_are_still_read() -> None:
    answer = streamed(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
        {"type": "content_block_delta", "index": 5, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
    )
    assert answer.blocks == (TextBlock("a"), ToolCallBlock("", "", "{}"))


def test_later_usage_replaces_earlier_and_keeps_what_is_left_out() -> None:
    answer = streamed(
        {"type": "message_start", "message": {"usage": {"input_tokens": 1, "cache_read_input_tokens": 5, "output_tokens": 1}}},
        {"type": "message_delta", "delta": {}, "usage": {"input_tokens": 4, "cache_read_input_tokens": None, "output_tokens": 9}},
    )
    assert answer.usage == Usage(9, 9, 5)


def test_counted_tokens_are_input() -> None:
    assert COUNT_TOKENS_CODEC.read_response(b'{"input_tokens":14}').usage == Usage(14)
    assert COUNT_TOKENS_CODEC.read_response(b'{"input_tokens":"many"}').usage is None
    assert COUNT_TOKENS_CODEC.read_request(b'{"messages":[{"role":"user","content":"x"}]}').messages[0].role == "user"


def test_counts_of_a_stream_add_up_and_never_shrink() -> None:
    start = {"input_tokens": 10, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2, "output_tokens": 1}
    later = {
        "input_tokens": 0,
        "output_tokens": 30,
        "cache_read_input_tokens": None,
        "server_tool_use": {"web_search_requests": 2},
    }
    answer = streamed(
        {"type": "message_start", "message": {"model": "c", "usage": start}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": later},
        {"type": "message_stop"},
    )
    assert answer.usage == Usage(17, 30, 5, 2, web_searches=2)


def test_what_compacting_and_advice_took_is_counted() -> None:
    def part(kind: str, read: int, output: int, **more: Any) -> dict[str, Any]:
        return {"type": kind, "input_tokens": 100, "cache_read_input_tokens": read, "output_tokens": output, **more}

    parts = [part("compaction", 5_000, 80), part("advisor_message", 7, 9, model="c-2"), part("message", 0, 8)]
    usage = {"input_tokens": 100, "cache_read_input_tokens": 0, "output_tokens": 8, "iterations": parts}
    start = {"input_tokens": 100, "cache_read_input_tokens": 5_000, "output_tokens": 7}
    answer = streamed(
        {"type": "message_start", "message": {"model": "c", "usage": start}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage},
    )
    assert answer.usage == Usage(5_200, 88, 5_000, elsewhere=(("c-2", Usage(107, 9, 7)),))
    body = json.dumps({"type": "message", "content": [], "usage": usage}).encode()
    assert CODEC.read_response(body).usage == answer.usage


def test_cache_writes_for_an_hour_are_told_apart() -> None:
    usage = {
        "input_tokens": 1,
        "cache_creation_input_tokens": 7,
        "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4},
        "output_tokens": 9,
    }
    body = json.dumps({"type": "message", "content": [], "usage": usage}).encode()
    assert CODEC.read_response(body).usage == Usage(8, 9, None, 7, cache_write_1h_tokens=4)
