"""OpenAI Responses: items in both directions, and streams that end with the whole response."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy_core.wire.conversation import (
    Answer,
    AnswerError,
    OpaqueBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolResultBlock,
    Usage,
)
from proxy_core.wire.openai_responses import CODEC
from tests.proxy_core.wire.streams import RESPONSES


def answer_of(*items: dict[str, Any], **fields: Any) -> Answer:
    response = {"id": "resp_1", "object": "response", "status": "completed", "model": "r-1", "output": list(items), **fields}
    return CODEC.read_response(json.dumps(response).encode())


def test_a_request_becomes_a_conversation() -> None:
    request = (
        b'{"model":"r-1","stream":true,"instructions":"Be quick.","input":['
        b'{"role":"user","content":[{"type":"input_text","text":"hi"}]},'
        b'{"type":"reasoning","summary":[{"type":"summary_text","text":"plan"}],"encrypted_content":"Zm9v"},'
        b'{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},'
        b'{"type":"function_call_output","call_id":"c1","output":"done"},'
        b'{"type":"web_search_call","id":"ws_1"},{"type":"item_reference","id":"msg_9"}],'
        b'"tools":[{"type":"function","name":"f","parameters":{}},{"type":"web_search"}]}'
    )
    conversation = CODEC.read_request(request)
    assert (conversation.model, conversation.stream, conversation.problem) == ("r-1", True, None)
    assert [message.role for message in conversation.messages] == [
        "system", "user", "assistant", "assistant", "tool", "assistant", "item_reference",
    ]  # fmt: skip
    system, user, reasoning, call, result, search, _ = (message.blocks[0] for message in conversation.messages)
    assert isinstance(system, TextBlock)
    assert isinstance(user, TextBlock)
    assert (system.text, user.text) == ("Be quick.", "hi")
    assert isinstance(reasoning, ThinkingBlock)
    assert (reasoning.text, reasoning.signature) == ("plan", "Zm9v")
    assert isinstance(call, ToolCallBlock)
    assert isinstance(result, ToolResultBlock)
    assert (call.call_id, result.call_id, result.content) == ("c1", "c1", "done")
    assert isinstance(search, OpaqueBlock)
    assert [tool.name for tool in conversation.tools] == ["f", "web_search"]
    assert all(message.raw in request for message in conversation.messages)


def test_input_may_be_plain_text() -> None:
    (message,) = CODEC.read_request(b'{"input":"hello"}').messages
    assert (message.role, message.blocks) == ("user", (TextBlock("hello", b'"hello"'),))
    assert CODEC.read_request(b'{"input":7}').problem is not None


@pytest.mark.parametrize(
    ("item", "name", "arguments"),
    [
        ({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{"}, "f", "{"),
        ({"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "*** Begin"}, "patch", "*** Begin"),
        (
            {"type": "local_shell_call", "call_id": "c", "action": {"command": ["rm", "x"]}},
            "local_shell",
            '{"command": ["rm", "x"]}',
        ),
        ({"type": "computer_call", "call_id": "c", "action": {"type": "click"}}, "computer", '{"type": "click"}'),
        ({"type": "apply_patch_call", "call_id": "c", "operation": {"path": "a"}}, "apply_patch", '{"path": "a"}'),
    ],
)
def test_calls_that_the_client_carries_out(item: dict[str, Any], name: str, arguments: str) -> None:
    (call,) = answer_of(item).tool_calls
    assert (call.call_id, call.name, call.arguments) == ("c", name, arguments)


def test_an_answer_with_usage_and_provider_tools() -> None:
    answer = answer_of(
        {"type": "web_search_call", "id": "ws"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}, {"type": "refusal"}]},
        usage={
            "input_tokens": 9,
            "input_tokens_details": {"cached_tokens": 4},
            "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 1},
        },
    )
    assert [getattr(block, "kind", "text") for block in answer.blocks] == ["web_search_call", "text", "refusal"]
    assert (answer.text, answer.stop_reason, answer.usage) == ("a", "completed", Usage(9, 3, 4, None, 1))


def test_errors() -> None:
    assert CODEC.read_response(b'{"error":{"message":"bad","type":"invalid","code":null}}').error == AnswerError("invalid", "bad")
    failed = answer_of(status="failed", error={"code": "server_error", "message": "broken"})
    assert (failed.error, failed.stop_reason) == (AnswerError("server_error", "broken"), "failed")
    decoder = CODEC.stream_decoder()
    decoder.feed(b'event: error\ndata: {"type":"error","code":"rate_limit","message":"later","param":null}\n\n')
    answer = decoder.finish()
    assert (answer.error, answer.complete) == (AnswerError("rate_limit", "later"), True)


def test_the_golden_stream() -> None:
    decoder = CODEC.stream_decoder()
    events = decoder.feed(RESPONSES)
    calls = [event for event in events if isinstance(event, ToolCallStart | ToolCallDelta | ToolCallEnd)]
    assert [type(event) for event in calls] == [ToolCallStart, *[ToolCallDelta] * 3, ToolCallEnd]
    answer = decoder.finish()
    assert [type(block) for block in answer.blocks] == [ThinkingBlock, TextBlock, ToolCallBlock]
    assert answer.text == "event: response.completed"
    assert [(call.call_id, call.arguments) for call in answer.tool_calls] == [("call_1", '{"cmd":"ls"}')]
    assert answer.usage == Usage(50, 30, 10, None, 12)
    assert (answer.stop_reason, answer.model, answer.response_id, answer.complete) == ("completed", "r-1", "resp_1", True)


def test_a_stream_that_breaks_off_gives_what_came() -> None:
    decoder = CODEC.stream_decoder()
    decoder.feed(
        RESPONSES[: RESPONSES.index(b'event: response.function_call_arguments.delta\ndata: {"type":"response.function_')]
    )
    answer = decoder.finish()
    assert not answer.complete
    assert [type(block) for block in answer.blocks] == [ThinkingBlock, TextBlock, ToolCallBlock]
    assert answer.tool_calls[0].name == "shell"


def test_a_call_that_comes_whole_still_begins_and_ends() -> None:
    item = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    decoder = CODEC.stream_decoder()
    event = {"type": "response.output_item.done", "output_index": 0, "item": item}
    events = decoder.feed(f"data: {json.dumps(event)}\n\n".encode())
    assert [type(event) for event in events] == [ToolCallStart, ToolCallDelta, ToolCallEnd]


def test_the_tier_of_an_answer_goes_with_its_usage() -> None:
    body = {"object": "response", "status": "completed", "output": [], "service_tier": "priority", "usage": {"input_tokens": 3}}
    assert CODEC.read_response(json.dumps(body).encode()).usage == Usage(3, tier="priority")
